//! The nearest of some centroids: exact, over 8-bit codes where there are enough of them to pay for coding.

use vicinal_common::metric::Metric;
use vicinal_index::{Accept, FlatIndex, Hit, Rows, SearchParams, VectorIndex};

/// Fewer rows than this are scanned as they are.
const CODED_ROWS_MIN: usize = 128;

/// A search structure over rows that it does not hold.
pub(crate) struct Finder(FlatIndex);

impl Finder {
    /// Over these rows, by this metric.
    pub(crate) fn new(rows: Rows<'_>, metric: Metric) -> Finder {
        let plain = || FlatIndex::new(metric);
        if rows.len() < CODED_ROWS_MIN {
            return Finder(plain());
        }
        // Without memory or a thread for codes the same is found, only more slowly.
        Finder(FlatIndex::coded(rows, metric, 1).unwrap_or_else(|_| plain()))
    }

    /// The `k` nearest rows, best first, ties by row. `rows` are those it was made for.
    pub(crate) fn nearest(&self, rows: Rows<'_>, query: &[f32], k: usize, accept: Accept<'_>) -> Vec<Hit> {
        self.0.search(rows, query, SearchParams::new(k, k), accept)
    }
}
