//! Reads: wait until a replica may answer, take its view, compute on the search threads.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::Instant;
use tracing::{Instrument, Span};
use vicinal_common::api::{ReadContext, SearchQuery, SearchRequest, ShardAnswer, ShardHit};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::telemetry;

use super::check_routing;
use super::pool::JobTimes;
use crate::node::ShardNode;
use crate::shard::{Patience, View};

/// Jobs per search thread that a request is cut into: enough to keep all threads busy to the end, few enough that the
/// hand-over costs nothing.
const JOBS_PER_THREAD: usize = 4;

/// The view a read may use, once it may.
async fn view(node: &ShardNode, context: &ReadContext, shard: ShardId, floor: LogIndex) -> Result<Arc<View>> {
    node.check_open()?;
    let group = node.group(shard)?;
    check_routing(&group, context.collection, context.epoch)?;
    match context.consistency {
        Consistency::ReadYourWrites => {}
        Consistency::Linearizable => group.linearize(context.deadline).await?,
    }
    group.wait_applied(floor, context.deadline).await?;
    Ok(group.shard().view())
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
                let view = view(node, context, shard, floor).await?;
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

/// Searches every shard asked for every query: jobs of one shard and a few queries.
pub(super) async fn search(node: &ShardNode, request: SearchRequest) -> Vec<ShardAnswer<Vec<Vec<ShardHit>>>> {
    let SearchRequest { context, queries } = request;
    let shards = context.shards.len().max(1);
    let jobs_per_shard = (node.env.search.threads() * JOBS_PER_THREAD).div_ceil(shards);
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
                let view = view(node, context, shard, floor).await?;
                applied = view.applied();
                search_shard(node, &view, queries, chunk, context.deadline).await
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

async fn search_shard(
    node: &ShardNode,
    view: &Arc<View>,
    queries: &Arc<Vec<SearchQuery>>,
    chunk: usize,
    deadline: Instant,
) -> Result<Vec<Vec<ShardHit>>> {
    let jobs = (0..queries.len()).step_by(chunk).map(|from| {
        let (view, queries, pool) = (view.clone(), queries.clone(), node.env.search.clone());
        let to = (from + chunk).min(queries.len());
        node.env.search.timed(deadline, move || {
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
    Ok(parts.into_iter().flat_map(|(hits, _)| hits).collect())
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
