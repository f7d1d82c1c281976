//! Restrictions of a collection's requests, chosen by its owner. Here they are as they are stored; what a request asks for
//! is compared with them at the edge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What requests may not do although it would work, in the API's words. Nothing counts unless `enabled`; what is `None`
/// is not restricted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StrictMode {
    /// Whether the rest counts.
    pub enabled: Option<bool>,
    /// Largest `limit` of a query, a prefetch or a page.
    pub max_query_limit: Option<u64>,
    /// Largest `timeout` that a request may name, in seconds.
    pub max_timeout: Option<u64>,
    /// `false`: reads may filter on indexed fields only.
    pub unindexed_filtering_retrieve: Option<bool>,
    /// `false`: changes may filter on indexed fields only.
    pub unindexed_filtering_update: Option<bool>,
    /// Largest query beam that a query may name.
    pub search_max_hnsw_ef: Option<u64>,
    /// `false`: no exact searches and counts.
    pub search_allow_exact: Option<bool>,
    /// Largest oversampling that a query may name.
    pub search_max_oversampling: Option<f64>,
    /// Most points in one upsert or update of vectors.
    pub upsert_max_batchsize: Option<u64>,
    /// Most queries in one batch.
    pub search_max_batchsize: Option<u64>,
    /// Bytes of vectors from which on no more are taken.
    pub max_collection_vector_size_bytes: Option<u64>,
    /// Reads per minute at one coordinator.
    pub read_rate_limit: Option<u64>,
    /// Writes per minute at one coordinator.
    pub write_rate_limit: Option<u64>,
    /// Points from which on no more are taken.
    pub max_points_count: Option<u64>,
    /// Most conditions of one filter.
    pub filter_max_conditions: Option<u64>,
    /// Most values in one condition of a filter.
    pub condition_max_size: Option<u64>,
    /// Limits of multivectors, by the vector's name.
    pub multivector_config: Option<BTreeMap<String, MultivectorLimits>>,
    /// Limits of sparse vectors, by the vector's name.
    pub sparse_config: Option<BTreeMap<String, SparseLimits>>,
    /// Most payload indexes.
    pub max_payload_index_count: Option<u64>,
}

/// Limits of the multivectors of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultivectorLimits {
    /// Most vectors in one.
    pub max_vectors: Option<u64>,
}

/// Limits of the sparse vectors of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseLimits {
    /// Most values in one.
    pub max_length: Option<u64>,
}

impl StrictMode {
    /// The restrictions, when they count.
    pub fn enforced(&self) -> Option<&StrictMode> {
        (self.enabled == Some(true)).then_some(self)
    }

    /// The same after a change: what `change` leaves out stays as it is.
    pub fn changed(&self, change: &StrictMode) -> StrictMode {
        let (old, new) = (self.clone(), change.clone());
        StrictMode {
            enabled: new.enabled.or(old.enabled),
            max_query_limit: new.max_query_limit.or(old.max_query_limit),
            max_timeout: new.max_timeout.or(old.max_timeout),
            unindexed_filtering_retrieve: new.unindexed_filtering_retrieve.or(old.unindexed_filtering_retrieve),
            unindexed_filtering_update: new.unindexed_filtering_update.or(old.unindexed_filtering_update),
            search_max_hnsw_ef: new.search_max_hnsw_ef.or(old.search_max_hnsw_ef),
            search_allow_exact: new.search_allow_exact.or(old.search_allow_exact),
            search_max_oversampling: new.search_max_oversampling.or(old.search_max_oversampling),
            upsert_max_batchsize: new.upsert_max_batchsize.or(old.upsert_max_batchsize),
            search_max_batchsize: new.search_max_batchsize.or(old.search_max_batchsize),
            max_collection_vector_size_bytes: new
                .max_collection_vector_size_bytes
                .or(old.max_collection_vector_size_bytes),
            read_rate_limit: new.read_rate_limit.or(old.read_rate_limit),
            write_rate_limit: new.write_rate_limit.or(old.write_rate_limit),
            max_points_count: new.max_points_count.or(old.max_points_count),
            filter_max_conditions: new.filter_max_conditions.or(old.filter_max_conditions),
            condition_max_size: new.condition_max_size.or(old.condition_max_size),
            multivector_config: new.multivector_config.or(old.multivector_config),
            sparse_config: new.sparse_config.or(old.sparse_config),
            max_payload_index_count: new.max_payload_index_count.or(old.max_payload_index_count),
        }
    }

    /// As the API shows it: what is set; `null` when nothing is.
    pub fn shown(&self) -> Value {
        match serde_json::to_value(self).map(without_nulls) {
            Ok(Value::Object(fields)) if !fields.is_empty() => Value::Object(fields),
            // A structure of options has a JSON form in any case.
            Ok(_) | Err(_) => Value::Null,
        }
    }

    /// Refuses one payload index too many. The text is for the client.
    pub fn check_index_count(&self, indexes: usize) -> Result<(), String> {
        match self.enforced().and_then(|strict| strict.max_payload_index_count) {
            Some(limit) if indexes as u64 > limit => Err(format!(
                "Collection already has the maximum number of payload indices ({limit}). Help: Please delete an existing \
                 index before creating a new one."
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a multivector of too many vectors. The text is for the client.
    pub fn check_multivector(&self, name: &str, vectors: usize) -> Result<(), String> {
        let limits = self.enforced().and_then(|strict| strict.multivector_config.as_ref()?.get(name));
        match limits.and_then(|limits| limits.max_vectors) {
            Some(limit) if vectors as u64 > limit => {
                Err(format!("Multivector '{name}' has a limit of {limit} vectors, but {vectors} were provided!"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a sparse vector of too many values. The text is for the client.
    pub fn check_sparse(&self, name: &str, values: usize) -> Result<(), String> {
        let limits = self.enforced().and_then(|strict| strict.sparse_config.as_ref()?.get(name));
        match limits.and_then(|limits| limits.max_length) {
            Some(limit) if values as u64 > limit => {
                Err(format!("Sparse vector '{name}' has a limit of {limit} indices, but {values} were provided!"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_set_is_shown_and_what_a_change_leaves_out_stays() {
        assert_eq!(StrictMode::default().shown(), Value::Null);
        let sparse = BTreeMap::from([("s".to_owned(), SparseLimits { max_length: Some(4) })]);
        let strict = StrictMode { enabled: Some(true), sparse_config: Some(sparse), ..StrictMode::default() };
        assert_eq!(strict.shown(), json!({"enabled": true, "sparse_config": {"s": {"max_length": 4}}}));
        let change = StrictMode { enabled: Some(false), write_rate_limit: Some(3), ..StrictMode::default() };
        let changed = strict.changed(&change);
        assert_eq!(
            changed.shown(),
            json!({"enabled": false, "write_rate_limit": 3, "sparse_config": {"s": {"max_length": 4}}})
        );
        assert_eq!(changed.changed(&StrictMode::default()), changed);
        assert!(strict.enforced().is_some() && changed.enforced().is_none());
    }

    #[test]
    fn limits_of_single_vectors_count_when_enabled() {
        let multi = BTreeMap::from([("m".to_owned(), MultivectorLimits { max_vectors: Some(2) })]);
        let sparse = BTreeMap::from([("s".to_owned(), SparseLimits { max_length: Some(4) })]);
        let mut strict = StrictMode {
            enabled: Some(true),
            multivector_config: Some(multi),
            sparse_config: Some(sparse),
            max_payload_index_count: Some(1),
            ..StrictMode::default()
        };
        assert!(strict.check_multivector("m", 2).is_ok() && strict.check_multivector("other", 9).is_ok());
        let refused = strict.check_multivector("m", 3).unwrap_err();
        assert_eq!(refused, "Multivector 'm' has a limit of 2 vectors, but 3 were provided!");
        let refused = strict.check_sparse("s", 6).unwrap_err();
        assert_eq!(refused, "Sparse vector 's' has a limit of 4 indices, but 6 were provided!");
        assert!(strict.check_index_count(1).is_ok());
        assert!(strict.check_index_count(2).unwrap_err().contains("maximum number of payload indices (1)"));
        strict.enabled = Some(false);
        assert!(strict.check_sparse("s", 6).is_ok() && strict.check_index_count(2).is_ok());
    }
}
