//! Clusters to be looked at: a map whose centroids are the topics of the points, by which nothing is routed.

use std::num::NonZeroUsize;
use std::sync::Arc;

use rayon::prelude::*;
use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use crate::error::{RoutingError, invalid};
use crate::kmeans::{KMeansOptions, cluster};
use crate::learn::on_threads;
use crate::map::{CentroidMap, D1Quantiles, MapParts};
use crate::place::Placer;
use crate::theta::{Flatness, ThetaTable};

/// How to find clusters.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// Version of the map.
    pub version: u64,
    /// Clusters wanted, at least 1. There are fewer when there are not so many different points.
    pub count: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads to use. They are started, and end, with the call.
    pub threads: NonZeroUsize,
}

/// Finds clusters in a sample (row-major, prepared for the metric). The map has one shard, and keeps in `radius` the mean length
/// from each centroid to the points of its cell: no search is bounded by it, and how far a cluster drifts is told from that.
pub fn learn_clusters(
    sample: &[f32],
    dim: usize,
    metric: Metric,
    options: ClusterOptions,
) -> Result<CentroidMap, RoutingError> {
    if dim == 0 || sample.is_empty() || !sample.len().is_multiple_of(dim) {
        return Err(invalid(format!("{} values are no sample of points of {dim}", sample.len())));
    }
    on_threads(options.threads, || learn_here(Rows { data: sample, dim }, metric, options))
}

fn learn_here(sample: Rows<'_>, metric: Metric, options: ClusterOptions) -> Result<CentroidMap, RoutingError> {
    let clusters = cluster(sample, None, metric, KMeansOptions::new(options.count.max(1), options.seed));
    let cells = clusters.weights.len();
    let parts = MapParts {
        version: options.version,
        metric,
        dim: sample.dim,
        shards: 1,
        centroids: clusters.centroids,
        radius: vec![0.0; cells],
        weight: clusters.weights.iter().map(|weight| *weight as f32).collect(),
        shard_of: vec![0; cells],
        tau: 1.0,
        copy_ratio: 0.0,
        thetas: ThetaTable::default(),
        d1: D1Quantiles::default(),
        flatness: Flatness::default(),
    };
    let map = Arc::new(CentroidMap::new(parts)?);
    let placer = Placer::new(map.clone());
    let cell = |point: &[f32]| placer.cell(point);
    let found: Vec<(u32, f32)> = sample.data.par_chunks_exact(sample.dim).with_min_len(256).map(cell).collect();
    let mut sums = vec![(0.0f64, 0u64); cells];
    for (cell, length) in found {
        if let Some((sum, points)) = sums.get_mut(cell as usize) {
            *sum += f64::from(length);
            *points += 1;
        }
    }
    let mut parts = map.parts().clone();
    parts.radius = sums.into_iter().map(|(sum, points)| (sum / points.max(1) as f64) as f32).collect();
    CentroidMap::new(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(count: usize) -> ClusterOptions {
        ClusterOptions { version: 9, count, seed: 3, threads: NonZeroUsize::MIN }
    }

    #[test]
    fn a_map_of_clusters_tells_how_far_points_are_from_their_centroids() {
        // Three points each at 0, 1 and 2 of one axis, in four places far apart on the other.
        let data: Vec<f32> = (0..400).flat_map(|i| [(i % 4 * 100) as f32, (i / 4 % 3) as f32]).collect();
        let map = learn_clusters(&data, 2, Metric::Euclid, options(4)).unwrap();
        assert_eq!((map.parts().version, map.shards()), (9, 1));
        assert_eq!(map.parts().weight.iter().sum::<f32>(), 400.0);
        assert_eq!(map.encode(), learn_clusters(&data, 2, Metric::Euclid, options(4)).unwrap().encode());
        let placer = Placer::new(Arc::new(map.clone()));
        let mut sums = vec![(0.0, 0.0); map.len()];
        for point in data.chunks_exact(2) {
            let (cell, length) = placer.cell(point);
            sums[cell as usize].0 += length;
            sums[cell as usize].1 += 1.0;
        }
        for ((sum, points), spread) in sums.into_iter().zip(&map.parts().radius) {
            assert!((sum / points - spread).abs() < 1e-3);
        }
        for (sample, dim) in [(&[][..], 2), (&data[..3], 2), (&data[..4], 0)] {
            assert!(learn_clusters(sample, dim, Metric::Euclid, options(4)).is_err());
        }
        assert_eq!(learn_clusters(&[1.0, 2.0], 2, Metric::Cosine, options(4)).unwrap().len(), 1);
    }
}
