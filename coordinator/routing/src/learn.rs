//! From a sample of points to a map that can be served: trained on most of them, calibrated with the rest.
//!
//! Queries are points of the sample that training has not seen. Their exact neighbours are looked for among the other
//! points of the sample, which is sparser than the collection: those neighbours are farther, and spread over more shards, than
//! the true ones, so cut-offs are rather too careful than too bold.

use std::num::NonZeroUsize;
use std::sync::Arc;

use rayon::prelude::*;
use vicinal_common::metric::Metric;
use vicinal_index::{Accept, FlatIndex, Rows, SearchParams, VectorIndex};

use crate::calibrate::{Source, calibrate};
use crate::error::{RoutingError, invalid};
use crate::map::CentroidMap;
use crate::place::{Placer, Places};
use crate::random::sample_rows;
use crate::router::Router;
use crate::train::{TrainOptions, train};

/// Most queries, and the share of the sample that they are at most.
const QUERIES_MAX: usize = 2_000;
const QUERIES_SHARE: usize = 10;
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

/// Learns a map from a sample (row-major, prepared for the metric) of at least two points, in an order that says nothing.
pub fn learn(sample: &[f32], dim: usize, metric: Metric, options: LearnOptions) -> Result<CentroidMap, RoutingError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads.get()).build();
    let pool = pool.map_err(|error| invalid(format!("there are no threads to train with: {error}")))?;
    pool.install(|| learn_here(sample, dim, metric, options))
}

fn learn_here(sample: &[f32], dim: usize, metric: Metric, options: LearnOptions) -> Result<CentroidMap, RoutingError> {
    if dim == 0 || !sample.len().is_multiple_of(dim) || sample.len() / dim < 2 {
        return Err(invalid(format!("{} values are no sample of two or more points of {dim}", sample.len())));
    }
    let count = (sample.len() / dim / QUERIES_SHARE).clamp(1, QUERIES_MAX);
    let (queries, points) = sample.split_at(count * dim);
    let (queries, points) = (Rows { data: queries, dim }, Rows { data: points, dim });
    let train_options = TrainOptions { copies: options.copies, ..TrainOptions::new(options.shards, options.seed) };
    let map = Arc::new(train(points, metric, train_options)?);

    let reference: Vec<f32> = sample_rows(points.len(), REFERENCE_MAX, options.seed)
        .into_iter()
        .flat_map(|row| points.row(row).iter().copied())
        .collect();
    let reference = Rows { data: &reference, dim };
    let places = Placer::new(map.clone()).place_all(reference);
    let answers = neighbours(queries, reference, &places, metric);
    let source = Source { queries, answers: &answers };
    let found = calibrate(&Router::new(map.clone()), &[source], &KS, &TARGETS)?;
    let mut parts = Arc::unwrap_or_clone(map).into_parts();
    (parts.thetas, parts.d1, parts.version) = (found.thetas, found.d1, options.version);
    CentroidMap::new(parts)
}

/// Where the exact neighbours of each query live, nearest first.
fn neighbours(queries: Rows<'_>, reference: Rows<'_>, places: &[Places], metric: Metric) -> Vec<Vec<Places>> {
    let index = FlatIndex::new(metric);
    let k = KS[KS.len() - 1] as usize;
    let search = |query: &[f32]| {
        let hits = index.search(reference, query, SearchParams::new(k, k), Accept::All);
        hits.iter().filter_map(|hit| places.get(hit.row as usize)).copied().collect()
    };
    queries.data.par_chunks_exact(queries.dim).map(search).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Ask, Filtered, Goal};
    use crate::testing::{METRICS, points};

    fn options(shards: u32, threads: usize) -> LearnOptions {
        let threads = NonZeroUsize::new(threads).unwrap();
        LearnOptions { version: 7, shards, copies: 0.2, seed: 5, threads }
    }

    #[test]
    fn a_learned_map_can_be_served_and_is_the_same_on_any_number_of_threads() {
        for metric in METRICS {
            let data = points(1_200, 8, 60, metric, 2);
            let map = learn(&data, 8, metric, options(4, 1)).unwrap();
            assert_eq!(map.encode(), learn(&data, 8, metric, options(4, 2)).unwrap().encode());
            assert_eq!((map.parts().version, map.shards()), (7, 4));
            assert!(!map.parts().thetas.is_empty());
            let router = Router::new(Arc::new(map));
            let ask = Ask { k: 10, goal: Goal::Recall(0.9), filter: Filtered::No };
            let asked: usize =
                data.chunks_exact(8).take(100).map(|query| router.route(query, ask).asked as usize).sum();
            assert!(asked < 400, "{metric:?}: all were asked");
        }
    }

    #[test]
    fn few_points_are_enough_and_none_are_refused() {
        let data = points(20, 4, 3, Metric::Euclid, 2);
        assert_eq!(learn(&data, 4, Metric::Euclid, options(3, 1)).unwrap().shards(), 3);
        assert!(learn(&data[..8], 4, Metric::Euclid, options(3, 1)).is_ok());
        for (values, dim) in [(4, 4), (0, 4), (7, 4), (8, 0)] {
            assert!(learn(&data[..values], dim, Metric::Euclid, options(3, 1)).is_err(), "{values} {dim}");
        }
    }
}
