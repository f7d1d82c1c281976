//! Changes of points that are there, over a model cluster: what they do, in batches, and what is refused.

use serde_json::{Value, json};

use super::{C, Edge};

const POINTS: &str = "/collections/c/points";

/// A collection with the vectors `a` and `b`, and points 0..count with the payload `{"n": id, "deep": {"er": [{}]}}`.
async fn filled(count: u64) -> Edge {
    let edge = Edge::new().await;
    let vector = json!({"size": 2, "distance": "Euclid"});
    edge.ok("PUT", C, json!({"vectors": {"a": vector, "b": vector}})).await;
    let point = |id| {
        let payload = json!({"n": id, "deep": {"er": [{}]}});
        json!({"id": id, "vector": {"a": [id, 0], "b": [0, id]}, "payload": payload})
    };
    let points: Vec<Value> = (0..count).map(point).collect();
    edge.ok("PUT", POINTS, json!({"points": points})).await;
    edge
}

async fn send(edge: &Edge, method: &str, path: &str, body: Value) -> (u16, String) {
    edge.refused(method, &format!("{POINTS}{path}"), body).await
}

async fn payload(edge: &Edge, id: u64) -> Value {
    edge.ok("GET", &format!("{POINTS}/{id}"), Value::Null).await["payload"].clone()
}

async fn vectors(edge: &Edge, id: u64) -> Value {
    edge.ok("GET", &format!("{POINTS}/{id}"), Value::Null).await["vector"].clone()
}

async fn count(edge: &Edge, filter: Value) -> Value {
    edge.ok("POST", &format!("{POINTS}/count"), json!({"filter": filter})).await["count"].clone()
}

#[tokio::test]
async fn payloads_are_changed_by_id() {
    let edge = filled(3).await;
    let ids = json!([0, 1]);
    let path = format!("{POINTS}/payload?wait=true");
    let answer = edge.ok("POST", &path, json!({"payload": {"x": 1, "n": null}, "points": ids})).await;
    assert_eq!(answer["status"], "completed");
    assert_eq!(payload(&edge, 1).await, json!({"x": 1, "deep": {"er": [{}]}}));
    edge.ok("POST", &path, json!({"payload": {"y": 2}, "points": [1], "key": "deep.er[0]"})).await;
    assert_eq!(payload(&edge, 1).await, json!({"x": 1, "deep": {"er": [{"y": 2}]}}));
    edge.ok("POST", &format!("{POINTS}/payload/delete"), json!({"keys": ["deep.er[].y", "x"], "points": ids})).await;
    assert_eq!(payload(&edge, 1).await, json!({"deep": {"er": [{}]}}));
    edge.ok("PUT", &path, json!({"payload": {"z": 3}, "points": ids, "key": null})).await;
    assert_eq!(payload(&edge, 0).await, json!({"z": 3}));
    edge.ok("POST", &format!("{POINTS}/payload/clear"), json!({"points": [0]})).await;
    assert_eq!(payload(&edge, 0).await, json!({}));
    assert_eq!(payload(&edge, 2).await, json!({"n": 2, "deep": {"er": [{}]}}), "nobody asked for this one");
    assert_eq!(vectors(&edge, 0).await, json!({"a": [0.0, 0.0], "b": [0.0, 0.0]}));
}

#[tokio::test]
async fn changes_by_filter_reach_every_point_though_they_move_out_of_the_filter() {
    let edge = filled(100).await;
    let above = json!({"must": [{"key": "n", "range": {"gte": 10}}]});
    edge.ok("POST", &format!("{POINTS}/payload"), json!({"payload": {"n": -1}, "filter": above})).await;
    assert_eq!(count(&edge, above).await, json!(0));
    let changed = json!({"must": [{"key": "n", "match": {"value": -1}}]});
    assert_eq!(count(&edge, changed.clone()).await, json!(90));
    edge.ok("POST", &format!("{POINTS}/vectors/delete"), json!({"vector": ["b"], "filter": changed})).await;
    assert_eq!(count(&edge, json!({"must": [{"has_vector": "b"}]})).await, json!(10));
    edge.ok("POST", &format!("{POINTS}/payload/clear"), json!({"filter": {}})).await;
    assert_eq!(count(&edge, json!({"must": [{"is_empty": {"key": "n"}}]})).await, json!(100));
}

#[tokio::test]
async fn vectors_are_changed_and_removed() {
    let edge = filled(3).await;
    let path = format!("{POINTS}/vectors");
    // Two items for one point are one change of it.
    let points = json!([{"id": 1, "vector": {"b": [5, 6]}}, {"id": 2, "vector": {"a": [7, 8]}}, {"id": 1, "vector": {"a": [9, 9]}}]);
    edge.ok("PUT", &path, json!({"points": points})).await;
    assert_eq!(vectors(&edge, 1).await, json!({"a": [9.0, 9.0], "b": [5.0, 6.0]}));
    assert_eq!(vectors(&edge, 2).await, json!({"a": [7.0, 8.0], "b": [0.0, 2.0]}));
    let only_one = json!({"must": [{"key": "n", "match": {"value": 1}}]});
    let points = json!([{"id": 1, "vector": {"a": [3, 3]}}, {"id": 2, "vector": {"a": [3, 3]}}]);
    edge.ok("PUT", &path, json!({"points": points, "update_filter": only_one})).await;
    assert_eq!(vectors(&edge, 1).await["a"], json!([3.0, 3.0]));
    assert_eq!(vectors(&edge, 2).await["a"], json!([7.0, 8.0]));
    edge.ok("POST", &format!("{path}/delete"), json!({"vector": ["a"], "points": [1]})).await;
    assert_eq!(vectors(&edge, 1).await, json!({"b": [5.0, 6.0]}));
    assert_eq!(payload(&edge, 1).await["n"], json!(1));
}

#[tokio::test]
async fn an_upsert_can_depend_on_what_is_there() {
    let edge = filled(2).await;
    let body = |extra: Value| {
        let point = |id| json!({"id": id, "vector": {"a": [1, 1]}, "payload": {"new": true}});
        let mut body = json!({"points": [point(0), point(1), point(7)]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let new = json!({"must": [{"key": "new", "match": {"value": true}}]});
    edge.ok("PUT", POINTS, body(json!({"update_mode": "update_only", "update_filter": {"must": [{"has_id": [1]}]}})))
        .await;
    assert_eq!(count(&edge, new.clone()).await, json!(1));
    assert_eq!(payload(&edge, 1).await, json!({"new": true}));
    edge.ok("PUT", POINTS, body(json!({"update_mode": "insert_only"}))).await;
    assert_eq!(count(&edge, new.clone()).await, json!(2));
    edge.ok("PUT", POINTS, body(json!({"update_mode": "upsert", "update_filter": {"must": [{"has_id": [5]}]}}))).await;
    assert_eq!(payload(&edge, 0).await["n"], json!(0));
    // Each sees what those before it did.
    let twice = json!([{"id": 9, "vector": {}, "payload": {"a": 1}}, {"id": 9, "vector": {}, "payload": {"a": 2}}]);
    edge.ok("PUT", POINTS, json!({"points": twice, "update_mode": "insert_only"})).await;
    assert_eq!(payload(&edge, 9).await, json!({"a": 1}));
}

#[tokio::test]
async fn a_batch_keeps_its_order() {
    let edge = filled(2).await;
    let operations = json!([
        {"upsert": {"points": [{"id": 5, "vector": {"a": [1, 1]}, "payload": {"a": 1}}]}},
        {"set_payload": {"payload": {"b": 2}, "points": [5]}},
        {"delete": {"points": [0]}},
        {"upsert": {"batch": {"ids": [0], "vectors": {"a": [[4, 4]]}}}},
        {"update_vectors": {"points": [{"id": 5, "vector": {"b": [2, 2]}}]}},
        {"delete_payload": {"keys": ["a"], "points": [5]}},
        {"overwrite_payload": {"payload": {"o": 1}, "filter": {"must": [{"has_id": [1]}]}}},
        {"delete_vectors": {"vector": ["a"], "points": [5]}},
        {"clear_payload": {"points": [0]}},
    ]);
    let answer = edge.ok("POST", &format!("{POINTS}/batch?wait=true"), json!({"operations": operations})).await;
    let answers = answer.as_array().unwrap();
    assert_eq!(answers.len(), 9);
    assert!(answers.iter().all(|answer| answer["status"] == "completed" && answer["operation_id"].is_u64()));
    assert_eq!((payload(&edge, 5).await, vectors(&edge, 5).await), (json!({"b": 2}), json!({"b": [2.0, 2.0]})));
    assert_eq!((payload(&edge, 0).await, vectors(&edge, 0).await), (json!({}), json!({"a": [4.0, 4.0]})));
    assert_eq!(payload(&edge, 1).await, json!({"o": 1}));
}

#[tokio::test]
async fn a_missing_point_is_named_after_the_others_are_changed() {
    let edge = filled(3).await;
    let ids = json!([77, 1, 66, 2]);
    for (method, path, body) in [
        ("POST", "/payload", json!({"payload": {"m": 1}, "points": ids})),
        ("PUT", "/payload", json!({"payload": {"m": 1}, "points": ids})),
        ("POST", "/payload/delete", json!({"keys": ["m"], "points": ids})),
        ("POST", "/vectors/delete", json!({"vector": ["b"], "points": ids})),
        (
            "PUT",
            "/vectors",
            json!({"points": [{"id": 66, "vector": {"a": [1, 1]}}, {"id": 1, "vector": {"a": [1, 1]}}]}),
        ),
        ("POST", "/payload/clear", json!({"points": ids})),
    ] {
        let (status, error) = send(&edge, method, path, body).await;
        assert_eq!((status, error.as_str()), (404, "Not found: No point with id 66 found"), "{method} {path}");
    }
    assert_eq!((payload(&edge, 2).await, vectors(&edge, 1).await), (json!({}), json!({"a": [1.0, 1.0]})));
    let operations =
        json!([{"delete": {"points": [0]}}, {"clear_payload": {"points": [66]}}, {"delete": {"points": [1]}}]);
    let (status, error) = send(&edge, "POST", "/batch", json!({"operations": operations})).await;
    assert_eq!(status, 404);
    assert!(error.contains("66 found (operation 2 of 3; those before it are done)"), "{error}");
    assert_eq!(count(&edge, json!({})).await, json!(2));
}

#[tokio::test]
async fn what_cannot_be_changed_is_refused_by_name() {
    let edge = filled(2).await;
    let long = "k".repeat(2_000);
    let many: Vec<Value> = (0..1_001).map(|_| json!({"delete": {"points": [1]}})).collect();
    let batch = |operation: Value| json!({"operations": [{"delete": {"points": [1]}}, operation]});
    for (method, path, body, expected, text) in [
        ("POST", "/payload", json!({"payload": {}}), 400, "exactly one of `points` and `filter`"),
        (
            "POST",
            "/payload",
            json!({"payload": {}, "points": [1], "filter": {}}),
            400,
            "exactly one of `points` and `filter`",
        ),
        ("POST", "/payload", json!({"points": [1]}), 400, "missing field `payload`"),
        ("POST", "/payload", json!({"payload": [], "points": [1]}), 400, "invalid type: sequence"),
        ("POST", "/payload", json!({"payload": {}, "points": []}), 400, "Empty update request"),
        ("POST", "/payload", json!({"payload": {}, "points": [1], "key": "a..b"}), 400, "`key`: \"a..b\""),
        (
            "POST",
            "/payload",
            json!({"payload": {}, "points": [1], "key": long}),
            422,
            "key: a key path of 2000 bytes, the limit is 1024",
        ),
        ("POST", "/payload", json!({"payload": {}, "points": [1], "keys": 1}), 400, "unknown field `keys`"),
        ("PUT", "/payload", json!({"payload": {}, "points": [1], "key": "a"}), 400, "`key` has no meaning"),
        ("POST", "/payload/delete", json!({"keys": [], "points": [1]}), 422, "keys: has 0 items"),
        ("POST", "/payload/delete", json!({"keys": ["a["], "points": [1]}), 400, "key path"),
        ("POST", "/payload/clear", json!({"points": [1.5]}), 400, "point ID"),
        ("POST", "/payload/clear", json!({"points": [1], "shard_key": "x"}), 400, "`shard_key` is not supported"),
        ("PUT", "/vectors", json!({"points": []}), 422, "points: must specify points"),
        (
            "PUT",
            "/vectors",
            json!({"points": [{"id": 1, "vector": {"a": [1]}}]}),
            400,
            "expected dim: 2, got 1 (point 1)",
        ),
        (
            "PUT",
            "/vectors",
            json!({"points": [{"id": 1, "vector": {"q": [1, 1]}}]}),
            400,
            "vector name error: q (point 1)",
        ),
        ("POST", "/vectors/delete", json!({"vector": ["q"], "points": [1]}), 400, "vector name error: q"),
        ("POST", "/vectors/delete", json!({"vector": [], "points": [1]}), 422, "vector: has 0 items"),
        ("POST", "/batch", json!({"operations": many}), 422, "operations: has 1001 items, 1000 are possible"),
        ("POST", "/batch", batch(json!({"drop": {}})), 400, "unknown variant `drop`"),
        ("POST", "/batch", batch(json!({"delete": [[1], null, null]})), 400, "expected an object"),
        ("POST", "/batch", batch(json!({"delete_vectors": {"vector": ["q"], "points": [1]}})), 400, "error: q"),
        ("PUT", "", json!({"points": [{"id": 1, "vector": {}}], "update_mode": "x"}), 400, "unknown variant `x`"),
    ] {
        let (status, error) = send(&edge, method, path, body.clone()).await;
        assert_eq!(status, expected, "{method} {path} {body}: {error}");
        assert!(error.contains(text), "{method} {path} {body}: {error}");
    }
    assert_eq!(count(&edge, json!({})).await, json!(2), "nothing is half done");
    assert_eq!(payload(&edge, 1).await["n"], json!(1));
}

#[tokio::test]
async fn strict_collections_want_an_index_for_the_filter_of_a_change() {
    let edge = Edge::new().await;
    let strict = json!({"enabled": true, "unindexed_filtering_update": false});
    edge.ok("PUT", C, json!({"vectors": {"size": 2, "distance": "Dot"}, "strict_mode_config": strict})).await;
    let filter = json!({"must": [{"key": "n", "match": {"value": 1}}]});
    let vectors = json!([{"id": 1, "vector": [1, 1]}]);
    for (method, path, body) in [
        ("POST", "/payload", json!({"payload": {}, "filter": filter})),
        ("POST", "/payload/clear", json!({"filter": filter})),
        ("PUT", "/vectors", json!({"points": vectors, "update_filter": filter})),
        ("PUT", "", json!({"points": vectors, "update_filter": filter})),
        ("POST", "/batch", json!({"operations": [{"delete": {"filter": filter}}]})),
    ] {
        let (status, error) = send(&edge, method, path, body).await;
        assert_eq!(status, 400, "{method} {path}");
        assert!(error.contains("Index required but not found for \"n\""), "{method} {path}: {error}");
    }
}
