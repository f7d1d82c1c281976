//! Handlers that read points without a query.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use vicinal_common::api::{FacetCount, PointParts, ScrollOrder, VectorSelector};
use vicinal_common::error::Error;
use vicinal_common::payload_index::FieldType;
use vicinal_common::point::PointId;

use super::answer::{Answer, Failure};
use super::body::{JsonBody, off_thread};
use super::clusters;
use super::decode::{CountBody, FacetBody, RetrieveBody, ScrollBody, Wanted};
use super::encode::{self, Shown};
use super::indexes::{Purpose, prepare_filter};
use super::params::Params;
use super::search::ORDERED;
use super::selector::WithPayload;
use super::strict;
use crate::meta::Collection;
use crate::{Coordinator, query};

type Shared = State<Arc<Coordinator>>;

/// `GET /collections/{collection}/points/{id}`
pub(super) async fn get(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let bad = |text| Failure::new(StatusCode::BAD_REQUEST, format!("Wrong input: {text}"));
    let id = PointId::parse(params.segment("id")).map_err(bad)?;
    let shown = Shown { payload: WithPayload::All, vectors: VectorSelector::All };
    let parts = PointParts { payload: true, vectors: VectorSelector::All };
    let lookup = || coordinator.same_collection(params.collection(), collection.id);
    let spec = params.read_spec();
    let (points, coverage) = query::retrieve(&coordinator.shards, &lookup, spec, &[id], &parts).await?;
    coverage.check(false)?;
    let missing = || Error::NotFound(format!("Point with id {id} does not exists!"));
    let point = points.first().ok_or_else(missing)?;
    let mut out = Vec::new();
    encode::point(&mut out, point, &shown)?;
    Ok(Answer::encoded(out).with_coverage(coverage).with_session(&params))
}

/// `POST /collections/{collection}/points`
pub(super) async fn retrieve(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let wanted = body.decode(RetrieveBody::into_ids).await?;
    let Wanted { request: (ids, parts), with_payload, allow_partial } = wanted;
    check_parts(&collection, &parts)?;
    let lookup = params.lookup(&coordinator);
    let spec = params.read_spec();
    let (points, coverage) = query::retrieve(&coordinator.shards, &lookup, spec, &ids, &parts).await?;
    coverage.check(allow_partial)?;
    let shown = Shown { payload: with_payload, vectors: parts.vectors };
    let encoded = off_thread(encode::size_of_points(points.iter()), move || {
        let mut out = Vec::new();
        encode::points(&mut out, &points, &shown)?;
        Ok(out)
    });
    Ok(Answer::encoded(encoded.await?).with_coverage(coverage).with_session(&params))
}

/// `POST /collections/{collection}/points/scroll`
pub(super) async fn scroll(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let Wanted { mut request, with_payload, allow_partial } = body.decode(ScrollBody::into_page).await?;
    check_parts(&collection, &request.parts)?;
    prepare_filter(&collection, request.filter.as_mut().map(Arc::make_mut), Purpose::Read)?;
    clusters::fix(&coordinator, &params, request.filter.as_mut()).await?;
    strict::check_limit(&collection, request.limit)?;
    if let ScrollOrder::Key(order) = &request.order {
        strict::check_read_key(&collection, &order.key, &ORDERED)?;
    }
    let lookup = params.lookup(&coordinator);
    let page = query::scroll(&coordinator.shards, &lookup, params.read_spec(), &request).await?;
    page.coverage.check(allow_partial)?;
    let shown = Shown { payload: with_payload, vectors: request.parts.vectors };
    let (points, next) = (page.points, page.next);
    let encoded = off_thread(encode::size_of_points(points.iter()), move || {
        let mut out = b"{\"points\":".to_vec();
        encode::points(&mut out, &points, &shown)?;
        out.extend_from_slice(b",\"next_page_offset\":");
        match next {
            Some(next) => encode::id(&mut out, next)?,
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        Ok(out)
    });
    Ok(Answer::encoded(encoded.await?).with_coverage(page.coverage).with_session(&params))
}

/// `POST /collections/{collection}/points/count`
pub(super) async fn count(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (mut filter, is_exact, allow_partial) = body.decode(CountBody::into_filter).await?;
    if is_exact {
        strict::check_exact_count(&collection)?;
    }
    prepare_filter(&collection, filter.as_mut().map(Arc::make_mut), Purpose::Read)?;
    clusters::fix(&coordinator, &params, filter.as_mut()).await?;
    let lookup = params.lookup(&coordinator);
    let (count, coverage) = query::count(&coordinator.shards, &lookup, params.read_spec(), filter).await?;
    coverage.check(allow_partial)?;
    Ok(Answer::json(&json!({"count": count}))?.with_coverage(coverage).with_session(&params))
}

/// Types of indexes of keys whose values are counted.
const COUNTED: [FieldType; 4] = [FieldType::Keyword, FieldType::Integer, FieldType::Uuid, FieldType::Bool];

/// `POST /collections/{collection}/facet`
pub(super) async fn facet(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (mut request, allow_partial) = body.decode(FacetBody::into_facet).await?;
    prepare_filter(&collection, request.filter.as_mut().map(Arc::make_mut), Purpose::Read)?;
    clusters::fix(&coordinator, &params, request.filter.as_mut()).await?;
    strict::check_limit(&collection, request.limit)?;
    strict::check_read_key(&collection, &request.key, &COUNTED)?;
    let lookup = params.lookup(&coordinator);
    let (counts, coverage) = query::facet(&coordinator.shards, &lookup, params.read_spec(), &request).await?;
    coverage.check(allow_partial)?;
    let hits = counts.into_iter().map(|FacetCount { value, count }| json!({"value": value, "count": count}));
    let hits: Vec<Value> = hits.collect();
    Ok(Answer::json(&json!({"hits": hits}))?.with_coverage(coverage).with_session(&params))
}

/// Refuses names of vectors that the collection does not have.
pub(super) fn check_parts(collection: &Collection, parts: &PointParts) -> Result<(), Error> {
    let VectorSelector::Named(names) = &parts.vectors else { return Ok(()) };
    match names.iter().find(|name| !collection.schema.vectors.contains_key(*name)) {
        Some(name) => Err(Error::BadInput(format!("Not existing vector name error: {name}"))),
        None => Ok(()),
    }
}
