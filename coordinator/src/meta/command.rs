//! What the metadata group agrees on, one log entry at a time. Stored in postcard form: variants are only ever added at
//! the end.

use std::fmt;

use serde::{Deserialize, Serialize};
use vicinal_common::collection::CollectionSchema;
use vicinal_common::error::Error;
use vicinal_common::ids::{ClusterId, CollectionId, LogIndex, MapVersion, NodeId, RequestId, ShardId};
use vicinal_common::payload_index::PayloadIndex;
use vicinal_common::publish::MapRef;
use vicinal_common::ring::TokenTable;
use vicinal_common::tuning::GraphPlacement;

use super::change::CollectionChange;
use super::clusters::{Clustering, ClusteringWish};
use super::routing::{Measured, Trained};
use super::state::{OperationId, Registration, Routing, Shard, StrictMode};

/// A log entry: a command and the identity by which it is applied at most once, however often it is proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetaRequest {
    /// Identity, the same for every attempt.
    pub request: RequestId,
    /// What to do.
    pub command: MetaCommand,
}

/// A change of the metadata. Everything that depends on time, chance or placement was decided by the one who proposes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MetaCommand {
    /// Gives the cluster its identity. Refused when it has another one.
    FoundCluster {
        /// The identity.
        cluster: ClusterId,
    },
    /// Makes a shard node known, or updates what it says of itself. A new node under the name of another one replaces
    /// that one: whoever proposes this has made sure that the other one is gone for good.
    RegisterNode {
        /// The node.
        node: NodeId,
        /// What it says of itself.
        registration: Registration,
        /// The time, in Unix milliseconds.
        now_ms: u64,
    },
    /// Begins a collection: it exists, its name is taken, nothing is served yet.
    CreateCollection(Box<CreateCommand>),
    /// Serves a collection all of whose shards have a leader.
    ActivateCollection {
        /// The collection.
        collection: CollectionId,
    },
    /// Takes a collection and its aliases away from clients. Its replicas are dropped after this.
    BeginDelete {
        /// The collection.
        collection: CollectionId,
        /// The time, in Unix milliseconds.
        now_ms: u64,
    },
    /// Forgets a collection whose replicas are all dropped.
    FinishDelete {
        /// The collection.
        collection: CollectionId,
    },
    /// Changes aliases in order, all of them or none.
    UpdateAliases(Vec<AliasChange>),
    /// Notes how far an operation is.
    Progress {
        /// The operation; one that is finished is left alone.
        operation: OperationId,
        /// Steps done.
        steps_done: u32,
    },
    /// Notes that a shard's group has exchanged one member for another.
    ReplaceReplica {
        /// The collection.
        collection: CollectionId,
        /// Its shard.
        shard: ShardId,
        /// The member that left.
        from: NodeId,
        /// The member that came.
        to: NodeId,
    },
    /// Forgets a replaced node that holds no replica any more.
    ForgetNode {
        /// The node.
        node: NodeId,
    },
    /// Wants an index of a field, or another one than before.
    CreateIndex {
        /// The collection.
        collection: CollectionId,
        /// Text form of the key path.
        field: String,
        /// The index.
        index: PayloadIndex,
    },
    /// Wants no index of a field any more; a missing one is fine.
    DropIndex {
        /// The collection.
        collection: CollectionId,
        /// Text form of the key path.
        field: String,
    },
    /// Changes what the owner of a collection may change of it.
    ChangeCollection {
        /// The collection.
        collection: CollectionId,
        /// The change.
        change: Box<CollectionChange>,
    },
    /// Notes that a shard's group has a member more, which follows without a vote and was filled.
    AddLearner {
        /// The collection.
        collection: CollectionId,
        /// Its shard.
        shard: ShardId,
        /// The member that came.
        node: NodeId,
    },
    /// Notes that a learner of a shard's group votes now.
    PromoteLearner {
        /// The collection.
        collection: CollectionId,
        /// Its shard.
        shard: ShardId,
        /// The member.
        node: NodeId,
    },
    /// Wants a new map of a collection that is routed by cluster.
    TrainMap {
        /// The collection.
        collection: CollectionId,
        /// The time, in Unix milliseconds.
        now_ms: u64,
    },
    /// Begins to fill search shards by the map that was wanted. Whoever proposes this has stored it where it has to be.
    BeginMap(Box<BeginMap>),
    /// Routes queries by the map that was filled. The one before, if there was one, is ending.
    ServeMap {
        /// The collection.
        collection: CollectionId,
        /// The map's version.
        version: MapVersion,
        /// Per search shard of the map, in its order: what a replica must have applied before it answers by this map.
        floors: Vec<LogIndex>,
    },
    /// Nothing is published by a map any more. Search shards that no map names any more are no part of the collection.
    EndMap {
        /// The collection.
        collection: CollectionId,
        /// The map's version.
        version: MapVersion,
    },
    /// Takes back a map before it is served, or the wish for it: then its version is the one that it would have had.
    AbortMap {
        /// The collection.
        collection: CollectionId,
        /// The map's version.
        version: MapVersion,
        /// The time, in Unix milliseconds.
        now_ms: u64,
    },
    /// Has home shards answer all queries again. The map that was served is ending.
    ServeHomes {
        /// The collection.
        collection: CollectionId,
        /// The time, in Unix milliseconds.
        now_ms: u64,
    },
    /// Wants the clusters of a collection to be trained.
    TrainClusters {
        /// The collection.
        collection: CollectionId,
        /// What is wanted.
        wish: ClusteringWish,
    },
    /// Serves clusters that were wanted. Whoever proposes this has stored the map where it has to be.
    ServeClusters {
        /// The collection.
        collection: CollectionId,
        /// The wish.
        wish: ClusteringWish,
        /// What came of it.
        trained: Clustering,
    },
    /// Forgets the clusters of a collection, and the wish for others.
    DropClusters {
        /// The collection.
        collection: CollectionId,
    },
    /// Notes that home shards are getting the graphs again without which they shall not answer all queries: what
    /// [`MetaCommand::ServeHomes`] ends with has begun.
    IndexHomes {
        /// The collection.
        collection: CollectionId,
        /// The time, in Unix milliseconds.
        now_ms: u64,
    },
    /// Wants the map that is served with cells moved or split so that search shards are even.
    BalanceMap {
        /// The collection.
        collection: CollectionId,
        /// Version of the map that comes of it.
        version: MapVersion,
        /// The time, in Unix milliseconds.
        now_ms: u64,
    },
    /// Notes how even search shards are.
    NoteBalance {
        /// The collection.
        collection: CollectionId,
        /// What was found.
        measured: Measured,
    },
}

/// A map by which search shards are to be filled.
///
/// Ids of new shards are drawn like those of [`CreateCommand`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeginMap {
    /// The collection.
    pub collection: CollectionId,
    /// The map.
    pub map: MapRef,
    /// Those of its search shards that do not exist yet, ids ascending.
    pub new_shards: Vec<Shard>,
    /// What training found.
    pub trained: Option<Trained>,
}

/// A new collection, with its placement and token table decided.
///
/// Shard ids are drawn by the proposer from the `next_shard` it sees, because the token table names them. Apply refuses
/// ids below its own `next_shard` with [`MetaReply::ShardIdsTaken`] (another proposal came first); the proposer then
/// draws again. So ids are never used twice, and a refused proposal wastes none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateCommand {
    /// Identity.
    pub id: CollectionId,
    /// Name.
    pub name: String,
    /// What the shards are created from.
    pub schema: CollectionSchema,
    /// Shards with their replicas, ids ascending.
    pub shards: Vec<Shard>,
    /// Which shard a point belongs to; names the ids of `shards` only.
    pub tokens: TokenTable,
    /// How points are spread over the shards.
    pub routing: Routing,
    /// Replicas per shard.
    pub replication_factor: u32,
    /// Replicas a write waits for.
    pub write_consistency_factor: u32,
    /// The client's create body after validation.
    pub config_json: String,
    /// What requests may not do.
    pub strict: StrictMode,
    /// Where open graphs are.
    pub graphs: GraphPlacement,
    /// The time, in Unix milliseconds.
    pub now_ms: u64,
}

/// One change of an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AliasChange {
    /// Points an alias, new or existing, to a collection.
    Create {
        /// The alias.
        alias: String,
        /// Name of the collection.
        collection: String,
    },
    /// Removes an alias; a missing one is fine.
    Delete {
        /// The alias.
        alias: String,
    },
    /// Gives an alias another name, replacing an alias that has it.
    Rename {
        /// The name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
}

/// What applying a command came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MetaReply {
    /// It took effect, or had taken effect before.
    Done,
    /// It changed nothing, and why.
    Refused(Error),
    /// It changed nothing: shard ids of the proposal are below this number.
    ShardIdsTaken {
        /// The least free shard id.
        next_shard: u64,
    },
}

impl fmt::Display for MetaRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.command {
            MetaCommand::FoundCluster { .. } => "found cluster",
            MetaCommand::RegisterNode { .. } => "register node",
            MetaCommand::CreateCollection(_) => "create collection",
            MetaCommand::ActivateCollection { .. } => "activate collection",
            MetaCommand::BeginDelete { .. } => "begin to delete collection",
            MetaCommand::FinishDelete { .. } => "finish deleting collection",
            MetaCommand::UpdateAliases(_) => "update aliases",
            MetaCommand::Progress { .. } => "progress of an operation",
            MetaCommand::ReplaceReplica { .. } => "replace replica",
            MetaCommand::ForgetNode { .. } => "forget node",
            MetaCommand::CreateIndex { .. } => "create payload index",
            MetaCommand::DropIndex { .. } => "drop payload index",
            MetaCommand::ChangeCollection { .. } => "change collection",
            MetaCommand::AddLearner { .. } => "add learner",
            MetaCommand::PromoteLearner { .. } => "promote learner",
            MetaCommand::TrainMap { .. } => "train map",
            MetaCommand::BeginMap(_) => "begin map",
            MetaCommand::ServeMap { .. } => "serve map",
            MetaCommand::EndMap { .. } => "end map",
            MetaCommand::AbortMap { .. } => "abort map",
            MetaCommand::ServeHomes { .. } => "serve homes",
            MetaCommand::IndexHomes { .. } => "index homes",
            MetaCommand::TrainClusters { .. } => "train clusters",
            MetaCommand::ServeClusters { .. } => "serve clusters",
            MetaCommand::DropClusters { .. } => "drop clusters",
            MetaCommand::BalanceMap { .. } => "balance map",
            MetaCommand::NoteBalance { .. } => "note balance",
        };
        write!(f, "{what} ({})", self.request)
    }
}
