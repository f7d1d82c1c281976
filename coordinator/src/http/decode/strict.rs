//! The `strict_mode_config` of a collection: of it, the rule that filters must be on indexed fields.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::Failure;
use super::{Unsupported, refuse_all};
use crate::meta::StrictMode;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StrictModeBody {
    enabled: Option<bool>,
    unindexed_filtering_retrieve: Option<bool>,
    unindexed_filtering_update: Option<bool>,
    #[serde(default)]
    max_query_limit: Unsupported,
    #[serde(default)]
    max_timeout: Unsupported,
    #[serde(default)]
    search_max_hnsw_ef: Unsupported,
    #[serde(default)]
    search_allow_exact: Unsupported,
    #[serde(default)]
    search_max_oversampling: Unsupported,
    #[serde(default)]
    upsert_max_batchsize: Unsupported,
    #[serde(default)]
    search_max_batchsize: Unsupported,
    #[serde(default)]
    max_collection_vector_size_bytes: Unsupported,
    #[serde(default)]
    read_rate_limit: Unsupported,
    #[serde(default)]
    write_rate_limit: Unsupported,
    #[serde(default)]
    max_collection_payload_size_bytes: Unsupported,
    #[serde(default)]
    max_points_count: Unsupported,
    #[serde(default)]
    filter_max_conditions: Unsupported,
    #[serde(default)]
    condition_max_size: Unsupported,
    #[serde(default)]
    multivector_config: Unsupported,
    #[serde(default)]
    sparse_config: Unsupported,
    #[serde(default)]
    max_payload_index_count: Unsupported,
    #[serde(default)]
    max_resident_memory_percent: Unsupported,
}

impl StrictModeBody {
    /// What requests may not do, and how it is shown; `null` when nothing was said.
    pub(super) fn check(self) -> Result<(StrictMode, Value), Failure> {
        refuse_all(&[
            ("strict_mode_config.max_query_limit", self.max_query_limit),
            ("strict_mode_config.max_timeout", self.max_timeout),
            ("strict_mode_config.search_max_hnsw_ef", self.search_max_hnsw_ef),
            ("strict_mode_config.search_allow_exact", self.search_allow_exact),
            ("strict_mode_config.search_max_oversampling", self.search_max_oversampling),
            ("strict_mode_config.upsert_max_batchsize", self.upsert_max_batchsize),
            ("strict_mode_config.search_max_batchsize", self.search_max_batchsize),
            ("strict_mode_config.max_collection_vector_size_bytes", self.max_collection_vector_size_bytes),
            ("strict_mode_config.read_rate_limit", self.read_rate_limit),
            ("strict_mode_config.write_rate_limit", self.write_rate_limit),
            ("strict_mode_config.max_collection_payload_size_bytes", self.max_collection_payload_size_bytes),
            ("strict_mode_config.max_points_count", self.max_points_count),
            ("strict_mode_config.filter_max_conditions", self.filter_max_conditions),
            ("strict_mode_config.condition_max_size", self.condition_max_size),
            ("strict_mode_config.multivector_config", self.multivector_config),
            ("strict_mode_config.sparse_config", self.sparse_config),
            ("strict_mode_config.max_payload_index_count", self.max_payload_index_count),
            ("strict_mode_config.max_resident_memory_percent", self.max_resident_memory_percent),
        ])?;
        let given = [
            ("enabled", self.enabled),
            ("unindexed_filtering_retrieve", self.unindexed_filtering_retrieve),
            ("unindexed_filtering_update", self.unindexed_filtering_update),
        ];
        let shown: serde_json::Map<String, Value> =
            given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
        let shown = if shown.is_empty() { Value::Null } else { Value::Object(shown) };
        let is_forbidden = |allowed: Option<bool>| self.enabled == Some(true) && allowed == Some(false);
        let strict = StrictMode {
            only_indexed_reads: is_forbidden(self.unindexed_filtering_retrieve),
            only_indexed_updates: is_forbidden(self.unindexed_filtering_update),
        };
        Ok((strict, shown))
    }
}
