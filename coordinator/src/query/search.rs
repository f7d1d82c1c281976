//! Runs a batch of queries: those that are searches together, the others one by one.

use std::collections::{HashMap, HashSet};

use vicinal_common::api::{PointParts, ScrollOrder, SearchQuery, VectorSelector};
use vicinal_common::error::{Error, Result};
use vicinal_common::point::PointId;
use vicinal_common::vector::Vector;

use super::clustered::{Asking, not_behind};
use super::examples::{Examples, Load};
use super::fetch::{Fetched, fetch};
use super::gather::Coverage;
use super::goal::goal_of;
use super::homes::ask_homes;
use super::idf::weigh;
use super::read::{PageRequest, ROUTE_TRIES_MAX, has_moved, scroll};
use super::request::{Answer, Hit, Query, Source, resolve_vector_name};
use super::route::HomesBecause;
use super::scatter::ReadSpec;
use crate::meta::Collection;
use crate::shards::{Lookup, ShardAccess};

/// How often a query is run again because a winner changed before it was fetched. After that it is left out.
pub(super) const RERUNS_MAX: usize = 2;

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
    let mut at_homes = None;
    let mut answers = loop {
        let collection = not_behind(access, lookup, spec).await?;
        let (answers, is_stale) = nearest(access, &collection, spec, queries, at_homes).await?;
        if is_stale && tries < ROUTE_TRIES_MAX {
            tries += 1;
            if has_moved(lookup, &collection).await? {
                continue;
            }
            // Search shards may have heard of a newer map long before this coordinator does. Home shards need none.
            if collection.routing.cluster().is_some() && at_homes.is_none() {
                at_homes = Some(HomesBecause::Refused);
                continue;
            }
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

/// Answers all queries that have a vector or a point to search by, and says whether a shard refused because of old
/// metadata. No answers at all when that kept the points from being looked up. `at_homes`: nothing is searched by a
/// map.
async fn nearest(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    queries: &[Query],
    at_homes: Option<HomesBecause>,
) -> Result<(Vec<Answer>, bool)> {
    let prepared = prepare(access, collection, spec, queries).await?;
    let Some((pending, mut is_stale)) = prepared else { return Ok((Vec::new(), true)) };
    let mut answers = vec![Answer::default(); queries.len()];
    match collection.routing.cluster() {
        None => is_stale |= ask_homes(access, collection, spec, queries, pending, &mut answers).await?,
        Some(cluster) => {
            let asking = Asking { access, collection, spec, queries, cluster };
            // A future of its own: that of other collections stays as small as it is.
            is_stale |= Box::pin(asking.nearest(pending, at_homes, &mut answers)).await?;
        }
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
