//! From a sample of points to a map.

use std::sync::Arc;

use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use crate::error::{RoutingError, invalid};
use crate::group::{GroupOptions, group};
use crate::kmeans::{KMeansOptions, cluster};
use crate::map::{CentroidMap, D1Quantiles, MapParts};
use crate::place::{Placer, copy_ratio};
use crate::theta::{Flatness, ThetaTable};

/// Fewest centroids where there are points enough.
const CENTROIDS_MIN: usize = 1_024;
/// A centroid for so many points at most: fewer points tell nothing of a cell's place and size.
const POINTS_PER_CENTROID_MIN: usize = 16;
/// Centroids for each shard where nothing is said of it.
const CENTROIDS_PER_SHARD: usize = 64;
/// Temperature of the mass. Between 0.05 and 0.1 it hardly matters on the sets of docs/BENCHMARKS.md.
const TAU: f32 = 0.05;

/// How to train.
#[derive(Clone, Copy, Debug)]
pub struct TrainOptions {
    /// Shards, at least 1.
    pub shards: u32,
    /// Fine centroids for each shard, 64 to 256.
    pub centroids_per_shard: usize,
    /// Budget of copies of border points, as a share of the points: 0 to 1.
    pub copies: f64,
    /// Temperature of the mass, see [`MapParts::tau`].
    pub tau: f32,
    /// Seed of everything random.
    pub seed: u64,
}

impl TrainOptions {
    /// 64 centroids per shard and 20 % copies.
    pub fn new(shards: u32, seed: u64) -> TrainOptions {
        TrainOptions { shards, centroids_per_shard: CENTROIDS_PER_SHARD, copies: 0.2, tau: TAU, seed }
    }
}

/// How many centroids for so many points: `per_shard` for each shard and at least 1,024, but a sixteenth of the points at
/// most, and never fewer than shards unless there are fewer points.
pub fn centroid_count(points: usize, shards: u32, per_shard: usize) -> usize {
    let shards = shards as usize;
    let wanted = (shards * per_shard).max(CENTROIDS_MIN);
    wanted.min((points / POINTS_PER_CENTROID_MIN).max(shards)).clamp(1, points.max(1))
}

/// How many centroids a map of so many shards has where there are points enough for them, with the defaults of
/// [`TrainOptions::new`].
pub fn centroids_wanted(shards: u32) -> usize {
    centroid_count(usize::MAX, shards, CENTROIDS_PER_SHARD)
}

/// Trains a map of version 1 on a sample (256 points for each centroid are enough), prepared for the metric. Nothing is
/// calibrated yet: with it every search asks all shards. Fails without points or with options out of range.
pub fn train(sample: Rows<'_>, metric: Metric, options: TrainOptions) -> Result<CentroidMap, RoutingError> {
    if sample.is_empty() {
        return Err(invalid("there are no points to train on"));
    }
    let k = centroid_count(sample.len(), options.shards, options.centroids_per_shard);
    let clusters = cluster(sample, None, metric, KMeansOptions::new(k, options.seed));
    // Not the same random numbers as for the cells.
    let grouping =
        group(clusters.rows(), &clusters.weights, metric, GroupOptions::new(options.shards, options.seed ^ u64::MAX));
    let parts = MapParts {
        version: 1,
        metric,
        dim: sample.dim,
        shards: options.shards,
        weight: clusters.weights.iter().map(|weight| *weight as f32).collect(),
        centroids: clusters.centroids,
        radius: clusters.radius,
        shard_of: grouping.shard_of,
        tau: options.tau,
        copy_ratio: 0.0,
        thetas: ThetaTable::default(),
        d1: D1Quantiles::default(),
        flatness: Flatness::default(),
    };
    let map = CentroidMap::new(parts)?;
    if options.copies <= 0.0 {
        return Ok(map);
    }
    let placer = Placer::new(Arc::new(map));
    let ratio = copy_ratio(&placer.place_all(sample), options.copies);
    let mut parts = placer.map().parts().clone();
    parts.copy_ratio = ratio;
    CentroidMap::new(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{METRICS, on_threads, points};

    #[test]
    fn as_many_centroids_as_there_are_points_for() {
        assert_eq!(centroid_count(1_000_000, 8, 64), 1_024);
        assert_eq!(centroid_count(1_000_000, 32, 64), 2_048);
        assert_eq!(centroid_count(1_000_000, 8, 256), 2_048);
        assert_eq!(centroid_count(3_200, 8, 64), 200);
        assert_eq!(centroid_count(20, 8, 64), 8);
        assert_eq!((centroid_count(3, 8, 64), centroid_count(0, 8, 64)), (3, 1));
    }

    #[test]
    fn trained_maps_are_balanced_and_the_same_on_any_number_of_threads() {
        for metric in METRICS {
            let data = points(6_000, 8, 50, metric, 1);
            let rows = Rows { data: &data, dim: 8 };
            let run = |threads| on_threads(threads, || train(rows, metric, TrainOptions::new(4, 9)).unwrap());
            let map = run(1);
            assert_eq!(map.encode(), run(3).encode());
            let places = Placer::new(Arc::new(map)).place_all(rows);
            let mut loads = [0usize; 4];
            places.iter().for_each(|places| loads[places.home as usize] += 1);
            assert!(loads.iter().all(|load| *load <= 1_575), "{metric:?}: {loads:?}");
        }
    }

    #[test]
    fn little_to_train_on_is_enough() {
        let one = train(Rows { data: &[1.0, 2.0], dim: 2 }, Metric::Euclid, TrainOptions::new(3, 1)).unwrap();
        assert_eq!((one.len(), one.shards(), one.parts().copy_ratio), (1, 3, 0.0));
        assert!(train(Rows { data: &[], dim: 2 }, Metric::Euclid, TrainOptions::new(3, 1)).is_err());
        let data = points(50, 2, 5, Metric::Euclid, 1);
        assert!(train(Rows { data: &data, dim: 2 }, Metric::Euclid, TrainOptions::new(0, 1)).is_err());
    }
}
