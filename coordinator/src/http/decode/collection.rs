//! Bodies that shape collections: create, and changes of aliases.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorKind, VectorSchema};
use vicinal_common::error::Error;
use vicinal_common::limits::{DIM_MAX, NAME_BYTES_MAX, REPLICATION_MAX, SHARDS_PER_COLLECTION_MAX, VECTOR_NAMES_MAX};
use vicinal_common::metric::Metric;
use vicinal_common::point::UNNAMED;
use vicinal_common::tuning::GraphPlacement;
use vicinal_common::vector::Datatype;

use super::super::answer::Failure;
use super::hnsw::HnswBody;
use super::strict::StrictModeBody;
use super::{Unsupported, refuse_all};
use crate::meta::{AliasChange, StrictMode};

/// Body that creates a collection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct CreateBody {
    vectors: Option<Value>,
    shard_number: Option<u32>,
    sharding_method: Option<String>,
    replication_factor: Option<u32>,
    write_consistency_factor: Option<u32>,
    on_disk_payload: Option<bool>,
    hnsw_config: Option<HnswBody>,
    optimizers_config: Option<OptimizersBody>,
    #[serde(default)]
    payload: Unsupported,
    #[serde(default)]
    wal_config: Unsupported,
    #[serde(default)]
    quantization_config: Unsupported,
    sparse_vectors: Option<BTreeMap<String, SparseBody>>,
    strict_mode_config: Option<StrictModeBody>,
    #[serde(default)]
    metadata: Unsupported,
    #[serde(default)]
    init_from: Unsupported,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizersBody {
    indexing_threshold: Option<u64>,
    #[serde(default)]
    deleted_threshold: Unsupported,
    #[serde(default)]
    vacuum_min_vector_number: Unsupported,
    #[serde(default)]
    default_segment_number: Unsupported,
    #[serde(default)]
    max_segment_size: Unsupported,
    #[serde(default)]
    memmap_threshold: Unsupported,
    #[serde(default)]
    flush_interval_sec: Unsupported,
    #[serde(default)]
    max_optimization_threads: Unsupported,
    #[serde(default)]
    prevent_unoptimized: Unsupported,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorBody {
    size: usize,
    distance: Metric,
    hnsw_config: Option<HnswBody>,
    on_disk: Option<bool>,
    datatype: Option<String>,
    #[serde(default)]
    quantization_config: Unsupported,
    #[serde(default)]
    memory: Unsupported,
    multivector_config: Option<MultivectorBody>,
}

/// A collection to create.
pub(in super::super) struct NewCollection {
    /// Its schema.
    pub(in super::super) schema: CollectionSchema,
    /// Shards, when the client chose.
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

fn in_range(field: &str, value: u32, most: u32) -> Result<(), Failure> {
    match value {
        0 => Err(invalid(field, value, "1 or larger")),
        _ if value > most => Err(invalid(field, value, &format!("{most} or smaller"))),
        _ => Ok(()),
    }
}

impl CreateBody {
    /// Checks the body.
    pub(in super::super) fn into_collection(self) -> Result<NewCollection, Failure> {
        refuse_all(&[
            ("payload", self.payload),
            ("wal_config", self.wal_config),
            ("quantization_config", self.quantization_config),
            ("metadata", self.metadata),
            ("init_from", self.init_from),
        ])?;
        if self.sharding_method.as_deref().is_some_and(|method| method != "auto") {
            return Err(Error::BadInput("`sharding_method` other than `auto` is not supported yet".into()).into());
        }
        if let Some(shards) = self.shard_number {
            in_range("shard_number", shards, SHARDS_PER_COLLECTION_MAX)?;
        }
        let replication_factor = self.replication_factor.unwrap_or(1);
        in_range("replication_factor", replication_factor, REPLICATION_MAX)?;
        let write_consistency_factor = self.write_consistency_factor.unwrap_or(1);
        in_range("write_consistency_factor", write_consistency_factor, REPLICATION_MAX)?;
        // A write waits for the majority that raft needs, which may be more than was asked for, never less.
        let majority = replication_factor / 2 + 1;
        if write_consistency_factor > majority {
            let bound = format!("{majority} or smaller: a write waits for a majority of {replication_factor} replicas");
            return Err(invalid("write_consistency_factor", write_consistency_factor, &bound));
        }
        let given = self.hnsw_config.unwrap_or_default();
        let hnsw = given.shape_over(HnswConfig::default(), "")?.unwrap_or_default();
        let indexing_threshold_kib = self.optimizers_config.unwrap_or_default().threshold()?;
        let Vectors { schemas: mut vectors, on_disk, shown } = vectors(self.vectors, hnsw)?;
        let sparse_shown = add_sparse(&mut vectors, self.sparse_vectors.unwrap_or_default())?;
        let graphs = GraphPlacement { on_disk: given.on_disk.unwrap_or(false), vectors: on_disk };
        let (strict, strict_shown) = self.strict_mode_config.unwrap_or_default().check()?;
        let config = json!({
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
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "max_segment_size": null,
                "memmap_threshold": null,
                "indexing_threshold": indexing_threshold_kib,
                "flush_interval_sec": 1,
                "max_optimization_threads": null,
            },
            "wal_config": null,
            "quantization_config": null,
            "strict_mode_config": strict_shown,
        });
        let mut config = config;
        if !sparse_shown.is_empty() {
            config["params"]["sparse_vectors"] = Value::Object(sparse_shown);
        }
        let schema = CollectionSchema { vectors, hnsw, indexing_threshold_kib };
        let shard_number = self.shard_number;
        Ok(NewCollection { schema, shard_number, replication_factor, write_consistency_factor, strict, graphs, config })
    }
}

impl OptimizersBody {
    fn threshold(&self) -> Result<u64, Failure> {
        refuse_all(&[
            ("optimizers_config.deleted_threshold", self.deleted_threshold),
            ("optimizers_config.vacuum_min_vector_number", self.vacuum_min_vector_number),
            ("optimizers_config.default_segment_number", self.default_segment_number),
            ("optimizers_config.max_segment_size", self.max_segment_size),
            ("optimizers_config.memmap_threshold", self.memmap_threshold),
            ("optimizers_config.flush_interval_sec", self.flush_interval_sec),
            ("optimizers_config.max_optimization_threads", self.max_optimization_threads),
            ("optimizers_config.prevent_unoptimized", self.prevent_unoptimized),
        ])?;
        Ok(self.indexing_threshold.unwrap_or(CollectionSchema::INDEXING_THRESHOLD_KIB))
    }
}

/// The vectors of a new collection.
struct Vectors {
    schemas: BTreeMap<String, VectorSchema>,
    /// Where open graphs are, for vectors that say so.
    on_disk: BTreeMap<String, bool>,
    /// How they are shown later.
    shown: Value,
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
    let mut shown = serde_json::Map::new();
    for (name, body) in bodies {
        let prefix = if is_single { "vectors.".to_owned() } else { format!("vectors.{name}.") };
        let body: VectorBody = serde_json::from_value(body).map_err(|e| malformed(format!("vectors: {e}")))?;
        let own = body.hnsw_config.and_then(|hnsw| hnsw.on_disk);
        let (schema, config) = body.into_schema(base, &prefix)?;
        if !is_single && (name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return Err(invalid("vectors", format!("`{name}`"), &format!("a name of 1 to {NAME_BYTES_MAX} bytes")));
        }
        schemas.insert(name.clone(), schema);
        on_disk.extend(own.map(|own| (name.clone(), own)));
        shown.insert(name, config);
    }
    let shown = match is_single {
        true => shown.remove(UNNAMED).unwrap_or_default(),
        false => Value::Object(shown),
    };
    Ok(Vectors { schemas, on_disk, shown })
}

impl VectorBody {
    fn into_schema(self, base: HnswConfig, prefix: &str) -> Result<(VectorSchema, Value), Failure> {
        refuse_all(&[("vectors.quantization_config", self.quantization_config), ("vectors.memory", self.memory)])?;
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
        let mut shown = json!({"size": self.size, "distance": self.distance});
        if let Some(hnsw) = hnsw {
            shown["hnsw_config"] = json!({"m": hnsw.m, "ef_construct": hnsw.ef_construction});
        }
        if let Some(on_disk) = self.on_disk {
            shown["on_disk"] = json!(on_disk);
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
    bodies: BTreeMap<String, SparseBody>,
) -> Result<serde_json::Map<String, Value>, Failure> {
    if schemas.len() + bodies.len() > VECTOR_NAMES_MAX {
        let count = schemas.len() + bodies.len();
        let bound = format!("{VECTOR_NAMES_MAX} or fewer together with `vectors`");
        return Err(invalid("sparse_vectors", format!("of {count} names"), &bound));
    }
    let mut all = serde_json::Map::new();
    for (name, body) in bodies {
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
