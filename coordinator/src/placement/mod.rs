//! Where replicas live: `plan` decides (pure), `reconcile` makes it so.

mod indexes;
mod plan;
mod reconcile;
#[cfg(test)]
mod reconcile_tests;
mod replace;

pub use indexes::{announce_indexes, wait_for_indexes};
pub use plan::{Load, place};
pub use reconcile::Reconciler;
