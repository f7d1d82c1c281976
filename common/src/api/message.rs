//! The messages of [`super::ShardApi`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::collection::CollectionSchema;
use crate::consistency::Consistency;
use crate::error::Result;
use crate::filter::Filter;
use crate::ids::{CollectionId, Epoch, LogIndex, MapDigest, MapVersion, NodeId, ShardId};
use crate::payload::Payload;
use crate::point::{PointId, Vectors};
use crate::publish::{PublishStatus, ShardRole};
use crate::transport::Address;
use crate::tuning::Tuning;

use super::clusters::ClusterSample;
use super::goal::Goal;
use super::order::OrderValue;

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
    /// Which part of the collection it is. The schema of a search shard has the routed vector only.
    pub role: ShardRole,
}

/// Founds a shard's raft group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundGroup {
    /// The shard.
    pub shard: ShardId,
    /// All voters with their addresses.
    pub voters: BTreeMap<NodeId, Address>,
}

/// Changes who holds a shard. Sent to the replica that leads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeMembers {
    /// The shard.
    pub shard: ShardId,
    /// Who shall vote, with their addresses.
    pub voters: BTreeMap<NodeId, Address>,
    /// Who shall follow without a vote, with their addresses; nobody else shall be a member.
    pub learners: BTreeMap<NodeId, Address>,
    /// Those of the learners that must hold nearly all there is before the change is done. The others may be behind, or
    /// away.
    pub filled: BTreeSet<NodeId>,
}

/// How far a change of members is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersChange {
    /// The members are as wanted.
    Done,
    /// New members are catching up; ask again.
    CatchingUp {
        /// Log entries that the one furthest behind still misses.
        entries: u64,
    },
}

/// What a replica shall have beside its points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tune {
    /// The shard.
    pub shard: ShardId,
    /// The collection it must be part of.
    pub collection: CollectionId,
    /// What it shall have.
    pub tuning: Tuning,
}

/// A map to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutMap {
    /// The collection it belongs to.
    pub collection: CollectionId,
    /// Digest of its bytes.
    pub digest: MapDigest,
    /// The map, at most [`crate::limits::MAP_BYTES_MAX`].
    pub bytes: Bytes,
}

/// Which maps of a collection are still needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepMaps {
    /// The collection.
    pub collection: CollectionId,
    /// Version of the newest map when this was decided. Maps whose own version is larger stay, so a late message never
    /// removes a map that came after it; the largest number for a collection that is gone.
    pub as_of: MapVersion,
    /// These stay.
    pub digests: Vec<MapDigest>,
}

/// What every read carries.
#[derive(Clone, Debug)]
pub struct ReadContext {
    /// The collection.
    pub collection: CollectionId,
    /// The token table it was routed by; where search shards are asked, the version of the map.
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
    /// The log index up to which the state held everything that was read; 0 when nothing was read. A later read with
    /// this as its floor sees nothing older.
    pub applied: LogIndex,
    /// Its result, or why there is none.
    pub result: Result<T>,
}

/// Search of several shards of one node, for several queries.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// The queries; answers keep their order.
    pub queries: Arc<Vec<SearchQuery>>,
}

/// The best points for one goal.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchQuery {
    /// Name of the vector searched.
    pub vector_name: String,
    /// What is looked for: vectors of the collection's kind and dimension, prepared for its metric.
    pub goal: Goal,
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

/// A page of points in some order.
#[derive(Clone, Debug)]
pub struct ScrollRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// Which points come first.
    pub order: ScrollOrder,
    /// How many points each shard returns at most.
    pub limit: usize,
    /// Which points.
    pub filter: Option<Arc<Filter>>,
    /// What to return.
    pub parts: PointParts,
}

/// The order of a page of points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ScrollOrder {
    /// By id.
    Id {
        /// The first id (inclusive); `None`: from the beginning.
        from: Option<PointId>,
    },
    /// By the numbers and times at a key of the payload. A point comes once for each; one that has none does not come.
    Key(OrderBy),
    /// By [`random_key`]: a page is then a sample, each choice of points as likely as any other.
    Random {
        /// Another seed, another choice.
        seed: u64,
    },
    /// A sample over clusters; each point has its cluster in [`StoredPoint::order`].
    Clusters(ClusterSample),
}

/// Order by a key of the payload. Equal values are in order of the ids, in the same direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderBy {
    /// The key path.
    pub key: String,
    /// Largest first.
    pub descending: bool,
    /// The first value (inclusive).
    pub from: Option<OrderValue>,
}

/// What a random order is by: uniform over seeds, and for one seed over ids.
pub fn random_key(seed: u64, id: PointId) -> u64 {
    let (bytes, length) = id.to_bytes();
    xxh3_64_with_seed(&bytes[..length], seed)
}

/// Which values a payload key has, and how many points have each.
#[derive(Clone, Debug)]
pub struct FacetRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// The key path.
    pub key: String,
    /// Which points count; `None`: all.
    pub filter: Option<Arc<Filter>>,
}

/// A value that can be counted. Ordered as ties are shown: truth values, numbers, texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FacetValue {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Keyword(String),
}

/// A value, and how many points have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacetCount {
    /// The value.
    pub value: FacetValue,
    /// Points that have it, each counted once.
    pub count: u64,
}

/// In how many points dimensions of a sparse vector have a value.
#[derive(Clone, Debug)]
pub struct FrequencyRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// Name of the sparse vector.
    pub vector_name: String,
    /// The dimensions, ascending, each once.
    pub indices: Arc<Vec<u32>>,
    /// Which points count; `None`: all.
    pub filter: Option<Arc<Filter>>,
}

/// See [`FrequencyRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frequencies {
    /// Points that have the vector.
    pub points: u64,
    /// Per dimension, points that have a value there.
    pub of: Vec<u64>,
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
    /// The value it has its place in a page by, in an order by a payload key; its cluster in a sample over clusters.
    pub order: Option<OrderValue>,
}

/// Digests of whole shards.
#[derive(Clone, Debug)]
pub struct DigestRequest {
    /// Shards and bounds.
    pub context: ReadContext,
}

/// What a replica holds, in a few bytes: replicas that have applied the same log index have the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDigest {
    /// Live points.
    pub points: u64,
    /// Sum, modulo 2^64, of xxh3 over each point's id, version, vectors and payload: no order matters.
    pub digest: u64,
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
    /// The maps it has.
    pub maps: Vec<MapDigest>,
}

/// State of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its collection.
    pub collection: CollectionId,
    /// Its part in the shard's raft group.
    pub role: ReplicaRole,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// Last log index in its log.
    pub last_log: LogIndex,
    /// Last applied log index.
    pub applied: LogIndex,
    /// Members that vote, as far as it knows, with the addresses by which the group reaches them.
    pub voters: BTreeMap<NodeId, Address>,
    /// Members that do not vote.
    pub learners: BTreeMap<NodeId, Address>,
    /// How far each other member's log is; known to the leader only.
    pub matched: BTreeMap<NodeId, LogIndex>,
    /// Live points.
    pub points: u64,
    /// Vectors covered by an index (a graph), or scanned by design: few of them, or search shards have the graphs.
    pub indexed_vectors: u64,
    /// Vectors in segments that are to get a graph and have none yet.
    pub waiting_vectors: u64,
    /// Immutable segments.
    pub segments: u64,
    /// Rows not yet in a segment.
    pub fresh_rows: u64,
    /// Bytes of segment and index files.
    pub disk_bytes: u64,
    /// Revision of the [`Tuning`] that it follows.
    pub tuning: u64,
    /// Payload indexes.
    pub payload: PayloadStatus,
    /// Whether background work (sealing, merging, index building) is under way or due.
    pub optimizing: bool,
    /// Vector indexes that are being built.
    pub builds: Vec<BuildStatus>,
    /// Why the replica does not serve, in plain words.
    pub failed: Option<String>,
    /// How far it is with routing by cluster.
    pub publish: PublishStatus,
    /// Searches that it has answered since it was opened.
    pub searches: u64,
}

/// A vector index that is being built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildStatus {
    /// Name of the vector; `""` is the unnamed one.
    pub vector: String,
    /// Number of the segment.
    pub segment: u64,
    /// Rows to insert.
    pub rows: u64,
    /// Rows inserted so far.
    pub rows_done: u64,
    /// Seconds since the build began.
    pub seconds: f64,
    /// Whether it waits for other builds to give memory back.
    pub waits_for_memory: bool,
}

impl BuildStatus {
    /// Seconds that the rest takes at the pace so far; `None` until there is a pace.
    pub fn eta_seconds(&self) -> Option<f64> {
        let left = self.rows.saturating_sub(self.rows_done) as f64;
        (self.rows_done > 0).then(|| self.seconds * left / self.rows_done as f64)
    }
}

/// Payload indexes of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadStatus {
    /// Indexes of segments that are not built yet.
    pub missing: u64,
    /// Per field, live points that have a value in its index. Rows that are not indexed yet do not count.
    pub points: BTreeMap<String, u64>,
}

/// Part of a replica in its shard's raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReplicaRole {
    /// Orders the writes.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Raft does not run: see why in [`ReplicaStatus::failed`].
    Down,
}

impl ReplicaStatus {
    /// A replica of which nothing more is known.
    pub fn unknown(shard: ShardId, collection: CollectionId) -> ReplicaStatus {
        ReplicaStatus {
            shard,
            collection,
            role: ReplicaRole::Down,
            leader: None,
            term: 0,
            last_log: LogIndex(0),
            applied: LogIndex(0),
            voters: BTreeMap::new(),
            learners: BTreeMap::new(),
            matched: BTreeMap::new(),
            points: 0,
            indexed_vectors: 0,
            waiting_vectors: 0,
            segments: 0,
            fresh_rows: 0,
            disk_bytes: 0,
            tuning: 0,
            payload: PayloadStatus::default(),
            optimizing: false,
            builds: Vec::new(),
            failed: None,
            publish: PublishStatus::default(),
            searches: 0,
        }
    }
}
