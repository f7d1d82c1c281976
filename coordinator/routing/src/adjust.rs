//! The next map out of the one that is served: cells that grew too large are split, cells at borders move until no
//! shard is above the cap, all else stays where it is. What moves is what has to be sent.
//!
//! All is reckoned on a sample: shards hold the points of their cells and the copies of border points, and both count.
//! A cell moves with the copies of its shard in proportion; how well that was guessed is measured after each round.

use std::sync::Arc;

use vicinal_index::Rows;

use crate::decision::{Ask, Filtered, Goal};
use crate::error::{RoutingError, invalid};
use crate::map::CentroidMap;
use crate::place::{Placer, Places, copy_ratio};
use crate::rebalance::{Move, oversized, rebalance, split};
use crate::router::Router;

/// A shard may hold so much more than the mean afterwards, as a share of it.
const SLACK: f64 = 0.05;
/// Rounds of splitting, and of moving.
const ROUNDS: usize = 5;
/// A cell wants splitting only when its share of the points has grown by so much since the map's weights were taken:
/// cells of a fresh map differ, and splitting them would be another map, not a better one.
const GROWTH: f64 = 1.5;
/// Points of the sample in a cell that is split, at least: halves of fewer are chance.
const POINTS_TO_SPLIT: u64 = 32;
/// What moves nothing by so much of the mean is not worth a pass over all rows.
const GAIN_MIN: f64 = 0.05;
/// Neighbours that [`fan_out`] asks for.
const QUERY_K: u32 = 10;
/// The share of copies is let drift from the budget by so much of it: another share places many points anew.
const COPIES_DRIFT: f64 = 0.25;

/// Where the points of a sample are by a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Points in each cell.
    pub cells: Vec<u64>,
    /// Points and copies in each shard.
    pub shards: Vec<u64>,
    /// Copies of border points.
    pub copies: u64,
    /// Cells that want splitting, heaviest first.
    pub oversized: Vec<u32>,
}

impl Spread {
    /// Of a sample, row-major, prepared for the map's metric and of its dimension.
    pub fn of(placer: &Placer, points: &[f32]) -> Spread {
        let points = Rows { data: points, dim: placer.map().parts().dim };
        Spread::of_places(placer.map(), &placer.place_all(points))
    }

    fn of_places(map: &CentroidMap, places: &[Places]) -> Spread {
        let mut spread =
            Spread { cells: vec![0; map.len()], shards: vec![0; map.shards() as usize], copies: 0, oversized: vec![] };
        for of in places {
            spread.cells[of.centroid as usize] += 1;
            spread.shards[of.home as usize] += 1;
            if let Some(copy) = of.copy {
                spread.shards[copy as usize] += 1;
                spread.copies += 1;
            }
        }
        let weights: Vec<f64> = spread.cells.iter().map(|points| *points as f64).collect();
        let (now, then) = (weights.iter().sum::<f64>(), map.parts().weight.iter().map(|w| f64::from(*w)).sum::<f64>());
        let has_grown = |cell: &u32| {
            let known = f64::from(map.parts().weight[*cell as usize]);
            weights[*cell as usize] * then > GROWTH * known * now && spread.cells[*cell as usize] >= POINTS_TO_SPLIT
        };
        spread.oversized = oversized(&weights).into_iter().filter(has_grown).collect();
        spread
    }

    /// The fullest shard by the mean; 1 when all are equal, or empty.
    pub fn imbalance(&self) -> f64 {
        let total: u64 = self.shards.iter().sum();
        let fullest = self.shards.iter().copied().max().unwrap_or(0);
        if total == 0 { 1.0 } else { fullest as f64 * self.shards.len() as f64 / total as f64 }
    }

    /// The share of the points that are in cells that want splitting.
    pub fn oversized_share(&self) -> f64 {
        let total: u64 = self.cells.iter().sum();
        let held: u64 = self.oversized.iter().filter_map(|cell| self.cells.get(*cell as usize)).sum();
        held as f64 / total.max(1) as f64
    }
}

/// How to adjust a map.
#[derive(Clone, Copy, Debug)]
pub struct AdjustOptions {
    /// Budget of copies of border points, as a share of the points: 0 to 1.
    pub copies: f64,
    /// Centroids afterwards, at most; no fewer than there are.
    pub centroids_max: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// An adjusted map. Its cut-offs are those of the map before: they want calibrating anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Adjusted {
    /// The map, of the next version, with the weights of the sample.
    pub map: CentroidMap,
    /// Cells of the map before that are in another shard, with their points in the sample.
    pub moves: Vec<Move>,
    /// Cells of the map before that were split, ascending: for each the new centroids are nearby.
    pub splits: Vec<u32>,
    /// The sample by the map before.
    pub before: Spread,
    /// The sample by the adjusted map.
    pub after: Spread,
}

/// Adjusts a map to a sample, row-major, that is prepared for its metric. `None` when there is nothing to gain: no cell
/// wants splitting, and the shards are even or cannot be made more so.
pub fn adjust(
    map: &Arc<CentroidMap>,
    points: &[f32],
    options: AdjustOptions,
) -> Result<Option<Adjusted>, RoutingError> {
    let dim = map.parts().dim;
    if points.is_empty() || !points.len().is_multiple_of(dim) {
        return Err(invalid(format!("{} values are no sample of points of {dim}", points.len())));
    }
    let points = Rows { data: points, dim };
    let mut draft = Draft::new(map, points, options);
    let before = draft.spread.clone();
    for _ in 0..ROUNDS {
        let wanted = draft.spread.oversized.clone();
        if !draft.split(&wanted)? {
            break;
        }
    }
    let mut best = draft.clone();
    for _ in 0..ROUNDS {
        if draft.spread.imbalance() <= 1.0 + SLACK {
            break;
        }
        let weights = draft.weights();
        let parts = draft.map.parts();
        let moved = rebalance(draft.map.rows(), parts.metric, &weights, &parts.shard_of, parts.shards, SLACK);
        if !moved.moves.is_empty() {
            let next = draft.map.moved(&moved.moves)?;
            draft.set(next);
        } else if !draft.split(&too_heavy(&draft.map, &weights, &moved.over))? {
            break;
        }
        if draft.spread.imbalance() < best.spread.imbalance() {
            best = draft.clone();
        }
    }
    let is_better = best.spread.imbalance() + GAIN_MIN <= before.imbalance();
    if best.origins.is_empty() && !is_better {
        return Ok(None);
    }
    best.finish(map, before).map(Some)
}

/// The map as far as it is adjusted, and where the sample is by it.
#[derive(Clone)]
struct Draft<'a> {
    points: Rows<'a>,
    options: AdjustOptions,
    map: Arc<CentroidMap>,
    places: Vec<Places>,
    spread: Spread,
    /// Of each new centroid the cell of the first map that it was cut from.
    origins: Vec<u32>,
    /// Centroids of the first map.
    first: usize,
}

impl<'a> Draft<'a> {
    fn new(map: &Arc<CentroidMap>, points: Rows<'a>, options: AdjustOptions) -> Draft<'a> {
        let places = Placer::new(map.clone()).place_all(points);
        let spread = Spread::of_places(map, &places);
        Draft { points, options, map: map.clone(), places, spread, origins: Vec::new(), first: map.len() }
    }

    fn set(&mut self, map: CentroidMap) {
        self.map = Arc::new(map);
        self.places = Placer::new(self.map.clone()).place_all(self.points);
        self.spread = Spread::of_places(&self.map, &self.places);
    }

    /// Points of each cell, and in proportion those copies that its shard holds.
    fn weights(&self) -> Vec<f64> {
        let shard_of = &self.map.parts().shard_of;
        let mut homes = vec![0u64; self.spread.shards.len()];
        for (points, shard) in self.spread.cells.iter().zip(shard_of) {
            homes[*shard as usize] += points;
        }
        let of = |(points, shard): (&u64, &u32)| {
            *points as f64 * self.spread.shards[*shard as usize] as f64 / homes[*shard as usize].max(1) as f64
        };
        self.spread.cells.iter().zip(shard_of).map(of).collect()
    }

    /// Cuts cells in two, as far as there is room for more centroids. Returns whether any was: one of equal points is
    /// not.
    fn split(&mut self, cells: &[u32]) -> Result<bool, RoutingError> {
        let room = self.options.centroids_max.saturating_sub(self.map.len());
        let mut next: Option<CentroidMap> = None;
        for cell in cells.iter().take(room).copied() {
            let own = self.places.iter().enumerate().filter(|(_, places)| places.centroid == cell);
            let rows: Vec<f32> = own.flat_map(|(row, _)| self.points.row(row as u32).iter().copied()).collect();
            let rows = Rows { data: &rows, dim: self.points.dim };
            let seed = self.options.seed ^ u64::from(cell);
            let Some(halves) = split(rows, self.map.parts().metric, seed) else { continue };
            let before = next.as_ref().unwrap_or(&self.map);
            next = Some(before.split(cell, &halves)?);
            let from = (cell as usize).checked_sub(self.first).and_then(|new| self.origins.get(new).copied());
            self.origins.push(from.unwrap_or(cell));
        }
        let is_split = next.is_some();
        if let Some(next) = next {
            self.set(next);
        }
        Ok(is_split)
    }

    fn finish(mut self, first: &CentroidMap, before: Spread) -> Result<Adjusted, RoutingError> {
        let copied = self.spread.copies as f64 / self.points.len() as f64;
        if (copied - self.options.copies).abs() > COPIES_DRIFT * self.options.copies {
            let mut parts = CentroidMap::clone(&self.map).into_parts();
            parts.copy_ratio = copy_ratio(&self.places, self.options.copies);
            self.set(CentroidMap::new(parts)?);
        }
        let mut parts = CentroidMap::clone(&self.map).into_parts();
        parts.version = first.parts().version + 1;
        // None weighs nothing: the sample may have missed its points.
        parts.weight = self.spread.cells.iter().map(|points| (*points as f32).max(0.5)).collect();
        for places in &self.places {
            let radius = &mut parts.radius[places.centroid as usize];
            *radius = radius.max(places.length);
        }
        let moves = (0..first.len()).zip(&first.parts().shard_of).zip(&parts.shard_of);
        let moves = moves.filter(|((_, from), to)| from != to).map(|((cell, from), to)| Move {
            centroid: cell as u32,
            from: *from,
            to: *to,
            weight: self.spread.cells[cell] as f64,
        });
        let moves = moves.collect();
        let mut splits = self.origins;
        splits.sort_unstable();
        Ok(Adjusted { moves, splits, map: CentroidMap::new(parts)?, before, after: self.spread })
    }
}

/// Cells of shards that no move relieves, because each of them weighs more than what fits elsewhere.
fn too_heavy(map: &CentroidMap, weights: &[f64], over: &[u32]) -> Vec<u32> {
    let most = SLACK * weights.iter().sum::<f64>() / f64::from(map.shards());
    let is_one = |cell: &u32| weights[*cell as usize] > most && over.contains(&map.parts().shard_of[*cell as usize]);
    (0..map.len() as u32).filter(is_one).collect()
}

/// The mean share of the shards that searches near points of this kind ask by a calibrated map, for a recall between 0
/// and 1 and ten neighbours: 0 to 1.
pub fn fan_out(router: &Router, queries: &[f32], recall: f32) -> f64 {
    let ask = Ask { k: QUERY_K, goal: Goal::Recall(recall), filter: Filtered::No };
    let queries = queries.chunks_exact(router.map().parts().dim);
    let all = queries.len().max(1) * router.map().shards() as usize;
    let asked: usize = queries.map(|query| router.route(query, ask).asked).sum();
    asked as f64 / all as f64
}

#[cfg(test)]
mod tests;
