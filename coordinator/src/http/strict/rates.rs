//! Rates of requests: one bucket per collection and kind of request, of this coordinator alone.

use std::collections::HashMap;

use axum::http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;
use vicinal_common::ids::CollectionId;

use super::super::answer::Failure;
use super::bucket::{Bucket, Shortage};
use crate::meta::{COLLECTIONS_MAX, Collection};

/// What a request does to points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Kind {
    /// It reads them.
    Read,
    /// It changes them, or how they are indexed.
    Write,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Read => "Read",
            Kind::Write => "Write",
        }
    }
}

/// The buckets of all collections that have a limit. At most two for each collection there can be, and once more as many
/// of those that are gone.
#[derive(Default)]
pub(in super::super) struct Rates {
    buckets: Mutex<HashMap<(CollectionId, Kind), Bucket>>,
}

const BUCKETS_MAX: usize = 4 * COLLECTIONS_MAX;

impl Rates {
    /// Takes one token for a request that has just come in.
    pub(super) fn take(&self, collection: &Collection, kind: Kind) -> Result<(), Failure> {
        self.take_more(collection, kind, 0, 1)
    }

    /// Takes what a request costs beyond what it has taken already, or gives that back.
    pub(super) fn take_rest(&self, collection: &Collection, kind: Kind, cost: u64) -> Result<(), Failure> {
        if cost <= 1 {
            return Ok(());
        }
        self.take_more(collection, kind, 1, cost)
    }

    fn take_more(&self, collection: &Collection, kind: Kind, taken: u64, cost: u64) -> Result<(), Failure> {
        let limit = collection.strict.enforced().and_then(|strict| match kind {
            Kind::Read => strict.read_rate_limit,
            Kind::Write => strict.write_rate_limit,
        });
        let Some(limit) = limit else { return Ok(()) };
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= BUCKETS_MAX {
            // Those that are in use come back full, which costs a limit little and happens once in thousands of deletions.
            buckets.clear();
        }
        let bucket = buckets.entry((collection.id, kind)).or_insert_with(|| Bucket::new(limit, now));
        if bucket.per_minute() != limit {
            *bucket = Bucket::new(limit, now);
        }
        let rest = if cost > limit { Err(Shortage::TooMany) } else { bucket.take(cost - taken, now) };
        rest.map_err(|shortage| {
            bucket.give_back(taken);
            refusal(kind, cost, taken, shortage)
        })
    }
}

fn refusal(kind: Kind, cost: u64, taken: u64, shortage: Shortage) -> Failure {
    let kind = kind.name();
    let (text, seconds) = match shortage {
        Shortage::TooMany => (
            format!(
                "{kind} rate limit exceeded, request larger than rate limiter capacity, please try to split your request"
            ),
            60,
        ),
        Shortage::Wait { available, seconds } => {
            let available = available + taken as f64;
            let text = format!(
                "{kind} rate limit exceeded: Operation requires {cost} tokens but only {available:.1} were available. Retry \
                 after {seconds}s"
            );
            (text, seconds)
        }
    };
    let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, format!("Rate limiting exceeded: {text}"));
    failure.with_retry_after(seconds)
}
