//! Queries made of points of other collections, and hits chosen to differ from each other.

use serde_json::{Value, json};

use super::{Edge, filled};

const POINTS: &str = "/collections/c/points";

fn ids(hits: &Value) -> Vec<u64> {
    hits.as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

async fn query(edge: &Edge, query: Value) -> Vec<u64> {
    ids(&edge.ok("POST", &format!("{POINTS}/query"), query).await["points"])
}

/// Beside the points of `filled()` collections `d` and `e`: point 3 is at `[15, 0]` by its vector `far` in `d`, and at
/// `[10, 0]` in `e`.
async fn with_another() -> Edge {
    let edge = filled().await;
    let vector = json!({"size": 2, "distance": "Euclid"});
    let vectors = json!({"far": vector, "long": {"size": 3, "distance": "Dot"}});
    edge.ok("PUT", "/collections/d", json!({"vectors": vectors})).await;
    let point = json!({"id": 3, "vector": {"far": [15, 0], "long": [1, 2, 3]}});
    edge.ok("PUT", "/collections/d/points", json!({"points": [point, {"id": 4, "vector": {"far": [1, 0]}}]})).await;
    edge.ok("PUT", "/collections/e", json!({"vectors": vector})).await;
    edge.ok("PUT", "/collections/e/points", json!({"points": [{"id": 3, "vector": [10, 0]}]})).await;
    edge
}

#[tokio::test]
async fn examples_are_looked_up_where_the_query_says() {
    let edge = with_another().await;
    let from = |vector: Value| json!({"collection": "d", "vector": vector});
    assert_eq!(query(&edge, json!({"query": 3, "limit": 2})).await, [2, 4]);
    assert_eq!(query(&edge, json!({"query": 3, "lookup_from": {"collection": "e"}, "limit": 2})).await, [10, 9]);
    // The point of that name here is a hit like all others.
    let near = json!({"query": {"nearest": 3}, "lookup_from": from(json!("far")), "limit": 20});
    assert!(query(&edge, near).await.contains(&3));
    let recommend =
        json!({"query": {"recommend": {"positive": [3, [5, 0]]}}, "lookup_from": from(json!("far")), "limit": 1});
    assert_eq!(query(&edge, recommend).await, [10]);
    let prefetch = json!({"query": 3, "lookup_from": from(json!("far")), "limit": 3});
    assert_eq!(query(&edge, json!({"prefetch": prefetch, "query": 3})).await, [14, 15, 16]);
    let older = json!({"positive": [3], "lookup_from": from(json!("far")), "limit": 1});
    assert_eq!(ids(&edge.ok("POST", &format!("{POINTS}/recommend"), older).await), [15]);
    let groups = json!({"query": 3, "lookup_from": from(json!("far")), "group_by": "s.t", "limit": 1, "group_size": 1});
    let found = edge.ok("POST", &format!("{POINTS}/query/groups"), groups).await;
    assert_eq!(found["groups"], json!([{"id": 0, "hits": [found["groups"][0]["hits"][0]]}]));
    assert_eq!(found["groups"][0]["hits"][0]["id"], 15);
    // An alias of the collection itself: its points are left out.
    let actions = json!({"actions": [{"create_alias": {"collection_name": "c", "alias_name": "a"}}]});
    edge.ok("POST", "/collections/aliases", actions).await;
    assert_eq!(query(&edge, json!({"query": 3, "lookup_from": {"collection": "a"}, "limit": 2})).await, [2, 4]);
}

#[tokio::test]
async fn what_is_wrong_with_a_lookup_is_named() {
    let edge = with_another().await;
    for (lookup, id, status, text) in [
        (json!({"collection": "x"}), 3, 404, "Not found: Collection `x` doesn't exist!"),
        (json!({}), 3, 400, "missing field `collection`"),
        (json!({"collection": "d", "shard_key": "k"}), 3, 400, "`lookup_from.shard_key` is not supported yet"),
        (json!({"collection": "d", "vector": "v"}), 3, 400, "Not existing vector name error: v"),
        (json!({"collection": "d", "vector": "long"}), 3, 400, "expected dim: 2, got 3"),
        (
            json!({"collection": "d"}),
            3,
            400,
            "requires specified vector name in the request, available names: far, long",
        ),
        (json!({"collection": "e"}), 9, 404, "No point with id 9 found in `e`"),
        (json!({"collection": "d", "vector": "long"}), 4, 400, "point 4 of `d` has no vector `long`"),
    ] {
        let body = json!({"query": id, "lookup_from": lookup});
        let (got, error) = edge.refused("POST", &format!("{POINTS}/query"), body.clone()).await;
        assert!(got == status && error.contains(text), "{body}: {got} {error}");
    }
}

#[tokio::test]
async fn hits_are_chosen_to_differ() {
    let edge = filled().await;
    let mmr = |nearest: Value, mmr: Value| json!({"query": {"nearest": nearest, "mmr": mmr}, "limit": 3});
    assert_eq!(query(&edge, mmr(json!([5.1, 0]), json!(null))).await, [5, 6, 4]);
    assert_eq!(query(&edge, mmr(json!([5.1, 0]), json!({"diversity": 0.0}))).await, [5, 6, 4]);
    // All but relevance: the ends of what there is to choose from.
    let far = mmr(json!([5.1, 0]), json!({"diversity": 1.0, "candidates_limit": 7}));
    let found = edge.ok("POST", &format!("{POINTS}/query"), far).await;
    assert_eq!(ids(&found["points"])[..2], [5, 8]);
    let score = found["points"][1]["score"].as_f64().unwrap();
    assert!((score - 2.9).abs() < 1e-5, "scores are those of the query: {score}");
    // A stored point is left out, parts are fetched for what was chosen, the offset counts what was chosen.
    let mut stored = mmr(json!(5), json!({"diversity": 0.0, "candidates_limit": 4}));
    stored["offset"] = json!(1);
    stored["with_payload"] = json!(["n"]);
    stored["with_vector"] = json!(true);
    let found = edge.ok("POST", &format!("{POINTS}/query"), stored).await;
    assert_eq!(ids(&found["points"]).len(), 3);
    let hit = &found["points"][0];
    assert_eq!((&hit["payload"]["n"], &hit["vector"][0]), (&hit["id"], &json!(hit["id"].as_f64().unwrap())));
    // Among what a prefetch found, and below a fusion.
    let mut among = mmr(json!([0, 0]), json!({"diversity": 1.0, "candidates_limit": 10}));
    among["prefetch"] = json!({"query": [10, 0], "limit": 5});
    assert_eq!(query(&edge, among).await[..2], [8, 12]);
    let below = json!({"prefetch": mmr(json!([5.1, 0]), json!({})), "query": {"fusion": "rrf"}});
    assert_eq!(query(&edge, below).await.len(), 3);
    let empty = mmr(json!([5.1, 0]), json!({"candidates_limit": 0}));
    assert_eq!(query(&edge, empty).await, [] as [u64; 0]);
}

#[tokio::test]
async fn what_is_wrong_with_a_choice_is_named() {
    let edge = filled().await;
    edge.ok("PUT", "/collections/wide", json!({"vectors": {"size": 65_536, "distance": "Dot"}})).await;
    let wide = "/collections/wide/points";
    for (path, body, status, text) in [
        (POINTS, json!({"nearest": [1, 0], "mmr": {"diversity": 2}}), 422, "query.mmr.diversity: value 2 invalid"),
        (POINTS, json!({"nearest": [1, 0], "mmr": {"candidates_limit": 16_385}}), 422, "query.mmr.candidates_limit"),
        (POINTS, json!({"nearest": [1, 0], "mmr": {"lambda": 1}}), 400, "unknown field `lambda`"),
        (POINTS, json!({"nearest": 77, "mmr": {}}), 404, "No point with id 77 found"),
        (POINTS, json!({"mmr": {}}), 400, "missing field `nearest`"),
        (POINTS, json!({"fusion": "rrf", "mmr": {}}), 400, "`query.mmr` goes with `nearest`"),
        (POINTS, json!({"nearest": {"nearest": [1, 0], "mmr": {}}}), 400, "inside one"),
        (wide, json!({"nearest": 1, "mmr": {"candidates_limit": 513}}), 422, "33619968 components"),
    ] {
        let (got, error) = edge.refused("POST", &format!("{path}/query"), json!({"query": body})).await;
        assert!(got == status && error.contains(text), "{body}: {got} {error}");
    }
}
