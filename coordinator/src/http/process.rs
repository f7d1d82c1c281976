//! The routes of a coordinator process: the calls of other processes from the start, REST once it is part of a cluster.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tower::ServiceExt;
use vicinal_common::transport::Handler;
use vicinal_common::transport::http::internal_router;

use super::server::router;
use super::service::healthz;
use crate::Coordinator;

/// Where REST appears when the coordinator is ready. Clones share it.
#[derive(Clone, Default)]
pub struct RestPlace(Arc<OnceLock<Router>>);

impl RestPlace {
    /// Serves REST from now on.
    pub fn open(&self, coordinator: Arc<Coordinator>) {
        // Set once: a process has one coordinator.
        let _ = self.0.set(router(coordinator));
    }
}

/// All routes of a coordinator process.
pub fn process_router(edge: Arc<dyn Handler>, rest: RestPlace) -> Router {
    let own = Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(healthz))
        .fallback(rest_or_starting)
        .with_state(rest);
    internal_router(edge).merge(own)
}

async fn rest_or_starting(State(rest): State<RestPlace>, request: Request) -> Response {
    match rest.0.get() {
        // Routers clone cheaply, and answer everything.
        Some(router) => match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        None => {
            let text = "Service unavailable: this coordinator is starting, it is not part of a cluster yet";
            let body = json!({"status": {"error": text}, "time": 0.0}).to_string();
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::RETRY_AFTER, "1")];
            (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
        }
    }
}
