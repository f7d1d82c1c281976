//! What is printed: a line of JSON per measured point, or a table for people.

use serde::Serialize;
use serde_json::{Map, Value};

use super::rebuild::Compared;
use crate::bench::print_line;
use crate::bench::timing::Spread;

/// What all points of a run have in common.
pub(super) struct Run {
    pub(super) peer: String,
    pub(super) dataset: String,
    pub(super) n: usize,
    pub(super) dim: usize,
    pub(super) metric: &'static str,
    pub(super) k: usize,
    /// What the index was built with.
    pub(super) params: Map<String, Value>,
    pub(super) build_s: f64,
    /// Growth of resident memory by vectors and index, where the system tells it.
    pub(super) index_mb: Option<f64>,
    pub(super) build_threads: usize,
    pub(super) search_threads: usize,
    /// Bytes per second that these threads can read, for families that read everything.
    pub(super) read_bytes_s: Option<f64>,
    pub(super) format: Format,
}

/// For whom it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Table,
}

/// One measured point.
pub(super) struct Point {
    /// Where the family has a beam.
    pub(super) ef: Option<usize>,
    pub(super) recall: f64,
    pub(super) qps: f64,
    /// Distances computed per query.
    pub(super) distances: f64,
}

/// What a filtered point is measured against.
pub(super) struct Yardsticks<'a> {
    pub(super) filter: &'a str,
    pub(super) selectivity: f64,
    pub(super) matches: f64,
    pub(super) queries: usize,
    /// Speed of an exact scan of the matching rows alone.
    pub(super) scan_qps: f64,
    /// Speed of the same index with the same beam when every row is accepted.
    pub(super) unfiltered_qps: f64,
}

/// What is printed of a point beside its recall and speed.
#[derive(Clone, Copy)]
pub(super) enum Beside<'a> {
    Nothing,
    Yardsticks(&'a Yardsticks<'a>),
    Build(&'a Compared),
}

/// What the table has columns for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    Plain,
    Filtered,
    DuringBuild,
}

#[derive(Serialize)]
struct Line<'a> {
    peer: &'a str,
    dataset: &'a str,
    n: usize,
    dim: usize,
    metric: &'a str,
    k: usize,
    params: Map<String, Value>,
    build_s: f64,
    index_mb: Option<f64>,
    recall: f64,
    qps: f64,
    us_per_query: f64,
    distances: f64,
    build_threads: usize,
    search_threads: usize,
    /// Bytes of all vectors per time of a query, and what the machine can read: 10^9 bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    scan_gb_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_gb_s: Option<f64>,
    #[serde(flatten)]
    filtered: Option<Filtered<'a>>,
    #[serde(flatten)]
    during_build: Option<DuringBuild>,
}

#[derive(Serialize)]
struct DuringBuild {
    idle_us: Percentiles,
    during_build_us: Percentiles,
    p50_ratio: f64,
    p99_ratio: f64,
    searches: usize,
    /// Rows that the builds inserted while searches were measured.
    rows_inserted: u64,
    builds: f64,
    /// Share of its time that the building thread had a processor.
    build_running: Option<f64>,
}

#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Serialize)]
struct Filtered<'a> {
    filter: &'a str,
    selectivity: f64,
    matches: f64,
    queries: usize,
    scan_qps: f64,
    unfiltered_qps: f64,
    of_scan: f64,
    of_unfiltered: f64,
}

impl Run {
    /// What comes before the points.
    pub(super) fn print_head(&self, columns: Columns) {
        if self.format == Format::Json {
            return;
        }
        let params: Vec<String> = self.params.iter().map(|(key, value)| format!("{key} {value}")).collect();
        let memory = self.index_mb.map_or_else(String::new, |mb| format!(", {mb:.0} MB with the vectors"));
        print_line(&format!(
            "{} {}: {} x {}, {}; {}{}built in {:.1} s (threads: {}){memory}; k {}, searching threads: {}",
            self.dataset,
            self.peer,
            self.n,
            self.dim,
            self.metric,
            params.join(", "),
            if params.is_empty() { "" } else { "; " },
            self.build_s,
            self.build_threads,
            self.k,
            self.search_threads,
        ));
        if let Some(bytes) = self.read_bytes_s {
            let read_all_us = self.vector_bytes() / bytes * 1e6;
            print_line(&format!("reading all vectors takes {read_all_us:.0} us: {:.1} GB/s", bytes / 1e9));
        }
        let common = format!("{:>5} {:>8} {:>10} {:>9} {:>10}", "ef", "recall", "qps", "us/query", "distances");
        print_line(&match columns {
            Columns::Plain => common,
            Columns::Filtered => format!(
                "{:<26} {:>9} {:>8} {common} {:>10} {:>7} {:>10} {:>7}",
                "filter", "share", "rows", "scan", "ratio", "no filter", "ratio"
            ),
            Columns::DuringBuild => format!(
                "{common} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9} {:>6} {:>6} {:>10} {:>8}",
                "idle p50", "p99", "max us", "build: p50", "p99", "max us", "p50 x", "p99 x", "inserted", "running"
            ),
        });
    }

    fn vector_bytes(&self) -> f64 {
        (self.n * self.dim * size_of::<f32>()) as f64
    }

    /// One point.
    pub(super) fn print_point(&self, point: &Point, beside: Beside<'_>) -> anyhow::Result<()> {
        match self.format {
            Format::Json => print_line(&serde_json::to_string(&self.line(point, beside))?),
            Format::Table => print_line(&row(point, beside)),
        }
        Ok(())
    }

    fn line<'a>(&'a self, point: &Point, beside: Beside<'a>) -> Line<'a> {
        let mut params = self.params.clone();
        if let Some(ef) = point.ef {
            params.insert("ef".to_owned(), ef.into());
        }
        Line {
            peer: &self.peer,
            dataset: &self.dataset,
            n: self.n,
            dim: self.dim,
            metric: self.metric,
            k: self.k,
            params,
            build_s: rounded(self.build_s, 2),
            index_mb: self.index_mb.map(|mb| rounded(mb, 1)),
            recall: rounded(point.recall, 4),
            qps: rounded(point.qps, 1),
            us_per_query: rounded(1e6 / point.qps, 1),
            distances: rounded(point.distances, 1),
            build_threads: self.build_threads,
            search_threads: self.search_threads,
            scan_gb_s: self.read_bytes_s.map(|_| rounded(self.vector_bytes() * point.qps / 1e9, 2)),
            read_gb_s: self.read_bytes_s.map(|bytes| rounded(bytes / 1e9, 2)),
            filtered: match beside {
                Beside::Yardsticks(yardsticks) => Some(filtered(point, yardsticks)),
                Beside::Nothing | Beside::Build(_) => None,
            },
            during_build: match beside {
                Beside::Build(compared) => Some(during_build(compared)),
                Beside::Nothing | Beside::Yardsticks(_) => None,
            },
        }
    }
}

fn filtered<'a>(point: &Point, yardsticks: &'a Yardsticks<'_>) -> Filtered<'a> {
    Filtered {
        filter: yardsticks.filter,
        selectivity: rounded(yardsticks.selectivity, 6),
        matches: rounded(yardsticks.matches, 1),
        queries: yardsticks.queries,
        scan_qps: rounded(yardsticks.scan_qps, 1),
        unfiltered_qps: rounded(yardsticks.unfiltered_qps, 1),
        of_scan: rounded(point.qps / yardsticks.scan_qps, 3),
        of_unfiltered: rounded(point.qps / yardsticks.unfiltered_qps, 3),
    }
}

fn during_build(compared: &Compared) -> DuringBuild {
    let percentiles = |spread: &Spread| {
        let micros = |latency: std::time::Duration| rounded(latency.as_secs_f64() * 1e6, 1);
        Percentiles { p50: micros(spread.p50), p99: micros(spread.p99), max: micros(spread.max) }
    };
    DuringBuild {
        idle_us: percentiles(&compared.idle),
        during_build_us: percentiles(&compared.building),
        p50_ratio: rounded(compared.ratio(|spread| spread.p50), 2),
        p99_ratio: rounded(compared.ratio(|spread| spread.p99), 2),
        searches: compared.searches,
        rows_inserted: compared.rows_inserted,
        builds: rounded(compared.builds, 2),
        build_running: compared.build_running.map(|share| rounded(share, 3)),
    }
}

fn row(point: &Point, beside: Beside<'_>) -> String {
    let ef = point.ef.map_or_else(|| "-".to_owned(), |ef| ef.to_string());
    let columns =
        format!("{ef:>5} {:>8.4} {:>10.1} {:>9.1} {:>10.1}", point.recall, point.qps, 1e6 / point.qps, point.distances);
    match beside {
        Beside::Nothing => columns,
        Beside::Yardsticks(yardsticks) => format!(
            "{:<26} {:>9.4} {:>8.0} {columns} {:>10.1} {:>7.2} {:>10.1} {:>7.2}",
            yardsticks.filter,
            yardsticks.selectivity,
            yardsticks.matches,
            yardsticks.scan_qps,
            point.qps / yardsticks.scan_qps,
            yardsticks.unfiltered_qps,
            point.qps / yardsticks.unfiltered_qps,
        ),
        Beside::Build(compared) => {
            let figures = during_build(compared);
            let (idle, building) = (&figures.idle_us, &figures.during_build_us);
            let running = figures.build_running.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"));
            format!(
                "{columns} {:>9.1} {:>9.1} {:>9.1} {:>10.1} {:>9.1} {:>9.1} {:>6.2} {:>6.2} {:>10} {running:>8}",
                idle.p50,
                idle.p99,
                idle.max,
                building.p50,
                building.p99,
                building.max,
                figures.p50_ratio,
                figures.p99_ratio,
                figures.rows_inserted,
            )
        }
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run() -> Run {
        Run {
            peer: "vicinal-hnsw".to_owned(),
            dataset: "set".to_owned(),
            n: 100,
            dim: 2,
            metric: "l2",
            k: 10,
            params: json!({"m": 16}).as_object().cloned().unwrap(),
            build_s: 1.234,
            index_mb: Some(12.34),
            build_threads: 2,
            search_threads: 1,
            read_bytes_s: None,
            format: Format::Json,
        }
    }

    #[test]
    fn a_line_has_the_fields_that_comparisons_read() {
        let point = Point { ef: Some(32), recall: 0.98765, qps: 4_000.04, distances: 700.0 };
        let line = serde_json::to_value(run().line(&point, Beside::Nothing)).unwrap();
        let expected = json!({
            "peer": "vicinal-hnsw", "dataset": "set", "n": 100, "dim": 2, "metric": "l2", "k": 10,
            "params": {"m": 16, "ef": 32}, "build_s": 1.23, "index_mb": 12.3, "recall": 0.9877, "qps": 4000.0,
            "us_per_query": 250.0, "distances": 700.0, "build_threads": 2, "search_threads": 1,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_filtered_line_has_both_ratios() {
        let point = Point { ef: None, recall: 1.0, qps: 500.0, distances: 700.0 };
        let yardsticks = Yardsticks {
            filter: "positive",
            selectivity: 0.1,
            matches: 10.0,
            queries: 7,
            scan_qps: 250.0,
            unfiltered_qps: 1_000.0,
        };
        let line = serde_json::to_value(run().line(&point, Beside::Yardsticks(&yardsticks))).unwrap();
        assert_eq!((&line["of_scan"], &line["of_unfiltered"]), (&json!(2.0), &json!(0.5)));
        assert_eq!(line["params"], json!({"m": 16}));
        assert!(row(&point, Beside::Yardsticks(&yardsticks)).starts_with("positive "));
    }

    #[test]
    fn a_line_of_a_build_compares_both() {
        let spread = |micros: u64| {
            let latency = std::time::Duration::from_micros(micros);
            Spread { mean: latency, p50: latency, p99: latency * 2, max: latency * 3 }
        };
        let compared = Compared {
            idle: spread(100),
            building: spread(150),
            searches: 40,
            rows_inserted: 130,
            builds: 1.3,
            build_running: Some(0.99),
            answers: Vec::new(),
        };
        let point = Point { ef: Some(64), recall: 1.0, qps: 10_000.0, distances: 700.0 };
        let line = serde_json::to_value(run().line(&point, Beside::Build(&compared))).unwrap();
        assert_eq!(line["idle_us"], json!({"p50": 100.0, "p99": 200.0, "max": 300.0}));
        assert_eq!((&line["during_build_us"]["p99"], &line["p99_ratio"]), (&json!(300.0), &json!(1.5)));
        assert_eq!((&line["rows_inserted"], &line["build_running"]), (&json!(130), &json!(0.99)));
        assert!(row(&point, Beside::Build(&compared)).ends_with("0.990"));
    }
}
