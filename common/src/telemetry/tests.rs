//! The names are well formed, the page is what Prometheus reads, spans are what names.rs says, and contexts travel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::subscriber::with_default;
use tracing_subscriber::layer::SubscriberExt;

use super::names::{Kind, METRICS, SPANS, TARGET};
use super::*;

fn is_name(text: &str) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(is_start) && text.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

#[test]
fn names_follow_the_rules() {
    let mut seen = BTreeSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(is_name(name) && seen.insert(name), "{name}");
        assert!(name.starts_with("vicinal_") || name.starts_with("process_"), "{name}");
        assert_eq!(matches!(metric.kind, Kind::Counter), name.ends_with("_total"), "{name}");
        let reserved = ["_count", "_sum", "_bucket", "_ms", "_millis", "_us", "_kb", "_mb", "_seconds_total"];
        assert!(!reserved.iter().any(|end| name.ends_with(end)), "{name}");
        assert!(
            metric.labels.iter().all(|label| is_name(label) && *label != "le" && !label.starts_with("__")),
            "{name}"
        );
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
        if let Kind::Histogram(bounds) = metric.kind {
            assert!(bounds.is_sorted() && bounds.len() <= 20, "{name}");
        }
    }
    assert_eq!(SPANS.iter().map(|span| span.name).collect::<BTreeSet<_>>().len(), SPANS.len());
}

/// Rows of the tables of docs/METRICS.md, as their cells.
fn documented() -> Vec<Vec<String>> {
    let rows = include_str!("../../../docs/METRICS.md").lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
    rows.map(|row| cells(row)[1..].to_vec()).collect()
}

#[test]
fn the_documentation_lists_what_there_is() {
    let mut expected = Vec::new();
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = if metric.labels.is_empty() { "none".to_owned() } else { metric.labels.join(", ") };
        expected.push(vec![metric.name.to_owned(), kind.to_owned(), labels, metric.help.replace('`', "")]);
    }
    expected.extend(
        SPANS.iter().map(|span| vec![span.name.to_owned(), span.fields.join(", "), span.help.replace('`', "")]),
    );
    let mut found = documented();
    assert_eq!(found.len(), expected.len(), "rows in docs/METRICS.md");
    for (found, expected) in found.iter_mut().zip(&expected) {
        found.truncate(expected.len());
        assert_eq!(found, expected, "docs/METRICS.md, in the order of names.rs");
    }
}

/// What a scraper would make of the text, refusing what it would refuse.
#[derive(Debug, Default)]
struct Scraped {
    /// Type by family.
    types: BTreeMap<String, String>,
    /// Value by name with labels.
    samples: BTreeMap<String, f64>,
}

fn scrape(text: &str) -> Result<Scraped, String> {
    let mut scraped = Scraped::default();
    let mut help = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap_or_default();
            if !help.insert(name.to_owned()) {
                return Err(format!("a second HELP: {line}"));
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(line)?;
            if !help.contains(name) || scraped.types.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(format!("no HELP before it, or a second TYPE: {line}"));
            }
            current = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or(line)?;
        let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
        let name = series.split('{').next().unwrap_or_default();
        let is_histogram = scraped.types.get(&current).is_some_and(|kind| kind == "histogram");
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).filter(|_| is_histogram);
        if !is_name(name) || base.unwrap_or(name) != current {
            return Err(format!("a sample outside its family {current}: {line}"));
        }
        if let Some(labels) = series.split_once('{').map(|(_, labels)| labels) {
            labels.strip_suffix('}').filter(|labels| labels.is_empty() || labels.ends_with('"')).ok_or(line)?;
        }
        if scraped.samples.insert(series.to_owned(), value).is_some() {
            return Err(format!("a second sample: {line}"));
        }
    }
    Ok(scraped)
}

struct Values;

#[async_trait]
impl Source for Values {
    async fn collect(&self, page: &mut Page) {
        page.set(&names::SHARD_POINTS, &["n1", "c", "7"], 42.0);
        page.count(&names::HEDGES_SENT, &[], 5);
        page.set(&names::SHARD_POINTS, &["n\"2\\", "c", "7"], 43.0);
    }
}

struct Stuck;

#[async_trait]
impl Source for Stuck {
    async fn collect(&self, _page: &mut Page) {
        std::future::pending().await
    }
}

#[tokio::test]
async fn the_page_is_what_prometheus_reads() {
    let took = Duration::from_millis(3);
    instruments().rest.answered("PUT", "/page", "200", took);
    instruments().hop.ended(Side::Server, "raft/shard/3/append", HopOutcome::Ok, took);
    let registry = Registry::default();
    registry.add(std::sync::Arc::new(Stuck));
    let text = registry.render(&[&Values]).await;
    let scraped = scrape(&text).unwrap();
    for (family, kind) in &scraped.types {
        let metric = METRICS.iter().find(|metric| metric.name == family).unwrap();
        let expected = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(kind, expected, "{family}");
    }
    let sample = |series: &str| *scraped.samples.get(series).unwrap_or_else(|| panic!("{series} in\n{text}"));
    assert_eq!(sample("vicinal_rest_requests_total{method=\"PUT\",route=\"/page\",status=\"200\"}"), 1.0);
    let bucket = "vicinal_rest_request_duration_seconds_bucket{method=\"PUT\",route=\"/page\",le=";
    assert_eq!((sample(&format!("{bucket}\"0.0025\"}}")), sample(&format!("{bucket}\"+Inf\"}}"))), (0.0, 1.0));
    assert_eq!(sample("vicinal_shard_points{collection=\"c\",node=\"n1\",shard=\"7\"}"), 42.0);
    assert_eq!(sample("vicinal_hedges_sent_total"), 5.0);
    assert!(sample("process_start_time_seconds") > 1e9);
    if cfg!(target_os = "linux") {
        assert!(sample("process_resident_memory_bytes") > 1e6);
    }
}

#[test]
fn the_scraper_of_this_test_refuses_what_it_should() {
    for text in ["a 1", "# TYPE a gauge\na 1", "# HELP a x\n# TYPE a gauge\nb 1", "# HELP a x\n# TYPE a gauge\na x"] {
        assert!(scrape(text).is_err(), "{text}");
    }
    assert!(scrape("# HELP a x\n# TYPE a gauge\na{b=\"c\"} 1\n").is_ok());
}

fn all_spans(headers: &HeaderMap) -> Vec<tracing::Span> {
    let rest = rest_span("GET", "/r", headers);
    let hop = rest.in_scope(|| hop_client_span("shard/search", "http://127.0.0.1:1", 3));
    vec![
        rest,
        hop,
        query_span("c", 1),
        fetch_span(1),
        scatter_span(1),
        plan_span(1),
        node_call_span(1, 1, 1, false),
        write_span("c", 1),
        write_call_span(1, 1, 0, 1),
        hop_server_span("shard/search", headers, 3),
        shard_search_span(1, 1, 10, None, false),
        shard_write_span(1, 0),
    ]
}

fn traced() -> (SdkTracerProvider, impl tracing::Subscriber + Send + Sync) {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_context_activation(false);
    (provider, tracing_subscriber::registry().with(layer))
}

fn named(trace: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{trace}-00f067aa0ba902b7-01").parse().unwrap());
    headers
}

#[test]
fn spans_are_what_the_names_file_says() {
    let (_provider, subscriber) = traced();
    let spans = with_default(subscriber, || all_spans(&named("4bf92f3577b34da6a3ce929d0e0e4736")));
    let made: BTreeMap<&str, Vec<&str>> = spans
        .iter()
        .map(|span| {
            let metadata = span.metadata().unwrap();
            assert_eq!(metadata.target(), TARGET);
            (metadata.name(), metadata.fields().iter().map(|field| field.name()).collect())
        })
        .collect();
    let listed: BTreeMap<&str, Vec<&str>> = SPANS.iter().map(|span| (span.name, span.fields.to_vec())).collect();
    assert_eq!(made, listed);
}

#[test]
fn a_trace_goes_on_in_the_next_process() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (_provider, subscriber) = traced();
    with_default(subscriber, || {
        assert!(!is_traced());
        assert!(hop_client_span("shard/search", "a", 0).is_none(), "outside of a trace");
        let rest = rest_span("GET", "/r", &named(trace));
        let (mut first, mut second) = (HeaderMap::new(), HeaderMap::new());
        rest.in_scope(|| inject(&hop_client_span("shard/search", "a", 0), &mut first));
        assert!(first["traceparent"].to_str().unwrap().starts_with(&format!("00-{trace}-")));
        assert_ne!(first["traceparent"], named(trace)["traceparent"], "the hop is the parent now");
        inject(&hop_server_span("shard/search", &first, 0), &mut second);
        assert!(second["traceparent"].to_str().unwrap().starts_with(&format!("00-{trace}-")));
        assert!(hop_server_span("shard/search", &HeaderMap::new(), 0).is_none(), "nobody asked");
        for wrong in ["", "00-0-0-01", "nonsense"] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", wrong.parse().unwrap());
            assert!(!rest_span("GET", "/r", &headers).is_disabled(), "{wrong}: a trace of its own");
        }
    });
}

#[test]
fn without_an_export_a_span_costs_next_to_nothing() {
    let rounds = 20_000;
    let headers = named("4bf92f3577b34da6a3ce929d0e0e4736");
    let filter = tracing_subscriber::EnvFilter::new("info,vicinal_trace=off");
    let subscriber = tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(filter);
    let nanoseconds = with_default(subscriber, || {
        assert!(all_spans(&headers).iter().all(tracing::Span::is_disabled));
        let started = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(all_spans(&headers));
        }
        started.elapsed().as_nanos() / rounds
    });
    println!("all {} spans: {nanoseconds} ns", SPANS.len());
    assert!(nanoseconds < 5_000, "{nanoseconds} ns");
}
