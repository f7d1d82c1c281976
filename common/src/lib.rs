//! What coordinators and shard nodes share: the words (ids, points, filters, queries), the seams (disk, clock, random
//! numbers, transport) and the distance kernels. Depends on no sibling crate and starts no runtime.

pub mod disk;
pub mod distance;
pub mod error;
pub mod ids;
pub mod metric;
