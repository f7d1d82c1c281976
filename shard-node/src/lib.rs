//! A shard node: owner of shard replicas. Writes go through one raft group per shard; searches run on immutable
//! segments plus an exact fresh part.

pub mod log;
pub mod manifest;
pub mod node;
pub mod optimizer;
pub mod payload_index;
pub mod process;
pub mod publish;
pub mod raft;
pub mod room;
pub mod segment;
pub mod server;
pub mod service;
pub mod shard;
