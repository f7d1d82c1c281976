//! The coordinator: REST in, answers out. Routes requests to shards, merges their answers, and keeps the metadata of the
//! cluster in a raft group of coordinators. Holds no point data and reaches shards through `ShardApi` only.

pub mod meta;
pub mod placement;
pub mod shard_client;
