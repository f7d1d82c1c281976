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
