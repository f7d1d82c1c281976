//! How widely search shards are asked: the parameters, and what an answer shows.

use serde_json::{Value, json};

use super::filled;

const QUERY: &str = "/collections/c/points/query";

fn with(params: Value) -> Value {
    json!({"query": [1, 0], "limit": 1, "params": params})
}

#[tokio::test]
async fn parameters_out_of_range_are_refused_by_name() {
    let edge = filled().await;
    for (params, status, text) in [
        (json!({"recall_target": 0}), 422, "params.recall_target: value 0 invalid"),
        (json!({"recall_target": 1.5}), 422, "params.recall_target: value 1.5 invalid"),
        (json!({"nprobe_shards": 0}), 422, "params.nprobe_shards: value 0 invalid, must be from 1 to 128"),
        (json!({"nprobe_shards": 129}), 422, "params.nprobe_shards: value 129 invalid, must be from 1 to 128"),
        (json!({"nprobe_shards": -1}), 400, "nprobe_shards"),
        (json!({"routing": "some"}), 400, "routing"),
        (json!({"routing": "all", "nprobe_shards": 1}), 422, "params.routing: cannot be used with `nprobe_shards`"),
    ] {
        let (found, told) = edge.refused("POST", QUERY, with(params.clone())).await;
        assert!(found == status && told.contains(text), "{params}: {found} {told}");
        let below = json!({"prefetch": with(params.clone()), "query": [1, 0]});
        assert_eq!(edge.refused("POST", QUERY, below).await.0, status, "{params}");
        let batch = json!({"searches": [with(json!({})), with(params.clone())]});
        assert_eq!(edge.refused("POST", "/collections/c/points/query/batch", batch).await.0, status, "{params}");
        let older = json!({"vector": [1, 0], "limit": 1, "params": params});
        assert_eq!(edge.refused("POST", "/collections/c/points/search", older).await.0, status);
    }
}

#[tokio::test]
async fn where_no_search_shards_are_they_may_be_given_too() {
    let edge = filled().await;
    let usual = edge.ok("POST", QUERY, with(json!({}))).await;
    assert_eq!(usual["points"].as_array().map(Vec::len), Some(1));
    for params in [json!({"recall_target": 0.9}), json!({"nprobe_shards": 1}), json!({"routing": "homes"})] {
        assert_eq!(edge.ok("POST", QUERY, with(params.clone())).await, usual, "{params}");
    }
}
