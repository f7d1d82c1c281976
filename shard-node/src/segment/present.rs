//! Which rows of a run have a vector of some name: a bitmap, 64 rows a word.

/// A borrowed bitmap over the rows of a run.
#[derive(Clone, Copy)]
pub struct Present<'a>(pub &'a [u64]);

impl Present<'_> {
    /// Words for `rows` rows.
    pub fn words(rows: u32) -> usize {
        rows.div_ceil(64) as usize
    }

    /// Whether the row is in.
    pub fn contains(&self, row: u32) -> bool {
        self.0.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// How many rows are in.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Puts a row in. The bitmap must have a word for it.
pub(super) fn set(words: &mut [u64], row: u32) {
    words[row as usize / 64] |= 1 << (row % 64);
}
