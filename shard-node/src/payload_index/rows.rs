//! Lists of row numbers as bitmaps.

use roaring::RoaringBitmap;

/// A set of rows that are added in any order: one bit per row of the run.
pub(super) struct RowBits(Vec<u64>);

impl RowBits {
    pub(super) fn new(rows: u32) -> RowBits {
        RowBits(vec![0; rows.div_ceil(64) as usize])
    }

    /// Returns whether the row is new. It must be below the number of rows.
    pub(super) fn insert(&mut self, row: u32) -> bool {
        let (word, bit) = (&mut self.0[row as usize / 64], 1 << (row % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(super) fn bitmap(&self) -> RoaringBitmap {
        of_words(&self.0)
    }
}

/// The rows whose bits are set, 64 to a word.
pub(super) fn of_words(words: &[u64]) -> RoaringBitmap {
    RoaringBitmap::from_lsb0_bytes(0, bytemuck::cast_slice(words))
}

/// Rows that ascend strictly.
pub(super) fn of_sorted(rows: impl Iterator<Item = u32> + Clone) -> RoaringBitmap {
    // The order was checked when the list was made or opened; were it wrong, this would only be slower.
    RoaringBitmap::from_sorted_iter(rows.clone()).unwrap_or_else(|_| rows.collect())
}

/// Rows below `limit` in any order, with repetitions. Many are put in place bit by bit, few are sorted.
pub(super) fn of_any(rows: &[u32], limit: u32) -> RoaringBitmap {
    if rows.len() > limit as usize / 64 {
        let mut bits = RowBits::new(limit);
        for row in rows {
            bits.insert(*row);
        }
        return bits.bitmap();
    }
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    of_sorted(sorted.iter().copied())
}

/// All rows of a run.
pub(super) fn all(rows: u32) -> RoaringBitmap {
    let mut bitmap = RoaringBitmap::new();
    bitmap.insert_range(0..rows);
    bitmap
}
