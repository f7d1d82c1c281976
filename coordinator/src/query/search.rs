//! Runs a batch of queries: one scatter finds the winners, one fetch gets what they hold.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use vicinal_common::api::{PointParts, ScrollOrder, SearchQuery, SearchRequest, ShardHit, StoredPoint, VectorSelector};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::ShardId;
use vicinal_common::point::PointId;
use vicinal_common::topk::merge_sorted;
use vicinal_common::vector::Vector;

use super::examples::{Examples, Load};
use super::fetch::{Fetched, fetch};
use super::gather::Coverage;
use super::goal::goal_of;
use super::idf::weigh;
use super::read::{PageRequest, ROUTE_TRIES_MAX, has_moved, scroll};
use super::request::{Answer, Hit, Query, Source, resolve_vector_name};
use super::scatter::{Effort, ReadSpec, scatter};
use crate::meta::Collection;
use crate::shard_client::WorkKind;
use crate::shards::{Lookup, ShardAccess};

/// How often a query is run again because a winner changed before it was fetched. After that it is left out.
const RERUNS_MAX: usize = 2;

/// Answers all queries, in their order. One that asks too much fails them all, as does one whose gaps it does not allow.
pub async fn run(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    queries: &[Query],
) -> Result<Vec<Answer>> {
    for query in queries {
        query.check()?;
    }
    let mut tries = 1;
    let mut answers = loop {
        let collection = lookup()?;
        let (answers, is_stale) = nearest(access, &collection, spec, queries).await?;
        if is_stale && tries < ROUTE_TRIES_MAX && has_moved(lookup, &collection).await? {
            tries += 1;
            continue;
        }
        break answers;
    };
    if answers.len() != queries.len() {
        return Err(Error::Unavailable("shards of the collection are being moved, try again".into()));
    }
    for (query, answer) in queries.iter().zip(&mut answers) {
        match &query.source {
            Source::All => {
                let order = ScrollOrder::Id { from: None };
                *answer = in_order(access, lookup, spec, query, order).await?;
            }
            Source::OrderBy(order) => {
                let order = ScrollOrder::Key(order.clone());
                *answer = in_order(access, lookup, spec, query, order).await?;
            }
            Source::Sample { seed } => {
                let order = ScrollOrder::Random { seed: *seed };
                *answer = in_order(access, lookup, spec, query, order).await?;
            }
            Source::Fusion(_) | Source::Formula(_) | Source::Mmr { .. } => {
                return Err(Error::Internal("a query was sent to the shards that they do not answer".into()));
            }
            source => debug_assert!(source.is_search(), "answered by the search"),
        }
        answer.coverage.check(query.allow_partial)?;
    }
    Ok(answers)
}

/// Points in some order as hits, for a query that no vector is searched for.
async fn in_order(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    query: &Query,
    order: ScrollOrder,
) -> Result<Answer> {
    let request = PageRequest {
        order,
        limit: query.limit + query.offset,
        filter: query.filter.clone(),
        parts: query.parts.clone(),
    };
    let page = scroll(access, lookup, spec, &request).await?;
    let hits = page.points.into_iter().skip(query.offset).map(|point| Hit {
        id: point.id,
        version: point.version,
        score: 1.0,
        order: point.order,
        point: query.wants_parts().then_some(point),
    });
    Ok(Answer { hits: hits.collect(), coverage: page.coverage })
}

/// A query as it is sent to the shards, with its place in the batch.
pub(super) struct Sent {
    /// Place of the query.
    pub(super) place: usize,
    /// What is sent.
    pub(super) query: SearchQuery,
    /// Which shards its vectors were weighed by, if they are to be weighed.
    pub(super) weighed: Option<Coverage>,
}

/// Answers all queries that have a vector or a point to search by, and says whether a shard refused because of an old
/// token table. No answers at all when that kept the points from being looked up.
async fn nearest(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    queries: &[Query],
) -> Result<(Vec<Answer>, bool)> {
    let prepared = prepare(access, collection, spec, queries).await?;
    let Some((mut pending, mut is_stale)) = prepared else { return Ok((Vec::new(), true)) };
    let mut answers = vec![Answer::default(); queries.len()];
    let shards: Vec<ShardId> = collection.shard_ids().collect();
    for round in 0..=RERUNS_MAX {
        if pending.is_empty() {
            break;
        }
        let sent = Arc::new(pending.iter().map(|sent| sent.query.clone()).collect::<Vec<_>>());
        let kind = if sent.iter().any(|query| query.exact) { WorkKind::ExactSearch } else { WorkKind::Search };
        let effort = Effort { kind, units: sent.len() };
        let gathered = scatter(access, collection, spec, effort, &shards, |api, context| {
            let request = SearchRequest { context, queries: sent.clone() };
            async move { api.search(request).await }
        })
        .await;
        is_stale |= gathered.is_stale();
        let mut lists: Vec<Vec<Vec<ShardHit>>> = pending.iter().map(|_| Vec::new()).collect();
        for (_, of_shard) in gathered.answers {
            for (list, hits) in lists.iter_mut().zip(of_shard) {
                list.push(hits);
            }
        }
        let mut found = Vec::with_capacity(pending.len());
        for (sent, lists) in pending.iter().zip(lists) {
            found.push(winners(collection, &queries[sent.place], lists)?);
        }
        let fetched = fetch_winners(access, collection, spec, queries, &pending, &found).await;
        is_stale |= fetched.as_ref().is_some_and(|fetched| fetched.is_stale);
        let mut again = Vec::new();
        for (sent, hits) in pending.into_iter().zip(found) {
            let query = &queries[sent.place];
            let (hits, changed) = fill(collection, query, hits, fetched.as_ref());
            if changed && round < RERUNS_MAX {
                again.push(sent);
                continue;
            }
            let mut coverage = gathered.coverage.clone();
            if let Some(weighed) = &sent.weighed {
                coverage.add(weighed);
            }
            if let Some(fetched) = fetched.as_ref().filter(|_| query.wants_parts()) {
                coverage.add(&fetched.coverage);
            }
            answers[sent.place] = Answer { hits, coverage };
        }
        pending = again;
    }
    Ok((answers, is_stale))
}

/// Brings the queries into the shards' form; looks up the points that are queries, and says whether a shard refused to weigh
/// them because of an old token table. `None` when a shard refused the lookup for that reason.
async fn prepare(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    queries: &[Query],
) -> Result<Option<(Vec<Sent>, bool)>> {
    let mut ids = Vec::new();
    let mut names = HashSet::new();
    for query in queries {
        // A wrong name is the client's mistake even when nothing is searched by it.
        if query.source.is_search() || !query.using.is_empty() {
            resolve_vector_name(&collection.schema, &query.using)?;
        }
        let points = query.source.points();
        if !points.is_empty() {
            ids.extend(points);
            names.insert(query.using.clone());
        }
    }
    let parts = PointParts { payload: false, vectors: VectorSelector::Named(names.into_iter().collect()) };
    let points = match ids.is_empty() {
        true => None,
        false => Some(fetch(access, collection, spec, &ids, &parts).await),
    };
    if points.as_ref().is_some_and(|points| points.is_stale) {
        return Ok(None);
    }
    let mut sent = searches(collection, queries, points.as_ref())?;
    let is_stale = weigh(access, collection, spec, queries, &mut sent).await?;
    Ok(Some((sent, is_stale)))
}

/// The queries that are searches, in the shards' form.
fn searches(collection: &Collection, queries: &[Query], points: Option<&Fetched>) -> Result<Vec<Sent>> {
    let stored = |id: PointId, using: &str| vector_of_point(points, id, using);
    let mut examples: HashMap<&str, Examples<'_>> = HashMap::new();
    let mut load = Load::default();
    let mut sent = Vec::with_capacity(queries.len());
    for (place, query) in queries.iter().enumerate().filter(|(_, query)| query.source.is_search()) {
        let schema = resolve_vector_name(&collection.schema, &query.using)?;
        let of_name = || Examples::new(&query.using, schema, &stored);
        let examples = examples.entry(&query.using).or_insert_with(of_name);
        load.add(&query.source, examples)?;
        if let Some(goal) = goal_of(&query.source, examples)? {
            load.add_made(&query.source, schema, &goal)?;
            let ef_construction = collection.schema.hnsw_of(&query.using).map_or(0, |hnsw| hnsw.ef_construction);
            let query = query.search(schema.metric, goal, ef_construction);
            sent.push(Sent { place, query, weighed: None });
        }
    }
    Ok(sent)
}

fn vector_of_point<'a>(points: Option<&'a Fetched>, id: PointId, using: &str) -> Result<&'a Vector> {
    let absent = || Error::NotFound(format!("No point with id {id} found"));
    let fetched = points.ok_or_else(absent)?;
    let Some(point) = fetched.points.get(&id) else {
        // A shard that did not answer does not say that the point is absent.
        fetched.coverage.check(false)?;
        return Err(absent());
    };
    let no_vector = || Error::BadInput(format!("point {id} has no vector `{using}` to search by"));
    point.vectors.get(using).ok_or_else(no_vector)
}

/// Merges the hits of all shards, leaving out the query's own points, hits that are not good enough, and the offset.
fn winners(collection: &Collection, query: &Query, lists: Vec<Vec<ShardHit>>) -> Result<Vec<ShardHit>> {
    let metric = resolve_vector_name(&collection.schema, &query.using)?.metric;
    let own: HashSet<PointId> = query.source.points().into_iter().collect();
    let wanted = query.offset + query.limit;
    let order = |a: &ShardHit, b: &ShardHit| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id));
    let mut hits = merge_sorted(lists, wanted + own.len(), order, |hit| hit.id);
    hits.retain(|hit| !own.contains(&hit.id) && query.accepts(metric, query.source.score(metric, hit.distance)));
    hits.truncate(wanted);
    Ok(hits.split_off(query.offset.min(hits.len())))
}

/// Gets what the winners of all queries hold, in one go. `None` when no query wants anything.
async fn fetch_winners(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    queries: &[Query],
    sent: &[Sent],
    found: &[Vec<ShardHit>],
) -> Option<Fetched> {
    let mut ids = HashSet::new();
    let mut parts = PointParts::default();
    for (sent, hits) in sent.iter().zip(found) {
        let query = &queries[sent.place];
        if query.wants_parts() {
            ids.extend(hits.iter().map(|hit| hit.id));
            parts.payload |= query.parts.payload;
            parts.vectors = union(std::mem::take(&mut parts.vectors), &query.parts.vectors);
        }
    }
    if ids.is_empty() {
        return None;
    }
    let ids: Vec<PointId> = ids.into_iter().collect();
    Some(fetch(access, collection, spec, &ids, &parts).await)
}

fn union(a: VectorSelector, b: &VectorSelector) -> VectorSelector {
    match (a, b) {
        (VectorSelector::All, _) | (_, VectorSelector::All) => VectorSelector::All,
        (a, VectorSelector::None) => a,
        (VectorSelector::None, VectorSelector::Named(names)) => VectorSelector::Named(names.clone()),
        (VectorSelector::Named(mut names), VectorSelector::Named(more)) => {
            names.extend(more.iter().cloned());
            names.sort_unstable();
            names.dedup();
            VectorSelector::Named(names)
        }
    }
}

/// Joins hits with what was fetched. Leaves out a hit whose point has changed or gone since it was found, and says so; a
/// hit whose shard did not answer is left out too (the coverage says that).
fn fill(collection: &Collection, query: &Query, found: Vec<ShardHit>, fetched: Option<&Fetched>) -> (Vec<Hit>, bool) {
    let schema = collection.schema.vectors.get(&query.using);
    let score = |hit: &ShardHit| schema.map_or(0.0, |schema| query.source.score(schema.metric, hit.distance));
    let none = HashMap::new();
    let (points, coverage) = match fetched {
        Some(fetched) => (&fetched.points, fetched.coverage.clone()),
        None => (&none, Coverage::default()),
    };
    let away: HashSet<ShardId> = coverage.missing.iter().map(|missing| missing.shard).collect();
    let mut changed = false;
    let mut hits = Vec::with_capacity(found.len());
    for hit in found {
        let point = match points.get(&hit.id) {
            _ if !query.wants_parts() => None,
            Some(point) if point.version == hit.version => Some(narrow(point, &query.parts)),
            Some(_) => {
                changed = true;
                continue;
            }
            None => {
                changed |= !away.contains(&collection.tokens.shard_of(hit.id));
                continue;
            }
        };
        hits.push(Hit { id: hit.id, version: hit.version, score: score(&hit), order: None, point });
    }
    (hits, changed)
}

/// What this query asked for of a point fetched for several.
fn narrow(point: &StoredPoint, parts: &PointParts) -> StoredPoint {
    let vectors = match &parts.vectors {
        VectorSelector::None => Default::default(),
        VectorSelector::All => point.vectors.clone(),
        VectorSelector::Named(names) => {
            let wanted = names.iter().filter_map(|name| point.vectors.get_key_value(name));
            wanted.map(|(name, vector)| (name.clone(), vector.clone())).collect()
        }
    };
    let payload = if parts.payload { point.payload.clone() } else { Default::default() };
    StoredPoint { id: point.id, version: point.version, payload, vectors, order: None }
}
