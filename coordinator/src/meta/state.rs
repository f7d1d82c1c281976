//! The metadata itself, and the questions asked of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vicinal_common::collection::CollectionSchema;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{ClusterId, CollectionId, Epoch, MapVersion, NodeId, RequestId, ShardId};
use vicinal_common::ring::TokenTable;
use vicinal_common::transport::Address;
use vicinal_common::tuning::Tuning;

use super::clusters::{Clustering, ClusteringWish};
use super::command::MetaReply;
pub use super::routing::Routing;
pub use super::strict::StrictMode;

/// Collections that can exist at a time, those being deleted included.
pub const COLLECTIONS_MAX: usize = 1_000;
/// Aliases that can exist at a time.
pub const ALIASES_MAX: usize = 10_000;
/// Requests whose replies are remembered, so that one sent again is applied once.
pub const REPLIES_MAX: usize = 256;

/// Everything the metadata group has agreed on. Cloned by readers behind an `Arc`; changed by apply only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetaState {
    /// The cluster; `None` until it is founded.
    pub cluster: Option<ClusterId>,
    /// Shard nodes that have ever registered.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// All collections by identity, those being created or deleted included. Shared, so that a reader can keep one and
    /// that copying the state stays cheap.
    pub collections: BTreeMap<CollectionId, Arc<Collection>>,
    /// Names in use. A collection being deleted has given its name up already.
    pub names: BTreeMap<String, CollectionId>,
    /// Alias to the name of its collection. Disjoint from the keys of `names`.
    pub aliases: BTreeMap<String, String>,
    /// No shard with this id or a larger one was ever created.
    pub next_shard: u64,
    /// No collection ever had a map of a larger version. One that is routed by cluster anew numbers its maps from here
    /// on: a version is never used twice in one collection.
    pub newest_map: MapVersion,
    /// Id of the next operation.
    pub next_operation: u64,
    /// Operations under way.
    pub operations: BTreeMap<OperationId, Operation>,
    /// Latest replies, oldest first, at most [`REPLIES_MAX`].
    pub(super) replies: VecDeque<(RequestId, MetaReply)>,
}

/// A shard node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The operator's name for it.
    pub name: String,
    /// Where it can be reached.
    pub address: Address,
    /// Where it stands; replicas of a shard are spread over zones.
    pub zone: Option<String>,
    /// When it first registered, in Unix milliseconds.
    pub registered_ms: u64,
    /// The node that came under the same name after this one's data was gone. Its replicas move there, then it is
    /// forgotten.
    pub replaced_by: Option<NodeId>,
}

/// What a shard node says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The operator's name for it, unique among nodes that are not replaced.
    pub name: String,
    /// Where it can be reached.
    pub address: Address,
    /// Where it stands.
    pub zone: Option<String>,
}

impl NodeInfo {
    /// Whether it has registered with just this.
    pub fn is_as(&self, registration: &Registration) -> bool {
        let Registration { name, address, zone } = registration;
        self.name == *name && self.address == *address && self.zone == *zone
    }
}

/// A collection as the cluster sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// Identity.
    pub id: CollectionId,
    /// Name clients use; no longer in use while the collection is being deleted.
    pub name: String,
    /// What its shards are created from.
    pub schema: CollectionSchema,
    /// Where it is in its life.
    pub state: CollectionState,
    /// Version of the token table.
    pub epoch: Epoch,
    /// Its home shards with their replicas, in order of their ids: all there are unless it is routed by cluster.
    pub shards: Vec<Shard>,
    /// Which home shard a point belongs to.
    pub tokens: TokenTable,
    /// How points are spread over its shards.
    pub routing: Routing,
    /// Replicas per shard, as asked for; 1 where nobody was asked, because there is one on each node.
    pub replication_factor: u32,
    /// Replicas a write waits for, as asked for. Raft's majority is the least in any case.
    pub write_consistency_factor: u32,
    /// The client's create body after validation and all changes since, echoed when the collection is described: without
    /// what `tuning` and `strict` say. The owner's `metadata` is in it.
    pub config_json: String,
    /// What its replicas shall have beside its points.
    pub tuning: Tuning,
    /// What requests may not do although it would work.
    pub strict: StrictMode,
    /// Its clusters, if they were asked for.
    pub clustering: Option<Clustering>,
    /// Clusters that are being trained, to take the place of those.
    pub clustering_wanted: Option<ClusteringWish>,
    /// When it was created, in Unix milliseconds.
    pub created_ms: u64,
}

impl Collection {
    /// Ids of the home shards, ascending.
    pub fn shard_ids(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.iter().map(|shard| shard.id)
    }

    /// The home shards and the search shards.
    pub fn all_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().chain(self.routing.cluster().into_iter().flat_map(|cluster| &cluster.shards))
    }

    /// One of its shards, a home shard or a search shard.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.all_shards().find(|shard| shard.id == id)
    }

    /// Whether it is one of its home shards.
    pub fn is_home(&self, id: ShardId) -> bool {
        self.shards.iter().any(|shard| shard.id == id)
    }

    /// By which version reads of one of its shards are routed: home shards have that of the token table, search shards
    /// that of a map which they know.
    pub fn epoch_of(&self, shard: ShardId) -> Epoch {
        match self.routing.cluster().filter(|_| !self.is_home(shard)) {
            Some(cluster) => Epoch(cluster.known_map().0),
            None => self.epoch,
        }
    }

    /// Puts what is known of a shard in place of what was.
    pub(super) fn put_shard(&mut self, shard: Shard) {
        let searched = match &mut self.routing {
            Routing::Cluster(cluster) => cluster.shards.as_mut_slice(),
            Routing::Hash | Routing::Replicate => &mut [],
        };
        if let Some(known) = self.shards.iter_mut().chain(searched).find(|known| known.id == shard.id) {
            *known = shard;
        }
    }

    /// Tells home shards and search shards where the others are, which map is served, and what needs no graph at home for
    /// that reason, when that has changed.
    pub(super) fn tell_shards(&mut self) {
        let places = |shards: &[Shard]| -> BTreeMap<ShardId, Vec<NodeId>> {
            shards.iter().map(|shard| (shard.id, shard.readers().collect())).collect()
        };
        let told = match self.routing.cluster() {
            Some(cluster) => Tuning {
                unindexed: cluster.unindexed(),
                search_shards: places(&cluster.shards),
                home_shards: places(&self.shards),
                epoch: self.epoch,
                map: cluster.serving.as_ref().map(|served| served.map.clone()),
                ..self.tuning.clone()
            },
            None => Tuning {
                unindexed: BTreeSet::new(),
                search_shards: BTreeMap::new(),
                home_shards: BTreeMap::new(),
                epoch: Epoch(0),
                map: None,
                ..self.tuning.clone()
            },
        };
        if self.tuning != told {
            self.tuning = Tuning { revision: told.revision + 1, ..told };
        }
    }
}

/// Where a collection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionState {
    /// Agreed on; its replicas are being created. Not served yet.
    Creating,
    /// Served.
    Active,
    /// Gone for clients; its replicas are being dropped.
    Deleting,
}

/// A shard and the nodes that hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The shard.
    pub id: ShardId,
    /// Nodes with a replica that votes, distinct. The first one founds the group.
    pub replicas: Vec<NodeId>,
    /// Nodes with a replica that follows without a vote and was filled once, distinct and none of the voters.
    pub learners: Vec<NodeId>,
}

impl Shard {
    /// Whom a read may be sent to: all nodes with a replica, those that vote first.
    pub fn readers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.replicas.iter().chain(&self.learners).copied()
    }

    /// Whether the node has a replica, with a vote or without.
    pub fn is_on(&self, node: NodeId) -> bool {
        self.readers().any(|reader| reader == node)
    }
}

/// Identity of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Work under way for a collection, removed when it is finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What is being done.
    pub kind: OperationKind,
    /// To which collection.
    pub collection: CollectionId,
    /// Since when, in Unix milliseconds.
    pub started_ms: u64,
    /// Steps done.
    pub steps_done: u32,
    /// Steps in all.
    pub steps_total: u32,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    /// Creates the replicas of a new collection and founds their groups.
    CreateCollection,
    /// Drops the replicas of a collection.
    DeleteCollection,
    /// Trains a map, fills search shards by it, and serves it in place of the one before.
    ChangeMap,
    /// Takes back a map that was not served yet.
    AbortMap,
    /// Has home shards answer searches again.
    ServeHomes,
    /// Trains the clusters of a collection.
    TrainClusters,
    /// Moves and splits cells of the map that is served, fills search shards by the result, and serves it.
    BalanceMap,
}

impl OperationKind {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            OperationKind::CreateCollection => "create_collection",
            OperationKind::DeleteCollection => "delete_collection",
            OperationKind::ChangeMap => "change_map",
            OperationKind::AbortMap => "abort_map",
            OperationKind::ServeHomes => "serve_homes",
            OperationKind::TrainClusters => "train_clusters",
            OperationKind::BalanceMap => "balance_map",
        }
    }
}

impl MetaState {
    /// The collection served under a name or an alias. `NotFound` (404) when there is none; `Unavailable` (503) while it
    /// is being created.
    pub fn resolve(&self, name: &str) -> Result<&Arc<Collection>> {
        let collection = self.lookup(name).ok_or_else(|| collection_missing(name))?;
        match collection.state {
            CollectionState::Active => Ok(collection),
            CollectionState::Creating => {
                Err(Error::Unavailable(format!("Collection `{name}` is still being created, try again shortly")))
            }
            CollectionState::Deleting => Err(collection_missing(name)),
        }
    }

    /// The collection under a name or an alias, also while it is being created.
    pub fn lookup(&self, name: &str) -> Option<&Arc<Collection>> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.collections.get(self.names.get(name)?)
    }

    /// The collections that are served, in order of their names.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Collection>> + '_ {
        let by_name = self.names.values().filter_map(|id| self.collections.get(id));
        by_name.filter(|collection| collection.state == CollectionState::Active)
    }

    /// Aliases of one collection, in order.
    pub fn aliases_of<'a>(&'a self, collection: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.aliases.iter().filter(move |(_, target)| *target == collection).map(|(alias, _)| alias.as_str())
    }

    /// The node that stands for `node` now: itself, or the last of those that replaced it.
    pub fn successor(&self, node: NodeId) -> NodeId {
        // Ends: a replacement is always a node that registered later, and none is its own.
        let mut current = node;
        while let Some(next) = self.nodes.get(&current).and_then(|info| info.replaced_by) {
            current = next;
        }
        current
    }

    /// The node of this name, leaving out those that were replaced.
    pub fn node_named(&self, name: &str) -> Option<(NodeId, &NodeInfo)> {
        let live = self.nodes.iter().filter(|(_, info)| info.replaced_by.is_none());
        live.map(|(node, info)| (*node, info)).find(|(_, info)| info.name == name)
    }

    /// Replicas that each registered node holds, those of collections being created or deleted included.
    pub fn replicas_per_node(&self) -> BTreeMap<NodeId, usize> {
        let mut count: BTreeMap<NodeId, usize> = self.nodes.keys().map(|node| (*node, 0)).collect();
        let shards = self.collections.values().flat_map(|collection| collection.all_shards());
        for node in shards.flat_map(Shard::readers) {
            *count.entry(node).or_default() += 1;
        }
        count
    }
}

/// What clients are told of a name that nothing answers to.
pub(super) fn collection_missing(name: &str) -> Error {
    Error::NotFound(format!("Collection `{name}` doesn't exist!"))
}
