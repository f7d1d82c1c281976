//! Payload indexes: which rows of a run have which values at a key path, so that a filter is decided without reading
//! payloads.
//!
//! An index changes how fast a filter is decided, never what it matches: whatever it cannot decide exactly it leaves
//! open, and open rows are tested as they are without an index. File format: docs/formats/payload-index.md.

mod bounds;
mod builder;
mod decide;
mod field;
mod format;
mod geo;
mod keys;
mod rows;
mod select;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use vicinal_common::filter::{KeyPath, Tokenization, Tokenizer};
use vicinal_common::payload_index::{FieldType, PayloadIndex, PayloadIndexes};

pub use builder::build_fields;
pub use field::FieldIndex;
#[cfg(test)]
pub(crate) use format::tests::cut_in_another_way;
pub use select::{Selection, is_of_use, select};

/// A field to index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where the values are.
    pub path: KeyPath,
    /// Which of them are indexed.
    pub of: FieldType,
    /// What cuts the texts of a text index; no other type has one.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

impl Field {
    /// The fields of a set, in order. Those whose path this program cannot read are left out: nothing depends on them.
    pub fn list(indexes: &PayloadIndexes) -> Vec<Field> {
        let field = |(name, index): (&String, &PayloadIndex)| {
            KeyPath::parse(name).ok().map(|path| Field::new(path, index.of(), index.tokenization().cloned()))
        };
        indexes.iter().filter_map(field).collect()
    }

    /// A field. A text index without parameters has those by default; other types have none.
    pub fn new(path: KeyPath, of: FieldType, tokenization: Option<Tokenization>) -> Field {
        let tokenizer = (of == FieldType::Text).then(|| Arc::new(Tokenizer::new(tokenization.unwrap_or_default())));
        Field { path, of, tokenizer }
    }

    /// How its texts are cut, when it is a text index.
    pub fn tokenization(&self) -> Option<&Tokenization> {
        self.tokenizer.as_ref().map(|tokenizer| tokenizer.params())
    }
}
