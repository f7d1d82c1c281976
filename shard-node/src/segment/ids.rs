//! Sorted point ids as two columns: numbers, then UUIDs.

use uuid::Uuid;
use vicinal_common::point::PointId;

/// The ids of a run in [`PointId`] order: row `r` is `nums[r]`, or `uuids[r - nums.len()]`.
#[derive(Clone, Copy)]
pub struct Ids<'a> {
    /// Numeric ids, ascending.
    pub nums: &'a [u64],
    /// UUIDs as big-endian bytes, ascending.
    pub uuids: &'a [[u8; 16]],
}

impl Ids<'_> {
    /// Number of rows. Runs have fewer than 2^32 rows by construction: see `ROWS_MAX`.
    pub fn len(&self) -> u32 {
        (self.nums.len() + self.uuids.len()) as u32
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.nums.is_empty() && self.uuids.is_empty()
    }

    /// The id of a row below `len()`.
    pub fn get(&self, row: u32) -> PointId {
        let row = row as usize;
        match self.nums.get(row) {
            Some(number) => PointId::Num(*number),
            None => PointId::Uuid(Uuid::from_bytes(self.uuids[row - self.nums.len()])),
        }
    }

    /// The row of an id.
    pub fn find(&self, id: PointId) -> Option<u32> {
        match id {
            PointId::Num(number) => self.nums.binary_search(&number).ok().map(|row| row as u32),
            PointId::Uuid(uuid) => {
                let row = self.uuids.binary_search(uuid.as_bytes()).ok()?;
                Some((self.nums.len() + row) as u32)
            }
        }
    }

    /// The first row whose id is not below `id`; `len()` when there is none.
    pub fn lower_bound(&self, id: PointId) -> u32 {
        match id {
            PointId::Num(number) => self.nums.partition_point(|n| *n < number) as u32,
            PointId::Uuid(uuid) => (self.nums.len() + self.uuids.partition_point(|u| u < uuid.as_bytes())) as u32,
        }
    }

    /// Whether the ids ascend strictly, as every run's must.
    pub fn are_sorted(&self) -> bool {
        self.nums.is_sorted_by(|a, b| a < b) && self.uuids.is_sorted_by(|a, b| a < b)
    }
}
