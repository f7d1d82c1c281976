//! The operations before `points/query`: the same hits, as a list.

use serde_json::{Value, json};

use super::{C, Edge, filled};

const POINTS: &str = "/collections/c/points";

fn ids(hits: &Value) -> Vec<u64> {
    hits.as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn older_words_mean_the_same() {
    let edge = filled().await;
    let filter = json!({"must": [{"key": "n", "range": {"lt": 9}}]});
    let search = json!({"vector": [10, 0], "limit": 2, "offset": 1, "filter": filter, "with_payload": ["n"],
        "params": {"exact": true}, "with_vector": true});
    let hits = edge.ok("POST", &format!("{POINTS}/search"), search.clone()).await;
    assert_eq!(ids(&hits), [7, 6]);
    assert_eq!(
        (&hits[0]["payload"], &hits[0]["vector"], &hits[0]["score"]),
        (&json!({"n": 7}), &json!([7.0, 0.0]), &json!(3.0))
    );
    let batch = json!({"searches": [search, {"vector": [0, 0], "limit": 1, "score_threshold": 5}]});
    let lists = edge.ok("POST", &format!("{POINTS}/search/batch"), batch).await;
    assert_eq!((ids(&lists[0]), ids(&lists[1]), lists.as_array().unwrap().len()), (vec![7, 6], vec![0], 2));
    let recommend = json!({"positive": [4, [6, 0]], "negative": [], "limit": 2});
    assert_eq!(ids(&edge.ok("POST", &format!("{POINTS}/recommend"), recommend.clone()).await), [5, 6]);
    let lists = edge.ok("POST", &format!("{POINTS}/recommend/batch"), json!({"searches": [recommend]})).await;
    assert_eq!(ids(&lists[0]), [5, 6]);
}

#[tokio::test]
async fn a_named_vector_is_searched() {
    let edge = Edge::new().await;
    let vector = json!({"size": 2, "distance": "Euclid"});
    edge.ok("PUT", C, json!({"vectors": {"a": vector, "b": vector}})).await;
    let points =
        json!([{"id": 1, "vector": {"a": [1, 0], "b": [9, 0]}}, {"id": 2, "vector": {"a": [2, 0], "b": [0, 0]}}]);
    edge.ok("PUT", POINTS, json!({"points": points})).await;
    let search = json!({"vector": {"name": "b", "vector": [8, 0]}, "limit": 1});
    assert_eq!(ids(&edge.ok("POST", &format!("{POINTS}/search"), search).await), [1]);
    let recommend = json!({"positive": [[0, 1]], "using": "b", "limit": 1});
    assert_eq!(ids(&edge.ok("POST", &format!("{POINTS}/recommend"), recommend).await), [2]);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let edge = filled().await;
    let many = vec![json!({"vector": [1, 0], "limit": 1}); 1_001];
    for (path, body, status, text) in [
        ("search", json!({"vector": [1, 0]}), 400, "missing field `limit`"),
        ("search", json!({"limit": 1}), 400, "missing field `vector`"),
        ("search", json!({"vector": [1], "limit": 1}), 400, "expected dim: 2, got 1"),
        ("search", json!({"vector": [1, 0], "limit": 0}), 422, "limit: value 0 invalid"),
        ("search", json!({"vector": {"name": "q", "vector": [1, 0]}, "limit": 1}), 400, "vector name error: q"),
        ("search", json!({"vector": {"vector": [1, 0]}, "limit": 1}), 400, "missing field `name`"),
        ("search", json!({"vector": {"name": "q", "vektor": [1]}, "limit": 1}), 400, "unknown field `vektor`"),
        ("search", json!({"vector": [1, 0], "limit": 1, "prefetch": []}), 400, "unknown field `prefetch`"),
        ("search/batch", json!({"searches": many}), 422, "searches: 1001 queries"),
        ("recommend", json!({"limit": 1}), 400, "at least one positive example"),
        ("recommend", json!({"positive": [77], "limit": 1}), 404, "No point with id 77 found"),
        ("recommend", json!({"positive": [1], "limit": 1, "strategy": "best"}), 400, "unknown variant `best`"),
        ("discover", json!({"limit": 1}), 400, "`target` or `context` must be given"),
    ] {
        let (got, error) = edge.refused("POST", &format!("{POINTS}/{path}"), body.clone()).await;
        assert_eq!(got, status, "{path} {body}: {error}");
        assert!(error.contains(text), "{path} {body}: {error}");
    }
}
