//! The spans, one function each, so that names and attributes stand in one place. All are of [`names::TARGET`]: when
//! nobody exports them, making one costs a comparison, and its attributes are not even computed.

use axum::http::HeaderMap;
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::metrics::operation;
use super::names;
use super::trace::{extract, has_parent, is_traced};

/// A REST request, child of the span its headers name. `route` is the pattern of the path.
pub fn rest_span(method: &str, route: &str, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: names::TARGET,
        names::REST.name,
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    );
    extract(&span, headers);
    span
}

/// Notes how a REST request was answered.
pub fn rest_answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        failed(span);
    }
}

/// Marks the span as failed.
pub fn failed(span: &Span) {
    span.record("otel.status_code", "ERROR");
}

/// A batch of queries.
pub fn query_span(collection: &str, queries: usize) -> Span {
    info_span!(target: names::TARGET, names::QUERY.name, collection, queries)
}

/// The fetch of points by id.
pub fn fetch_span(points: usize) -> Span {
    info_span!(target: names::TARGET, names::FETCH.name, points)
}

/// A question to many shards; `answered` is recorded at the end.
pub fn scatter_span(shards: usize) -> Span {
    info_span!(target: names::TARGET, names::SCATTER.name, shards, answered = Empty)
}

/// Choosing nodes for shards; `nodes` is recorded at the end.
pub fn plan_span(shards: usize) -> Span {
    info_span!(target: names::TARGET, names::PLAN.name, shards, nodes = Empty)
}

/// A call to a node for some shards. Attempts count from 1.
pub fn node_call_span(node: u64, shards: usize, attempt: u64, hedge: bool) -> Span {
    info_span!(target: names::TARGET, names::NODE_CALL.name, node, shards, attempt, hedge, otel.status_code = Empty)
}

/// A write of a client.
pub fn write_span(collection: &str, shards: usize) -> Span {
    info_span!(target: names::TARGET, names::WRITE.name, collection, shards)
}

/// An attempt to write one part. Attempts count from 1.
pub fn write_call_span(node: u64, shard: u64, part: u32, attempt: u64) -> Span {
    let status = Empty;
    info_span!(target: names::TARGET, names::WRITE_CALL.name, node, shard, part, attempt, otel.status_code = status)
}

/// A request to another process, sent now: a span only as part of a trace.
pub fn hop_client_span(route: &str, address: &str, bytes: usize) -> Span {
    if !is_traced() {
        return Span::none();
    }
    info_span!(
        target: names::TARGET,
        names::HOP_CLIENT.name,
        otel.name = format_args!("hop {}", operation(route)),
        otel.kind = "client",
        otel.status_code = Empty,
        operation = &*operation(route),
        server.address = address,
        bytes_sent = bytes,
    )
}

/// A request of another process: a span only if its headers name a parent.
pub fn hop_server_span(route: &str, headers: &HeaderMap, bytes: usize) -> Span {
    if !has_parent(headers) {
        return Span::none();
    }
    let span = info_span!(
        target: names::TARGET,
        names::HOP_SERVER.name,
        otel.name = format_args!("serve {}", operation(route)),
        otel.kind = "server",
        operation = &*operation(route),
        bytes_received = bytes,
    );
    extract(&span, headers);
    span
}

/// The search of one shard, for a number of queries; `k`, `ef` and `exact` are those of the first.
pub fn shard_search_span(shard: u64, queries: usize, k: usize, ef: Option<usize>, exact: bool) -> Span {
    let ef = ef.map(|ef| ef as u64);
    info_span!(
        target: names::TARGET,
        names::SHARD_SEARCH.name,
        shard,
        queries,
        k,
        ef,
        exact,
        jobs = Empty,
        queue_us = Empty,
        search_us = Empty,
        hits = Empty,
        otel.status_code = Empty,
    )
}

/// A write at its shard's leader.
pub fn shard_write_span(shard: u64, part: u32) -> Span {
    let status = Empty;
    info_span!(target: names::TARGET, names::SHARD_WRITE.name, shard, part, log_index = Empty, otel.status_code = status)
}
