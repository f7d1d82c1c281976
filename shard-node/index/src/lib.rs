//! Vector indexes over the rows of one segment. An index knows rows and distances; it never sees ids or payloads.
//!
//! A crate of its own: it needs neither consensus nor a runtime, and is compiled and measured without them.

mod array;
mod codes;
mod flat;
pub mod hnsw;
mod prefetch;
mod row_set;
pub mod sparse;
mod top_k;

use std::ops::Range;

use vicinal_common::metric::Metric;

pub use array::Residency;
pub use flat::FlatIndex;
pub use row_set::RowSet;
pub use top_k::TopK;

/// The vectors of one segment or fresh run: row-major, `len = rows * dim`, already prepared for the metric.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Values per row, at least 1.
    pub dim: usize,
}

impl<'a> Rows<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// One row. Panics when `row >= len()`: rows come from the index itself, never from a request.
    pub fn row(&self, row: u32) -> &'a [f32] {
        let start = row as usize * self.dim;
        &self.data[start..start + self.dim]
    }
}

/// One found row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Internal distance, smaller is nearer (see [`Metric`]). Never NaN.
    pub distance: f32,
    /// Row in the segment. Rows are in id order, so ties by row are ties by id.
    pub row: u32,
}

impl Hit {
    /// The total order of results: distance, then row.
    pub fn cmp_total(&self, other: &Hit) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.row.cmp(&other.row))
    }
}

/// What a search asks of an index.
#[derive(Clone, Copy, Debug)]
pub struct SearchParams {
    /// How many hits at most.
    pub k: usize,
    /// Query beam of a graph; raised to `k` when smaller. Ignored by exact indexes.
    pub ef: usize,
    /// Whether the hits must be the nearest for certain: a graph then scans.
    pub exact: bool,
    /// Threads that one scan may spread over, at least 1: those of the thread pool of rayon that the caller runs in, or of
    /// the global one. Walks are never spread.
    pub threads: usize,
}

impl SearchParams {
    /// The `k` nearest, as an index finds them with a beam of `ef`, on the calling thread.
    pub fn new(k: usize, ef: usize) -> SearchParams {
        SearchParams { k, ef, exact: false, threads: 1 }
    }
}

/// What a search found, and what that took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Searched {
    /// Best first, in [`Hit::cmp_total`] order.
    pub hits: Vec<Hit>,
    /// Distances computed: of vectors and of codes, one for each row each time.
    pub distances: u64,
}

/// The rows a search may return: tombstones and filters in one.
#[derive(Clone, Copy)]
pub enum Accept<'a> {
    /// Every row.
    All,
    /// Exactly the rows whose bit is set: row r is bit `r % 64` of word `r / 64`.
    Rows {
        /// The bits, one for each row at least.
        words: &'a [u64],
        /// How many are set.
        count: usize,
    },
    /// The rows that pass a test, which must be cheap and pure.
    Test {
        /// The test.
        test: &'a (dyn Fn(u32) -> bool + Sync),
        /// How many rows pass, where that is known.
        count: Option<usize>,
    },
}

impl<'a> Accept<'a> {
    /// The rows that pass a test; how many is not known.
    pub fn test(test: &'a (dyn Fn(u32) -> bool + Sync)) -> Accept<'a> {
        Accept::Test { test, count: None }
    }

    /// How many rows may be returned of so many, where that is known.
    pub fn count(&self, rows: usize) -> Option<usize> {
        match self {
            Accept::All => Some(rows),
            Accept::Rows { count, .. } => Some(*count),
            Accept::Test { count, .. } => *count,
        }
    }

    /// The rows that may be returned of so many, ascending.
    pub fn iter(&self, rows: usize) -> impl Iterator<Item = u32> {
        self.iter_in(0..rows)
    }

    /// The rows of a range that may be returned, ascending. The range begins at a multiple of 64 or is empty.
    pub(crate) fn iter_in(&self, rows: Range<usize>) -> impl Iterator<Item = u32> + use<'a> {
        debug_assert!(rows.is_empty() || rows.start.is_multiple_of(64));
        let accept = *self;
        (rows.start / 64..rows.end.div_ceil(64)).flat_map(move |word| {
            let first = word as u32 * 64;
            let mut bits = match accept {
                Accept::Rows { words, .. } => words[word],
                Accept::All | Accept::Test { .. } => u64::MAX,
            };
            if rows.end - (first as usize) < 64 {
                bits &= (1 << (rows.end % 64)) - 1;
            }
            std::iter::from_fn(move || {
                let row = first + (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(row)
            })
            .filter(move |row| !matches!(accept, Accept::Test { .. }) || accept.contains(*row))
        })
    }

    /// Whether a row may be returned.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        match self {
            Accept::All => true,
            Accept::Rows { words, .. } => words[row as usize / 64] >> (row % 64) & 1 == 1,
            Accept::Test { test, .. } => test(row),
        }
    }
}

/// A searchable structure over [`Rows`].
pub trait VectorIndex: Send + Sync {
    /// The nearest accepted rows to `query` (prepared, `dim` values), best first in [`Hit::cmp_total`] order, at most
    /// `params.k`. `rows` must be the rows the index was built on.
    fn search(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Vec<Hit> {
        self.search_counted(rows, query, params, accept).hits
    }

    /// [`VectorIndex::search`], with what it took.
    fn search_counted(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Searched;

    /// Short name for people: `flat`, `hnsw`.
    fn name(&self) -> &'static str;

    /// The metric the index was built for.
    fn metric(&self) -> Metric;

    /// Resident bytes the index adds to the vectors.
    fn bytes(&self) -> u64;
}
