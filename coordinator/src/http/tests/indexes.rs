//! Payload indexes at the edge: created, shown, dropped, refused; filters that need one.

use serde_json::{Value, json};

use super::{C, Edge, filled};

const INDEX: &str = "/collections/c/index";

async fn schema(edge: &Edge) -> Value {
    edge.ok("GET", C, Value::Null).await["payload_schema"].clone()
}

#[tokio::test]
async fn the_life_of_an_index() {
    let edge = filled().await;
    assert_eq!(schema(&edge).await, json!({}));
    let wait = "/collections/c/index?wait=true";
    let body = json!({"field_name": "n", "field_schema": "integer"});
    let done = edge.ok("PUT", wait, body.clone()).await;
    assert_eq!(done, json!({"operation_id": 1, "status": "completed"}));
    assert_eq!(edge.ok("PUT", wait, body).await["operation_id"], 1, "nothing was left to do");
    let nested = json!({"field_name": "s.\"t\"", "field_schema": {"type": "float", "on_disk": true}});
    assert_eq!(edge.ok("PUT", INDEX, nested).await["status"], "acknowledged");
    edge.ok(
        "POST",
        "/collections/aliases",
        json!({"actions": [
        {"create_alias": {"collection_name": "c", "alias_name": "live"}}]}),
    )
    .await;
    edge.ok("PUT", "/collections/live/index?wait=true", json!({"field_name": "n", "field_schema": "float"})).await;
    let shown = schema(&edge).await;
    assert_eq!(shown["n"], json!({"data_type": "float", "points": 20}), "the newest type");
    assert_eq!(shown["s.t"]["data_type"], "float");
    assert_eq!(shown["s.t"]["params"], json!({"type": "float", "on_disk": true}));

    assert_eq!(edge.ok("DELETE", "/collections/c/index/s.t?wait=true", Value::Null).await["status"], "completed");
    assert_eq!(edge.ok("DELETE", "/collections/c/index/never", Value::Null).await["status"], "acknowledged");
    assert_eq!(schema(&edge).await, json!({"n": {"data_type": "float", "points": 20}}));
}

#[tokio::test]
async fn a_bad_index_is_refused_and_named() {
    let edge = filled().await;
    for (method, path, body, status, text) in [
        ("PUT", INDEX, json!({}), 400, "field_name"),
        ("PUT", INDEX, json!({"field_name": "a"}), 400, "field_schema"),
        (
            "PUT",
            INDEX,
            json!({"field_name": "a", "field_schema": {"type": "text", "tokenizer": "x"}}),
            400,
            "field_schema.tokenizer",
        ),
        ("PUT", INDEX, json!({"field_name": "a", "field_schema": {"type": "geo", "x": 1}}), 400, "field_schema.x"),
        ("PUT", INDEX, json!({"field_name": "a..b", "field_schema": "geo"}), 400, "key path"),
        ("PUT", INDEX, json!({"field_name": "a", "field_schema": "geo", "more": 1}), 400, "unknown field `more`"),
        ("PUT", "/collections/x/index", json!({"field_name": "a", "field_schema": "geo"}), 404, "`x` doesn't exist"),
        ("DELETE", "/collections/c/index/a%5B", Value::Null, 400, "key path"),
        ("DELETE", "/collections/x/index/a", Value::Null, 404, "`x` doesn't exist"),
    ] {
        let (got, error) = edge.refused(method, path, body.clone()).await;
        assert!(got == status && error.contains(text), "{method} {path} {body}: {got} {error}");
    }
    for n in 0..64 {
        edge.ok("PUT", INDEX, json!({"field_name": format!("f{n}"), "field_schema": "bool"})).await;
    }
    let (status, error) = edge.refused("PUT", INDEX, json!({"field_name": "one_more", "field_schema": "bool"})).await;
    assert!(status == 400 && error.contains("64 payload indexes"), "{status} {error}");
    edge.ok("PUT", INDEX, json!({"field_name": "f1", "field_schema": "geo"})).await;
}

#[tokio::test]
async fn a_strict_collection_wants_filters_on_indexed_fields() {
    let edge = Edge::new().await;
    let create = |strict: Value| json!({"vectors": {"size": 1, "distance": "Dot"}, "strict_mode_config": strict});
    for (strict, text) in [
        (
            json!({"max_resident_memory_percent": 5}),
            "`strict_mode_config.max_resident_memory_percent` is not supported",
        ),
        (json!({"enabled": true, "unindexed": false}), "unknown field `unindexed`"),
    ] {
        let (status, error) = edge.refused("PUT", C, create(strict)).await;
        assert!(status == 400 && error.contains(text), "{status} {error}");
    }
    let strict = json!({"enabled": true, "unindexed_filtering_retrieve": false, "unindexed_filtering_update": false});
    edge.ok("PUT", C, create(strict.clone())).await;
    assert_eq!(edge.ok("GET", C, Value::Null).await["config"]["strict_mode_config"], strict);
    let filter = json!({"must": {"key": "city", "match": {"value": "Oslo"}}});
    let bodies = [
        ("query", json!({"query": [1.0], "filter": filter})),
        ("query/batch", json!({"searches": [{"query": [1.0], "filter": filter}]})),
        ("scroll", json!({"filter": filter})),
        ("count", json!({"filter": filter})),
        ("delete", json!({"filter": filter})),
    ];
    for (operation, body) in &bodies {
        let path = format!("/collections/c/points/{operation}");
        let (status, error) = edge.refused("POST", &path, body.clone()).await;
        let text = "Index required but not found for \"city\" of one of the following types: [keyword]";
        assert!(status == 400 && error.contains(text), "{operation}: {status} {error}");
    }
    edge.ok("PUT", INDEX, json!({"field_name": "city", "field_schema": "keyword"})).await;
    for (operation, body) in bodies {
        edge.ok("POST", &format!("/collections/c/points/{operation}"), body).await;
    }
    edge.ok("POST", "/collections/c/points/count", json!({"filter": {"must": [{"has_id": [1]}]}})).await;

    let lax = json!({"enabled": false, "unindexed_filtering_retrieve": false});
    edge.ok("PUT", "/collections/lax", create(lax)).await;
    edge.ok("POST", "/collections/lax/points/count", json!({"filter": filter})).await;
}

#[tokio::test]
async fn a_text_index_says_what_a_full_text_condition_means() {
    let edge = Edge::new().await;
    edge.ok("PUT", C, json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
    let texts = ["Red cars are fast", "a RED CAR", "carpet, red", "the bus"];
    let points: Vec<Value> =
        (0..).zip(texts).map(|(id, text)| json!({"id": id, "vector": [1.0], "payload": {"about": text}})).collect();
    edge.ok("PUT", "/collections/c/points?wait=true", json!({"points": points})).await;
    let filter = |test: Value| json!({"filter": {"must": {"key": "about", "match": test}}});
    let count = async |test: Value| edge.ok("POST", "/collections/c/points/count", filter(test)).await["count"].clone();
    assert_eq!(count(json!({"text": "car red"})).await, 1);
    assert_eq!(count(json!({"text_any": "car bus"})).await, 2);
    assert_eq!(count(json!({"phrase": "red car"})).await, 1);

    let stems = json!({"type": "text", "tokenizer": "word", "stemmer": {"type": "snowball", "language": "english"}});
    let index = format!("{INDEX}?wait=true");
    edge.ok("PUT", &index, json!({"field_name": "about", "field_schema": stems})).await;
    assert_eq!(schema(&edge).await["about"], json!({"data_type": "text", "points": 4, "params": stems}));
    assert_eq!(count(json!({"text": "car red"})).await, 2, "by stems");
    edge.ok("PUT", INDEX, json!({"field_name": "about", "field_schema": {"type": "text", "tokenizer": "prefix"}}))
        .await;
    assert_eq!(count(json!({"text": "car red"})).await, 3, "by beginnings of words");
    let formula = json!({"key": "about", "match": {"text": "fas"}});
    let query = json!({"prefetch": {"query": [1.0]}, "query": {"formula": formula}, "limit": 1});
    let hits = edge.ok("POST", "/collections/c/points/query", query).await;
    assert_eq!((&hits["points"][0]["id"], &hits["points"][0]["score"]), (&json!(0), &json!(1.0)), "in formulas too");
    let (status, error) =
        edge.refused("POST", "/collections/c/points/count", filter(json!({"text": "x", "tokenization": stems}))).await;
    assert!(status == 400 && error.contains("tokenization"), "{status} {error}");
    let own = json!({"text": "x", "tokenization": {"tokenizer": "prefix"}});
    let (status, error) = edge.refused("POST", "/collections/c/points/count", filter(own)).await;
    assert!(status == 400 && error.contains("is not for requests"), "{status} {error}");

    edge.ok("POST", "/collections/c/points/delete?wait=true", filter(json!({"text": "re"}))).await;
    assert_eq!(count(json!({"text": "the"})).await, 1);
    assert_eq!(edge.ok("POST", "/collections/c/points/count", json!({})).await["count"], 1);
    edge.ok("DELETE", "/collections/c/index/about", Value::Null).await;
    assert_eq!(count(json!({"text": "th"})).await, 0);
}

#[tokio::test]
async fn full_text_conditions_of_a_request_are_bounded() {
    let edge = Edge::new().await;
    edge.ok("PUT", C, json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
    let words: Vec<String> = (0..1_000).map(|n| format!("word{n}")).collect();
    let long = json!({"type": "text", "tokenizer": "word", "stopwords": {"custom": words}});
    edge.ok("PUT", INDEX, json!({"field_name": "about", "field_schema": long})).await;
    let text = |key: &str| json!({"key": key, "match": {"text": "x"}});
    let filter = |key: &str, count: usize| json!({"must": vec![text(key); count]});
    // Each filter is small enough by itself, all of a request are not.
    let query = json!({"query": [1.0], "filter": filter("about", 20)});
    edge.ok("POST", "/collections/c/points/query", query.clone()).await;
    let delete = json!({"delete": {"filter": filter("about", 20)}});
    edge.ok("POST", "/collections/c/points/batch", json!({"operations": [delete.clone()]})).await;
    let formula = json!({"formula": {"sum": vec![text("about"); 450]}});
    for (operation, body) in [
        ("query/batch", json!({"searches": vec![query.clone(); 45]})),
        ("query", json!({"prefetch": vec![query.clone(); 45], "query": [1.0]})),
        ("query", json!({"prefetch": query, "query": formula})),
        ("batch", json!({"operations": vec![delete; 45]})),
    ] {
        let (status, error) = edge.refused("POST", &format!("/collections/c/points/{operation}"), body).await;
        assert!(status == 400 && error.contains("4194304 bytes"), "{operation}: {status} {error}");
    }
    for operation in ["count", "scroll", "delete"] {
        let path = format!("/collections/c/points/{operation}");
        edge.ok("POST", &path, json!({"filter": filter("plain", 256)})).await;
        let (status, error) = edge.refused("POST", &path, json!({"filter": filter("plain", 257)})).await;
        assert!(status == 400 && error.contains("more than 256 full-text"), "{operation}: {status} {error}");
    }
}
