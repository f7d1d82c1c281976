//! Random numbers that are the same on every machine and in every version: what is trained with a seed stays what it is.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        // The upper half of a product of 128 bits: as even as 64 random bits allow.
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// `wanted` of `rows` rows (all, when there are fewer), each set of them as likely as any other, ascending.
///
/// Selection sampling (Knuth, The Art of Computer Programming, volume 2, algorithm S): one pass, no memory.
pub fn sample_rows(rows: usize, wanted: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    let wanted = wanted.min(rows);
    let mut chosen = Vec::with_capacity(wanted);
    for row in 0..rows {
        if random.below(rows - row) < wanted - chosen.len() {
            chosen.push(row as u32);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_wanted_number_of_different_rows_of_everywhere() {
        let rows = sample_rows(1_000, 100, 7);
        assert_eq!(rows.len(), 100);
        assert!(rows.is_sorted_by(|a, b| a < b));
        let early = rows.iter().filter(|row| **row < 500).count();
        assert!((30..70).contains(&early), "{early}");
        assert_eq!(rows, sample_rows(1_000, 100, 7));
        assert_ne!(rows, sample_rows(1_000, 100, 8));
        assert_eq!(sample_rows(3, 9, 1), [0, 1, 2]);
        assert!(sample_rows(0, 9, 1).is_empty());
    }
}
