//! Queries that build on others: fusion, choosing anew, averages of examples.

use serde_json::{Value, json};

use super::{C, Edge};

const QUERY: &str = "/collections/c/points/query";

/// Points 0..20: vector `a` is `[id, 0]`, `b` is `[0, 19 - id]`; `n` is the id.
async fn filled() -> Edge {
    let edge = Edge::new().await;
    let vector = json!({"size": 2, "distance": "Euclid"});
    edge.ok("PUT", C, json!({"vectors": {"a": vector, "b": vector}})).await;
    let point = |id| json!({"id": id, "vector": {"a": [id, 0], "b": [0, 19 - id]}, "payload": {"n": id}});
    let points: Vec<Value> = (0..20).map(point).collect();
    edge.ok("PUT", "/collections/c/points", json!({"points": points})).await;
    edge
}

/// The query with `"using": "a"` wherever another one is not named.
fn by_a(mut query: Value) -> Value {
    if let Some(fields) = query.as_object_mut() {
        fields.entry("using").or_insert("a".into());
        if let Some(prefetch) = fields.remove("prefetch") {
            let prefetch = match prefetch {
                Value::Array(many) => many.into_iter().map(by_a).collect(),
                one => by_a(one),
            };
            fields.insert("prefetch".into(), prefetch);
        }
    }
    query
}

async fn ids(edge: &Edge, query: Value) -> Vec<u64> {
    let answer = edge.ok("POST", QUERY, by_a(query)).await;
    answer["points"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn lists_are_fused() {
    let edge = filled().await;
    // 5, 6, 4 and 5, 4, 6 (b is nearest to 14 = 19 - 5).
    let a = json!({"query": [5.2, 0], "limit": 3});
    let b = json!({"query": [0, 14.2], "using": "b", "limit": 3});
    let fused = json!({"prefetch": [a, b], "query": {"fusion": "rrf"}, "limit": 2, "with_payload": true});
    let answer = edge.ok("POST", QUERY, by_a(fused)).await;
    let hits = answer["points"].as_array().unwrap();
    assert_eq!((&hits[0]["id"], &hits[0]["score"], &hits[0]["payload"]), (&json!(5), &json!(1.0), &json!({"n": 5})));
    assert_eq!(hits.len(), 2);
    assert_eq!(ids(&edge, json!({"prefetch": [a, b], "query": {"fusion": "dbsf"}})).await.len(), 3);
    let mut weighted = json!({"prefetch": [{"query": 3, "limit": 1}, {"query": 9, "limit": 1}]});
    weighted["query"] = json!({"rrf": {"k": 1, "weights": [1, 3]}});
    assert_eq!(ids(&edge, weighted.clone()).await[0], 8);
    weighted["score_threshold"] = json!(1.5);
    assert_eq!(ids(&edge, weighted.clone()).await, [8]);
    weighted["offset"] = json!(1);
    assert_eq!(ids(&edge, weighted).await, [] as [u64; 0]);
}

#[tokio::test]
async fn a_query_chooses_from_what_others_found() {
    let edge = filled().await;
    let near_ten = json!({"query": [10, 0], "limit": 3});
    assert_eq!(ids(&edge, json!({"prefetch": near_ten, "query": [0, 0]})).await, [9, 10, 11]);
    let nested = json!({"prefetch": [{"prefetch": {"query": [10, 0], "limit": 5}, "query": [0, 0], "limit": 2}]});
    let query = |mut body: Value, query: Value| {
        body["query"] = query;
        body
    };
    assert_eq!(ids(&edge, query(nested.clone(), json!([100, 0]))).await, [9, 8]);
    // The filter holds for prefetches too: their limits count what can be in the result.
    let mut filtered = query(nested, json!([100, 0]));
    filtered["filter"] = json!({"must": [{"key": "n", "range": {"lt": 5}}]});
    assert_eq!(ids(&edge, filtered).await, [1, 0]);
    // The point that is the query takes no place in a prefetch.
    assert_eq!(ids(&edge, json!({"prefetch": {"query": [10, 0], "limit": 2}, "query": 10})).await, [9, 11]);
    let nothing = json!({"query": [0, 0], "filter": {"must": [{"has_id": [77]}]}});
    assert_eq!(ids(&edge, json!({"prefetch": nothing, "query": [0, 0]})).await, [] as [u64; 0]);
    let (status, error) = edge.refused("POST", QUERY, by_a(json!({"prefetch": nothing, "query": 77}))).await;
    assert_eq!((status, error.as_str()), (404, "Not found: No point with id 77 found"));
}

#[tokio::test]
async fn examples_are_averaged_and_left_out() {
    let edge = filled().await;
    let recommend = |input: Value| json!({"query": {"recommend": input}, "limit": 2});
    assert_eq!(ids(&edge, recommend(json!({"positive": [4, 6]}))).await, [5, 3]);
    assert_eq!(ids(&edge, recommend(json!({"positive": [[4, 0], 6], "negative": []}))).await, [5, 4]);
    // Twice 8 less 4 is 12.
    assert_eq!(ids(&edge, recommend(json!({"positive": [8], "negative": [4]}))).await, [12, 11]);
    let mut by_b = recommend(json!({"positive": [3]}));
    by_b["using"] = json!("b");
    assert_eq!(ids(&edge, by_b).await, [2, 4]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let edge = filled().await;
    let one = || json!({"query": [1, 0], "limit": 1});
    let mut deep = one();
    for _ in 0..9 {
        deep = json!({"prefetch": deep, "query": [1, 0]});
    }
    let examples: Vec<u64> = (0..1_001).collect();
    for (body, status, text) in [
        (json!({"query": {"fusion": "rrf"}}), 400, "a fusion needs `prefetch`"),
        (json!({"prefetch": one()}), 400, "`query` is missing"),
        (
            json!({"prefetch": [one()], "query": {"rrf": {"weights": [1, 2]}}}),
            422,
            "query.rrf.weights: 2 weights for 1",
        ),
        (json!({"prefetch": [one()], "query": {"rrf": {"k": 0}}}), 422, "query.rrf.k: value 0 invalid"),
        (json!({"prefetch": [one()], "query": {"fusion": "sum"}}), 400, "unknown variant `sum`"),
        (
            json!({"prefetch": [one()], "query": {"fusion": "rrf", "nearest": [1, 0]}}),
            400,
            "stands beside another query",
        ),
        (json!({"prefetch": deep, "query": [1, 0]}), 422, "prefetch: nested deeper than 8 levels"),
        (json!({"prefetch": vec![one(); 65], "query": [1, 0]}), 422, "65 prefetches, allowed are 64"),
        (json!({"prefetch": {"query": [1], "limit": 1}, "query": [1, 0]}), 400, "expected dim: 2, got 1"),
        (json!({"prefetch": {"query": [1, 0], "limit": 0}, "query": [1, 0]}), 422, "limit: value 0 invalid"),
        (json!({"prefetch": {"query": [1, 0], "offset": 1}, "query": [1, 0]}), 400, "unknown field `offset`"),
        (json!({"prefetch": 5, "query": [1, 0]}), 400, "an object or a list of objects"),
        (
            json!({"prefetch": [{"query": 5, "lookup_from": {"collection": "x"}}], "query": 1}),
            404,
            "Collection `x` doesn't exist!",
        ),
        (json!({"query": {"recommend": {}}}), 400, "at least one positive example"),
        (json!({"query": {"recommend": {"positive": examples}}}), 400, "1001 examples, the limit is 1000"),
        (
            json!({"query": {"recommend": {"positive": [], "strategy": "best_score"}}}),
            400,
            "needs at least one example",
        ),
        (json!({"query": {"recommend": {"positive": [[1]]}}}), 400, "expected dim: 2, got 1"),
        (json!({"query": {"recommend": {"positive": [77]}}}), 404, "No point with id 77 found"),
        (json!({"query": {"recommend": {"positive": [{"fusion": "rrf"}]}}}), 400, "inside one"),
    ] {
        let (got, error) = edge.refused("POST", QUERY, by_a(body.clone())).await;
        assert_eq!(got, status, "{body}: {error}");
        assert!(error.contains(text), "{body}: {error}");
    }
}

#[tokio::test]
async fn a_dead_shard_below_a_fusion_shows_in_the_answer() {
    let edge = filled().await;
    let fused = |allow_partial: bool| {
        let prefetch = json!([{"query": [5, 0], "limit": 20}, {"query": [0, 0], "using": "b", "limit": 20}]);
        json!({"prefetch": prefetch, "query": {"fusion": "rrf"}, "limit": 20, "allow_partial": allow_partial})
    };
    assert_eq!(ids(&edge, fused(false)).await.len(), 20);
    let all: Vec<_> = edge.model.lock().shards.keys().copied().collect();
    edge.model.lock().shards.remove(&all[0]);
    let (status, error) = edge.refused("POST", QUERY, by_a(fused(false))).await;
    assert_eq!(status, 503, "{error}");
    assert!(error.contains("1 of 4 shards did not answer"), "{error}");
    assert!(ids(&edge, fused(true)).await.len() < 20);
}
