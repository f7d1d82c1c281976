//! The `hnsw_config` of a collection or of one vector, when it is created and when it is changed.

use serde::Deserialize;
use vicinal_common::collection::HnswConfig;
use vicinal_common::error::Error;
use vicinal_common::limits::{HNSW_EF_CONSTRUCTION, HNSW_M};

use super::super::answer::Failure;
use super::collection::invalid;
use super::settings::{Memory, only};

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HnswBody {
    m: Option<usize>,
    ef_construct: Option<usize>,
    full_scan_threshold: Option<u64>,
    max_indexing_threads: Option<u64>,
    on_disk: Option<bool>,
    memory: Option<Memory>,
    payload_m: Option<u64>,
    inline_storage: Option<bool>,
}

impl HnswBody {
    fn refuse_unsupported(self, prefix: &str) -> Result<(), Failure> {
        let name = |field: &str| format!("{prefix}hnsw_config.{field}");
        let why = "each filtered search decides by the number of matches whether to scan them";
        only(&name("full_scan_threshold"), self.full_scan_threshold, &[0, 10_000], why)?;
        let why = "each node builds on as many threads as it has cores";
        only(&name("max_indexing_threads"), self.max_indexing_threads, &[0], why)?;
        let why = "filtered searches walk over the one graph of all points";
        only(&name("payload_m"), self.payload_m, &[0], why)?;
        let why = "vectors are in their segment's file alone";
        only(&name("inline_storage"), self.inline_storage, &[false], why)
    }

    /// Whether nothing at all is said.
    pub(super) fn is_empty(self) -> bool {
        let HnswBody { m, ef_construct, full_scan_threshold, max_indexing_threads, .. } = self;
        let HnswBody { on_disk, memory, payload_m, inline_storage, .. } = self;
        let numbers = [full_scan_threshold, max_indexing_threads, payload_m].iter().all(Option::is_none);
        let flags = on_disk.is_none() && inline_storage.is_none() && memory.is_none();
        numbers && flags && m.is_none() && ef_construct.is_none()
    }

    /// Where the open graph is: `None` leaves it to the collection, or as it is. As in the API, `memory` goes before the
    /// older flag.
    pub(super) fn on_disk(self) -> Option<bool> {
        self.memory.map(|memory| memory == Memory::Cold).or(self.on_disk)
    }

    /// What graphs are built with: `None` when nothing of that is said.
    pub(super) fn shape_over(self, base: HnswConfig, prefix: &str) -> Result<Option<HnswConfig>, Failure> {
        self.refuse_unsupported(prefix)?;
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

    /// What changes of an existing collection: where open graphs are.
    pub(super) fn placement(self, prefix: &str) -> Result<Option<bool>, Failure> {
        self.refuse_unsupported(prefix)?;
        Ok(self.on_disk())
    }

    /// Refuses another shape than graphs are built with: they stay as they are.
    pub(super) fn check_shape(self, built: HnswConfig, prefix: &str) -> Result<(), Error> {
        for (name, given, built) in [("m", self.m, built.m), ("ef_construct", self.ef_construct, built.ef_construction)]
        {
            if given.is_some_and(|given| given != built) {
                return Err(Error::BadInput(format!(
                    "changing `{prefix}hnsw_config.{name}` is not supported: graphs stay as they were built, with {built}"
                )));
            }
        }
        Ok(())
    }
}
