//! The routes, and serving them until told to stop.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn;
use axum::routing::{get, post, put};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::answer::{Failure, envelope};
use super::{collections, points, search, service};
use crate::Coordinator;

/// How long requests in flight may take once the server has been told to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// All routes.
pub fn router(coordinator: Arc<Coordinator>) -> Router {
    Router::new()
        .route("/", get(service::version))
        .route("/healthz", get(service::healthz))
        .route("/livez", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/aliases", get(collections::all_aliases))
        .route("/collections", get(collections::list))
        .route("/collections/aliases", post(collections::update_aliases))
        .route(
            "/collections/{collection}",
            get(collections::describe).put(collections::create).delete(collections::delete),
        )
        .route("/collections/{collection}/exists", get(collections::exists))
        .route("/collections/{collection}/aliases", get(collections::aliases))
        .route("/collections/{collection}/points", put(points::upsert).post(points::retrieve))
        .route("/collections/{collection}/points/{id}", get(points::get))
        .route("/collections/{collection}/points/delete", post(points::delete))
        .route("/collections/{collection}/points/scroll", post(points::scroll))
        .route("/collections/{collection}/points/count", post(points::count))
        .route("/collections/{collection}/points/query", post(search::query))
        .route("/collections/{collection}/points/query/batch", post(search::query_batch))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(envelope))
        .with_state(coordinator)
}

async fn unknown_path(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("Not found: there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let text = format!("Method not allowed: {method} is not offered at {}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// Serves REST on `listener` until `shutdown` completes, then lets requests in flight finish, for ten seconds at most.
pub async fn serve(
    coordinator: Arc<Coordinator>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        // Without it small answers wait for the acknowledgement of the one before.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection cannot be set to send at once");
        }
    });
    let stopping = Arc::new(Notify::new());
    let told = stopping.clone();
    let shutdown = async move {
        shutdown.await;
        told.notify_one();
    };
    let serving = axum::serve(listener, router(coordinator)).with_graceful_shutdown(shutdown).into_future();
    let drained = async {
        stopping.notified().await;
        tokio::time::sleep(DRAIN_TIME_MAX).await;
    };
    tokio::select! {
        result = serving => result,
        () = drained => {
            tracing::warn!("requests that did not finish within {} seconds were dropped", DRAIN_TIME_MAX.as_secs());
            Ok(())
        }
    }
}
