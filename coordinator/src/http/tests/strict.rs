//! Strict mode at the edge: each limit on every operation that it concerns, changed while the collection lives.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use super::{C, Edge, filled};

const POINTS: &str = "/collections/c/points";

/// A filled collection with a strict mode.
async fn strict(config: Value) -> Edge {
    let edge = filled().await;
    restrict(&edge, json!({"enabled": true})).await;
    restrict(&edge, config).await;
    edge
}

async fn restrict(edge: &Edge, config: Value) {
    assert_eq!(edge.ok("PATCH", C, json!({"strict_mode_config": config})).await, json!(true));
}

async fn is_refused(edge: &Edge, method: &str, path: &str, body: Value, text: &str) {
    let path = format!("{POINTS}{path}");
    let (status, error) = edge.refused(method, &path, body.clone()).await;
    assert!(status == 400 && error.starts_with("Bad request: "), "{method} {path} {body}: {status} {error}");
    assert!(error.contains(text) && error.contains(". Help: "), "{method} {path} {body}: {error}");
}

async fn is_fine(edge: &Edge, method: &str, path: &str, body: Value) {
    edge.ok(method, &format!("{POINTS}{path}"), body).await;
}

#[tokio::test]
async fn limits_hold_for_queries_prefetches_pages_and_batches() {
    let edge = strict(json!({"max_query_limit": 5, "search_max_hnsw_ef": 50, "search_allow_exact": false,
        "search_max_batchsize": 2}))
    .await;
    let query = |more: Value| {
        let mut body = json!({"query": [1, 2], "limit": 5});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let too_many = "Limit exceeded 6 > 5 for \"limit\"";
    is_fine(&edge, "POST", "/query", query(json!({"params": {"hnsw_ef": 50, "exact": false}}))).await;
    is_fine(&edge, "POST", "/query/batch", json!({"searches": [query(json!({})), query(json!({}))]})).await;
    is_fine(&edge, "POST", "/scroll", json!({"limit": 5})).await;
    is_fine(&edge, "POST", "/count", json!({"exact": false})).await;
    for (path, body, text) in [
        ("/query", query(json!({"limit": 6})), too_many),
        ("/query", json!({"query": [1, 2]}), "Limit exceeded 10 > 5 for \"limit\""),
        ("/query", query(json!({"prefetch": {"query": [1, 2], "limit": 6}})), too_many),
        ("/query", query(json!({"prefetch": {"prefetch": {"limit": 6}, "query": [1, 2], "limit": 5}})), too_many),
        ("/query/batch", json!({"searches": [query(json!({})), query(json!({"limit": 6}))]}), too_many),
        ("/search", json!({"vector": [1, 2], "limit": 6}), too_many),
        ("/scroll", json!({"limit": 6}), too_many),
        ("/scroll", json!({}), "Limit exceeded 10 > 5 for \"limit\""),
        ("/query", query(json!({"params": {"hnsw_ef": 51}})), "Limit exceeded 51 > 50 for \"hnsw_ef\""),
        ("/query", query(json!({"params": {"exact": true}})), "Exact search disabled!"),
        (
            "/query",
            query(json!({"prefetch": {"query": [1, 2], "limit": 1, "params": {"exact": true}}})),
            "Exact search",
        ),
        ("/count", json!({}), "Exact search disabled!"),
        ("/search/batch", json!({"searches": vec![json!({"vector": [1, 2], "limit": 1}); 3]}), "Limit exceeded 3 > 2"),
    ] {
        is_refused(&edge, "POST", path, body, text).await;
    }
    restrict(&edge, json!({"enabled": false})).await;
    is_fine(&edge, "POST", "/query", query(json!({"limit": 6, "params": {"exact": true}}))).await;
}

#[tokio::test]
async fn limits_hold_for_filters_wherever_they_stand() {
    let edge = strict(json!({"filter_max_conditions": 2, "condition_max_size": 3})).await;
    let any = |count: u64| json!({"key": "n", "match": {"any": (0..count).collect::<Vec<_>>()}});
    let is_null = json!({"is_null": {"key": "n"}});
    let many = json!({"must": [is_null, {"must": [is_null, is_null]}]});
    let long = json!({"should": any(4)});
    let fine = json!({"must": [any(3), is_null]});
    for (path, body) in [
        ("/query", json!({"query": [1, 2], "filter": null})),
        ("/scroll", json!({"filter": null})),
        ("/count", json!({"filter": null})),
        ("/payload", json!({"payload": {"x": 1}, "filter": null})),
        ("/payload/clear", json!({"filter": null})),
        ("/vectors/delete", json!({"vector": [""], "filter": null})),
        ("/delete", json!({"filter": null})),
    ] {
        let with = |filter: &Value| {
            let mut body = body.clone();
            body["filter"] = filter.clone();
            body
        };
        is_refused(&edge, "POST", path, with(&many), "Filter condition limit reached (3 > 2)").await;
        is_refused(&edge, "POST", path, with(&long), "Condition size limit reached (4 > 3)").await;
        is_fine(&edge, "POST", path, with(&fine)).await;
    }
    let prefetch = json!({"query": [1, 2], "prefetch": {"query": [1, 2], "filter": long}});
    is_refused(&edge, "POST", "/query", prefetch, "Condition size limit").await;
    let batch = json!({"operations": [{"delete": {"filter": many}}]});
    is_refused(&edge, "POST", "/batch", batch, "Filter condition limit").await;
}

#[tokio::test]
async fn limits_hold_for_writes_and_timeouts() {
    let edge = strict(json!({"upsert_max_batchsize": 2, "max_timeout": 3, "max_payload_index_count": 1})).await;
    let points = |count: u64| -> Value { (0..count).map(|id| json!({"id": id, "vector": [id, 0]})).collect() };
    is_fine(&edge, "PUT", "", json!({"points": points(2)})).await;
    is_refused(&edge, "PUT", "", json!({"points": points(3)}), "Limit exceeded 3 > 2 for \"upsert limit\"").await;
    let columns = json!({"batch": {"ids": [1, 2, 3], "vectors": [[1, 1], [2, 2], [3, 3]]}});
    is_refused(&edge, "PUT", "", columns, "upsert limit").await;
    let batch = json!({"operations": [{"upsert": {"points": points(1)}}, {"upsert": {"points": points(3)}}]});
    is_refused(&edge, "POST", "/batch", batch, "upsert limit").await;
    is_refused(&edge, "PUT", "/vectors", json!({"points": points(3)}), "\"update limit\"").await;

    is_fine(&edge, "POST", "/count?timeout=3", json!({})).await;
    is_refused(&edge, "POST", "/count?timeout=4", json!({}), "Limit exceeded 4 > 3 for \"timeout\"").await;
    is_refused(&edge, "PUT", "?wait=true&timeout=4", json!({"points": points(1)}), "\"timeout\"").await;
    assert_eq!(edge.call("GET", "/collections/c?timeout=4", Value::Null).await.0, 200, "not an operation on points");

    let index = |field: &str| json!({"field_name": field, "field_schema": "integer"});
    edge.ok("PUT", "/collections/c/index", index("n")).await;
    let (status, error) = edge.refused("PUT", "/collections/c/index", index("m")).await;
    assert!(status == 400 && error.contains("maximum number of payload indices (1)"), "{error}");
    edge.ok("PUT", "/collections/c/index", json!({"field_name": "n", "field_schema": "float"})).await;
}

#[tokio::test]
async fn a_full_collection_takes_no_more_points() {
    let edge = Edge::new().await;
    for (limit, text) in [
        (json!({"enabled": true, "max_points_count": 10}), "Max points count limit of 10 reached!"),
        (json!({"enabled": true, "max_collection_vector_size_bytes": 80}), "Max vector storage size limit of"),
    ] {
        let vectors = json!({"size": 2, "distance": "Dot"});
        edge.ok("PUT", C, json!({"vectors": vectors, "strict_mode_config": limit})).await;
        let points: Value = (0..10).map(|id| json!({"id": id, "vector": [id, 0]})).collect();
        is_fine(&edge, "PUT", "", json!({"points": points})).await;
        // Longer than between two questions to the shards.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let one = json!({"points": [{"id": 100, "vector": [1, 1]}]});
        let (status, error) = edge.refused("PUT", POINTS, one.clone()).await;
        assert!(status == 400 && error.contains(text), "{status} {error}");
        let batch = json!({"operations": [{"upsert": one}]});
        let (status, error) = edge.refused("POST", "/collections/c/points/batch", batch).await;
        assert!(status == 400 && error.contains(text), "{status} {error}");
        is_fine(&edge, "POST", "/payload", json!({"payload": {"a": 1}, "points": [1]})).await;
        is_fine(&edge, "POST", "/delete", json!({"points": [1]})).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        is_fine(&edge, "PUT", "", one).await;
        edge.ok("DELETE", C, Value::Null).await;
    }
}

#[tokio::test]
async fn groups_need_an_index_where_filters_do() {
    let edge = strict(json!({"unindexed_filtering_retrieve": false})).await;
    let paths = [
        ("/query/groups", json!({"query": [1, 2]})),
        ("/search/groups", json!({"vector": [1, 2], "limit": 2, "group_size": 1})),
        ("/recommend/groups", json!({"positive": [3], "limit": 2, "group_size": 1})),
    ];
    let by = |body: &Value, key: &str| {
        let mut body = body.clone();
        body["group_by"] = json!(key);
        body
    };
    let index = |of: &'static str| json!({"field_name": "s.t", "field_schema": of});
    for (path, body) in &paths {
        is_refused(&edge, "POST", path, by(body, "s.t"), "Index required but not found for \"s.t\". Help: ").await;
    }
    edge.ok("PUT", "/collections/c/index", index("float")).await;
    for (path, body) in &paths {
        is_refused(&edge, "POST", path, by(body, "s.t"), "Index of type \"Float\" found for \"s.t\". Help: ").await;
    }
    edge.ok("PUT", "/collections/c/index", index("integer")).await;
    for (path, body) in &paths {
        is_fine(&edge, "POST", path, by(body, "s.t")).await;
    }
    let found = edge.ok("POST", &format!("{POINTS}/query/groups"), by(&json!({"query": [1, 2]}), "s.t")).await;
    assert_eq!(found["groups"].as_array().unwrap().len(), 3);
    restrict(&edge, json!({"unindexed_filtering_retrieve": true})).await;
    is_fine(&edge, "POST", "/query/groups", by(&json!({"query": [1, 2]}), "n")).await;
}

#[tokio::test]
async fn candidates_of_a_choice_count_as_hits() {
    let edge = strict(json!({"max_query_limit": 20})).await;
    let mmr = |candidates: u64, limit: u64| {
        let query = json!({"nearest": [1, 2], "mmr": {"candidates_limit": candidates}});
        json!({"query": query, "limit": limit})
    };
    is_fine(&edge, "POST", "/query", mmr(20, 5)).await;
    is_refused(&edge, "POST", "/query", mmr(21, 5), "Limit exceeded 21 > 20 for \"limit\"").await;
    is_refused(&edge, "POST", "/query", mmr(5, 22), "Limit exceeded 22 > 20 for \"limit\"").await;
    let prefetch = json!({"prefetch": mmr(21, 5), "query": {"fusion": "rrf"}});
    is_refused(&edge, "POST", "/query", prefetch, "Limit exceeded 21 > 20").await;
    let mut groups = mmr(21, 2);
    groups["group_by"] = json!("n");
    is_refused(&edge, "POST", "/query/groups", groups, "Limit exceeded 21 > 20").await;
}

/// The status of an answer, its error, and the seconds after which to try again.
async fn limited(edge: &Edge, method: &str, path: &str, body: Value) -> (u16, String, Option<u64>) {
    let request = Request::builder().method(method).uri(format!("{POINTS}{path}"));
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string()));
    let (status, answer, headers) = edge.send(request.unwrap()).await;
    let seconds = headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().parse().unwrap());
    (status.as_u16(), answer["status"]["error"].as_str().unwrap_or_default().to_owned(), seconds)
}

#[tokio::test]
async fn requests_that_come_too_often_are_told_when_to_come_again() {
    let edge = strict(json!({"read_rate_limit": 3, "write_rate_limit": 2})).await;
    let searches = |count: usize| json!({"searches": vec![json!({"query": [1, 2], "limit": 1}); count]});
    let (status, error, _) = limited(&edge, "POST", "/query/batch", searches(4)).await;
    let larger = "Rate limiting exceeded: Read rate limit exceeded, request larger than rate limiter capacity";
    assert!(status == 429 && error.starts_with(larger), "{error}");
    let (status, error, _) = limited(&edge, "POST", "/query/batch", searches(2)).await;
    assert_eq!(status, 200, "what was refused has cost nothing: {error}");
    assert_eq!(limited(&edge, "POST", "/count", json!({})).await.0, 200);
    for (path, body) in [
        ("/count", json!({})),
        ("/scroll", json!({})),
        ("/query", json!({"query": [1, 2]})),
        ("", json!({"ids": [1]})),
        ("/search", json!({"vector": [1, 2], "limit": 1})),
    ] {
        let (status, error, seconds) = limited(&edge, "POST", path, body).await;
        let text = "Rate limiting exceeded: Read rate limit exceeded: Operation requires 1 tokens but only 0.";
        assert!(status == 429 && error.starts_with(text), "{path}: {status} {error}");
        // A token comes every 20 seconds.
        let seconds = seconds.unwrap();
        assert!((15..=20).contains(&seconds) && error.ends_with(&format!("Retry after {seconds}s")), "{error}");
    }
    assert_eq!(edge.call("GET", C, Value::Null).await.0, 200, "not an operation on points");

    let one = json!({"points": [{"id": 1, "vector": [1, 1]}]});
    let three = json!({"operations": vec![json!({"upsert": one}); 3]});
    let (status, error, _) = limited(&edge, "POST", "/batch", three).await;
    assert!(status == 429 && error.contains("Write rate limit exceeded, request larger"), "{error}");
    let two = json!({"operations": vec![json!({"upsert": one}); 2]});
    assert_eq!(limited(&edge, "POST", "/batch", two).await.0, 200);
    for (method, path, body) in [
        ("PUT", "", one.clone()),
        ("POST", "/delete", json!({"points": [1]})),
        ("POST", "/payload", json!({"payload": {"a": 1}, "points": [1]})),
        ("POST", "/payload/delete", json!({"keys": ["a"], "points": [1]})),
    ] {
        let (status, error, _) = limited(&edge, method, path, body).await;
        assert!(status == 429 && error.contains("Write rate limit exceeded: "), "{method} {path}: {status} {error}");
    }
    restrict(&edge, json!({"write_rate_limit": 1_000})).await;
    assert_eq!(limited(&edge, "PUT", "", one).await.0, 200, "a new limit counts at once");
    restrict(&edge, json!({"enabled": false})).await;
    assert_eq!(limited(&edge, "POST", "/count", json!({})).await.0, 200);
}

#[tokio::test]
async fn what_is_set_stays_until_it_is_changed() {
    let edge = filled().await;
    let shown = || async { edge.ok("GET", C, Value::Null).await["config"]["strict_mode_config"].clone() };
    assert_eq!(shown().await, Value::Null);
    restrict(&edge, json!({"enabled": true, "write_rate_limit": 100})).await;
    restrict(&edge, json!({"read_rate_limit": 200, "write_rate_limit": null})).await;
    assert_eq!(shown().await, json!({"enabled": true, "read_rate_limit": 200, "write_rate_limit": 100}));
    for (config, status, text) in [
        (json!({"max_query_limit": 0}), 422, "strict_mode_config.max_query_limit: value 0 invalid"),
        (json!({"max_resident_memory_percent": 50}), 400, "max_resident_memory_percent` is not supported: "),
        (json!({"max_collection_payload_size_bytes": 5}), 400, "max_collection_payload_size_bytes` is not supported: "),
        (json!({"sparse_config": {"s": {"max_length": 5}}}), 400, "there is no sparse vector `s`"),
        (json!({"max_disk": 5}), 400, "unknown field `max_disk`"),
    ] {
        let (got, error) = edge.refused("PATCH", C, json!({"strict_mode_config": config})).await;
        assert!(got == status && error.contains(text), "{config}: {got} {error}");
    }
    assert_eq!(shown().await["read_rate_limit"], 200);
}

#[tokio::test]
async fn limits_hold_for_vectors_of_other_kinds() {
    let edge = Edge::new().await;
    let body = json!({"vectors": {"m": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}},
        "sparse_vectors": {"s": {}}});
    edge.ok("PUT", C, body).await;
    for (config, text) in [
        (json!({"multivector_config": {"s": {"max_vectors": 2}}}), "`s` is no multivector"),
        (json!({"sparse_config": {"m": {"max_length": 2}}}), "`m` is no sparse vector"),
    ] {
        let (status, error) = edge.refused("PATCH", C, json!({"strict_mode_config": config})).await;
        assert!(status == 400 && error.contains(text), "{status} {error}");
    }
    restrict(
        &edge,
        json!({"enabled": true, "multivector_config": {"m": {"max_vectors": 2}},
        "sparse_config": {"s": {"max_length": 2}}}),
    )
    .await;
    let vector = |multi: usize, sparse: usize| {
        let sparse = json!({"indices": (0..sparse).collect::<Vec<_>>(), "values": vec![1.0; sparse]});
        json!({"points": [{"id": 1, "vector": {"m": vec![[1.0, 2.0]; multi], "s": sparse}}]})
    };
    is_fine(&edge, "PUT", "", vector(2, 2)).await;
    for (body, text) in [
        (vector(3, 2), "Multivector 'm' has a limit of 2 vectors, but 3 were provided!"),
        (vector(2, 3), "Sparse vector 's' has a limit of 2 indices, but 3 were provided!"),
    ] {
        for path in [POINTS, "/collections/c/points/vectors"] {
            let (status, error) = edge.refused("PUT", path, body.clone()).await;
            assert!(status == 400 && error.contains(text), "{path}: {status} {error}");
        }
    }
}

#[tokio::test]
async fn formulas_and_facets_are_limited_as_queries_are() {
    let edge = strict(json!({"unindexed_filtering_retrieve": false, "max_query_limit": 20})).await;
    let query =
        json!({"prefetch": {"query": [1, 2]}, "query": {"formula": {"sum": ["$score", "n"]}, "defaults": {"n": 0}}});
    is_refused(&edge, "POST", "/query", query.clone(), "not found for \"n\" of one of the following types").await;
    let condition = json!({"prefetch": {"query": [1, 2]}, "query": {"formula": {"key": "n", "match": {"value": 3}}}});
    is_refused(&edge, "POST", "/query", condition.clone(), "not found for \"n\" of one of the following types").await;
    let facet = |limit: u64| json!({"key": "n", "limit": limit});
    let (status, error) = edge.refused("POST", "/collections/c/facet", facet(21)).await;
    assert!(status == 400 && error.contains("Limit exceeded 21 > 20"), "{status} {error}");
    let ordered = json!({"order_by": "n"});
    for (path, body) in
        [("facet", facet(20)), ("points/scroll", ordered.clone()), ("points/query", json!({"query": ordered}))]
    {
        let (status, error) = edge.refused("POST", &format!("{C}/{path}"), body).await;
        assert!(
            status == 400 && error.contains("not found for \"n\" of one of the following"),
            "{path} {status} {error}"
        );
    }
    edge.ok("PUT", "/collections/c/index", json!({"field_name": "n", "field_schema": "integer"})).await;
    is_fine(&edge, "POST", "/query", query).await;
    is_fine(&edge, "POST", "/query", condition).await;
    edge.ok("POST", "/collections/c/facet", facet(20)).await;
}
