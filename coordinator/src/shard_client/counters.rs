//! What the read and write path counts, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident, $add:ident;)*) => {
        /// Counts since the start of the process; each only rises.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($name: AtomicU64,)*
        }

        impl Counters {
            $(
                $(#[doc = $doc])+
                pub fn $name(&self) -> u64 {
                    self.$name.load(Ordering::Relaxed)
                }

                pub(crate) fn $add(&self) {
                    self.$name.fetch_add(1, Ordering::Relaxed);
                }
            )*

            /// All counts with their names.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name()),)*]
            }
        }
    };
}

counters! {
    /// Requests sent to nodes, of all kinds.
    attempts, add_attempt;
    /// Requests sent to a second replica because the first was slow.
    hedges_sent, add_hedge_sent;
    /// Hedges that brought the first answer for a shard.
    hedges_won, add_hedge_won;
    /// Hedges that were due but over the budget.
    hedges_refused, add_hedge_refused;
    /// Requests that were not waited for any longer, because the node was silent for too long.
    attempts_timed_out, add_attempt_timed_out;
    /// Times that a node was given up for a while after failures in a row.
    breaker_openings, add_breaker_opening;
    /// Requests that asked whether a node given up answers again.
    probes, add_probe;
    /// Requests sent because an earlier one for the same shards failed or timed out.
    retries, add_retry;
    /// Answers that miss shards.
    partial_answers, add_partial_answer;
    /// REST requests refused because too many were under way.
    refused, add_refused;
}
