//! The `strict_mode_config` of a collection, when it is created and when it is changed.

use std::collections::BTreeMap;

use serde::Deserialize;
use vicinal_common::collection::{CollectionSchema, VectorKind};
use vicinal_common::error::Error;

use super::super::answer::Failure;
use super::collection::invalid;
use super::settings::unsupported;
use super::update::Object;
use crate::meta::{MultivectorLimits, SparseLimits, StrictMode};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StrictModeBody {
    enabled: Option<bool>,
    max_query_limit: Option<u64>,
    max_timeout: Option<u64>,
    unindexed_filtering_retrieve: Option<bool>,
    unindexed_filtering_update: Option<bool>,
    search_max_hnsw_ef: Option<u64>,
    search_allow_exact: Option<bool>,
    search_max_oversampling: Option<f64>,
    upsert_max_batchsize: Option<u64>,
    search_max_batchsize: Option<u64>,
    max_collection_vector_size_bytes: Option<u64>,
    read_rate_limit: Option<u64>,
    write_rate_limit: Option<u64>,
    max_collection_payload_size_bytes: Option<u64>,
    max_points_count: Option<u64>,
    filter_max_conditions: Option<u64>,
    condition_max_size: Option<u64>,
    multivector_config: Option<BTreeMap<String, Object<MultivectorBody>>>,
    sparse_config: Option<BTreeMap<String, Object<SparseBody>>>,
    max_payload_index_count: Option<u64>,
    max_resident_memory_percent: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MultivectorBody {
    max_vectors: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SparseBody {
    max_length: Option<u64>,
}

fn from_one(field: &str, value: Option<u64>) -> Result<Option<u64>, Failure> {
    match value {
        Some(0) => Err(invalid(format!("strict_mode_config.{field}"), 0, "1 or larger")),
        Some(_) | None => Ok(value),
    }
}

impl StrictModeBody {
    /// What requests may not do.
    pub(super) fn check(self) -> Result<StrictMode, Failure> {
        if self.max_collection_payload_size_bytes.is_some() {
            let why = "shards do not count the bytes of payloads apart from those of vectors";
            return Err(unsupported("strict_mode_config.max_collection_payload_size_bytes", why));
        }
        if self.max_resident_memory_percent.is_some() {
            let why = "memory belongs to the shard nodes, whose use of it coordinators do not know";
            return Err(unsupported("strict_mode_config.max_resident_memory_percent", why));
        }
        if let Some(most) = self.search_max_oversampling.filter(|most| !most.is_finite() || *most < 0.0) {
            return Err(invalid("strict_mode_config.search_max_oversampling", most, "a number of 0 or larger"));
        }
        let multi = self.multivector_config.map(|limits| {
            let checked = limits.into_iter().map(|(name, Object(MultivectorBody { max_vectors }))| {
                let max_vectors = from_one(&format!("multivector_config.{name}.max_vectors"), max_vectors)?;
                Ok((name, MultivectorLimits { max_vectors }))
            });
            checked.collect::<Result<BTreeMap<_, _>, Failure>>()
        });
        let sparse = self.sparse_config.map(|limits| {
            let checked = limits.into_iter().map(|(name, Object(SparseBody { max_length }))| {
                let max_length = from_one(&format!("sparse_config.{name}.max_length"), max_length)?;
                Ok((name, SparseLimits { max_length }))
            });
            checked.collect::<Result<BTreeMap<_, _>, Failure>>()
        });
        Ok(StrictMode {
            enabled: self.enabled,
            max_query_limit: from_one("max_query_limit", self.max_query_limit)?,
            max_timeout: from_one("max_timeout", self.max_timeout)?,
            unindexed_filtering_retrieve: self.unindexed_filtering_retrieve,
            unindexed_filtering_update: self.unindexed_filtering_update,
            search_max_hnsw_ef: self.search_max_hnsw_ef,
            search_allow_exact: self.search_allow_exact,
            search_max_oversampling: self.search_max_oversampling,
            upsert_max_batchsize: self.upsert_max_batchsize,
            search_max_batchsize: self.search_max_batchsize,
            max_collection_vector_size_bytes: self.max_collection_vector_size_bytes,
            read_rate_limit: from_one("read_rate_limit", self.read_rate_limit)?,
            write_rate_limit: from_one("write_rate_limit", self.write_rate_limit)?,
            max_points_count: from_one("max_points_count", self.max_points_count)?,
            filter_max_conditions: self.filter_max_conditions,
            condition_max_size: self.condition_max_size,
            multivector_config: multi.transpose()?,
            sparse_config: sparse.transpose()?,
            max_payload_index_count: self.max_payload_index_count,
        })
    }
}

/// Refuses limits on vectors that the collection does not have: they would limit nothing.
pub(super) fn check_names(strict: &StrictMode, schema: &CollectionSchema) -> Result<(), Error> {
    let kind_of = |name: &String| schema.vectors.get(name).map(|vector| vector.kind);
    let is_multi = |name: &&String| matches!(kind_of(name), Some(VectorKind::Multi));
    let is_sparse = |name: &&String| matches!(kind_of(name), Some(VectorKind::Sparse { .. }));
    let multi = strict.multivector_config.iter().flat_map(BTreeMap::keys).find(|name| !is_multi(name));
    let sparse = strict.sparse_config.iter().flat_map(BTreeMap::keys).find(|name| !is_sparse(name));
    for (config, kind, name) in
        [("multivector_config", "multivector", multi), ("sparse_config", "sparse vector", sparse)]
    {
        if let Some(name) = name {
            let is_there = schema.vectors.contains_key(name);
            let what = if is_there { format!("`{name}` is no {kind}") } else { format!("there is no {kind} `{name}`") };
            return Err(Error::BadInput(format!("`strict_mode_config.{config}`: {what} of the collection")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(body: Value) -> Result<StrictMode, Failure> {
        serde_json::from_value::<StrictModeBody>(body).unwrap().check()
    }

    #[test]
    fn what_is_given_is_shown_again() {
        let all = json!({
            "enabled": true, "max_query_limit": 10, "max_timeout": 2, "unindexed_filtering_retrieve": false,
            "unindexed_filtering_update": false, "search_max_hnsw_ef": 3, "search_allow_exact": false,
            "search_max_oversampling": 1.5, "upsert_max_batchsize": 4, "search_max_batchsize": 5,
            "max_collection_vector_size_bytes": 6, "read_rate_limit": 7, "write_rate_limit": 8, "max_points_count": 9,
            "filter_max_conditions": 0, "condition_max_size": 0, "multivector_config": {"m": {"max_vectors": 2}},
            "sparse_config": {"s": {"max_length": 3}}, "max_payload_index_count": 0});
        assert_eq!(check(all.clone()).unwrap().shown(), all);
        assert_eq!(check(json!({})).unwrap(), StrictMode::default());
        assert_eq!(check(json!({"enabled": null, "max_timeout": null})).unwrap(), StrictMode::default());
    }

    #[test]
    fn values_out_of_range_and_limits_that_cannot_hold_are_refused_by_name() {
        for (body, status, part) in [
            (json!({"max_query_limit": 0}), 422, "strict_mode_config.max_query_limit: value 0 invalid"),
            (json!({"read_rate_limit": 0}), 422, "read_rate_limit"),
            (json!({"sparse_config": {"s": {"max_length": 0}}}), 422, "sparse_config.s.max_length"),
            (json!({"search_max_oversampling": -1.0}), 422, "search_max_oversampling"),
            (
                json!({"max_collection_payload_size_bytes": 1}),
                400,
                "max_collection_payload_size_bytes` is not supported",
            ),
            (json!({"max_resident_memory_percent": 1}), 400, "max_resident_memory_percent` is not supported"),
        ] {
            let failure = check(body.clone()).unwrap_err();
            assert_eq!(failure.status.as_u16(), status, "{body}");
            assert!(failure.text.contains(part), "{body}: {}", failure.text);
        }
    }
}
