//! Where replicas live: `plan` decides (pure), `reconcile` makes it so.

mod plan;
mod reconcile;
#[cfg(test)]
mod reconcile_tests;
mod replace;
mod tuning;

pub use plan::{Load, place};
pub use reconcile::Reconciler;
pub use tuning::{announce_tuning, wait_for_indexes};
