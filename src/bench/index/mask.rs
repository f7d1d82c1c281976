//! Which rows a filter accepts, as a bitmap, and the exact scan of just these rows.

use vicinal_common::distance::Kernel;
use vicinal_index::{Accept, Hit, Rows, TopK};

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

    fn accepted(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(i as u32 * 64 + bit)
            })
        })
    }

    /// The exact k nearest accepted rows. Looks at no other row: what a filter with few matches is best answered by.
    pub(super) fn scan(&self, kernel: &Kernel, rows: Rows<'_>, query: &[f32], k: usize) -> Vec<Hit> {
        let mut best = TopK::new(k, self.count);
        let mut waiting = [0u32; 4];
        let mut count = 0;
        for row in self.accepted() {
            waiting[count] = row;
            count += 1;
            if count == 4 {
                let distances = kernel.distance4(query, waiting.map(|row| rows.row(row)));
                for (row, distance) in waiting.into_iter().zip(distances) {
                    best.push(Hit { distance, row });
                }
                count = 0;
            }
        }
        for row in waiting.into_iter().take(count) {
            best.push(Hit { distance: kernel.distance(query, rows.row(row)), row });
        }
        best.into_sorted()
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::metric::Metric;
    use vicinal_index::{FlatIndex, SearchParams, VectorIndex};

    use super::*;

    #[test]
    fn scanning_a_mask_is_searching_with_it() {
        let data: Vec<f32> = (0..300).map(|i| (i * 37 % 101) as f32).collect();
        let rows = Rows { data: &data, dim: 2 };
        for modulus in [1, 3, 64, 149, 1_000] {
            let mask = Mask::of_rows(rows.len(), (0..rows.len() as u32).filter(|row| row % modulus == 1 % modulus));
            let expected =
                FlatIndex::new(Metric::Euclid).search(rows, rows.row(7), SearchParams { k: 9, ef: 9 }, mask.accept());
            assert_eq!(mask.scan(&Kernel::new(Metric::Euclid), rows, rows.row(7), 9), expected);
            assert_eq!(mask.accepted().count(), mask.count());
        }
    }
}
