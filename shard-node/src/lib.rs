//! A shard node: owner of shard replicas. Writes go through one raft group per shard; searches run on immutable
//! segments plus an exact fresh part.

pub mod index;
pub mod log;
pub mod node;
pub mod raft;
pub mod room;
pub mod service;
pub mod manifest;
pub mod optimizer;
pub mod segment;
pub mod shard;
