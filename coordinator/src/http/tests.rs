//! The whole edge over a model cluster with real metadata, and bodies that nobody should send.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use vicinal_common::clock::SystemClock;
use vicinal_common::disk::FaultyDisk;
use vicinal_common::ids::NodeId;
use vicinal_common::limits::BODY_BYTES_MAX;
use vicinal_common::rng::SeededRng;
use vicinal_common::transport::{Address, LocalTransport};

use super::router;
use crate::members::Members;
use crate::meta::{Catalog, CatalogOptions, DiskStore, Founding, Registration};
use crate::model::{Model, nodes};
use crate::placement::Reconciler;
use crate::{Coordinator, CoordinatorOptions};

mod change;
mod clusters;
mod collections;
mod degraded;
mod formula;
mod fuzz;
mod goals;
mod groups;
mod indexes;
mod kinds;
mod lookup;
mod matrix;
mod older;
mod prefetch;
mod strict;
mod updates;
mod width;

struct Edge {
    router: Router,
    coordinator: Arc<Coordinator>,
    model: Arc<Mutex<Model>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Edge {
    async fn new() -> Edge {
        let rng = Arc::new(SeededRng::from_seed(1));
        let store = DiskStore::open(Arc::new(FaultyDisk::new(1)), std::path::Path::new("/meta")).unwrap();
        let options = CatalogOptions {
            name: "c1".into(),
            address: Address("local:c1".into()),
            store: Box::new(store),
            transport: Arc::new(LocalTransport::default()),
            rng: rng.clone(),
            clock: Arc::new(SystemClock),
            cluster: None,
        };
        let catalog = Catalog::open(options, Founding::IfNew).await.unwrap();
        let model = Arc::new(Mutex::new(Model::default()));
        let nodes = nodes(&model);
        let deadline = Instant::now() + Duration::from_secs(10);
        for id in nodes.ids() {
            let address = Address(format!("local:{id}"));
            catalog
                .register_node(id, Registration { name: format!("n{id}"), address, zone: None }, deadline)
                .await
                .unwrap();
        }
        let stop = CancellationToken::new();
        tokio::spawn(Reconciler::new(catalog.clone(), nodes.clone(), Arc::new(Members::local())).run(stop.clone()));
        let options = CoordinatorOptions { default_shards: 4 };
        let coordinator = Coordinator::new(catalog, nodes, Arc::new(Members::local()), rng, options).unwrap();
        let coordinator = Arc::new(coordinator);
        Edge { router: router(coordinator.clone()), coordinator, model, _stop: stop.drop_guard() }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value, axum::http::HeaderMap) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (parts.status, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)), parts.headers)
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let (status, body, _) = self.send(request.body(body).unwrap()).await;
        (status.as_u16(), body)
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        assert_eq!(answer["status"], "ok");
        assert!(answer["time"].is_number());
        answer["result"].clone()
    }

    async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(method, path, body).await;
        let text = answer["status"]["error"].as_str().unwrap_or_else(|| panic!("{method} {path}: {status} {answer}"));
        (status, text.to_owned())
    }
}

const C: &str = "/collections/c";

async fn filled() -> Edge {
    let edge = Edge::new().await;
    assert_eq!(edge.ok("PUT", C, json!({"vectors": {"size": 2, "distance": "Euclid"}})).await, json!(true));
    let points: Vec<Value> =
        (0..20).map(|id| json!({"id": id, "vector": [id, 0], "payload": {"n": id, "s": {"t": id % 3}}})).collect();
    let result = edge.ok("PUT", "/collections/c/points?wait=true", json!({"points": points})).await;
    assert_eq!(result["status"], "completed");
    edge
}

#[tokio::test]
async fn the_life_of_a_collection() {
    let edge = filled().await;
    assert_eq!(edge.ok("GET", "/collections", Value::Null).await, json!({"collections": [{"name": "c"}]}));
    let info = edge.ok("GET", C, Value::Null).await;
    assert_eq!((&info["status"], &info["points_count"]), (&json!("green"), &json!(20)));
    assert_eq!(info["config"]["params"]["shard_number"], 4);
    let (status, text) = edge.refused("PUT", C, json!({"vectors": {"size": 2, "distance": "Dot"}})).await;
    assert_eq!((status, text.as_str()), (409, "Wrong input: Collection `c` already exists!"));
    let actions = json!({"actions": [{"create_alias": {"collection_name": "c", "alias_name": "a"}}]});
    edge.ok("POST", "/collections/aliases", actions).await;
    let aliases = json!({"aliases": [{"alias_name": "a", "collection_name": "c"}]});
    assert_eq!(edge.ok("GET", "/aliases", Value::Null).await, aliases);
    assert_eq!(edge.ok("GET", "/collections/c/aliases", Value::Null).await, aliases);
    assert_eq!(edge.ok("POST", "/collections/a/points/count", json!({})).await, json!({"count": 20}));
    assert_eq!(edge.ok("DELETE", C, Value::Null).await, json!(true));
    assert_eq!(edge.ok("DELETE", C, Value::Null).await, json!(false));
    assert_eq!(edge.ok("GET", "/collections/c/exists", Value::Null).await, json!({"exists": false}));
    let (status, text) = edge.refused("GET", C, Value::Null).await;
    assert_eq!((status, text.as_str()), (404, "Not found: Collection `c` doesn't exist!"));
    assert_eq!(edge.call("GET", "/readyz", Value::Null).await.0, 200);
}

#[tokio::test]
async fn points_are_found_listed_counted_and_deleted() {
    let edge = filled().await;
    let body = json!({"query": [5.1, 0], "limit": 2, "with_payload": ["n"], "with_vector": true});
    let result = edge.ok("POST", "/collections/c/points/query", body).await;
    assert_eq!(result["points"][0]["id"], 5);
    assert_eq!(result["points"][0]["payload"], json!({"n": 5}));
    assert_eq!(result["points"][1]["vector"], json!([6.0, 0.0]));
    let searches =
        json!({"searches": [{"query": 3, "limit": 1}, {"query": {"nearest": [9, 0]}, "limit": 1}, {"limit": 1}]});
    let result = edge.ok("POST", "/collections/c/points/query/batch", searches).await;
    let first = |place: usize| result[place]["points"][0]["id"].clone();
    assert_eq!([first(0), first(1), first(2)], [json!(2), json!(9), json!(0)]);
    let filter = json!({"must": [{"key": "s.t", "match": {"value": 1}}]});
    let count = edge.ok("POST", "/collections/c/points/count", json!({"filter": filter})).await;
    assert_eq!(count, json!({"count": 7}));
    let page = edge.ok("POST", "/collections/c/points/scroll", json!({"offset": 4, "limit": 3})).await;
    assert_eq!((&page["points"][0]["id"], &page["next_page_offset"]), (&json!(4), &json!(7)));
    let body = json!({"batch": {"ids": [100, 101], "vectors": [[1, 1], [2, 2]], "payloads": [null, {"x": 1}]}});
    edge.ok("PUT", "/collections/c/points", body).await;
    let points = edge.ok("POST", "/collections/c/points", json!({"ids": [101, 7, 999]})).await;
    assert_eq!(points[0], json!({"id": 101, "payload": {"x": 1}}));
    assert_eq!(points.as_array().unwrap().len(), 2);
    edge.ok("POST", "/collections/c/points/delete", json!({"points": [7, 8]})).await;
    edge.ok("POST", "/collections/c/points/delete", json!({"filter": filter})).await;
    assert_eq!(edge.ok("POST", "/collections/c/points/count", json!({})).await, json!({"count": 14}));
    let (status, text) = edge.refused("GET", "/collections/c/points/7", Value::Null).await;
    assert_eq!((status, text.as_str()), (404, "Not found: Point with id 7 does not exists!"));
    assert_eq!(edge.ok("GET", "/collections/c/points/9", Value::Null).await["vector"], json!([9.0, 0.0]));
}

#[tokio::test]
async fn gaps_are_shown_beside_the_result() {
    let edge = filled().await;
    let leader = edge.model.lock().shards.values().find_map(|shard| shard.leader).unwrap();
    edge.model.lock().dead.insert(leader);
    let (status, answer) = edge.call("POST", "/collections/c/points/count", json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(answer["coverage"]["shards_asked"], 4);
    assert!(answer["coverage"]["missing"][0]["reason"].as_str().unwrap().contains("the node is down"));
    let (status, text) = edge.refused("POST", "/collections/c/points/count", json!({"allow_partial": false})).await;
    assert!(status == 503 && text.contains("shards did not answer"), "{text}");
}

#[tokio::test]
async fn the_cluster_shows_its_processes_and_replicas() {
    let edge = filled().await;
    let cluster = edge.ok("GET", "/cluster", Value::Null).await;
    assert_eq!((&cluster["status"], &cluster["raft_info"]["role"]), (&json!("enabled"), &json!("Leader")));
    assert_eq!(cluster["coordinators"][0]["role"], "leader");
    assert_eq!(cluster["peers"].as_object().unwrap().len(), 4, "a coordinator and three nodes");
    assert_eq!((&cluster["nodes"][0]["id"], &cluster["nodes"][0]["state"]), (&json!("n1"), &json!("up")));
    let placed = edge.ok("GET", "/collections/c/cluster", Value::Null).await;
    assert_eq!((&placed["shard_count"], &placed["local_shards"]), (&json!(4), &json!([])));
    assert_eq!(placed["remote_shards"][0]["state"], "Active");
    assert_eq!(placed["replicas"][0]["role"], "leader");
    let digests = edge.ok("GET", "/collections/c/replicas/digest", Value::Null).await;
    assert!(digests["shards"].as_array().unwrap().iter().all(|shard| shard["equal"] == true), "{digests}");
    assert_eq!(digests["shards"][0]["replicas"][0]["digest"].as_str().unwrap().len(), 16);
    let telemetry = edge.ok("GET", "/telemetry?details_level=2&anonymize=true", Value::Null).await;
    assert_eq!(telemetry["collections"]["collections"][0]["shards"].as_array().unwrap().len(), 4);
    assert_eq!(telemetry["requests"]["rest"]["responses"]["GET /cluster"]["200"]["count"], 1);
    let dead = placed["replicas"][0]["node_id"].as_u64().unwrap();
    edge.model.lock().dead.insert(NodeId(dead));
    let digests = edge.ok("GET", "/collections/c/replicas/digest?timeout=1", Value::Null).await;
    assert_eq!(digests["shards"][0]["equal"], false);
    assert!(digests["shards"][0]["replicas"][0]["error"].as_str().unwrap().contains("the node is down"));
}

#[tokio::test]
async fn bad_requests_get_the_status_and_text_their_clients_know() {
    let edge = filled().await;
    let query = "/collections/c/points/query";
    let upsert = "/collections/c/points";
    let cases = [
        (
            "POST",
            query,
            json!({"query": [1, 2, 3]}),
            400,
            "Wrong input: Vector dimension error: expected dim: 2, got 3",
        ),
        ("POST", query, json!({"query": [1, 2], "limit": 0}), 422, "[limit: value 0 invalid, must be 1 or larger]"),
        ("POST", query, json!({"query": [1, 2], "offset": -1}), 400, "Format error in JSON body: "),
        ("POST", query, json!({"query": [1, 2], "limt": 3}), 400, "unknown field `limt`"),
        ("POST", query, json!({"query": [1, 2], "limit": "x"}), 400, "Format error in JSON body: limit: invalid type"),
        ("POST", query, json!({"prefetch": {"query": 1, "params": {"hnsw_ef": {}}}}), 400, "prefetch.params.hnsw_ef: "),
        ("POST", query, json!({"query": {"discover": {}}}), 400, "missing field `target`"),
        ("POST", query, json!({"query": {"context": []}}), 400, "`query.context` needs at least one pair"),
        ("POST", query, json!({"query": {"order_by": "a..b"}}), 400, "not a valid key path"),
        ("POST", query, json!({"query": {"sample": "first"}}), 400, "unknown variant `first`"),
        ("POST", query, json!({"query": {"indices": [1], "values": [1]}}), 400, "expected a dense vector"),
        ("POST", query, json!({"query": {"indices": [1], "values": []}}), 400, "as many values as indices: 0 and 1"),
        ("POST", query, json!({"query": {"indices": [1, 1], "values": [1, 2]}}), 400, "1 comes more than once"),
        ("POST", query, json!({"query": {"indices": [-1], "values": [1]}}), 400, "expected u32"),
        ("POST", query, json!({"query": [[1, 2], [1]]}), 400, "must have the same dimension: 2 and 1"),
        ("POST", query, json!({"query": [[1, 2], 1]}), 400, "not both"),
        ("POST", query, json!({"query": [1, [1]]}), 400, "expected a number, got a list"),
        (
            "POST",
            query,
            json!({"query": {"recommend": {"positive": [1], "positive_weights": [1, 2]}}}),
            400,
            "`query.recommend.positive_weights` has 2 weights for 1 examples",
        ),
        ("POST", query, json!({"query": 1, "lookup_from": {"collection": "x"}}), 404, "Collection `x` doesn't exist!"),
        ("POST", query, json!({"query": 99}), 404, "Not found: No point with id 99 found"),
        ("POST", query, json!({"query": "x"}), 400, "value x is not a valid point ID"),
        ("POST", query, json!({"query": [1, 2], "using": "v"}), 400, "Not existing vector name error: v"),
        ("POST", query, json!({"query": [1, 2], "params": {"indexed_only": true}}), 400, "`params.indexed_only`"),
        ("POST", query, json!({"query": [1, 2], "params": {"hnsw_ef": 0}}), 422, "params.hnsw_ef"),
        ("POST", query, json!({"query": [1, 2], "filter": {"moist": []}}), 400, "moist"),
        ("POST", "/collections/x/points/query", json!({}), 404, "Not found: Collection `x` doesn't exist!"),
        ("PUT", upsert, json!({"points": [{"id": 1, "vector": [1]}]}), 400, "expected dim: 2, got 1"),
        ("PUT", upsert, json!({"points": [{"id": 1, "vector": [1e39, 0]}]}), 400, "not a finite 32-bit number"),
        ("PUT", upsert, json!({"points": [{"id": -1, "vector": [1, 0]}]}), 400, "not a valid point ID"),
        ("PUT", upsert, json!({"points": [{"id": 1, "vector": [[1, 0]]}]}), 400, "expected a dense vector"),
        (
            "PUT",
            upsert,
            json!({"points": [{"id": 1, "vector": {"a": {"indices": [1]}}}]}),
            400,
            "missing field `values`",
        ),
        (
            "PUT",
            upsert,
            json!({"points": [{"id": 1, "vector": [1, 0], "playload": 1}]}),
            400,
            "unknown field `playload`",
        ),
        ("PUT", upsert, json!({"points": []}), 400, "Empty update request"),
        ("PUT", upsert, json!({"batch": {"ids": [1], "vectors": []}}), 422, "must be equal"),
        ("PUT", "/collections/d", json!({"vectors": {"size": 0, "distance": "Dot"}}), 422, "vectors.size"),
        ("PUT", "/collections/d", json!({"vectors": {"size": 1, "distance": "Hamming"}}), 400, "Hamming"),
        ("PUT", "/collections/d", json!({"sparse_vectors": {"": {}}}), 422, "a name of 1 to 255 bytes"),
        ("PUT", "/collections/d", json!({"sparse_vectors": {"s": {"modifier": "bm25"}}}), 400, "`bm25`"),
        (
            "PUT",
            "/collections/d",
            json!({"vectors": {"s": {"size": 2, "distance": "Dot"}}, "sparse_vectors": {"s": {}}}),
            422,
            "a name that `vectors` does not have",
        ),
        (
            "PUT",
            "/collections/d",
            json!({"vectors": {"size": 2, "distance": "Dot", "datatype": "turbo4"}}),
            422,
            "vectors.datatype",
        ),
        ("PUT", "/collections/a%3Fb", json!({"vectors": {"size": 1, "distance": "Dot"}}), 422, "collection_name"),
        ("GET", "/collections/c/points/abc", Value::Null, 400, "abc is not a valid point ID"),
        ("GET", "/nothing", Value::Null, 404, "there is nothing at /nothing"),
        ("GET", "/collections/c/points/", Value::Null, 404, "there is nothing at"),
        ("POST", "/collections/c/facet", json!({}), 400, "missing field `key`"),
        ("POST", "/collections/c/facet", json!({"key": "n", "limit": 0}), 422, "[limit: value 0 invalid"),
        (
            "POST",
            "/collections/c/facet",
            json!({"key": "n[", "limit": 1}),
            400,
            "`key`: \"n[\" is not a valid key path",
        ),
        (
            "POST",
            "/collections/c/points/scroll",
            json!({"order_by": "n", "offset": 3}),
            422,
            "[offset: cannot be used with `order_by`",
        ),
        ("GET", "/snapshots", Value::Null, 404, "is not supported yet"),
        ("DELETE", "/cluster/peer/7", Value::Null, 404, "is not supported yet"),
        ("POST", "/collections/c/cluster", json!({}), 404, "is not supported yet"),
        ("GET", "/telemetry?details_level=x", Value::Null, 400, "details_level"),
        ("GET", "/metrics/x", Value::Null, 404, "there is nothing at"),
        ("DELETE", "/collections/c/points/7", Value::Null, 405, "DELETE is not offered"),
        ("POST", "/collections/c/points/delete", json!([[1], null, null]), 400, "expected an object, got an array"),
        (
            "PUT",
            "/collections/d",
            json!({"vectors": {"size": 1, "distance": "Dot"}, "replication_factor": 3, "write_consistency_factor": 3}),
            422,
            "write_consistency_factor: value 3 invalid, must be 2 or smaller",
        ),
        ("PUT", "/collections/%2E%2E", json!({"vectors": {"size": 1, "distance": "Dot"}}), 422, "collection_name"),
        (
            "POST",
            "/collections/aliases",
            json!({"actions": [{"create_alias": {"collection_name": "c", "alias_name": "a/b"}}]}),
            422,
            "Validation error in JSON body: [alias_name",
        ),
        ("PATCH", "/healthz", Value::Null, 405, "PATCH is not offered"),
    ];
    for (method, path, body, status, text) in cases {
        let (got, error) = edge.refused(method, path, body.clone()).await;
        assert!(got == status && error.contains(text), "{method} {path} {body}: {got} {error}");
    }
    assert_eq!(edge.ok("POST", "/collections/c/points/count", json!({})).await, json!({"count": 20}));
}

#[tokio::test]
async fn bodies_must_be_json_and_within_the_limit() {
    let edge = Edge::new().await;
    let put = |content: &str, body: Vec<u8>| {
        Request::put(C).header(header::CONTENT_TYPE, content.to_owned()).body(Body::from(body)).unwrap()
    };
    let (status, answer, _) = edge.send(put("text/plain", b"{}".to_vec())).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer, _) = edge.send(put("application/json", b"{\"vectors\": ".to_vec())).await;
    assert_eq!(status, 400);
    assert!(answer["status"]["error"].as_str().unwrap().starts_with("Format error in JSON body: EOF"), "{answer}");
    let (status, answer, _) = edge.send(put("application/json", vec![b' '; BODY_BYTES_MAX + 1])).await;
    assert_eq!(status, 413);
    assert!(answer["status"]["error"].as_str().unwrap().contains(&BODY_BYTES_MAX.to_string()), "{answer}");
}

#[tokio::test]
async fn a_body_is_refused_by_its_headers_before_it_is_read() {
    let edge = Edge::new().await;
    let put = |name: header::HeaderName, value: &str| {
        let request = Request::put(C).header(header::CONTENT_TYPE, "application/json").header(name, value);
        // A body that never comes: an answer proves that nobody waited for it.
        let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        request.header(header::EXPECT, "100-continue").body(body).unwrap()
    };
    let (status, answer, _) = edge.send(put(header::CONTENT_ENCODING, "gzip")).await;
    assert_eq!(status, 415);
    assert!(answer["status"]["error"].as_str().unwrap().contains("`gzip` is not supported yet"), "{answer}");
    let (status, answer, _) = edge.send(put(header::CONTENT_LENGTH, &(BODY_BYTES_MAX + 1).to_string())).await;
    assert_eq!(status, 413, "{answer}");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let edge = Edge::new().await;
    assert_eq!(edge.call("GET", "/collections/secret-name", Value::Null).await.0, 404);
    assert_eq!(edge.call("BREW", "/collections/secret-name", Value::Null).await.0, 405);
    assert_eq!(edge.call("GET", "/no/such/path", Value::Null).await.0, 404);
    let (status, page) = edge.call("GET", "/metrics", Value::Null).await;
    let page = page.as_str().unwrap();
    assert_eq!(status, 200);
    for line in [
        "vicinal_rest_requests_total{method=\"GET\",route=\"/collections/{collection}\",status=\"404\"}",
        "vicinal_rest_requests_total{method=\"other\",route=\"/collections/{collection}\",status=\"405\"}",
        "vicinal_rest_requests_total{method=\"GET\",route=\"none\",status=\"404\"}",
        "vicinal_rest_request_duration_seconds_count{method=\"GET\",route=\"none\"}",
        "vicinal_meta_role{role=\"leader\"} 1",
        "vicinal_meta_has_leader 1",
        "vicinal_nodes_known 3",
    ] {
        assert!(page.lines().any(|shown| shown.starts_with(line)), "{line} is not in\n{page}");
    }
    assert!(!page.contains("secret") && !page.contains("such") && !page.contains("BREW"), "{page}");
}
