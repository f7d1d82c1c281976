//! Sends the spans of requests to a collector (OTLP over HTTP), from a thread of its own: a collector that is slow or gone
//! costs spans, never requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter as Exporter,
};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use vicinal_common::telemetry::{instruments, names};

/// Spans that wait to be sent; more are dropped.
const QUEUE_SPANS_MAX: usize = 8_192;
/// Spans in one request to the collector.
const BATCH_SPANS_MAX: usize = 512;
/// Longest time a span waits for others to be sent with.
const BATCH_PAUSE: Duration = Duration::from_secs(1);
/// Longest time the collector may take, repeats included.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest time the end of the process waits for the last spans to be sent.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);
/// Seconds between two complaints about the collector.
const COMPLAINT_PAUSE_SECONDS: u64 = 60;

/// Where traces go, and from whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Export<'a> {
    /// The collector, for example `http://127.0.0.1:4318`.
    pub(crate) endpoint: &'a str,
    /// `service.name`.
    pub(crate) service: &'static str,
    /// `service.instance.id`: the operator's name for the process.
    pub(crate) instance: &'a str,
}

impl<'a> Export<'a> {
    /// An export, if the operator names a collector.
    pub(crate) fn to(endpoint: Option<&'a str>, service: &'static str, instance: &'a str) -> Option<Export<'a>> {
        endpoint.map(|endpoint| Export { endpoint, service, instance })
    }
}

/// The export of traces, if there is one. Dropping it sends what is left, for two seconds at most.
#[derive(Default)]
pub(crate) struct Traces(Option<SdkTracerProvider>);

/// Starts the export.
pub(crate) fn start(export: &Export<'_>) -> anyhow::Result<Traces> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url(export.endpoint)?)
        .with_timeout(EXPORT_TIME_MAX)
        .build()
        .with_context(|| format!("wrong setting: otlp_endpoint is {:?}", export.endpoint))?;
    let exporter =
        Watched { exporter, endpoint: export.endpoint.to_owned(), began: Instant::now(), complained: 0.into() };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(BATCH_PAUSE);
    let resource = Resource::builder_empty()
        .with_service_name(export.service)
        .with_attribute(KeyValue::new("service.instance.id", export.instance.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build())
        .with_resource(resource.build());
    Ok(Traces(Some(provider.build())))
}

/// Where spans are posted. Only plain HTTP: the program has no TLS client yet.
fn url(endpoint: &str) -> anyhow::Result<String> {
    if endpoint.starts_with("https://") {
        bail!(
            "wrong setting: otlp_endpoint is {endpoint:?}, but traces can only be sent over plain http:// so far; name a \
             collector on this machine or in this network, which can pass them on over TLS"
        );
    }
    let host = endpoint.strip_prefix("http://").unwrap_or_default();
    if host.is_empty() || host.starts_with('/') {
        bail!("wrong setting: otlp_endpoint is {endpoint:?}, expected something like http://127.0.0.1:4318");
    }
    // The path is the standard's, unless the operator names the whole of it.
    let base = endpoint.trim_end_matches('/');
    Ok(if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") })
}

impl Traces {
    /// The part of the subscriber that takes the spans. Without an export it takes none, and spans are not even made.
    pub(crate) fn layer<S>(&self) -> Option<Box<dyn Layer<S> + Send + Sync>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.0.as_ref()?.tracer("vicinal");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            // Spans follow tracing's own; source places and threads say nothing to an operator.
            .with_context_activation(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false);
        let filter = Targets::new().with_target(names::TARGET, tracing::Level::INFO);
        Some(layer.with_filter(filter).boxed())
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        let Some(provider) = self.0.take() else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIME_MAX) {
            tracing::warn!("the last traces could not be sent: {error}");
        }
    }
}

/// The exporter, with an eye on whether the collector takes anything.
#[derive(Debug)]
struct Watched {
    exporter: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    began: Instant,
    /// Seconds from `began` to the last complaint, plus one; 0: the last export went well.
    complained: AtomicU64,
}

impl Watched {
    fn note(&self, spans: u64, result: &OTelSdkResult) {
        let traces = &instruments().traces;
        let Err(error) = result else {
            traces.exported.inc_by(spans);
            if self.complained.swap(0, Ordering::Relaxed) > 0 {
                tracing::info!("the collector at {} takes traces again", self.endpoint);
            }
            return;
        };
        traces.lost.inc_by(spans);
        let now = self.began.elapsed().as_secs() + 1;
        let last = self.complained.load(Ordering::Relaxed);
        if last == 0 || now >= last + COMPLAINT_PAUSE_SECONDS {
            self.complained.store(now, Ordering::Relaxed);
            let endpoint = &self.endpoint;
            tracing::warn!("{spans} spans could not be sent to the collector at {endpoint} and are lost: {error}");
        }
    }
}

impl Exporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        self.note(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_checked_at_the_start() {
        assert_eq!(url("http://127.0.0.1:4318").unwrap(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(url("http://collector:4318/").unwrap(), "http://collector:4318/v1/traces");
        assert_eq!(url("http://collector/x/v1/traces").unwrap(), "http://collector/x/v1/traces");
        for (wrong, says) in
            [("https://collector:4318", "plain http://"), ("collector:4318", "expected"), ("http://", "")]
        {
            let text = url(wrong).unwrap_err().to_string();
            assert!(text.contains("otlp_endpoint") && text.contains(says), "{text}");
        }
    }
}
