//! What clients do during a run: unique inserts, registers that are overwritten and read back, searches with a neighbour
//! that must be found. Each goes on at a steady rate until it is told to stop.

mod known;
mod load;
mod register;
mod search;
mod set;

pub use known::{Known, KnownPoint};
pub use load::{Load, LoadOptions, Tempo};
