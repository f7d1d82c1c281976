//! The columns of a shard: its collection's vectors in the order of their names.

use vicinal_common::collection::{CollectionSchema, HnswConfig};
use vicinal_common::metric::Metric;

/// One named vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorLayout {
    /// Its name.
    pub name: String,
    /// Values per vector.
    pub dim: usize,
    /// How it is compared.
    pub metric: Metric,
    /// Graph settings; `None`: exact search only.
    pub hnsw: Option<HnswConfig>,
}

/// All named vectors, sorted by name. A vector's position is its ordinal: in runs, files and file names.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The vectors.
    pub vectors: Vec<VectorLayout>,
}

impl Layout {
    /// The layout of a collection.
    pub fn new(schema: &CollectionSchema) -> Layout {
        let vector = |(name, vector): (&String, &vicinal_common::collection::VectorSchema)| VectorLayout {
            name: name.clone(),
            dim: vector.dim,
            metric: vector.metric,
            hnsw: schema.hnsw_of(name),
        };
        Layout { vectors: schema.vectors.iter().map(vector).collect() }
    }

    /// The ordinal of a name.
    pub fn ordinal(&self, name: &str) -> Option<usize> {
        self.vectors.binary_search_by(|vector| vector.name.as_str().cmp(name)).ok()
    }
}
