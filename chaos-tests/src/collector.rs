//! A collector of traces: takes OTLP over HTTP as a real one does and keeps the spans.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message;

/// Most spans kept.
const SPANS_MAX: usize = 100_000;
const POLL: Duration = Duration::from_millis(50);

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedSpan {
    /// `service.name` of the process.
    pub service: String,
    /// `service.instance.id` of the process.
    pub instance: String,
    /// Trace id in hexadecimal digits.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// Id of its parent; empty at the root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its kind by the numbers of the standard: 1 internal, 2 server, 3 client.
    pub kind: i32,
    /// Its attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Begin and end in nanoseconds since 1970.
    pub time: (u64, u64),
}

impl ReceivedSpan {
    /// An attribute; empty when there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A running collector; it ends with the runtime.
#[derive(Clone)]
pub struct Collector {
    spans: Arc<Mutex<Vec<ReceivedSpan>>>,
    url: String,
}

impl Collector {
    /// Starts one on a free port.
    pub async fn start() -> anyhow::Result<Collector> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let collector = Collector { spans: Arc::default(), url };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(collector)
    }

    /// What processes are told.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans of one trace so far.
    pub fn trace(&self, id: &str) -> Vec<ReceivedSpan> {
        let spans = self.spans.lock().expect("nobody panics while holding the spans");
        spans.iter().filter(|span| span.trace == id).cloned().collect()
    }

    /// Waits until the spans of a trace are as wanted.
    pub async fn wait(
        &self,
        id: &str,
        within: Duration,
        is_whole: impl Fn(&[ReceivedSpan]) -> bool,
    ) -> anyhow::Result<Vec<ReceivedSpan>> {
        let begun = Instant::now();
        loop {
            let spans = self.trace(id);
            if is_whole(&spans) {
                return Ok(spans);
            }
            anyhow::ensure!(begun.elapsed() < within, "the trace is not whole after {within:?}: {spans:#?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) -> Result<Bytes, (StatusCode, String)> {
    let received = decode(&body).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:#}")))?;
    let mut spans = collector.spans.lock().expect("nobody panics while holding the spans");
    if spans.len() + received.len() <= SPANS_MAX {
        spans.extend(received);
    }
    // An empty message of the answer's type.
    Ok(Bytes::new())
}

fn decode(body: &[u8]) -> anyhow::Result<Vec<ReceivedSpan>> {
    let request = ExportTraceServiceRequest::decode(body).context("no OTLP message")?;
    let mut received = Vec::new();
    for process in request.resource_spans {
        let about = attributes(&process.resource.map(|resource| resource.attributes).unwrap_or_default());
        let about = |name: &str| about.get(name).cloned().unwrap_or_default();
        for span in process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            received.push(ReceivedSpan {
                service: about("service.name"),
                instance: about("service.instance.id"),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                kind: span.kind,
                attributes: attributes(&span.attributes),
                time: (span.start_time_unix_nano, span.end_time_unix_nano),
            });
        }
    }
    Ok(received)
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is_true)) => is_true.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
