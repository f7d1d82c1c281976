//! The REST edge, wire-compatible with the everyday part of the Qdrant REST API 1.19: decode, call, encode.

mod admission;
mod answer;
mod body;
mod collections;
mod decode;
mod encode;
mod failure_log;
mod info;
mod params;
mod points;
mod process;
mod search;
mod selector;
mod server;
mod service;

pub(crate) use body::BODIES_KIB_MAX;
pub use process::{RestPlace, process_router};
pub use server::{router, serve};

#[cfg(test)]
mod tests;
