//! Queries whose scores are a formula of the scores of others and of payloads.

use serde_json::{Value, json};

use super::{C, Edge};

const QUERY: &str = "/collections/c/points/query";

/// Points 0..20: vector `a` is `[id, 0]`, all but the last also have `b`, `[0, id]`; `n` is the id, but for 13 it is
/// missing; `at` is a day of 2020.
async fn filled() -> Edge {
    let edge = Edge::new().await;
    let vector = json!({"size": 2, "distance": "Euclid"});
    edge.ok("PUT", C, json!({"vectors": {"a": vector, "b": vector}})).await;
    let point = |id: u64| {
        let mut point = json!({"id": id, "vector": {"a": [id, 0], "b": [0, id]}});
        point["payload"] = json!({"n": id, "tags": [id, "x"], "at": format!("2020-01-{:02}", id + 1),
            "place": {"lon": id, "lat": 0}});
        if id == 13 {
            point["payload"].as_object_mut().unwrap().remove("n");
        }
        if id == 19 {
            point["vector"].as_object_mut().unwrap().remove("b");
        }
        point
    };
    let points: Vec<Value> = (0..20).map(point).collect();
    edge.ok("PUT", "/collections/c/points", json!({"points": points})).await;
    edge
}

/// The nearest to a place by vector `a`.
fn near(x: f64, limit: u64) -> Value {
    json!({"query": [x, 0], "using": "a", "limit": limit})
}

fn by(formula: Value, prefetch: Value) -> Value {
    json!({"query": {"formula": formula}, "prefetch": prefetch})
}

async fn hits(edge: &Edge, query: Value) -> Vec<(u64, f64)> {
    let answer = edge.ok("POST", QUERY, query).await;
    let hit = |hit: &Value| (hit["id"].as_u64().unwrap(), hit["score"].as_f64().unwrap());
    answer["points"].as_array().unwrap().iter().map(hit).collect()
}

#[tokio::test]
async fn candidates_of_all_prefetches_are_scored_anew() {
    let edge = filled().await;
    let both = json!([near(4.0, 3), near(5.0, 3)]);
    // Distances of 3, 4, 5 from 4 are 1, 0, 1, those of 4, 5, 6 from 5 too; what a prefetch did not find counts 0, or 9.
    let sum = json!({"sum": ["$score", {"mult": [10, "$score[1]"]}]});
    assert_eq!(hits(&edge, by(sum.clone(), both.clone())).await, [(4, 10.0), (6, 10.0), (3, 1.0), (5, 1.0)]);
    let mut query = by(sum, both.clone());
    query["query"]["defaults"] = json!({"$score[1]": 9});
    assert_eq!(hits(&edge, query).await, [(3, 91.0), (4, 10.0), (6, 10.0), (5, 1.0)]);
    let mut query = by(json!({"neg": "n"}), both);
    assert_eq!(hits(&edge, query.clone()).await, [(3, -3.0), (4, -4.0), (5, -5.0), (6, -6.0)]);
    query["limit"] = json!(2);
    query["offset"] = json!(1);
    assert_eq!(hits(&edge, query.clone()).await, [(4, -4.0), (5, -5.0)]);
    query["score_threshold"] = json!(-4);
    assert_eq!(hits(&edge, query.clone()).await, [(4, -4.0)]);
    query["with_payload"] = json!(["n"]);
    query["with_vector"] = json!(["b"]);
    let answer = edge.ok("POST", QUERY, query).await;
    let hit = &answer["points"][0];
    assert_eq!((&hit["payload"], &hit["vector"]), (&json!({"n": 4}), &json!({"b": [0.0, 4.0]})));
}

#[tokio::test]
async fn payloads_ids_and_vectors_are_asked() {
    let edge = filled().await;
    let ids = |formula: Value, prefetch: Value| async {
        hits(&edge, by(formula, prefetch)).await.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    let best = json!({"sum": [{"mult": [5, {"has_id": [2]}]}, {"mult": [3, {"key": "n", "range": {"gte": 4}}]}]});
    assert_eq!(ids(best, near(3.0, 3)).await, [2, 4, 3]);
    assert_eq!(ids(json!({"has_vector": "b"}), near(19.0, 2)).await, [18, 19]);
    assert_eq!(ids(json!("tags"), near(3.0, 3)).await, [4, 3, 2]);
    let day = 86_400;
    let recent =
        json!({"exp_decay": {"x": {"datetime_key": "at"}, "target": {"datetime": "2020-01-06"}, "scale": day}});
    assert_eq!(hits(&edge, by(recent, near(6.0, 3))).await, [(5, 1.0), (6, 0.5), (7, 0.25)]);
    let far = json!({"neg": {"geo_distance": {"origin": {"lon": 7, "lat": 0}, "to": "place"}}});
    let found = hits(&edge, by(far, near(6.0, 3))).await;
    assert_eq!(found[0], (7, 0.0));
    assert!((found[1].1 + 111_195.0).abs() < 1.0, "{found:?}");
    let mut filtered = by(json!("n"), near(6.0, 3));
    filtered["filter"] = json!({"must": [{"key": "n", "range": {"lt": 3}}]});
    assert_eq!(hits(&edge, filtered).await, [(2, 2.0), (1, 1.0), (0, 0.0)]);
    assert_eq!(
        hits(&edge, by(json!("n"), json!({"query": [0, 0], "using": "a", "filter": {"must": {"has_id": []}}}))).await,
        []
    );
}

#[tokio::test]
async fn formulas_stand_in_prefetches_and_batches() {
    let edge = filled().await;
    let mut inner = by(json!({"neg": "n"}), near(10.0, 5));
    inner["limit"] = json!(2);
    assert_eq!(hits(&edge, by(json!("$score"), inner.clone())).await, [(8, -8.0), (9, -9.0)]);
    let chosen = json!({"prefetch": inner, "query": [9, 0], "using": "a"});
    assert_eq!(hits(&edge, chosen).await, [(9, 0.0), (8, 1.0)]);
    let searches = json!({"searches": [by(json!("n"), near(1.0, 1)), near(2.0, 1), by(json!(1), near(3.0, 1))]});
    let answer = edge.ok("POST", "/collections/c/points/query/batch", searches).await;
    let first = |place: usize| answer[place]["points"][0]["id"].clone();
    assert_eq!([first(0), first(1), first(2)], [json!(1), json!(2), json!(3)]);
}

#[tokio::test]
async fn what_has_no_value_is_refused_by_name() {
    let edge = filled().await;
    let deep = (0..32).fold(json!(1), |inner, _| json!({"abs": inner}));
    for (body, status, text) in [
        (json!({"query": {"formula": 1}}), 400, "a formula needs `prefetch`"),
        (by(json!("n"), near(13.0, 2)), 400, "point 13 has no `n`, which the formula needs"),
        (by(json!("at"), near(1.0, 1)), 400, "`at` of point 1 is no number"),
        (by(json!({"ln": "n"}), near(0.0, 1)), 400, "no finite value for point 0: ln of 0"),
        (by(json!({"div": {"left": 1, "right": "$score"}}), near(1.0, 1)), 400, "1 / 0"),
        (by(deep, near(1.0, 1)), 422, "query.formula: nested deeper than 32 levels"),
        (by(json!({"sum": vec![1; 1_024]}), near(1.0, 1)), 422, "query.formula: more than 1024 expressions"),
        (by(json!({"sum": ["$score["]}), near(1.0, 1)), 400, "query.formula.sum[0]: \"$score[\" is no variable"),
        (json!({"query": {"defaults": {"n": 1}}, "prefetch": near(1.0, 1)}), 400, "missing field"),
        (
            json!({"query": {"fusion": "rrf", "defaults": {"n": 1}}, "prefetch": near(1.0, 1)}),
            400,
            "`query.defaults` stands without `query.formula`",
        ),
        (
            json!({"query": {"fusion": "rrf", "formula": 1}, "prefetch": near(1.0, 1)}),
            400,
            "stands beside another query",
        ),
    ] {
        let (got, error) = edge.refused("POST", QUERY, body.clone()).await;
        assert!(got == status && error.contains(text), "{body}: {got} {error}");
    }
    let mut query = by(json!("n"), near(13.0, 1));
    query["query"]["defaults"] = json!({"n": -5});
    assert_eq!(hits(&edge, query).await, [(13, -5.0)]);
}

#[tokio::test]
async fn a_dead_shard_below_a_formula_shows_in_the_answer() {
    let edge = filled().await;
    let query = |allow_partial: bool| {
        let mut query = by(json!("at"), near(0.0, 20));
        query["query"]["formula"] = json!({"datetime_key": "at"});
        query["limit"] = json!(20);
        query["allow_partial"] = json!(allow_partial);
        query
    };
    assert_eq!(hits(&edge, query(false)).await.len(), 20);
    let all: Vec<_> = edge.model.lock().shards.keys().copied().collect();
    edge.model.lock().shards.remove(&all[0]);
    let (status, error) = edge.refused("POST", QUERY, query(false)).await;
    assert_eq!(status, 503, "{error}");
    assert!(error.contains("1 of 4 shards did not answer"), "{error}");
    assert!(hits(&edge, query(true)).await.len() < 20);
}
