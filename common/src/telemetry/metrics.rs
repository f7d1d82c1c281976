//! The instruments that code on the way of a request touches: plain atomics, bound before the request where their labels
//! allow it. They belong to the process, as its memory does: `vicinal dev` counts all its nodes together.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts};

use super::names::{self, Kind, Metric};

/// The instruments of this process.
pub fn instruments() -> &'static Instruments {
    static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(Instruments::new);
    &INSTRUMENTS
}

/// All instruments.
pub struct Instruments {
    /// Requests of clients.
    pub rest: Rest,
    /// Requests between processes.
    pub hop: Hop,
    /// Reads on a node.
    pub search: Search,
    /// Writes on a node.
    pub write: Write,
    /// Publishing on a node.
    pub publish: Publish,
    /// Read repair on a coordinator.
    pub repair: Repair,
    /// The export of spans.
    pub traces: Traces,
    registry: prometheus::Registry,
}

/// Requests of clients.
pub struct Rest {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl Rest {
    /// Counts an answered request. `route` is the pattern of the path, never the path.
    pub fn answered(&self, method: &str, route: &str, status: &str, took: Duration) {
        self.requests.with_label_values(&[method, route, status]).inc();
        self.duration.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }
}

/// The two ends of a request between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender.
    Client,
    /// The receiver.
    Server,
}

/// How a request between processes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopOutcome {
    /// With an answer, whatever it says.
    Ok,
    /// It was certainly not carried out.
    Unreachable,
    /// It is not known whether it was carried out.
    Unknown,
    /// The receiver has no such route, or met a defect.
    Failed,
}

/// Requests between processes.
pub struct Hop {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl Hop {
    /// Counts a request. `route` is that of the transport.
    pub fn ended(&self, side: Side, route: &str, outcome: HopOutcome, took: Duration) {
        let side = match side {
            Side::Client => "client",
            Side::Server => "server",
        };
        let outcome = match outcome {
            HopOutcome::Ok => "ok",
            HopOutcome::Unreachable => "unreachable",
            HopOutcome::Unknown => "unknown",
            HopOutcome::Failed => "failed",
        };
        let operation = operation(route);
        self.requests.with_label_values(&[side, operation.as_ref(), outcome]).inc();
        self.duration.with_label_values(&[side, operation.as_ref()]).observe(took.as_secs_f64());
    }
}

/// The operation that a route of the transport stands for: the route without what tells shards and transfers apart, of
/// which there is no end.
pub fn operation(route: &str) -> Cow<'_, str> {
    let is_id = |part: &str| part.bytes().any(|byte| byte.is_ascii_digit());
    if !is_id(route) {
        return Cow::Borrowed(route);
    }
    Cow::Owned(route.split('/').filter(|part| !is_id(part)).collect::<Vec<_>>().join("/"))
}

/// Reads on a node.
pub struct Search {
    /// See [`names::SEARCH_THREADS`].
    pub threads: IntGauge,
    /// See [`names::SEARCH_QUEUED`].
    pub queued: IntGauge,
    /// See [`names::SEARCH_BUSY`].
    pub busy: IntGauge,
    /// See [`names::SEARCH_REFUSED`].
    pub refused: IntCounter,
    /// See [`names::SEARCH_EXPIRED`].
    pub expired: IntCounter,
    wait: Histogram,
    run: Histogram,
}

impl Search {
    /// Counts a job that was run.
    pub fn ran(&self, waited: Duration, ran: Duration) {
        self.wait.observe(waited.as_secs_f64());
        self.run.observe(ran.as_secs_f64());
    }
}

/// Writes on a node.
pub struct Write {
    duration: Histogram,
    sync: Histogram,
    batch_bytes: Histogram,
    batch_changes: Histogram,
}

impl Write {
    /// Counts an acknowledged write.
    pub fn acknowledged(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a batch of the shard log that is durable.
    pub fn synced(&self, took: Duration, bytes: u64, changes: usize) {
        self.sync.observe(took.as_secs_f64());
        self.batch_bytes.observe(bytes as f64);
        self.batch_changes.observe(changes as f64);
    }
}

/// Publishing on a node: copies on their way from home shards to search shards.
pub struct Publish {
    wait: Histogram,
    send: Histogram,
    copies: IntCounter,
    gone: IntCounter,
    refused: IntCounter,
}

/// Read repair on a coordinator: what becomes of copies that home shards refused.
pub struct Repair {
    /// Taken in.
    pub found: IntCounter,
    /// Removed.
    pub sent: IntCounter,
    /// Left alone.
    pub kept: IntCounter,
    /// Forgotten.
    pub dropped: IntCounter,
}

impl Publish {
    /// Counts a write that was acknowledged once searches find what it wrote.
    pub fn waited(&self, took: Duration) {
        self.wait.observe(took.as_secs_f64());
    }

    /// Counts a message that a search shard has committed.
    pub fn sent(&self, copies: u64, gone: u64, took: Duration) {
        self.send.observe(took.as_secs_f64());
        self.copies.inc_by(copies);
        self.gone.inc_by(gone);
    }

    /// Counts an attempt in vain.
    pub fn refused(&self) {
        self.refused.inc();
    }
}

/// The export of spans.
pub struct Traces {
    /// See [`names::TRACES_EXPORTED`].
    pub exported: IntCounter,
    /// See [`names::TRACES_LOST`].
    pub lost: IntCounter,
}

impl Instruments {
    fn new() -> Instruments {
        let registry = prometheus::Registry::new();
        let r = &registry;
        Instruments {
            rest: Rest { requests: counters(r, &names::REST_REQUESTS), duration: histograms(r, &names::REST_DURATION) },
            hop: Hop { requests: counters(r, &names::HOP_REQUESTS), duration: histograms(r, &names::HOP_DURATION) },
            search: Search {
                threads: gauge(r, &names::SEARCH_THREADS),
                queued: gauge(r, &names::SEARCH_QUEUED),
                busy: gauge(r, &names::SEARCH_BUSY),
                refused: counter(r, &names::SEARCH_REFUSED),
                expired: counter(r, &names::SEARCH_EXPIRED),
                wait: histogram(r, &names::SEARCH_WAIT),
                run: histogram(r, &names::SEARCH_RUN),
            },
            write: Write {
                duration: histogram(r, &names::WRITE_DURATION),
                sync: histogram(r, &names::LOG_SYNC),
                batch_bytes: histogram(r, &names::LOG_BATCH_BYTES),
                batch_changes: histogram(r, &names::LOG_BATCH_CHANGES),
            },
            publish: Publish {
                wait: histogram(r, &names::PUBLISH_WAIT),
                send: histogram(r, &names::PUBLISH_SEND),
                copies: counter(r, &names::PUBLISH_COPIES),
                gone: counter(r, &names::PUBLISH_GONE),
                refused: counter(r, &names::PUBLISH_REFUSED),
            },
            repair: Repair {
                found: counter(r, &names::REPAIR_FOUND),
                sent: counter(r, &names::REPAIR_SENT),
                kept: counter(r, &names::REPAIR_KEPT),
                dropped: counter(r, &names::REPAIR_DROPPED),
            },
            traces: Traces { exported: counter(r, &names::TRACES_EXPORTED), lost: counter(r, &names::TRACES_LOST) },
            registry,
        }
    }

    /// The values of all instruments.
    pub(super) fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

/// The names are constants that a test has seen: what can fail here is a mistake in this file.
const MISTAKE: &str = "the instruments of names.rs fit together";

fn registered<C: Collector + Clone + 'static>(registry: &prometheus::Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect(MISTAKE);
    collector
}

fn counters(registry: &prometheus::Registry, metric: &Metric) -> IntCounterVec {
    let opts = Opts::new(metric.name, metric.help);
    registered(registry, IntCounterVec::new(opts, metric.labels).expect(MISTAKE))
}

fn counter(registry: &prometheus::Registry, metric: &Metric) -> IntCounter {
    registered(registry, IntCounter::new(metric.name, metric.help).expect(MISTAKE))
}

fn gauge(registry: &prometheus::Registry, metric: &Metric) -> IntGauge {
    registered(registry, IntGauge::new(metric.name, metric.help).expect(MISTAKE))
}

fn histogram_opts(metric: &Metric) -> HistogramOpts {
    let buckets = match metric.kind {
        Kind::Histogram(buckets) => buckets.to_vec(),
        Kind::Counter | Kind::Gauge => Vec::new(),
    };
    HistogramOpts::new(metric.name, metric.help).buckets(buckets)
}

fn histograms(registry: &prometheus::Registry, metric: &Metric) -> HistogramVec {
    registered(registry, HistogramVec::new(histogram_opts(metric), metric.labels).expect(MISTAKE))
}

fn histogram(registry: &prometheus::Registry, metric: &Metric) -> Histogram {
    registered(registry, Histogram::with_opts(histogram_opts(metric)).expect(MISTAKE))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn operations_have_no_ids() {
        for (route, expected) in [
            ("shard/search", "shard/search"),
            ("raft/meta/append", "raft/meta/append"),
            ("raft/shard/17/append", "raft/shard/append"),
            ("raft/shard/17/file/0af3", "raft/shard/file"),
        ] {
            assert_eq!(operation(route), expected);
        }
    }

    /// Prints what a request pays; the bound is loose, as other tests run beside this one.
    #[test]
    fn a_request_pays_little_for_being_counted() {
        let instruments = instruments();
        let took = Duration::from_micros(300);
        let rounds = 20_000;
        let time = |what: &str, work: &dyn Fn()| {
            let started = Instant::now();
            (0..rounds).for_each(|_| work());
            let nanoseconds = started.elapsed().as_nanos() / rounds;
            println!("{what}: {nanoseconds} ns");
            nanoseconds
        };
        let all = time("REST request", &|| {
            instruments.rest.answered("POST", "/collections/{collection}/points/query", "200", took)
        }) + time("hop", &|| instruments.hop.ended(Side::Client, "shard/search", HopOutcome::Ok, took))
            + time("search job", &|| instruments.search.ran(took, took))
            + time("log batch", &|| instruments.write.synced(took, 4_000, 3));
        assert!(all < 20_000, "{all} ns for one of each");
    }
}
