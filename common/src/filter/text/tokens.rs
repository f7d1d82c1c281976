//! Cuts texts into tokens. Part of the evaluator: whatever changes a token of any text needs a new evaluator version.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::params::{Language, Split, Tokenization};
use super::{english, fold, stopwords};

/// What is done with each token; `Break` when no more are wanted.
type See<'a> = &'a mut dyn FnMut(&str) -> ControlFlow<()>;

/// Cuts texts into tokens by given parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    params: Tokenization,
    /// Single stopwords as tokens are compared with them, ascending.
    stopwords: Vec<String>,
}

impl Tokenizer {
    /// A tokenizer of these parameters.
    pub fn new(params: Tokenization) -> Tokenizer {
        let mut stopwords: Vec<String> =
            params.stopwords.iter().map(|word| spelled(&params, word).into_owned()).collect();
        stopwords.sort_unstable();
        stopwords.dedup();
        Tokenizer { params, stopwords }
    }

    /// The parameters.
    pub fn params(&self) -> &Tokenization {
        &self.params
    }

    /// Shows every token of a text, in order and with repetitions, until `see` wants no more.
    pub fn each(&self, text: &str, see: See<'_>) -> ControlFlow<()> {
        match self.params.split {
            Split::Word | Split::Prefix => {
                text.split(|c: char| !c.is_alphanumeric()).try_for_each(|word| self.show(word, see))
            }
            Split::Whitespace => text.split_whitespace().try_for_each(|word| self.show(word, see)),
            Split::Multilingual => self.each_multilingual(text, see),
        }
    }

    /// All tokens of a text, in order.
    pub fn tokens(&self, text: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        // Never breaks off.
        let _ = self.each(text, &mut |token| {
            tokens.push(token.to_owned());
            ControlFlow::Continue(())
        });
        tokens
    }

    fn each_multilingual(&self, text: &str, see: See<'_>) -> ControlFlow<()> {
        let mut start = None;
        for (at, c) in text.char_indices() {
            let (is_alone, is_inner) = (stands_alone(c), c.is_alphanumeric() || start.is_some() && joins(c));
            if is_alone || !is_inner {
                if let Some(start) = start.take() {
                    self.show(&text[start..at], see)?;
                }
                if is_alone {
                    self.show(&text[at..at + c.len_utf8()], see)?;
                }
            } else if start.is_none() {
                start = Some(at);
            }
        }
        match start {
            Some(start) => self.show(&text[start..], see),
            None => ControlFlow::Continue(()),
        }
    }

    /// Shows the token that a word becomes, if it becomes one.
    fn show(&self, word: &str, see: See<'_>) -> ControlFlow<()> {
        match self.token(word) {
            Some(token) => see(&token),
            None => ControlFlow::Continue(()),
        }
    }

    fn token<'a>(&self, word: &'a str) -> Option<Cow<'a, str>> {
        let params = &self.params;
        let mut token = spelled(params, word);
        let is_stopword = params.stop_languages.iter().any(|language| stopwords::is_stopword(*language, &token))
            || self.stopwords.binary_search_by(|known| known.as_str().cmp(&token)).is_ok();
        if is_stopword {
            return None;
        }
        if let Some(language) = params.stemmer {
            token = Cow::Owned(stem(language, &token));
        }
        let has_more_than = |limit: u32| token.chars().nth(limit as usize).is_some();
        if token.is_empty() || params.min_token_len.is_some_and(|min| !has_more_than(min - 1)) {
            return None;
        }
        if let Some(max) = params.max_token_len
            && has_more_than(max)
        {
            match params.split {
                Split::Prefix => {
                    let end = token.char_indices().nth(max as usize).map_or(token.len(), |(end, _)| end);
                    return Some(Cow::Owned(token[..end].to_owned()));
                }
                Split::Word | Split::Whitespace | Split::Multilingual => return None,
            }
        }
        Some(token)
    }
}

fn stem(language: Language, word: &str) -> String {
    match language {
        Language::English => english::stem(word),
    }
}

/// A word in the letters that are asked for.
fn spelled<'a>(params: &Tokenization, word: &'a str) -> Cow<'a, str> {
    let word = if params.ascii_folding { fold::fold(word) } else { Cow::Borrowed(word) };
    let is_lower = word.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if params.lowercase && !is_lower { Cow::Owned(word.to_lowercase()) } else { word }
}

/// Whether a character is a token by itself: Hiragana, Katakana and Han, with their marks of repetition and length.
fn stands_alone(c: char) -> bool {
    matches!(u32::from(c),
        0x3005..=0x3007 | 0x3021..=0x3029 | 0x3031..=0x3035 | 0x3038..=0x303b
        | 0x3041..=0x3096 | 0x309d..=0x309f | 0x30a1..=0x30fa | 0x30fc..=0x30ff | 0x31f0..=0x31ff
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0xff66..=0xff9d
        | 0x1b000..=0x1b16f | 0x20000..=0x3fffd)
}

/// Whether a character that is no letter goes with the letter before it: combining accents, the viramas and nuktas of
/// Indic scripts and their like, tone marks of Thai and Lao, and the joiners.
fn joins(c: char) -> bool {
    matches!(u32::from(c),
        0x300..=0x36f | 0x483..=0x487 | 0x591..=0x5bd | 0x64b..=0x65f
        | 0x93c | 0x94d | 0x9bc | 0x9cd | 0xa3c | 0xa4d | 0xabc | 0xacd | 0xb3c | 0xb4d | 0xbcd | 0xc3c | 0xc4d | 0xcbc
        | 0xccd | 0xd3b..=0xd3c | 0xd4d | 0xdca | 0xe38..=0xe3a | 0xe47..=0xe4e | 0xeba | 0xec8..=0xecd
        | 0x1037 | 0x1039..=0x103a | 0x17c9..=0x17d3 | 0x17dd | 0x200c..=0x200d)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn tokens(params: Value, text: &str) -> Vec<String> {
        Tokenizer::new(Tokenization::from_json(params.as_object().unwrap()).unwrap()).tokens(text)
    }

    #[test]
    fn texts_are_cut_as_asked_for() {
        let full = json!({"stopwords": "english", "stemmer": {"type": "snowball", "language": "english"}});
        for (params, text, expected) in [
            (json!({}), "Don't STOP_me now, 2nd-rate!", vec!["don", "t", "stop", "me", "now", "2nd", "rate"]),
            (json!({}), "Größe 東京タワー плЮс", vec!["größe", "東京タワー", "плюс"]),
            (json!({}), " .-_ ", vec![]),
            (json!({"lowercase": false}), "One one", vec!["One", "one"]),
            (json!({"tokenizer": "whitespace"}), " Don't\tstop,  me\u{a0}now ", vec!["don't", "stop,", "me", "now"]),
            (json!({"tokenizer": "prefix", "max_token_len": 3}), "Alphabet of ab", vec!["alp", "of", "ab"]),
            (json!({"tokenizer": "multilingual"}), "Tokyo東京タワー2go ok", {
                vec!["tokyo", "東", "京", "タ", "ワ", "ー", "2go", "ok"]
            }),
            (json!({"tokenizer": "multilingual"}), "e\u{301}te\u{301} हिन्दी 한국어 \u{301}x", {
                vec!["e\u{301}te\u{301}", "हिन्दी", "한국어", "x"]
            }),
            (json!({"min_token_len": 2, "max_token_len": 4}), "a ab abcd abcde äöüß", vec!["ab", "abcd", "äöüß"]),
            (json!({"ascii_folding": true}), "Ação CRÈME", vec!["acao", "creme"]),
            (json!({"ascii_folding": true, "lowercase": false}), "Ação ß", vec!["Acao", "ss"]),
            (full, "The running dogs and the generous Youth", vec!["run", "dog", "generous", "youth"]),
            (json!({"stopwords": {"custom": ["Foo", "ÉTÉ"]}, "ascii_folding": true}), "foo bar été", vec!["bar"]),
            (json!({"stopwords": {"custom": ["foo"]}, "lowercase": false}), "Foo foo", vec!["Foo"]),
        ] {
            assert_eq!(tokens(params.clone(), text), expected, "{params} {text}");
        }
    }

    #[test]
    fn no_more_is_cut_than_wanted() {
        let tokenizer = Tokenizer::new(Tokenization::default());
        let mut seen = 0;
        let flow = tokenizer.each("a b c", &mut |_| {
            seen += 1;
            if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(flow.is_break() && seen == 2);
    }

    proptest! {
        #[test]
        fn any_text_is_cut(text: String, split in prop::sample::select(Split::ALL.to_vec()), flags: [bool; 4],
            min in 2u32..4, max in 4u32..6) {
            let [lowercase, ascii_folding, limited, english] = flags;
            let languages = english.then_some(Language::English);
            let params = Tokenization {
                split, lowercase, ascii_folding,
                min_token_len: limited.then_some(min), max_token_len: limited.then_some(max),
                stop_languages: languages.into_iter().collect(), stopwords: vec!["a".into()], stemmer: languages,
            };
            for token in Tokenizer::new(params).tokens(&text) {
                prop_assert!(!token.is_empty());
                prop_assert!(!limited || (min as usize..=max as usize).contains(&token.chars().count()), "{token:?}");
            }
        }
    }
}
