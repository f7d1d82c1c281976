//! What a collection can change while it lives: how its replicas answer, never what.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, NodeId, ShardId};
use crate::payload_index::PayloadIndexes;
use crate::publish::MapRef;

/// What the replicas of a collection shall have beside its points. No order between writes and a change of this matters,
/// so it is in no shard's log: a replica that knows an older one answers the same, only slower or with more memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Grows with every change: of two the one with the larger revision is right. 0: all as by default.
    pub revision: u64,
    /// The payload indexes.
    pub payload_indexes: PayloadIndexes,
    /// Where open graphs are.
    pub graphs: GraphPlacement,
    /// Vectors of which home shards need no graph: search shards have it.
    pub unindexed: BTreeSet<String>,
    /// Search shards with the nodes that hold them, where home shards send copies.
    pub search_shards: BTreeMap<ShardId, Vec<NodeId>>,
    /// All home shards with the nodes that hold them, where search shards ask which copies are still needed. Empty unless
    /// the collection is routed by cluster.
    pub home_shards: BTreeMap<ShardId, Vec<NodeId>>,
    /// The epoch of those home shards.
    pub epoch: Epoch,
    /// The map that searches are routed by. Search shards sweep by it while it is the only one they may be searched by.
    pub map: Option<MapRef>,
    /// The map whose centroids are the clusters of points: replicas know the nearest one of each row.
    pub clustering: Option<MapRef>,
}

/// Where the graphs of a collection are while they are open: copied to memory, or used in their mapped files, whose pages
/// the system may drop and read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphPlacement {
    /// In their files, for vectors that say nothing of their own.
    pub on_disk: bool,
    /// The same for single vectors, by name: goes before `on_disk`.
    pub vectors: BTreeMap<String, bool>,
}

/// A change of a [`GraphPlacement`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphPlacementChange {
    /// What vectors shall do that say nothing of their own; `None`: as before.
    pub on_disk: Option<bool>,
    /// What single vectors shall do, by name; `None`: say nothing of their own any more.
    pub vectors: BTreeMap<String, Option<bool>>,
}

impl GraphPlacement {
    /// Whether the graph of a vector is used in its file.
    pub fn is_on_disk(&self, vector: &str) -> bool {
        self.vectors.get(vector).copied().unwrap_or(self.on_disk)
    }

    /// The same after a change.
    pub fn changed(&self, change: &GraphPlacementChange) -> GraphPlacement {
        let mut next = self.clone();
        next.on_disk = change.on_disk.unwrap_or(self.on_disk);
        for (name, own) in &change.vectors {
            match own {
                Some(own) => next.vectors.insert(name.clone(), *own),
                None => next.vectors.remove(name),
            };
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_s_own_choice_goes_before_the_collection_s() {
        let change = |on_disk, vectors: &[(&str, Option<bool>)]| GraphPlacementChange {
            on_disk,
            vectors: vectors.iter().map(|(name, own)| ((*name).to_owned(), *own)).collect(),
        };
        let mut graphs = GraphPlacement::default();
        for (change, expected) in [
            (change(None, &[]), [false, false]),
            (change(Some(true), &[]), [true, true]),
            (change(None, &[("b", Some(false))]), [true, false]),
            (change(Some(false), &[("a", Some(true))]), [true, false]),
            (change(Some(true), &[]), [true, false]),
            (change(None, &[("b", None), ("never", None)]), [true, true]),
            (change(Some(false), &[]), [true, false]),
        ] {
            graphs = graphs.changed(&change);
            assert_eq!(["a", "b"].map(|name| graphs.is_on_disk(name)), expected, "{change:?}");
        }
    }
}
