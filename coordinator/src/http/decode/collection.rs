//! Bodies that shape collections: create, and changes of aliases.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorKind, VectorSchema};
use vicinal_common::error::Error;
use vicinal_common::limits::{BATCH_OPERATIONS_MAX, DIM_MAX, NAME_BYTES_MAX, REPLICATION_MAX, VECTOR_NAMES_MAX};
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::UNNAMED;
use vicinal_common::tuning::GraphPlacement;
use vicinal_common::vector::Datatype;

use super::super::answer::Failure;
use super::Unsupported;
use super::hnsw::HnswBody;
use super::quantization::{Quantization, QuantizationBody};
use super::routing::{Layout, Numbers, RoutingBody, layout};
use super::settings::{Memory, OptimizersBody, PayloadBody, WalBody, none, object, unsupported};
use super::strict::{StrictModeBody, check_names};
use super::update::Object;
use crate::meta::{AliasChange, Routing, StrictMode, check_metadata_size};

/// Body that creates a collection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct CreateBody {
    vectors: Option<Value>,
    shard_number: Option<u32>,
    #[serde(default, deserialize_with = "object")]
    routing: Option<RoutingBody>,
    sharding_method: Option<String>,
    replication_factor: Option<u32>,
    write_consistency_factor: Option<u32>,
    on_disk_payload: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    hnsw_config: Option<HnswBody>,
    #[serde(default, deserialize_with = "object")]
    optimizers_config: Option<OptimizersBody>,
    #[serde(default, deserialize_with = "object")]
    payload: Option<PayloadBody>,
    #[serde(default, deserialize_with = "object")]
    wal_config: Option<WalBody>,
    quantization_config: Option<QuantizationBody>,
    sparse_vectors: Option<BTreeMap<String, Object<SparseBody>>>,
    #[serde(default, deserialize_with = "object")]
    strict_mode_config: Option<StrictModeBody>,
    metadata: Option<Map<String, Value>>,
    init_from: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorBody {
    size: usize,
    distance: Metric,
    #[serde(default, deserialize_with = "object")]
    hnsw_config: Option<HnswBody>,
    on_disk: Option<bool>,
    datatype: Option<String>,
    quantization_config: Option<QuantizationBody>,
    memory: Option<Memory>,
    #[serde(default, deserialize_with = "object")]
    multivector_config: Option<MultivectorBody>,
}

/// A collection to create.
pub(in super::super) struct NewCollection {
    /// Its schema.
    pub(in super::super) schema: CollectionSchema,
    /// How points are spread over the shards.
    pub(in super::super) routing: Routing,
    /// Shards, when the client chose, or has no choice.
    pub(in super::super) shard_number: Option<u32>,
    /// Replicas per shard.
    pub(in super::super) replication_factor: u32,
    /// Replicas a write waits for.
    pub(in super::super) write_consistency_factor: u32,
    /// What requests may not do.
    pub(in super::super) strict: StrictMode,
    /// Where open graphs are.
    pub(in super::super) graphs: GraphPlacement,
    /// The `config` that describes the collection, except for what is decided later or can change.
    pub(in super::super) config: Value,
}

pub(super) fn invalid(field: impl Into<String>, value: impl std::fmt::Display, bound: &str) -> Failure {
    let message = format!("value {value} invalid, must be {bound}");
    Error::Validation { field: field.into(), message }.into()
}

pub(super) fn in_range(field: &str, value: u32, most: u32) -> Result<(), Failure> {
    match value {
        0 => Err(invalid(field, value, "1 or larger")),
        _ if value > most => Err(invalid(field, value, &format!("{most} or smaller"))),
        _ => Ok(()),
    }
}

/// Checks how many replicas a write shall wait for. It waits for the majority that raft needs, which may be more than was
/// asked for, never less.
pub(super) fn check_write_factor(field: &str, factor: u32, replicas: u32) -> Result<(), Failure> {
    in_range(field, factor, REPLICATION_MAX)?;
    let majority = replicas / 2 + 1;
    if factor > majority {
        let bound = format!("{majority} or smaller: a write waits for a majority of {replicas} replicas");
        return Err(invalid(field, factor, &bound));
    }
    Ok(())
}

/// The JSON text of an owner's metadata. As deep as a payload, at most.
pub(super) fn metadata(fields: &Map<String, Value>) -> Result<String, Failure> {
    let deep = |error: Error| Error::BadInput(error.to_string().replace("Wrong input: payload", "`metadata`"));
    Payload::from_fields(fields).map_err(deep)?;
    let text = serde_json::to_string(fields).map_err(|e| Error::Internal(format!("encode metadata: {e}")))?;
    check_metadata_size(text.len())?;
    Ok(text)
}

impl CreateBody {
    /// Checks the body. There are `default_shards` shards where it does not say.
    pub(in super::super) fn into_collection(self, default_shards: u32) -> Result<NewCollection, Failure> {
        none("init_from", self.init_from, "scroll the other collection with its vectors, and upsert what comes")?;
        match self.sharding_method.as_deref() {
            None | Some("auto") => {}
            Some("custom") => {
                let why = "points are spread over shards by their ids alone";
                return Err(unsupported("sharding_method: custom", why));
            }
            Some(other) => {
                let text = format!("Format error in JSON body: `sharding_method`: unknown variant `{other}`");
                return Err(Failure::new(StatusCode::BAD_REQUEST, text));
            }
        }
        let given = self.hnsw_config.unwrap_or_default();
        let hnsw = given.shape_over(HnswConfig::default(), "")?.unwrap_or_default();
        let threshold = self.optimizers_config.map(OptimizersBody::threshold).transpose()?.flatten();
        let indexing_threshold_kib = threshold.unwrap_or(CollectionSchema::INDEXING_THRESHOLD_KIB);
        self.wal_config.unwrap_or_default().check()?;
        let Vectors { schemas: mut vectors, on_disk, shown, quantization: own } = vectors(self.vectors, hnsw)?;
        let sparse_shown = add_sparse(&mut vectors, self.sparse_vectors.unwrap_or_default())?;
        let schema = CollectionSchema { vectors, hnsw, indexing_threshold_kib };
        let numbers = Numbers {
            shard_number: self.shard_number,
            replication_factor: self.replication_factor,
            write_consistency_factor: self.write_consistency_factor,
        };
        let Layout { routing, shard_number, replication_factor, write_consistency_factor } =
            layout(self.routing, &numbers, &schema, default_shards)?;
        let graphs = GraphPlacement { on_disk: given.on_disk().unwrap_or(false), vectors: on_disk };
        let common = self.quantization_config;
        let quantized = common.as_ref().map(|body| body.check("quantization_config", graphs.on_disk)).transpose()?;
        Quantization { common, own }.check(schema.vectors.keys(), &graphs)?;
        let strict = self.strict_mode_config.unwrap_or_default().check()?;
        let mut config = json!({
            "params": {
                "vectors": shown,
                "replication_factor": replication_factor,
                "write_consistency_factor": write_consistency_factor,
                "on_disk_payload": self.on_disk_payload.unwrap_or(true),
            },
            "hnsw_config": {
                "m": hnsw.m,
                "ef_construct": hnsw.ef_construction,
                "full_scan_threshold": 0,
                "max_indexing_threads": 0,
            },
            "optimizer_config": OptimizersBody::shown(indexing_threshold_kib),
            "wal_config": WalBody::shown(),
            "quantization_config": quantized,
        });
        if routing == Routing::Replicate
            && let Value::Object(params) = &mut config["params"]
        {
            // It follows the number of nodes.
            params.remove("replication_factor");
        }
        if let Some(payload) = self.payload.map(|body| body.check("payload")).transpose()?.flatten() {
            config["params"]["payload"] = payload;
        }
        if let Some(fields) = self.metadata {
            metadata(&fields)?;
            config["metadata"] = Value::Object(fields);
        }
        if !sparse_shown.is_empty() {
            config["params"]["sparse_vectors"] = Value::Object(sparse_shown);
        }
        check_names(&strict, &schema)?;
        Ok(NewCollection {
            schema,
            routing,
            shard_number,
            replication_factor,
            write_consistency_factor,
            strict,
            graphs,
            config,
        })
    }
}

/// The vectors of a new collection.
struct Vectors {
    schemas: BTreeMap<String, VectorSchema>,
    /// Where open graphs are, for vectors that say so.
    on_disk: BTreeMap<String, bool>,
    /// How they are shown later.
    shown: Value,
    /// What is said of codes, for vectors that say so.
    quantization: BTreeMap<String, QuantizationBody>,
}

fn vectors(value: Option<Value>, base: HnswConfig) -> Result<Vectors, Failure> {
    let malformed = |text: String| Failure::new(StatusCode::BAD_REQUEST, format!("Format error in JSON body: {text}"));
    let fields = match value {
        Some(Value::Object(fields)) => fields,
        None | Some(Value::Null) => serde_json::Map::new(),
        Some(_) => {
            let text = "`vectors` must be {\"size\": ..., \"distance\": ...} or an object of such by name";
            return Err(malformed(text.into()));
        }
    };
    let is_single = fields.values().any(|value| !value.is_object());
    let bodies: Vec<(String, Value)> = match is_single {
        true => vec![(UNNAMED.to_owned(), Value::Object(fields))],
        false => fields.into_iter().collect(),
    };
    if bodies.len() > VECTOR_NAMES_MAX {
        return Err(invalid("vectors", format!("of {} names", bodies.len()), &format!("{VECTOR_NAMES_MAX} or fewer")));
    }
    let mut schemas = BTreeMap::new();
    let mut on_disk = BTreeMap::new();
    let mut quantization = BTreeMap::new();
    let mut shown = serde_json::Map::new();
    for (name, body) in bodies {
        let prefix = if is_single { "vectors.".to_owned() } else { format!("vectors.{name}.") };
        let body: VectorBody = serde_json::from_value(body).map_err(|e| malformed(format!("vectors: {e}")))?;
        let own = body.hnsw_config.and_then(HnswBody::on_disk);
        quantization.extend(body.quantization_config.clone().map(|own| (name.clone(), own)));
        let (schema, config) = body.into_schema(base, &prefix)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(invalid("vectors", format!("`{name}`"), &format!("a name of up to {NAME_BYTES_MAX} bytes")));
        }
        schemas.insert(name.clone(), schema);
        on_disk.extend(own.map(|own| (name.clone(), own)));
        shown.insert(name, config);
    }
    // `{"": ...}` is the unnamed vector too.
    let shown = match schemas.len() == 1 && schemas.contains_key(UNNAMED) {
        true => shown.remove(UNNAMED).unwrap_or_default(),
        false => Value::Object(shown),
    };
    Ok(Vectors { schemas, on_disk, shown, quantization })
}

impl VectorBody {
    fn into_schema(self, base: HnswConfig, prefix: &str) -> Result<(VectorSchema, Value), Failure> {
        let datatype = datatype(&format!("{prefix}datatype"), self.datatype.as_deref())?;
        if datatype == Datatype::Uint8 && self.distance == Metric::Cosine {
            // Stored vectors are normalised for the cosine, and have nothing left at this precision.
            let text = format!("`{prefix}datatype` uint8 with distance Cosine is not supported, use Dot or float16");
            return Err(Error::BadInput(text).into());
        }
        let kind = match &self.multivector_config {
            None => VectorKind::Dense,
            Some(MultivectorBody { comparator: Comparator::MaxSim }) => VectorKind::Multi,
        };
        if !(1..=DIM_MAX).contains(&self.size) {
            return Err(invalid(format!("{prefix}size"), self.size, &format!("from 1 to {DIM_MAX}")));
        }
        let hnsw = self.hnsw_config.map(|body| body.shape_over(base, prefix)).transpose()?.flatten();
        if kind == VectorKind::Multi {
            let why = "is not supported for multivectors: they are scanned, without a graph or codes";
            if hnsw.is_some_and(|hnsw| hnsw.m > 0) {
                return Err(Error::BadInput(format!("`{prefix}hnsw_config` with `m` above 0 {why}")).into());
            }
            if matches!(self.quantization_config, Some(QuantizationBody::Kinds(_))) {
                return Err(Error::BadInput(format!("`{prefix}quantization_config` {why}")).into());
            }
        }
        let mut shown = json!({"size": self.size, "distance": self.distance});
        if let Some(hnsw) = hnsw {
            shown["hnsw_config"] = json!({"m": hnsw.m, "ef_construct": hnsw.ef_construction});
        }
        if let Some(on_disk) = self.on_disk {
            shown["on_disk"] = json!(on_disk);
        }
        if let Some(memory) = self.memory {
            shown["memory"] = json!(memory.mapped(&format!("{prefix}memory"))?);
        }
        match self.quantization_config {
            Some(QuantizationBody::Kinds(kinds)) => shown["quantization_config"] = Value::Object(kinds),
            // Goes before what is said of all vectors, so it is kept.
            Some(QuantizationBody::Disabled(word)) => shown["quantization_config"] = json!(word),
            None => {}
        }
        if let Some(datatype) = self.datatype {
            shown["datatype"] = json!(datatype);
        }
        if kind == VectorKind::Multi {
            shown["multivector_config"] = json!({"comparator": "max_sim"});
        }
        Ok((VectorSchema { kind, dim: self.size, metric: self.distance, datatype, hnsw }, shown))
    }
}

fn datatype(field: &str, given: Option<&str>) -> Result<Datatype, Failure> {
    match given {
        None | Some("float32") => Ok(Datatype::Float32),
        Some("float16") => Ok(Datatype::Float16),
        Some("uint8") => Ok(Datatype::Uint8),
        Some(other) => Err(invalid(field, format!("`{other}`"), "float32, float16 or uint8")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MultivectorBody {
    comparator: Comparator,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Comparator {
    MaxSim,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SparseBody {
    #[serde(default, deserialize_with = "object")]
    index: Option<SparseIndexBody>,
    modifier: Option<Modifier>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Modifier {
    None,
    Idf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SparseIndexBody {
    /// Our inverted index is exact, and never slower than a scan for long: any threshold gives the same hits.
    full_scan_threshold: Option<u64>,
    /// Inverted indexes are mapped files in any case, as fast as memory while there is memory for them.
    on_disk: Option<bool>,
    #[serde(default)]
    memory: Unsupported,
    datatype: Option<String>,
}

/// Adds the sparse vectors of a new collection; how they are shown later.
fn add_sparse(
    schemas: &mut BTreeMap<String, VectorSchema>,
    bodies: BTreeMap<String, Object<SparseBody>>,
) -> Result<serde_json::Map<String, Value>, Failure> {
    if schemas.len() + bodies.len() > VECTOR_NAMES_MAX {
        let count = schemas.len() + bodies.len();
        let bound = format!("{VECTOR_NAMES_MAX} or fewer together with `vectors`");
        return Err(invalid("sparse_vectors", format!("of {count} names"), &bound));
    }
    let mut all = serde_json::Map::new();
    for (name, Object(body)) in bodies {
        let field = format!("sparse_vectors.{name}");
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let bound = format!("a name of 1 to {NAME_BYTES_MAX} bytes");
            return Err(invalid("sparse_vectors", format!("`{name}`"), &bound));
        }
        let mut shown = json!({});
        let mut schema = VectorSchema::sparse(body.modifier == Some(Modifier::Idf));
        if let Some(index) = body.index {
            index.memory.refuse(&format!("{field}.index.memory"))?;
            schema.datatype = datatype(&format!("{field}.index.datatype"), index.datatype.as_deref())?;
            if schema.datatype == Datatype::Uint8 {
                let text = format!("`{field}.index.datatype` uint8 is not supported, use float16 or float32");
                return Err(Error::BadInput(text).into());
            }
            shown["index"] = json!({
                "full_scan_threshold": index.full_scan_threshold,
                "on_disk": index.on_disk,
                "datatype": index.datatype,
            });
        }
        if let Some(modifier) = body.modifier {
            shown["modifier"] = json!(if modifier == Modifier::Idf { "idf" } else { "none" });
        }
        if schemas.insert(name.clone(), schema).is_some() {
            return Err(invalid("sparse_vectors", format!("`{name}`"), "a name that `vectors` does not have"));
        }
        all.insert(name, shown);
    }
    Ok(all)
}

/// Body that changes aliases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct AliasesBody {
    actions: Vec<AliasAction>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
enum AliasAction {
    #[serde(rename = "create_alias")]
    Create { collection_name: String, alias_name: String },
    #[serde(rename = "delete_alias")]
    Delete { alias_name: String },
    #[serde(rename = "rename_alias")]
    Rename { old_alias_name: String, new_alias_name: String },
}

impl AliasesBody {
    /// The changes in order. Names of new aliases are checked.
    pub(in super::super) fn into_changes(self) -> Result<Vec<AliasChange>, Failure> {
        let change = |action| match action {
            AliasAction::Create { collection_name, alias_name } => {
                check_name(NamePlace::Body, "alias_name", &alias_name)?;
                Ok(AliasChange::Create { alias: alias_name, collection: collection_name })
            }
            AliasAction::Delete { alias_name } => Ok(AliasChange::Delete { alias: alias_name }),
            AliasAction::Rename { old_alias_name, new_alias_name } => {
                check_name(NamePlace::Body, "new_alias_name", &new_alias_name)?;
                Ok(AliasChange::Rename { from: old_alias_name, to: new_alias_name })
            }
        };
        if self.actions.len() > BATCH_OPERATIONS_MAX {
            let message = format!("{} actions, allowed are {BATCH_OPERATIONS_MAX} or fewer", self.actions.len());
            return Err(Error::Validation { field: "actions".into(), message }.into());
        }
        self.actions.into_iter().map(change).collect()
    }
}

/// Where in a request a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum NamePlace {
    /// In the path.
    Path,
    /// In the body.
    Body,
}

/// Checks the name of a new collection or alias.
pub(in super::super) fn check_name(place: NamePlace, field: &str, name: &str) -> Result<(), Failure> {
    let refuse = |message: String| {
        let place = match place {
            NamePlace::Path => "path parameters",
            NamePlace::Body => "JSON body",
        };
        let text = format!("Validation error in {place}: [{field}: {message}]");
        Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, text))
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return refuse(format!("value {name:?} invalid, must be from 1 to {NAME_BYTES_MAX} bytes of UTF-8"));
    }
    // Most clients fold these into the path before they send it, so the collection could not be reached.
    if matches!(name, "." | "..") {
        return refuse(format!("value {name:?} invalid, must not be a path of its own"));
    }
    let forbidden = |c: char| c.is_control() || matches!(c, '<' | '>' | ':' | '"' | '/' | '\\' | '|' | '?' | '*');
    match name.chars().find(|c| forbidden(*c)) {
        Some(c) => refuse(format!("value {name:?} invalid, must not contain {c:?}")),
        None => Ok(()),
    }
}
