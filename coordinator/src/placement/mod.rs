//! Where replicas live: `plan` decides (pure), `reconcile` makes it so.

mod maps;
mod plan;
mod reconcile;
#[cfg(test)]
mod reconcile_tests;
mod replace;
mod spread;
mod tuning;
#[cfg(test)]
mod world;

pub use maps::{Action, BalancePlan, POINTS_MIN, plan_balance};
pub use plan::{Load, load, place, voters_wanted};
pub use reconcile::Reconciler;
pub use tuning::{announce_tuning, wait_for_indexes};
