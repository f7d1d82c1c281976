//! The body that changes a collection: of it, where open graphs are.

use std::collections::BTreeMap;

use serde::Deserialize;
use vicinal_common::collection::CollectionSchema;
use vicinal_common::error::Error;
use vicinal_common::tuning::GraphPlacementChange;

use super::super::answer::Failure;
use super::hnsw::HnswBody;
use super::{Unsupported, refuse_all};

/// Body that changes a collection. Vectors are named, the unnamed one by the empty name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ChangeBody {
    hnsw_config: Option<HnswBody>,
    vectors: Option<BTreeMap<String, VectorChangeBody>>,
    #[serde(default)]
    optimizers_config: Unsupported,
    #[serde(default)]
    params: Unsupported,
    #[serde(default)]
    quantization_config: Unsupported,
    #[serde(default)]
    sparse_vectors: Unsupported,
    #[serde(default)]
    strict_mode_config: Unsupported,
    #[serde(default)]
    metadata: Unsupported,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorChangeBody {
    hnsw_config: Option<HnswBody>,
    #[serde(default)]
    quantization_config: Unsupported,
    #[serde(default)]
    on_disk: Unsupported,
    #[serde(default)]
    memory: Unsupported,
}

impl ChangeBody {
    /// Checks what can be checked without the collection.
    pub(in super::super) fn into_change(self) -> Result<GraphPlacementChange, Failure> {
        refuse_all(&[
            ("optimizers_config", self.optimizers_config),
            ("params", self.params),
            ("quantization_config", self.quantization_config),
            ("sparse_vectors", self.sparse_vectors),
            ("strict_mode_config", self.strict_mode_config),
            ("metadata", self.metadata),
        ])?;
        let on_disk = self.hnsw_config.map(|hnsw| hnsw.placement("")).transpose()?.flatten();
        let mut vectors = BTreeMap::new();
        for (name, body) in self.vectors.unwrap_or_default() {
            refuse_all(&[
                ("vectors.quantization_config", body.quantization_config),
                ("vectors.on_disk", body.on_disk),
                ("vectors.memory", body.memory),
            ])?;
            if let Some(hnsw) = body.hnsw_config {
                let own = hnsw.placement(&format!("vectors.{name}."))?;
                vectors.insert(name, own);
            }
        }
        Ok(GraphPlacementChange { on_disk, vectors })
    }
}

/// Checks a change against the collection it is meant for.
pub(in super::super) fn check_change(change: &GraphPlacementChange, schema: &CollectionSchema) -> Result<(), Error> {
    for (name, own) in &change.vectors {
        let Some(vector) = schema.vectors.get(name) else {
            return Err(Error::BadInput(format!("Not existing vector name error: {name}")));
        };
        // An empty object takes all that a vector says of its own away, and how graphs are built cannot change.
        if own.is_none() && vector.hnsw.is_some() {
            return Err(Error::BadInput(format!(
                "taking `vectors.{name}.hnsw_config` away would change how its graph is built, which is not supported yet"
            )));
        }
    }
    Ok(())
}
