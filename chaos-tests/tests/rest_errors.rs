//! Every mistake a client can make: its status, a text that names it, nothing stored, no log line, the process alive.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use reqwest::Method;
use serde_json::{Value, json};
use vicinal_chaos_tests::{Rest, Server, ServerOptions, data_dir};

/// One mistake.
struct Case {
    method: Method,
    path: &'static str,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    status: u16,
    /// Texts the error must contain.
    says: &'static [&'static str],
}

fn raw(method: Method, path: &'static str, body: &str, status: u16, says: &'static [&'static str]) -> Case {
    let body = body.as_bytes().to_vec();
    Case { method, path, content_type: Some("application/json"), body, status, says }
}

fn put(path: &'static str, body: Value, status: u16, says: &'static [&'static str]) -> Case {
    raw(Method::PUT, path, &body.to_string(), status, says)
}

fn post(path: &'static str, body: Value, status: u16, says: &'static [&'static str]) -> Case {
    raw(Method::POST, path, &body.to_string(), status, says)
}

fn get(path: &'static str, status: u16, says: &'static [&'static str]) -> Case {
    Case { method: Method::GET, path, content_type: None, body: Vec::new(), status, says }
}

const POINTS: &str = "/collections/c/points";
const QUERY: &str = "/collections/c/points/query";
const SCROLL: &str = "/collections/c/points/scroll";
const COUNT: &str = "/collections/c/points/count";
const DELETE: &str = "/collections/c/points/delete";

fn writes() -> Vec<Case> {
    let point = |id: Value, vector: Value| json!({"points": [{"id": id, "vector": vector}]});
    let good = json!([1, 2, 3, 4]);
    let half_good = json!({"points": [{"id": 101, "vector": good}, {"id": 102, "vector": [1, 2]}]});
    vec![
        put(POINTS, point(json!(100), json!([1, 2, 3])), 400, &["Vector dimension error", "expected dim: 4, got 3"]),
        put(POINTS, point(json!(100), json!([])), 400, &["expected dim: 4, got 0"]),
        put(POINTS, half_good, 400, &["expected dim: 4, got 2"]),
        raw(Method::PUT, POINTS, r#"{"points":[{"id":1,"vector":[NaN,1,1,1]}]}"#, 400, &["Format error in JSON body"]),
        raw(Method::PUT, POINTS, r#"{"points":[{"id":100,"vector":[1e39,1,1,1]}]}"#, 400, &[]),
        raw(Method::PUT, POINTS, r#"{"points":[{"id":100,"vector":[1e999,1,1,1]}]}"#, 400, &[]),
        put(POINTS, point(json!(100), json!(["a", 1, 1, 1])), 400, &["Format error in JSON body"]),
        put(POINTS, point(json!(100), json!({"other": good})), 400, &["other"]),
        put(POINTS, point(json!(-1), good.clone()), 400, &["-1"]),
        put(POINTS, point(json!(1.5), good.clone()), 400, &[]),
        put(POINTS, point(json!("no-uuid"), good.clone()), 400, &["no-uuid"]),
        raw(Method::PUT, POINTS, r#"{"points":[{"id":18446744073709551616,"vector":[1,1,1,1]}]}"#, 400, &[]),
        put(POINTS, json!({"points": [{"vector": good}]}), 400, &["id"]),
        put(POINTS, json!({"points": [{"id": 100, "vector": good, "paylod": {}}]}), 400, &["paylod"]),
        put(POINTS, json!({"points": [{"id": 100, "vector": good, "payload": [1]}]}), 400, &["Format error"]),
        put(POINTS, json!({"points": [{"id": 100, "vector": good}], "extra": 1}), 400, &["extra"]),
        put(POINTS, json!({}), 400, &[]),
        put(POINTS, json!({"batch": {"ids": [100, 101], "vectors": [good]}}), 422, &["number of ids (2)"]),
        raw(Method::PUT, POINTS, "{\"points\": [", 400, &["Format error in JSON body"]),
        raw(Method::PUT, POINTS, "", 400, &["Format error in JSON body"]),
        raw(Method::PUT, POINTS, "[]", 400, &["Format error in JSON body"]),
        put("/collections/missing/points", point(json!(1), good.clone()), 404, &["Collection `missing` doesn't exist"]),
        put("/collections/c/points?wait=perhaps", point(json!(100), good.clone()), 400, &["wait", "perhaps"]),
        put("/collections/c/points?timeout=soon", point(json!(100), good.clone()), 400, &["timeout", "soon"]),
        Case {
            content_type: Some("text/plain"),
            ..put(POINTS, point(json!(100), good.clone()), 400, &["Content type error", "application/json"])
        },
        Case { content_type: None, ..put(POINTS, point(json!(100), good), 400, &["Content type error"]) },
        raw(Method::PUT, POINTS, &format!("{{\"points\": {}", " ".repeat(33 << 20)), 413, &["limit"]),
        post(DELETE, json!({}), 400, &[]),
        post(DELETE, json!({"points": ["x y"]}), 400, &["x y"]),
        post(DELETE, json!({"filter": {"must": [{"key": "n"}]}}), 400, &[]),
        post(DELETE, json!({"filter": {"mus": []}}), 400, &["mus"]),
        post("/collections/missing/points/delete", json!({"points": [1]}), 404, &["Collection `missing`"]),
    ]
}

fn reads() -> Vec<Case> {
    let vector = [1, 2, 3, 4];
    vec![
        post(QUERY, json!({"query": vector, "limit": 0}), 422, &["limit", "value 0 invalid, must be 1 or larger"]),
        post(QUERY, json!({"query": vector, "limit": -1}), 400, &["Format error in JSON body"]),
        post(QUERY, json!({"query": vector, "offset": -5}), 400, &["Format error in JSON body"]),
        post(QUERY, json!({"query": vector, "limit": 1_000_000_000_000u64}), 422, &["limit"]),
        post(QUERY, json!({"query": [1, 2]}), 400, &["expected dim: 4, got 2"]),
        post(QUERY, json!({"query": 99_999}), 404, &["No point with id 99999 found"]),
        post(QUERY, json!({"query": "no-uuid"}), 400, &["no-uuid"]),
        post(QUERY, json!({"query": vector, "using": "other"}), 400, &["other"]),
        post(QUERY, json!({"query": vector, "limits": 3}), 400, &["limits"]),
        post(QUERY, json!({"query": vector, "params": {"hnsw_ef": 0}}), 422, &["hnsw_ef"]),
        post(QUERY, json!({"query": vector, "params": {"hnsw_ef": "many"}}), 400, &["Format error in JSON body"]),
        post(QUERY, json!({"query": vector, "params": {"nprobe": 3}}), 400, &["nprobe"]),
        post(QUERY, json!({"query": vector, "score_threshold": "high"}), 400, &["Format error in JSON body"]),
        post(QUERY, json!({"query": {"discover": {"context": []}}}), 400, &["target"]),
        post(QUERY, json!({"query": {"recommend": {"negative": [1]}}}), 400, &["recommend", "positive"]),
        post(QUERY, json!({"query": {"fusion": "rrf"}}), 400, &["prefetch"]),
        post(QUERY, json!({"query": vector, "prefetch": [{"query": [1]}]}), 400, &["expected dim"]),
        post(
            "/collections/c/points/payload",
            json!({"payload": {"a": 1}, "points": [1], "filter": {}}),
            400,
            &["points", "filter"],
        ),
        post(
            "/collections/c/points/batch",
            json!({"operations": [{"delete": {"points": [1]}}, {"drop": {}}]}),
            400,
            &["drop"],
        ),
        post(QUERY, json!({"query": vector, "filter": {"must": [{"key": "n", "match": {"valu": 1}}]}}), 400, &[]),
        post(QUERY, json!({"query": vector, "filter": {"must": [{"key": "n", "range": {"gt": "a"}}]}}), 400, &[]),
        post(QUERY, json!({"query": vector, "filter": {"shoud": []}}), 400, &["shoud"]),
        post(QUERY, json!({"query": vector, "filter": {"must": [{"nonsense": 1}]}}), 400, &[]),
        raw(Method::POST, QUERY, "{\"query\": ", 400, &["Format error in JSON body"]),
        Case { content_type: Some("text/csv"), ..post(QUERY, json!({"query": vector}), 400, &["Content type error"]) },
        post(
            "/collections/missing/points/query",
            json!({"query": vector}),
            404,
            &["Collection `missing` doesn't exist!"],
        ),
        post(
            "/collections/c/points/query/batch",
            json!({"searches": [{"query": [1]}]}),
            400,
            &["expected dim: 4, got 1"],
        ),
        post("/collections/c/points/query/batch", json!({}), 400, &["searches"]),
        post(SCROLL, json!({"limit": 0}), 422, &["limit", "must be 1 or larger"]),
        post(SCROLL, json!({"offset": -1}), 400, &[]),
        post(SCROLL, json!({"order": "id"}), 400, &["order"]),
        post(COUNT, json!({"filter": 5}), 400, &["Format error in JSON body"]),
        post(POINTS, json!({"ids": ["?"]}), 400, &["?"]),
        post(POINTS, json!({}), 400, &["ids"]),
        get("/collections/c/points/99999", 404, &["99999"]),
        get("/collections/c/points/bad.id", 400, &["bad.id"]),
        get("/collections/missing", 404, &["Collection `missing` doesn't exist!"]),
        get("/nowhere", 404, &[]),
        Case { method: Method::PATCH, ..get(QUERY, 405, &[]) },
    ]
}

fn collections() -> Vec<Case> {
    let vectors = json!({"size": 4, "distance": "Cosine"});
    let with = |name: &str, value: Value| {
        let mut body = json!({"vectors": vectors});
        body[name] = value;
        body
    };
    let create = "/collections/new";
    vec![
        put("/collections/c", json!({"vectors": vectors}), 409, &["Collection `c` already exists!"]),
        put(create, json!({"vectors": {"size": 0, "distance": "Dot"}}), 422, &["size", "value 0 invalid"]),
        put(create, json!({"vectors": {"size": 10_000_000, "distance": "Dot"}}), 422, &["size"]),
        put(create, json!({"vectors": {"size": 4, "distance": "Near"}}), 400, &["Format error in JSON body"]),
        put(create, json!({"vectors": {"distance": "Dot"}}), 400, &["Format error in JSON body"]),
        put(create, json!({"vectors": []}), 400, &["vectors"]),
        put(create, with("shard_number", json!(0)), 422, &["shard_number"]),
        put(create, with("shard_number", json!(100_000)), 422, &["shard_number"]),
        put(create, with("replication_factor", json!(4)), 400, &["replication_factor", "3"]),
        put(create, with("vektors", json!({})), 400, &["vektors"]),
        put(create, with("sparse_vectors", json!({"s": {"modifier": "bm25"}})), 400, &["sparse_vectors", "bm25"]),
        put(
            create,
            with("quantization_config", json!({"binary": {}})),
            400,
            &["quantization_config.binary", "not supported"],
        ),
        put("/collections/bad%2Fname", json!({"vectors": vectors}), 422, &["collection_name"]),
        get("/collections/new", 404, &["Collection `new`"]),
        post(
            "/collections/aliases",
            json!({"actions": [{"create_alias": {"collection_name": "missing", "alias_name": "a"}}]}),
            404,
            &["missing"],
        ),
        post("/collections/aliases", json!({"actions": [{"make_alias": {}}]}), 400, &[]),
    ]
}

async fn wrong(rest: &Rest, case: Case) -> Option<String> {
    let shown: String = String::from_utf8_lossy(&case.body).chars().take(200).collect();
    let about = format!("{} {} {shown}", case.method, case.path);
    let answer = match rest.send(case.method, case.path, case.content_type, case.body).await {
        Ok(answer) => answer,
        Err(error) => return Some(format!("{about}\n   no answer: {error}")),
    };
    let text = answer.error();
    let has_form = !text.is_empty() && answer.body["time"].is_number();
    let says_all = case.says.iter().all(|part| text.contains(part));
    if answer.status == case.status && has_form && says_all {
        return None;
    }
    Some(format!("{about}\n   {} {}\n   expected {} with {:?}", answer.status, answer.body, case.status, case.says))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_named_and_changes_nothing() {
    let dir = data_dir();
    let mut server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let rest = server.rest();
    rest.put("/collections/c", json!({"vectors": {"size": 4, "distance": "Euclid"}})).await.result();
    let points: Vec<_> = (0..20).map(|id| json!({"id": id, "vector": [id, 1, 2, 3], "payload": {"n": id}})).collect();
    rest.put("/collections/c/points?wait=true", json!({"points": points})).await.result();
    let before = rest.scroll_all("c").await;

    let mut failures = Vec::new();
    for case in writes().into_iter().chain(reads()).chain(collections()) {
        failures.extend(wrong(&rest, case).await);
    }
    assert!(failures.is_empty(), "{} mistakes were not answered as expected:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(rest.scroll_all("c").await, before, "a refused request changed something");
    let names = rest.get("/collections").await.result();
    assert_eq!(names["collections"], json!([{"name": "c"}]));
    assert!(server.is_alive());
    assert!(server.complaints().is_empty(), "client mistakes in the log: {:?}", server.complaints());
    let lines = server.log().len();
    assert!(lines < 40, "{lines} log lines for a few requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_on_a_field_nobody_has_is_no_mistake() {
    let dir = data_dir();
    let server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let rest = server.rest();
    rest.put("/collections/c", json!({"vectors": {"size": 2, "distance": "Dot"}})).await.result();
    let points: Vec<_> = (0..10).map(|id| json!({"id": id, "vector": [id, 1]})).collect();
    rest.put("/collections/c/points?wait=true", json!({"points": points})).await.result();
    let filter = json!({"must": [{"key": "absent.field", "match": {"value": 1}}]});
    let found = rest.post(QUERY, json!({"query": [1, 1], "filter": filter})).await.result();
    assert_eq!(found["points"], json!([]));
    assert_eq!(rest.post(COUNT, json!({"filter": filter})).await.result()["count"], json!(0));
    let filter = json!({"must": [{"is_empty": {"key": "absent.field"}}]});
    assert_eq!(rest.post(COUNT, json!({"filter": filter})).await.result()["count"], json!(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_never_end_the_process() {
    let dir = data_dir();
    let mut server = Server::start(ServerOptions::new(dir.path())).await.unwrap();
    let rest = server.rest();
    rest.put("/collections/c", json!({"vectors": {"size": 2, "distance": "Dot"}})).await.result();
    let good =
        json!({"query": [1, 2], "limit": 3, "filter": {"must": [{"key": "n", "range": {"gte": 1}}]}}).to_string();
    for _ in 0..500 {
        let mut body = good.clone().into_bytes();
        for _ in 0..rand::random_range(1..6) {
            let at = rand::random_range(0..body.len());
            body[at] = rand::random();
        }
        let path = [QUERY, SCROLL, COUNT, DELETE, POINTS][rand::random_range(0..5)];
        let answer = rest.send(Method::POST, path, Some("application/json"), body.clone()).await.unwrap();
        assert!(answer.status < 500, "{path} {}: {}", String::from_utf8_lossy(&body), answer.body);
    }
    assert!(server.is_alive() && server.complaints().is_empty(), "{:?}", server.complaints());
}
