//! The kernels of AArch64 with their own tests, for machines that have to emulate it: the same files as in vicinal-common
//! and vicinal-index, whose other dependencies would take minutes to compile for a second target. Empty anywhere else.

#![cfg(all(test, target_arch = "aarch64"))]

// By this name the kernels of codes know the crate that the kernels of vectors are in.
extern crate self as vicinal_common;

#[path = "../../../shard-node/index/src/codes/kernel/mod.rs"]
mod code_kernel;
#[path = "../../../common/src/distance/mod.rs"]
pub mod distance;
#[path = "../../../common/src/metric.rs"]
pub mod metric;
#[path = "../../../common/src/vector.rs"]
pub mod vector;
