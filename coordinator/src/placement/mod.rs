//! Where replicas live: `plan` decides (pure), `reconcile` makes it so.

mod plan;
mod reconcile;

pub use plan::place;
pub use reconcile::Reconciler;
