//! `vicinal dev`: one coordinator and several shard nodes in one process. They are the same parts a cluster is made of;
//! only the way between them is short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vicinal_common::api::{NodeDirectory, ShardApi};
use vicinal_common::clock::SystemClock;
use vicinal_common::disk::RealDisk;
use vicinal_common::ids::ShardId;
use vicinal_common::rng::SeededRng;
use vicinal_common::transport::{Address, LocalTransport};
use vicinal_coordinator::members::Members;
use vicinal_coordinator::meta::{Catalog, CatalogOptions, Founding, Registration, SledStore};
use vicinal_coordinator::placement::Reconciler;
use vicinal_coordinator::{Coordinator, CoordinatorOptions};
use vicinal_shard_node::node::{NodeEnv, NodeOptions, ShardNode};
use vicinal_shard_node::shard::{Builder, BuilderOptions};

use crate::config::{DevArgs, DevConfig};
use crate::data_dir::DataDir;
use crate::process::counted;
use crate::traces::Export;
use crate::{demo, logging, process};

/// Longest wait for the metadata to take a node in.
const REGISTER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest wait at the start for replicas to know their leaders, which only the line about the points found needs.
const AGREE_TIME_MAX: Duration = Duration::from_millis(200);
const AGREE_PAUSE: Duration = Duration::from_millis(5);
/// Longest time the parts may take to stop after the last request.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);

/// Runs until it is told to stop.
pub(crate) fn run(args: &DevArgs) -> anyhow::Result<()> {
    let config = DevConfig::load(args)?;
    let export = Export::to(config.otlp_endpoint.as_deref(), "vicinal-dev", "dev");
    let _traces = logging::start(&config.log, config.log_format, export)?;
    process::run(serve(config))
}

async fn serve(config: DevConfig) -> anyhow::Result<()> {
    let started = Instant::now();
    let stop = process::stop_signal()?;
    let data = DataDir::open(&config.data_dir)?;
    let listener = process::listen(&config.listen).await?;
    let address = listener.local_addr()?;
    let parts = Parts::open(&config, &data).await?;
    tracing::info!("data directory {}: {}", config.data_dir.display(), parts.found().await);

    let options = CoordinatorOptions { default_shards: config.shards };
    let coordinator = Coordinator::new(
        parts.catalog.clone(),
        parts.directory.clone(),
        parts.members.clone(),
        parts.rng.clone(),
        options,
    )?;
    for node in &parts.nodes {
        coordinator.registry.add(node.clone());
    }
    let serving = vicinal_coordinator::http::serve(Arc::new(coordinator), listener, stop);
    let url = process::url(address);
    tracing::info!(
        "ready: REST at {url}, {}, started in {:.2} s; Ctrl-C stops it",
        counted(parts.nodes.len(), "shard node"),
        started.elapsed().as_secs_f64()
    );
    let demo = config.demo.then(|| tokio::spawn(show_demo(url)));
    let served = serving.await;
    if let Some(demo) = demo {
        demo.abort();
    }
    parts.close().await;
    served.context("the REST server failed")?;
    tracing::info!("stopped, all data is on disk");
    Ok(())
}

async fn show_demo(url: String) {
    if let Err(error) = demo::run(&url).await {
        tracing::error!("the demo failed: {error:#}; the server goes on");
    }
}

/// What runs behind the REST server.
struct Parts {
    rng: Arc<SeededRng>,
    catalog: Catalog,
    directory: NodeDirectory,
    members: Arc<Members>,
    nodes: Vec<Arc<ShardNode>>,
    reconciler: JoinHandle<()>,
    stop: CancellationToken,
}

impl Parts {
    async fn open(config: &DevConfig, data: &DataDir) -> anyhow::Result<Parts> {
        let names = data.node_names(config.nodes)?;
        let rng = Arc::new(SeededRng::from_os());
        let transport = LocalTransport::default();
        let search = process::search_pool()?;
        let builder = Builder::start(BuilderOptions::default())?;

        let catalog = open_catalog(data, rng.clone(), &transport).await?;
        let state = catalog.state();
        let cluster = state.cluster.context("the metadata names no cluster")?;
        let directory = NodeDirectory::default();
        let nodes = names.iter().map(|name| {
            let env = NodeEnv {
                disk: Arc::new(RealDisk),
                clock: Arc::new(SystemClock),
                rng: rng.clone(),
                transport: Arc::new(transport.clone()),
                address: Address(format!("local:{name}")),
                peers: directory.clone(),
                search: search.clone(),
                builder: builder.clone(),
            };
            let (options, transport) = (node_options(config, data, name), transport.clone());
            async move {
                let node = ShardNode::open(options, env).await.with_context(|| format!("shard node {name}"))?;
                // Reachable before the other nodes are open: groups with several replicas elect across them.
                transport.register(node.address().clone(), node.clone());
                node.join_cluster(cluster)?;
                anyhow::Ok(node)
            }
        });
        let nodes = try_join_all(nodes).await?;
        for node in &nodes {
            let deadline = tokio::time::Instant::now() + REGISTER_TIME_MAX;
            let (name, address) = (node.name().to_owned(), node.address().clone());
            catalog.register_node(node.id(), Registration { name, address, zone: None }, deadline).await?;
            directory.insert(node.id(), node.clone());
        }
        for (id, info) in state.nodes.iter().filter(|(id, _)| directory.get(**id).is_none()) {
            tracing::error!(
                "shard node {} (identity {id}) has lost its data: its directory was removed or replaced. Shards that \
                 only it held cannot serve; put the directory back, or delete and fill their collections again",
                info.name
            );
        }
        let stop = CancellationToken::new();
        let members = Arc::new(Members::local());
        let reconciler =
            tokio::spawn(Reconciler::new(catalog.clone(), directory.clone(), members.clone()).run(stop.clone()));
        Ok(Parts { rng, catalog, directory, members, nodes, reconciler, stop })
    }

    /// What the data directory holds, in words.
    async fn found(&self) -> String {
        let collections = self.catalog.state().collections.len();
        if collections == 0 {
            return "no collections yet".to_owned();
        }
        // A lone replica leads within milliseconds; several of a shard may take seconds, which no start waits for.
        let give_up = Instant::now() + AGREE_TIME_MAX;
        let (points, is_agreed) = loop {
            let (points, is_agreed) = self.points().await;
            if is_agreed || Instant::now() >= give_up {
                break (points, is_agreed);
            }
            tokio::time::sleep(AGREE_PAUSE).await;
        };
        let (collections, shards) = (counted(collections, "collection"), counted(points.len(), "shard"));
        if is_agreed {
            format!("found {collections} with {} points in {shards}", points.values().sum::<u64>())
        } else {
            format!("found {collections} in {shards}; replicas are electing leaders, which takes a second or two")
        }
    }

    /// Points by shard, and whether every replica knows its leader. Replicas of one shard hold the same points once they
    /// have a leader and have heard from it what counts.
    async fn points(&self) -> (BTreeMap<ShardId, u64>, bool) {
        let mut points = BTreeMap::new();
        let mut is_agreed = true;
        for status in join_all(self.nodes.iter().map(|node| node.status())).await.into_iter().flatten() {
            for replica in status.replicas {
                let most = points.entry(replica.shard).or_insert(0);
                *most = replica.points.max(*most);
                is_agreed &= replica.leader.is_some() || replica.failed.is_some();
            }
        }
        (points, is_agreed)
    }

    /// Stops everything in order: nobody places replicas any more, nodes seal and close, metadata last.
    async fn close(self) {
        let closed = async {
            self.stop.cancel();
            if let Err(error) = self.reconciler.await {
                tracing::error!("placing replicas ended badly: {error}");
            }
            join_all(self.nodes.iter().map(|node| node.shutdown())).await;
            self.catalog.shutdown().await;
        };
        if tokio::time::timeout(STOP_TIME_MAX, closed).await.is_err() {
            tracing::warn!("not everything stopped in time; acknowledged writes are in the log and come back");
        }
    }
}

async fn open_catalog(data: &DataDir, rng: Arc<SeededRng>, transport: &LocalTransport) -> anyhow::Result<Catalog> {
    let dir = data.coordinator();
    let store = tokio::task::spawn_blocking(move || SledStore::open(&dir)).await??;
    let address = Address("local:coordinator".to_owned());
    let options = CatalogOptions {
        name: "c1".to_owned(),
        address: address.clone(),
        store: Box::new(store),
        transport: Arc::new(transport.clone()),
        rng,
        clock: Arc::new(SystemClock),
        cluster: None,
    };
    let catalog = Catalog::open(options, Founding::IfNew).await?;
    catalog.guard_space(Arc::new(RealDisk), data.coordinator());
    transport.register(address, catalog.handler());
    Ok(catalog)
}

fn node_options(config: &DevConfig, data: &DataDir, name: &str) -> NodeOptions {
    let options = NodeOptions::new(data.node(name), name);
    process::with_choices(options, config.seal_bytes, config.disk_reserve_bytes)
}
