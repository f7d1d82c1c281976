//! HNSW (Malkov & Yashunin, arXiv 1603.09320): a graph of near neighbours over the rows, searched with a beam.
//!
//! The graph holds no vectors: it is built over [`Rows`] and searched with the same rows. It lives in memory after
//! [`HnswIndex::build`] and in a mapped file after [`HnswIndex::open`]; both search alike. Rows that a search does not
//! accept are still walked through. Vectors whose squares or products leave the range of f32 are searched without fault,
//! but all look equally far to the build: recall is not promised for them.

mod beam;
mod build;
mod duplicates;
mod format;
mod graph;
#[cfg(test)]
mod measure;
mod prefetch;
mod repair;
mod search;
mod select;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vicinal_common::distance::Kernel;
use vicinal_common::error::Error;
use vicinal_common::limits::{HNSW_EF_CONSTRUCTION, HNSW_M};
use vicinal_common::metric::Metric;

use self::beam::ScratchPool;
use self::graph::{Graph, GraphView};
use self::search::{QueryScorer, search_graph};
use super::flat::scan;
use super::top_k::TopK;
use super::{Accept, Hit, Rows, SearchParams, VectorIndex};

/// What a graph is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HnswParams {
    /// Neighbours per node in the upper layers, half of those in layer 0: 2 to 256. More is better recall, more memory
    /// (about `8 * m` bytes a row) and slower builds.
    pub m: usize,
    /// Beam of the build: 1 to 10,000. More is better recall and slower builds.
    pub ef_construction: usize,
    /// Decides levels and the order of insertion. The same rows, parameters and seed give the same graph.
    pub seed: u64,
}

impl Default for HnswParams {
    fn default() -> HnswParams {
        HnswParams { m: 16, ef_construction: 100, seed: 0 }
    }
}

impl HnswParams {
    fn is_valid(&self) -> bool {
        HNSW_M.contains(&self.m) && (1..=*HNSW_EF_CONSTRUCTION.end()).contains(&self.ef_construction)
    }
}

/// How a build is watched, stopped and spread over threads.
#[derive(Clone, Copy, Debug)]
pub struct BuildControl<'a> {
    /// Set by the caller to stop; looked at every few hundred rows, and between the steps before and after inserting.
    pub cancel: &'a AtomicBool,
    /// Rows inserted so far, counted up to the number of rows.
    pub done: &'a AtomicU64,
    /// Threads to use, at least 1. The graph does not depend on it.
    pub threads: usize,
}

impl BuildControl<'_> {
    fn check(&self) -> Result<(), BuildError> {
        if self.cancel.load(Ordering::Relaxed) { Err(BuildError::Cancelled) } else { Ok(()) }
    }
}

/// Why there is no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// [`BuildControl::cancel`] was set.
    #[error("the index build was cancelled")]
    Cancelled,
    /// A parameter is out of its range.
    #[error("m must be 2 to 256 and ef_construction 1 to 10000, not {m} and {ef_construction}")]
    Params {
        /// Given m.
        m: usize,
        /// Given ef_construction.
        ef_construction: usize,
    },
    /// More rows than a graph can number.
    #[error("{rows} rows, a graph has at most {limit}")]
    TooManyRows {
        /// Given rows.
        rows: usize,
        /// The limit.
        limit: usize,
    },
    /// The threads could not be started.
    #[error("cannot start build threads: {0}")]
    Threads(String),
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Error {
        match error {
            BuildError::Params { .. } => Error::BadInput(error.to_string()),
            BuildError::TooManyRows { .. } => Error::TooLarge(error.to_string()),
            BuildError::Cancelled | BuildError::Threads(_) => Error::Unavailable(error.to_string()),
        }
    }
}

/// Where the arrays of the graph are.
enum Storage {
    Built(Graph),
    Mapped(format::MappedGraph),
}

/// An HNSW graph over the rows of one segment.
pub struct HnswIndex {
    metric: Metric,
    kernel: Kernel,
    /// Values per row, and number of rows: a search with other rows is a bug.
    dim: usize,
    rows: usize,
    params: HnswParams,
    storage: Storage,
    scratches: ScratchPool,
}

/// Rows whose acceptance is looked at before a search, to estimate how many there are. Fewer rows are simply scanned.
const SAMPLE: usize = 512;

impl HnswIndex {
    /// Builds the graph over `rows` (prepared for `metric`). Blocks for as long as it takes; `control` stops it.
    pub fn build(
        rows: Rows<'_>,
        metric: Metric,
        params: HnswParams,
        control: BuildControl<'_>,
    ) -> Result<HnswIndex, BuildError> {
        if !params.is_valid() {
            return Err(BuildError::Params { m: params.m, ef_construction: params.ef_construction });
        }
        let graph = build::build(rows, metric, &params, &control)?;
        Ok(HnswIndex::new(metric, rows, params, Storage::Built(graph)))
    }

    fn new(metric: Metric, rows: Rows<'_>, params: HnswParams, storage: Storage) -> HnswIndex {
        let kernel = Kernel::new(metric);
        HnswIndex { metric, kernel, dim: rows.dim, rows: rows.len(), params, storage, scratches: ScratchPool::new() }
    }

    /// What the graph was built with.
    pub fn params(&self) -> HnswParams {
        self.params
    }

    fn graph(&self) -> GraphView<'_> {
        match &self.storage {
            Storage::Built(graph) => graph.view(),
            Storage::Mapped(mapped) => mapped.view(),
        }
    }

    /// The beam that is expected to hold `wanted` accepted rows, or `None` when scanning the accepted rows costs less.
    ///
    /// The share of accepted rows is estimated from [`SAMPLE`] rows, always the same ones. A beam of b nodes scores
    /// about `b * m` rows: each node has at most `2 m` neighbours, and about half of them were seen before.
    fn beam_for(&self, wanted: usize, accept: Accept<'_>) -> Option<usize> {
        if self.rows <= SAMPLE {
            return None;
        }
        let rows = self.rows as u64;
        let accepted = (0..SAMPLE as u64).filter(|i| accept((build::mix(*i) % rows) as u32)).count();
        if accepted == 0 {
            return None;
        }
        let beam = wanted.checked_mul(SAMPLE)?.div_ceil(accepted);
        let scored_by_graph = beam.checked_mul(self.params.m)?;
        let scored_by_scan = self.rows * accepted / SAMPLE;
        (scored_by_graph < scored_by_scan).then_some(beam)
    }
}

impl VectorIndex for HnswIndex {
    /// Walks all rows and admits the accepted ones among the nodes of the final beam, which is widened by the estimated
    /// share of accepted rows. When the accepted rows are so few that scoring all of them is cheaper, or the beam holds
    /// fewer than `k` of them, they are scanned: the answer is then exact.
    fn search(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Vec<Hit> {
        assert_eq!((rows.dim, rows.len()), (self.dim, self.rows), "searched with the rows the graph was built on");
        if params.k == 0 {
            return Vec::new();
        }
        let Some(beam) = self.beam_for(params.ef.max(params.k), accept) else {
            return scan(&self.kernel, rows, query, params.k, accept);
        };
        let graph = self.graph();
        let mut scratch = self.scratches.take();
        search_graph(graph, &QueryScorer { kernel: self.kernel, rows, query }, beam, &mut scratch);
        let mut best = TopK::new(params.k, self.rows);
        for found in scratch.beam.found() {
            // Rows of one chain are in order and equally far: once one is not among the best, none after it is.
            for row in graph.equal_rows(found.node).filter(|row| accept(*row)) {
                if !best.push(Hit { distance: found.distance, row }) {
                    break;
                }
            }
        }
        if best.len() < params.k {
            return scan(&self.kernel, rows, query, params.k, accept);
        }
        best.into_sorted()
    }

    fn name(&self) -> &'static str {
        "hnsw"
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn bytes(&self) -> u64 {
        let graph = self.graph();
        let words = [graph.layer_nodes, graph.base, graph.upper_rows, graph.upper, graph.twins];
        words.iter().map(|words| size_of_val(*words) as u64).sum()
    }
}
