//! Asks many shards at once under one deadline. What a node does not answer in time, or cannot answer, falls to another
//! replica if there is one.

use std::future::Future;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};
use vicinal_common::api::{ReadContext, ShardAnswer, ShardApi};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Error;
use vicinal_common::ids::{Epoch, LogIndex, ShardId};
use vicinal_common::telemetry;

use super::attempt::Call;
use super::gather::Coverage;
use super::progress::Progress;
use crate::meta::Collection;
use crate::session::Session;
use crate::shard_client::WorkKind;
use crate::shards::ShardAccess;

/// What a read may see, and until when it may take.
#[derive(Clone, Copy, Debug)]
pub struct ReadSpec<'a> {
    /// What may be seen.
    pub consistency: Consistency,
    /// When to answer with what is there.
    pub deadline: Instant,
    /// What the client has seen already.
    pub session: &'a Session,
}

/// What is asked of each shard, roughly: latencies are compared with those of such requests only.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The kind of work.
    pub kind: WorkKind,
    /// How much of it for each shard.
    pub units: usize,
}

/// Which shards are asked, and what they are told.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// The shards.
    pub shards: &'a [ShardId],
    /// What they were chosen by: the epoch of the token table, or, where search shards are asked, the version of the
    /// map.
    pub epoch: Epoch,
    /// What a replica must have applied whatever is known here of the shard, in the order of the shards; none for those
    /// that are left out at the end. Such a floor does not tell a current replica from one that missed the last writes.
    pub floors: &'a [LogIndex],
}

impl<'a> Targets<'a> {
    /// Home shards of a collection.
    pub fn homes(collection: &Collection, shards: &'a [ShardId]) -> Targets<'a> {
        Targets { shards, epoch: collection.epoch, floors: &[] }
    }

    /// The shards with their floors.
    pub(super) fn each(&self) -> impl Iterator<Item = (ShardId, LogIndex)> {
        let floors = self.floors.iter().copied().chain(std::iter::repeat(LogIndex(0)));
        self.shards.iter().copied().zip(floors)
    }
}

/// The answers of a scatter.
#[derive(Debug)]
pub struct Gathered<T> {
    /// One per shard that answered, in order of the shards.
    pub answers: Vec<(ShardId, T)>,
    /// Which shards those are, and why others are missing.
    pub coverage: Coverage,
}

impl<T> Gathered<T> {
    /// Whether a shard refused because the request was routed by other metadata than its own.
    pub fn is_stale(&self) -> bool {
        let mut reasons = self.coverage.missing.iter().map(|missing| &missing.reason);
        reasons.any(|reason| matches!(reason, Error::WrongEpoch { .. } | Error::NoSuchShard(_)))
    }
}

/// Asks each of `shards`, which are home shards, through `ask`: see [`scatter_to`].
pub async fn scatter<T, F, Fut>(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    effort: Effort,
    shards: &[ShardId],
    ask: F,
) -> Gathered<T>
where
    F: Fn(Arc<dyn ShardApi>, ReadContext) -> Fut,
    Fut: Future<Output = Vec<ShardAnswer<T>>>,
{
    scatter_to(access, collection, spec, effort, Targets::homes(collection, shards), ask).await
}

/// Asks each of the targets through `ask`, one call per node. Never later than the deadline: a shard that has not
/// answered by then is missing, and so says the coverage. Calls that nobody needs any more are dropped.
pub async fn scatter_to<T, F, Fut>(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    effort: Effort,
    targets: Targets<'_>,
    ask: F,
) -> Gathered<T>
where
    F: Fn(Arc<dyn ShardApi>, ReadContext) -> Fut,
    Fut: Future<Output = Vec<ShardAnswer<T>>>,
{
    let span = telemetry::scatter_span(targets.shards.len());
    let gathered = gather(access, collection, spec, effort, targets, ask).instrument(span.clone()).await;
    span.record("answered", gathered.coverage.shards_answered);
    gathered
}

/// The first calls, with a span around what it takes to choose them.
fn planned(shards: usize, plan: impl FnOnce() -> Vec<Call>) -> Vec<Call> {
    let span = telemetry::plan_span(shards);
    let calls = span.in_scope(plan);
    span.record("nodes", calls.len());
    calls
}

async fn gather<T, F, Fut>(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    effort: Effort,
    targets: Targets<'_>,
    ask: F,
) -> Gathered<T>
where
    F: Fn(Arc<dyn ShardApi>, ReadContext) -> Fut,
    Fut: Future<Output = Vec<ShardAnswer<T>>>,
{
    let mut progress = Progress::new(access, collection, spec, effort, targets);
    let run = |call: Call| {
        let ask = &ask;
        let span = telemetry::node_call_span(call.node.0, call.context.shards.len(), call.attempt + 1, call.is_hedge);
        let asked = async move {
            let answers = match access.nodes.get(call.node) {
                Some(api) => ask(api, call.context).await,
                None => Vec::new(),
            };
            if answers.iter().all(|answer| answer.result.is_err()) {
                telemetry::failed(&Span::current());
            }
            (call.attempt, answers)
        };
        asked.instrument(span)
    };
    let mut in_flight = FuturesUnordered::new();
    let mut calls = planned(targets.shards.len(), || progress.start(Instant::now()));
    // Ends: at the deadline at the latest, which bounds the timers too.
    loop {
        in_flight.extend(calls.into_iter().map(run));
        if progress.is_done() {
            break;
        }
        let wake = progress.next_timer().map_or(spec.deadline, |timer| timer.min(spec.deadline));
        calls = tokio::select! {
            biased;
            Some((attempt, answers)) = in_flight.next() => progress.take_in(attempt, answers, Instant::now()),
            () = sleep_until(wake) => {
                let now = Instant::now();
                if now >= spec.deadline {
                    break;
                }
                progress.due(now)
            }
        };
    }
    progress.finish()
}
