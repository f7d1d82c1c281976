//! A coordinator process, composed of its parts over injected seams: the program and the simulation run the same.

mod edge;
mod join;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vicinal_common::clock::Clock;
use vicinal_common::disk::Disk;
use vicinal_common::error::Result;
use vicinal_common::rng::Rng;
use vicinal_common::transport::{Address, Transport};

pub use edge::Edge;

use crate::members::Members;
use crate::meta::{Catalog, CatalogOptions, Founding, Loaded, MetaStore};
use crate::placement::Reconciler;
use crate::shards::ShardAccess;
use crate::{Coordinator, CoordinatorOptions};
use vicinal_common::api::{NodeDirectory, RemoteNode};

/// How often the leading coordinator looks whether a vote is due.
const SETTLE: Duration = Duration::from_millis(500);
/// Longest time the parts may take to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The coordinator's name, unique in the cluster.
    pub name: String,
    /// Where other processes reach it.
    pub advertise: Address,
    /// Whether it may found a cluster when it has no data.
    pub bootstrap: bool,
    /// Coordinators to ask for a cluster when it has no data.
    pub join: Vec<Address>,
    /// The rest.
    pub coordinator: CoordinatorOptions,
}

/// What the process gives.
pub struct ProcessEnv {
    /// Where the metadata is kept.
    pub store: Box<dyn MetaStore>,
    /// The disk and directory whose free space is watched, if they are.
    pub space: Option<(Arc<dyn Disk>, PathBuf)>,
    /// The way to other processes.
    pub transport: Arc<dyn Transport>,
    /// Identities.
    pub rng: Arc<dyn Rng>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// A running coordinator.
pub struct CoordinatorProcess {
    coordinator: Arc<Coordinator>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl CoordinatorProcess {
    /// Opens the metadata, finds its cluster and starts to work. `edge` must be reachable at the advertised address
    /// already: other coordinators are asked, and ask, before there is a cluster. Waits for as long as the coordinators
    /// it has to ask do not answer.
    pub async fn start(options: ProcessOptions, env: ProcessEnv, edge: &Edge) -> Result<CoordinatorProcess> {
        let ProcessEnv { store, space, transport, rng, clock } = env;
        let loaded = Loaded::read(CatalogOptions {
            name: options.name.clone(),
            address: options.advertise.clone(),
            store,
            transport: transport.clone(),
            rng: rng.clone(),
            clock,
            cluster: None,
        });
        let loaded = loaded.await?;
        let is_new = loaded.is_new();
        let founding = match is_new {
            true => {
                edge.is_new();
                join::founding(&options, &*transport).await?
            }
            false => Founding::Never,
        };
        let catalog = loaded.open(founding).await?;
        if let Some((disk, dir)) = space {
            catalog.guard_space(disk, dir);
        }
        edge.open(&catalog);
        let started = Self::begin(options, &catalog, transport, rng, edge, is_new).await;
        if started.is_err() {
            catalog.shutdown().await;
        }
        started
    }

    async fn begin(
        options: ProcessOptions,
        catalog: &Catalog,
        transport: Arc<dyn Transport>,
        rng: Arc<dyn Rng>,
        edge: &Edge,
        is_new: bool,
    ) -> Result<CoordinatorProcess> {
        if !is_new {
            join::check_others(&options, &*transport, catalog).await?;
        }
        join::join(&options, &*transport, catalog).await?;
        let (nodes, members) = (NodeDirectory::default(), edge.members().clone());
        let coordinator = Coordinator::new(catalog.clone(), nodes.clone(), members.clone(), rng, options.coordinator)?;
        edge.serve(&coordinator.shards);
        let stop = CancellationToken::new();
        let reconciler = Reconciler::new(catalog.clone(), nodes.clone(), members.clone())
            .with_asked(coordinator.shards.asked.clone());
        let tasks = vec![
            tokio::spawn(follow_nodes(catalog.clone(), coordinator.shards.clone(), members, transport, stop.clone())),
            tokio::spawn(reconciler.run(stop.clone())),
            tokio::spawn(settle_voters(catalog.clone(), stop.clone())),
        ];
        Ok(CoordinatorProcess { coordinator: Arc::new(coordinator), tasks, stop })
    }

    /// What serves requests.
    pub fn coordinator(&self) -> &Arc<Coordinator> {
        &self.coordinator
    }

    /// Gives the lead of the metadata group to another coordinator, then stops. `false` when that took too long; what was
    /// confirmed is on the disk in any case.
    pub async fn shutdown(self) -> bool {
        let stopped = async {
            self.stop.cancel();
            for task in self.tasks {
                if let Err(error) = task.await {
                    tracing::error!("a background task ended badly: {error}");
                }
            }
            self.coordinator.catalog.hand_over().await;
            self.coordinator.catalog.shutdown().await;
        };
        timeout(STOP_TIME_MAX, stopped).await.is_ok()
    }
}

/// Keeps a way to every node that the metadata names, and the maps that searches are routed by.
async fn follow_nodes(
    catalog: Catalog,
    shards: Arc<ShardAccess>,
    members: Arc<Members>,
    transport: Arc<dyn Transport>,
    stop: CancellationToken,
) {
    let nodes = &shards.nodes;
    let mut changed = catalog.changed();
    let mut ways = std::collections::BTreeMap::new();
    loop {
        // Marked as seen before the state is read: a change in between wakes the wait below.
        changed.borrow_and_update();
        let state = catalog.state();
        for (node, info) in &state.nodes {
            if ways.get(node) != Some(&info.address) {
                let way = RemoteNode::new(*node, info.address.clone(), transport.clone());
                nodes.insert(*node, Arc::new(way));
                ways.insert(*node, info.address.clone());
            }
        }
        ways.retain(|node, _| state.nodes.contains_key(node));
        for gone in nodes.ids().into_iter().filter(|node| !state.nodes.contains_key(node)) {
            nodes.remove(gone);
        }
        members.retain(|node| state.nodes.contains_key(&node));
        shards.follow_maps(&state);
        tokio::select! {
            () = stop.cancelled() => return,
            alive = changed.changed() => if alive.is_err() { return },
        }
    }
}

async fn settle_voters(catalog: Catalog, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(SETTLE) => {}
        }
        if let Err(error) = catalog.settle_voters().await {
            tracing::warn!("the votes of the coordinators stay as they are until the next try: {error}");
        }
    }
}
