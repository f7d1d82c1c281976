//! What coordinators and shard nodes share: the words (ids, points, filters, queries), the seams (disk, clock, random
//! numbers, transport, threads) and the distance kernels. Depends on no sibling crate and starts no runtime.

pub mod api;
pub mod clock;
pub mod cluster;
pub mod collection;
pub mod consistency;
pub mod disk;
pub mod distance;
pub mod error;
pub mod exec;
pub mod filter;
pub mod ids;
pub mod limits;
pub mod metric;
pub mod payload;
pub mod payload_index;
pub mod point;
pub mod publish;
pub mod raft;
pub mod refusal;
pub mod ring;
pub mod rng;
pub mod telemetry;
pub mod topk;
pub mod transport;
pub mod tuning;
pub mod vector;
