//! The coordinator: REST in, answers out. Routes requests to shards, merges their answers, and keeps the metadata of the
//! cluster in a raft group of coordinators. Holds no point data and reaches shards through `ShardApi` only.

mod asked;
mod coordinator;
pub mod http;
mod maps;
pub mod members;
pub mod meta;
#[cfg(test)]
mod model;
mod off_thread;
pub mod placement;
pub mod process;
pub mod query;
pub mod session;
pub mod shard_client;
pub mod shards;
pub mod write;

pub use coordinator::{Coordinator, CoordinatorOptions};
