//! What a process tells of itself: metrics for [`page::METRICS_PATH`], spans for traces, and their names. Nothing here
//! starts a runtime, a thread or an export: that is up to the program.

mod metrics;
pub mod names;
mod page;
mod spans;
#[cfg(test)]
mod tests;
mod trace;

pub use metrics::{Hop, HopOutcome, Instruments, Publish, Rest, Search, Side, Traces, Write, instruments, operation};
pub use page::{METRICS_PATH, Page, Registry, Source, metrics_answer, metrics_router};
pub use spans::*;
pub use trace::{extract, inject, is_traced};
