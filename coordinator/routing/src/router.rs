//! From a query to the shards to ask.
//!
//! Every centroid among the nearest few hundred gives its shard the mass `exp(-(d / d1 - 1) / tau) * sqrt(weight) / rank^1.5`,
//! d being its distance, d1 that of the nearest, and rank 1 for the nearest, 2 for the next and so on; farther ones would add
//! next to nothing. Where distances hardly differ, as in many dimensions, the rank tells near from far: with it a third fewer
//! shards are asked on some sets than by distances alone (docs/BENCHMARKS.md). Shards are asked by falling mass until a share
//! theta of it is reached; the shard of the nearest centroid is asked first, so that a stored point finds itself. How
//! large theta is for a recall and k was calibrated, and how much larger for a flat query, which has many centroids about as
//! near as the nearest. Queries unlike those of calibration, filters and large k spread the answers: then theta is widened,
//! or everything is asked.

use std::sync::Arc;

use rayon::prelude::*;
use vicinal_common::distance::Kernel;
use vicinal_index::{Hit, Rows};

use crate::decision::{AllBecause, Ask, Decision, Filtered, Goal, Reason, ShardMass, Widening};
use crate::map::CentroidMap;
use crate::space::{QueryScale, norm};

/// Nearest centroids that give mass.
const NEAREST: usize = 256;
/// A query is as flat as the centroid of this rank is near.
const FLAT_RANK: usize = 64;
/// Mass falls with the rank to this power. Measured from 0 to 2: docs/BENCHMARKS.md.
const RANK_POWER: f32 = 1.5;
/// What is left out of the mass is divided by this to widen.
const WIDENING: f32 = 4.0;
/// A filter leaves a share s of the points: its k nearest are then about the k / s nearest of all. So many times more are
/// reckoned with, because a filter may have to do with where the query is.
const FILTER_SPREAD: f64 = 4.0;
/// More neighbours than were calibrated are widened for, up to so many times more; beyond, all shards are asked.
const BEYOND_K: f64 = 4.0;

/// Routes by one map.
pub struct Router {
    map: Arc<CentroidMap>,
    kernel: Kernel,
    /// How much each of the nearest centroids counts by its rank.
    by_rank: Vec<f32>,
    /// The square root of each weight; 1 each, when none has any.
    shares: Vec<f32>,
    /// The largest radius in each shard.
    radius_max: Vec<f32>,
    /// Centroids in each shard.
    counts: Vec<u32>,
    /// Bound on the length of the points; for Dot.
    reach: f32,
}

/// All shards in the order they would be asked in.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Best first.
    pub shards: Vec<ShardMass>,
    /// Length from the query to its nearest centroid.
    pub d1: f32,
    /// How flat the query is, 0 to 1: see [`Flatness`](crate::Flatness).
    pub flat: f32,
}

impl Ranking {
    /// How many shards it takes to reach a share of the mass: all when that is 1.
    pub fn asked(&self, theta: f32) -> usize {
        if theta >= 1.0 {
            return self.shards.len();
        }
        let enough = self.shards.iter().position(|shard| shard.left <= 1.0 - theta);
        enough.map_or(self.shards.len(), |last| last + 1)
    }
}

impl Router {
    /// Prepares what does not depend on queries.
    pub fn new(map: Arc<CentroidMap>) -> Router {
        let parts = map.parts();
        let kernel = Kernel::new(parts.metric);
        let by_rank = (1..=NEAREST).map(|rank| (rank as f32).powf(-RANK_POWER)).collect();
        let is_weighed = parts.weight.iter().any(|weight| *weight > 0.0);
        let shares = parts.weight.iter().map(|weight| if is_weighed { weight.sqrt() } else { 1.0 }).collect();
        let mut radius_max = vec![0f32; parts.shards as usize];
        let mut counts = vec![0; parts.shards as usize];
        let mut reach = 0f32;
        for (centroid, shard) in parts.shard_of.iter().enumerate() {
            let radius = parts.radius[centroid];
            radius_max[*shard as usize] = radius_max[*shard as usize].max(radius);
            counts[*shard as usize] += 1;
            reach = reach.max(norm(map.rows().row(centroid as u32)) + radius);
        }
        Router { map, kernel, by_rank, shares, radius_max, counts, reach }
    }

    /// The map it routes by.
    pub fn map(&self) -> &Arc<CentroidMap> {
        &self.map
    }

    /// Ranks the shards for a prepared query of the map's dimension.
    pub fn rank(&self, query: &[f32]) -> Ranking {
        let parts = self.map.parts();
        let scale = QueryScale::new(parts.metric, self.reach, query);
        let nearest = self.nearest(query);
        // A map has a centroid, and hits are never NaN.
        let first = nearest.first().copied().unwrap_or(Hit { distance: f32::MAX, row: 0 });
        let d1 = scale.length(first.distance);
        let home = parts.shard_of[first.row as usize];

        let blank = ShardMass { shard: 0, mass: 0.0, left: 0.0, bound: f32::MAX };
        let mut shards: Vec<ShardMass> = (0..parts.shards).map(|shard| ShardMass { shard, ..blank }).collect();
        let mut seen = vec![0u32; shards.len()];
        let per_share = 1.0 / (parts.tau * d1.max(f32::MIN_POSITIVE));
        let mut total = 0.0;
        let mut last = d1;
        // Equal lengths, of 0 too, are flat.
        let far = nearest.get(FLAT_RANK - 1).or(nearest.last()).map_or(d1, |hit| scale.length(hit.distance));
        let flat = if far > 0.0 { (d1 / far).clamp(0.0, 1.0) } else { 1.0 };
        for (hit, by_rank) in nearest.iter().zip(&self.by_rank) {
            let (centroid, length) = (hit.row as usize, scale.length(hit.distance));
            // The nearest gives something whatever its weight: a total of zero would have no shares.
            let share = if hit.row == first.row { self.shares[centroid].max(1e-3) } else { self.shares[centroid] };
            let mass = (-(length - d1) * per_share).exp() * share * by_rank;
            let shard = &mut shards[parts.shard_of[centroid] as usize];
            shard.mass += mass;
            shard.bound = shard.bound.min(scale.bound(length, parts.radius[centroid]));
            seen[shard.shard as usize] += 1;
            total += mass;
            last = length;
        }
        for shard in &mut shards {
            shard.mass /= total;
            // Its other centroids are no nearer than the last that was looked at.
            let number = shard.shard as usize;
            if seen[number] < self.counts[number] {
                shard.bound = shard.bound.min(scale.bound(last, self.radius_max[number]));
            }
        }
        shards.sort_unstable_by(|a, b| {
            (b.shard == home)
                .cmp(&(a.shard == home))
                .then(b.mass.total_cmp(&a.mass))
                .then(a.bound.total_cmp(&b.bound))
                .then(a.shard.cmp(&b.shard))
        });
        // Added up from the end, where the small ones are.
        let mut left = 0.0;
        for shard in shards.iter_mut().rev() {
            shard.left = left;
            left += shard.mass;
        }
        Ranking { shards, d1, flat }
    }

    /// The nearest few hundred centroids, best first, ties by number. All distances are computed as they are: for so many hits
    /// of so few rows a scan of codes would compute most of them too.
    fn nearest(&self, query: &[f32]) -> Vec<Hit> {
        let parts = self.map.parts();
        let mut distances = vec![0.0; self.map.len()];
        self.kernel.distances(query, &parts.centroids, parts.dim, &mut distances);
        let mut hits: Vec<Hit> = (0..).zip(distances).map(|(row, distance)| Hit { distance, row }).collect();
        if hits.len() > NEAREST {
            hits.select_nth_unstable_by(NEAREST - 1, Hit::cmp_total);
            hits.truncate(NEAREST);
        }
        hits.sort_unstable_by(Hit::cmp_total);
        hits
    }

    /// The rankings of many queries, in order, on the threads of the current pool.
    pub fn rank_all(&self, queries: Rows<'_>) -> Vec<Ranking> {
        queries.data.par_chunks_exact(queries.dim).with_min_len(64).map(|query| self.rank(query)).collect()
    }

    /// Decides whom to ask.
    pub fn route(&self, query: &[f32], ask: Ask) -> Decision {
        let ranking = self.rank(query);
        let reason = self.reason(ranking.d1, ranking.flat, ask);
        let asked = match reason {
            Reason::Mass { theta } | Reason::Widened { theta, .. } => ranking.asked(theta),
            Reason::Shards { count } => (count as usize).clamp(1, ranking.shards.len()),
            Reason::All { .. } => ranking.shards.len(),
        };
        Decision { d1: ranking.d1, ranked: ranking.shards, asked, reason }
    }

    fn reason(&self, d1: f32, flat: f32, ask: Ask) -> Reason {
        let all = |why| Reason::All { why };
        if self.map.shards() == 1 {
            return all(AllBecause::OneShard);
        }
        let recall = match ask.goal {
            Goal::All => return all(AllBecause::Wanted),
            Goal::Shards(count) if count >= self.map.shards() => return all(AllBecause::Wanted),
            Goal::Shards(count) => return Reason::Shards { count: count.max(1) },
            Goal::Theta(theta) | Goal::Recall(theta) if theta >= 1.0 || theta.is_nan() => {
                return all(AllBecause::Wanted);
            }
            Goal::Theta(theta) => return Reason::Mass { theta },
            Goal::Recall(recall) => recall,
        };
        let parts = self.map.parts();
        let table = &parts.thetas;
        if table.is_empty() {
            return all(AllBecause::NotCalibrated);
        }
        let k = f64::from(ask.k.max(1));
        let spread = match ask.filter {
            Filtered::No => k,
            Filtered::Unknown => return all(AllBecause::Filter),
            Filtered::Matching { points, of } if points >= of => k,
            Filtered::Matching { points, of } => FILTER_SPREAD * k * of as f64 / points.max(1) as f64,
        };
        let (widening, because) = match ask.filter {
            Filtered::No => (Widening::ManyNeighbours, AllBecause::ManyNeighbours),
            Filtered::Matching { .. } | Filtered::Unknown => (Widening::Filter, AllBecause::Filter),
        };
        let Some(cut) = table.cut(recall, spread).filter(|cut| cut.theta < 1.0) else {
            return all(AllBecause::HighRecall);
        };
        let z = parts.flatness.z(flat);
        let calibrated = cut.at(z);
        let mut reason = if spread > BEYOND_K * f64::from(table.k_max()) {
            return all(because);
        } else if spread > f64::from(table.k_max()) {
            Reason::Widened { why: widening, theta: widened(calibrated) }
        } else if spread > k {
            Reason::Widened { why: widening, theta: calibrated }
        } else {
            Reason::Mass { theta: calibrated }
        };
        let seen = parts.d1;
        if d1 > seen.q999 + (seen.q99 - seen.q50) {
            return all(AllBecause::FarQuery);
        }
        let is_unusual = [(d1 > seen.q99, Widening::FarQuery), (z > 1.0, Widening::FlatQuery)];
        if let Some((_, why)) = is_unusual.into_iter().find(|(is_so, _)| *is_so)
            && let Reason::Mass { theta } | Reason::Widened { theta, .. } = reason
        {
            reason = Reason::Widened { why, theta: widened(theta) };
        }
        reason
    }
}

fn widened(theta: f32) -> f32 {
    1.0 - (1.0 - theta) / WIDENING
}

#[cfg(test)]
mod tests;
