//! `vicinal bench routing`: trains routing by cluster over a data set and measures how many shards have to be asked for
//! which recall. No server: the map, the router and the exact answers, in this process.
//!
//! Searches inside a shard count as exact, so recall is the share of the true neighbours that live in some asked shard.
//! Cut-offs are found on half of the queries and measured on the other half; with `--kinds` or `--filters` they are those that a
//! cluster would find, which knows no queries.

mod kinds;
mod report;
mod setting;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use vicinal_common::metric::Metric;
use vicinal_index::Rows;
use vicinal_routing::{
    CentroidMap, LearnOptions, Placer, Places, Router, TrainOptions, centroid_count, sample_rows, train,
};

use self::kinds::{Ground, Kind, Match, Worth};
use self::report::{Format, Run};
use self::setting::{Queries, Setting};
use super::index::set::{self, MetricName};
use super::index::truth::{Origin, Truth};

/// Points for each centroid that training is done with; more change the centroids little.
const SAMPLE_PER_CENTROID: usize = 256;
/// Points by which the ratio for copies is chosen.
const COPY_SAMPLE: usize = 20_000;

/// Its flags.
#[derive(Debug, Args)]
pub(crate) struct Routing {
    /// Directory of the data set, as for `bench index`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// What is near; by default what is usual for the data set of this name
    #[arg(long, value_enum)]
    metric: Option<MetricName>,
    /// Numbers of shards
    #[arg(long, value_delimiter = ',', default_values_t = [8, 16, 32])]
    shards: Vec<u32>,
    /// Budgets of copies of border points, as shares of all points
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.2, 0.5])]
    copies: Vec<f64>,
    /// Recalls to find the cut-off for
    #[arg(long, value_delimiter = ',', default_values_t = [0.90, 0.95, 0.99])]
    targets: Vec<f64>,
    /// Neighbours per query
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Use at most so many queries; every other one is measured
    #[arg(long, default_value_t = 2_000)]
    queries: usize,
    /// Use at most so many vectors; their exact neighbours are then computed
    #[arg(long)]
    limit: Option<usize>,
    /// Fine centroids for each shard
    #[arg(long, default_value_t = 64)]
    centroids_per_shard: usize,
    /// Temperature of the mass; what the library has by default
    #[arg(long)]
    tau: Option<f32>,
    /// Seed of sample, centroids and groups
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads that train; all processors by default
    #[arg(long)]
    threads: Option<usize>,
    /// Instead, learn a map as a cluster does, and measure its targets with queries of these kinds
    #[arg(long, value_enum, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// As well, or instead, with filters that match these points, their shares known
    #[arg(long, value_enum, value_delimiter = ',')]
    filters: Vec<Match>,
    /// Shares of the points that filters match
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 0.1, 0.01, 0.001])]
    filter_shares: Vec<f64>,
    /// Compute the exact neighbours even when the data set lists them
    #[arg(long)]
    compute_truth: bool,
    /// Print a line of JSON for each point instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(routing: &Routing) -> anyhow::Result<()> {
    routing.check()?;
    let threads = match routing.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let dataset = set::name_of(&routing.data)?;
    let metric_name = routing.metric.unwrap_or_else(|| MetricName::of_set(&dataset));
    let metric = metric_name.metric();
    let queries = set::queries(&routing.data, metric, routing.queries)?;
    ensure!(queries.rows() >= 2, "one half of the queries is measured: at least 2 are needed");
    let base = set::base(&routing.data, metric, routing.limit.unwrap_or(usize::MAX), queries.columns)?;
    let rows = base.rows();
    ensure!(routing.k <= rows.len(), "--k {} of {} vectors", routing.k, rows.len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
    let is_listed = routing.limit.is_none() && !routing.compute_truth;
    let origin = if is_listed { Origin::Listed(&routing.data) } else { Origin::Computed };
    let run = Run {
        dataset,
        n: rows.len(),
        dim: rows.dim,
        metric: metric_name.name(),
        k: routing.k,
        format: if routing.json { Format::Json } else { Format::Table },
    };
    if !routing.kinds.is_empty() || !routing.filters.is_empty() {
        let own = Rows { data: &queries.values, dim: rows.dim };
        return pool.install(|| routing.measure_kinds(&run, rows, own, metric, threads));
    }
    run.print_head();
    let truth = Truth::find(origin, rows, &queries, metric, (routing.k, threads))?;
    let queries = Queries { vectors: Rows { data: &queries.values, dim: rows.dim }, truth: &truth };
    for shards in &routing.shards {
        pool.install(|| routing.measure(&run, rows, metric, queries, *shards))?;
    }
    Ok(())
}

impl Routing {
    /// Refuses flags that make no sense, before anything is read.
    fn check(&self) -> anyhow::Result<()> {
        for (flag, count) in [
            ("--k", self.k),
            ("--limit", self.limit.unwrap_or(1)),
            ("--centroids-per-shard", self.centroids_per_shard),
            ("--threads", self.threads.unwrap_or(1)),
            ("--shards", self.shards.iter().copied().min().unwrap_or(0) as usize),
        ] {
            ensure!(count >= 1, "{flag} must be 1 or larger");
        }
        for copies in &self.copies {
            ensure!((0.0..=1.0).contains(copies), "--copies {copies} is not between 0 and 1");
        }
        for share in &self.filter_shares {
            ensure!(*share > 0.0 && *share <= 1.0, "--filter-shares {share} is not above 0 and at most 1");
        }
        for target in &self.targets {
            ensure!(*target > 0.0 && *target < 1.0, "--targets {target} is not between 0 and 1");
        }
        Ok(())
    }

    /// Trains for a number of shards and measures every budget of copies.
    fn measure(
        &self,
        run: &Run,
        rows: Rows<'_>,
        metric: Metric,
        queries: Queries<'_>,
        shards: u32,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let map = self.train(rows, metric, shards)?;
        let train_s = started.elapsed().as_secs_f64();
        // With this ratio the second place of every point is told; budgets are applied to the ratios afterwards.
        let mut parts = map.into_parts();
        parts.copy_ratio = f32::MAX;
        let map = Arc::new(CentroidMap::new(parts)?);
        let places = Placer::new(map.clone()).place_all(rows);
        let sample: Vec<Places> =
            sample_rows(rows.len(), COPY_SAMPLE, self.seed).into_iter().map(|row| places[row as usize]).collect();
        let router = Router::new(map);
        let routed = queries.route(&router);
        run.print_point(&Setting::query_all(&router, rows.len(), train_s))?;
        for budget in &self.copies {
            let setting = Setting::new(&router, &places, (*budget, &sample), train_s);
            for target in &self.targets {
                run.print_point(&setting.at(&routed, queries, *target, self.k))?;
            }
        }
        Ok(())
    }

    /// Learns maps as a cluster does and measures what their targets are worth.
    fn measure_kinds(
        &self,
        run: &Run,
        rows: Rows<'_>,
        own: Rows<'_>,
        metric: Metric,
        threads: usize,
    ) -> anyhow::Result<()> {
        let targets: Vec<f32> = self.targets.iter().map(|target| *target as f32).collect();
        let threads = NonZeroUsize::new(threads).context("--threads must be 1 or larger")?;
        Worth::print_head(run);
        for shards in &self.shards {
            for copies in &self.copies {
                let wanted = SAMPLE_PER_CENTROID * centroid_count(rows.len(), *shards, self.centroids_per_shard);
                let sample = kinds::sample(rows, wanted, self.seed);
                let options = LearnOptions { version: 1, shards: *shards, copies: *copies, seed: self.seed, threads };
                let (router, places) = kinds::learned(rows, metric, &sample, options)?;
                let ground = Ground { rows, metric, router: &router, places: &places, k: self.k };
                for kind in &self.kinds {
                    let queries = kinds::queries(*kind, rows, own, metric, (self.queries, self.seed));
                    for worth in ground.measure(&queries, None, &targets)? {
                        Worth { kind: *kind, copies: *copies, ..worth }.print(run)?;
                    }
                }
                for (matching, share) in self
                    .filters
                    .iter()
                    .flat_map(|matching| self.filter_shares.iter().map(move |share| (matching, share)))
                {
                    let (matched, queries) = kinds::filtered(*matching, *share, (rows, own), metric, self.seed);
                    for worth in ground.measure(&queries, Some(&matched), &targets)? {
                        Worth { matching: Some(*matching), copies: *copies, ..worth }.print(run)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn train(&self, rows: Rows<'_>, metric: Metric, shards: u32) -> anyhow::Result<CentroidMap> {
        let centroids = centroid_count(rows.len(), shards, self.centroids_per_shard);
        let sample: Vec<f32> = sample_rows(rows.len(), SAMPLE_PER_CENTROID * centroids, self.seed)
            .into_iter()
            .flat_map(|row| rows.row(row).iter().copied())
            .collect();
        let default = TrainOptions::new(shards, self.seed);
        let options = TrainOptions {
            centroids_per_shard: self.centroids_per_shard,
            // The ratio is chosen for each budget.
            copies: 0.0,
            tau: self.tau.unwrap_or(default.tau),
            ..default
        };
        Ok(train(Rows { data: &sample, dim: rows.dim }, metric, options)?)
    }
}
