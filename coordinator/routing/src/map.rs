//! The centroid map: one immutable value that says where vectors live and what a search has to ask.

use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use crate::error::{RoutingError, invalid};
use crate::kmeans::Clusters;
use crate::rebalance::Move;
use crate::theta::{Flatness, ThetaTable};

/// Most values per centroid.
pub(crate) const DIM_MAX: usize = 1 << 16;
/// Most centroids.
pub(crate) const CENTROIDS_MAX: usize = 1 << 20;
/// Most shards.
pub(crate) const SHARDS_MAX: u32 = 1 << 16;

/// How far queries are from their nearest centroid: quantiles of that length over the queries of calibration. All zero
/// when nothing was calibrated. For Dot it is the length of `space.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct D1Quantiles {
    /// Half of the queries are nearer.
    pub q50: f32,
    /// 90 % are nearer.
    pub q90: f32,
    /// 99 % are nearer.
    pub q99: f32,
    /// 99.9 % are nearer.
    pub q999: f32,
}

impl D1Quantiles {
    /// Of some lengths, by nearest rank.
    pub fn of(mut lengths: Vec<f32>) -> D1Quantiles {
        lengths.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| {
            let rank = (lengths.len() as f64 * share).ceil() as usize;
            lengths.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        D1Quantiles { q50: at(0.5), q90: at(0.9), q99: at(0.99), q999: at(0.999) }
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: D1Quantiles) -> D1Quantiles {
        D1Quantiles {
            q50: self.q50.max(other.q50),
            q90: self.q90.max(other.q90),
            q99: self.q99.max(other.q99),
            q999: self.q999.max(other.q999),
        }
    }
}

/// What a map consists of. All arrays with one value per centroid have the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct MapParts {
    /// Rises with every change.
    pub version: u64,
    /// What is near.
    pub metric: Metric,
    /// Values per centroid, 1 to 65,536.
    pub dim: usize,
    /// Number of shards, 1 to 65,536. Shards are known by their number, 0 to `shards - 1`; which shard of the cluster a number
    /// means is not the map's business.
    pub shards: u32,
    /// Row-major, at least one row and at most 2^20; unit length for cosine.
    pub centroids: Vec<f32>,
    /// Length (`space.rs`) from each centroid to the farthest point of its cell that was seen, 0 or more.
    pub radius: Vec<f32>,
    /// Points in the cell of each centroid, 0 or more, of the sample or of all.
    pub weight: Vec<f32>,
    /// The shard of each centroid.
    pub shard_of: Vec<u32>,
    /// Temperature of the mass: a centroid that is farther than the nearest by this share of its length counts 1/e. Above 0.
    pub tau: f32,
    /// A point is copied to the second-nearest shard when that is at most so many times as far as the nearest. 1 or more, or 0
    /// for no copies.
    pub copy_ratio: f32,
    /// Cut-offs; empty before calibration, when every search asks all shards.
    pub thetas: ThetaTable,
    /// Where queries are expected.
    pub d1: D1Quantiles,
    /// How flat they are expected to be.
    pub flatness: Flatness,
}

/// A map whose parts fit each other.
#[derive(Clone, Debug, PartialEq)]
pub struct CentroidMap {
    parts: MapParts,
}

impl CentroidMap {
    /// Checks the parts.
    pub fn new(parts: MapParts) -> Result<CentroidMap, RoutingError> {
        let MapParts { dim, shards, .. } = parts;
        if dim == 0 || dim > DIM_MAX {
            return Err(invalid(format!("{dim} dimensions")));
        }
        if shards == 0 || shards > SHARDS_MAX {
            return Err(invalid(format!("{shards} shards")));
        }
        let count = parts.centroids.len() / dim;
        if count == 0 || count > CENTROIDS_MAX || parts.centroids.len() != count * dim {
            return Err(invalid(format!("{} values are no centroids of {dim} dimensions", parts.centroids.len())));
        }
        if [parts.radius.len(), parts.weight.len(), parts.shard_of.len()] != [count; 3] {
            return Err(invalid("radius, weight and shard are not there once for each centroid"));
        }
        if !parts.centroids.iter().all(|x| x.is_finite()) {
            return Err(invalid("a centroid has a value that is no finite number"));
        }
        let is_size = |x: &f32| x.is_finite() && *x >= 0.0;
        if !parts.radius.iter().all(is_size) || !parts.weight.iter().all(is_size) {
            return Err(invalid("a radius or weight is negative or no finite number"));
        }
        if let Some(centroid) = parts.shard_of.iter().position(|shard| *shard >= shards) {
            return Err(invalid(format!("centroid {centroid} is in shard {} of {shards}", parts.shard_of[centroid])));
        }
        if !(parts.tau.is_finite() && parts.tau > 0.0) {
            return Err(invalid(format!("temperature {}", parts.tau)));
        }
        if !(parts.copy_ratio.is_finite() && (parts.copy_ratio == 0.0 || parts.copy_ratio >= 1.0)) {
            return Err(invalid(format!("ratio of copies {}", parts.copy_ratio)));
        }
        let d1 = [parts.d1.q50, parts.d1.q90, parts.d1.q99, parts.d1.q999];
        if !d1.iter().all(is_size) || !d1.is_sorted() {
            return Err(invalid("quantiles of distances are not ascending from 0"));
        }
        let flatness = [parts.flatness.q50, parts.flatness.q99];
        if !flatness.iter().all(|flat| (0.0..=1.0).contains(flat)) || !flatness.is_sorted() {
            return Err(invalid("quantiles of flatness are not ascending between 0 and 1"));
        }
        Ok(CentroidMap { parts })
    }

    /// What it consists of.
    pub fn parts(&self) -> &MapParts {
        &self.parts
    }

    /// To change parts and check them again. Whoever publishes the result raises the version.
    pub fn into_parts(self) -> MapParts {
        self.parts
    }

    /// The centroids as rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows { data: &self.parts.centroids, dim: self.parts.dim }
    }

    /// Number of centroids, at least 1.
    pub fn len(&self) -> usize {
        self.parts.shard_of.len()
    }

    /// Never: a map has a centroid.
    pub fn is_empty(&self) -> bool {
        self.parts.shard_of.is_empty()
    }

    /// Number of shards, at least 1.
    pub fn shards(&self) -> u32 {
        self.parts.shards
    }

    /// The next version, in which some centroids are elsewhere. Cut-offs stay; after many moves they want calibrating anew.
    pub fn moved(&self, moves: &[Move]) -> Result<CentroidMap, RoutingError> {
        let mut parts = self.parts.clone();
        parts.version += 1;
        for step in moves {
            match parts.shard_of.get_mut(step.centroid as usize) {
                Some(shard) if *shard == step.from => *shard = step.to,
                _ => return Err(invalid(format!("centroid {} is not in shard {}", step.centroid, step.from))),
            }
        }
        CentroidMap::new(parts)
    }

    /// The next version, in which the two cells of [`split`](crate::split) stand for one centroid, in the same shard: the
    /// first takes its place, the second is the last centroid.
    pub fn split(&self, centroid: u32, halves: &Clusters) -> Result<CentroidMap, RoutingError> {
        let mut parts = self.parts.clone();
        let (at, dim) = (centroid as usize, parts.dim);
        if at >= parts.shard_of.len() || halves.dim != dim || halves.weights.len() != 2 {
            return Err(invalid(format!("centroid {centroid} is not split by this")));
        }
        parts.version += 1;
        let (first, second) = halves.centroids.split_at(dim);
        parts.centroids[at * dim..(at + 1) * dim].copy_from_slice(first);
        parts.centroids.extend_from_slice(second);
        // The halves may come from a sample: they share what the whole weighs.
        let share = (halves.weights[0] / (halves.weights[0] + halves.weights[1])) as f32;
        let (weight, radius) = (parts.weight[at], halves.radius[0]);
        parts.weight[at] = weight * share;
        parts.weight.push(weight * (1.0 - share));
        parts.radius[at] = radius;
        parts.radius.push(halves.radius[1]);
        parts.shard_of.push(parts.shard_of[at]);
        CentroidMap::new(parts)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kmeans::{KMeansOptions, cluster};
    use crate::testing::points;

    /// A small map with everything in it.
    pub(crate) fn map(metric: Metric) -> CentroidMap {
        let data = points(40, 3, 6, metric, 3);
        let clusters = cluster(Rows { data: &data, dim: 3 }, None, metric, KMeansOptions::new(8, 1));
        let count = clusters.weights.len();
        let parts = MapParts {
            version: 7,
            metric,
            dim: 3,
            shards: 3,
            centroids: clusters.centroids,
            radius: clusters.radius,
            weight: clusters.weights.iter().map(|weight| *weight as f32).collect(),
            shard_of: (0..count as u32).map(|c| c % 3).collect(),
            tau: 0.05,
            copy_ratio: 1.1,
            thetas: ThetaTable::tilted(
                vec![1, 10],
                vec![0.9, 0.95],
                vec![0.5, 0.6, 0.7, 1.0],
                vec![2.0, 1.0, 0.5, 0.0],
            )
            .unwrap(),
            d1: D1Quantiles { q50: 0.5, q90: 0.6, q99: 0.7, q999: 0.8 },
            flatness: Flatness { q50: 0.7, q99: 0.9 },
        };
        CentroidMap::new(parts).unwrap()
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let good = map(Metric::Euclid).into_parts();
        let refused = |change: &dyn Fn(&mut MapParts)| {
            let mut parts = good.clone();
            change(&mut parts);
            CentroidMap::new(parts).is_err()
        };
        assert!(!refused(&|_| ()));
        assert!(refused(&|parts| parts.dim = 0));
        assert!(refused(&|parts| parts.shards = 2));
        assert!(refused(&|parts| parts.shards = 0));
        assert!(refused(&|parts| parts.centroids.truncate(1)));
        assert!(refused(&|parts| parts.centroids[4] = f32::NAN));
        assert!(refused(&|parts| parts.radius[0] = -1.0));
        assert!(refused(&|parts| parts.weight.push(1.0)));
        assert!(refused(&|parts| parts.tau = 0.0));
        assert!(refused(&|parts| parts.copy_ratio = 0.5));
        assert!(refused(&|parts| parts.d1.q50 = 0.9));
        assert!(refused(&|parts| parts.flatness.q50 = 0.95));
        assert!(refused(&|parts| parts.flatness.q99 = f32::NAN));
    }

    #[test]
    fn moves_and_splits_make_the_next_version() {
        let before = map(Metric::Euclid);
        let step = Move { centroid: 1, from: 1, to: 2, weight: 1.0 };
        let after = before.moved(&[step]).unwrap();
        assert_eq!((after.parts().version, after.parts().shard_of[1]), (8, 2));
        assert!(after.moved(&[step]).is_err());

        let data = points(30, 3, 2, Metric::Euclid, 1);
        let halves = crate::split(Rows { data: &data, dim: 3 }, Metric::Euclid, 1).unwrap();
        let after = before.split(2, &halves).unwrap();
        assert_eq!((after.len(), after.parts().shard_of[before.len()]), (before.len() + 1, before.parts().shard_of[2]));
        let sum = |map: &CentroidMap| map.parts().weight.iter().sum::<f32>();
        assert!((sum(&after) - sum(&before)).abs() < 1e-3);
        assert!(before.split(99, &halves).is_err());
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        let d1 = D1Quantiles::of((1..=1_000).rev().map(|i| i as f32).collect());
        assert_eq!(d1, D1Quantiles { q50: 500.0, q90: 900.0, q99: 990.0, q999: 999.0 });
        assert_eq!(D1Quantiles::of(Vec::new()), D1Quantiles::default());
        assert_eq!(d1.max(D1Quantiles::default()), d1);
    }
}
