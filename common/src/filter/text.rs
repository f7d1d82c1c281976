//! Full-text conditions: comparison of texts by their tokens. How texts are cut is part of the condition, so that every
//! replica and every replay decides alike, whatever indexes there are: docs/adr/0015-full-text.md.

mod english;
mod fold;
mod params;
mod phrase;
mod resolve;
mod stopwords;
#[cfg(test)]
mod tests;
mod tokens;

use std::ops::ControlFlow;
use std::sync::Arc;

use phrase::Phrase;

pub use params::{BadParameter, Language, Split, Tokenization};
pub use resolve::TextResolver;
pub use tokens::Tokenizer;

/// Which tokens of the query a text must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTest {
    /// All, anywhere in one text.
    All,
    /// At least one.
    Any,
    /// All in a row, in their order.
    Phrase,
}

impl TextTest {
    /// All of them.
    pub const ALL: [TextTest; 3] = [TextTest::All, TextTest::Any, TextTest::Phrase];

    /// Its name in the REST API.
    pub fn name(self) -> &'static str {
        match self {
            TextTest::All => "text",
            TextTest::Any => "text_any",
            TextTest::Phrase => "phrase",
        }
    }
}

/// A text that others are compared with. One without tokens matches nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct TextMatch {
    test: TextTest,
    query: String,
    tokenizer: Arc<Tokenizer>,
    /// Distinct tokens of the query, ascending.
    words: Vec<String>,
    /// Distinct lengths of the words in bytes, ascending.
    lengths: Vec<usize>,
    /// When there is more than one place.
    phrase: Option<Phrase>,
}

impl TextMatch {
    /// A comparison with the tokens of a query.
    pub fn new(test: TextTest, query: String, tokenizer: Arc<Tokenizer>) -> TextMatch {
        let sequence = tokenizer.tokens(&query);
        let mut words = sequence.clone();
        words.sort_unstable();
        words.dedup();
        let mut lengths: Vec<usize> = words.iter().map(String::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let phrase = match test {
            TextTest::Phrase if sequence.len() > 1 => {
                let places: Vec<usize> = sequence.iter().filter_map(|token| words.binary_search(token).ok()).collect();
                Some(Phrase::new(&places, words.len()))
            }
            TextTest::All | TextTest::Any | TextTest::Phrase => None,
        };
        TextMatch { test, query, tokenizer, words, lengths, phrase }
    }

    /// What is asked for.
    pub fn test(&self) -> TextTest {
        self.test
    }

    /// The query as it was given.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// How both texts are cut.
    pub fn tokenization(&self) -> &Tokenization {
        self.tokenizer.params()
    }

    /// The distinct tokens of the query, ascending. By [`Split::Prefix`] each stands for the tokens that begin with it.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether a text that has all words passes: not so when their order counts.
    pub fn is_about_words_alone(&self) -> bool {
        self.phrase.is_none()
    }

    /// Whether a text passes.
    pub(super) fn holds(&self, text: &str) -> bool {
        if self.words.is_empty() {
            return false;
        }
        let on = |found: bool| if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let flow = match (self.test, &self.phrase) {
            (_, Some(phrase)) => {
                let mut search = phrase.search();
                self.tokenizer.each(text, &mut |token| on(search.step(self.found_in(token))))
            }
            (TextTest::All, None) => {
                let mut is_missing = vec![true; self.words.len()];
                let mut missing = self.words.len();
                self.tokenizer.each(text, &mut |token| {
                    for word in self.found_in(token) {
                        missing -= usize::from(std::mem::take(&mut is_missing[word]));
                    }
                    on(missing == 0)
                })
            }
            (TextTest::Any | TextTest::Phrase, None) => {
                self.tokenizer.each(text, &mut |token| on(self.found_in(token).next().is_some()))
            }
        };
        flow.is_break()
    }

    /// Which of the words a token of a text is: the one that equals it, or those that it begins with.
    fn found_in<'a>(&'a self, token: &'a str) -> impl Iterator<Item = usize> + 'a {
        let lengths = match self.tokenization().split {
            Split::Prefix => self.lengths.as_slice(),
            Split::Word | Split::Whitespace | Split::Multilingual => {
                self.lengths.binary_search(&token.len()).map_or(&[][..], |at| &self.lengths[at..=at])
            }
        };
        let beginnings = lengths.iter().map_while(move |length| (*length <= token.len()).then(|| token.get(..*length)));
        beginnings.flatten().filter_map(|part| self.words.binary_search_by(|word| word.as_str().cmp(part)).ok())
    }
}
