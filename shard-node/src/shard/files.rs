//! Names of a shard's files.

use std::collections::BTreeSet;

use crate::manifest::{MANIFEST, Manifest, SPEC};

/// Directory for the files of a snapshot that is being received.
pub(super) const INCOMING: &str = "incoming";

/// The file of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:06}.seg")
}

/// The file of a graph of a segment. Its number makes it another file than one of the same vector that was dropped before,
/// which a reader may still hold.
pub(super) fn index_name(segment: u64, number: u64) -> String {
    format!("{segment:06}.g{number}.hnsw")
}

/// The file of a payload index of a segment.
pub(super) fn field_name(segment: u64, number: u64) -> String {
    format!("{segment:06}.p{number}.pidx")
}

/// All names that belong to a state.
pub(super) fn names_of(manifest: &Manifest) -> BTreeSet<String> {
    let mut names = BTreeSet::from([MANIFEST.to_owned(), SPEC.to_owned()]);
    for segment in &manifest.segments {
        names.insert(segment_name(segment.number));
        names.extend(segment.indexes.iter().map(|index| index_name(segment.number, index.number)));
        names.extend(segment.payload_indexes.iter().map(|index| field_name(segment.number, index.number)));
    }
    names
}
