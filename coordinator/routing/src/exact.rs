//! Exact neighbours of many queries among many points: what calibration compares with.
//!
//! Points are gone through in blocks that stay in the cache of a processor while a group of queries is compared with them: each by
//! itself would read all points from memory once per query.

use rayon::prelude::*;
use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;
use vicinal_index::{Hit, Rows};

/// Queries that share a block.
const GROUP: usize = 16;
/// Bytes of points in a block.
const BLOCK_BYTES: usize = 128 << 10;

/// The rows of the `k` nearest points of each query, nearest first; equal ones by row. On the threads of the current pool.
pub fn nearest_rows(queries: Rows<'_>, points: Rows<'_>, metric: Metric, k: usize) -> Vec<Vec<u32>> {
    let kernel = Kernel::new(metric);
    let in_block = (BLOCK_BYTES / (points.dim * size_of::<f32>())).max(1);
    let of_group = |group: &[f32]| -> Vec<Vec<u32>> {
        let mut best: Vec<Best> = group.chunks_exact(queries.dim).map(|_| Best::new(k)).collect();
        let mut distances = vec![0.0; in_block];
        for (number, block) in points.data.chunks(in_block * points.dim).enumerate() {
            let distances = &mut distances[..block.len() / points.dim];
            for (query, best) in group.chunks_exact(queries.dim).zip(&mut best) {
                kernel.distances(query, block, points.dim, distances);
                best.take((number * in_block) as u32, distances);
            }
        }
        best.into_iter().map(Best::rows).collect()
    };
    queries.data.par_chunks(GROUP * queries.dim).flat_map_iter(of_group).collect()
}

/// The best so far, and some more.
struct Best {
    k: usize,
    hits: Vec<Hit>,
    /// What is farther is none of them.
    worst: f32,
}

impl Best {
    fn new(k: usize) -> Best {
        Best { k, hits: Vec::with_capacity(3 * k), worst: f32::INFINITY }
    }

    fn take(&mut self, first: u32, distances: &[f32]) {
        for (row, distance) in (first..).zip(distances) {
            if *distance <= self.worst {
                self.hits.push(Hit { distance: *distance, row });
                if self.hits.len() >= 3 * self.k {
                    self.cut();
                }
            }
        }
    }

    fn cut(&mut self) {
        if self.k == 0 {
            self.hits.clear();
        } else if self.hits.len() > self.k {
            let (_, last, _) = self.hits.select_nth_unstable_by(self.k - 1, Hit::cmp_total);
            self.worst = last.distance;
            self.hits.truncate(self.k);
        }
    }

    fn rows(mut self) -> Vec<u32> {
        self.cut();
        self.hits.sort_unstable_by(Hit::cmp_total);
        self.hits.into_iter().map(|hit| hit.row).collect()
    }
}

#[cfg(test)]
mod tests {
    use vicinal_index::{Accept, FlatIndex, SearchParams, VectorIndex};

    use super::*;
    use crate::testing::{METRICS, points};

    #[test]
    fn they_are_those_of_one_search_after_the_other() {
        for metric in METRICS {
            // Several blocks, several groups, and a point that is there often.
            let mut data = points(9_000, 7, 40, metric, 1);
            let point = data[..7].to_vec();
            (0..50).for_each(|_| data.extend(&point));
            let rows = Rows { data: &data, dim: 7 };
            let queries = Rows { data: &data[..40 * 7], dim: 7 };
            let index = FlatIndex::new(metric);
            for k in [1, 10, 100] {
                let found = nearest_rows(queries, rows, metric, k);
                for (query, found) in queries.data.chunks_exact(7).zip(&found) {
                    let hits = index.search(rows, query, SearchParams::new(k, k), Accept::All);
                    assert_eq!(*found, hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), "{metric:?} {k}");
                }
            }
            assert_eq!(nearest_rows(queries, Rows { data: &data[..21], dim: 7 }, metric, 10)[0].len(), 3);
            assert_eq!(nearest_rows(queries, rows, metric, 0)[0].len(), 0);
        }
    }
}
