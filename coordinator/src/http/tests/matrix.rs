//! Which points of a sample are near to each other.

use serde_json::{Value, json};

use super::{C, Edge, filled};

const MATRIX: &str = "/collections/c/points/search/matrix";

#[tokio::test]
async fn all_points_are_a_sample_of_themselves() {
    let edge = filled().await;
    let body = json!({"sample": 50, "limit": 2, "filter": {"must": [{"key": "n", "range": {"lt": 4}}]}});
    let found = edge.ok("POST", &format!("{MATRIX}/pairs"), body.clone()).await;
    let pairs: Vec<Value> =
        found["pairs"].as_array().unwrap().iter().map(|p| json!([p["a"], p["b"], p["score"]])).collect();
    let expected = [[0, 1, 1], [0, 2, 2], [1, 0, 1], [1, 2, 1], [2, 1, 1], [2, 3, 1], [3, 2, 1], [3, 1, 2]];
    let expected: Vec<Value> = expected.iter().map(|[a, b, score]| json!([a, b, f64::from(*score)])).collect();
    assert_eq!(pairs, expected);
    let found = edge.ok("POST", &format!("{MATRIX}/offsets"), body).await;
    assert_eq!(found["ids"], json!([0, 1, 2, 3]));
    assert_eq!(found["offsets_row"], json!([0, 0, 1, 1, 2, 2, 3, 3]));
    assert_eq!(found["offsets_col"], json!([1, 2, 0, 2, 1, 3, 2, 1]));
    assert_eq!(found["scores"], json!([1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]));
}

#[tokio::test]
async fn a_sample_is_random_and_as_large_as_asked_for() {
    let edge = filled().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let found = edge.ok("POST", &format!("{MATRIX}/offsets"), json!({"sample": 5})).await;
        let ids: Vec<u64> = found["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert!(ids.len() == 5 && ids.is_sorted(), "{ids:?}");
        assert_eq!(found["scores"].as_array().unwrap().len(), 15);
        seen.extend(ids);
    }
    assert_eq!(seen.len(), 20, "in 100 samples each point comes up");
    let default = edge.ok("POST", &format!("{MATRIX}/offsets"), json!({})).await;
    assert_eq!(default["ids"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn only_points_with_the_vector_are_compared() {
    let edge = Edge::new().await;
    let vector = json!({"size": 2, "distance": "Cosine"});
    edge.ok("PUT", C, json!({"vectors": {"a": vector, "b": vector}})).await;
    let points = json!([{"id": 1, "vector": {"a": [2, 0]}}, {"id": 2, "vector": {"a": [0, 3], "b": [1, 0]}}]);
    edge.ok("PUT", "/collections/c/points", json!({"points": points})).await;
    let found = edge.ok("POST", &format!("{MATRIX}/pairs"), json!({"using": "a"})).await;
    assert_eq!(found["pairs"], json!([{"a": 1, "b": 2, "score": 0.0}, {"a": 2, "b": 1, "score": 0.0}]));
    // There is nothing to compare one point with.
    let found = edge.ok("POST", &format!("{MATRIX}/pairs"), json!({"using": "b"})).await;
    assert_eq!(found, json!({"pairs": []}));
    let found = edge.ok("POST", &format!("{MATRIX}/offsets"), json!({"using": "b"})).await;
    assert_eq!(found, json!({"offsets_row": [], "offsets_col": [], "scores": [], "ids": []}));
}

#[tokio::test]
async fn what_is_wrong_with_a_matrix_is_named() {
    let edge = filled().await;
    for (body, status, text) in [
        (json!({"sample": 1}), 422, "[sample: value 1 invalid, must be from 2 to 1000]"),
        (json!({"sample": 1_001}), 422, "[sample: value 1001 invalid"),
        (json!({"limit": 0}), 422, "[limit: value 0 invalid"),
        (json!({"using": "v"}), 400, "Not existing vector name error: v"),
        (json!({"shard_key": "k"}), 400, "`shard_key` is not supported yet"),
        (json!({"smaple": 3}), 400, "unknown field `smaple`"),
    ] {
        let (got, error) = edge.refused("POST", &format!("{MATRIX}/pairs"), body.clone()).await;
        assert!(got == status && error.contains(text), "{body}: {got} {error}");
    }
    let (status, error) = edge.refused("POST", "/collections/x/points/search/matrix/offsets", json!({})).await;
    assert_eq!((status, error.as_str()), (404, "Not found: Collection `x` doesn't exist!"));
}
