//! A set of rows as a bitmap that a search can ask for every row it meets.

use crate::Accept;

/// One bit per row.
#[derive(Clone, Debug)]
pub struct RowSet {
    words: Vec<u64>,
    count: usize,
}

impl RowSet {
    /// The listed rows, each below `rows`, in any order and repeated or not.
    pub fn of(rows: usize, members: impl IntoIterator<Item = u32>) -> RowSet {
        let mut words = vec![0u64; rows.div_ceil(64)];
        for row in members {
            words[row as usize / 64] |= 1 << (row % 64);
        }
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        RowSet { words, count }
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What a search is given to return only these rows.
    pub fn accept(&self) -> Accept<'_> {
        Accept::Rows { words: &self.words, count: self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_accepts_the_listed_rows() {
        let set = RowSet::of(130, [0, 63, 64, 129, 64]);
        assert_eq!(set.count(), 4);
        assert_eq!(set.accept().iter(130).collect::<Vec<_>>(), [0, 63, 64, 129]);
    }
}
