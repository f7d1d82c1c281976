//! Queries by groups, and the records that groups stand for.

use serde_json::{Value, json};

use super::{C, Edge};

const POINTS: &str = "/collections/c/points";

/// Points 0..30 at `[id, 0]`: `kind` is `a` for the first 20, then `b`, `c`, `b`, ...; `n` is id / 10; `tags` is a list for
/// each fifth; `mixed` has all types.
async fn filled() -> Edge {
    let edge = Edge::new().await;
    edge.ok("PUT", C, json!({"vectors": {"size": 2, "distance": "Euclid"}})).await;
    let point = |id: u64| {
        let kind = if id < 20 { "a" } else { ["b", "c"][(id % 2) as usize] };
        let mixed =
            [json!("t"), json!(7), json!(7.5), json!(true), json!({"x": 1}), json!(null)][(id % 6) as usize].clone();
        let mut payload = json!({"kind": kind, "n": id / 10, "mixed": mixed, "deep": {"kind": kind}});
        if id.is_multiple_of(5) {
            payload["tags"] = json!([format!("t{}", id % 10), "all"]);
        }
        json!({"id": id, "vector": [id, 0], "payload": payload})
    };
    let points: Vec<Value> = (0..30).map(point).collect();
    edge.ok("PUT", POINTS, json!({"points": points})).await;
    edge
}

/// Each group's id with the ids of its hits.
fn shown(answer: &Value) -> Value {
    let ids = |group: &Value| group["hits"].as_array().unwrap().iter().map(|hit| hit["id"].clone()).collect::<Value>();
    answer["groups"].as_array().unwrap().iter().map(|group| json!([group["id"], ids(group)])).collect()
}

async fn groups(edge: &Edge, query: Value) -> Value {
    shown(&edge.ok("POST", &format!("{POINTS}/query/groups"), query).await)
}

#[tokio::test]
async fn groups_are_filled_and_in_order_of_their_best_hits() {
    let edge = filled().await;
    // The first four hits are all of one group.
    let query = json!({"query": [0, 0], "group_by": "kind", "limit": 2, "group_size": 2});
    assert_eq!(groups(&edge, query).await, json!([["a", [0, 1]], ["b", [20, 22]]]));
    let query = json!({"query": [21.2, 0], "group_by": "kind"});
    assert_eq!(groups(&edge, query).await, json!([["c", [21, 23, 25]], ["b", [22, 20, 24]], ["a", [19, 18, 17]]]));
    let query = json!({"query": [12, 0], "group_by": "n", "limit": 2, "group_size": 1});
    assert_eq!(groups(&edge, query).await, json!([[1, [12]], [0, [9]]]));
    let query = json!({"query": [0, 0], "group_by": "deep.kind", "limit": 1, "group_size": 1});
    assert_eq!(groups(&edge, query).await, json!([["a", [0]]]));
    let query = json!({"group_by": "n", "group_size": 2});
    assert_eq!(groups(&edge, query).await, json!([[0, [0, 1]], [1, [10, 11]], [2, [20, 21]]]), "without a query");
    assert_eq!(groups(&edge, json!({"query": 3, "group_by": "none"})).await, json!([]));
}

#[tokio::test]
async fn lists_count_for_each_value_and_other_types_for_none() {
    let edge = filled().await;
    let query = json!({"query": [0, 0], "group_by": "tags", "group_size": 2});
    let expected = json!([["t0", [0, 10]], ["all", [0, 5]], ["t5", [5, 15]]]);
    assert_eq!(groups(&edge, query.clone()).await, expected);
    let mut elements = query;
    elements["group_by"] = json!("tags[]");
    assert_eq!(groups(&edge, elements).await, expected);
    let query = json!({"query": [0, 0], "group_by": "mixed", "group_size": 2});
    assert_eq!(groups(&edge, query).await, json!([["t", [0, 6]], [7, [1, 7]]]));
}

#[tokio::test]
async fn hits_show_what_is_asked_for_and_bounds_hold() {
    let edge = filled().await;
    let path = format!("{POINTS}/query/groups");
    let filter = json!({"must": [{"key": "kind", "match": {"value": "c"}}]});
    let query = json!({"query": [0, 0], "group_by": "n", "filter": filter, "score_threshold": 24, "with_payload": ["kind"],
        "with_vector": true});
    let answer = edge.ok("POST", &path, query).await;
    assert_eq!(shown(&answer), json!([[2, [21, 23]]]));
    let hit = &answer["groups"][0]["hits"][0];
    assert_eq!(
        (&hit["payload"], &hit["vector"], &hit["score"]),
        (&json!({"kind": "c"}), &json!([21.0, 0.0]), &json!(21.0))
    );
    assert!(answer["groups"][0].get("lookup").is_none());
    let answer = edge.ok("POST", &path, json!({"query": [0, 0], "group_by": "n", "limit": 1})).await;
    assert!(answer["groups"][0]["hits"][0].get("payload").is_none(), "{answer}");
}

#[tokio::test]
async fn prefetches_and_fusions_are_grouped() {
    let edge = filled().await;
    let near = json!({"query": [20, 0], "limit": 2});
    let query = json!({"prefetch": near, "query": [0, 0], "group_by": "kind", "group_size": 2, "limit": 3});
    // Each prefetch finds twice as many: 20, 19, 21, 18.
    assert_eq!(groups(&edge, query).await[0], json!(["a", [18, 19]]));
    let lists = json!([{"query": [0, 0], "limit": 1}, {"query": [29, 0], "limit": 1}]);
    let query = json!({"prefetch": lists, "query": {"fusion": "rrf"}, "group_by": "kind", "group_size": 1, "limit": 3});
    let found = groups(&edge, query).await;
    let mut kinds: Vec<&str> = found.as_array().unwrap().iter().map(|group| group[0].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["a", "b", "c"]);
}

#[tokio::test]
async fn older_words_group_as_well() {
    let edge = filled().await;
    let search = json!({"vector": [0, 0], "group_by": "kind", "limit": 2, "group_size": 1});
    let found = edge.ok("POST", &format!("{POINTS}/search/groups"), search).await;
    assert_eq!(shown(&found), json!([["a", [0]], ["b", [20]]]));
    let recommend = json!({"positive": [21, 23], "group_by": "kind", "limit": 2, "group_size": 2});
    let found = edge.ok("POST", &format!("{POINTS}/recommend/groups"), recommend).await;
    assert_eq!(shown(&found), json!([["b", [22, 20]], ["a", [19, 18]]]));
}

#[tokio::test]
async fn groups_stand_for_records_of_another_collection() {
    let edge = filled().await;
    edge.ok("PUT", "/collections/d", json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
    let records = json!([{"id": 0, "vector": [5], "payload": {"name": "zero", "x": 1}}, {"id": 2, "vector": [6]}]);
    edge.ok("PUT", "/collections/d/points", json!({"points": records})).await;
    let path = format!("{POINTS}/query/groups");
    let query = |lookup: Value| json!({"query": [0, 0], "group_by": "n", "group_size": 1, "with_lookup": lookup});
    let answer = edge.ok("POST", &path, query(json!("d"))).await;
    assert_eq!(answer["groups"][0]["lookup"], json!({"id": 0, "payload": {"name": "zero", "x": 1}}));
    assert!(answer["groups"][1].get("lookup").is_none(), "there is no point 1");
    assert_eq!(answer["groups"][2]["lookup"], json!({"id": 2, "payload": {}}));
    let lookup = json!({"collection": "d", "with_payload": ["x"], "with_vectors": true});
    let answer = edge.ok("POST", &path, query(lookup)).await;
    assert_eq!(answer["groups"][0]["lookup"], json!({"id": 0, "payload": {"x": 1}, "vector": [5.0]}));
    let lookup = json!({"collection": "d", "with_payload": false});
    let answer = edge.ok("POST", &path, query(lookup)).await;
    assert_eq!(answer["groups"][0]["lookup"], json!({"id": 0}));
}

#[tokio::test]
async fn what_is_wrong_with_groups_is_named() {
    let edge = filled().await;
    for (path, body, status, text) in [
        ("query/groups", json!({"query": 1}), 400, "missing field `group_by`"),
        ("query/groups", json!({"query": 1, "group_by": ""}), 422, "group_by"),
        ("query/groups", json!({"query": 1, "group_by": "a b"}), 422, "group_by: \"a b\" is not a valid key path"),
        ("query/groups", json!({"query": 1, "group_by": "n", "limit": 0}), 422, "[limit: value 0 invalid"),
        ("query/groups", json!({"query": 1, "group_by": "n", "group_size": 0}), 422, "[group_size: value 0 invalid"),
        (
            "query/groups",
            json!({"query": 1, "group_by": "n", "group_size": 1_000, "limit": 101}),
            422,
            "limit: limit 101 times group_size 1000 is above 100000",
        ),
        ("query/groups", json!({"query": 1, "group_by": "n", "offset": 1}), 400, "unknown field `offset`"),
        ("query/groups", json!({"query": [1], "group_by": "n"}), 400, "expected dim: 2, got 1"),
        ("query/groups", json!({"query": 77, "group_by": "n"}), 404, "No point with id 77 found"),
        (
            "query/groups",
            json!({"query": 1, "group_by": "n", "with_lookup": "x"}),
            404,
            "Collection `x` doesn't exist!",
        ),
        ("query/groups", json!({"query": 1, "group_by": "n", "with_lookup": {}}), 400, "missing field `collection`"),
        (
            "query/groups",
            json!({"query": 1, "group_by": "n", "with_lookup": {"collection": "c", "with_vectors": ["v"]}}),
            400,
            "vector name error: v",
        ),
        ("search/groups", json!({"vector": [1, 0], "group_by": "n", "limit": 1}), 400, "missing field `group_size`"),
        (
            "recommend/groups",
            json!({"group_by": "n", "limit": 1, "group_size": 1}),
            400,
            "at least one positive example",
        ),
    ] {
        let (got, error) = edge.refused("POST", &format!("{POINTS}/{path}"), body.clone()).await;
        assert_eq!(got, status, "{path} {body}: {error}");
        assert!(error.contains(text), "{path} {body}: {error}");
    }
}

#[tokio::test]
async fn a_dead_shard_shows_in_groups() {
    let edge = filled().await;
    let first = *edge.model.lock().shards.keys().next().unwrap();
    edge.model.lock().shards.remove(&first);
    let path = format!("{POINTS}/query/groups");
    let query = |allow_partial: bool| json!({"query": [0, 0], "group_by": "n", "allow_partial": allow_partial});
    let (status, error) = edge.refused("POST", &path, query(false)).await;
    assert_eq!(status, 503, "{error}");
    let (status, answer) = edge.call("POST", &path, query(true)).await;
    assert_eq!((status, &answer["coverage"]["shards_answered"]), (200, &json!(3)));
}
