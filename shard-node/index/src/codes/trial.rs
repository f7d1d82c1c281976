//! A trial: a few rows as queries with their exact neighbours among a sample of the segment, to judge codes by.

use rayon::prelude::*;
use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;

use super::{CodeKernel, CodedQuery, CodesView};
use crate::hnsw::mix;
use crate::{Hit, Rows, TopK};

/// Rows that are searched, and queries that search them, at most. Queries come in fours.
const ROWS: usize = 50_000;
const QUERIES: usize = 64;
/// Neighbours of each query.
const K: usize = 10;
/// Of the ratios of squared distance by distance of codes the one that so large a share is above.
const NEAR_SHARE: f64 = 0.98;

/// Rows with their exact neighbours by L2.
pub(super) struct Trial {
    /// Each query with the rows nearest to it, itself left out.
    queries: Vec<(u32, Vec<Hit>)>,
}

/// `count` of the row numbers at most, spread evenly and always the same, ascending.
fn sample(rows: usize, count: usize, salt: u64) -> Vec<u32> {
    if rows <= count {
        return (0..rows as u32).collect();
    }
    let mut sample: Vec<u32> = (0..count as u64).map(|i| (mix(i ^ mix(salt)) % rows as u64) as u32).collect();
    sample.sort_unstable();
    sample.dedup();
    sample
}

impl Trial {
    /// Finds the neighbours, on the threads of the current pool.
    pub(super) fn new(rows: Rows<'_>) -> Trial {
        let among = sample(rows.len(), ROWS, 2);
        let queries: Vec<u32> = sample(among.len(), QUERIES, 3).into_iter().map(|i| among[i as usize]).collect();
        let kernel = Kernel::new(Metric::Euclid);
        let (queries, _) = queries.as_chunks::<4>();
        let found = queries.par_iter().flat_map_iter(|quad| {
            let vectors = quad.map(|query| rows.row(query));
            let best = nearest(&among, *quad, K, |row| kernel.distance4(rows.row(row), vectors));
            quad.iter().copied().zip(best)
        });
        Trial { queries: found.collect() }
    }

    /// A low quantile of the ratios of squared distance by distance of codes, over near pairs; at most 1.
    pub(super) fn near_ratio(&self, codes: &CodesView<'_>, kernel: CodeKernel) -> f32 {
        if !matches!(codes.coder.metric, Metric::Cosine | Metric::Euclid) {
            return 1.0;
        }
        let mut ratios = Vec::new();
        let (mut query, mut products, mut distances) = (CodedQuery::default(), Vec::new(), Vec::new());
        for (row, hits) in &self.queries {
            codes.row_as_query(kernel, *row, &mut query);
            let near: Vec<u32> = hits.iter().map(|hit| hit.row).collect();
            codes.score(kernel, &query, &near, &mut products, &mut distances);
            let pairs = hits.iter().zip(&distances).filter(|(hit, coded)| hit.distance > 0.0 && **coded > 0.0);
            ratios.extend(pairs.map(|(hit, coded)| hit.distance / coded));
        }
        ratios.sort_unstable_by(f32::total_cmp);
        let place = ((ratios.len() as f64) * (1.0 - NEAR_SHARE)) as usize;
        ratios.get(place).copied().unwrap_or(1.0)
    }
}

/// The `count` rows nearest to each of four queries, which are not their own neighbours.
fn nearest(rows: &[u32], queries: [u32; 4], count: usize, distances: impl Fn(u32) -> [f32; 4]) -> [Vec<Hit>; 4] {
    let mut best = queries.map(|_| TopK::new(count, rows.len()));
    for row in rows {
        for (i, distance) in distances(*row).into_iter().enumerate() {
            if queries[i] != *row {
                best[i].push(Hit { distance, row: *row });
            }
        }
    }
    best.map(TopK::into_sorted)
}
