//! The life of a write: check the points, cut them by shard, send each part to its shard's leader until it is
//! acknowledged or the deadline passes.

mod check;
mod deliver;
mod partition;
mod submit;
mod update;

pub use check::{PointInput, VectorInput, check_point, check_vector, check_vectors};
pub use partition::{Part, cut_ids, cut_in_order, cut_points, cut_vectors};
pub use submit::{
    WriteSpec, Written, delete, delete_by_filter, edit, edit_by_filter, update_vectors, upsert, upsert_if,
};
pub use update::{Targets, Update, apply};

#[cfg(test)]
mod tests;
