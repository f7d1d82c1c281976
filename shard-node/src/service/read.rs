//! Reads: wait until a replica may answer, take its view, compute on the search threads, or here what is done sooner than
//! they would have begun.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tracing::{Instrument, Span};
use vicinal_common::api::{
    Goal, ReadContext, RetrieveRequest, SearchQuery, SearchRequest, ShardAnswer, ShardHit, StoredPoint,
};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::telemetry;
use vicinal_common::vector::Vector;

use super::check_routing;
use super::pool::JobTimes;
use crate::node::ShardNode;
use crate::raft::Group;
use crate::shard::{Pace, Paces, Patience, View};

/// Jobs per search thread that a request is cut into: enough to keep all threads busy to the end, few enough that the
/// hand-over costs nothing.
const JOBS_PER_THREAD: usize = 4;
/// Reads of one request that take no longer, all together, run where they arrive: waking a thread up and being woken by it
/// takes a good part of that, and the runtime's threads are kept from other requests for no longer than by a large body.
const IN_PLACE_MAX: Duration = Duration::from_micros(200);

/// Whether reads of so many units in each of these shards are short enough to run in place, at a time when that is better.
fn is_short(node: &ShardNode, context: &ReadContext, pace: fn(&Paces) -> &Pace, units: u64) -> bool {
    if !node.env.search.is_calm() {
        return false;
    }
    let expected = context.shards.iter().map(|(shard, _)| {
        let group = node.group(*shard).ok()?;
        pace(group.shard().paces()).expected(units)
    });
    // One that refuses takes no time, but that is seen below.
    let total: Option<Duration> = expected.sum();
    total.is_some_and(|total| total <= IN_PLACE_MAX)
}

/// Runs a job here if it is short, else on the search threads.
async fn run<T: Send + 'static>(
    node: &ShardNode,
    is_short: bool,
    deadline: Instant,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<(T, JobTimes)> {
    match is_short {
        true => node.env.search.in_place(deadline, job).await,
        false => node.env.search.timed(deadline, job).await,
    }
}

/// The replica a read may use and its view, once it may.
async fn view(
    node: &ShardNode,
    context: &ReadContext,
    shard: ShardId,
    floor: LogIndex,
) -> Result<(Arc<Group>, Arc<View>)> {
    node.check_open()?;
    let group = node.group(shard)?;
    check_routing(&group, context.collection, context.epoch, None)?;
    match context.consistency {
        Consistency::ReadYourWrites => {}
        Consistency::Linearizable => group.linearize(context.deadline).await?,
    }
    group.wait_applied(floor, context.deadline).await?;
    let view = group.shard().view();
    // Another view than the one that is read may know other maps.
    check_routing(&group, context.collection, context.epoch, Some(&view))?;
    Ok((group, view))
}

/// Runs `work` on the view of every shard asked, in parallel. Answers are in the order asked.
pub(super) async fn each_shard<T: Send + 'static>(
    node: &ShardNode,
    context: &ReadContext,
    work: impl Fn(&View, &Patience) -> Result<T> + Send + Sync + 'static,
) -> Vec<ShardAnswer<T>> {
    let work = Arc::new(work);
    let answers = context.shards.iter().map(|&(shard, floor)| {
        let work = work.clone();
        async move {
            let mut applied = LogIndex(0);
            let result = async {
                let (_, view) = view(node, context, shard, floor).await?;
                applied = view.applied();
                let patience = Patience::until(context.deadline);
                node.env.search.run(context.deadline, move || work(&view, &patience)).await
            };
            let result = result.await;
            ShardAnswer { shard, applied, result }
        }
    });
    join_all(answers).await
}

/// Looks points up in every shard asked.
pub(super) async fn retrieve(node: &ShardNode, request: RetrieveRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
    let RetrieveRequest { context, ids, parts } = request;
    let units = ids.len() as u64;
    let is_short = is_short(node, &context, |paces| &paces.retrieve, units);
    let asked = Arc::new((ids, parts));
    let answers = context.shards.iter().map(|&(shard, floor)| {
        let (context, asked) = (&context, asked.clone());
        async move {
            let mut applied = LogIndex(0);
            let result = async {
                let (group, view) = view(node, context, shard, floor).await?;
                applied = view.applied();
                let job = move || view.retrieve(&asked.0, &asked.1);
                let (points, times) = run(node, is_short, context.deadline, job).await?;
                group.shard().paces().retrieve.note(units, times.ran);
                Ok(points)
            };
            let result = result.await;
            ShardAnswer { shard, applied, result }
        }
    });
    join_all(answers).await
}

/// How many units of [`Paces::search`] the queries take, if they are all of that kind.
fn plain_units(queries: &[SearchQuery]) -> Option<u64> {
    let of_query = |query: &SearchQuery| {
        let is_dense = matches!(&query.goal, Goal::Nearest(vector) if matches!(**vector, Vector::Dense(_)));
        let is_plain = is_dense && query.filter.is_none() && !query.exact;
        is_plain.then(|| query.ef.unwrap_or(0).max(query.k).max(1) as u64)
    };
    queries.iter().map(of_query).sum()
}

/// Searches every shard asked for every query: jobs of one shard and a few queries.
pub(super) async fn search(node: &ShardNode, request: SearchRequest) -> Vec<ShardAnswer<Vec<Vec<ShardHit>>>> {
    let SearchRequest { context, queries } = request;
    let units = plain_units(&queries);
    let is_short = units.is_some_and(|units| is_short(node, &context, |paces| &paces.search, units));
    let shards = context.shards.len().max(1);
    let jobs_per_shard = if is_short { 1 } else { (node.env.search.threads() * JOBS_PER_THREAD).div_ceil(shards) };
    let chunk = queries.len().div_ceil(jobs_per_shard).max(1);
    let answers = context.shards.iter().map(|&(shard, floor)| {
        let (context, queries) = (&context, &queries);
        let span = match queries.first() {
            Some(first) => telemetry::shard_search_span(shard.0, queries.len(), first.k, first.ef, first.exact),
            None => Span::none(),
        };
        let search = async move {
            let mut applied = LogIndex(0);
            let result = async {
                let (group, view) = view(node, context, shard, floor).await?;
                applied = view.applied();
                let (hits, ran) = search_shard(node, &view, queries, chunk, is_short, context.deadline).await?;
                group.shard().paces().searches.fetch_add(hits.len() as u64, Ordering::Relaxed);
                if let Some(units) = units {
                    group.shard().paces().search.note(units, ran);
                }
                Ok(hits)
            };
            let result = result.await;
            if result.is_err() {
                telemetry::failed(&Span::current());
            }
            ShardAnswer { shard, applied, result }
        };
        search.instrument(span)
    });
    join_all(answers).await
}

/// The hits of all queries, and how long threads worked for them.
async fn search_shard(
    node: &ShardNode,
    view: &Arc<View>,
    queries: &Arc<Vec<SearchQuery>>,
    chunk: usize,
    is_short: bool,
    deadline: Instant,
) -> Result<(Vec<Vec<ShardHit>>, Duration)> {
    let jobs = (0..queries.len()).step_by(chunk).map(|from| {
        let (view, queries, pool) = (view.clone(), queries.clone(), node.env.search.clone());
        let to = (from + chunk).min(queries.len());
        run(node, is_short, deadline, move || {
            let one = |query| {
                // The caller has given up by then.
                if Instant::now() >= deadline {
                    return Err(Error::Timeout("the search was not done by its deadline".into()));
                }
                view.search_on(query, pool.share(), &Patience::until(deadline))
            };
            queries[from..to].iter().map(one).collect::<Result<Vec<_>>>()
        })
    });
    let parts = join_all(jobs).await.into_iter().collect::<Result<Vec<_>>>()?;
    note_times(&parts);
    let ran = parts.iter().map(|(_, times)| times.ran).sum();
    Ok((parts.into_iter().flat_map(|(hits, _)| hits).collect(), ran))
}

/// Writes what the jobs took into the span of the shard's search: the longest wait, and the sum of the work.
fn note_times(parts: &[(Vec<Vec<ShardHit>>, JobTimes)]) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    let queued = parts.iter().map(|(_, times)| times.queued.as_micros() as u64).max();
    span.record("jobs", parts.len());
    span.record("queue_us", queued.unwrap_or_default());
    span.record("search_us", parts.iter().map(|(_, times)| times.ran.as_micros() as u64).sum::<u64>());
    span.record("hits", parts.iter().flat_map(|(hits, _)| hits).map(Vec::len).sum::<usize>());
}
