//! One list of postings during a search, window after window.

use crate::prefetch::prefetch;

/// Rows in a window: as many as their scores stay in the nearest cache.
pub(super) const WINDOW: usize = 8 << 10;
/// Values of a list that are fetched ahead.
const PREFETCHED: usize = 64;

/// One index that query and postings share.
pub(super) struct Term<'a> {
    pub(super) rows: &'a [u32],
    pub(super) values: &'a [f32],
    pub(super) weight: f32,
    /// The most that it adds to a score; at least 0, since it may be absent.
    pub(super) bound: f64,
    /// The part of the list that is in the window; nothing is before it that is still to come.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) is_left_out: bool,
}

impl<'a> Term<'a> {
    /// The first window from `window` on in which the list has rows.
    pub(super) fn next_window(&mut self, window: usize) -> Option<usize> {
        // Lists that were left out are behind; for others this is one comparison.
        self.end = gallop(self.rows, self.end, |row| (row as usize / WINDOW) < window);
        self.rows.get(self.end).map(|row| *row as usize / WINDOW)
    }

    /// Finds the rows of a window, without reading most of them.
    pub(super) fn enter(&mut self, window: usize) {
        self.start = gallop(self.rows, self.end, |row| (row as usize / WINDOW) < window);
        self.end = gallop(self.rows, self.start, |row| row as usize / WINDOW <= window);
    }

    /// Finds the rows of a window, and adds the term to their scores, which are those of the window. No row before the
    /// window is left. Returns how many rows there are.
    pub(super) fn add(&mut self, window: usize, scores: &mut [f32]) -> usize {
        let scores = &mut scores[..WINDOW];
        self.start = self.end;
        // Read once from front to back: finding the end first would wait for memory in each of its steps.
        let mut len = 0;
        for (row, value) in self.rows[self.start..].iter().zip(&self.values[self.start..]) {
            if *row as usize / WINDOW != window {
                break;
            }
            scores[*row as usize % WINDOW] += self.weight * value;
            len += 1;
        }
        self.end += len;
        len
    }

    /// Asks for what [`Term::add`] reads first.
    pub(super) fn prefetch(&self) {
        let end = self.rows.len().min(self.end + PREFETCHED);
        prefetch(&self.rows[self.end..end]);
        prefetch(&self.values[self.end..end]);
    }

    /// The rows of the window.
    pub(super) fn rows(&self) -> &'a [u32] {
        &self.rows[self.start..self.end]
    }
}

/// The first place from `from` on where the rows, ascending, are no longer `before`: near ones are found sooner.
#[inline]
pub(super) fn gallop(rows: &[u32], from: usize, before: impl Fn(u32) -> bool) -> usize {
    let (mut low, mut step) = (from, 1);
    while let Some(row) = rows.get(low + step - 1) {
        if !before(*row) {
            break;
        }
        low += step;
        step *= 2;
    }
    let high = rows.len().min(low + step - 1);
    low + rows[low..high].partition_point(|row| before(*row))
}
