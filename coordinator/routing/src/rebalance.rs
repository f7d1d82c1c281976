//! Keeping shards even without grouping anew: which centroids at a border move where, and which are split.

use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use crate::group::{cap_of, centres_of, lengths, loads_of};
use crate::kmeans::{Clusters, KMeansOptions, cluster};

/// One centroid from one shard to another: its points are copied, read in both, cut over, deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move {
    /// Which.
    pub centroid: u32,
    /// Where it is.
    pub from: u32,
    /// Where it goes.
    pub to: u32,
    /// Its weight.
    pub weight: f64,
}

/// What to move.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebalanced {
    /// In this order no shard is ever lifted above the cap. No centroid moves twice.
    pub moves: Vec<Move>,
    /// Loads after all moves.
    pub loads: Vec<f64>,
    /// `1 + slack` times the mean load.
    pub cap: f64,
    /// Shards that stay above the cap: no centroid of theirs fits anywhere. They need a split first. Empty for certain when
    /// no centroid weighs more than `slack` times the mean load.
    pub over: Vec<u32>,
}

/// The few moves after which no shard is above the cap again: from the fullest shard, the centroid that loses least
/// (by how much farther the other shard's centre is) for the excess that it takes away. A shard gives away no more than
/// its excess and one centroid.
pub fn rebalance(
    centroids: Rows<'_>,
    metric: Metric,
    weights: &[f64],
    shard_of: &[u32],
    shards: u32,
    slack: f64,
) -> Rebalanced {
    assert!(weights.len() == centroids.len() && shard_of.len() == centroids.len(), "one weight and shard for each");
    let cap = cap_of(weights, shards, slack);
    let mut loads = loads_of(weights, shard_of, shards);
    let mut moves = Vec::new();
    if loads.iter().all(|load| *load <= cap) {
        return Rebalanced { moves, loads, cap, over: Vec::new() };
    }
    let count = shards as usize;
    // An empty shard has no centre; anything is equally far from zero.
    let centres = centres_of(centroids, weights, shard_of, metric, &vec![0.0; count * centroids.dim]);
    let lengths = lengths(centroids, &centres, metric);
    let mean_length = lengths.iter().map(|length| f64::from(*length)).sum::<f64>() / lengths.len().max(1) as f64;
    let mut shard_of = shard_of.to_vec();
    let mut stuck = vec![false; count];
    loop {
        let is_over = |shard: &usize| loads[*shard] > cap && !stuck[*shard];
        let Some(from) = (0..count).filter(is_over).rev().max_by(|a, b| loads[*a].total_cmp(&loads[*b])) else { break };
        let excess = loads[from] - cap;
        let mut best: Option<(f64, usize, usize)> = None;
        for centroid in (0..weights.len()).filter(|c| shard_of[*c] as usize == from && weights[*c] > 0.0) {
            let of = |shard: usize| f64::from(lengths[centroid * count + shard]);
            for to in (0..count).filter(|to| *to != from && loads[*to] + weights[centroid] <= cap) {
                // Nearer to the other shard is no reason to move more than is needed: hence at least a little cost.
                let loss = (of(to) - of(from)).max(0.0) + 1e-3 * mean_length;
                let cost = loss * weights[centroid] / weights[centroid].min(excess);
                if best.is_none_or(|(least, ..)| cost < least) {
                    best = Some((cost, centroid, to));
                }
            }
        }
        let Some((_, centroid, to)) = best else {
            stuck[from] = true;
            continue;
        };
        let weight = weights[centroid];
        loads[from] -= weight;
        loads[to] += weight;
        shard_of[centroid] = to as u32;
        moves.push(Move { centroid: centroid as u32, from: from as u32, to: to as u32, weight });
    }
    let over = (0..shards).filter(|shard| loads[*shard as usize] > cap).collect();
    Rebalanced { moves, loads, cap, over }
}

/// Centroids that weigh more than twice the mean and should be split, heaviest first.
pub fn oversized(weights: &[f64]) -> Vec<u32> {
    let limit = 2.0 * weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    let mut found: Vec<u32> = (0..weights.len() as u32).filter(|c| weights[*c as usize] > limit).collect();
    found.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b)));
    found
}

/// Two cells in place of one, by 2-means of its points (or a sample of them); `None` when they are all equal.
pub fn split(points: Rows<'_>, metric: Metric, seed: u64) -> Option<Clusters> {
    let halves = cluster(points, None, metric, KMeansOptions::new(2, seed));
    (halves.weights.len() == 2).then_some(halves)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::group::{GroupOptions, group};
    use crate::testing::{METRICS, points};

    proptest! {
        #[test]
        fn moves_lift_nothing_above_the_cap_and_are_few(
            grown in prop::collection::vec(0.2f64..5.0, 300),
            shards in 2u32..9,
            metric in prop::sample::select(METRICS.to_vec()),
        ) {
            let data = points(300, 4, 10, metric, 7);
            let rows = Rows { data: &data, dim: 4 };
            let grouping = group(rows, &[1.0; 300], metric, GroupOptions::new(shards, 1));
            let mean = grown.iter().sum::<f64>() / f64::from(shards);
            let weights: Vec<f64> = grown.iter().map(|weight| weight.min(0.05 * mean)).collect();
            let result = rebalance(rows, metric, &weights, &grouping.shard_of, shards, 0.05);
            let before = loads_of(&weights, &grouping.shard_of, shards);
            let mut loads = before.clone();
            for step in &result.moves {
                prop_assert_eq!(grouping.shard_of[step.centroid as usize], step.from);
                loads[step.from as usize] -= step.weight;
                loads[step.to as usize] += step.weight;
                prop_assert!(loads[step.to as usize] <= result.cap);
            }
            prop_assert!(result.over.is_empty() && loads.iter().all(|load| *load <= result.cap));
            let heaviest = weights.iter().copied().fold(0.0, f64::max);
            for shard in 0..shards {
                let moved: f64 = result.moves.iter().filter(|step| step.from == shard).map(|step| step.weight).sum();
                prop_assert!(moved <= (before[shard as usize] - result.cap).max(0.0) + heaviest);
            }
        }
    }

    #[test]
    fn what_fits_nowhere_is_said() {
        let data = [0.0, 1.0, 2.0];
        let result = rebalance(Rows { data: &data, dim: 1 }, Metric::Euclid, &[9.0, 1.0, 1.0], &[0, 1, 1], 2, 0.05);
        assert_eq!((result.moves.len(), &result.over[..]), (0, &[0][..]));
        let even = rebalance(Rows { data: &data, dim: 1 }, Metric::Euclid, &[2.0, 1.0, 1.0], &[0, 1, 1], 2, 0.05);
        assert!(even.moves.is_empty() && even.over.is_empty());
    }

    #[test]
    fn large_centroids_are_named_and_split() {
        assert_eq!(oversized(&[1.0, 1.0, 1.0, 9.0, 1.0, 12.0]), [5, 3]);
        assert!(oversized(&[1.0; 4]).is_empty() && oversized(&[]).is_empty());
        let data = points(100, 3, 2, Metric::Euclid, 3);
        let halves = split(Rows { data: &data, dim: 3 }, Metric::Euclid, 1).unwrap();
        assert_eq!(halves.weights, [50.0, 50.0]);
        assert!(split(Rows { data: &[1.0; 9], dim: 3 }, Metric::Euclid, 1).is_none());
    }
}
