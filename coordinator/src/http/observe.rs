//! Every request is counted and, when traces are exported, a span; `GET /metrics` shows the counts.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::response::Response;
use tokio::time::Instant;
use tracing::Instrument;
use vicinal_common::telemetry::{self, Page, Source, instruments, names};

use crate::Coordinator;

/// Route of requests that match none. Their paths are the client's own words, which no label may hold.
const NO_ROUTE: &str = "none";

/// Counts the request and runs it in its span.
pub(super) async fn observe<F: Future<Output = Response>>(
    coordinator: &Coordinator,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let started = Instant::now();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let method = known(request.method());
    let span = telemetry::rest_span(method, route, request.headers());
    let response = next(request).instrument(span.clone()).await;
    let status = response.status();
    telemetry::rest_answered(&span, status.as_u16());
    let took = started.elapsed();
    instruments().rest.answered(method, route, status.as_str(), took);
    if matched.is_some() {
        coordinator.requests.note(method, route, status.as_u16(), took);
    }
    response
}

/// The method as a label. A client may make up its own.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(coordinator): State<Arc<Coordinator>>) -> Response {
    let text = coordinator.registry.render(&[coordinator.as_ref()]).await;
    telemetry::metrics_answer(text)
}

#[async_trait]
impl Source for Coordinator {
    async fn collect(&self, page: &mut Page) {
        let group = self.catalog.group();
        let role = match group.leader {
            Some(leader) if leader == group.node => "leader",
            _ if group.voters.contains(&group.node) => "follower",
            _ => "learner",
        };
        page.set(&names::META_ROLE, &[role], 1.0);
        page.set(&names::META_HAS_LEADER, &[], f64::from(u8::from(group.leader.is_some())));
        page.set(&names::META_TERM, &[], group.term as f64);
        page.set(&names::META_APPLIED, &[], group.applied.unwrap_or(0) as f64);
        page.set(&names::META_VOTERS, &[], group.voters.len() as f64);
        let counters = self.shards.health.counters();
        for (metric, value) in [
            (&names::NODE_CALLS, counters.attempts()),
            (&names::HEDGES_SENT, counters.hedges_sent()),
            (&names::HEDGES_WON, counters.hedges_won()),
            (&names::HEDGES_REFUSED, counters.hedges_refused()),
            (&names::ATTEMPTS_TIMED_OUT, counters.attempts_timed_out()),
            (&names::BREAKER_OPENINGS, counters.breaker_openings()),
            (&names::PROBES, counters.probes()),
            (&names::RETRIES, counters.retries()),
            (&names::PARTIAL_ANSWERS, counters.partial_answers()),
            (&names::REST_REFUSED, counters.refused()),
        ] {
            page.count(metric, &[], value);
        }
        let state = self.catalog.state();
        page.set(&names::COLLECTIONS, &[], state.collections.len() as f64);
        page.set(&names::NODES_KNOWN, &[], state.nodes.len() as f64);
        for collection in state.collections.values() {
            let Some(cluster) = collection.routing.cluster() else { continue };
            let id = collection.id.to_string();
            if let Some(measured) = &cluster.measured {
                page.set(&names::BALANCE_POINTS, &[&id], measured.imbalance.into());
                page.set(&names::BALANCE_FAN_OUT, &[&id], measured.fan_out.into());
                if let Some(load) = measured.load_imbalance {
                    page.set(&names::BALANCE_LOAD, &[&id], load.into());
                }
            }
            if let Some(trained) = &cluster.trained {
                page.set(&names::BALANCE_FAN_OUT_TRAINED, &[&id], trained.fan_out.into());
            }
        }
    }
}
