//! Text indexes: the tokens of the texts of a run, and the rows with the tokens that a condition asks for.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use roaring::RoaringBitmap;
use vicinal_common::filter::{Split, TextMatch, TextTest, Tokenizer};
use vicinal_common::payload_index::FieldType;

use super::bounds::Bounds;
use super::field::FieldIndex;
use super::format::State;
use super::keys::{Sorted, sort_texts};

/// Tokens with their rows, as they come.
pub(super) struct Tokens {
    tokenizer: Arc<Tokenizer>,
    /// Each token once.
    numbers: HashMap<Box<str>, u32>,
    /// Which token is in which row: once per text.
    pairs: Vec<(u32, u32)>,
    /// The row of each text.
    texts_of: Vec<u32>,
}

impl Tokens {
    pub(super) fn new(tokenizer: &Arc<Tokenizer>) -> Tokens {
        Tokens { tokenizer: Arc::clone(tokenizer), numbers: HashMap::new(), pairs: Vec::new(), texts_of: Vec::new() }
    }

    /// Takes a text of a row.
    pub(super) fn push(&mut self, text: &str, row: u32) {
        let Tokens { tokenizer, numbers, pairs, texts_of } = self;
        texts_of.push(row);
        let mut found = Vec::new();
        // Never breaks off.
        let _ = tokenizer.each(text, &mut |token| {
            let next = numbers.len() as u32;
            found.push(match numbers.get(token) {
                Some(number) => *number,
                None => *numbers.entry(token.into()).or_insert(next),
            });
            ControlFlow::Continue(())
        });
        found.sort_unstable();
        found.dedup();
        pairs.extend(found.into_iter().map(|number| (number, row)));
    }

    pub(super) fn sort(self) -> Sorted {
        Sorted { texts_of: Some(self.texts_of), ..sort_texts(self.numbers, self.pairs) }
    }
}

impl FieldIndex {
    /// Rows with a text that passes.
    pub(super) fn matching_text(&self, test: &TextMatch) -> Bounds {
        match self.field().of {
            FieldType::Text if self.field().tokenization() == Some(test.tokenization()) => self.with_words(test),
            FieldType::Text | FieldType::Keyword => self.only_texts(),
            FieldType::Datetime | FieldType::Uuid => Bounds::at_most(self.valued()),
            FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Geo => self.only_others(),
        }
    }

    fn with_words(&self, test: &TextMatch) -> Bounds {
        let words = test.words();
        let rows_of = |word: &String| match test.tokenization().split {
            // What a word of the query stands for follows one another in the order of tokens.
            Split::Prefix => self.with_prefix(word),
            Split::Word | Split::Whitespace | Split::Multilingual => self.with_text(word),
        };
        match test.test() {
            TextTest::Any => Bounds::exact(words.iter().fold(RoaringBitmap::new(), |all, word| all | rows_of(word))),
            TextTest::All | TextTest::Phrase => {
                let Some((first, others)) = words.split_first() else { return Bounds::none() };
                let mut all = rows_of(first);
                for word in others {
                    if all.is_empty() {
                        return Bounds::none();
                    }
                    all &= rows_of(word);
                }
                match (test.is_about_words_alone(), others.is_empty()) {
                    (false, _) => Bounds::at_most(all),
                    (true, true) => Bounds::exact(all),
                    // Two words of a row may be of two texts.
                    (true, false) => Bounds::between(&all - self.state(State::Many), &all),
                }
            }
        }
    }
}
