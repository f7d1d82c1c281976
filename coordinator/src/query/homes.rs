//! Searches that home shards answer: one scatter finds the winners, one fetch gets what they hold.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use vicinal_common::api::{PointParts, SearchRequest, ShardHit, StoredPoint, VectorSelector};
use vicinal_common::error::Result;
use vicinal_common::ids::ShardId;
use vicinal_common::point::PointId;
use vicinal_common::topk::merge_sorted;

use super::fetch::{Fetched, fetch};
use super::gather::Coverage;
use super::request::{Answer, Hit, Query, resolve_vector_name};
use super::scatter::{Effort, ReadSpec, scatter};
use super::search::{RERUNS_MAX, Sent};
use crate::meta::Collection;
use crate::shard_client::WorkKind;
use crate::shards::ShardAccess;

/// Answers the queries sent, each in its place, and says whether a shard refused because of an old token table.
pub(super) async fn ask_homes(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    queries: &[Query],
    mut pending: Vec<Sent>,
    answers: &mut [Answer],
) -> Result<bool> {
    let mut is_stale = false;
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
    Ok(is_stale)
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
            add_parts(&mut parts, &query.parts);
        }
    }
    if ids.is_empty() {
        return None;
    }
    let ids: Vec<PointId> = ids.into_iter().collect();
    Some(fetch(access, collection, spec, &ids, &parts).await)
}

/// Wants these parts too.
pub(super) fn add_parts(parts: &mut PointParts, more: &PointParts) {
    parts.payload |= more.payload;
    parts.vectors = union(std::mem::take(&mut parts.vectors), &more.vectors);
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

/// Joins hits with what was fetched. Leaves out a hit whose point has changed or gone since it was found, and says so;
/// a hit whose shard did not answer is left out too (the coverage says that).
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
pub(super) fn narrow(point: &StoredPoint, parts: &PointParts) -> StoredPoint {
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
