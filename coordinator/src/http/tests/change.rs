//! Where open graphs are: said at creation, changed later, shown, told to the replicas.

use std::time::Duration;

use serde_json::{Value, json};

use super::{C, Edge};

/// The `hnsw_config` of the collection and those of its vectors.
async fn shown(edge: &Edge) -> (Value, Value) {
    let config = &edge.ok("GET", C, Value::Null).await["config"];
    (config["hnsw_config"]["on_disk"].clone(), config["params"]["vectors"].clone())
}

/// Waits until every replica has been told.
async fn told(edge: &Edge, graphs: Value) {
    for _ in 0..500 {
        let all = edge.model.lock().shards.values().all(|shard| json!(shard.graphs()) == graphs);
        if all {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not all were told of {graphs}");
}

#[tokio::test]
async fn one_vector_s_graphs_are_placed_and_moved() {
    let edge = Edge::new().await;
    let vectors = |own: Value| json!({"size": 2, "distance": "Euclid", "hnsw_config": own});
    edge.ok("PUT", C, json!({"vectors": {"size": 2, "distance": "Euclid"}})).await;
    assert_eq!(shown(&edge).await, (json!(false), json!({"size": 2, "distance": "Euclid"})), "by default");
    let patch = |body: Value| edge.ok("PATCH", C, body);
    assert_eq!(patch(json!({"hnsw_config": {"on_disk": true}})).await, json!(true));
    assert_eq!(shown(&edge).await.0, json!(true));
    told(&edge, json!({"on_disk": true, "vectors": {}})).await;
    assert_eq!(patch(json!({"vectors": {"": {"hnsw_config": {"on_disk": false}}}})).await, json!(true));
    assert_eq!(shown(&edge).await, (json!(true), vectors(json!({"on_disk": false}))));
    told(&edge, json!({"on_disk": true, "vectors": {"": false}})).await;
    // Nothing said, nothing changed; an empty object takes the vector's own away.
    patch(json!({})).await;
    patch(json!({"hnsw_config": {"on_disk": null}, "vectors": null, "optimizers_config": {}})).await;
    patch(json!({"vectors": {"": {}}})).await;
    assert_eq!(shown(&edge).await, (json!(true), vectors(json!({"on_disk": false}))));
    patch(json!({"vectors": {"": {"hnsw_config": {}}}})).await;
    assert_eq!(shown(&edge).await, (json!(true), json!({"size": 2, "distance": "Euclid"})));
    edge.ok(
        "POST",
        "/collections/aliases",
        json!({"actions": [{"create_alias": {"collection_name": "c", "alias_name": "a"}}]}),
    )
    .await;
    edge.ok("PATCH", "/collections/a", json!({"hnsw_config": {"on_disk": false}})).await;
    assert_eq!(shown(&edge).await.0, json!(false), "by an alias");
}

#[tokio::test]
async fn what_was_said_at_creation_reaches_replicas_before_points() {
    let edge = Edge::new().await;
    let body = json!({"hnsw_config": {"on_disk": true, "m": 8}, "vectors": {
        "a": {"size": 2, "distance": "Dot"},
        "b": {"size": 3, "distance": "Dot", "hnsw_config": {"on_disk": false}},
        "c": {"size": 4, "distance": "Dot", "hnsw_config": {"on_disk": true, "ef_construct": 50}, "on_disk": true}}});
    edge.ok("PUT", C, body).await;
    let graphs = json!({"on_disk": true, "vectors": {"b": false, "c": true}});
    assert!(edge.model.lock().shards.values().all(|shard| json!(shard.graphs()) == graphs));
    let expected = json!({
        "a": {"size": 2, "distance": "Dot"},
        "b": {"size": 3, "distance": "Dot", "hnsw_config": {"on_disk": false}},
        "c": {"size": 4, "distance": "Dot", "hnsw_config": {"on_disk": true, "m": 8, "ef_construct": 50}, "on_disk": true}});
    assert_eq!(shown(&edge).await, (json!(true), expected));
    let telemetry = edge.ok("GET", "/telemetry?details_level=2", Value::Null).await.to_string();
    assert!(telemetry.contains("\"on_disk\":true"), "{telemetry}");
}

#[tokio::test]
async fn sparse_vectors_are_not_changed_as_dense_ones() {
    let edge = Edge::new().await;
    let body = json!({"vectors": {"a": {"size": 2, "distance": "Dot"}}, "sparse_vectors": {"words": {}}});
    edge.ok("PUT", C, body).await;
    let before = edge.ok("GET", C, Value::Null).await["config"].clone();
    for own in [json!({"on_disk": true}), json!({}), json!({"hnsw_config": {"on_disk": true}})] {
        let (status, error) = edge.refused("PATCH", C, json!({"vectors": {"words": own}})).await;
        assert!(status == 400 && error.contains("Not existing vector name error: words"), "{status} {error}");
    }
    assert_eq!(edge.ok("GET", C, Value::Null).await["config"], before);
}

#[tokio::test]
async fn what_is_said_of_codes_is_replaced_as_a_whole() {
    let edge = Edge::new().await;
    let codes = |always_ram: bool| json!({"scalar": {"type": "int8", "always_ram": always_ram}});
    let plain = json!({"scalar": {"type": "int8"}});
    let vector = json!({"size": 2, "distance": "Dot", "quantization_config": codes(true)});
    edge.ok("PUT", C, json!({"vectors": {"a": vector}, "quantization_config": codes(true)})).await;
    edge.ok("PATCH", C, json!({"quantization_config": plain, "vectors": {"a": {"quantization_config": plain}}})).await;
    let config = edge.ok("GET", C, Value::Null).await["config"].clone();
    assert_eq!(config["quantization_config"], plain);
    assert_eq!(config["params"]["vectors"]["a"]["quantization_config"], plain);
    // So nothing is left of what said where codes are.
    edge.ok("PATCH", C, json!({"hnsw_config": {"on_disk": true}})).await;
    let (status, error) = edge.refused("PATCH", C, json!({"quantization_config": codes(true)})).await;
    assert!(status == 400 && error.contains("quantization_config.scalar.always_ram"), "{status} {error}");
}

#[tokio::test]
async fn codes_that_one_vector_does_without_stay_disabled() {
    let edge = Edge::new().await;
    let codes = json!({"scalar": {"type": "int8", "always_ram": true}});
    let on_disk = json!({"size": 2, "distance": "Dot", "hnsw_config": {"on_disk": true}});
    let mut created = on_disk.clone();
    created["quantization_config"] = json!("Disabled");
    let vectors = json!({"a": created, "b": {"size": 2, "distance": "Dot"}});
    edge.ok("PUT", C, json!({"vectors": vectors, "quantization_config": codes})).await;
    let patch = |body: Value| edge.ok("PATCH", C, body);
    let of = |name: &str, own: Value| json!({"vectors": {name: own}});
    // The codes of the collection are not those of `a`, now and later.
    patch(json!({"metadata": {"v": 1}})).await;
    patch(json!({"hnsw_config": {"on_disk": false}})).await;
    assert_eq!(shown(&edge).await.1["a"], on_disk, "the word is for requests only");
    let (status, error) = edge.refused("PATCH", C, of("b", json!({"hnsw_config": {"on_disk": true}}))).await;
    assert!(status == 400 && error.contains("scalar.always_ram"), "{status} {error}");
    patch(of("b", json!({"hnsw_config": {"on_disk": true}, "quantization_config": "Disabled"}))).await;
    patch(json!({"metadata": {"v": 2}})).await;
    patch(json!({"quantization_config": codes})).await;
    assert_eq!(shown(&edge).await.1, json!({"a": on_disk, "b": on_disk}));
    patch(of("b", json!({"hnsw_config": {}, "quantization_config": codes}))).await;
    assert_eq!(shown(&edge).await.1["b"], json!({"size": 2, "distance": "Dot", "quantization_config": codes}));

    edge.ok("PUT", "/collections/d", json!({"vectors": created, "quantization_config": codes})).await;
    edge.ok("PATCH", "/collections/d", json!({"hnsw_config": {"on_disk": false}})).await;
    let config = edge.ok("GET", "/collections/d", Value::Null).await["config"].clone();
    assert_eq!(config["params"]["vectors"], on_disk, "without a name too");
}

#[tokio::test]
async fn changes_that_cannot_be_made_are_refused_by_name() {
    let edge = Edge::new().await;
    let vectors = json!({"a": {"size": 2, "distance": "Dot", "hnsw_config": {"m": 8}}});
    edge.ok("PUT", C, json!({"vectors": vectors})).await;
    let before = shown(&edge).await;
    let of_a = |body: Value| json!({"hnsw_config": {"on_disk": true}, "vectors": {"a": body}});
    for (path, body, status, text) in [
        (C, json!({"hnsw_config": {"m": 5}}), 400, "changing `hnsw_config.m` is not supported: "),
        (C, json!({"hnsw_config": {"ef_construct": 50, "on_disk": true}}), 400, "`hnsw_config.ef_construct`"),
        (C, json!({"hnsw_config": {"payload_m": 4}}), 400, "`hnsw_config.payload_m` 4 is not supported"),
        (C, json!({"hnsw_config": {"on_disk": 1}}), 400, "expected a boolean"),
        (C, json!({"hnsw_config": {"disk": true}}), 400, "unknown field `disk`"),
        (C, json!({"optimizers_config": {"indexing_threshold": 1}}), 400, "`optimizers_config.indexing_threshold` 1"),
        (C, json!({"params": {"replication_factor": 2}}), 400, "`params.replication_factor` 2 is not supported"),
        (C, json!({"name": "d"}), 400, "unknown field `name`"),
        (C, of_a(json!({"memory": "pinned"})), 400, "`vectors.a.memory: pinned` is not supported"),
        (C, of_a(json!({"hnsw_config": {"m": 9}})), 400, "changing `vectors.a.hnsw_config.m`"),
        (C, of_a(json!({"hnsw_config": {}})), 400, "taking `vectors.a.hnsw_config` away"),
        (C, json!({"vectors": {"b": {"hnsw_config": {"on_disk": true}}}}), 400, "Not existing vector name error: b"),
        ("/collections/x", json!({"hnsw_config": {"on_disk": true}}), 404, "`x` doesn't exist"),
    ] {
        let (got, error) = edge.refused("PATCH", path, body.clone()).await;
        assert!(got == status && error.contains(text), "{body}: {got} {error}");
    }
    assert_eq!(shown(&edge).await, before);
}
