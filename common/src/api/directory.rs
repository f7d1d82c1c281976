//! Ways to shard nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::ShardApi;
use crate::ids::NodeId;

/// Finds the way to a node: its own implementation of [`ShardApi`] within one process, a client over the wire otherwise.
/// Clones share one directory.
#[derive(Clone, Default)]
pub struct NodeDirectory {
    nodes: Arc<RwLock<BTreeMap<NodeId, Arc<dyn ShardApi>>>>,
}

impl NodeDirectory {
    /// Makes `node` reachable through `api`, replacing the way that was known.
    pub fn insert(&self, node: NodeId, api: Arc<dyn ShardApi>) {
        self.nodes.write().insert(node, api);
    }

    /// Forgets the way to `node`.
    pub fn remove(&self, node: NodeId) {
        self.nodes.write().remove(&node);
    }

    /// The way to `node`, if one is known.
    pub fn get(&self, node: NodeId) -> Option<Arc<dyn ShardApi>> {
        self.nodes.read().get(&node).cloned()
    }

    /// Forgets all ways. Nodes of one process know each other: without this none of them would ever be dropped.
    pub fn clear(&self) {
        self.nodes.write().clear();
    }

    /// All nodes to which a way is known, ascending.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.read().keys().copied().collect()
    }
}
