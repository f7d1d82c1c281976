//! Finds a sequence of tokens in a text, token by token, in one pass: the Shift-And automaton (Baeza-Yates and Gonnet, "A new
//! approach to text searching", 1992) over tokens, each of which may stand for several places of the phrase.

/// A phrase of known words. Bit `i` of a set is place `i` of the phrase.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Phrase {
    /// Places of the phrase.
    places: usize,
    /// Of each word, the parts of the set of its places that are not empty: index of 64 places, and which of them.
    masks: Vec<Vec<(u32, u64)>>,
}

/// How far the phrase has been found.
pub(super) struct Search<'a> {
    phrase: &'a Phrase,
    /// Places up to which the phrase ends at the last token.
    ends: Vec<u64>,
    next: Vec<u64>,
}

impl Phrase {
    /// A phrase whose places have these of so many words. All are below `words`.
    pub(super) fn new(sequence: &[usize], words: usize) -> Phrase {
        let mut masks: Vec<Vec<(u32, u64)>> = vec![Vec::new(); words];
        for (place, word) in sequence.iter().enumerate() {
            let (part, bit) = ((place / 64) as u32, 1u64 << (place % 64));
            match masks[*word].last_mut() {
                Some((last, bits)) if *last == part => *bits |= bit,
                Some(_) | None => masks[*word].push((part, bit)),
            }
        }
        Phrase { places: sequence.len(), masks }
    }

    pub(super) fn search(&self) -> Search<'_> {
        let parts = self.places.div_ceil(64);
        Search { phrase: self, ends: vec![0; parts], next: vec![0; parts] }
    }
}

impl Search<'_> {
    /// Takes the next token of the text, which is these words of the phrase; whether the phrase ends with it.
    pub(super) fn step(&mut self, words: impl Iterator<Item = usize>) -> bool {
        self.next.fill(0);
        for word in words {
            for (part, bits) in &self.phrase.masks[word] {
                let part = *part as usize;
                let carried = if part == 0 { 1 } else { self.ends[part - 1] >> 63 };
                self.next[part] |= (self.ends[part] << 1 | carried) & bits;
            }
        }
        std::mem::swap(&mut self.ends, &mut self.next);
        let last = self.phrase.places.checked_sub(1);
        last.is_some_and(|last| self.ends[last / 64] >> (last % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_comparison_at_every_place_finds(
            (sequence, text) in prop_oneof![
                (prop::collection::vec(0usize..2, 1..5), prop::collection::vec(0usize..3, 0..30)),
                (prop::collection::vec(Just(0usize), 60..70), prop::collection::vec(Just(0usize), 55..75)),
                (prop::collection::vec(0usize..2, 130..140)).prop_map(|s| (s.clone(), [vec![1], s].concat())),
            ],
        ) {
            let phrase = Phrase::new(&sequence, 2);
            let mut search = phrase.search();
            let found = text.iter().any(|word| search.step((*word < 2).then_some(*word).into_iter()));
            let expected = text.windows(sequence.len()).any(|window| window == sequence);
            prop_assert_eq!(found, expected);
        }
    }
}
