//! How texts are cut into tokens: parameters of a text index, and of a condition that has taken them over.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::limits::{STOPWORDS_BYTES_MAX, STOPWORDS_MAX};

/// Where one token ends and the next begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// Tokens are runs of letters and digits of any script.
    #[default]
    Word,
    /// Tokens stand between white space.
    Whitespace,
    /// As [`Split::Word`], and a token of a query matches every word that begins with it.
    Prefix,
    /// As [`Split::Word`], where letters keep their combining marks, and characters of scripts that write words without
    /// gaps (Han, Hiragana, Katakana) are tokens one by one.
    Multilingual,
}

impl Split {
    /// All of them.
    pub const ALL: [Split; 4] = [Split::Word, Split::Whitespace, Split::Prefix, Split::Multilingual];

    /// Its name in the REST API.
    pub fn name(self) -> &'static str {
        match self {
            Split::Word => "word",
            Split::Whitespace => "whitespace",
            Split::Prefix => "prefix",
            Split::Multilingual => "multilingual",
        }
    }
}

/// A language that there are stopwords and stems for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Language {
    /// English.
    English,
}

impl Language {
    /// All of them.
    pub const ALL: [Language; 1] = [Language::English];

    /// Its name in the REST API.
    pub fn name(self) -> &'static str {
        match self {
            Language::English => "english",
        }
    }
}

/// How a text is cut into tokens. Two texts are compared by tokens that were made with equal parameters.
///
/// JSON: the parameters of the same names of the REST API's text index, without those that are as by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokenization {
    /// Where tokens begin and end.
    pub split: Split,
    /// Characters of a token, at least: others are dropped. `None`: 1.
    pub min_token_len: Option<u32>,
    /// Characters of a token, at most: others are dropped, by [`Split::Prefix`] cut. Not below the smallest.
    pub max_token_len: Option<u32>,
    /// Whether tokens are put in lower case.
    pub lowercase: bool,
    /// Whether accented Latin letters become plain ones.
    pub ascii_folding: bool,
    /// Languages whose stopwords are dropped, ascending.
    pub stop_languages: Vec<Language>,
    /// Other tokens that are dropped, ascending.
    pub stopwords: Vec<String>,
    /// Language by whose rules tokens are reduced to their stems.
    pub stemmer: Option<Language>,
}

/// Words of letters and digits in lower case: how a field without a text index is cut.
impl Default for Tokenization {
    fn default() -> Tokenization {
        Tokenization {
            split: Split::Word,
            min_token_len: None,
            max_token_len: None,
            lowercase: true,
            ascii_folding: false,
            stop_languages: Vec::new(),
            stopwords: Vec::new(),
            stemmer: None,
        }
    }
}

/// A parameter that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter {
    /// Which, with the path inside it.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

type Result<T> = std::result::Result<T, BadParameter>;

fn bad<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T> {
    Err(BadParameter { path: path.into(), message: message.into() })
}

impl Tokenization {
    /// The names of the parameters.
    pub const NAMES: [&str; 7] =
        ["tokenizer", "min_token_len", "max_token_len", "lowercase", "ascii_folding", "stopwords", "stemmer"];

    /// Reads parameters; null is as if it were not there, as are fields with other names.
    pub fn from_json(fields: &Map<String, Value>) -> Result<Tokenization> {
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let truth = |name: &str, default| match given(name) {
            None => Ok(default),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(_) => bad(name, "expected true or false"),
        };
        let length = |name: &str| match given(name) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|length| u32::try_from(length).ok()) {
                Some(length) => Ok(Some(length)),
                None => bad(name, format!("expected an integer from 0 to {}", u32::MAX)),
            },
        };
        let min_token_len = length("min_token_len")?.filter(|length| *length > 1);
        let max_token_len = length("max_token_len")?;
        if max_token_len.is_some_and(|max| max < min_token_len.unwrap_or(1)) {
            return bad("max_token_len", "no token would be left: it must be at least 1 and `min_token_len`");
        }
        let (stop_languages, stopwords) = given("stopwords").map(stopwords).transpose()?.unwrap_or_default();
        Ok(Tokenization {
            split: given("tokenizer").map(split).transpose()?.unwrap_or_default(),
            min_token_len,
            max_token_len,
            lowercase: truth("lowercase", true)?,
            ascii_folding: truth("ascii_folding", false)?,
            stop_languages,
            stopwords,
            stemmer: given("stemmer").map(stemmer).transpose()?.flatten(),
        })
    }

    /// The parameters that are not as by default.
    pub fn to_json(&self) -> Value {
        let default = Tokenization::default();
        let mut fields = Map::new();
        let mut put = |name: &str, differs: bool, value: Value| {
            if differs {
                fields.insert(name.to_owned(), value);
            }
        };
        put("tokenizer", self.split != default.split, json!(self.split.name()));
        put("min_token_len", self.min_token_len.is_some(), json!(self.min_token_len));
        put("max_token_len", self.max_token_len.is_some(), json!(self.max_token_len));
        put("lowercase", self.lowercase != default.lowercase, json!(self.lowercase));
        put("ascii_folding", self.ascii_folding != default.ascii_folding, json!(self.ascii_folding));
        let languages: Vec<&str> = self.stop_languages.iter().map(|language| language.name()).collect();
        let stopwords = json!({"languages": languages, "custom": self.stopwords});
        put("stopwords", !languages.is_empty() || !self.stopwords.is_empty(), stopwords);
        let stemmer = self.stemmer.map(|language| json!({"type": "snowball", "language": language.name()}));
        put("stemmer", stemmer.is_some(), json!(stemmer));
        Value::Object(fields)
    }
}

fn split(value: &Value) -> Result<Split> {
    match Split::ALL.into_iter().find(|known| Some(known.name()) == value.as_str()) {
        Some(split) => Ok(split),
        None => bad("tokenizer", format!("expected one of {}", Split::ALL.map(Split::name).join(", "))),
    }
}

fn language(value: &Value, what: &str) -> std::result::Result<Language, String> {
    let Some(name) = value.as_str() else { return Err("expected the name of a language".into()) };
    Language::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
        let known = Language::ALL.map(Language::name).join(", ");
        format!("there are no {what} of language {name:?}, supported are {known}")
    })
}

/// The name of a language, or an object with names of languages and words of one's own.
fn stopwords(value: &Value) -> Result<(Vec<Language>, Vec<String>)> {
    const WHAT: &str = "stopwords";
    let Value::Object(fields) = value else {
        return match language(value, WHAT) {
            Ok(language) => Ok((vec![language], Vec::new())),
            Err(message) => bad(WHAT, message),
        };
    };
    if let Some(name) = fields.keys().find(|name| !["languages", "custom"].contains(&name.as_str())) {
        return bad(WHAT, format!("unknown field `{name}`, expected languages, custom"));
    }
    let list = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(&[][..]),
        Some(Value::Array(values)) => Ok(values.as_slice()),
        Some(_) => bad(format!("{WHAT}.{name}"), "expected an array"),
    };
    let (named, custom) = (list("languages")?, list("custom")?);
    let mut languages = Vec::new();
    for (n, value) in named.iter().enumerate() {
        match language(value, WHAT) {
            Ok(language) => languages.push(language),
            Err(message) => return bad(format!("{WHAT}.languages[{n}]"), message),
        }
    }
    let mut words = Vec::with_capacity(custom.len().min(STOPWORDS_MAX));
    let mut bytes = 0;
    for (n, value) in custom.iter().enumerate() {
        let Some(word) = value.as_str() else {
            return bad(format!("{WHAT}.custom[{n}]"), "expected a string");
        };
        bytes += word.len();
        words.push(word.to_owned());
        if words.len() > STOPWORDS_MAX || bytes > STOPWORDS_BYTES_MAX {
            let message = format!("at most {STOPWORDS_MAX} words with {STOPWORDS_BYTES_MAX} bytes in all");
            return bad(format!("{WHAT}.custom"), message);
        }
    }
    languages.sort_unstable();
    languages.dedup();
    words.sort_unstable();
    words.dedup();
    Ok((languages, words))
}

/// `{"type": "snowball", "language": name}`, or `{"type": "none"}`.
fn stemmer(value: &Value) -> Result<Option<Language>> {
    const WHAT: &str = "stemmer";
    let Some(fields) = value.as_object() else {
        return bad(WHAT, "expected an object with `type`");
    };
    if let Some(name) = fields.keys().find(|name| !["type", "language"].contains(&name.as_str())) {
        return bad(WHAT, format!("unknown field `{name}`, expected type, language"));
    }
    let language_of = fields.get("language").filter(|value| !value.is_null());
    match (fields.get("type").and_then(Value::as_str), language_of) {
        (Some("none"), None) => Ok(None),
        (Some("none"), Some(_)) => bad("stemmer.language", "the stemmer `none` has no language"),
        (Some("snowball"), Some(value)) => match language(value, "stems") {
            Ok(language) => Ok(Some(language)),
            Err(message) => bad("stemmer.language", message),
        },
        (Some("snowball"), None) => bad("stemmer.language", "missing: name the language"),
        (Some(_) | None, _) => bad("stemmer.type", "expected snowball or none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Tokenization> {
        Tokenization::from_json(value.as_object().unwrap())
    }

    #[test]
    fn parameters_survive_their_json() {
        for (given, kept) in [
            (json!({}), json!({})),
            (
                json!({"tokenizer": "word", "lowercase": true, "stemmer": {"type": "none"}, "min_token_len": 1}),
                json!({}),
            ),
            (json!({"tokenizer": null, "stopwords": null, "max_token_len": null, "other": 1}), json!({})),
            (
                json!({"tokenizer": "prefix", "min_token_len": 2, "max_token_len": 2, "ascii_folding": true}),
                json!({"tokenizer": "prefix", "min_token_len": 2, "max_token_len": 2, "ascii_folding": true}),
            ),
            (
                json!({"stopwords": "english", "lowercase": false}),
                json!({"stopwords": {"languages": ["english"], "custom": []}, "lowercase": false}),
            ),
            (
                json!({"stopwords": {"custom": ["b", "a", "b"], "languages": ["english", "english"]},
                    "stemmer": {"type": "snowball", "language": "english"}}),
                json!({"stopwords": {"custom": ["a", "b"], "languages": ["english"]},
                    "stemmer": {"type": "snowball", "language": "english"}}),
            ),
        ] {
            let tokenization = read(given.clone()).unwrap();
            assert_eq!(tokenization.to_json(), kept, "{given}");
            assert_eq!(read(kept).unwrap(), tokenization);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (given, path, part) in [
            (json!({"tokenizer": "words"}), "tokenizer", "word, whitespace, prefix, multilingual"),
            (json!({"min_token_len": -1}), "min_token_len", "from 0"),
            (json!({"max_token_len": 0}), "max_token_len", "at least 1"),
            (json!({"min_token_len": 5, "max_token_len": 4}), "max_token_len", "min_token_len"),
            (json!({"lowercase": 1}), "lowercase", "true or false"),
            (json!({"stopwords": "german"}), "stopwords", "\"german\", supported are english"),
            (json!({"stopwords": {"languages": ["english", "x"]}}), "stopwords.languages[1]", "supported are english"),
            (json!({"stopwords": {"custom": [1]}}), "stopwords.custom[0]", "a string"),
            (json!({"stopwords": {"custom": vec!["x"; 1_001]}}), "stopwords.custom", "at most 1000 words"),
            (json!({"stopwords": {"custom": ["x".repeat(8_193)]}}), "stopwords.custom", "8192 bytes"),
            (json!({"stopwords": {"words": []}}), "stopwords", "unknown field `words`"),
            (json!({"stemmer": "english"}), "stemmer", "an object"),
            (json!({"stemmer": {"type": "porter"}}), "stemmer.type", "snowball"),
            (json!({"stemmer": {"type": "snowball"}}), "stemmer.language", "missing"),
            (
                json!({"stemmer": {"type": "snowball", "language": "tamil"}}),
                "stemmer.language",
                "no stems of language \"tamil\", supported are english",
            ),
            (json!({"stemmer": {"type": "none", "language": "english"}}), "stemmer.language", "has no language"),
        ] {
            let fault = read(given.clone()).unwrap_err();
            assert!(fault.path == path && fault.message.contains(part), "{given}: {fault:?}");
        }
    }
}
