//! Where a point lives: the shard of its nearest centroid, and one more when it is near the border of another shard.
//!
//! A function of the map and the vector alone, so that every coordinator, and a retry, finds the same places. Copies of
//! border points are the closure of SPANN (Chen et al., 2021), but between shards and at most one: points are copied in the
//! order of how little farther the second shard is, down to a ratio that was chosen so that a budget is kept. The ratio
//! comes from a sample; [`copy_ratio`] again, when the share of copies has drifted from the budget.

use std::sync::Arc;

use rayon::prelude::*;
use vicinal_common::metric::Metric;
use vicinal_index::{Accept, Hit, Rows};

use crate::finder::Finder;
use crate::map::CentroidMap;
use crate::space;

/// Nearest centroids among which one of another shard is nearly always found.
const NEAREST: usize = 16;

/// Where a point lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Places {
    /// The nearest centroid: the unit that moves.
    pub centroid: u32,
    /// Its shard.
    pub home: u32,
    /// A second shard that holds a copy.
    pub copy: Option<u32>,
    /// How many times as far the nearest centroid of any other shard is, at least 1; infinite when there is none.
    pub ratio: f32,
    /// Length to the nearest centroid.
    pub length: f32,
}

impl Places {
    /// Whether a shard holds the point.
    pub fn is_in(&self, shard: u32) -> bool {
        self.home == shard || self.copy == Some(shard)
    }
}

/// Places points by one map.
pub struct Placer {
    map: Arc<CentroidMap>,
    metric: Metric,
    finder: Finder,
}

impl Placer {
    /// Codes the centroids once; making one is worth many points.
    pub fn new(map: Arc<CentroidMap>) -> Placer {
        let metric = space::placing(map.parts().metric);
        let finder = Finder::new(map.rows(), metric);
        Placer { map, metric, finder }
    }

    /// The map it places by.
    pub fn map(&self) -> &Arc<CentroidMap> {
        &self.map
    }

    /// The nearest centroid of a prepared vector of the map's dimension, and the length to it: of [`Placer::place`] only
    /// that.
    pub fn cell(&self, vector: &[f32]) -> (u32, f32) {
        let nearest = self.finder.nearest(self.map.rows(), vector, 1, Accept::All);
        // A map has a centroid, and hits are never NaN.
        let first = nearest.first().copied().unwrap_or(Hit { distance: f32::MAX, row: 0 });
        (first.row, space::length(self.metric, first.distance))
    }

    /// The places of a prepared vector of the map's dimension.
    pub fn place(&self, vector: &[f32]) -> Places {
        let shard_of = &self.map.parts().shard_of;
        let nearest = self.finder.nearest(self.map.rows(), vector, NEAREST, Accept::All);
        // A map has a centroid, and hits are never NaN.
        let first = nearest.first().copied().unwrap_or(Hit { distance: f32::MAX, row: 0 });
        let home = shard_of[first.row as usize];
        let is_elsewhere = |row: u32| shard_of[row as usize] != home;
        let mut second = nearest.iter().find(|hit| is_elsewhere(hit.row)).copied();
        if second.is_none() && nearest.len() < shard_of.len() {
            let elsewhere = self.finder.nearest(self.map.rows(), vector, 1, Accept::test(&is_elsewhere));
            second = elsewhere.first().copied();
        }
        let length = space::length(self.metric, first.distance);
        let ratio = second.map_or(f32::INFINITY, |second| {
            // Rounding may make equal distances differ; a point on its centroid is infinitely nearer to it.
            (space::length(self.metric, second.distance) / length.max(f32::MIN_POSITIVE)).max(1.0)
        });
        let copy = second.filter(|_| ratio <= self.map.parts().copy_ratio).map(|hit| shard_of[hit.row as usize]);
        Places { centroid: first.row, home, copy, ratio, length }
    }

    /// Whether a shard does not hold the point, also as processors with other instructions see it, whose distances are
    /// rounded otherwise: for a point at the edge of a cell or of what is copied the answer is no.
    pub fn is_surely_elsewhere(&self, vector: &[f32], shard: u32) -> bool {
        let places = self.place(vector);
        if places.is_in(shard) {
            return false;
        }
        let shard_of = &self.map.parts().shard_of;
        let is_own = |row: u32| shard_of[row as usize] == shard;
        let nearest = self.finder.nearest(self.map.rows(), vector, 1, Accept::test(&is_own));
        let Some(nearest) = nearest.first() else { return true };
        let own = space::length(self.metric, nearest.distance);
        let second = places.ratio * places.length.max(f32::MIN_POSITIVE);
        let copy_ratio = self.map.parts().copy_ratio;
        // Either nothing is copied, or the second shard is too far for it, or this shard is not the second.
        let is_no_copy = copy_ratio == 0.0 || second > self.at_most(copy_ratio * places.length);
        own > self.at_most(places.length) && (is_no_copy || own > self.at_most(second))
    }

    /// A length that is certainly not less, however it was rounded.
    fn at_most(&self, length: f32) -> f32 {
        const RELATIVE: f32 = 1e-3;
        // Short lengths between unit vectors come from a difference of numbers near 1.
        const COSINE_SQUARED: f32 = 1e-5;
        let longer = length * (1.0 + RELATIVE);
        if self.metric == Metric::Cosine { (longer * longer + COSINE_SQUARED).sqrt() } else { longer }
    }

    /// The places of many points, in order, on the threads of the current pool.
    pub fn place_all(&self, points: Rows<'_>) -> Vec<Places> {
        points.data.par_chunks_exact(points.dim).with_min_len(256).map(|point| self.place(point)).collect()
    }
}

/// The ratio down to which points are copied so that copies are `budget` (0 to 1) of these points and not more: 0 when there is
/// none to copy. Of points whose ratios are equal all or none are copied.
pub fn copy_ratio(places: &[Places], budget: f64) -> f32 {
    let mut ratios: Vec<f32> = places.iter().map(|places| places.ratio).filter(|ratio| ratio.is_finite()).collect();
    ratios.sort_unstable_by(f32::total_cmp);
    let allowed = (places.len() as f64 * budget.clamp(0.0, 1.0)) as usize;
    if allowed >= ratios.len() {
        return ratios.last().copied().unwrap_or(0.0);
    }
    let next = ratios[allowed];
    ratios[..allowed].iter().rev().find(|ratio| **ratio < next).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{METRICS, on_threads, points};
    use crate::train::{TrainOptions, train};

    fn trained(metric: Metric, copies: f64) -> (Vec<f32>, CentroidMap) {
        let data = points(4_000, 6, 40, metric, 11);
        let options = TrainOptions { copies, ..TrainOptions::new(5, 3) };
        let map = train(Rows { data: &data, dim: 6 }, metric, options).unwrap();
        (data, map)
    }

    #[test]
    fn copies_keep_the_budget_on_other_points_too() {
        for metric in METRICS {
            let (_, map) = trained(metric, 0.2);
            let others = points(4_000, 6, 40, metric, 11).split_off(6 * 1_000);
            let places = Placer::new(Arc::new(map)).place_all(Rows { data: &others, dim: 6 });
            let copied = places.iter().filter(|places| places.copy.is_some()).count() as f64 / places.len() as f64;
            assert!((0.16..0.24).contains(&copied), "{metric:?}: {copied}");
            assert!(places.iter().all(|places| places.copy != Some(places.home)));
        }
    }

    #[test]
    fn places_are_those_of_all_distances_whatever_the_threads() {
        let (data, map) = trained(Metric::Euclid, 0.3);
        let map = Arc::new(map);
        let placer = Placer::new(map.clone());
        let rows = Rows { data: &data, dim: 6 };
        let places = on_threads(1, || placer.place_all(rows));
        assert_eq!(places, on_threads(3, || placer.place_all(rows)));
        let kernel = vicinal_common::distance::Kernel::new(Metric::Euclid);
        for point in (0..4_000).step_by(37) {
            let distance = |c: usize| kernel.distance(rows.row(point), map.rows().row(c as u32)).sqrt();
            let shard_of = &map.parts().shard_of;
            let least = |of: &dyn Fn(u32) -> bool| {
                (0..map.len()).filter(|c| of(shard_of[*c])).map(distance).fold(f32::MAX, f32::min)
            };
            let got = places[point as usize];
            assert_eq!(placer.cell(rows.row(point)), (got.centroid, got.length));
            assert_eq!(distance(got.centroid as usize), least(&|_| true));
            let second = least(&|shard| shard != got.home);
            assert!((got.ratio - second / got.length).abs() < 1e-4 * got.ratio);
            assert_eq!(got.copy.is_some(), got.ratio <= map.parts().copy_ratio);
        }
    }

    #[test]
    fn what_is_surely_elsewhere_stays_so_however_it_is_rounded() {
        for (metric, copies) in METRICS.into_iter().flat_map(|metric| [(metric, 0.0), (metric, 0.3)]) {
            let mut data = points(400, 6, 40, metric, 11);
            let options = TrainOptions { copies, ..TrainOptions::new(5, 3) };
            let map = train(Rows { data: &data, dim: 6 }, metric, options).unwrap();
            // Some that are as near to two centroids.
            let centroids = map.rows().data.to_vec();
            for pair in centroids.chunks_exact(12) {
                let mut middle: Vec<f32> = (0..6).map(|i| (pair[i] + pair[i + 6]) / 2.0).collect();
                metric.prepare(&mut middle);
                data.extend(middle);
            }
            let placer = Placer::new(Arc::new(map));
            let (mut elsewhere, mut sure) = (0, 0);
            for point in data.chunks_exact(6) {
                let places = placer.place(point);
                let nearly = |by: f32| point.iter().enumerate().map(|(i, x)| x * (1.0 + by * (i % 2) as f32)).collect();
                let others: [Vec<f32>; 2] = [nearly(2e-6), nearly(-2e-6)];
                for shard in 0..placer.map().shards() {
                    let is_sure = placer.is_surely_elsewhere(point, shard);
                    elsewhere += u32::from(!places.is_in(shard));
                    sure += u32::from(is_sure);
                    assert!(!is_sure || !places.is_in(shard));
                    assert!(!is_sure || others.iter().all(|other| !placer.place(other).is_in(shard)), "{metric:?}");
                }
            }
            assert!(sure * 100 >= elsewhere * 95, "{metric:?}: {sure} of {elsewhere}");
        }
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded_and_nearly_used(
            ratios in prop::collection::vec(1.0f32..4.0, 1..300),
            budget in 0.0f64..1.0,
        ) {
            let of = |ratio| Places { centroid: 0, home: 0, copy: None, ratio, length: 1.0 };
            let places: Vec<Places> = ratios.iter().copied().map(of).collect();
            let limit = copy_ratio(&places, budget);
            let copied = ratios.iter().filter(|ratio| **ratio <= limit).count();
            let allowed = (ratios.len() as f64 * budget) as usize;
            prop_assert!(copied <= allowed);
            let mut sorted = ratios.clone();
            sorted.sort_by(f32::total_cmp);
            if sorted.windows(2).all(|pair| pair[0] < pair[1]) {
                prop_assert_eq!(copied, allowed);
            }
        }
    }

    #[test]
    fn equal_ratios_are_copied_together_or_not_at_all() {
        let of = |ratio| Places { centroid: 0, home: 0, copy: None, ratio, length: 1.0 };
        let places = [1.0, 1.5, 1.5, 2.0, f32::INFINITY].map(of);
        assert_eq!(copy_ratio(&places, 0.4), 1.0);
        assert_eq!(copy_ratio(&places, 0.6), 1.5);
        assert_eq!(copy_ratio(&places, 1.0), 2.0);
        assert_eq!((copy_ratio(&places, 0.0), copy_ratio(&[], 0.5)), (0.0, 0.0));
    }
}
