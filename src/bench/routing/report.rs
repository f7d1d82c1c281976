//! What is printed: a line of JSON per measured point, or a table for people.

use serde::Serialize;

use crate::bench::print_line;

/// What all points of a run have in common.
pub(super) struct Run {
    pub(super) dataset: String,
    pub(super) n: usize,
    pub(super) dim: usize,
    pub(super) metric: &'static str,
    pub(super) k: usize,
    pub(super) format: Format,
}

/// For whom it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Table,
}

/// What a recall costs in one setting.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) centroids: usize,
    pub(super) shards: usize,
    /// Budget of copies.
    pub(super) copies: f64,
    /// Share of the points that were copied.
    pub(super) copied: f64,
    /// The recall that theta was chosen for on the other half of the queries; 1 where all shards are asked.
    pub(super) target: f64,
    pub(super) theta: f32,
    pub(super) recall: f64,
    pub(super) shards_mean: f64,
    pub(super) shards_p95: usize,
    /// Points of the fullest shard, copies aside, by the mean.
    pub(super) imbalance: f64,
    /// Per query: centroids, and all rows of asked shards.
    pub(super) distances: f64,
    pub(super) train_s: f64,
    pub(super) route_us: f64,
}

#[derive(Serialize)]
struct Line<'a> {
    peer: &'a str,
    dataset: &'a str,
    n: usize,
    dim: usize,
    metric: &'a str,
    k: usize,
    #[serde(flatten)]
    point: &'a Point,
}

impl Run {
    /// What comes before the points.
    pub(super) fn print_head(&self) {
        if self.format == Format::Json {
            return;
        }
        print_line(&format!("{}: {} x {}, {}, k {}", self.dataset, self.n, self.dim, self.metric, self.k));
        print_line(&format!(
            "{:>6} {:>6} {:>6} {:>6} {:>8} {:>7} {:>6} {:>4} {:>9} {:>10} {:>7} {:>8}",
            "shards",
            "copies",
            "target",
            "recall",
            "theta",
            "mean",
            "of all",
            "p95",
            "imbalance",
            "distances",
            "train s",
            "route us"
        ));
    }

    /// One point.
    pub(super) fn print_point(&self, point: &Point) -> anyhow::Result<()> {
        let Run { dataset, n, dim, metric, k, format } = self;
        if *format == Format::Json {
            let line = Line { peer: "vicinal", dataset, n: *n, dim: *dim, metric, k: *k, point };
            print_line(&serde_json::to_string(&line)?);
            return Ok(());
        }
        print_line(&format!(
            "{:>6} {:>6.2} {:>6.2} {:>6.3} {:>8.5} {:>7.2} {:>6.2} {:>4} {:>9.3} {:>10.0} {:>7.1} {:>8.1}",
            point.shards,
            point.copied,
            point.target,
            point.recall,
            point.theta,
            point.shards_mean,
            point.shards_mean / point.shards as f64,
            point.shards_p95,
            point.imbalance,
            point.distances,
            point.train_s,
            point.route_us,
        ));
        Ok(())
    }
}
