//! Which rows of a run have a vector of some name: a bitmap, 64 rows a word.

/// A borrowed bitmap over the rows of a run, with the number of rows in it: every search asks for that.
#[derive(Clone, Copy)]
pub struct Present<'a> {
    words: &'a [u64],
    count: u64,
}

impl<'a> Present<'a> {
    /// A bitmap with the number of rows in it, which was counted when its run was made or opened.
    pub fn new(words: &'a [u64], count: u64) -> Present<'a> {
        Present { words, count }
    }

    /// The words, the first row lowest.
    pub fn words(self) -> &'a [u64] {
        self.words
    }

    /// Words for `rows` rows.
    pub fn words_for(rows: u32) -> usize {
        rows.div_ceil(64) as usize
    }

    /// Whether the row is in.
    pub fn contains(&self, row: u32) -> bool {
        self.words.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// How many rows are in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts the rows in a bitmap.
    pub fn count_in(words: &[u64]) -> u64 {
        words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Puts a row in. The bitmap must have a word for it.
pub(super) fn set(words: &mut [u64], row: u32) {
    words[row as usize / 64] |= 1 << (row % 64);
}
