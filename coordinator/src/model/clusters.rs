//! Clusters in the model: the nearest centroid of each point, computed each time it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use vicinal_common::api::{ClusterSample, ClusterStat, ClusterStats, OrderValue, StoredPoint};
use vicinal_common::filter::{ClusteringName, Filter, InClusters};
use vicinal_common::ids::{MapDigest, MapVersion};
use vicinal_common::point::Point;
use vicinal_common::vector::Vector;
use vicinal_routing::{CentroidMap, Placer};

use super::ModelShard;

/// The version of a map.
pub(super) fn version(bytes: &[u8]) -> MapVersion {
    MapVersion(CentroidMap::decode(bytes).unwrap().parts().version)
}

/// What a shard of the model assigns by.
#[derive(Clone)]
pub(super) struct Assigning {
    digest: MapDigest,
    vector: String,
    placer: Arc<Placer>,
}

impl Assigning {
    pub(super) fn by(digest: MapDigest, vector: String, bytes: &[u8]) -> Assigning {
        let map = Arc::new(CentroidMap::decode(bytes).unwrap());
        Assigning { digest, vector, placer: Arc::new(Placer::new(map)) }
    }
}

impl ModelShard {
    fn cell(&self, map: MapDigest, point: &Point) -> Option<(u32, f32)> {
        let assigning = self.assigning.as_ref().filter(|by| by.digest == map)?;
        match point.vectors.get(&assigning.vector)? {
            Vector::Dense(vector) => Some(assigning.placer.cell(vector)),
            Vector::Sparse(_) | Vector::Multi(_) => None,
        }
    }

    /// Whether a point of the shard matches.
    pub(super) fn matches(&self, filter: Option<&Filter>, point: &Point) -> bool {
        let has = |name: &str| point.vectors.contains_key(name);
        let is_in = |asked: &InClusters| match asked.of {
            ClusteringName::Map(map) => self.cell(map, point).is_some_and(|(cluster, _)| asked.has(cluster)),
            ClusteringName::Current | ClusteringName::Version(_) => panic!("a filter was not fixed to a map"),
        };
        filter.is_none_or(|filter| filter.matches_with(point.id, &point.payload.fields().unwrap(), &has, &is_in))
    }

    pub(super) fn cluster_stats(&self, map: MapDigest) -> ClusterStats {
        let rows = self.points.len() as u64;
        if self.assigning.as_ref().is_none_or(|by| by.digest != map) {
            return ClusterStats { assigned: 0, rows, clusters: Vec::new() };
        }
        let mut clusters: BTreeMap<u32, ClusterStat> = BTreeMap::new();
        for (_, point) in self.points.values() {
            let Some((cluster, length)) = self.cell(map, point) else { continue };
            let (length_sum, nearest) = (length.into(), point.id);
            let one = ClusterStat { cluster, points: 1, length_sum, nearest_length: length, nearest };
            clusters.entry(cluster).and_modify(|known| *known = known.and(one)).or_insert(one);
        }
        ClusterStats { assigned: rows, rows, clusters: clusters.into_values().collect() }
    }

    /// Puts the points of a page in the order of a sample over clusters.
    pub(super) fn in_clusters(&self, sample: ClusterSample, page: Vec<StoredPoint>) -> Vec<StoredPoint> {
        let with_cluster = page.into_iter().filter_map(|stored| {
            let (cluster, _) = self.cell(sample.map, &self.points[&stored.id].1)?;
            Some((cluster, stored))
        });
        let mut all: Vec<(u32, StoredPoint)> = with_cluster.collect();
        all.sort_by_key(|(cluster, stored)| (sample.cluster_key(*cluster), sample.point_key(stored.id)));
        let mut taken: BTreeMap<u32, u64> = BTreeMap::new();
        all.retain(|(cluster, _)| {
            let taken = taken.entry(*cluster).or_default();
            *taken += 1;
            *taken <= sample.per_cluster
        });
        let shown = |(cluster, stored)| StoredPoint { order: Some(OrderValue::Integer(i64::from(cluster))), ..stored };
        all.into_iter().map(shown).collect()
    }
}
