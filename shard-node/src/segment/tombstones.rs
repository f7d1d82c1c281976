//! Which rows of a run are dead. Copied on write in small pieces, so that a new view costs little however large the
//! segment is.

use std::sync::Arc;

/// Words in a piece: 8,192 rows, 1 KiB.
const PIECE_WORDS: usize = 128;
const PIECE_ROWS: u32 = PIECE_WORDS as u32 * 64;

type Piece = [u64; PIECE_WORDS];

/// A set of dead rows. Cloning shares the pieces.
#[derive(Clone, Debug, Default)]
pub struct Tombstones {
    /// Pieces by number; a missing one has no dead row.
    pieces: Vec<Option<Arc<Piece>>>,
    dead: u32,
}

impl Tombstones {
    /// Number of dead rows.
    pub fn count(&self) -> u32 {
        self.dead
    }

    /// Whether a row is dead.
    pub fn contains(&self, row: u32) -> bool {
        match self.pieces.get((row / PIECE_ROWS) as usize) {
            Some(Some(piece)) => piece[(row % PIECE_ROWS / 64) as usize] >> (row % 64) & 1 == 1,
            Some(None) | None => false,
        }
    }

    /// Makes a row dead. Returns whether it was alive.
    pub fn insert(&mut self, row: u32) -> bool {
        if self.contains(row) {
            return false;
        }
        let number = (row / PIECE_ROWS) as usize;
        if self.pieces.len() <= number {
            self.pieces.resize(number + 1, None);
        }
        let piece = Arc::make_mut(self.pieces[number].get_or_insert_with(|| Arc::new([0; PIECE_WORDS])));
        piece[(row % PIECE_ROWS / 64) as usize] |= 1 << (row % 64);
        self.dead += 1;
        true
    }

    /// The 64 rows from `64 * word`, dead ones as ones.
    pub fn word(&self, word: usize) -> u64 {
        match self.pieces.get(word / PIECE_WORDS) {
            Some(Some(piece)) => piece[word % PIECE_WORDS],
            Some(None) | None => 0,
        }
    }

    /// The dead rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.pieces.len() * PIECE_WORDS).flat_map(|word| bits(word, self.word(word)))
    }

    /// Rows that are dead here but not in `earlier`, ascending. Pieces that both share are skipped.
    pub fn since<'a>(&'a self, earlier: &'a Tombstones) -> impl Iterator<Item = u32> + 'a {
        let changed = move |number: &usize| match (&self.pieces[*number], earlier.pieces.get(*number)) {
            (None, _) => false,
            (Some(now), Some(Some(then))) => !Arc::ptr_eq(now, then),
            (Some(_), Some(None) | None) => true,
        };
        (0..self.pieces.len())
            .filter(changed)
            .flat_map(|number| number * PIECE_WORDS..(number + 1) * PIECE_WORDS)
            .flat_map(move |word| bits(word, self.word(word) & !earlier.word(word)))
    }
}

impl Extend<u32> for Tombstones {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, rows: I) {
        for row in rows {
            self.insert(row);
        }
    }
}

impl FromIterator<u32> for Tombstones {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Tombstones {
        let mut dead = Tombstones::default();
        dead.extend(rows);
        dead
    }
}

fn bits(word: usize, mut value: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if value == 0 {
            return None;
        }
        let bit = value.trailing_zeros();
        value &= value - 1;
        Some(word as u32 * 64 + bit)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set_and_clones_do_not_change(
            before in prop::collection::vec(0u32..40_000, 0..200),
            after in prop::collection::vec(0u32..40_000, 0..200),
        ) {
            let earlier: Tombstones = before.iter().copied().collect();
            let mut now = earlier.clone();
            for row in &after {
                now.insert(*row);
            }
            let old: BTreeSet<u32> = before.into_iter().collect();
            let new: BTreeSet<u32> = old.iter().copied().chain(after).collect();
            prop_assert_eq!(earlier.iter().collect::<Vec<_>>(), old.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(now.iter().collect::<Vec<_>>(), new.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(now.count() as usize, new.len());
            prop_assert_eq!(now.since(&earlier).collect::<Vec<_>>(), new.difference(&old).copied().collect::<Vec<_>>());
        }
    }
}
