//! The server about itself: version and probes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer;
use crate::Coordinator;

/// Version of the REST API we are compatible with; clients compare it with their own.
const API_VERSION: &str = "1.19.0";

/// `GET /`
pub(super) async fn version() -> Response {
    let about = json!({
        "title": "vicinal - distributed vector retrieval, compatible with the Qdrant REST API",
        "version": API_VERSION,
        "vicinal_version": env!("CARGO_PKG_VERSION"),
    });
    answer::json(StatusCode::OK, about.to_string().into_bytes())
}

/// `GET /healthz`, `GET /livez`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "healthz check passed"
}

/// `GET /readyz`: requests can be served.
pub(super) async fn readyz(State(coordinator): State<Arc<Coordinator>>) -> Response {
    match coordinator.not_ready() {
        None => "all shards are ready".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}
