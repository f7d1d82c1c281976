//! One raft group per shard: its log on the node's shared log, its state machine the shard itself, its snapshots the
//! shard's segment files. Nothing outside this module sees a type of the raft library.

mod command;
mod fault;
mod group;
mod lead;
mod log_store;
mod machine;
mod maintain;
mod members;
mod snapshot;
mod supervise;
#[cfg(test)]
mod tests;
mod transfer;

pub use group::{Group, GroupOptions, GroupParts};

/// First part of the routes of all shard groups; the shard's number and the name of the call follow.
pub const ROUTE_PREFIX: &str = "raft/shard/";
