//! The messages of [`super::ShardApi`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::collection::CollectionSchema;
use crate::consistency::Consistency;
use crate::error::Result;
use crate::filter::Filter;
use crate::ids::{CollectionId, Epoch, LogIndex, NodeId, RequestId, ShardId};
use crate::payload::Payload;
use crate::point::{Point, PointId, Vectors};
use crate::transport::Address;

/// What a replica is created from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaSpec {
    /// The shard.
    pub shard: ShardId,
    /// The collection it is part of.
    pub collection: CollectionId,
    /// The collection's schema.
    pub schema: CollectionSchema,
    /// Epoch of the token table at creation.
    pub epoch: Epoch,
}

/// Founds a shard's raft group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundGroup {
    /// The shard.
    pub shard: ShardId,
    /// All voters with their addresses.
    pub voters: BTreeMap<NodeId, Address>,
}

/// One write to one shard.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Identity of the client's write.
    pub request: RequestId,
    /// Which part of the client's write this is, counted per shard from 0: a batch that is too large for one log entry
    /// has several. `(request, part)` is applied at most once per shard.
    pub part: u32,
    /// The collection.
    pub collection: CollectionId,
    /// The token table it was routed by.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
    /// What to do.
    pub op: WriteOp,
    /// When to give up. The write may still take place after this.
    pub deadline: Instant,
}

/// A change of points. Also what a shard's raft log holds, in postcard form: variants are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WriteOp {
    /// Inserts points or replaces them whole.
    Upsert(Arc<Vec<Point>>),
    /// Deletes by id; missing ones are fine.
    Delete(Vec<PointId>),
    /// Deletes all points that match when the entry is applied.
    DeleteByFilter(LoggedFilter),
}

/// A filter as it is logged: its JSON text and the version of the evaluator, so that every replica and every replay
/// decides alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedFilter {
    /// The evaluator: see [`crate::filter::EVALUATOR_VERSION`].
    pub evaluator: u32,
    /// JSON of the [`Filter`].
    pub json: String,
}

/// Answer to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteAck {
    /// Position of the write in the shard's log: also the version of the points it wrote.
    pub index: LogIndex,
    /// Term of the leader that acknowledged.
    pub term: u64,
    /// Points written or deleted.
    pub affected: u64,
}

/// What every read carries.
#[derive(Clone, Debug)]
pub struct ReadContext {
    /// The collection.
    pub collection: CollectionId,
    /// The token table it was routed by.
    pub epoch: Epoch,
    /// The shards asked, each with the log index its replica must have applied.
    pub shards: Vec<(ShardId, LogIndex)>,
    /// What may be seen.
    pub consistency: Consistency,
    /// When to give up: work that cannot be answered in time is not begun.
    pub deadline: Instant,
}

/// What one shard answered.
#[derive(Clone, Debug)]
pub struct ShardAnswer<T> {
    /// The shard.
    pub shard: ShardId,
    /// Its result, or why there is none.
    pub result: Result<T>,
}

/// Search of several shards of one node, for several queries.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// The queries; answers keep their order.
    pub queries: Arc<Vec<NearestQuery>>,
}

/// Nearest neighbours of one vector.
#[derive(Clone, Debug, PartialEq)]
pub struct NearestQuery {
    /// Name of the vector searched.
    pub vector_name: String,
    /// The query, of the collection's dimension and prepared for its metric.
    pub vector: Arc<[f32]>,
    /// How many hits each shard returns at most.
    pub k: usize,
    /// Which points may be hits.
    pub filter: Option<Arc<Filter>>,
    /// Worst internal distance a hit may have (inclusive).
    pub distance_max: Option<f32>,
    /// Query beam; `None`: chosen by the shard from `k`.
    pub ef: Option<usize>,
    /// Exact scan instead of the index.
    pub exact: bool,
}

/// One hit of one shard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShardHit {
    /// Internal distance, smaller is nearer.
    pub distance: f32,
    /// The point.
    pub id: PointId,
    /// Its version when it was searched.
    pub version: LogIndex,
}

/// Which parts of a point to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PointParts {
    /// Whether the payload is wanted (a selector is applied by the coordinator).
    pub payload: bool,
    /// Which vectors are wanted.
    pub vectors: VectorSelector,
}

/// Which vectors of a point to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VectorSelector {
    /// None.
    #[default]
    None,
    /// All the point has.
    All,
    /// Those of these names that the point has.
    Named(Vec<String>),
}

/// Points by id. Every shard asked looks up all `ids`; the coordinator names for each node only the ids that route there.
#[derive(Clone, Debug)]
pub struct RetrieveRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// The ids.
    pub ids: Arc<Vec<PointId>>,
    /// What to return.
    pub parts: PointParts,
}

/// A page of points in id order.
#[derive(Clone, Debug)]
pub struct ScrollRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// First id of the page (inclusive); `None`: from the beginning.
    pub from: Option<PointId>,
    /// How many points each shard returns at most.
    pub limit: usize,
    /// Which points.
    pub filter: Option<Arc<Filter>>,
    /// What to return.
    pub parts: PointParts,
}

/// Number of matching points.
#[derive(Clone, Debug)]
pub struct CountRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// Which points; `None`: all.
    pub filter: Option<Arc<Filter>>,
}

/// A point as it is stored, with the parts that were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPoint {
    /// The id.
    pub id: PointId,
    /// Log index of the write that made this version.
    pub version: LogIndex,
    /// The payload, empty when not asked for.
    pub payload: Payload,
    /// The vectors asked for.
    pub vectors: Vectors,
}

/// State of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its replicas by shard.
    pub replicas: Vec<ReplicaStatus>,
    /// Why writes are refused at the moment (full disk), in plain words.
    pub read_only: Option<String>,
}

/// State of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its collection.
    pub collection: CollectionId,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// Last applied log index.
    pub applied: LogIndex,
    /// Live points.
    pub points: u64,
    /// Vectors covered by an index (a graph, or small enough to be scanned by design).
    pub indexed_vectors: u64,
    /// Immutable segments.
    pub segments: u64,
    /// Rows not yet in a segment.
    pub fresh_rows: u64,
    /// Bytes of segment and index files.
    pub disk_bytes: u64,
    /// Whether background work (sealing, merging, index building) is under way or due.
    pub optimizing: bool,
    /// Why the replica does not serve, in plain words.
    pub failed: Option<String>,
}
