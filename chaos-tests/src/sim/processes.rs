//! The software of the simulated machines: the same compositions that the program runs, over simulated seams.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use vicinal_common::api::NodeDirectory;
use vicinal_common::transport::{Address, Handler};
use vicinal_coordinator::CoordinatorOptions;
use vicinal_coordinator::http::{RestPlace, process_router};
use vicinal_coordinator::meta::DiskStore;
use vicinal_coordinator::process::{CoordinatorProcess, Edge, ProcessEnv, ProcessOptions};
use vicinal_shard_node::node::{NodeEnv, NodeOptions};
use vicinal_shard_node::process::{NodeProcess, ProcessOptions as NodeProcessOptions};
use vicinal_shard_node::server::NodeHandler;
use vicinal_shard_node::service::SearchPool;
use vicinal_shard_node::shard::{Builder, BuilderOptions};

use super::network::{SimTransport, address, serve};
use super::site::{SimClock, Site};

/// Where a shard node has its data.
pub(super) const DATA: &str = "/data";
/// Sizes that make sealing, merging, purging and snapshots happen within seconds of virtual time.
const SEAL_BYTES: u64 = 8 << 10;
const SEGMENT_BYTES_MAX: u64 = 1 << 20;
const LOG_FILE_BYTES: u64 = 32 << 10;
const LOG_BYTES_MAX: u64 = 128 << 10;
const REPLAY_BYTES_MAX: u64 = 16 << 10;
const KEEP_BYTES_MAX: u64 = 16 << 10;

/// Runs until the machine is crashed. An error fails the simulation, unless the machine has just lost its power.
async fn on(site: &Site, software: impl Future<Output = anyhow::Result<()>>) -> turmoil::Result {
    let ended = software.await;
    site.silent_when_dead().await;
    match ended {
        Ok(()) => Err(format!("the process on {} has ended", site.name).into()),
        Err(error) => Err(format!("the process on {}: {error:#}", site.name).into()),
    }
}

/// A coordinator. The first one founds the cluster, the others join it.
pub(super) async fn coordinator(site: Arc<Site>, first: &'static str) -> turmoil::Result {
    on(&site, run_coordinator(site.clone(), first)).await
}

async fn run_coordinator(site: Arc<Site>, first: &'static str) -> anyhow::Result<()> {
    let rng = Arc::new(site.boot());
    let transport = Arc::new(SimTransport { site: site.clone() });
    let edge = Edge::new(site.name, transport.clone());
    let rest = RestPlace::default();
    let router = process_router(edge.clone(), rest.clone());
    let serving = tokio::spawn(serve(site.clone(), edge.clone(), Some(router)));
    let dir = Path::new("/metadata");
    let store = DiskStore::open(Arc::new(site.disk.clone()), dir)?;
    let is_first = site.name == first;
    let options = ProcessOptions {
        name: site.name.to_owned(),
        advertise: address(site.name),
        bootstrap: is_first,
        join: if is_first { Vec::new() } else { vec![address(first)] },
        coordinator: CoordinatorOptions { default_shards: 2 },
    };
    let env = ProcessEnv {
        store: Box::new(store),
        space: Some((Arc::new(site.disk.clone()), dir.to_path_buf())),
        transport,
        rng,
        clock: Arc::new(SimClock),
    };
    let process = CoordinatorProcess::start(options, env, &edge).await?;
    rest.open(process.coordinator().clone());
    *site.coordinator.lock() = Arc::downgrade(process.coordinator());
    site.trace.note_here(format_args!("{} is ready", site.name));
    Ok(serving.await??)
}

/// A shard node that reports to these coordinators.
pub(super) async fn shard_node(site: Arc<Site>, coordinators: Vec<&'static str>) -> turmoil::Result {
    on(&site, run_shard_node(site.clone(), coordinators)).await
}

async fn run_shard_node(site: Arc<Site>, coordinators: Vec<&'static str>) -> anyhow::Result<()> {
    let rng = Arc::new(site.boot());
    let door = Arc::new(Door::default());
    // Before the node is open, as the other replicas may call. They are told that nobody is there yet.
    let serving = tokio::spawn(serve(site.clone(), door.clone(), None));
    let builder =
        BuilderOptions { seal_threads: 1, build_threads: 1, threads_per_build: 1, ..BuilderOptions::default() };
    let env = NodeEnv {
        disk: Arc::new(site.disk.clone()),
        clock: Arc::new(SimClock),
        rng,
        transport: Arc::new(SimTransport { site: site.clone() }),
        address: address(site.name),
        peers: NodeDirectory::default(),
        search: SearchPool::start(1, 1_000)?,
        builder: Builder::start(builder)?,
    };
    let mut node = NodeOptions::new(DATA, site.name);
    node.disk_reserve_bytes = 1 << 20;
    node.log_bytes_max = LOG_BYTES_MAX;
    node.log.file_bytes = LOG_FILE_BYTES;
    node.group.replay_bytes_max = REPLAY_BYTES_MAX;
    node.group.keep_bytes_max = KEEP_BYTES_MAX;
    node.shard.seal_bytes = SEAL_BYTES;
    node.shard.segment_bytes_max = SEGMENT_BYTES_MAX;
    let coordinators: Vec<Address> = coordinators.into_iter().map(address).collect();
    let options = NodeProcessOptions { node, coordinators, zone: None };
    let process = NodeProcess::start(options, env).await?;
    *door.0.lock() = Some(NodeHandler::new(process.node().clone()));
    site.trace.note_here(format_args!("{} is ready", site.name));
    Ok(serving.await??)
}

/// Where a node answers once it is open.
#[derive(Default)]
struct Door(Mutex<Option<NodeHandler>>);

#[async_trait]
impl Handler for Door {
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes> {
        let handler = self.0.lock().clone()?;
        handler.handle(route, body).await
    }
}
