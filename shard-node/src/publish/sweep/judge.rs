//! Which copies of a page are not where the map places them. Pure.

use std::sync::Arc;

use vicinal_common::publish::{Copy, CopyVersion};
use vicinal_common::vector::Vector;

use crate::node::OpenMap;

/// A search shard in a map.
pub(super) struct Position {
    /// The map.
    pub(super) map: Arc<OpenMap>,
    /// The number by which it knows the shard.
    pub(super) shard: u32,
}

/// The copies that a map surely does not place in the shard, in the order of the page: those that another processor might
/// place there stay. A copy without a dense vector that the map can place stays as well: nobody sends such ones.
pub(super) fn misplaced(page: &[Copy], vector: &str, position: &Position) -> Vec<CopyVersion> {
    let Position { map, shard } = position;
    let is_elsewhere = |copy: &&Copy| match copy.point.vectors.get(vector) {
        Some(Vector::Dense(values)) if values.len() == map.map.parts().dim => {
            map.placer.is_surely_elsewhere(values, *shard)
        }
        _ => false,
    };
    page.iter().filter(is_elsewhere).map(|copy| (copy.point.id, copy.version)).collect()
}
