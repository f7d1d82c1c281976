//! The body that changes a collection.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use vicinal_common::collection::{VectorKind, VectorSchema};
use vicinal_common::error::Error;
use vicinal_common::point::UNNAMED;
use vicinal_common::tuning::GraphPlacementChange;

use super::super::answer::Failure;
use super::collection::{check_write_factor, metadata};
use super::hnsw::HnswBody;
use super::quantization::{Quantization, QuantizationBody};
use super::routing::{RoutingBody, check_replicated};
use super::settings::{Memory, OptimizersBody, PayloadBody, none, object, only};
use super::strict::{StrictModeBody, check_names};
use super::update::Object;
use super::{Unsupported, refuse_all};
use crate::meta::{Collection, CollectionChange, Routing, is_single};

/// Body that changes a collection. Vectors are named, the unnamed one by the empty name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ChangeBody {
    #[serde(default, deserialize_with = "object")]
    hnsw_config: Option<HnswBody>,
    vectors: Option<BTreeMap<String, Object<VectorChangeBody>>>,
    #[serde(default, deserialize_with = "object")]
    optimizers_config: Option<OptimizersBody>,
    #[serde(default, deserialize_with = "object")]
    params: Option<ParamsBody>,
    quantization_config: Option<QuantizationBody>,
    #[serde(default, deserialize_with = "object")]
    strict_mode_config: Option<StrictModeBody>,
    metadata: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "object")]
    routing: Option<RoutingBody>,
    #[serde(default)]
    sparse_vectors: Unsupported,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorChangeBody {
    #[serde(default, deserialize_with = "object")]
    hnsw_config: Option<HnswBody>,
    quantization_config: Option<QuantizationBody>,
    on_disk: Option<bool>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParamsBody {
    replication_factor: Option<u32>,
    write_consistency_factor: Option<u32>,
    read_fan_out_factor: Option<u32>,
    read_fan_out_delay_ms: Option<u64>,
    on_disk_payload: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    payload: Option<PayloadBody>,
}

impl ChangeBody {
    /// The change, checked against the collection it is meant for.
    pub(in super::super) fn into_change(self, collection: &Collection) -> Result<CollectionChange, Failure> {
        refuse_all(&[("sparse_vectors", self.sparse_vectors)])?;
        let stored: Value = serde_json::from_str(&collection.config_json)
            .map_err(|e| Error::Corrupt(format!("the collection's stored configuration: {e}")))?;
        let schema = &collection.schema;
        let routing = self.routing.map(|routing| routing.into_change(collection)).transpose()?.flatten();
        let mut change = CollectionChange { routing, ..CollectionChange::default() };
        let mut patch = json!({});
        if let Some(hnsw) = self.hnsw_config {
            hnsw.check_shape(schema.hnsw, "")?;
            change.graphs.on_disk = hnsw.placement("")?;
        }
        if let Some(threshold) = self.optimizers_config.map(OptimizersBody::threshold).transpose()?.flatten() {
            let why = "graphs of the segments that there are depend on it";
            only("optimizers_config.indexing_threshold", Some(threshold), &[schema.indexing_threshold_kib], why)?;
        }
        if let Some(params) = self.params {
            let (factor, shown) = params.check(collection)?;
            change.write_consistency_factor = factor;
            patch["params"] = shown;
        }
        let vectors = self.vectors.unwrap_or_default();
        let names_codes = self.quantization_config.is_some()
            || vectors.values().any(|Object(body)| body.quantization_config.is_some());
        let mut quantization = known_quantization(&stored);
        for (name, Object(body)) in vectors {
            let shown = body.check(&name, collection, &mut change.graphs, &mut quantization)?;
            let vectors = &mut patch["params"]["vectors"];
            if is_single(&stored["params"]["vectors"]) && name == UNNAMED {
                *vectors = shown;
            } else {
                vectors[name.as_str()] = shown;
            }
        }
        if let Some(body) = self.quantization_config {
            patch["quantization_config"] = body.check("quantization_config", body_on_disk(&change, collection))?;
            quantization.common = Some(body);
        }
        // What is stored is not judged again by a request that is about something else.
        if names_codes || change.graphs != GraphPlacementChange::default() {
            quantization.check(schema.vectors.keys(), &collection.tuning.graphs.changed(&change.graphs))?;
        }
        if let Some(strict) = self.strict_mode_config {
            let strict = strict.check()?;
            check_names(&strict, schema)?;
            change.strict = Some(strict);
        }
        change.metadata_json = self.metadata.as_ref().map(metadata).transpose()?;
        change.config_json = patch.as_object().is_some_and(|patch| !patch.is_empty()).then(|| patch.to_string());
        Ok(change)
    }
}

fn body_on_disk(change: &CollectionChange, collection: &Collection) -> bool {
    change.graphs.on_disk.unwrap_or(collection.tuning.graphs.on_disk)
}

/// What an existing collection says of codes.
fn known_quantization(stored: &Value) -> Quantization {
    let body = |value: &Value| serde_json::from_value::<QuantizationBody>(value["quantization_config"].clone()).ok();
    let vectors = &stored["params"]["vectors"];
    let own = match (is_single(vectors), vectors) {
        (true, vector) => body(vector).map(|own| (UNNAMED.to_owned(), own)).into_iter().collect(),
        (false, Value::Object(named)) => {
            named.iter().filter_map(|(name, vector)| Some((name.clone(), body(vector)?))).collect()
        }
        (false, _) => BTreeMap::new(),
    };
    Quantization { common: body(stored), own }
}

impl VectorChangeBody {
    /// How it is shown. What it says of graphs and codes goes to `graphs` and `quantization`.
    fn check(
        self,
        name: &str,
        collection: &Collection,
        graphs: &mut GraphPlacementChange,
        quantization: &mut Quantization,
    ) -> Result<Value, Failure> {
        // Sparse vectors have a field of their own.
        let is_sparse = |vector: &&VectorSchema| matches!(vector.kind, VectorKind::Sparse { .. });
        let known = collection.schema.vectors.get(name).filter(|vector| !is_sparse(vector));
        let Some(vector) = known else {
            return Err(Error::BadInput(format!("Not existing vector name error: {name}")).into());
        };
        let prefix = format!("vectors.{name}.");
        if let Some(hnsw) = self.hnsw_config {
            hnsw.check_shape(vector.hnsw.unwrap_or(collection.schema.hnsw), &prefix)?;
            let own = hnsw.placement(&prefix)?;
            // An empty object takes all that a vector says of its own away, and how graphs are built cannot change.
            if hnsw.is_empty() && vector.hnsw.is_some() {
                return Err(Error::BadInput(format!(
                    "taking `{prefix}hnsw_config` away would change how its graph is built, which is not supported"
                ))
                .into());
            }
            if own.is_some() || hnsw.is_empty() {
                graphs.vectors.insert(name.to_owned(), own);
            }
        }
        let mut shown = json!({});
        if let Some(body) = self.quantization_config {
            let after = collection.tuning.graphs.changed(graphs);
            shown["quantization_config"] =
                body.check_own(&format!("{prefix}quantization_config"), after.is_on_disk(name))?;
            quantization.own.insert(name.to_owned(), body);
        }
        if let Some(on_disk) = self.on_disk {
            shown["on_disk"] = json!(on_disk);
        }
        if let Some(memory) = self.memory {
            shown["memory"] = json!(memory.mapped(&format!("{prefix}memory"))?);
        }
        Ok(shown)
    }
}

impl ParamsBody {
    /// The new number of replicas that a write waits for, and how the parameters are shown.
    fn check(self, collection: &Collection) -> Result<(Option<u32>, Value), Failure> {
        if collection.routing == Routing::Replicate {
            check_replicated("params.", self.replication_factor, self.write_consistency_factor)?;
        }
        let why = "replicas are neither added nor removed; a node that is gone is replaced";
        only("params.replication_factor", self.replication_factor, &[collection.replication_factor], why)?;
        let why = "slow reads go to a second replica by themselves";
        none("params.read_fan_out_factor", self.read_fan_out_factor, why)?;
        none("params.read_fan_out_delay_ms", self.read_fan_out_delay_ms, why)?;
        let mut shown = json!({});
        if let Some(factor) = self.write_consistency_factor {
            check_write_factor("params.write_consistency_factor", factor, collection.replication_factor)?;
            shown["write_consistency_factor"] = json!(factor);
        }
        if let Some(on_disk) = self.on_disk_payload {
            shown["on_disk_payload"] = json!(on_disk);
        }
        if let Some(payload) = self.payload.map(|body| body.check("params.payload")).transpose()?.flatten() {
            shown["payload"] = payload;
        }
        Ok((self.write_consistency_factor, shown))
    }
}
