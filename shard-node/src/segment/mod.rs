//! Runs: rows sorted by point id. A run of the fresh part is in memory, a segment is a mapped file; both are read alike.
//!
//! A run never changes. Which of its rows are dead is kept beside it, in [`Tombstones`].

mod file;
mod format;
mod fresh;
mod ids;
mod layout;
mod main;
mod merge;
mod present;
mod tombstones;
mod writer;

use vicinal_common::payload::Payload;

use vicinal_index::Rows;

pub use file::{FileInfo, FileWriter, StoredFile, write_whole};
pub use fresh::MemoryRun;
pub use ids::Ids;
pub use layout::{Layout, VectorLayout};
pub use main::Segment;
pub use merge::{LiveRows, RowRef, Source, live_rows, merge_runs};
pub use present::Present;
pub use tombstones::Tombstones;
pub use writer::write_segment;

/// Rows sorted by point id: what is common to the fresh part and to segments.
pub trait Run: Send + Sync {
    /// The ids, sorted.
    fn ids(&self) -> Ids<'_>;

    /// Per row, the log index of the write that made it.
    fn versions(&self) -> &[u64];

    /// The vectors of one name, by its ordinal in the [`Layout`].
    fn vectors(&self, ordinal: usize) -> Vectors<'_>;

    /// The payload's stored text.
    fn payload(&self, row: u32) -> &[u8];

    /// The payload, to keep.
    fn payload_owned(&self, row: u32) -> Payload;

    /// Number of rows.
    fn rows(&self) -> u32 {
        self.ids().len()
    }
}

/// The vectors of one name in a run. When no row has one, there are no values either: `rows` is empty.
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    /// Values, zero in rows without the vector.
    pub rows: Rows<'a>,
    /// Which rows have the vector.
    pub present: Present<'a>,
}

impl<'a> Vectors<'a> {
    /// The vector of one row, if it has one.
    pub fn get(&self, row: u32) -> Option<&'a [f32]> {
        self.present.contains(row).then(|| self.rows.row(row))
    }
}

#[cfg(test)]
mod tests;
