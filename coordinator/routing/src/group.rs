//! Fine centroids onto shards: near ones together, no shard above a cap.
//!
//! Shards begin as a k-means of the centroids, weighted by the size of their cells. Then in rounds: every centroid goes to
//! the nearest shard that has room, those that would lose most by not getting it first (largest regret: what the second
//! nearest shard is farther, times the weight), and the centres of the shards are computed anew. The cheapest round counts.
//! With one centroid for each shard, by k-means alone, the fullest shard had 1.4 to 2.4 times the mean on the sets of
//! docs/BENCHMARKS.md.

use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use crate::kmeans::{KMeansOptions, cluster};
use crate::rebalance::rebalance;
use crate::space;

/// How to group.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// Shards, at least 1.
    pub shards: u32,
    /// A shard may weigh so much more than the mean, as a share of it: 0.05 is 5 %.
    pub slack: f64,
    /// Rounds at most.
    pub rounds: usize,
    /// Seed of the first centres.
    pub seed: u64,
}

impl GroupOptions {
    /// Within 5 % of the mean, 40 rounds.
    pub fn new(shards: u32, seed: u64) -> GroupOptions {
        GroupOptions { shards, slack: 0.05, rounds: 40, seed }
    }
}

/// Which shard has which centroids.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    /// The shard of each centroid.
    pub shard_of: Vec<u32>,
    /// The weight of each shard.
    pub loads: Vec<f64>,
    /// What no load exceeds, unless single centroids are too heavy: it is kept for certain when none weighs more than
    /// `slack` times the mean load.
    pub cap: f64,
}

impl Grouping {
    /// The heaviest load by the mean load; 1 when all are equal.
    pub fn imbalance(&self) -> f64 {
        let mean = self.loads.iter().sum::<f64>() / self.loads.len().max(1) as f64;
        self.loads.iter().copied().fold(0.0, f64::max) / mean.max(f64::MIN_POSITIVE)
    }
}

/// The largest load allowed: `1 + slack` times the mean.
pub(crate) fn cap_of(weights: &[f64], shards: u32, slack: f64) -> f64 {
    // A little more, so that sums in another order are not above it.
    (1.0 + slack) * weights.iter().sum::<f64>() / f64::from(shards.max(1)) * (1.0 + 1e-9)
}

/// Total weight of each shard.
pub(crate) fn loads_of(weights: &[f64], shard_of: &[u32], shards: u32) -> Vec<f64> {
    let mut loads = vec![0.0; shards as usize];
    for (weight, shard) in weights.iter().zip(shard_of) {
        loads[*shard as usize] += weight;
    }
    loads
}

/// Groups centroids. `weights` has one value, 0 or more, for each: the size of its cell, or size times how often it is asked.
pub fn group(centroids: Rows<'_>, weights: &[f64], metric: Metric, options: GroupOptions) -> Grouping {
    assert_eq!(weights.len(), centroids.len(), "one weight for each centroid");
    let shards = options.shards.max(1);
    let cap = cap_of(weights, shards, options.slack);
    let mut centres = first_centres(centroids, weights, metric, options);
    let mut best: Option<(f64, Vec<u32>)> = None;
    let mut before = Vec::new();
    for _ in 0..options.rounds.max(1) {
        let lengths = lengths(centroids, &centres, metric);
        let shard_of = assign(&lengths, weights, shards, cap);
        let cost = (0..weights.len())
            .map(|c| weights[c] * f64::from(lengths[c * shards as usize + shard_of[c] as usize]).powi(2))
            .sum();
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, shard_of.clone()));
        }
        if shard_of == before {
            break;
        }
        centres = centres_of(centroids, weights, &shard_of, metric, &centres);
        before = shard_of;
    }
    let mut shard_of = best.map(|(_, shard_of)| shard_of).unwrap_or_default();
    // Where a heavy centroid found no room: others make some.
    for step in rebalance(centroids, metric, weights, &shard_of, shards, options.slack).moves {
        shard_of[step.centroid as usize] = step.to;
    }
    Grouping { loads: loads_of(weights, &shard_of, shards), shard_of, cap }
}

/// One centre for each shard, row-major. Where there are fewer different centroids than shards some are repeated.
fn first_centres(centroids: Rows<'_>, weights: &[f64], metric: Metric, options: GroupOptions) -> Vec<f32> {
    let shards = options.shards.max(1) as usize;
    // A cell without weight still has a place.
    let weights: Vec<f64> = weights.iter().map(|weight| weight.max(1e-9)).collect();
    let found = cluster(centroids, Some(&weights), metric, KMeansOptions::new(shards, options.seed)).centroids;
    found.iter().copied().cycle().take(if found.is_empty() { 0 } else { shards * centroids.dim }).collect()
}

/// The length from each centroid to each centre, row-major by centroid.
pub(crate) fn lengths(centroids: Rows<'_>, centres: &[f32], metric: Metric) -> Vec<f32> {
    let placing = space::placing(metric);
    let kernel = Kernel::new(placing);
    let shards = centres.len() / centroids.dim;
    let mut out = vec![0.0; centroids.len() * shards];
    for (row, out) in out.chunks_exact_mut(shards.max(1)).enumerate() {
        kernel.distances(centroids.row(row as u32), centres, centroids.dim, out);
        out.iter_mut().for_each(|distance| *distance = space::length(placing, *distance));
    }
    out
}

/// One round: most to lose first.
fn assign(lengths: &[f32], weights: &[f64], shards: u32, cap: f64) -> Vec<u32> {
    let count = shards as usize;
    let of = |centroid: usize| &lengths[centroid * count..(centroid + 1) * count];
    let regret = |centroid: usize| {
        let (mut first, mut second) = (f32::MAX, f32::MAX);
        for length in of(centroid) {
            if *length < first {
                (first, second) = (*length, first);
            } else {
                second = second.min(*length);
            }
        }
        if count < 2 { 0.0 } else { f64::from(second - first) * weights[centroid] }
    };
    let regrets: Vec<f64> = (0..weights.len()).map(regret).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| regrets[*b].total_cmp(&regrets[*a]).then(a.cmp(b)));
    let mut loads = vec![0.0; count];
    let mut shard_of = vec![0; weights.len()];
    for centroid in order {
        let nearest = |candidates: &mut dyn Iterator<Item = usize>| {
            candidates.min_by(|a, b| of(centroid)[*a].total_cmp(&of(centroid)[*b]).then(a.cmp(b)))
        };
        let room = nearest(&mut (0..count).filter(|shard| loads[*shard] + weights[centroid] <= cap));
        // Too heavy for all of them: to the lightest.
        let lightest = || (0..count).min_by(|a, b| loads[*a].total_cmp(&loads[*b])).unwrap_or(0);
        let shard = room.unwrap_or_else(lightest);
        loads[shard] += weights[centroid];
        shard_of[centroid] = shard as u32;
    }
    shard_of
}

/// Weighted means of the centroids of each shard, of unit length for cosine; a shard without any keeps its centre.
pub(crate) fn centres_of(
    centroids: Rows<'_>,
    weights: &[f64],
    shard_of: &[u32],
    metric: Metric,
    before: &[f32],
) -> Vec<f32> {
    let dim = centroids.dim;
    let mut sums = vec![0f64; before.len()];
    let mut totals = vec![0f64; before.len() / dim];
    for (centroid, shard) in shard_of.iter().enumerate() {
        let weight = weights[centroid].max(1e-9);
        totals[*shard as usize] += weight;
        let sums = &mut sums[*shard as usize * dim..][..dim];
        for (sum, x) in sums.iter_mut().zip(centroids.row(centroid as u32)) {
            *sum += weight * f64::from(*x);
        }
    }
    let mut centres = before.to_vec();
    for ((centre, sums), total) in centres.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)).zip(totals) {
        let divisor = match space::placing(metric) {
            Metric::Cosine => sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt(),
            Metric::Dot | Metric::Euclid | Metric::Manhattan => total,
        };
        if divisor > 0.0 {
            centre.iter_mut().zip(sums).for_each(|(x, sum)| *x = (sum / divisor) as f32);
        }
    }
    centres
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{METRICS, on_threads, points};

    proptest! {
        #[test]
        fn no_shard_is_above_the_cap_when_no_centroid_is_too_heavy(
            weights in prop::collection::vec(0.0f64..1.0, 200..500),
            shards in 1u32..9,
            metric in prop::sample::select(METRICS.to_vec()),
            seed in 0u64..100,
        ) {
            let mean = weights.iter().sum::<f64>() / f64::from(shards);
            let weights: Vec<f64> = weights.iter().map(|weight| weight.min(0.05 * mean)).collect();
            let data = points(weights.len(), 4, 12, metric, seed);
            let rows = Rows { data: &data, dim: 4 };
            let grouping = group(rows, &weights, metric, GroupOptions::new(shards, seed));
            prop_assert!(grouping.loads.iter().all(|load| *load <= grouping.cap), "{:?}", grouping);
            prop_assert!(grouping.imbalance() <= 1.0501);
            prop_assert_eq!(grouping.shard_of.len(), weights.len());
            prop_assert!(grouping.shard_of.iter().all(|shard| *shard < shards));
        }

        #[test]
        fn any_weights_are_grouped(
            weights in prop::collection::vec(0.0f64..1e6, 0..40),
            shards in 1u32..9,
        ) {
            let data = points(weights.len(), 3, 4, Metric::Euclid, 1);
            let grouping = group(Rows { data: &data, dim: 3 }, &weights, Metric::Euclid, GroupOptions::new(shards, 1));
            prop_assert!(grouping.shard_of.len() == weights.len() && grouping.loads.len() == shards as usize);
            let sum: f64 = weights.iter().sum();
            prop_assert!((grouping.loads.iter().sum::<f64>() - sum).abs() <= 1e-6 * sum.max(1.0));
        }
    }

    #[test]
    fn near_centroids_share_a_shard_and_threads_change_nothing() {
        let data = points(400, 6, 4, Metric::Euclid, 2);
        let rows = Rows { data: &data, dim: 6 };
        let run = |threads| on_threads(threads, || group(rows, &[1.0; 400], Metric::Euclid, GroupOptions::new(4, 3)));
        let grouping = run(1);
        assert_eq!(grouping, run(3));
        // Point i is around place i % 4; of 100 points each, at most the five beyond the mean are not with their own.
        let pure = (0..4).map(|place| {
            let mut counts = [0; 4];
            (place..400).step_by(4).for_each(|i| counts[grouping.shard_of[i] as usize] += 1);
            counts.into_iter().max().unwrap_or(0)
        });
        assert!(pure.min() >= Some(90), "{:?}", grouping.loads);
    }
}
