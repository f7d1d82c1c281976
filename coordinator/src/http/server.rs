//! The routes, and serving them until told to stop.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tokio::net::TcpListener;
use vicinal_common::telemetry::METRICS_PATH;
use vicinal_common::transport::http::serve_router;

use super::admission::{admit, catch_up};
use super::answer::{Failure, envelope};
use super::decode::{
    ClearPayloadBody, DeleteBody, DeletePayloadBody, DeleteVectorsBody, DiscoverBody, OverwritePayloadBody,
    QueryGroupsBody, RecommendBody, RecommendGroupsBody, SearchBody, SearchGroupsBody, SetPayloadBody,
    UpdateVectorsBody, UpsertBody,
};
use super::failure_log::FailureLog;
use super::updates::{self, update};
use super::{
    cluster, clusters, collections, groups, indexes, matrix, observe, points, routing, search, service, strict,
    telemetry,
};
use crate::Coordinator;

/// All routes.
pub fn router(coordinator: Arc<Coordinator>) -> Router {
    Router::new()
        .route("/", get(service::version))
        .route("/healthz", get(service::healthz))
        .route("/livez", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/cluster", get(cluster::cluster))
        .route("/telemetry", get(telemetry::telemetry))
        .route(METRICS_PATH, get(observe::metrics))
        .route("/aliases", get(collections::all_aliases))
        .route("/collections", get(collections::list))
        .route("/collections/aliases", post(collections::update_aliases))
        .route(
            "/collections/{collection}",
            get(collections::describe).put(collections::create).patch(collections::change).delete(collections::delete),
        )
        .route("/collections/{collection}/exists", get(collections::exists))
        .route("/collections/{collection}/aliases", get(collections::aliases))
        .route("/collections/{collection}/cluster", get(cluster::collection))
        .route("/collections/{collection}/replicas/digest", get(cluster::digest))
        .route("/collections/{collection}/routing/train", post(routing::train))
        .route("/collections/{collection}/routing/abort", post(routing::abort))
        .route("/collections/{collection}/routing/balance", post(routing::balance))
        .route("/collections/{collection}/clusters", get(clusters::list).put(clusters::train).delete(clusters::delete))
        .route("/collections/{collection}/clusters/{id}", get(clusters::get))
        .route("/collections/{collection}/clusters/nearest", post(clusters::nearest))
        .route("/collections/{collection}/clusters/sample", post(clusters::sample))
        .route("/collections/{collection}/index", put(indexes::create))
        .route("/collections/{collection}/index/{field}", delete(indexes::delete))
        .route("/collections/{collection}/points", put(update::<UpsertBody>).post(points::retrieve))
        .route("/collections/{collection}/points/{id}", get(points::get))
        .route("/collections/{collection}/points/delete", post(update::<DeleteBody>))
        .route("/collections/{collection}/points/vectors", put(update::<UpdateVectorsBody>))
        .route("/collections/{collection}/points/vectors/delete", post(update::<DeleteVectorsBody>))
        .route(
            "/collections/{collection}/points/payload",
            post(update::<SetPayloadBody>).put(update::<OverwritePayloadBody>),
        )
        .route("/collections/{collection}/points/payload/delete", post(update::<DeletePayloadBody>))
        .route("/collections/{collection}/points/payload/clear", post(update::<ClearPayloadBody>))
        .route("/collections/{collection}/points/batch", post(updates::batch))
        .route("/collections/{collection}/points/scroll", post(points::scroll))
        .route("/collections/{collection}/points/count", post(points::count))
        .route("/collections/{collection}/facet", post(points::facet))
        .route("/collections/{collection}/points/query", post(search::query))
        .route("/collections/{collection}/points/query/batch", post(search::query_batch))
        .route("/collections/{collection}/points/search", post(search::older::<SearchBody>))
        .route("/collections/{collection}/points/search/batch", post(search::older_batch::<SearchBody>))
        .route("/collections/{collection}/points/recommend", post(search::older::<RecommendBody>))
        .route("/collections/{collection}/points/recommend/batch", post(search::older_batch::<RecommendBody>))
        .route("/collections/{collection}/points/discover", post(search::older::<DiscoverBody>))
        .route("/collections/{collection}/points/discover/batch", post(search::older_batch::<DiscoverBody>))
        .route("/collections/{collection}/points/query/groups", post(groups::groups::<QueryGroupsBody>))
        .route("/collections/{collection}/points/search/groups", post(groups::groups::<SearchGroupsBody>))
        .route("/collections/{collection}/points/recommend/groups", post(groups::groups::<RecommendGroupsBody>))
        .route("/collections/{collection}/points/search/matrix/pairs", post(matrix::pairs))
        .route("/collections/{collection}/points/search/matrix/offsets", post(matrix::offsets))
        .route_layer(from_fn_with_state(coordinator.clone(), check_collection))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(
            Surroundings { coordinator: coordinator.clone(), failures: Arc::default() },
            surround,
        ))
        .with_state(coordinator)
}

/// What the outermost layer needs.
#[derive(Clone)]
struct Surroundings {
    coordinator: Arc<Coordinator>,
    failures: Arc<FailureLog>,
}

/// Counts a request, wraps its answer, and lets it through while there is room. One layer for all of it: each more is
/// cloned, with all that is below it, several times a request.
async fn surround(State(around): State<Surroundings>, request: Request, next: Next) -> Response {
    let Surroundings { coordinator, failures } = &around;
    let admitted = |request| admit(coordinator, request, next);
    observe::observe(coordinator, request, |request| envelope(failures, request, admitted)).await
}

/// What is to be known of a collection, and what it allows, before a request about it is read.
async fn check_collection(
    State(coordinator): State<Arc<Coordinator>>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    if let Some((_, collection)) = params.iter().find(|(name, _)| *name == "collection") {
        catch_up(&coordinator, collection).await;
        if let Err(failure) = strict::admit(&coordinator, collection, &request) {
            return failure.into_response();
        }
    }
    next.run(request).await
}

/// What the Qdrant API has below a collection and we do not, each with all that stands below it. Of `cluster` we have
/// the reading part.
const NOT_OFFERED_IN_COLLECTION: [&str; 6] =
    ["cluster", "points/facet", "shards", "snapshots", "optimizations", "vectors"];
/// The same beside the collections.
const NOT_OFFERED: [&str; 5] = ["cluster", "issues", "locks", "shards", "snapshots"];

/// Whether a path is an operation that the Qdrant API has and we do not: then the answer says so.
fn is_not_offered(path: &str) -> bool {
    let is_below =
        |path: &str, known: &str| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(path) = path.strip_prefix('/') else { return false };
    match path.strip_prefix("collections/").and_then(|rest| rest.split_once('/')) {
        Some((_, rest)) => NOT_OFFERED_IN_COLLECTION.iter().any(|known| is_below(rest, known)),
        None => NOT_OFFERED.iter().any(|known| is_below(path, known)),
    }
}

fn not_offered(method: &Method, uri: &Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("Not found: {method} {} is not supported yet", uri.path()))
}

async fn unknown_path(method: Method, uri: Uri) -> Failure {
    if is_not_offered(uri.path()) {
        return not_offered(&method, &uri);
    }
    Failure::new(StatusCode::NOT_FOUND, format!("Not found: there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    // Some of them look like the id of a point.
    if is_not_offered(uri.path()) {
        return not_offered(&method, &uri);
    }
    let text = format!("Method not allowed: {method} is not offered at {}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// Serves REST on `listener` until `shutdown` completes, then lets requests in flight finish, for ten seconds at most.
pub async fn serve(
    coordinator: Arc<Coordinator>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_router(router(coordinator), listener, shutdown).await
}
