//! Which fields of a collection's payloads are indexed, and as what.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::filter::Tokenization;

/// Type of a payload index: which values of a field it holds. Values of other types are not lost, only not indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Strings, compared byte by byte.
    Keyword,
    /// Integers of 64 bits with sign.
    Integer,
    /// Numbers.
    Float,
    /// Truth values.
    Bool,
    /// Strings that are dates or times.
    Datetime,
    /// Strings that are UUIDs in their usual form.
    Uuid,
    /// Places: objects with `lon` and `lat`.
    Geo,
    /// Strings, compared by their tokens.
    Text,
}

impl FieldType {
    /// All of them.
    pub const ALL: [FieldType; 8] = [
        FieldType::Keyword,
        FieldType::Integer,
        FieldType::Float,
        FieldType::Bool,
        FieldType::Datetime,
        FieldType::Uuid,
        FieldType::Geo,
        FieldType::Text,
    ];

    /// Its name in the REST API.
    pub fn name(self) -> &'static str {
        match self {
            FieldType::Keyword => "keyword",
            FieldType::Integer => "integer",
            FieldType::Float => "float",
            FieldType::Bool => "bool",
            FieldType::Datetime => "datetime",
            FieldType::Uuid => "uuid",
            FieldType::Geo => "geo",
            FieldType::Text => "text",
        }
    }

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<FieldType> {
        FieldType::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A payload index that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadIndex {
    of: FieldType,
    /// Of type text and of no other.
    tokenization: Option<Tokenization>,
    options: Option<String>,
}

impl From<FieldType> for PayloadIndex {
    /// An index of this type with parameters as by default.
    fn from(of: FieldType) -> PayloadIndex {
        PayloadIndex { of, tokenization: (of == FieldType::Text).then(Tokenization::default), options: None }
    }
}

impl PayloadIndex {
    /// A text index.
    pub fn text(tokenization: Tokenization) -> PayloadIndex {
        PayloadIndex { tokenization: Some(tokenization), ..PayloadIndex::from(FieldType::Text) }
    }

    /// The same as a client described it: a JSON object, only to be shown.
    pub fn described(self, options: String) -> PayloadIndex {
        PayloadIndex { options: Some(options), ..self }
    }

    /// Which values are indexed.
    pub fn of(&self) -> FieldType {
        self.of
    }

    /// How a text index cuts texts; `None` of other types.
    pub fn tokenization(&self) -> Option<&Tokenization> {
        self.tokenization.as_ref()
    }

    /// How the client described it, a JSON object; `None` when it only named the type.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }
}

/// The payload indexes that a collection wants, by the text form of the key path. They change only how fast a filter is
/// decided, never what it matches: parameters of text indexes go into a filter when it is accepted, see
/// [`crate::filter::Filter::resolve_text`].
pub type PayloadIndexes = BTreeMap<String, PayloadIndex>;
