//! Which rows a filter accepts, as a bitmap.

use vicinal_index::Accept;

/// One bit per row.
#[derive(Clone)]
pub(super) struct Mask {
    words: Vec<u64>,
    count: usize,
}

impl Mask {
    /// The listed rows, each below `rows`.
    pub(super) fn of_rows(rows: usize, accepted: impl IntoIterator<Item = u32>) -> Mask {
        let mut words = vec![0u64; rows.div_ceil(64)];
        for row in accepted {
            words[row as usize / 64] |= 1 << (row % 64);
        }
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Mask { words, count }
    }

    /// What a search is given.
    pub(super) fn accept(&self) -> Accept<'_> {
        Accept::Rows { words: &self.words, count: self.count }
    }

    /// Accepted rows.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_accepts_the_listed_rows() {
        let mask = Mask::of_rows(130, [0, 63, 64, 129, 64]);
        assert_eq!(mask.count(), 4);
        assert_eq!(mask.accept().iter(130).collect::<Vec<_>>(), [0, 63, 64, 129]);
    }
}
