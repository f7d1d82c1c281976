//! Reads without a query vector: points by id, pages in id order, counts.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use vicinal_common::api::{
    CountRequest, FacetCount, FacetRequest, FacetValue, OrderBy, OrderValue, PointParts, ReadContext, ScrollOrder,
    ScrollRequest, ShardAnswer, ShardApi, StoredPoint, random_key,
};
use vicinal_common::error::Result;
use vicinal_common::filter::Filter;
use vicinal_common::ids::{MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::topk::merge_sorted;

use super::fetch::fetch;
use super::gather::Coverage;
use super::scatter::{Effort, Gathered, ReadSpec, scatter};
use crate::meta::Collection;
use crate::shard_client::WorkKind;
use crate::shards::{Lookup, ShardAccess};

/// How often a read is routed anew because the token table changed under it.
pub(super) const ROUTE_TRIES_MAX: usize = 3;
/// How often this coordinator looks whether its own metadata has caught up with what a shard knows.
const CATCH_UP_TRIES_MAX: usize = 5;
/// Pause between two looks.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);

/// Whether the metadata has changed since `used` was routed by: then the read can be routed anew. Waits a little, because
/// a shard may have heard of the change first.
pub(super) async fn has_moved(lookup: Lookup<'_>, used: &Collection) -> Result<bool> {
    for _ in 0..CATCH_UP_TRIES_MAX {
        let now = lookup()?;
        if now.id != used.id || now.epoch != used.epoch || served(&now) != served(used) {
            return Ok(true);
        }
        tokio::time::sleep(CATCH_UP_PAUSE).await;
    }
    Ok(false)
}

/// The map that searches are routed by.
fn served(collection: &Collection) -> Option<MapVersion> {
    Some(collection.routing.cluster()?.serving.as_ref()?.map.version)
}

/// Points by id, in the order asked for, those that exist. An id of a missing shard is left out too: see the coverage.
pub async fn retrieve(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    ids: &[PointId],
    parts: &PointParts,
) -> Result<(Vec<StoredPoint>, Coverage)> {
    let mut tries = 1;
    loop {
        let collection = lookup()?;
        let mut fetched = fetch(access, &collection, spec, ids, parts).await;
        if fetched.is_stale && tries < ROUTE_TRIES_MAX && has_moved(lookup, &collection).await? {
            tries += 1;
            continue;
        }
        let points = ids.iter().filter_map(|id| fetched.points.remove(id)).collect();
        return Ok((points, fetched.coverage));
    }
}

/// A page to read.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Which points come first.
    pub order: ScrollOrder,
    /// Points wanted, at least 1.
    pub limit: usize,
    /// Which points.
    pub filter: Option<Arc<Filter>>,
    /// What to return of each.
    pub parts: PointParts,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// In the order asked for.
    pub points: Vec<StoredPoint>,
    /// Where the next page begins; `None` at the end, and for any order but that of the ids.
    pub next: Option<PointId>,
    /// Which shards it stands for.
    pub coverage: Coverage,
}

/// Reads a page of points over all shards.
pub async fn scroll(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    request: &PageRequest,
) -> Result<Page> {
    let effort = Effort { kind: WorkKind::Scroll, units: request.limit };
    let gathered = everywhere(access, lookup, spec, effort, |api, context| {
        let request = ScrollRequest {
            context,
            order: request.order.clone(),
            limit: request.limit + 1,
            filter: request.filter.clone(),
            parts: request.parts.clone(),
        };
        async move { api.scroll(request).await }
    })
    .await?;
    let lists = gathered.answers.into_iter().map(|(_, points)| points).collect();
    // Of two versions of one id the newer comes first and is the one that counts.
    let by_id = |a: &StoredPoint, b: &StoredPoint| a.id.cmp(&b.id).then(b.version.cmp(&a.version));
    let most = request.limit + 1;
    let mut points = match &request.order {
        ScrollOrder::Id { .. } => merge_sorted(lists, most, by_id, |point| point.id),
        ScrollOrder::Key(OrderBy { descending, .. }) => {
            let order = |a: &StoredPoint, b: &StoredPoint| {
                let ascending = a.order.cmp(&b.order).then(a.id.cmp(&b.id));
                let directed = if *descending { ascending.reverse() } else { ascending };
                directed.then(b.version.cmp(&a.version))
            };
            // A point comes once for each of its values.
            merge_sorted(lists, most, order, |point| (point.id, point.order.map(order_key)))
        }
        ScrollOrder::Clusters(sample) => {
            let key = |point: &StoredPoint| {
                let cluster = cluster_of(point);
                (sample.cluster_key(cluster), sample.point_key(point.id))
            };
            let all = lists.iter().map(Vec::len).sum();
            let mut points =
                merge_sorted(lists, all, |a, b| key(a).cmp(&key(b)).then(b.version.cmp(&a.version)), |point| point.id);
            // Each shard gives as many of a cluster as are wanted of all.
            let mut taken: HashMap<u32, u64> = HashMap::new();
            points.retain(|point| {
                let taken = taken.entry(cluster_of(point)).or_default();
                *taken += 1;
                *taken <= sample.per_cluster
            });
            points.truncate(most);
            points
        }
        ScrollOrder::Random { seed } => {
            let key = |point: &StoredPoint| (random_key(*seed, point.id), point.id);
            merge_sorted(lists, most, |a, b| key(a).cmp(&key(b)).then(b.version.cmp(&a.version)), |point| point.id)
        }
    };
    let is_by_id = matches!(request.order, ScrollOrder::Id { .. });
    let next = (points.len() > request.limit).then(|| points.pop()).flatten().map(|point| point.id);
    Ok(Page { points, next: next.filter(|_| is_by_id), coverage: gathered.coverage })
}

/// The cluster of a point of a sample over clusters.
fn cluster_of(point: &StoredPoint) -> u32 {
    match point.order {
        Some(OrderValue::Integer(cluster)) => u32::try_from(cluster).unwrap_or(u32::MAX),
        Some(OrderValue::Float(_)) | None => u32::MAX,
    }
}

/// What tells two values of an order apart.
fn order_key(value: OrderValue) -> (bool, u64) {
    match value {
        OrderValue::Integer(integer) => (true, integer as u64),
        OrderValue::Float(float) => (false, float.to_bits()),
    }
}

/// The values of a payload key, and how many matching points have each: the most frequent first, equally frequent ones in
/// order of the values, `limit` of them. Counted over all shards that answer.
pub async fn facet(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    request: &FacetQuery,
) -> Result<(Vec<FacetCount>, Coverage)> {
    let effort = Effort { kind: WorkKind::Count, units: 1 };
    let gathered = everywhere(access, lookup, spec, effort, |api, context| {
        let request = FacetRequest { context, key: request.key.clone(), filter: request.filter.clone() };
        async move { api.facet(request).await }
    })
    .await?;
    let mut counts: HashMap<FacetValue, u64> = HashMap::new();
    for FacetCount { value, count } in gathered.answers.into_iter().flat_map(|(_, counts)| counts) {
        *counts.entry(value).or_default() += count;
    }
    let mut counts: Vec<FacetCount> = counts.into_iter().map(|(value, count)| FacetCount { value, count }).collect();
    counts.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    counts.truncate(request.limit);
    Ok((counts, gathered.coverage))
}

/// Which values to count.
#[derive(Clone, Debug)]
pub struct FacetQuery {
    /// The key path.
    pub key: String,
    /// Values wanted, at least 1.
    pub limit: usize,
    /// Which points count.
    pub filter: Option<Arc<Filter>>,
}

/// Counts the points that match, over all shards that answer.
pub async fn count(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    filter: Option<Arc<Filter>>,
) -> Result<(u64, Coverage)> {
    let effort = Effort { kind: WorkKind::Count, units: 1 };
    let gathered = everywhere(access, lookup, spec, effort, |api, context| {
        let request = CountRequest { context, filter: filter.clone() };
        async move { api.count(request).await }
    })
    .await?;
    Ok((gathered.answers.iter().map(|(_, count)| count).sum(), gathered.coverage))
}

/// Asks all shards, routed anew while the token table changes.
pub(super) async fn everywhere<T, F, Fut>(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    effort: Effort,
    ask: F,
) -> Result<Gathered<T>>
where
    F: Fn(Arc<dyn ShardApi>, ReadContext) -> Fut,
    Fut: Future<Output = Vec<ShardAnswer<T>>>,
{
    let mut tries = 1;
    loop {
        let collection = lookup()?;
        let shards: Vec<ShardId> = collection.shard_ids().collect();
        let gathered = scatter(access, &collection, spec, effort, &shards, &ask).await;
        if gathered.is_stale() && tries < ROUTE_TRIES_MAX && has_moved(lookup, &collection).await? {
            tries += 1;
            continue;
        }
        return Ok(gathered);
    }
}
