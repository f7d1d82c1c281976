//! What this coordinator has learned about shards: who leads each, and how far its writes have been acknowledged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use vicinal_common::error::Result;
use vicinal_common::ids::{LogIndex, NodeId, ShardId};

use crate::meta::{Collection, MetaState};
use crate::shard_client::NodeDirectory;

/// The way to shards: the nodes, and what answers have taught about their shards. Leaders are hints, never truth: a shard
/// that is asked in vain says where to go.
#[derive(Default)]
pub struct ShardAccess {
    /// The nodes that can be reached.
    pub nodes: NodeDirectory,
    leaders: RwLock<HashMap<ShardId, NodeId>>,
    floors: RwLock<HashMap<ShardId, LogIndex>>,
}

impl ShardAccess {
    /// Nothing learned yet.
    pub fn new(nodes: NodeDirectory) -> ShardAccess {
        ShardAccess { nodes, ..ShardAccess::default() }
    }

    /// The node last seen leading the shard.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.leaders.read().get(&shard).copied()
    }

    /// Notes who leads the shard.
    pub fn note_leader(&self, shard: ShardId, node: NodeId) {
        if self.leader(shard) != Some(node) {
            self.leaders.write().insert(shard, node);
        }
    }

    /// Forgets that `node` leads the shard; another leader noted meanwhile stays.
    pub fn forget_leader(&self, shard: ShardId, node: NodeId) {
        let mut leaders = self.leaders.write();
        if leaders.get(&shard) == Some(&node) {
            leaders.remove(&shard);
        }
    }

    /// The highest log index of the shard acknowledged to a client through this coordinator: what a read must have
    /// seen. `None` until the first one, which after a restart says nothing of writes acknowledged before it.
    pub fn floor(&self, shard: ShardId) -> Option<LogIndex> {
        self.floors.read().get(&shard).copied()
    }

    /// Notes an acknowledged write. Floors only rise.
    pub fn note_ack(&self, shard: ShardId, index: LogIndex) {
        let mut floors = self.floors.write();
        let floor = floors.entry(shard).or_default();
        *floor = (*floor).max(index);
    }

    /// Forgets shards that no longer exist, which bounds both tables by the number of shards.
    pub fn retain(&self, state: &MetaState) {
        let known: HashSet<ShardId> =
            state.collections.values().flat_map(|collection| collection.shard_ids()).collect();
        self.leaders.write().retain(|shard, _| known.contains(shard));
        self.floors.write().retain(|shard, _| known.contains(shard));
    }
}

/// A collection as it stood in one state of the metadata; stays valid while the metadata moves on.
pub type CollectionRef = Arc<Collection>;

/// Finds the collection of a request again: its shards or their epoch may have changed since it was routed.
pub type Lookup<'a> = &'a (dyn Fn() -> Result<CollectionRef> + Send + Sync);
