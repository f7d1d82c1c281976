//! `vicinal bench index`: builds a vector index over a data set and measures how fast it answers at which recall. No
//! server, no shards: the index alone, in this process, as other libraries are measured.

mod bandwidth;
mod condition;
mod family;
mod filter;
mod npz;
mod rebuild;
mod report;
mod rounds;
pub(super) mod set;
mod texmex;
pub(super) mod truth;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use vicinal_common::metric::Metric;
use vicinal_index::{Accept, FlatIndex, Rows, SearchParams, Searched, VectorIndex};

use self::family::{Beam, Built};
use self::filter::{FilterKind, Material, Workload};
use self::report::{Beside, Columns, Format, Run, Yardsticks};
use self::rounds::{Measured, Rounds, resident_bytes};
use self::set::MetricName;
use self::truth::{Origin, Truth};
use super::npy::Matrix;

/// A sweep ends behind this recall: what follows is only slower.
const RECALL_ENOUGH: f64 = 0.9995;
/// Queries by which the speed of an exact scan is measured; it does not depend on the query.
const SCAN_QUERIES: usize = 200;
/// Rounds of the same for the speed of memory.
const READ_ROUNDS: usize = 5;
const EF: [usize; 13] = [10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
const SELECTIVITY: [f64; 5] = [0.5, 0.1, 0.03, 0.01, 0.001];

/// Its flags.
#[derive(Debug, Args)]
pub(crate) struct Index {
    /// Directory of the data set: base.npy (or base_u8.npy), query.npy, gt.npy, or the same as .fvecs/.bvecs and .ivecs
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Kind of index: flat, flat-sq8 (exact by 8-bit codes), hnsw or hnsw-f32 (without codes)
    #[arg(long, default_value = "hnsw")]
    family: String,
    /// What is near; by default what is usual for the data set of this name
    #[arg(long, value_enum)]
    metric: Option<MetricName>,
    /// A parameter of the index; hnsw: m, ef_construction, seed
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = family::parse_param)]
    params: Vec<(String, String)>,
    /// Query beams to measure
    #[arg(long, value_delimiter = ',', default_values_t = EF)]
    ef: Vec<usize>,
    /// Neighbours per query
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Use at most so many queries
    #[arg(long, default_value_t = 2_000)]
    queries: usize,
    /// Use at most so many vectors; their exact neighbours are then computed
    #[arg(long)]
    limit: Option<usize>,
    /// Threads that search
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Threads that build; all processors by default
    #[arg(long)]
    build_threads: Option<usize>,
    /// Threads that the scan of one query may be spread over
    #[arg(long, default_value_t = 1)]
    scan_threads: usize,
    /// Rounds over all queries; the fastest counts
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Bind the searching thread to this processor
    #[arg(long, value_name = "CPU")]
    pin: Option<usize>,
    /// Compute the exact neighbours even when the data set lists them
    #[arg(long)]
    compute_truth: bool,
    /// Search with a filter
    #[arg(long, value_enum)]
    filter: Option<FilterKind>,
    /// Shares of rows that a synthetic filter accepts [default: 0.5,0.1,0.03,0.01,0.001]
    #[arg(long, value_delimiter = ',', requires = "filter")]
    selectivity: Option<Vec<f64>>,
    /// Compare the latency of searches with that while another thread builds the same index again; for one --ef
    #[arg(long, conflicts_with = "filter")]
    during_build: bool,
    /// Bind that building thread to this processor
    #[arg(long, value_name = "CPU", requires = "during_build")]
    pin_build: Option<usize>,
    /// Print a line of JSON for each point instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(index: &Index) -> anyhow::Result<()> {
    index.check()?;
    let dataset = set::name_of(&index.data)?;
    let metric_name = index.metric.unwrap_or_else(|| MetricName::of_set(&dataset));
    let metric = metric_name.metric();
    let build_threads = match index.build_threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };

    let queries = set::queries(&index.data, metric, index.queries)?;
    // Everything but vectors and index is in memory by now.
    let before = resident_bytes();
    let base = set::base(&index.data, metric, index.limit.unwrap_or(usize::MAX), queries.columns)?;
    let rows = base.rows();
    ensure!(index.k <= rows.len(), "--k {} of {} vectors", index.k, rows.len());
    let truth = match index.filter {
        Some(_) => None,
        None => Some(index.truth(rows, &queries, metric, build_threads)?),
    };
    let started = Instant::now();
    let built = family::build(&index.family, &index.params, rows, metric, build_threads)?;
    let build_s = started.elapsed().as_secs_f64();
    let after = resident_bytes();

    let bench = Bench { index, rows, queries: &queries, metric, built: &built, build_threads };
    let run = Run {
        peer: format!("vicinal-{}", index.family),
        dataset,
        n: rows.len(),
        dim: rows.dim,
        metric: metric_name.name(),
        k: index.k,
        params: built.params.clone(),
        build_s,
        index_mb: before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64 / 1e6),
        build_threads,
        search_threads: index.threads * index.scan_threads,
        read_bytes_s: (built.beam == Beam::Ignored)
            .then(|| bandwidth::read(rows.data, index.threads * index.scan_threads, READ_ROUNDS)),
        format: if index.json { Format::Json } else { Format::Table },
    };
    run.print_head(match (index.filter, index.during_build) {
        (Some(_), _) => Columns::Filtered,
        (None, true) => Columns::DuringBuild,
        (None, false) => Columns::Plain,
    });
    match (index.filter, truth.context("there is nothing to measure recall against")) {
        (Some(kind), _) => bench.filtered(&run, kind),
        (None, truth) if index.during_build => bench.during_build(&run, &truth?),
        (None, truth) => bench.sweep(&run, &truth?),
    }
}

impl Index {
    /// Refuses flags that make no sense, before anything is read.
    fn check(&self) -> anyhow::Result<()> {
        family::check(&self.family, &self.params)?;
        let counts = [
            ("--k", self.k),
            ("--queries", self.queries),
            ("--limit", self.limit.unwrap_or(1)),
            ("--threads", self.threads),
            ("--scan-threads", self.scan_threads),
            ("--build-threads", self.build_threads.unwrap_or(1)),
            ("--repeat", self.repeat),
            ("--ef", self.ef.iter().copied().min().unwrap_or(0)),
        ];
        for (flag, count) in counts {
            ensure!(count >= 1, "{flag} must be 1 or larger");
        }
        ensure!(
            self.pin.is_none() || self.threads == 1,
            "--pin binds one searching thread, --threads is {}",
            self.threads
        );
        for share in self.selectivity.iter().flatten() {
            ensure!(*share > 0.0 && *share <= 1.0, "--selectivity {share} is not between 0 and 1");
        }
        if self.filter == Some(FilterKind::File) {
            ensure!(self.selectivity.is_none(), "--selectivity is for synthetic filters");
            ensure!(self.limit.is_none(), "--filter file needs all vectors: leave out --limit");
            for name in filter::FILES {
                let path = self.data.join(name);
                ensure!(path.exists(), "--filter file: there is no {}", path.display());
            }
        }
        if self.during_build {
            self.check_during_build()?;
        }
        // A processor that does not exist is noticed now, and not after the build.
        self.rounds().measure(0, |_| Searched::default())?;
        Ok(())
    }

    /// The exact neighbours: those of the data set if it lists enough for these vectors, computed otherwise.
    fn truth(&self, rows: Rows<'_>, queries: &Matrix<f32>, metric: Metric, threads: usize) -> anyhow::Result<Truth> {
        let is_listed = self.limit.is_none() && !self.compute_truth;
        let origin = if is_listed { Origin::Listed(&self.data) } else { Origin::Computed };
        Truth::find(origin, rows, queries, metric, (self.k, threads))
    }

    /// The beams to measure. One below k is raised to k by the search, so that several would be one.
    fn beams(&self, beam: Beam) -> Vec<Option<usize>> {
        if beam == Beam::Ignored {
            return vec![None];
        }
        let mut beams: Vec<usize> = self.ef.iter().map(|ef| *ef.max(&self.k)).collect();
        beams.sort_unstable();
        beams.dedup();
        beams.into_iter().map(Some).collect()
    }

    fn search_params(&self, ef: Option<usize>) -> SearchParams {
        SearchParams { threads: self.scan_threads, ..SearchParams::new(self.k, ef.unwrap_or(self.k)) }
    }

    fn rounds(&self) -> Rounds {
        Rounds { threads: self.threads, repeat: self.repeat, pin: self.pin }
    }
}

/// An index and what it is searched with.
struct Bench<'a> {
    index: &'a Index,
    rows: Rows<'a>,
    queries: &'a Matrix<f32>,
    metric: Metric,
    built: &'a Built,
    build_threads: usize,
}

impl Bench<'_> {
    /// Recall and speed for each beam.
    fn sweep(&self, run: &Run, truth: &Truth) -> anyhow::Result<()> {
        let all: Vec<usize> = (0..self.queries.rows()).collect();
        for ef in self.index.beams(self.built.beam) {
            let measured = self.unfiltered(&all, ef)?;
            let point = truth.point(ef, measured.qps(), &measured.answers);
            run.print_point(&point, Beside::Nothing)?;
            if point.recall > RECALL_ENOUGH {
                break;
            }
        }
        Ok(())
    }

    /// The same with filters, beside the two ways to do without a filtered search.
    fn filtered(&self, run: &Run, kind: FilterKind) -> anyhow::Result<()> {
        let material =
            Material { rows: self.rows, queries: self.queries, metric: self.metric, threads: self.build_threads };
        if kind == FilterKind::File {
            for workload in material.of_files(&self.index.data, self.index.k)? {
                self.filtered_sweep(run, &workload, &mut BTreeMap::new())?;
            }
            return Ok(());
        }
        // The queries of one kind are the same for each selectivity, and so is their search without a filter.
        let mut unfiltered = BTreeMap::new();
        for share in self.index.selectivity.as_deref().unwrap_or(&SELECTIVITY) {
            self.filtered_sweep(run, &material.synthetic(kind, *share), &mut unfiltered)?;
        }
        Ok(())
    }

    fn filtered_sweep(
        &self,
        run: &Run,
        workload: &Workload,
        unfiltered: &mut BTreeMap<Option<usize>, f64>,
    ) -> anyhow::Result<()> {
        let flat = FlatIndex::new(self.metric);
        let scan = |number| {
            let (query, mask) = workload.search(number);
            let params = SearchParams::new(self.index.k, self.index.k);
            flat.search_counted(self.rows, self.queries.row(query), params, mask.accept())
        };
        let computed;
        let truth = match &workload.truth {
            Some(truth) => truth,
            None => {
                computed =
                    Truth::of_hits(&truth::in_parallel(workload.len(), self.build_threads, |number| scan(number).hits));
                &computed
            }
        };
        // Spread over all searches, because each region may have a mask of its own.
        let scanned = workload.len().min(SCAN_QUERIES);
        let scan_qps = self.index.rounds().measure(scanned, |i| scan(i * workload.len() / scanned))?.qps();

        for ef in self.index.beams(self.built.beam) {
            let unfiltered_qps = match unfiltered.get(&ef) {
                Some(qps) => *qps,
                None => self.unfiltered(&workload.queries(), ef)?.qps(),
            };
            unfiltered.insert(ef, unfiltered_qps);
            let measured = self.index.rounds().measure(workload.len(), |number| {
                let (query, mask) = workload.search(number);
                let params = self.index.search_params(ef);
                self.built.index.search_counted(self.rows, self.queries.row(query), params, mask.accept())
            })?;
            let point = truth.point(ef, measured.qps(), &measured.answers);
            let yardsticks = Yardsticks {
                filter: &workload.name,
                selectivity: workload.selectivity,
                matches: workload.matches(),
                queries: workload.len(),
                scan_qps,
                unfiltered_qps,
            };
            run.print_point(&point, Beside::Yardsticks(&yardsticks))?;
            if point.recall > RECALL_ENOUGH {
                break;
            }
        }
        Ok(())
    }

    fn unfiltered(&self, queries: &[usize], ef: Option<usize>) -> anyhow::Result<Measured> {
        let params = self.index.search_params(ef);
        self.index.rounds().measure(queries.len(), |number| {
            self.built.index.search_counted(self.rows, self.queries.row(queries[number]), params, Accept::All)
        })
    }
}
