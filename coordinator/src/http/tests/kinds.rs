//! Sparse vectors, multivectors, datatypes, and collections without vectors.

use serde_json::{Value, json};

use super::{C, Edge};

const POINTS: &str = "/collections/c/points";
const QUERY: &str = "/collections/c/points/query";

async fn hits(edge: &Edge, query: Value) -> Vec<(u64, f64)> {
    let answer = edge.ok("POST", QUERY, query).await;
    let hit = |hit: &Value| (hit["id"].as_u64().unwrap(), (hit["score"].as_f64().unwrap() * 1e4).round() / 1e4);
    answer["points"].as_array().unwrap().iter().map(hit).collect()
}

fn sparse(pairs: &[(u32, f32)]) -> Value {
    let (indices, values): (Vec<u32>, Vec<f32>) = pairs.iter().copied().unzip();
    json!({"indices": indices, "values": values})
}

#[tokio::test]
async fn sparse_vectors_are_searched() {
    let edge = Edge::new().await;
    let create = json!({"sparse_vectors": {"s": {"index": {"on_disk": false}}, "t": {"modifier": "idf"}}});
    edge.ok("PUT", C, create).await;
    let config = edge.ok("GET", C, Value::Null).await["config"]["params"].clone();
    assert_eq!((&config["vectors"], &config["sparse_vectors"]["t"]), (&json!({}), &json!({"modifier": "idf"})));
    let point = |id: u64| {
        let s = sparse(&[(7, id as f32), (1, 1.0)]);
        let t = sparse(&[(id as u32 % 2, 1.0), (5, 1.0)]);
        json!({"id": id, "vector": {"s": s, "t": t}, "payload": {"n": id}})
    };
    let points: Vec<Value> = (0..10).map(point).collect();
    edge.ok("PUT", POINTS, json!({"points": points})).await;
    // Nothing is shared with 99.
    let query = |name: &str, vector: Value| json!({"query": vector, "using": name, "limit": 3});
    assert_eq!(hits(&edge, query("s", sparse(&[(99, 1.0)]))).await, []);
    assert_eq!(hits(&edge, query("s", sparse(&[(7, 2.0), (99, 1.0)]))).await, [(9, 18.0), (8, 16.0), (7, 14.0)]);
    let by_id = hits(&edge, query("s", json!(9))).await;
    assert_eq!(by_id, [(8, 73.0), (7, 64.0), (6, 55.0)]);
    // 5 of 10 points have 1, all have 5.
    let weight = |n: f64| ((10.0 - n + 0.5) / (n + 0.5) + 1.0).ln();
    let expected = ((weight(5.0) + weight(10.0)) * 1e4).round() / 1e4;
    assert_eq!(hits(&edge, query("t", sparse(&[(5, 1.0), (1, 1.0)]))).await[0], (1, expected));
    let mut among = query("t", sparse(&[(1, 1.0)]));
    among["params"] = json!({"idf": {"corpus": {"must": [{"key": "n", "range": {"lt": 2}}]}}});
    let expected = (((1.5f64 / 1.5) + 1.0).ln() * 1e4).round() / 1e4;
    assert_eq!(hits(&edge, among).await[0].1, expected);
    let recommend = json!({"recommend": {"positive": [2, sparse(&[(1, 3.0)])], "strategy": "sum_scores"}});
    assert_eq!(hits(&edge, query("s", recommend)).await[0], (9, 22.0));
    let stored = edge.ok("GET", "/collections/c/points/3", Value::Null).await;
    assert_eq!(stored["vector"]["s"], json!({"indices": [1, 7], "values": [1.0, 3.0]}));
    let hybrid = json!({"prefetch": [query("s", sparse(&[(7, 1.0)])), query("t", sparse(&[(0, 1.0)]))], "query":
        {"fusion": "rrf"}, "limit": 2});
    assert_eq!(hits(&edge, hybrid).await.len(), 2);
    let older = json!({"vector": {"name": "s", "vector": sparse(&[(7, 1.0)])}, "limit": 1});
    assert_eq!(edge.ok("POST", "/collections/c/points/search", older).await[0]["id"], 9);
}

#[tokio::test]
async fn multivectors_are_compared_by_their_best_matches() {
    let edge = Edge::new().await;
    let vector = json!({"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}});
    edge.ok("PUT", C, json!({"vectors": vector.clone()})).await;
    let shown = edge.ok("GET", C, Value::Null).await["config"]["params"]["vectors"].clone();
    assert_eq!(shown["multivector_config"], json!({"comparator": "max_sim"}));
    let points = json!([
        {"id": 1, "vector": [[1, 0], [0, 1]]},
        {"id": 2, "vector": [[2, 0]]},
        {"id": 3, "vector": [[-1, -1]]},
    ]);
    edge.ok("PUT", POINTS, json!({"points": points})).await;
    assert_eq!(hits(&edge, json!({"query": [[1, 0], [0, 1]]})).await, [(1, 2.0), (2, 2.0), (3, -2.0)]);
    assert_eq!(hits(&edge, json!({"query": [1, 0], "limit": 1})).await, [(2, 2.0)]);
    let batch = json!({"batch": {"ids": [4], "vectors": [[[5, 5], [0, 0], [1, 1]]]}});
    edge.ok("PUT", POINTS, batch).await;
    assert_eq!(hits(&edge, json!({"query": 4, "limit": 1})).await[0].0, 2);
    let stored = edge.ok("GET", "/collections/c/points/4", Value::Null).await;
    assert_eq!(stored["vector"], json!([[5.0, 5.0], [0.0, 0.0], [1.0, 1.0]]));
    let with = |settings: Value| {
        let mut vector = vector.clone();
        vector.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        json!({ "vectors": vector })
    };
    edge.ok("PUT", "/collections/d", with(json!({"hnsw_config": {"m": 0}}))).await;
    for settings in [json!({"hnsw_config": {"m": 8}}), json!({"quantization_config": {"scalar": {"type": "int8"}}})] {
        let (status, error) = edge.refused("PUT", "/collections/e", with(settings)).await;
        assert!(status == 400 && error.contains("is not supported for multivectors"), "{error}");
    }
    for (bad, text) in [
        (json!([[1, 0, 0]]), "expected dim: 2, got 3"),
        (json!([[]]), "a vector without values"),
        (json!({"": {"indices": [1], "values": [1]}}), "expected a multivector"),
    ] {
        let (status, error) = edge.refused("PUT", POINTS, json!({"points": [{"id": 9, "vector": bad}]})).await;
        assert!(status == 400 && error.contains(text), "{bad}: {error}");
    }
}

#[tokio::test]
async fn values_have_the_precision_of_their_datatype() {
    let edge = Edge::new().await;
    let of = |datatype: &str| json!({"size": 2, "distance": "Dot", "datatype": datatype});
    edge.ok("PUT", C, json!({"vectors": {"b": of("uint8"), "h": of("float16")}})).await;
    let vector = json!({"b": [3.9, 300], "h": [0.1, 1]});
    edge.ok("PUT", POINTS, json!({"points": [{"id": 1, "vector": vector}]})).await;
    let stored = edge.ok("GET", "/collections/c/points/1", Value::Null).await;
    assert_eq!(stored["vector"]["b"], json!([3.0, 255.0]));
    assert_eq!(stored["vector"]["h"], json!([0.099975586, 1.0]));
    let refused = json!({"vectors": {"size": 2, "distance": "Cosine", "datatype": "uint8"}});
    let (status, error) = edge.refused("PUT", "/collections/d", refused).await;
    assert!(status == 400 && error.contains("uint8 with distance Cosine"), "{error}");
}

#[tokio::test]
async fn a_collection_may_have_no_vectors() {
    let edge = Edge::new().await;
    edge.ok("PUT", C, json!({})).await;
    edge.ok("PUT", POINTS, json!({"points": [{"id": 1, "vector": {}, "payload": {"n": 1}}]})).await;
    let answer = edge.ok("POST", "/collections/c/points/scroll", json!({"with_vector": true})).await;
    assert_eq!(answer["points"], json!([{"id": 1, "payload": {"n": 1}, "vector": {}}]));
    let (status, error) = edge.refused("POST", QUERY, json!({"query": [1]})).await;
    assert!(status == 400 && error.contains("vector name"), "{error}");
}
