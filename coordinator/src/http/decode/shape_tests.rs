//! Bodies that create and change collections: what they mean, and that none of them is a defect.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use vicinal_common::collection::HnswConfig;
use vicinal_common::ids::{CollectionId, Epoch, ShardId};
use vicinal_common::ring::TokenTable;
use vicinal_common::tuning::Tuning;

use super::super::answer::Failure;
use super::change::ChangeBody;
use super::collection::{CreateBody, NewCollection};
use crate::meta::{Collection, CollectionChange, CollectionState};

mod routing;

fn create(body: Value) -> Result<NewCollection, Failure> {
    let malformed = |e: serde_json::Error| Failure::new(axum::http::StatusCode::BAD_REQUEST, e.to_string());
    serde_json::from_value::<CreateBody>(body).map_err(malformed)?.into_collection(4)
}

/// A collection as it is in the metadata after a create body.
fn created(body: Value) -> Collection {
    let new = create(body).unwrap_or_else(|failure| panic!("{failure:?}"));
    Collection {
        id: CollectionId(uuid::Uuid::from_u128(1)),
        name: "c".into(),
        schema: new.schema,
        state: CollectionState::Active,
        epoch: Epoch(1),
        shards: Vec::new(),
        tokens: TokenTable::propose(&[ShardId(1)]).unwrap(),
        routing: new.routing,
        replication_factor: new.replication_factor,
        write_consistency_factor: new.write_consistency_factor,
        config_json: new.config.to_string(),
        tuning: Tuning { graphs: new.graphs, ..Tuning::default() },
        strict: new.strict,
        clustering: None,
        clustering_wanted: None,
        created_ms: 0,
    }
}

fn change(collection: &Collection, body: Value) -> Result<CollectionChange, Failure> {
    let malformed = |e: serde_json::Error| Failure::new(axum::http::StatusCode::BAD_REQUEST, e.to_string());
    serde_json::from_value::<ChangeBody>(body).map_err(malformed)?.into_change(collection)
}

fn one_vector(more: Value) -> Value {
    let mut body = json!({"vectors": {"size": 2, "distance": "Dot"}});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn what_holds_anyway_is_accepted_and_shown() {
    let body = one_vector(json!({
        "optimizers_config": {"indexing_threshold": 5, "deleted_threshold": 0.2, "flush_interval_sec": 0,
            "max_optimization_threads": "auto", "prevent_unoptimized": false, "memmap_threshold": null},
        "wal_config": {"wal_segments_ahead": 0},
        "hnsw_config": {"m": 8, "payload_m": 0, "inline_storage": false, "memory": "cold", "on_disk": false},
        "quantization_config": {"scalar": {"type": "int8", "quantile": null}},
        "sharding_method": "auto", "payload": {"memory": "cached"}, "metadata": {"made_by": "test", "n": [1, null]},
        "init_from": null, "strict_mode_config": {"enabled": true, "max_query_limit": 4}}));
    let new = create(body).unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!((new.schema.hnsw, new.schema.indexing_threshold_kib), (HnswConfig { m: 8, ef_construction: 100 }, 5));
    assert!(new.graphs.on_disk, "`memory` goes before `on_disk`");
    assert_eq!(new.config["metadata"], json!({"made_by": "test", "n": [1, null]}));
    assert_eq!(new.config["params"]["payload"], json!({"memory": "cached"}));
    assert_eq!(new.config["quantization_config"], json!({"scalar": {"type": "int8", "quantile": null}}));
    assert_eq!(new.config["optimizer_config"]["indexing_threshold"], 5);
    assert_eq!(new.config["wal_config"]["wal_segments_ahead"], 0);
    assert_eq!(new.strict.max_query_limit, Some(4));
}

#[test]
fn the_defaults_of_the_api_ask_for_nothing() {
    let body = one_vector(json!({
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0,
            "on_disk": false},
        "optimizers_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1_000, "default_segment_number": 0,
            "max_segment_size": null, "memmap_threshold": null, "flush_interval_sec": 5, "max_optimization_threads": null},
        "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}}));
    let new = create(body).unwrap_or_else(|failure| panic!("{failure:?}"));
    // What is shown can be sent back.
    let again = one_vector(json!({"hnsw_config": new.config["hnsw_config"], "wal_config": new.config["wal_config"],
        "optimizers_config": new.config["optimizer_config"]}));
    let again = create(again).unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(again.config, new.config);
}

#[test]
fn the_empty_name_is_the_unnamed_vector() {
    let new = create(json!({"vectors": {"": {"size": 2, "distance": "Dot"}}})).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(new.schema.vectors.keys().collect::<Vec<_>>(), [""]);
    assert_eq!(new.config["params"]["vectors"], json!({"size": 2, "distance": "Dot"}));
}

#[test]
fn what_cannot_be_chosen_is_refused_by_name_and_with_the_reason() {
    for (more, status, part) in [
        (
            json!({"wal_config": {"wal_capacity_mb": 16}}),
            400,
            "`wal_config.wal_capacity_mb` 16 is not supported, only 64",
        ),
        (json!({"wal_config": {"wal_retain_closed": 2}}), 400, "`wal_config.wal_retain_closed` 2 is not supported"),
        (json!({"wal_config": {"x": 1}}), 400, "unknown field `x`"),
        (json!({"optimizers_config": {"deleted_threshold": 0.5}}), 400, "`optimizers_config.deleted_threshold` 0.5"),
        (json!({"optimizers_config": {"vacuum_min_vector_number": 200}}), 400, "vacuum_min_vector_number"),
        (json!({"optimizers_config": {"default_segment_number": 2}}), 400, "default_segment_number"),
        (json!({"optimizers_config": {"max_segment_size": 1000}}), 400, "max_segment_size"),
        (json!({"optimizers_config": {"memmap_threshold": 1000}}), 400, "memmap_threshold"),
        (json!({"optimizers_config": {"flush_interval_sec": 60}}), 400, "flush_interval_sec"),
        (json!({"optimizers_config": {"max_optimization_threads": 1}}), 400, "max_optimization_threads"),
        (json!({"optimizers_config": {"prevent_unoptimized": true}}), 400, "prevent_unoptimized"),
        (json!({"hnsw_config": {"full_scan_threshold": 10}}), 400, "`hnsw_config.full_scan_threshold` 10 is not"),
        (json!({"hnsw_config": {"max_indexing_threads": 4}}), 400, "`hnsw_config.max_indexing_threads` 4 is not"),
        (json!({"hnsw_config": {"payload_m": 16}}), 400, "`hnsw_config.payload_m` 16 is not supported, only 0 is: "),
        (json!({"hnsw_config": {"inline_storage": true}}), 400, "inline_storage"),
        (json!({"hnsw_config": {"memory": "hot"}}), 400, "unknown variant `hot`"),
        (json!({"payload": {"memory": "pinned"}}), 400, "`payload.memory: pinned` is not supported: "),
        (json!({"sharding_method": "custom"}), 400, "`sharding_method: custom` is not supported: "),
        (json!({"sharding_method": "other"}), 400, "unknown variant `other`"),
        (json!({"init_from": {"collection": "d"}}), 400, "`init_from` is not supported: "),
        (json!({"metadata": []}), 400, "invalid type"),
        (json!({"strict_mode_config": [true, 5]}), 400, "expected an object"),
        (json!({"strict_mode_config": {"sparse_config": {"s": [5]}}}), 400, "expected an object"),
        (json!({"hnsw_config": [16, 100]}), 400, "expected an object"),
        (json!({"vectors": {"a": {"size": 2, "distance": "Dot", "hnsw_config": [16]}}}), 400, "expected an object"),
        (json!({"wal_config": [64]}), 400, "expected an object"),
        (json!({"optimizers_config": []}), 400, "expected an object"),
        (json!({"metadata": {"a": "x".repeat(20_000)}}), 400, "the limit is 16384"),
        (json!({"quantization_config": {"product": {"compression": "x4"}}}), 400, "`quantization_config.product`"),
        (
            json!({"quantization_config": {"scalar": {"type": "int8", "always_ram": true}}, "hnsw_config": {"on_disk": true}}),
            400,
            "codes are where their graph is",
        ),
        (
            json!({"strict_mode_config": {"sparse_config": {"s": {"max_length": 1}}}}),
            400,
            "`strict_mode_config.sparse_config`: there is no sparse vector `s`",
        ),
        (
            json!({"strict_mode_config": {"multivector_config": {"": {"max_vectors": 1}}}}),
            400,
            "`strict_mode_config.multivector_config`: `` is no multivector",
        ),
        (
            json!({"vectors": {"a": {"size": 2, "distance": "Dot", "memory": "pinned"}}}),
            400,
            "`vectors.a.memory: pinned` is not supported",
        ),
        (
            json!({"vectors": {"a": {"size": 2, "distance": "Dot", "hnsw_config": {"on_disk": true}}},
                "quantization_config": {"scalar": {"type": "int8", "memory": "pinned"}}}),
            400,
            "`quantization_config.scalar.memory` is not supported",
        ),
        (json!({"write_consistency_factor": 2}), 422, "write_consistency_factor"),
    ] {
        let failure = create(one_vector(more.clone())).err().unwrap_or_else(|| panic!("{more} was accepted"));
        assert_eq!(failure.status.as_u16(), status, "{more}: {}", failure.text);
        assert!(failure.text.contains(part), "{more}: {}", failure.text);
    }
    let mut deep = json!({});
    for _ in 0..70 {
        deep = json!({"a": deep});
    }
    let failure = create(one_vector(json!({"metadata": deep}))).err().unwrap();
    assert!(failure.text.contains("`metadata` is nested deeper than 64 levels"), "{}", failure.text);
}

#[test]
fn a_change_says_what_is_shown_afterwards() {
    let named = created(json!({"vectors": {"a": {"size": 2, "distance": "Dot"}, "b": {"size": 2, "distance": "Dot"}},
        "replication_factor": 3}));
    let config = |collection: &Collection, body: Value| -> Value {
        let change = change(collection, body.clone()).unwrap_or_else(|failure| panic!("{body}: {failure:?}"));
        change.config_json.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
    };
    assert_eq!(change(&named, json!({})).unwrap_or_default(), CollectionChange::default());
    let nulls =
        json!({"hnsw_config": null, "vectors": null, "optimizers_config": {}, "params": null, "metadata": null});
    assert_eq!(change(&named, nulls).unwrap_or_default(), CollectionChange::default());
    let body = json!({"params": {"write_consistency_factor": 2, "on_disk_payload": false, "replication_factor": 3}});
    let expected = json!({"params": {"write_consistency_factor": 2, "on_disk_payload": false}});
    assert_eq!(config(&named, body), expected);
    let own = json!({"on_disk": true, "quantization_config": {"scalar": {"type": "int8"}}});
    assert_eq!(config(&named, json!({"vectors": {"a": own}})), json!({"params": {"vectors": {"a": own}}}));
    let single = created(one_vector(json!({})));
    let own = json!({"memory": "cold"});
    assert_eq!(config(&single, json!({"vectors": {"": own}})), json!({"params": {"vectors": own}}));
    assert_eq!(config(&single, json!({"quantization_config": "Disabled"})), json!({"quantization_config": null}));

    let change = change(&single, json!({"metadata": {"a": null, "b": 1}, "strict_mode_config": {"enabled": true}}));
    let change = change.unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(change.metadata_json.as_deref(), Some("{\"a\":null,\"b\":1}"));
    assert_eq!(change.strict.and_then(|strict| strict.enabled), Some(true));
}

#[test]
fn a_change_that_cannot_be_made_is_refused() {
    let quantized = json!({"scalar": {"type": "int8", "always_ram": true}});
    let known = created(json!({"vectors": {"a": {"size": 2, "distance": "Dot", "hnsw_config": {"m": 8}}},
        "quantization_config": quantized}));
    assert!(change(&known, json!({"hnsw_config": {"m": 16}, "vectors": {"a": {"hnsw_config": {"m": 8}}}})).is_ok());
    assert!(change(&known, json!({"optimizers_config": {"indexing_threshold": 2_000}})).is_ok());
    for (body, status, part) in [
        (
            json!({"optimizers_config": {"indexing_threshold": 1}}),
            400,
            "`optimizers_config.indexing_threshold` 1 is not",
        ),
        (
            json!({"params": {"replication_factor": 2}}),
            400,
            "`params.replication_factor` 2 is not supported, only 1 is",
        ),
        (json!({"params": {"write_consistency_factor": 2}}), 422, "params.write_consistency_factor"),
        (json!({"params": {"read_fan_out_factor": 1}}), 400, "`params.read_fan_out_factor` is not supported: "),
        (json!({"params": {"read_fan_out_delay_ms": 1}}), 400, "`params.read_fan_out_delay_ms` is not supported: "),
        (json!({"params": {"shard_number": 1}}), 400, "unknown field `shard_number`"),
        (json!({"hnsw_config": {"on_disk": true}}), 400, "always_ram` is not supported: codes are where"),
        (json!({"vectors": {"a": {"hnsw_config": {"on_disk": true}}}}), 400, "always_ram` is not supported"),
        (json!({"vectors": {"a": {"hnsw_config": {}}}}), 400, "taking `vectors.a.hnsw_config` away"),
        (
            json!({"vectors": {"a": {"quantization_config": {"binary": {}}}}}),
            400,
            "`vectors.a.quantization_config.binary`",
        ),
        (json!({"vectors": {"a": []}}), 400, "expected an object"),
        (json!({"params": [1]}), 400, "expected an object"),
        (json!({"vectors": {"b": {}}}), 400, "Not existing vector name error: b"),
        (json!({"strict_mode_config": {"max_timeout": 0}}), 422, "strict_mode_config.max_timeout"),
        (json!({"metadata": {"a": "x".repeat(20_000)}}), 400, "the limit is 16384"),
        (json!({"aliases": []}), 400, "unknown field `aliases`"),
    ] {
        let failure = change(&known, body.clone()).err().unwrap_or_else(|| panic!("{body} was accepted"));
        assert_eq!(failure.status.as_u16(), status, "{body}: {}", failure.text);
        assert!(failure.text.contains(part), "{body}: {}", failure.text);
    }
}

/// Some value that may or may not belong into a field.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0u64), Just(1), Just(16), 0u64..200, any::<u64>()].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "auto", "custom", "cold", "cached", "pinned", "Dot", "int8", "Disabled", "a", "", "cluster"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let fields = prop::collection::btree_map(prop::sample::select(FIELDS), inner.clone(), 0..3);
        prop_oneof![prop::collection::vec(inner, 0..3).prop_map(Value::from), fields.prop_map(object)]
    })
}

fn object(fields: BTreeMap<&'static str, Value>) -> Value {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

const FIELDS: &[&str] = &[
    "a",
    "",
    "always_ram",
    "binary",
    "compression",
    "condition_max_size",
    "deleted_threshold",
    "distance",
    "ef_construct",
    "enabled",
    "flush_interval_sec",
    "full_scan_threshold",
    "hnsw_config",
    "indexing_threshold",
    "m",
    "max_length",
    "max_optimization_threads",
    "max_query_limit",
    "max_segment_size",
    "max_vectors",
    "memory",
    "multivector_config",
    "on_disk",
    "on_disk_payload",
    "payload",
    "payload_m",
    "product",
    "quantile",
    "quantization_config",
    "read_rate_limit",
    "replication_factor",
    "scalar",
    "search_allow_exact",
    "search_max_oversampling",
    "size",
    "sparse_config",
    "type",
    "wal_capacity_mb",
    "wal_segments_ahead",
    "write_consistency_factor",
];

/// A body with known fields at the top, each with a value that mostly is an object of known fields.
fn body(top: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let fields = prop::collection::btree_map(prop::sample::select(FIELDS), value(), 0..4).prop_map(object);
    let field = prop_oneof![3 => fields, 1 => value()];
    prop::collection::btree_map(prop::sample::select(top), field, 0..5).prop_map(object)
}

const CREATE: &[&str] = &[
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
    "payload",
    "hnsw_config",
    "wal_config",
    "optimizers_config",
    "quantization_config",
    "strict_mode_config",
    "metadata",
    "routing",
    "init_from",
    "vectors",
];
const CHANGE: &[&str] = &[
    "vectors",
    "optimizers_config",
    "params",
    "hnsw_config",
    "quantization_config",
    "strict_mode_config",
    "metadata",
    "routing",
];

/// Made once: its token table takes longer than all else.
static KNOWN: LazyLock<Collection> = LazyLock::new(|| {
    created(json!({"vectors": {"a": {"size": 2, "distance": "Dot"}, "": {"size": 2, "distance": "Dot"}}}))
});

fn is_client_s_mistake(failure: &Failure) -> bool {
    failure.status.is_client_error() && !failure.text.is_empty()
}

proptest! {
    #[test]
    fn no_create_body_is_a_defect(body in body(CREATE), is_whole in any::<bool>()) {
        let body = if is_whole { one_vector(json!({})).as_object().cloned().into_iter().chain(body.as_object().cloned())
            .flatten().collect() } else { body };
        match create(body.clone()) {
            // What is shown again can be read again.
            Ok(new) => prop_assert!(serde_json::from_str::<Value>(&new.config.to_string()).is_ok()),
            Err(failure) => prop_assert!(is_client_s_mistake(&failure), "{body}: {failure:?}"),
        }
    }

    #[test]
    fn no_change_body_is_a_defect(body in body(CHANGE)) {
        if let Err(failure) = change(&KNOWN, body.clone()) {
            prop_assert!(is_client_s_mistake(&failure), "{body}: {failure:?}");
        }
    }
}
