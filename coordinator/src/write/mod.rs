//! The life of a write: check the points, cut them by shard, send each part to its shard's leader until it is
//! acknowledged or the deadline passes.

mod check;
mod deliver;
mod partition;
mod submit;

pub use check::{PointInput, VectorInput, check_point, check_vector};
pub use partition::{Part, cut_ids, cut_points};
pub use submit::{WriteSpec, Written, delete, delete_by_filter, upsert};

#[cfg(test)]
mod tests;
