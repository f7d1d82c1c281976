//! Merging runs: which rows, in which order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use vicinal_common::point::PointId;

use super::Run;
use super::fresh::MemoryRun;
use super::layout::Layout;
use super::tombstones::Tombstones;

/// A run with its dead rows.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The rows.
    pub run: &'a dyn Run,
    /// Which of them are dead.
    pub dead: &'a Tombstones,
}

/// A row of one of several sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef {
    /// Position of the source.
    pub source: u32,
    /// Row in it.
    pub row: u32,
}

/// The live rows of all sources from the id `from` on (`None`: all), in id order. The live ids of the sources must be
/// distinct: that is the invariant of a view.
pub struct LiveRows<'a> {
    sources: Vec<Source<'a>>,
    heads: BinaryHeap<Reverse<(PointId, u32, u32)>>,
}

/// See [`LiveRows`].
pub fn live_rows<'a>(sources: &[Source<'a>], from: Option<PointId>) -> LiveRows<'a> {
    let mut rows = LiveRows { sources: sources.to_vec(), heads: BinaryHeap::with_capacity(sources.len()) };
    for (i, source) in sources.iter().enumerate() {
        let first = from.map_or(0, |id| source.run.ids().lower_bound(id));
        rows.push_next(i as u32, first);
    }
    rows
}

impl LiveRows<'_> {
    /// Makes the first live row from `row` on the head of its source.
    fn push_next(&mut self, source: u32, mut row: u32) {
        let Source { run, dead } = self.sources[source as usize];
        let ids = run.ids();
        while row < ids.len() {
            if !dead.contains(row) {
                self.heads.push(Reverse((ids.get(row), source, row)));
                return;
            }
            row += 1;
        }
    }
}

impl Iterator for LiveRows<'_> {
    type Item = (PointId, RowRef);

    fn next(&mut self) -> Option<(PointId, RowRef)> {
        let Reverse((id, source, row)) = self.heads.pop()?;
        self.push_next(source, row + 1);
        debug_assert!(self.heads.peek().is_none_or(|Reverse((next, _, _))| id < *next), "two live rows of {id}");
        Some((id, RowRef { source, row }))
    }
}

/// Merges the live rows of runs into one run in memory.
pub fn merge_runs(sources: &[Source<'_>], layout: &Layout) -> MemoryRun {
    let order: Vec<RowRef> = live_rows(sources, None).map(|(_, row)| row).collect();
    MemoryRun::from_rows(sources, &order, layout)
}
