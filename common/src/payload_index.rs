//! Which fields of a collection's payloads are indexed, and as what.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

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
}

impl FieldType {
    /// All of them.
    pub const ALL: [FieldType; 7] = [
        FieldType::Keyword,
        FieldType::Integer,
        FieldType::Float,
        FieldType::Bool,
        FieldType::Datetime,
        FieldType::Uuid,
        FieldType::Geo,
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

/// The payload indexes that a collection wants, by the text form of the key path. They change only how fast a filter is
/// decided, never what it matches.
pub type PayloadIndexes = BTreeMap<String, FieldType>;
