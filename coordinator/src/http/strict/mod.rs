//! Strict mode: what a collection's owner does not want requests to do. Routes are classified and counted before their
//! body is read; the rest is checked when it is understood, before anything is carried out.

mod bucket;
mod formula;
mod rates;
mod totals;

use std::collections::HashMap;
use std::fmt::Display;

use axum::extract::{MatchedPath, Query, Request};
use axum::http::{Method, StatusCode, Uri};
use tokio::time::Instant;
use vicinal_common::filter::{Condition, FieldTest, Filter, KeyPath, Match, Values};
use vicinal_common::payload_index::FieldType;
use vicinal_common::point::Vectors;
use vicinal_common::vector::Vector;

use super::answer::Failure;
use crate::Coordinator;
use crate::meta::{Collection, StrictMode};
use crate::query::{QueryTree, Source};
use crate::write::Update;

pub(super) use formula::{check_formula, check_read_key};
pub(super) use rates::Kind;

/// What this coordinator counts for collections that have limits.
#[derive(Default)]
pub(crate) struct StrictLimits {
    rates: rates::Rates,
    totals: totals::Totals,
}

/// The failure for what strict mode does not allow.
fn refused(text: impl Display) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, format!("Bad request: {text}"))
}

fn refused_with_help(text: impl Display, help: impl Display) -> Failure {
    refused(format!("{text}. Help: {help}"))
}

/// Refuses a value above a limit.
fn at_most<T: PartialOrd + Display>(name: &str, value: T, limit: Option<T>) -> Result<(), Failure> {
    match limit {
        Some(limit) if value > limit => Err(refused_with_help(
            format!("Limit exceeded {value} > {limit} for \"{name}\""),
            format!("Reduce the \"{name}\" parameter to or below {limit}."),
        )),
        Some(_) | None => Ok(()),
    }
}

/// What a request to a route does to points; `None` for all that is not limited.
fn kind(method: &Method, route: &str) -> Option<Kind> {
    let rest = route.strip_prefix("/collections/{collection}/")?;
    match (method, rest) {
        (_, "index" | "index/{field}") => Some(Kind::Write),
        (&Method::POST, "facet") => Some(Kind::Read),
        (_, rest) if rest != "points" && !rest.starts_with("points/") => None,
        (&Method::GET | &Method::HEAD, _) => Some(Kind::Read),
        (&Method::PUT | &Method::DELETE, _) => Some(Kind::Write),
        (
            &Method::POST,
            "points/delete"
            | "points/batch"
            | "points/payload"
            | "points/payload/delete"
            | "points/payload/clear"
            | "points/vectors/delete",
        ) => Some(Kind::Write),
        (&Method::POST, _) => Some(Kind::Read),
        _ => None,
    }
}

/// The `timeout` that a request names, in seconds, read as it is later. One that cannot be read is refused then.
fn timeout(uri: &Uri) -> Option<u64> {
    let Query(query) = Query::<HashMap<String, String>>::try_from_uri(uri).ok()?;
    query.get("timeout")?.parse().ok()
}

/// Refuses requests that come too often or want to take too long.
pub(super) fn admit(coordinator: &Coordinator, collection: &str, request: &Request) -> Result<(), Failure> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let Some(kind) = kind(request.method(), route) else { return Ok(()) };
    // A collection that is not there is told of by the handler.
    let Ok(collection) = coordinator.collection(collection) else { return Ok(()) };
    let Some(strict) = collection.strict.enforced() else { return Ok(()) };
    if strict.max_timeout.is_some()
        && let Some(seconds) = timeout(request.uri())
    {
        at_most("timeout", seconds, strict.max_timeout)?;
    }
    coordinator.strict.rates.take(&collection, kind)
}

/// Counts a request that is several operations as that many.
pub(super) fn count_batch(
    coordinator: &Coordinator,
    collection: &Collection,
    kind: Kind,
    operations: usize,
) -> Result<(), Failure> {
    coordinator.strict.rates.take_rest(collection, kind, operations as u64)
}

/// Refuses queries that ask for more than the collection allows, prefetches included. Filters have a check of their own.
pub(super) fn check_queries(collection: &Collection, trees: &[QueryTree]) -> Result<(), Failure> {
    let Some(strict) = collection.strict.enforced() else { return Ok(()) };
    at_most("search limit", trees.len() as u64, strict.search_max_batchsize)?;
    trees.iter().try_for_each(|tree| check_query(strict, tree))
}

fn check_query(strict: &StrictMode, tree: &QueryTree) -> Result<(), Failure> {
    let query = &tree.query;
    // Candidates are hits of a search too, before some of them are chosen.
    let candidates = match &query.source {
        Source::Mmr { mmr, .. } => mmr.candidates.unwrap_or_default(),
        _ => 0,
    };
    at_most("limit", query.limit.max(candidates) as u64, strict.max_query_limit)?;
    if let Some(ef) = query.ef {
        at_most("hnsw_ef", ef as u64, strict.search_max_hnsw_ef)?;
    }
    if query.exact {
        check_exact(strict)?;
    }
    if let (Some(factor), Some(most)) = (query.oversampling, strict.search_max_oversampling)
        && factor > most
    {
        let text = format!("Limit exceeded {factor} > {most} for \"oversampling\"");
        return Err(refused_with_help(&text, "Reduce the \"oversampling\" parameter."));
    }
    tree.prefetch.iter().try_for_each(|prefetch| check_query(strict, prefetch))
}

fn check_exact(strict: &StrictMode) -> Result<(), Failure> {
    match strict.search_allow_exact {
        Some(false) => Err(refused_with_help("Exact search disabled!", "Set exact=false.")),
        Some(true) | None => Ok(()),
    }
}

/// Refuses exact answers where the collection allows none.
pub(super) fn check_exact_count(collection: &Collection) -> Result<(), Failure> {
    collection.strict.enforced().map_or(Ok(()), check_exact)
}

/// Refuses a page, or any other list, that is longer than the collection allows.
pub(super) fn check_limit(collection: &Collection, limit: usize) -> Result<(), Failure> {
    let strict = collection.strict.enforced();
    at_most("limit", limit as u64, strict.and_then(|strict| strict.max_query_limit))
}

/// Refuses groups by a field without an index of values that are compared as a whole, where reads must have indexes.
pub(super) fn check_grouping(collection: &Collection, by: &KeyPath) -> Result<(), Failure> {
    let strict = collection.strict.enforced();
    if strict.and_then(|strict| strict.unindexed_filtering_retrieve) != Some(false) {
        return Ok(());
    }
    let key = by.to_string();
    let text = match collection.tuning.payload_indexes.get(&key).map(|index| index.of()) {
        Some(FieldType::Keyword | FieldType::Integer | FieldType::Bool | FieldType::Uuid) => return Ok(()),
        Some(of @ (FieldType::Float | FieldType::Datetime | FieldType::Geo | FieldType::Text)) => {
            format!("Index of type \"{of:?}\" found for \"{key}\"")
        }
        None => format!("Index required but not found for \"{key}\""),
    };
    Err(refused_with_help(text, "Create an index supporting `match` for this key."))
}

/// Refuses a filter of too many conditions, or with too long a list of values.
pub(super) fn check_filter_size(strict: &StrictMode, filter: &Filter) -> Result<(), Failure> {
    if strict.filter_max_conditions.is_none() && strict.condition_max_size.is_none() {
        return Ok(());
    }
    let mut size = FilterSize::default();
    size.add(filter);
    let FilterSize { conditions, largest } = size;
    if let Some(limit) = strict.filter_max_conditions.filter(|limit| conditions > *limit) {
        let text = format!("Filter condition limit reached ({conditions} > {limit})");
        return Err(refused_with_help(text, "Reduce the amount of conditions of your filter."));
    }
    if let Some(limit) = strict.condition_max_size.filter(|limit| largest > *limit) {
        let text = format!("Condition size limit reached ({largest} > {limit})");
        return Err(refused_with_help(text, "Reduce the size of your condition."));
    }
    Ok(())
}

/// How large a filter is.
#[derive(Debug, Default, PartialEq, Eq)]
struct FilterSize {
    /// Conditions on all levels; what holds others counts by those.
    conditions: u64,
    /// Values in the condition that has the most.
    largest: u64,
}

impl FilterSize {
    /// As deep as filters may be nested.
    fn add(&mut self, filter: &Filter) {
        for condition in filter.conditions() {
            let values = match condition {
                Condition::Filter(inner) | Condition::Nested { filter: inner, .. } => {
                    self.add(inner);
                    continue;
                }
                Condition::HasId(ids) => ids.as_slice().len(),
                Condition::Field(field) => match &field.test {
                    FieldTest::Match(Match::Any(values) | Match::Except(values)) => match values {
                        Values::Keywords(keywords) => keywords.as_slice().len(),
                        Values::Integers(integers) => integers.as_slice().len(),
                    },
                    FieldTest::GeoPolygon(polygon) => {
                        polygon.exterior.len() + polygon.interiors.iter().map(Vec::len).sum::<usize>()
                    }
                    FieldTest::Match(_)
                    | FieldTest::Range(_)
                    | FieldTest::DatetimeRange(_)
                    | FieldTest::GeoBoundingBox(_)
                    | FieldTest::GeoRadius(_)
                    | FieldTest::ValuesCount(_)
                    | FieldTest::IsEmpty(_)
                    | FieldTest::IsNull(_) => 0,
                },
                Condition::InClusters(asked) => asked.clusters.as_slice().len(),
                Condition::InClustersOf(points) => points.as_slice().len(),
                Condition::IsEmpty(_) | Condition::IsNull(_) | Condition::HasVector(_) | Condition::Slice(_) => 0,
            };
            self.conditions += 1;
            self.largest = self.largest.max(values as u64);
        }
    }
}

/// Refuses one payload index too many. One that is there may get another type in any case.
pub(super) fn check_new_index(collection: &Collection, field: &str) -> Result<(), Failure> {
    let indexes = &collection.tuning.payload_indexes;
    match indexes.contains_key(field) {
        true => Ok(()),
        false => collection.strict.check_index_count(indexes.len() + 1).map_err(refused),
    }
}

/// Refuses a change of too many points at a time. Filters have a check of their own.
pub(super) fn check_update(collection: &Collection, update: &Update) -> Result<(), Failure> {
    let Some(strict) = collection.strict.enforced() else { return Ok(()) };
    match update {
        Update::Upsert { points, .. } => {
            at_most("upsert limit", points.len() as u64, strict.upsert_max_batchsize)?;
            points.iter().try_for_each(|point| check_vectors(strict, &point.vectors))
        }
        Update::UpdateVectors { points, .. } => {
            at_most("update limit", points.len() as u64, strict.upsert_max_batchsize)?;
            points.iter().try_for_each(|point| check_vectors(strict, &point.vectors))
        }
        Update::Delete(_) | Update::Edit { .. } => Ok(()),
    }
}

/// Refuses multivectors and sparse vectors that are too long.
fn check_vectors(strict: &StrictMode, vectors: &Vectors) -> Result<(), Failure> {
    if strict.multivector_config.is_none() && strict.sparse_config.is_none() {
        return Ok(());
    }
    let check = |(name, vector): (&String, &Vector)| match vector {
        Vector::Dense(_) => Ok(()),
        Vector::Multi(multi) => strict.check_multivector(name, multi.values.len() / multi.dim.max(1)),
        Vector::Sparse(sparse) => strict.check_sparse(name, sparse.indices.len()),
    };
    vectors.iter().try_for_each(check).map_err(refused)
}

/// Refuses a change of points when the collection has reached a limit of its size already.
pub(super) async fn check_room(
    coordinator: &Coordinator,
    collection: &Collection,
    update: &Update,
    deadline: Instant,
) -> Result<(), Failure> {
    coordinator.strict.totals.check(&coordinator.shards, collection, update, deadline).await
}

#[cfg(test)]
mod tests;
