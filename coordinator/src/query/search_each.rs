//! Searches of several queries of which not all are meant for all shards: each shard is sent those that want it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use vicinal_common::api::{ReadContext, SearchQuery, SearchRequest, ShardApi, ShardHit};
use vicinal_common::ids::ShardId;

use super::scatter::{Effort, Gathered, ReadSpec, Targets, scatter_to};
use crate::meta::Collection;
use crate::shard_client::WorkKind;
use crate::shards::ShardAccess;

/// By shard, the places of the queries that want it, ascending.
pub(super) type Wanted = BTreeMap<ShardId, Vec<usize>>;

/// Queries that are sent together.
type Batch = Arc<Vec<SearchQuery>>;

/// Asks each shard of `wanted`, which are those of the targets, the queries that want it. Answers are in their order.
pub(super) async fn search_each(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    targets: Targets<'_>,
    queries: &[&SearchQuery],
    wanted: &Wanted,
) -> Gathered<Vec<Vec<ShardHit>>> {
    // Shards that are asked the same are asked in one request.
    let mut batches: Vec<Batch> = Vec::new();
    let mut known: BTreeMap<&[usize], usize> = BTreeMap::new();
    let mut batch_of: BTreeMap<ShardId, usize> = BTreeMap::new();
    for (shard, places) in wanted {
        let batch = *known.entry(places).or_insert_with(|| {
            batches.push(Arc::new(places.iter().map(|place| queries[*place].clone()).collect()));
            batches.len() - 1
        });
        batch_of.insert(*shard, batch);
    }
    let is_exact = batches.iter().any(|batch| batch.iter().any(|query| query.exact));
    let kind = if is_exact { WorkKind::ExactSearch } else { WorkKind::Search };
    let effort = Effort { kind, units: batches.iter().map(|batch| batch.len()).max().unwrap_or(0) };
    scatter_to(access, collection, spec, effort, targets, |api: Arc<dyn ShardApi>, context: ReadContext| {
        let mut requests: BTreeMap<usize, SearchRequest> = BTreeMap::new();
        for (shard, floor) in &context.shards {
            let Some(batch) = batch_of.get(shard) else { continue };
            let request = requests.entry(*batch).or_insert_with(|| SearchRequest {
                context: ReadContext { shards: Vec::new(), ..context.clone() },
                queries: batches[*batch].clone(),
            });
            request.context.shards.push((*shard, *floor));
        }
        async move {
            let asked = requests.into_values().map(|request| api.search(request));
            join_all(asked).await.into_iter().flatten().collect()
        }
    })
    .await
}
