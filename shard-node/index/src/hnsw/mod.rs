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
mod query;
mod repair;
mod search;
mod select;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vicinal_common::distance::Kernel;
use vicinal_common::error::Error;
use vicinal_common::limits::{HNSW_EF_CONSTRUCTION, HNSW_M};
use vicinal_common::metric::Metric;

use self::beam::ScratchPool;
pub(crate) use self::build::{any_row, mix};
use self::graph::{GraphView, ROWS_MAX, StoredGraph};
use self::select::{Geometry, Space};
use crate::Rows;
use crate::codes::{CodeKernel, Codes, LINE, Packing, RowTerms};

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
    /// What the graph is built over.
    pub over: Over,
}

/// What a graph is built over, and, in that or a shorter form, walked over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// The vectors themselves.
    #[default]
    Vectors,
    /// 8-bit codes of them; searches walk over 4-bit ones where they are in memory, and score the last candidates again with the
    /// vectors.
    Codes,
}

/// Dimension from which codes, padded to whole cache lines, are so much smaller than vectors that they pay.
const CODES_DIM_MIN: usize = 32;

impl Over {
    /// What is fastest for vectors of a dimension.
    pub fn best_for(dim: usize) -> Over {
        if dim >= CODES_DIM_MIN { Over::Codes } else { Over::Vectors }
    }
}

impl Default for HnswParams {
    fn default() -> HnswParams {
        HnswParams { m: 16, ef_construction: 100, seed: 0, over: Over::Vectors }
    }
}

impl HnswParams {
    /// Bytes of the file of an index over so many rows, about.
    pub fn file_bytes(&self, rows: usize, dim: usize) -> u64 {
        let codes = match self.over {
            Over::Vectors => 0,
            Over::Codes => dim.next_multiple_of(LINE) + size_of::<RowTerms>(),
        };
        // Above layer 0 there is one node for m rows, with m links; each row may have a twin.
        rows as u64 * (codes + 4 * 2 * self.m + 4 * 3) as u64
    }

    /// Memory that a build takes at its peak, beyond the rows: what [`HnswIndex::build`] holds and the file's bytes.
    pub fn build_bytes(&self, rows: usize, dim: usize) -> u64 {
        // Lists are a quarter longer while they grow, with a distance for each link; and the order of insertion.
        let growing = rows as u64 * (8 * (2 * self.m + self.m / 2 + 2) + 48) as u64;
        growing + 2 * self.file_bytes(rows, dim)
    }

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
    /// There is no memory for the codes.
    #[error("no memory for the codes of the vectors: {0}")]
    Memory(String),
    /// The threads could not be started.
    #[error("cannot start build threads: {0}")]
    Threads(String),
}

impl From<io::Error> for BuildError {
    /// Arrays fail to be made for one reason only.
    fn from(error: io::Error) -> BuildError {
        BuildError::Memory(error.to_string())
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Error {
        match error {
            BuildError::Params { .. } => Error::BadInput(error.to_string()),
            BuildError::TooManyRows { .. } => Error::TooLarge(error.to_string()),
            BuildError::Cancelled | BuildError::Threads(_) | BuildError::Memory(_) => {
                Error::Unavailable(error.to_string())
            }
        }
    }
}

/// An HNSW graph over the rows of one segment.
pub struct HnswIndex {
    metric: Metric,
    kernel: Kernel,
    code_kernel: CodeKernel,
    /// Values per row, and number of rows: a search with other rows is a bug.
    dim: usize,
    rows: usize,
    params: HnswParams,
    graph: StoredGraph,
    /// There when the graph is walked over codes.
    codes: Option<Codes>,
    scratches: ScratchPool,
}

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
        if rows.len() > ROWS_MAX {
            return Err(BuildError::TooManyRows { rows: rows.len(), limit: ROWS_MAX });
        }
        control.check()?;
        let pool = match control.threads {
            0 | 1 => None,
            threads => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .map_err(|error| BuildError::Threads(error.to_string()))?,
            ),
        };
        let make_codes = || Codes::of(rows, metric, Packing::Lines).map_err(BuildError::from);
        let codes = match (params.over, &pool) {
            (Over::Vectors, _) => None,
            (Over::Codes, Some(pool)) => Some(pool.install(make_codes)?),
            (Over::Codes, None) => Some(make_codes()?),
        };
        let space = match &codes {
            Some(codes) => Space::Codes(CodeKernel::new(), codes.view()),
            None => Space::Vectors(Kernel::new(metric)),
        };
        let geometry = Geometry::new(rows, metric, space);
        let graph = StoredGraph::new(build::build(rows, geometry, pool, &params, &control)?)?;
        Ok(HnswIndex::new(metric, rows, params, graph, codes))
    }

    fn new(metric: Metric, rows: Rows<'_>, params: HnswParams, graph: StoredGraph, codes: Option<Codes>) -> HnswIndex {
        HnswIndex {
            metric,
            kernel: Kernel::new(metric),
            code_kernel: CodeKernel::new(),
            dim: rows.dim,
            rows: rows.len(),
            params,
            graph,
            codes,
            scratches: ScratchPool::new(),
        }
    }

    /// Cuts the 4-bit codes that searches walk over, where the vectors have such codes. On the threads of the current pool; fails
    /// when there is no memory. Opening to memory does it: what is built only to be written needs none.
    pub fn with_short_codes(mut self) -> io::Result<HnswIndex> {
        let view = self.graph.view();
        let near = |number: u64| {
            // Lists begin with the nearest, but not all that a search meets is the nearest of something.
            let row = any_row(number / 2, self.rows);
            let to = *view.base().neighbours(row).get(number as usize % 2 * 3)?;
            (to != graph::NONE).then_some((row, to))
        };
        if let Some(codes) = &mut self.codes
            && self.rows > 0
            && let Some(mut short) = codes.shortened()?
        {
            short.learn(codes.view(), near);
            codes.short = Some(short);
        }
        Ok(self)
    }

    /// What the graph was built with.
    pub fn params(&self) -> HnswParams {
        self.params
    }

    fn graph(&self) -> GraphView<'_> {
        self.graph.view()
    }
}
