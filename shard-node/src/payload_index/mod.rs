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

use vicinal_common::filter::KeyPath;
use vicinal_common::payload_index::{FieldType, PayloadIndexes};

pub use builder::build_fields;
pub use field::FieldIndex;
pub use select::{Selection, is_of_use, select};

/// A field to index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where the values are.
    pub path: KeyPath,
    /// Which of them are indexed.
    pub of: FieldType,
}

impl Field {
    /// The fields of a set, in order. Those whose path this program cannot read are left out: nothing depends on them.
    pub fn list(indexes: &PayloadIndexes) -> Vec<Field> {
        let field = |(name, of): (&String, &FieldType)| KeyPath::parse(name).ok().map(|path| Field { path, of: *of });
        indexes.iter().filter_map(field).collect()
    }
}
