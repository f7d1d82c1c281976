//! What is printed: a line of JSON per measured point, or a table for people.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::bench::print_line;

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
    pub(super) fn print_head(&self, is_filtered: bool) {
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
        let columns = format!("{:>5} {:>8} {:>10} {:>9} {:>10}", "ef", "recall", "qps", "us/query", "distances");
        print_line(&if is_filtered {
            format!(
                "{:<26} {:>9} {:>8} {columns} {:>10} {:>7} {:>10} {:>7}",
                "filter", "share", "rows", "scan", "ratio", "no filter", "ratio"
            )
        } else {
            columns
        });
    }

    fn vector_bytes(&self) -> f64 {
        (self.n * self.dim * size_of::<f32>()) as f64
    }

    /// One point.
    pub(super) fn print_point(&self, point: &Point, yardsticks: Option<&Yardsticks<'_>>) -> anyhow::Result<()> {
        match self.format {
            Format::Json => print_line(&serde_json::to_string(&self.line(point, yardsticks))?),
            Format::Table => print_line(&row(point, yardsticks)),
        }
        Ok(())
    }

    fn line<'a>(&'a self, point: &Point, yardsticks: Option<&'a Yardsticks<'_>>) -> Line<'a> {
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
            filtered: yardsticks.map(|yardsticks| Filtered {
                filter: yardsticks.filter,
                selectivity: rounded(yardsticks.selectivity, 6),
                matches: rounded(yardsticks.matches, 1),
                queries: yardsticks.queries,
                scan_qps: rounded(yardsticks.scan_qps, 1),
                unfiltered_qps: rounded(yardsticks.unfiltered_qps, 1),
                of_scan: rounded(point.qps / yardsticks.scan_qps, 3),
                of_unfiltered: rounded(point.qps / yardsticks.unfiltered_qps, 3),
            }),
        }
    }
}

fn row(point: &Point, yardsticks: Option<&Yardsticks<'_>>) -> String {
    let ef = point.ef.map_or_else(|| "-".to_owned(), |ef| ef.to_string());
    let columns =
        format!("{ef:>5} {:>8.4} {:>10.1} {:>9.1} {:>10.1}", point.recall, point.qps, 1e6 / point.qps, point.distances);
    match yardsticks {
        None => columns,
        Some(yardsticks) => format!(
            "{:<26} {:>9.4} {:>8.0} {columns} {:>10.1} {:>7.2} {:>10.1} {:>7.2}",
            yardsticks.filter,
            yardsticks.selectivity,
            yardsticks.matches,
            yardsticks.scan_qps,
            point.qps / yardsticks.scan_qps,
            yardsticks.unfiltered_qps,
            point.qps / yardsticks.unfiltered_qps,
        ),
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
            format: Format::Json,
        }
    }

    #[test]
    fn a_line_has_the_fields_that_comparisons_read() {
        let point = Point { ef: Some(32), recall: 0.98765, qps: 4_000.04 };
        let line = serde_json::to_value(run().line(&point, None)).unwrap();
        let expected = json!({
            "peer": "vicinal-hnsw", "dataset": "set", "n": 100, "dim": 2, "metric": "l2", "k": 10,
            "params": {"m": 16, "ef": 32}, "build_s": 1.23, "index_mb": 12.3, "recall": 0.9877, "qps": 4000.0,
            "us_per_query": 250.0, "build_threads": 2, "search_threads": 1,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_filtered_line_has_both_ratios() {
        let point = Point { ef: None, recall: 1.0, qps: 500.0 };
        let yardsticks = Yardsticks {
            filter: "positive",
            selectivity: 0.1,
            matches: 10.0,
            queries: 7,
            scan_qps: 250.0,
            unfiltered_qps: 1_000.0,
        };
        let line = serde_json::to_value(run().line(&point, Some(&yardsticks))).unwrap();
        assert_eq!((&line["of_scan"], &line["of_unfiltered"]), (&json!(2.0), &json!(0.5)));
        assert_eq!(line["params"], json!({"m": 16}));
        assert!(row(&point, Some(&yardsticks)).starts_with("positive "));
    }
}
