//! The exact index: every accepted row is scored. Also what a graph falls back to when few rows are accepted.

use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;

use super::top_k::TopK;
use super::{Accept, Hit, Rows, SearchParams, VectorIndex};

/// Exact search without any structure of its own.
#[derive(Clone, Copy, Debug)]
pub struct FlatIndex {
    metric: Metric,
    kernel: Kernel,
}

impl FlatIndex {
    /// An exact index for a metric.
    pub fn new(metric: Metric) -> FlatIndex {
        FlatIndex { metric, kernel: Kernel::new(metric) }
    }
}

impl VectorIndex for FlatIndex {
    fn search(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Vec<Hit> {
        scan(&self.kernel, rows, query, params.k, accept)
    }

    fn name(&self) -> &'static str {
        "flat"
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn bytes(&self) -> u64 {
        0
    }
}

/// The exact k nearest accepted rows, best first. Accepted rows are scored four at a time.
pub(super) fn scan(kernel: &Kernel, rows: Rows<'_>, query: &[f32], k: usize, accept: Accept<'_>) -> Vec<Hit> {
    if k == 0 {
        return Vec::new();
    }
    let mut best = TopK::new(k, rows.len());
    let mut waiting = [0u32; 4];
    let mut count = 0;
    for row in accept.iter(row_count(rows) as usize) {
        waiting[count] = row;
        count += 1;
        if count == 4 {
            let distances = kernel.distance4(query, waiting.map(|row| rows.row(row)));
            for (row, distance) in waiting.into_iter().zip(distances) {
                best.push(Hit { distance, row });
            }
            count = 0;
        }
    }
    for row in waiting.into_iter().take(count) {
        best.push(Hit { distance: kernel.distance(query, rows.row(row)), row });
    }
    best.into_sorted()
}

/// The number of rows as a row id. Rows beyond `u32::MAX` cannot be named by a [`Hit`]; segments are far smaller.
fn row_count(rows: Rows<'_>) -> u32 {
    u32::try_from(rows.len()).expect("a segment has fewer than 2^32 rows")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_sorting_everything(
            values in prop::collection::vec(-3i8..3, 0..600),
            dim in 1usize..6,
            k in 0usize..40,
            modulus in 1u32..5,
        ) {
            let mut data: Vec<f32> = values.into_iter().map(f32::from).collect();
            data.truncate(data.len() / dim * dim);
            let rows = Rows { data: &data, dim };
            let query = vec![0.5; dim];
            for metric in [Metric::Dot, Metric::Euclid, Metric::Manhattan] {
                let kernel = Kernel::new(metric);
                let mut expected: Vec<Hit> = (0..rows.len() as u32)
                    .filter(|row| row % modulus == 0)
                    .map(|row| Hit { distance: kernel.distance(&query, rows.row(row)), row })
                    .collect();
                expected.sort_by(Hit::cmp_total);
                expected.truncate(k);
                let params = SearchParams { k, ef: 0 };
                let got = FlatIndex::new(metric).search(rows, &query, params, Accept::test(&|row| row % modulus == 0));
                prop_assert_eq!(got, expected);
            }
        }
    }

    #[test]
    fn k_beyond_the_rows_returns_every_row() {
        let data = [1.0, 0.0, 2.0];
        let rows = Rows { data: &data, dim: 1 };
        let hits =
            FlatIndex::new(Metric::Euclid).search(rows, &[0.0], SearchParams { k: usize::MAX, ef: 1 }, Accept::All);
        assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [1, 0, 2]);
    }

    #[test]
    fn no_rows_no_hits() {
        let rows = Rows { data: &[], dim: 7 };
        let params = SearchParams { k: 3, ef: 3 };
        assert!(FlatIndex::new(Metric::Dot).search(rows, &[0.0; 7], params, Accept::All).is_empty());
    }
}
