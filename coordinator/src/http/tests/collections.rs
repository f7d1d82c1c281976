//! Collections: what is said at creation and changed later is what is shown, in the form that clients read.

use serde_json::{Value, json};

use super::{C, Edge, filled};

async fn config(edge: &Edge) -> Value {
    edge.ok("GET", C, Value::Null).await["config"].clone()
}

#[tokio::test]
async fn metadata_is_kept_merged_and_shown() {
    let edge = Edge::new().await;
    let vectors = json!({"size": 2, "distance": "Dot"});
    edge.ok("PUT", C, json!({"vectors": vectors, "metadata": {"model": "m1", "tags": {"a": 1}}})).await;
    assert_eq!(config(&edge).await["metadata"], json!({"model": "m1", "tags": {"a": 1}}));
    edge.ok("PATCH", C, json!({"metadata": {"tags": {"b": 2}, "model": null, "when": 5}})).await;
    assert_eq!(config(&edge).await["metadata"], json!({"tags": {"b": 2}, "when": 5}));
    edge.ok("PATCH", C, json!({"metadata": {}})).await;
    edge.ok("PATCH", C, json!({"hnsw_config": {"on_disk": true}})).await;
    assert_eq!(config(&edge).await["metadata"], json!({"tags": {"b": 2}, "when": 5}));
    // Each fits by itself, both together do not.
    let half = "x".repeat(10_000);
    edge.ok("PATCH", C, json!({"metadata": {"one": half}})).await;
    let (status, error) = edge.refused("PATCH", C, json!({"metadata": {"two": half}})).await;
    assert!(status == 400 && error.contains("`metadata` would have") && error.contains("16384"), "{status} {error}");
    let other = "/collections/plain";
    edge.ok("PUT", other, json!({"vectors": vectors})).await;
    let shown = edge.ok("GET", other, Value::Null).await["config"].clone();
    assert!(shown.get("metadata").is_none_or(Value::is_null), "{shown}");
}

#[tokio::test]
async fn a_description_has_what_clients_ask_for() {
    let edge = filled().await;
    let info = edge.ok("GET", C, Value::Null).await;
    assert_eq!(info["warnings"], json!([]));
    assert_eq!(info["update_queue"], json!({"length": 0}));
    assert_eq!((&info["points_count"], &info["indexed_vectors_count"]), (&json!(20), &json!(20)));
    for (part, fields) in [
        ("hnsw_config", &["m", "ef_construct", "full_scan_threshold"][..]),
        ("optimizer_config", &["default_segment_number", "flush_interval_sec", "deleted_threshold"]),
        ("wal_config", &["wal_capacity_mb", "wal_segments_ahead"]),
        ("params", &["vectors", "shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload"]),
    ] {
        for field in fields {
            assert!(!info["config"][part][field].is_null(), "{part}.{field} is missing: {info}");
        }
    }
    let leader = edge.model.lock().shards.values().find_map(|shard| shard.leader).unwrap();
    edge.model.lock().dead.insert(leader);
    let info = edge.ok("GET", C, Value::Null).await;
    assert!(info["status"] == "green" || info["warnings"][0]["message"].as_str().is_some(), "{info}");
}

#[tokio::test]
async fn a_replicated_collection_is_on_each_node_and_says_so() {
    let edge = Edge::new().await;
    let body = json!({"vectors": {"size": 2, "distance": "Dot"}, "routing": {"method": "replicate"}});
    edge.ok("PUT", C, body).await;
    let shown = config(&edge).await;
    assert_eq!(shown["routing"], json!({"method": "replicate"}));
    assert_eq!((&shown["params"]["shard_number"], &shown["params"]["replication_factor"]), (&json!(1), &Value::Null));
    let placed = edge.ok("GET", "/collections/c/cluster", Value::Null).await;
    assert_eq!((&placed["shard_count"], placed["replicas"].as_array().unwrap().len()), (&json!(1), 3), "{placed}");
    let (status, text) = edge.refused("PATCH", C, json!({"routing": {"method": "hash"}})).await;
    assert!(status == 400 && text.contains("routing.method"), "{text}");
    edge.ok("PUT", "/collections/plain", json!({"vectors": {"size": 2, "distance": "Dot"}})).await;
    let plain = edge.ok("GET", "/collections/plain", Value::Null).await;
    assert_eq!(plain["config"]["routing"], json!({"method": "hash"}));
}

#[tokio::test]
async fn a_collection_routed_by_cluster_shows_its_settings_and_what_goes_on() {
    let edge = Edge::new().await;
    let routing = json!({"method": "cluster", "search_shards": 3, "copies": 0.1, "recall_target": 0.9});
    edge.ok("PUT", C, json!({"vectors": {"size": 2, "distance": "Dot"}, "routing": routing})).await;
    let info = edge.ok("GET", C, Value::Null).await;
    let shown = json!({"method": "cluster", "vector": "", "search_shards": 3, "copies": 0.1, "recall_target": 0.9,
        "from_points": 75_000, "balance": true});
    assert_eq!(info["config"]["routing"], shown);
    // What is shown can be sent again.
    edge.ok("PATCH", C, json!({"routing": shown})).await;
    let state = json!({"searched_at": "home shards", "serving": null, "next": null, "ending": null, "training": false,
        "switching_to_hash": false, "search_shards": [], "operation": null, "imbalance": null, "measured": null});
    assert_eq!(info["routing"], state);
    let train = "/collections/c/routing/train";
    let (status, text) = edge.refused("POST", train, Value::Null).await;
    assert!(status == 400 && text.contains("the collection has 0, 64 are the least"), "{text}");
    let (status, text) = edge.refused("POST", "/collections/c/routing/abort", Value::Null).await;
    assert!(status == 409 && text.contains("no map to take back"), "{text}");
    let balance = "/collections/c/routing/balance";
    let (status, text) = edge.refused("POST", balance, Value::Null).await;
    assert!(status == 409 && text.contains("no map yet that is served"), "{text}");
    let (status, text) = edge.refused("POST", "/collections/c/routing/balance?apply=1", Value::Null).await;
    assert!(status == 400 && text.contains("`apply` is `1`, allowed is true or false"), "{text}");
    edge.ok("PATCH", C, json!({"routing": {"method": "cluster", "balance": false}})).await;
    assert_eq!(config(&edge).await["routing"]["balance"], false);
    edge.ok("PATCH", C, json!({"routing": {"method": "cluster", "recall_target": 0.99, "from_points": 1_000}})).await;
    let shown = config(&edge).await["routing"].clone();
    assert_eq!(
        (&shown["recall_target"], &shown["from_points"], &shown["copies"]),
        (&json!(0.99), &json!(1_000), &json!(0.1))
    );
    let cluster = edge.ok("GET", "/cluster", Value::Null).await;
    assert_eq!(cluster["operations"], json!([]));

    edge.ok("PATCH", C, json!({"routing": {"method": "hash"}})).await;
    assert_eq!(config(&edge).await["routing"], json!({"method": "hash"}));
    let (status, text) = edge.refused("POST", train, Value::Null).await;
    assert!(status == 400 && text.contains("`routing.method` hash: only `cluster`"), "{text}");
    let (status, text) = edge.refused("POST", balance, Value::Null).await;
    assert!(status == 400 && text.contains("`routing.method` hash: only `cluster`"), "{text}");
    edge.ok("PATCH", C, json!({"routing": {"method": "cluster"}})).await;
    assert_eq!(config(&edge).await["routing"]["search_shards"], 4);
    let (status, _) = edge.refused("POST", "/collections/none/routing/train", Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_vector_of_the_empty_name_is_the_unnamed_one() {
    let edge = Edge::new().await;
    edge.ok("PUT", C, json!({"vectors": {"": {"size": 2, "distance": "Dot"}}})).await;
    assert_eq!(config(&edge).await["params"]["vectors"], json!({"size": 2, "distance": "Dot"}));
    let points = json!({"points": [{"id": 1, "vector": [1, 2]}, {"id": 2, "vector": {"": [2, 1]}}]});
    edge.ok("PUT", "/collections/c/points", points).await;
    let found = edge.ok("POST", "/collections/c/points/query", json!({"query": [1, 0], "limit": 1})).await;
    assert_eq!(found["points"][0]["id"], 2);
}

#[tokio::test]
async fn a_change_is_made_as_a_whole_or_not_at_all() {
    let edge = Edge::new().await;
    let quantized = json!({"scalar": {"type": "int8", "always_ram": true}});
    let body = json!({"vectors": {"a": {"size": 2, "distance": "Dot"}, "b": {"size": 2, "distance": "Dot"}},
        "quantization_config": quantized, "on_disk_payload": false, "metadata": {"v": 1}});
    edge.ok("PUT", C, body).await;
    let before = config(&edge).await;
    assert_eq!(before["quantization_config"], quantized);
    assert_eq!(before["params"]["on_disk_payload"], false);
    for body in [
        json!({"metadata": {"v": 2}, "hnsw_config": {"on_disk": true}}),
        json!({"metadata": {"v": 2}, "params": {"on_disk_payload": true, "replication_factor": 2}}),
        json!({"metadata": {"v": 2}, "optimizers_config": {"indexing_threshold": 1}}),
        json!({"metadata": {"v": 2}, "strict_mode_config": {"read_rate_limit": 0}}),
        json!({"strict_mode_config": {"enabled": true}, "metadata": {"v": "x".repeat(20_000)}}),
    ] {
        edge.refused("PATCH", C, body).await;
    }
    assert_eq!(config(&edge).await, before);
    let body = json!({"metadata": {"v": 2}, "quantization_config": "Disabled", "hnsw_config": {"on_disk": true},
        "params": {"on_disk_payload": true, "payload": {"memory": "cold"}}, "vectors": {"b": {"on_disk": true}},
        "strict_mode_config": {"enabled": true, "max_timeout": 9}});
    edge.ok("PATCH", C, body).await;
    let after = config(&edge).await;
    assert_eq!(after["metadata"], json!({"v": 2}));
    assert!(after["quantization_config"].is_null() && after["hnsw_config"]["on_disk"] == true, "{after}");
    assert_eq!(
        (&after["params"]["on_disk_payload"], &after["params"]["payload"]["memory"]),
        (&json!(true), &json!("cold"))
    );
    assert_eq!(after["params"]["vectors"]["b"], json!({"size": 2, "distance": "Dot", "on_disk": true}));
    assert_eq!(after["params"]["vectors"]["a"], json!({"size": 2, "distance": "Dot"}));
    assert_eq!(after["strict_mode_config"], json!({"enabled": true, "max_timeout": 9}));
}

#[tokio::test]
async fn settings_that_do_nothing_here_are_refused_by_name() {
    let edge = Edge::new().await;
    for (more, text) in [
        (json!({"wal_config": {"wal_capacity_mb": 16}}), "`wal_config.wal_capacity_mb` 16 is not supported"),
        (json!({"optimizers_config": {"default_segment_number": 2}}), "`optimizers_config.default_segment_number` 2"),
        (json!({"quantization_config": {"binary": {}}}), "`quantization_config.binary` is not supported: "),
        (json!({"sharding_method": "custom"}), "`sharding_method: custom` is not supported: "),
        (json!({"init_from": {"collection": "x"}}), "`init_from` is not supported: "),
        (json!({"sparse": {}}), "unknown field `sparse`"),
    ] {
        let mut body = json!({"vectors": {"size": 2, "distance": "Dot"}});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, error) = edge.refused("PUT", C, body).await;
        assert!(status == 400 && error.contains(text), "{more}: {status} {error}");
    }
    assert_eq!(edge.ok("GET", "/collections/c/exists", Value::Null).await, json!({"exists": false}));
    let actions = vec![json!({"delete_alias": {"alias_name": "a"}}); 1_001];
    let (status, error) = edge.refused("POST", "/collections/aliases", json!({"actions": actions})).await;
    assert!(status == 422 && error.contains("actions: 1001 actions, allowed are 1000"), "{status} {error}");
}
