//! Searches by several examples, orders, samples and facets.

use serde_json::{Value, json};

use super::{Edge, filled};

const QUERY: &str = "/collections/c/points/query";

async fn hits(edge: &Edge, query: Value) -> Vec<(u64, f64)> {
    let answer = edge.ok("POST", QUERY, query).await;
    let hit = |hit: &Value| (hit["id"].as_u64().unwrap(), (hit["score"].as_f64().unwrap() * 1e4).round() / 1e4);
    answer["points"].as_array().unwrap().iter().map(hit).collect()
}

async fn ids(edge: &Edge, query: Value) -> Vec<u64> {
    hits(edge, query).await.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn examples_are_weighed_and_left_out() {
    let edge = filled().await;
    let recommend = |strategy: &str, input: Value| {
        let mut input = input;
        input["strategy"] = json!(strategy);
        json!({"query": {"recommend": input}, "limit": 3})
    };
    // Points are at their ids on a line; similarities are squared distances with their sign changed.
    let both = json!({"positive": [4], "negative": [9]});
    assert_eq!(hits(&edge, recommend("best_score", both.clone())).await[..2], [(3, 0.25), (5, 0.25)]);
    assert_eq!(hits(&edge, recommend("sum_scores", both)).await[0], (0, 65.0));
    let only_negative = json!({"negative": [[10, 0]]});
    assert_eq!(ids(&edge, recommend("best_score", only_negative)).await, [0, 1, 19]);
    let weighted = json!({"positive": [4, 10], "positive_weights": [1, 3]});
    assert_eq!(ids(&edge, recommend("sum_scores", weighted.clone())).await, [8, 9, 7]);
    assert_eq!(ids(&edge, recommend("average_vector", weighted)).await, [8, 9, 7]);
    let mut bounded = recommend("sum_scores", json!({"positive": [[4, 0]]}));
    bounded["score_threshold"] = json!(-1.0);
    assert_eq!(ids(&edge, bounded).await, [4, 3, 5]);
}

#[tokio::test]
async fn pairs_cut_the_space() {
    let edge = filled().await;
    let pair = json!({"positive": [0, 0], "negative": [10, 0]});
    let discover = json!({"query": {"discover": {"target": [7, 0], "context": [pair]}}, "limit": 3});
    // Nearer to 0 than to 10, and of those the nearest to 7; 5 is on the border.
    assert_eq!(ids(&edge, discover).await, [4, 3, 2]);
    assert_eq!(ids(&edge, json!({"query": {"discover": {"target": 7, "context": null}}, "limit": 2})).await, [6, 8]);
    let context = json!({"query": {"context": pair}, "limit": 20});
    let found = hits(&edge, context).await;
    assert!(found[..5].iter().all(|(id, score)| *id < 5 && *score == 0.0), "{found:?}");
    let older = json!({"target": 7, "context": [{"positive": 0, "negative": 10}], "limit": 1});
    assert_eq!(edge.ok("POST", "/collections/c/points/discover", older.clone()).await[0]["id"], 4);
    let batch = json!({"searches": [older, {"context": [{"positive": 0, "negative": 10}], "limit": 2}]});
    let answers = edge.ok("POST", "/collections/c/points/discover/batch", batch).await;
    assert_eq!(answers[1].as_array().unwrap().len(), 2);
    let judged = json!([{"example": 12, "score": 1.0}, {"example": 3, "score": 0.0}]);
    let naive = json!({"naive": {"a": 1.0, "b": 1.0, "c": 1.0}});
    let feedback = json!({"relevance_feedback": {"target": [7, 0], "feedback": judged, "strategy": naive}});
    // -(x - 7)^2 - (x - 12)^2 + (x - 3)^2 is largest at x = 16.
    assert_eq!(ids(&edge, json!({"query": feedback, "limit": 1})).await, [16]);
}

#[tokio::test]
async fn points_are_ordered_by_a_key() {
    let edge = filled().await;
    let scroll = "/collections/c/points/scroll";
    let page = edge.ok("POST", scroll, json!({"order_by": {"key": "n", "direction": "desc"}, "limit": 2})).await;
    let shown: Vec<_> = page["points"].as_array().unwrap().iter().map(|p| (&p["id"], &p["order_value"])).collect();
    assert_eq!(shown, [(&json!(19), &json!(19)), (&json!(18), &json!(18))]);
    assert_eq!(page["next_page_offset"], Value::Null);
    let from = json!({"order_by": {"key": "n", "start_from": 17.5}, "limit": 5, "with_payload": false});
    let page = edge.ok("POST", scroll, from).await;
    assert_eq!(page["points"].as_array().unwrap().len(), 2);
    // Ties are in order of the ids: s.t is the id modulo 3.
    let ordered = json!({"query": {"order_by": "n"}, "limit": 3, "offset": 1, "filter": {"must": [{"key": "n",
        "range": {"gte": 4}}]}});
    assert_eq!(hits(&edge, ordered).await, [(5, 1.0), (6, 1.0), (7, 1.0)]);
    let chosen = json!({"prefetch": {"query": [10, 0], "limit": 3}, "query": {"order_by": {"key": "n", "direction":
        "desc"}}});
    assert_eq!(ids(&edge, chosen).await, [11, 10, 9]);
}

#[tokio::test]
async fn samples_differ_and_repeat_nothing() {
    let edge = filled().await;
    let sample = || json!({"query": {"sample": "random"}, "limit": 10});
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let mut drawn = ids(&edge, sample()).await;
        seen.insert(drawn.clone());
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 10);
    }
    assert!(seen.len() > 1);
}

#[tokio::test]
async fn values_are_counted() {
    let edge = filled().await;
    let facet = |body: Value| edge.ok("POST", "/collections/c/facet", body);
    // The model counts whole numbers at the top level.
    assert_eq!(
        facet(json!({"key": "n", "limit": 2})).await,
        json!({"hits": [{"value": 0, "count": 1}, {"value": 1, "count": 1}]})
    );
    let filter = json!({"must": [{"key": "n", "range": {"gte": 18}}]});
    assert_eq!(facet(json!({"key": "n", "filter": filter, "exact": true})).await["hits"].as_array().unwrap().len(), 2);
}
