//! The inverted index: for each index that occurs, the rows that have it and their values there.

use std::ops::Range;

use super::{SparseRef, search};
use crate::{Accept, Hit};

/// Postings of all rows of a segment, in memory or in a mapped file. The list of `dims[d]` is the range
/// `starts[d]..starts[d + 1]` of `rows` and `values`.
///
/// Searches rely on what [`Postings::check`] checks: arrays that failed it, or never passed it, may panic or miss rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postings<'a> {
    /// The indices that occur, ascending.
    pub dims: &'a [u32],
    /// Where each list starts, and after them the length of `rows`. One more than dims; empty when nothing was indexed.
    pub starts: &'a [u64],
    /// The rows of one list after the other, ascending within a list. No list is empty.
    pub rows: &'a [u32],
    /// The value of each of `rows` at the list's index. Finite.
    pub values: &'a [f32],
    /// The greatest value of each list.
    pub maxima: &'a [f32],
    /// The smallest value of each list.
    pub minima: &'a [f32],
}

/// One list with its bounds.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) rows: &'a [u32],
    pub(super) values: &'a [f32],
    pub(super) max: f32,
    pub(super) min: f32,
}

impl<'a> Postings<'a> {
    /// Checks everything a search relies on, for a segment of so many rows, and says what is wrong. Reads all arrays once.
    pub fn check(&self, rows: u32) -> Result<(), &'static str> {
        let dims = self.dims.len();
        if self.rows.len() != self.values.len() {
            return Err("as many values as rows are expected in the postings");
        }
        if self.maxima.len() != dims || self.minima.len() != dims {
            return Err("one maximum and one minimum is expected for each index of the postings");
        }
        if dims == 0 && self.starts.is_empty() && self.rows.is_empty() {
            return Ok(());
        }
        if self.starts.len() != dims + 1 {
            return Err("one start more than indices is expected in the postings");
        }
        if self.starts[0] != 0 || self.starts[dims] != self.rows.len() as u64 {
            return Err("the lists of the postings do not cover their rows");
        }
        if !self.dims.is_sorted_by(|a, b| a < b) {
            return Err("the indices of the postings are not ascending");
        }
        // Together with the two ends: every start is within the rows.
        if !self.starts.is_sorted_by(|a, b| a < b) {
            return Err("the starts of the postings are not ascending");
        }
        (0..dims).try_for_each(|dim| self.list_at(dim).check(rows))
    }

    /// How many rows have an index.
    pub fn len_of(&self, dim: u32) -> usize {
        self.position(dim).map_or(0, |dim| self.range(dim).len())
    }

    /// The `k` accepted rows with the highest inner product with `query`, best first, ties by row. `accept` is asked only
    /// about rows that would be among the best so far, so that it may be costly: when few rows are accepted, use
    /// [`super::score_rows`].
    pub fn search(&self, query: SparseRef<'_>, k: usize, accept: Accept<'_>) -> Vec<Hit> {
        search::search(*self, query, k, accept, search::Pruning::Paying)
    }

    /// The list of an index, if any row has it.
    pub(super) fn list(&self, dim: u32) -> Option<List<'a>> {
        self.position(dim).map(|dim| self.list_at(dim))
    }

    fn position(&self, dim: u32) -> Option<usize> {
        self.dims.binary_search(&dim).ok()
    }

    fn range(&self, position: usize) -> Range<usize> {
        self.starts[position] as usize..self.starts[position + 1] as usize
    }

    fn list_at(&self, position: usize) -> List<'a> {
        let range = self.range(position);
        List {
            rows: &self.rows[range.clone()],
            values: &self.values[range],
            max: self.maxima[position],
            min: self.minima[position],
        }
    }
}

impl List<'_> {
    fn check(&self, rows: u32) -> Result<(), &'static str> {
        if !self.rows.is_sorted_by(|a, b| a < b) {
            return Err("the rows of a list of the postings are not ascending");
        }
        if self.rows.last().is_none_or(|last| *last >= rows) {
            return Err("the postings name a row beyond the segment");
        }
        let (mut min, mut max, mut is_finite) = (f32::INFINITY, f32::NEG_INFINITY, true);
        for value in self.values {
            is_finite &= value.is_finite();
            min = min.min(*value);
            max = max.max(*value);
        }
        if !is_finite {
            return Err("a value of the postings is not finite");
        }
        if min != self.min || max != self.max {
            return Err("the bounds of a list of the postings are not those of its values");
        }
        Ok(())
    }
}
