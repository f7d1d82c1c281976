//! Reads: wait until a replica may answer, take its view, compute on the search threads.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::Instant;
use vicinal_common::api::{NearestQuery, ReadContext, SearchRequest, ShardAnswer, ShardHit};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, ShardId};

use super::check_routing;
use crate::node::ShardNode;
use crate::shard::View;

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
    work: impl Fn(&View) -> Result<T> + Send + Sync + 'static,
) -> Vec<ShardAnswer<T>> {
    let work = Arc::new(work);
    let answers = context.shards.iter().map(|&(shard, floor)| {
        let work = work.clone();
        async move {
            let mut applied = LogIndex(0);
            let result = async {
                let view = view(node, context, shard, floor).await?;
                applied = view.applied();
                node.env.search.run(context.deadline, move || work(&view)).await
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
        async move {
            let mut applied = LogIndex(0);
            let result = async {
                let view = view(node, context, shard, floor).await?;
                applied = view.applied();
                search_shard(node, &view, queries, chunk, context.deadline).await
            };
            let result = result.await;
            ShardAnswer { shard, applied, result }
        }
    });
    join_all(answers).await
}

async fn search_shard(
    node: &ShardNode,
    view: &Arc<View>,
    queries: &Arc<Vec<NearestQuery>>,
    chunk: usize,
    deadline: Instant,
) -> Result<Vec<Vec<ShardHit>>> {
    let jobs = (0..queries.len()).step_by(chunk).map(|from| {
        let (view, queries) = (view.clone(), queries.clone());
        let to = (from + chunk).min(queries.len());
        node.env.search.run(deadline, move || {
            let one = |query| {
                // The caller has given up by then.
                if Instant::now() >= deadline {
                    return Err(Error::Timeout("the search was not done by its deadline".into()));
                }
                view.search(query)
            };
            queries[from..to].iter().map(one).collect::<Result<Vec<_>>>()
        })
    });
    let parts = join_all(jobs).await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(parts.into_iter().flatten().collect())
}
