//! What a coordinator asks of a shard node. [`ShardApi`] is implemented by the node on its own replicas and by the
//! coordinator's client over the wire, so that the one who calls cannot tell which it has.

mod clusters;
mod directory;
mod edit;
mod goal;
mod message;
mod order;
mod remote;
pub mod wire;
mod write;

use async_trait::async_trait;
use bytes::Bytes;

pub use clusters::{ClusterSample, ClusterStat, ClusterStats, ClusterStatsRequest};
pub use directory::NodeDirectory;
pub use edit::PointEdit;
pub use goal::{Goal, Pair, Weighted};
pub use message::*;
pub use order::OrderValue;
pub use remote::RemoteNode;
pub use write::*;

use crate::error::Result;
use crate::ids::{MapDigest, ShardId};

/// A shard node as its coordinators see it. Every method can be repeated safely.
#[async_trait]
pub trait ShardApi: Send + Sync + 'static {
    /// Makes sure that a replica of the shard exists on this node. It serves once its raft group has a leader.
    async fn create_replica(&self, spec: ReplicaSpec) -> Result<()>;

    /// Founds the shard's raft group with the given voters. Sent to one designated replica, once all replicas exist;
    /// a group that is founded already is left alone.
    async fn found_group(&self, request: FoundGroup) -> Result<()>;

    /// Brings the members of a shard's raft group nearer to those wanted: takes in missing ones, gives them a vote once
    /// they have caught up, lets the others go. Asked again until it is done. `WrongLeader` when this replica does not
    /// lead.
    async fn change_members(&self, request: ChangeMembers) -> Result<MembersChange>;

    /// Removes the replica and its data from this node; a missing one is fine.
    async fn drop_replica(&self, shard: ShardId) -> Result<()>;

    /// Tells the replica what its collection wants beside its points. An older revision than it knows changes nothing.
    /// Returns once that is durable; indexes are built, and graphs opened where they shall be, in the background.
    async fn tune(&self, request: Tune) -> Result<()>;

    /// Writes to one shard. Returns once the write is durable on a majority and applied at the leader, and, of a home
    /// shard that publishes, once searches find what it wrote. The same request id is applied once and answered alike.
    async fn write(&self, request: WriteRequest) -> Result<WriteAck>;

    /// The best hits of each shard asked, for each query.
    async fn search(&self, request: SearchRequest) -> Vec<ShardAnswer<Vec<Vec<ShardHit>>>>;

    /// Points by id; ids that do not exist are left out.
    async fn retrieve(&self, request: RetrieveRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>>;

    /// The first points of each shard in some order.
    async fn scroll(&self, request: ScrollRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>>;

    /// How many points of each shard match.
    async fn count(&self, request: CountRequest) -> Vec<ShardAnswer<u64>>;

    /// The values of a payload key in each shard, in their order. `BadInput` when there are more than
    /// [`crate::limits::FACET_VALUES_MAX`].
    async fn facet(&self, request: FacetRequest) -> Vec<ShardAnswer<Vec<FacetCount>>>;

    /// How frequent dimensions of a sparse vector are in each shard.
    async fn frequencies(&self, request: FrequencyRequest) -> Vec<ShardAnswer<Frequencies>>;

    /// What is in each cluster of each shard asked, or how far replicas are with finding that out.
    async fn cluster_stats(&self, request: ClusterStatsRequest) -> Vec<ShardAnswer<ClusterStats>>;

    /// A digest of each shard asked, to compare replicas by.
    async fn digest(&self, request: DigestRequest) -> Vec<ShardAnswer<ShardDigest>>;

    /// Stores a map durably and keeps it, until [`ShardApi::keep_maps`] leaves it out. `Corrupt` when the bytes do not
    /// have the digest, `BadInput` when they are no map.
    async fn put_map(&self, request: PutMap) -> Result<()>;

    /// The bytes of a map; `NotFound` when it is not here.
    async fn get_map(&self, digest: MapDigest) -> Result<Bytes>;

    /// Removes the maps of a collection, all but these and those that are newer than what the request knew of.
    async fn keep_maps(&self, request: KeepMaps) -> Result<()>;

    /// State of the node and of all its replicas.
    async fn status(&self) -> Result<NodeStatus>;
}
