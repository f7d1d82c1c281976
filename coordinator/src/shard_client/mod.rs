//! What has been learned of the shard nodes this coordinator reaches.

mod breaker;
mod counters;
mod health;
#[cfg(test)]
mod health_tests;
mod latency;

pub use counters::Counters;
pub use health::{Blame, Ended, Health, Standing, Ticket, Tier};
pub use latency::{Work, WorkKind};
