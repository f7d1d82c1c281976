//! W3C trace context over HTTP headers: what makes the spans of many processes one trace.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::names;

/// Header that names the trace and the parent span.
const TRACEPARENT: &str = "traceparent";

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

/// Whether what runs now is part of a trace. Work that nobody asked for (heartbeats, replication) is not: a trace of its
/// own for each of these would bury the others.
pub fn is_traced() -> bool {
    Span::current().metadata().is_some_and(|metadata| metadata.target() == names::TARGET)
}

/// Writes the trace and `span` as the parent of what follows into a request's headers. Nothing when the span is not
/// recorded.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    if !span.is_disabled() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut HeadersMut(headers));
    }
}

/// Makes the span that a request's headers name, if they name one, the parent of `span`. Before `span` is entered or has
/// children.
pub fn extract(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() || !headers.contains_key(TRACEPARENT) {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    // Headers that name no valid span leave the span at the root of its own trace. An error says that nobody exports.
    if parent.span().span_context().is_valid() {
        let _ = span.set_parent(parent);
    }
}

/// Whether headers name a parent span.
pub(crate) fn has_parent(headers: &HeaderMap) -> bool {
    headers.contains_key(TRACEPARENT)
}
