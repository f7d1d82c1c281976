//! What a collection is made of: its vectors, its index settings, its shards.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metric::Metric;
use crate::vector::Datatype;

/// One named vector of a collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VectorSchema {
    /// What a vector of this name is.
    pub kind: VectorKind,
    /// Dimension, 1 to [`crate::limits::DIM_MAX`]; 0 for sparse vectors, whose dimensions are not counted.
    pub dim: usize,
    /// How vectors of this name are compared; sparse ones by [`Metric::Dot`].
    pub metric: Metric,
    /// To what precision values are stored.
    pub datatype: Datatype,
    /// Graph settings of this vector where they differ from the collection's.
    pub hnsw: Option<HnswConfig>,
}

/// What a vector of a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VectorKind {
    /// One dense vector.
    Dense,
    /// Several dense vectors for one point, compared by MaxSim: the sum, over the vectors of the query, of the best
    /// similarity to one of the point's (Khattab and Zaharia, ColBERT, 2020).
    Multi,
    /// A sparse vector.
    Sparse {
        /// Whether a query's values are multiplied by how rare their dimensions are in the whole collection.
        idf: bool,
    },
}

impl VectorSchema {
    /// A dense vector of 32-bit floats with the collection's graph settings.
    pub fn dense(dim: usize, metric: Metric) -> VectorSchema {
        VectorSchema { kind: VectorKind::Dense, dim, metric, datatype: Datatype::Float32, hnsw: None }
    }

    /// A sparse vector.
    pub fn sparse(idf: bool) -> VectorSchema {
        VectorSchema { kind: VectorKind::Sparse { idf }, ..VectorSchema::dense(0, Metric::Dot) }
    }
}

/// Settings of the HNSW graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HnswConfig {
    /// Neighbours per node on the upper levels, twice as many on level 0. 0 means: no graph, exact search only.
    /// Otherwise 2 to 256. More: better recall on hard data, more memory (8 bytes per neighbour and vector).
    pub m: usize,
    /// Beam while building, 4 to 10,000. More: better graph, slower build.
    pub ef_construction: usize,
}

impl Default for HnswConfig {
    fn default() -> HnswConfig {
        HnswConfig { m: 16, ef_construction: 100 }
    }
}

/// Everything a shard must know of its collection; fixed when the collection is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectionSchema {
    /// Vectors by name; the name `""` is the unnamed vector.
    pub vectors: BTreeMap<String, VectorSchema>,
    /// Graph settings of all vectors that have none of their own.
    pub hnsw: HnswConfig,
    /// A segment gets a graph once its vectors hold this many KiB; smaller ones are scanned exactly. 0: never.
    pub indexing_threshold_kib: u64,
}

impl CollectionSchema {
    /// Default of `indexing_threshold_kib`: below this an exact scan takes well under a millisecond.
    pub const INDEXING_THRESHOLD_KIB: u64 = 2_000;

    /// Graph settings of one vector; `None` when it is searched exactly only, as sparse vectors and multivectors are.
    pub fn hnsw_of(&self, vector: &str) -> Option<HnswConfig> {
        let vector = self.vectors.get(vector).filter(|vector| vector.kind == VectorKind::Dense)?;
        let config = vector.hnsw.unwrap_or(self.hnsw);
        (config.m > 0).then_some(config)
    }
}
