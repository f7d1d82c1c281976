//! The columns of a shard: its collection's vectors in the order of their names.

use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorKind, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::metric::Metric;
use vicinal_common::vector::Vector;

/// One named vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorLayout {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: VectorKind,
    /// Values per vector; 0 for a sparse one.
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
        let vector = |(name, vector): (&String, &VectorSchema)| VectorLayout {
            name: name.clone(),
            kind: vector.kind,
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

impl VectorLayout {
    /// Checks that a vector is what the layout says: written and searched ones have been checked by then, so this is for
    /// what another version of the program may have let through.
    pub fn check(&self, vector: &Vector) -> Result<()> {
        let dim = |got: usize| match got == self.dim {
            true => Ok(()),
            false => {
                let expected = self.dim;
                Err(Error::BadInput(format!("Vector dimension error: expected dim: {expected}, got {got}")))
            }
        };
        match (self.kind, vector) {
            (VectorKind::Dense, Vector::Dense(values)) => dim(values.len()),
            (VectorKind::Multi, Vector::Multi(multi)) => dim(multi.dim),
            (VectorKind::Sparse { .. }, Vector::Sparse(sparse)) => {
                let is_sound = sparse.indices.len() == sparse.values.len();
                let is_finite = sparse.values.iter().all(|value| value.is_finite());
                match is_sound && is_finite && sparse.indices.is_sorted_by(|a, b| a < b) {
                    true => Ok(()),
                    false => Err(Error::BadInput("a sparse vector is out of order, or not of finite numbers".into())),
                }
            }
            (VectorKind::Dense | VectorKind::Multi | VectorKind::Sparse { .. }, other) => {
                let (name, kind) = (&self.name, other.as_ref().kind());
                Err(Error::BadInput(format!("vector `{name}` of the collection is of another kind than {kind}")))
            }
        }
    }
}
