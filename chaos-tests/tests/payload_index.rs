//! Payload indexes over a real process: created, used by every kind of filter, kept over restarts, dropped.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use serde_json::{Value, json};
use vicinal_chaos_tests::{Rest, Server, ServerOptions, data_dir};

const POINTS: u64 = 3_000;
const C: &str = "/collections/things";
const INDEX: &str = "/collections/things/index?wait=true";
const TYPES: [(&str, &str); 9] = [
    ("kind", "keyword"),
    ("n", "integer"),
    ("price", "float"),
    ("new", "bool"),
    ("when", "datetime"),
    ("owner", "uuid"),
    ("at", "geo"),
    ("parts[].size", "integer"),
    ("about", "text"),
];

fn point(n: u64) -> Value {
    json!({"id": n, "vector": [n as f64, 1.0, (n % 7) as f64, 3.0], "payload": {
        "kind": format!("k{}", n % 100), "n": n, "price": n as f64 / 4.0, "new": n.is_multiple_of(2),
        "when": format!("2024-01-01T00:{:02}:{:02}Z", n / 60 % 60, n % 60),
        "owner": format!("00000000-0000-0000-0000-{:012}", n % 10),
        "at": {"lon": n as f64 / 100.0, "lat": 50.0},
        "parts": [{"size": n % 5}, {"size": n % 3}],
        "unindexed": n % 4, "about": format!("Part {} of a set, the {}th", n % 10, n % 100),
    }})
}

/// Filters, and how many points match.
fn filters() -> Vec<(Value, u64)> {
    let must = |condition: Value| json!({"must": condition});
    vec![
        (must(json!({"key": "kind", "match": {"value": "k7"}})), 30),
        (must(json!({"key": "kind", "match": {"any": ["k7", "k8", "none"]}})), 60),
        (json!({"must_not": {"key": "kind", "match": {"prefix": "k"}}}), 0),
        (must(json!({"key": "n", "range": {"gte": 100, "lt": 350}})), 250),
        (must(json!({"key": "price", "range": {"gt": 24.75, "lte": 25.0}})), 1),
        (must(json!([{"key": "new", "match": {"value": true}}, {"key": "n", "range": {"lt": 11}}])), 6),
        (must(json!({"key": "when", "range": {"lt": "2024-01-01T00:01:00Z"}})), 60),
        (must(json!({"key": "owner", "match": {"value": "00000000-0000-0000-0000-000000000003"}})), 300),
        (
            must(json!({"key": "at", "geo_bounding_box": {
                "top_left": {"lon": -1.0, "lat": 60.0}, "bottom_right": {"lon": 0.995, "lat": 40.0}}})),
            100,
        ),
        (must(json!({"nested": {"key": "parts", "filter": {"must": {"key": "size", "match": {"value": 4}}}}})), 600),
        (must(json!([{"key": "kind", "match": {"value": "k7"}}, {"key": "unindexed", "match": {"value": 3}}])), 30),
        (must(json!({"key": "about", "match": {"text": "SET part 3"}})), 300),
        (must(json!({"key": "about", "match": {"phrase": "Part 3, of a"}})), 300),
        (must(json!({"key": "about", "match": {"text_any": "33th 44th none"}})), 60),
        (
            json!({"min_should": {"min_count": 2, "conditions": [{"key": "n", "match": {"value": 7}},
            {"key": "kind", "match": {"value": "k7"}}]}}),
            1,
        ),
    ]
}

/// Every filter, by every operation that reads.
async fn check(rest: &Rest) {
    for (filter, count) in filters() {
        let counted = rest.post(&format!("{C}/points/count"), json!({"filter": filter})).await.result();
        assert_eq!(counted["count"], count, "{filter}");
        let page = rest.post(&format!("{C}/points/scroll"), json!({"filter": filter, "limit": POINTS})).await.result();
        assert_eq!(page["points"].as_array().unwrap().len() as u64, count, "{filter}");
        let query = json!({"query": [7.0, 1.0, 0.0, 3.0], "filter": filter, "limit": 5});
        let hits = rest.post(&format!("{C}/points/query"), query).await.result();
        assert_eq!(hits["points"].as_array().unwrap().len() as u64, count.min(5), "{filter}");
    }
}

async fn schema(rest: &Rest) -> Value {
    rest.get(C).await.result()["payload_schema"].clone()
}

fn all_fields(points: u64) -> Value {
    TYPES.iter().map(|(name, of)| ((*name).to_owned(), json!({"data_type": of, "points": points}))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_serve_filters_and_outlive_restarts() {
    let dir = data_dir();
    let mut server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let rest = server.rest();
    let create = json!({"vectors": {"size": 4, "distance": "Euclid"}, "shard_number": 3,
        "optimizers_config": {"indexing_threshold": 1}});
    rest.put(C, create).await.result();
    for first in (0..POINTS).step_by(500) {
        let points: Vec<Value> = (first..first + 500).map(point).collect();
        rest.put(&format!("{C}/points?wait=true"), json!({"points": points})).await.result();
    }
    check(&rest).await;
    for (name, of) in TYPES {
        let done = rest.put(INDEX, json!({"field_name": name, "field_schema": of})).await.result();
        assert_eq!(done["status"], "completed", "{name}");
    }
    assert_eq!(schema(&rest).await, all_fields(POINTS));
    check(&rest).await;

    // Killed: the set, the files and the points are there again.
    server.kill();
    let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let rest = server.rest();
    check(&rest).await;
    assert_eq!(schema(&rest).await, all_fields(POINTS));

    // Points that no filter above matches.
    let deleted = json!({"filter": {"must": [{"key": "kind", "match": {"value": "k50"}},
        {"key": "n", "range": {"gte": 1_000}}]}});
    rest.post(&format!("{C}/points/delete?wait=true"), deleted).await.result();
    assert_eq!(rest.count("things").await, POINTS - 20);
    assert_eq!(schema(&rest).await, all_fields(POINTS - 20));

    for (name, _) in &TYPES[1..] {
        let path = format!("{C}/index/{}?wait=true", name.replace('[', "%5B").replace(']', "%5D"));
        assert_eq!(rest.delete(&path).await.result()["status"], "completed", "{name}");
    }
    check(&rest).await;
    let exited = server.stop("TERM").unwrap();
    assert_eq!(exited.status.code(), Some(0), "{}", exited.log_text());
    let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    check(&server.rest()).await;
    assert_eq!(schema(&server.rest()).await, json!({"kind": {"data_type": "keyword", "points": POINTS - 20}}));
    assert!(server.complaints().is_empty(), "{:?}", server.complaints());
}
