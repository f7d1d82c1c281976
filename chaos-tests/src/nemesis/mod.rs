//! Faults: drawn from a seed, done to real processes, cured, and proved to have bitten.

mod process;
mod schedule;

pub use process::Nemesis;
pub use schedule::{Schedule, Step};
