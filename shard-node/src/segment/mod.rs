//! Runs: rows sorted by point id. A run of the fresh part is in memory, a segment is a mapped file; both are read alike.
//!
//! A run never changes. Which of its rows are dead is kept beside it, in [`Tombstones`].

mod assigned;
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

use vicinal_common::ids::LogIndex;
use vicinal_common::payload::Payload;
use vicinal_common::vector::{MultiRef, SparseRef, VectorRef};

use vicinal_index::Rows;
use vicinal_index::sparse::Postings;

pub use assigned::{Assigned, Assignments};
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

    /// Per row, the log index of the write that made it: in this shard's log, for copies in that of their home shard.
    fn versions(&self) -> &[u64];

    /// The greatest version of a row, dead ones included; 0 without rows. Costs nothing.
    fn max_version(&self) -> LogIndex;

    /// The vectors of one name, by its ordinal in the [`Layout`].
    fn vectors(&self, ordinal: usize) -> Vectors<'_>;

    /// The inverted index of a sparse vector, by its ordinal; `None` for the other kinds.
    fn postings(&self, ordinal: usize) -> Option<Postings<'_>>;

    /// The clusters of its rows.
    fn assigned(&self) -> &Assigned;

    /// The payload's stored text.
    fn payload(&self, row: u32) -> &[u8];

    /// The payload, to keep.
    fn payload_owned(&self, row: u32) -> Payload;

    /// Number of rows.
    fn rows(&self) -> u32 {
        self.ids().len()
    }
}

/// The vectors of one name in a run.
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    /// Values of dense vectors, zero in rows without the vector. Empty when no row has one, and for the other kinds.
    pub rows: Rows<'a>,
    /// Which rows have the vector.
    pub present: Present<'a>,
    /// Vectors that differ in length: sparse ones and multivectors.
    pub lists: Option<Lists<'a>>,
}

/// Vectors that differ in length, one after the other.
#[derive(Clone, Copy)]
pub struct Lists<'a> {
    /// Where each row's values begin; one more than rows.
    pub starts: &'a [u64],
    /// Dimensions of the values, for sparse vectors.
    pub indices: Option<&'a [u32]>,
    /// The values.
    pub values: &'a [f32],
    /// Values per vector of a multivector.
    pub dim: usize,
}

impl<'a> Lists<'a> {
    fn get(&self, row: u32) -> VectorRef<'a> {
        let range = self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize;
        let values = &self.values[range.clone()];
        match self.indices {
            Some(indices) => VectorRef::Sparse(SparseRef { indices: &indices[range], values }),
            None => VectorRef::Multi(MultiRef { dim: self.dim, values }),
        }
    }
}

impl<'a> Vectors<'a> {
    /// The vector of one row, if it has one.
    pub fn get(&self, row: u32) -> Option<VectorRef<'a>> {
        self.present.contains(row).then(|| match &self.lists {
            None => VectorRef::Dense(self.rows.row(row)),
            Some(lists) => lists.get(row),
        })
    }
}

/// The rows of a run that have a sparse vector, ascending, with it.
fn sparse_rows<'a>(vectors: Vectors<'a>, rows: u32) -> impl Iterator<Item = (u32, SparseRef<'a>)> + Clone {
    (0..rows).filter_map(move |row| match vectors.get(row) {
        Some(VectorRef::Sparse(sparse)) => Some((row, sparse)),
        Some(VectorRef::Dense(_) | VectorRef::Multi(_)) | None => None,
    })
}

#[cfg(test)]
mod tests;
