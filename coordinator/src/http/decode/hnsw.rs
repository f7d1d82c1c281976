//! The `hnsw_config` of a collection or of one vector, when it is created and when it is changed.

use serde::Deserialize;
use vicinal_common::collection::HnswConfig;
use vicinal_common::error::Error;
use vicinal_common::limits::{HNSW_EF_CONSTRUCTION, HNSW_M};

use super::super::answer::Failure;
use super::collection::invalid;
use super::{Unsupported, refuse_all};

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HnswBody {
    m: Option<usize>,
    ef_construct: Option<usize>,
    #[serde(default)]
    full_scan_threshold: Unsupported,
    #[serde(default)]
    max_indexing_threads: Unsupported,
    /// Where the open graph is: `None` leaves it to the collection, or as it is.
    pub(super) on_disk: Option<bool>,
    #[serde(default)]
    memory: Unsupported,
    #[serde(default)]
    payload_m: Unsupported,
    #[serde(default)]
    inline_storage: Unsupported,
}

impl HnswBody {
    fn refuse_unsupported(self) -> Result<(), Failure> {
        refuse_all(&[
            ("hnsw_config.full_scan_threshold", self.full_scan_threshold),
            ("hnsw_config.max_indexing_threads", self.max_indexing_threads),
            ("hnsw_config.memory", self.memory),
            ("hnsw_config.payload_m", self.payload_m),
            ("hnsw_config.inline_storage", self.inline_storage),
        ])
    }

    /// What graphs are built with: `None` when nothing of that is said.
    pub(super) fn shape_over(self, base: HnswConfig, prefix: &str) -> Result<Option<HnswConfig>, Failure> {
        self.refuse_unsupported()?;
        if self.m.is_none() && self.ef_construct.is_none() {
            return Ok(None);
        }
        let config = HnswConfig {
            m: self.m.unwrap_or(base.m),
            ef_construction: self.ef_construct.unwrap_or(base.ef_construction),
        };
        if config.m != 0 && !HNSW_M.contains(&config.m) {
            let range = format!("0 (no graph) or from {} to {}", HNSW_M.start(), HNSW_M.end());
            return Err(invalid(format!("{prefix}hnsw_config.m"), config.m, &range));
        }
        if !HNSW_EF_CONSTRUCTION.contains(&config.ef_construction) {
            let field = format!("{prefix}hnsw_config.ef_construct");
            let range = format!("from {} to {}", HNSW_EF_CONSTRUCTION.start(), HNSW_EF_CONSTRUCTION.end());
            return Err(invalid(field, config.ef_construction, &range));
        }
        Ok(Some(config))
    }

    /// What changes of an existing collection: where open graphs are. Its graphs stay as they were built.
    pub(super) fn placement(self, prefix: &str) -> Result<Option<bool>, Failure> {
        self.refuse_unsupported()?;
        for (name, is_set) in [("m", self.m.is_some()), ("ef_construct", self.ef_construct.is_some())] {
            if is_set {
                let text = format!("changing `{prefix}hnsw_config.{name}` is not supported yet");
                return Err(Error::BadInput(text).into());
            }
        }
        Ok(self.on_disk)
    }
}
