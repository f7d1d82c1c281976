//! What `GET /metrics` shows: the instruments, and values that are looked up when somebody asks, as Prometheus text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::{GaugeVec, IntCounterVec, Opts, TextEncoder};
use tokio::time::timeout;

use super::instruments;
use super::names::{self, Kind, Metric};

/// The path of the page.
pub const METRICS_PATH: &str = "/metrics";
/// Longest wait for one source: a node that hangs must not hide the rest.
const SOURCE_TIME_MAX: Duration = Duration::from_secs(2);
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Something whose values are looked up when somebody asks for them.
#[async_trait]
pub trait Source: Send + Sync {
    /// Adds its values. Dropped in the middle when it takes longer than two seconds.
    async fn collect(&self, page: &mut Page);
}

/// The sources of one process.
pub struct Registry {
    started: SystemTime,
    sources: RwLock<Vec<Arc<dyn Source>>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { started: SystemTime::now(), sources: RwLock::default() }
    }
}

impl Registry {
    /// Adds a source, for the life of the registry.
    pub fn add(&self, source: Arc<dyn Source>) {
        self.sources.write().push(source);
    }

    /// The page as it is now, with the values of `more` beside those of the sources.
    pub async fn render(&self, more: &[&dyn Source]) -> String {
        let sources = self.sources.read().clone();
        let mut page = Page::default();
        page.set(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        page.set(&names::PROCESS_START, &[], started.as_secs_f64());
        if let Some(bytes) = resident_bytes() {
            page.set(&names::PROCESS_RESIDENT, &[], bytes as f64);
        }
        for source in sources.iter().map(Arc::as_ref).chain(more.iter().copied()) {
            // What a source that is too slow has added by then is as good as the rest.
            if timeout(SOURCE_TIME_MAX, source.collect(&mut page)).await.is_err() {
                tracing::warn!(
                    "some values for the metrics were not there within {SOURCE_TIME_MAX:?} and are left out"
                );
            }
        }
        page.render()
    }
}

/// `GET /metrics`, for the router of a process.
pub fn metrics_router(registry: Arc<Registry>) -> Router {
    let show = |State(registry): State<Arc<Registry>>| async move { metrics_answer(registry.render(&[]).await) };
    Router::new().route(METRICS_PATH, get(show)).with_state(registry)
}

/// The page as an HTTP answer.
pub fn metrics_answer(text: String) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// Values on their way to the page.
#[derive(Default)]
pub struct Page {
    gauges: BTreeMap<&'static str, GaugeVec>,
    counters: BTreeMap<&'static str, IntCounterVec>,
}

/// The names are constants that a test has seen.
const VALID: &str = "the names of names.rs are valid";

impl Page {
    /// Sets a gauge. `labels` are the values of [`Metric::labels`], in that order.
    pub fn set(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        debug_assert_eq!((metric.kind, metric.labels.len()), (Kind::Gauge, labels.len()), "{}", metric.name);
        let gauge = self
            .gauges
            .entry(metric.name)
            .or_insert_with(|| GaugeVec::new(Opts::new(metric.name, metric.help), metric.labels).expect(VALID));
        // A wrong number of labels shows in every build with assertions; here it costs one value, not the page.
        if let Ok(gauge) = gauge.get_metric_with_label_values(labels) {
            gauge.set(value);
        }
    }

    /// Adds to a counter that is kept elsewhere. `labels` as above.
    pub fn count(&mut self, metric: &Metric, labels: &[&str], value: u64) {
        debug_assert_eq!((metric.kind, metric.labels.len()), (Kind::Counter, labels.len()), "{}", metric.name);
        let counter = self
            .counters
            .entry(metric.name)
            .or_insert_with(|| IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels).expect(VALID));
        if let Ok(counter) = counter.get_metric_with_label_values(labels) {
            counter.inc_by(value);
        }
    }

    /// The text: the instruments of the process first, then the values looked up.
    fn render(&self) -> String {
        let mut families = instruments().gather();
        families.extend(self.counters.values().flat_map(IntCounterVec::collect));
        families.extend(self.gauges.values().flat_map(GaugeVec::collect));
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "the metrics cannot be shown in full; please report it");
        }
        text
    }
}

/// Memory of this process that is in RAM, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
