//! From a sample of points to a map that can be served: trained on most of them, calibrated with the rest.
//!
//! Expected queries are points of the sample that training has not seen, and those that were asked lately, where they are
//! known. Possible ones are means of two and of three points. Their exact neighbours are looked for among the other points of
//! the sample, which is sparser than the collection: those neighbours are farther, and spread over more shards, than the true
//! ones, so cut-offs are rather too careful than too bold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use vicinal_common::metric::Metric;
use vicinal_index::Rows;

use crate::adjust::{AdjustOptions, Adjusted, adjust};
use crate::calibrate::{Source, SourceKind, calibrate};
use crate::error::{RoutingError, invalid};
use crate::exact::nearest_rows;
use crate::map::CentroidMap;
use crate::place::{Placer, Places};
use crate::random::{Random, sample_rows};
use crate::router::Router;
use crate::train::{TrainOptions, train};

/// Most queries, and the share of the sample that they are at most.
const QUERIES_MAX: usize = 2_000;
const QUERIES_SHARE: usize = 10;
/// Fewest queries that were asked that say anything of those that will be.
const ASKED_MIN: usize = 100;
/// Means of so many points each are possible queries; so many of each number.
const MIXED: [usize; 2] = [2, 3];
const MIXTURES_MAX: usize = 1_000;
/// Most points among which neighbours are looked for: more of them cost time and move the cut-offs little.
const REFERENCE_MAX: usize = 100_000;
/// What is calibrated: numbers of neighbours and recalls.
const KS: [u32; 3] = [1, 10, 100];
const TARGETS: [f32; 5] = [0.8, 0.9, 0.95, 0.98, 0.99];

/// How to learn a map.
#[derive(Clone, Copy, Debug)]
pub struct LearnOptions {
    /// Version of the map.
    pub version: u64,
    /// Shards, at least 1.
    pub shards: u32,
    /// Budget of copies of border points, as a share of the points: 0 to 1.
    pub copies: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads to use. They are started, and end, with the call.
    pub threads: NonZeroUsize,
}

/// What is known of a collection: row-major, prepared for the metric.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// A sample of its points, in an order that says nothing.
    pub sample: &'a [f32],
    /// Queries that were asked lately; fewer than 100 count as none, and those beyond 2,000 are not looked at.
    pub asked: &'a [f32],
}

/// Learns a map from a sample of at least two points, calibrated by those of it that training does not see, and by what was
/// asked. Its shards get the numbers of those shards of the previous map that they have most points in common with:
/// those need not move.
pub fn learn(
    known: Known<'_>,
    dim: usize,
    metric: Metric,
    previous: Option<CentroidMap>,
    options: LearnOptions,
) -> Result<CentroidMap, RoutingError> {
    on_threads(options.threads, || learn_here(known, dim, metric, previous, options))
}

/// Works on threads of its own, which end with it.
pub fn on_threads<T: Send>(
    threads: NonZeroUsize,
    train: impl FnOnce() -> Result<T, RoutingError> + Send,
) -> Result<T, RoutingError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build();
    let pool = pool.map_err(|error| invalid(format!("there are no threads to train with: {error}")))?;
    pool.install(train)
}

fn learn_here(
    known: Known<'_>,
    dim: usize,
    metric: Metric,
    previous: Option<CentroidMap>,
    options: LearnOptions,
) -> Result<CentroidMap, RoutingError> {
    let (queries, points) = held_out(known, dim)?;
    let train_options = TrainOptions { copies: options.copies, ..TrainOptions::new(options.shards, options.seed) };
    let map = train(points, metric, train_options)?;

    let reference = reference_of(points, options.seed);
    let reference = Rows { data: &reference, dim };
    let map = match previous.filter(|previous| previous.parts().metric == metric && previous.parts().dim == dim) {
        Some(previous) => renumbered(map, previous, reference)?,
        None => map,
    };
    // Cells were grouped by the points that live in them; copies of border points make some shards fuller than others.
    let even = AdjustOptions { copies: options.copies, centroids_max: 0, seed: options.seed };
    let map = Arc::new(map);
    let map = match adjust(&map, reference.data, even)? {
        Some(adjusted) => adjusted.map,
        None => Arc::unwrap_or_clone(map),
    };
    calibrated(map, queries, points, known.asked, reference, options)
}

/// Adjusts a map that is served to a sample, as [`learn`] takes it, and calibrates it anew; `None` when there is nothing
/// to gain. Of the options `shards` means nothing: they stay. There are at most `centroids_max` centroids afterwards,
/// unless there are more already.
pub fn learn_from(
    map: CentroidMap,
    known: Known<'_>,
    centroids_max: usize,
    options: LearnOptions,
) -> Result<Option<Adjusted>, RoutingError> {
    on_threads(options.threads, || {
        let dim = map.parts().dim;
        let (queries, points) = held_out(known, dim)?;
        let LearnOptions { copies, seed, .. } = options;
        let Some(adjusted) = adjust(&Arc::new(map), points.data, AdjustOptions { copies, centroids_max, seed })? else {
            return Ok(None);
        };
        let reference = reference_of(points, seed);
        let reference = Rows { data: &reference, dim };
        let map = calibrated(adjusted.map, queries, points, known.asked, reference, options)?;
        Ok(Some(Adjusted { map, ..adjusted }))
    })
}

/// Queries and the points to train on.
fn held_out(known: Known<'_>, dim: usize) -> Result<(Rows<'_>, Rows<'_>), RoutingError> {
    let Known { sample, asked } = known;
    if dim == 0 || !sample.len().is_multiple_of(dim) || sample.len() / dim < 2 {
        return Err(invalid(format!("{} values are no sample of two or more points of {dim}", sample.len())));
    }
    if !asked.len().is_multiple_of(dim) {
        return Err(invalid(format!("{} values are no queries of {dim}", asked.len())));
    }
    let count = (sample.len() / dim / QUERIES_SHARE).clamp(1, QUERIES_MAX);
    let (queries, points) = sample.split_at(count * dim);
    Ok((Rows { data: queries, dim }, Rows { data: points, dim }))
}

/// The points among which neighbours are looked for.
fn reference_of(points: Rows<'_>, seed: u64) -> Vec<f32> {
    let rows = sample_rows(points.len(), REFERENCE_MAX, seed);
    rows.into_iter().flat_map(|row| points.row(row).iter().copied()).collect()
}

/// A map with cut-offs by these queries, what was asked and means of the points, and with the version of the options.
fn calibrated(
    map: CentroidMap,
    queries: Rows<'_>,
    points: Rows<'_>,
    asked: &[f32],
    reference: Rows<'_>,
    options: LearnOptions,
) -> Result<CentroidMap, RoutingError> {
    let (dim, metric) = (points.dim, map.parts().metric);
    let map = Arc::new(map);
    let places = Placer::new(map.clone()).place_all(reference);
    let count = queries.len();
    let mut kinds = vec![(SourceKind::Expected, queries.data.to_vec())];
    let asked = &asked[..asked.len().min(QUERIES_MAX * dim)];
    if asked.len() >= ASKED_MIN * dim {
        kinds.push((SourceKind::Expected, asked.to_vec()));
    }
    let mixtures = count.min(MIXTURES_MAX);
    kinds.extend(MIXED.map(|of| (SourceKind::Possible, mixed(points, metric, of, mixtures, options.seed))));
    let k = KS[KS.len() - 1] as usize;
    let answers: Vec<Vec<Vec<Places>>> =
        kinds.iter().map(|(_, data)| neighbours(Rows { data, dim }, reference, &places, metric, k)).collect();
    let sources: Vec<Source<'_>> = kinds
        .iter()
        .zip(&answers)
        .map(|((kind, data), answers)| Source { kind: *kind, queries: Rows { data, dim }, answers })
        .collect();
    let found = calibrate(&Router::new(map.clone()), &sources, &KS, &TARGETS)?;
    let mut parts = Arc::unwrap_or_clone(map).into_parts();
    (parts.thetas, parts.d1, parts.flatness) = (found.thetas, found.d1, found.flatness);
    parts.version = options.version;
    CentroidMap::new(parts)
}

/// The same map with other numbers of its shards: those of the previous map's, as far as it has them, where most of
/// these points stay.
fn renumbered(map: CentroidMap, previous: CentroidMap, points: Rows<'_>) -> Result<CentroidMap, RoutingError> {
    let shards = map.shards();
    let map = Arc::new(map);
    let (new, old) = (Placer::new(map.clone()).place_all(points), Placer::new(Arc::new(previous)).place_all(points));
    let mut common: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (new, old) in new.iter().zip(&old) {
        *common.entry((new.home, old.home)).or_default() += 1;
    }
    let mut pairs: Vec<((u32, u32), u64)> = common.into_iter().collect();
    // The largest first; equal ones stay in order.
    pairs.sort_by_key(|(_, points)| Reverse(*points));
    let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
    let mut free: BTreeSet<u32> = (0..shards).collect();
    for ((new, old), _) in pairs {
        if !numbers.contains_key(&new) && free.remove(&old) {
            numbers.insert(new, old);
        }
    }
    for new in 0..shards {
        if !numbers.contains_key(&new)
            && let Some(number) = free.pop_first()
        {
            numbers.insert(new, number);
        }
    }
    let mut parts = Arc::unwrap_or_clone(map).into_parts();
    for shard in &mut parts.shard_of {
        *shard = numbers.get(shard).copied().unwrap_or(*shard);
    }
    CentroidMap::new(parts)
}

/// Means of so many points each, prepared.
fn mixed(points: Rows<'_>, metric: Metric, of: usize, count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed ^ of as u64);
    let mut mixtures = vec![0f32; count * points.dim];
    for mixture in mixtures.chunks_exact_mut(points.dim) {
        for _ in 0..of {
            let point = points.row(random.below(points.len()) as u32);
            mixture.iter_mut().zip(point).for_each(|(sum, value)| *sum += value / of as f32);
        }
        metric.prepare(mixture);
    }
    mixtures
}

/// Where the exact neighbours of each query live, nearest first.
fn neighbours(queries: Rows<'_>, reference: Rows<'_>, places: &[Places], metric: Metric, k: usize) -> Vec<Vec<Places>> {
    let of = |rows: Vec<u32>| rows.iter().filter_map(|row| places.get(*row as usize)).copied().collect();
    nearest_rows(queries, reference, metric, k).into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Ask, Filtered, Goal, Reason};
    use crate::testing::{METRICS, points};

    fn options(shards: u32, threads: usize) -> LearnOptions {
        let threads = NonZeroUsize::new(threads).unwrap();
        LearnOptions { version: 7, shards, copies: 0.2, seed: 5, threads }
    }

    fn of(sample: &[f32]) -> Known<'_> {
        Known { sample, asked: &[] }
    }

    #[test]
    fn a_learned_map_can_be_served_and_is_the_same_on_any_number_of_threads() {
        for metric in METRICS {
            let data = points(1_200, 8, 60, metric, 2);
            let map = learn(of(&data), 8, metric, None, options(4, 1)).unwrap();
            assert_eq!(map.encode(), learn(of(&data), 8, metric, None, options(4, 2)).unwrap().encode());
            assert_eq!((map.parts().version, map.shards()), (7, 4));
            assert!(!map.parts().thetas.is_empty());
            let router = Router::new(Arc::new(map));
            let ask = Ask { k: 10, goal: Goal::Recall(0.9), filter: Filtered::No };
            let asked: usize = data.chunks_exact(8).take(100).map(|query| router.route(query, ask).asked).sum();
            assert!(asked < 400, "{metric:?}: all were asked");
        }
    }

    #[test]
    fn shards_keep_the_numbers_of_those_that_had_their_points() {
        // Clearly apart, so that many points have common shards whatever the seed.
        let data: Vec<f32> = (0..400u16).flat_map(|i| [f32::from(i % 4) * 100.0, f32::from(i) / 400.0]).collect();
        let first = learn(of(&data), 2, Metric::Euclid, None, options(4, 1)).unwrap();
        let homes = |map: &CentroidMap| -> Vec<u32> {
            let places = Placer::new(Arc::new(map.clone())).place_all(Rows { data: &data, dim: 2 });
            places.iter().map(|places| places.home).collect()
        };
        for seed in 6..12 {
            let again = LearnOptions { seed, ..options(4, 1) };
            let map = learn(of(&data), 2, Metric::Euclid, Some(first.clone()), again).unwrap();
            let stay = homes(&first).iter().zip(homes(&map)).filter(|(old, new)| **old == *new).count();
            assert!(stay >= 200, "seed {seed}: {stay} of 400");
        }
        let five = learn(of(&data), 2, Metric::Euclid, Some(first.clone()), options(5, 1)).unwrap();
        assert_eq!(homes(&five).iter().max(), Some(&4));
        assert_eq!(learn(of(&data), 2, Metric::Euclid, Some(first), options(2, 1)).unwrap().shards(), 2);
    }

    #[test]
    fn queries_that_were_asked_decide_where_they_are_harder() {
        let data = points(3_000, 8, 60, Metric::Euclid, 2);
        let asked = points(400, 8, 13, Metric::Euclid, 77);
        let with = |asked| learn(Known { sample: &data, asked }, 8, Metric::Euclid, None, options(4, 1)).unwrap();
        let (without, few, many) = (with(&[]), with(&asked[..99 * 8]), with(&asked));
        assert_eq!(without, few);
        assert_eq!(many.parts().centroids, without.parts().centroids);
        assert!(many.parts().d1.q50 > without.parts().d1.q50);
        assert!(learn(Known { sample: &data, asked: &asked[..9] }, 8, Metric::Euclid, None, options(4, 1)).is_err());
        let router = Router::new(Arc::new(many));
        let ask = Ask { k: 10, goal: Goal::Recall(0.9), filter: Filtered::No };
        // Half of the queries are far, by the measure of stored points.
        let is_unusual = |query: &[f32]| !matches!(router.route(query, ask).reason, Reason::Mass { .. });
        let unusual = asked.chunks_exact(8).filter(|query| is_unusual(query)).count();
        assert!(unusual < 40, "{unusual}");
    }

    #[test]
    fn few_points_are_enough_and_none_are_refused() {
        let data = points(20, 4, 3, Metric::Euclid, 2);
        assert_eq!(learn(of(&data), 4, Metric::Euclid, None, options(3, 1)).unwrap().shards(), 3);
        assert!(learn(of(&data[..8]), 4, Metric::Euclid, None, options(3, 1)).is_ok());
        for (values, dim) in [(4, 4), (0, 4), (7, 4), (8, 0)] {
            assert!(learn(of(&data[..values]), dim, Metric::Euclid, None, options(3, 1)).is_err(), "{values} {dim}");
        }
    }
}
