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

#[cfg(test)]
mod tests {
    use vicinal_common::collection::{CollectionSchema, HnswConfig};
    use vicinal_common::ids::{Epoch, ShardId};
    use vicinal_common::ring::TokenTable;
    use vicinal_common::tuning::Tuning;

    use super::*;
    use crate::meta::{CollectionState, Routing, StrictMode};

    fn collection(number: u128, strict: StrictMode) -> Collection {
        Collection {
            id: CollectionId(uuid::Uuid::from_u128(number)),
            name: "c".into(),
            schema: CollectionSchema { vectors: [].into(), hnsw: HnswConfig::default(), indexing_threshold_kib: 0 },
            state: CollectionState::Active,
            epoch: Epoch(1),
            shards: Vec::new(),
            tokens: TokenTable::propose(&[ShardId(1)]).unwrap(),
            routing: Routing::Hash,
            replication_factor: 1,
            write_consistency_factor: 1,
            config_json: "{}".into(),
            tuning: Tuning::default(),
            strict,
            clustering: None,
            clustering_wanted: None,
            created_ms: 0,
        }
    }

    fn limited(read: u64, write: u64) -> StrictMode {
        let (read_rate_limit, write_rate_limit) = (Some(read), Some(write));
        StrictMode { enabled: Some(true), read_rate_limit, write_rate_limit, ..StrictMode::default() }
    }

    #[test]
    fn each_collection_and_kind_has_a_bucket_of_its_own() {
        let rates = Rates::default();
        let (one, other) = (collection(1, limited(2, 1)), collection(2, limited(2, 1)));
        for _ in 0..2 {
            rates.take(&one, Kind::Read).unwrap();
            rates.take(&other, Kind::Read).unwrap();
        }
        rates.take(&one, Kind::Write).unwrap();
        let failure = rates.take(&one, Kind::Read).unwrap_err();
        assert_eq!(failure.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(failure.text.contains("Read rate limit exceeded: Operation requires 1 tokens"), "{}", failure.text);
        assert!(rates.take(&one, Kind::Write).is_err() && rates.take(&other, Kind::Write).is_ok());
        let off = StrictMode { enabled: Some(false), ..limited(1, 1) };
        (0..9).for_each(|_| rates.take(&collection(1, off.clone()), Kind::Read).unwrap());
        rates.take(&collection(1, limited(5, 1)), Kind::Read).unwrap();
    }

    #[test]
    fn a_batch_that_is_refused_costs_nothing() {
        let rates = Rates::default();
        let one = collection(1, limited(4, 1));
        let batch = |cost: u64| rates.take(&one, Kind::Read).and_then(|()| rates.take_rest(&one, Kind::Read, cost));
        assert!(batch(5).unwrap_err().text.contains("request larger than rate limiter capacity"));
        batch(3).unwrap();
        let failure = batch(2).unwrap_err();
        assert!(failure.text.contains("Operation requires 2 tokens but only 1.0 were available"), "{}", failure.text);
        batch(1).unwrap();
        assert!(batch(1).is_err());
    }
}
