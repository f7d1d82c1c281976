//! The coordinator itself: the metadata, the way to the shards, and what requests need of both.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vicinal_common::api::NodeDirectory;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::CollectionId;
use vicinal_common::limits::{REQUESTS_IN_FLIGHT_MAX, SHARDS_PER_COLLECTION_MAX};
use vicinal_common::rng::Rng;
use vicinal_common::telemetry::Registry;

use crate::http::{BODIES_KIB_MAX, RequestStats, StrictLimits};
use crate::members::Members;
use crate::meta::Catalog;
use crate::query::ClusterMaps;
use crate::shards::{CollectionRef, ShardAccess};

/// What an operator chooses.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatorOptions {
    /// Shards of a collection whose creator does not say, 1 to [`SHARDS_PER_COLLECTION_MAX`].
    pub default_shards: u32,
}

/// Routes requests to shards and merges their answers. Shared by all connections.
pub struct Coordinator {
    /// The cluster's metadata.
    pub catalog: Catalog,
    /// The way to the shards.
    pub shards: Arc<ShardAccess>,
    /// Which shard nodes are alive.
    pub members: Arc<Members>,
    /// Where request ids come from.
    pub rng: Arc<dyn Rng>,
    /// What the operator chose.
    pub options: CoordinatorOptions,
    /// What else the process has to show at `GET /metrics`.
    pub registry: Arc<Registry>,
    /// Room for request bodies, in KiB.
    pub(crate) bodies: Arc<Semaphore>,
    /// Maps of clusters that were used lately.
    pub(crate) cluster_maps: ClusterMaps,
    /// Requests so far.
    pub(crate) requests: RequestStats,
    /// When this coordinator came to be, in Unix milliseconds.
    pub(crate) started_ms: u64,
    /// Room for requests that are worked on.
    pub(crate) admission: Arc<Semaphore>,
    /// What is counted for collections that limit their requests.
    pub(crate) strict: StrictLimits,
    /// Whose turn it is to look how even search shards are.
    pub(crate) planning: Semaphore,
}

impl Coordinator {
    /// Ties the parts together. `BadInput` for options outside their range.
    pub fn new(
        catalog: Catalog,
        nodes: NodeDirectory,
        members: Arc<Members>,
        rng: Arc<dyn Rng>,
        options: CoordinatorOptions,
    ) -> Result<Coordinator> {
        let shards = options.default_shards;
        if !(1..=SHARDS_PER_COLLECTION_MAX).contains(&shards) {
            return Err(Error::BadInput(format!("{shards} shards, allowed are 1 to {SHARDS_PER_COLLECTION_MAX}")));
        }
        let bodies = Arc::new(Semaphore::new(BODIES_KIB_MAX));
        let (shards, requests) = (Arc::new(ShardAccess::new(nodes)), RequestStats::default());
        let (registry, started_ms) = (Arc::default(), catalog.now_ms());
        let admission = Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX));
        let strict = StrictLimits::default();
        Ok(Coordinator {
            catalog,
            shards,
            members,
            rng,
            options,
            registry,
            bodies,
            cluster_maps: ClusterMaps::default(),
            requests,
            started_ms,
            admission,
            strict,
            planning: Semaphore::new(1),
        })
    }

    /// The collection served under a name or an alias, in the newest metadata known here.
    pub fn collection(&self, name: &str) -> Result<CollectionRef> {
        self.catalog.state().resolve(name).cloned()
    }

    /// The same collection again: `NotFound` when the name stands for another one by now.
    pub fn same_collection(&self, name: &str, id: CollectionId) -> Result<CollectionRef> {
        let collection = self.collection(name)?;
        match collection.id == id {
            true => Ok(collection),
            false => Err(Error::NotFound(format!("Collection `{name}` doesn't exist!"))),
        }
    }

    /// Why requests cannot be served at the moment, if so.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.catalog.group().leader.is_none() {
            return Some("the metadata group has no leader");
        }
        if self.shards.nodes.ids().is_empty() || self.catalog.state().nodes.is_empty() {
            return Some("no shard node is registered");
        }
        None
    }
}
