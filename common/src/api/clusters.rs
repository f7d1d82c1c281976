//! The clusters of a shard's points: how many and how spread, and the order of a sample over clusters.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{ReadContext, random_key};
use crate::ids::MapDigest;
use crate::point::PointId;

/// Asks what is in each cluster of each shard.
#[derive(Clone, Debug)]
pub struct ClusterStatsRequest {
    /// Shards and bounds.
    pub context: ReadContext,
    /// The map that numbers the clusters.
    pub map: MapDigest,
}

/// The clusters of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterStats {
    /// Rows, dead ones included, whose cluster is known.
    pub assigned: u64,
    /// Rows, dead ones included.
    pub rows: u64,
    /// The clusters that have a point, ascending. Empty until all rows are assigned.
    pub clusters: Vec<ClusterStat>,
}

/// One cluster in one shard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterStat {
    /// Its id.
    pub cluster: u32,
    /// Live points.
    pub points: u64,
    /// The sum of their lengths to the centroid.
    pub length_sum: f64,
    /// The length of the nearest one.
    pub nearest_length: f32,
    /// Which one that is; of several the smallest id.
    pub nearest: PointId,
}

impl ClusterStats {
    /// Whether all rows are assigned: else nothing is said of clusters.
    pub fn is_ready(&self) -> bool {
        self.assigned >= self.rows
    }
}

impl ClusterStat {
    /// The same cluster over both shards.
    #[must_use]
    pub fn and(self, other: ClusterStat) -> ClusterStat {
        let is_nearer = other.nearest_length.total_cmp(&self.nearest_length).then(other.nearest.cmp(&self.nearest));
        let nearest = if is_nearer.is_lt() { other } else { self };
        ClusterStat {
            cluster: self.cluster,
            points: self.points + other.points,
            length_sum: self.length_sum + other.length_sum,
            ..nearest
        }
    }
}

/// A sample over clusters: in a random order of the clusters some points of each, chosen at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSample {
    /// Another seed, another choice.
    pub seed: u64,
    /// The map that numbers the clusters.
    pub map: MapDigest,
    /// Points of each cluster at most.
    pub per_cluster: u64,
}

impl ClusterSample {
    /// Where a cluster comes in the order.
    pub fn cluster_key(&self, cluster: u32) -> (u64, u32) {
        (xxh3_64_with_seed(&cluster.to_le_bytes(), self.seed), cluster)
    }

    /// Where a point comes in its cluster.
    pub fn point_key(&self, id: PointId) -> (u64, PointId) {
        (random_key(self.seed, id), id)
    }
}
