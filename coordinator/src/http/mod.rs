//! The REST edge, wire-compatible with the everyday part of the Qdrant REST API 1.19: decode, call, encode.

mod admission;
mod answer;
mod body;
mod cluster;
mod clusters;
mod collections;
pub mod cost;
mod decode;
mod encode;
mod failure_log;
mod groups;
mod indexes;
mod info;
mod matrix;
mod observe;
mod params;
mod points;
mod process;
mod request_stats;
mod routing;
mod search;
mod selector;
mod server;
mod service;
mod strict;
mod telemetry;
mod updates;

pub(crate) use body::BODIES_KIB_MAX;
pub use process::{RestPlace, process_router};
pub(crate) use request_stats::RequestStats;
pub use server::{router, serve};
pub(crate) use strict::StrictLimits;

#[cfg(test)]
mod tests;
