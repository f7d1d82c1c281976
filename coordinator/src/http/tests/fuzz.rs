//! Bodies and requests that nobody should send: whatever they are, the answer is no panic and no 500.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorKind, VectorSchema};
use vicinal_common::metric::Metric;

use super::super::body::parse;
use super::super::decode::{
    AliasesBody, BatchUpdateBody, ClearPayloadBody, CountBody, CreateBody, DeleteBody, DeletePayloadBody,
    DeleteVectorsBody, DiscoverBody, FacetBody, GroupsBody, MatrixBody, OlderBatchBody, OverwritePayloadBody,
    QueryBatchBody, QueryGroupsBody, RecommendBody, RecommendGroupsBody, RetrieveBody, ScrollBody, SearchBody,
    SearchGroupsBody, SetPayloadBody, UpdateBody, UpdateVectorsBody, UpsertBody,
};

fn schema() -> CollectionSchema {
    let vector = VectorSchema::dense(2, Metric::Cosine);
    let multi = VectorSchema { kind: VectorKind::Multi, ..vector.clone() };
    let others =
        [("b".to_owned(), vector.clone()), ("m".to_owned(), multi), ("s".to_owned(), VectorSchema::sparse(true))];
    let vectors = std::iter::once(("".to_owned(), vector)).chain(others).collect();
    CollectionSchema { vectors, hnsw: HnswConfig::default(), indexing_threshold_kib: 0 }
}

/// Decodes as every kind of body; what is wrong is an error, never a panic.
fn decode_all(bytes: &[u8]) {
    fn update<B: UpdateBody>(bytes: &[u8]) {
        let _ = parse::<B>(bytes).and_then(|body| body.into_update(&schema()));
    }
    update::<UpsertBody>(bytes);
    update::<DeleteBody>(bytes);
    update::<SetPayloadBody>(bytes);
    update::<OverwritePayloadBody>(bytes);
    update::<DeletePayloadBody>(bytes);
    update::<ClearPayloadBody>(bytes);
    update::<UpdateVectorsBody>(bytes);
    update::<DeleteVectorsBody>(bytes);
    let _ = parse::<BatchUpdateBody>(bytes).and_then(|body| body.into_updates(&schema()));
    let _ = parse::<OlderBatchBody<SearchBody>>(bytes).and_then(OlderBatchBody::into_queries);
    let _ = parse::<OlderBatchBody<RecommendBody>>(bytes).and_then(OlderBatchBody::into_queries);
    let _ = parse::<OlderBatchBody<DiscoverBody>>(bytes).and_then(OlderBatchBody::into_queries);
    let _ = parse::<QueryGroupsBody>(bytes).map(|body| body.into_groups().is_ok());
    let _ = parse::<SearchGroupsBody>(bytes).map(|body| body.into_groups().is_ok());
    let _ = parse::<RecommendGroupsBody>(bytes).map(|body| body.into_groups().is_ok());
    let _ = parse::<MatrixBody>(bytes).map(|body| body.into_request().is_ok());
    let _ = parse::<FacetBody>(bytes).map(|body| body.into_facet().is_ok());
    let _ = parse::<QueryBatchBody>(bytes).and_then(QueryBatchBody::into_queries);
    let _ = parse::<ScrollBody>(bytes).map(|body| body.into_page().is_ok());
    let _ = parse::<CountBody>(bytes).and_then(CountBody::into_filter);
    let _ = parse::<RetrieveBody>(bytes).map(|body| body.into_ids().is_ok());
    let _ = parse::<CreateBody>(bytes).map(|body| body.into_collection(4).is_ok());
    let _ = parse::<AliasesBody>(bytes).and_then(AliasesBody::into_changes);
}

/// Words that bodies know.
const WORDS: &[&str] = &[
    "points",
    "batch",
    "ids",
    "id",
    "vector",
    "vectors",
    "payload",
    "payloads",
    "filter",
    "must",
    "key",
    "match",
    "value",
    "searches",
    "query",
    "nearest",
    "using",
    "params",
    "hnsw_ef",
    "limit",
    "offset",
    "with_payload",
    "include",
    "exclude",
    "a[].b",
    "size",
    "distance",
    "Cosine",
    "hnsw_config",
    "m",
    "shard_number",
    "actions",
    "create_alias",
    "alias_name",
    "collection_name",
    "",
    "prefetch",
    "mmr",
    "diversity",
    "lookup_from",
    "collection",
    "group_by",
    "group_size",
    "with_lookup",
    "sample",
    "score_threshold",
    "formula",
    "defaults",
    "sum",
    "$score",
    "operations",
    "upsert",
    "delete",
    "set_payload",
    "delete_payload",
    "clear_payload",
    "update_vectors",
    "delete_vectors",
    "keys",
    "update_filter",
    "update_mode",
    "indices",
    "values",
    "context",
    "target",
    "positive",
    "negative",
    "strategy",
    "best_score",
    "feedback",
    "order_by",
    "direction",
    "start_from",
    "random",
    "sparse_vectors",
    "modifier",
    "idf",
    "multivector_config",
    "comparator",
    "max_sim",
    "datatype",
    "uint8",
    "metadata",
    "strict_mode_config",
    "enabled",
    "max_query_limit",
    "read_rate_limit",
    "text",
    "text_any",
    "phrase",
    "range",
    "gte",
    "lt",
    "values_count",
    "geo_radius",
    "nested",
    "min_should",
    "conditions",
    "has_vector",
    "must_not",
    "should",
    "recommend",
    "discover",
    "fusion",
    "rrf",
    "weights",
    "b",
    "s",
    "n",
];

/// JSON made of the words that bodies know, in places where they may not belong.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(WORDS).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let fields = proptest::collection::vec((proptest::sample::select(WORDS), inner.clone()), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..6).prop_map(Value::from),
            fields.prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }

    #[test]
    fn arbitrary_structures_never_panic(value in any_json()) {
        decode_all(value.to_string().as_bytes());
    }
}

/// Requests that are right, each of a kind of its own.
fn right_requests() -> Vec<(&'static str, &'static str, Value)> {
    let filter = json!({"must": [{"key": "n", "range": {"gte": 3, "lt": 9}}, {"key": "s.t", "match": {"any": [1, 2]}}],
        "must_not": [{"has_id": [4]}, {"nested": {"key": "a", "filter": {"must": [{"is_null": {"key": "b"}}]}}}],
        "min_should": {"conditions": [{"key": "w", "match": {"value": "x"}}, {"has_vector": "b"},
            {"key": "n", "values_count": {"gte": 1}}], "min_count": 1}});
    let sparse = json!({"indices": [1, 5], "values": [1.0, 0.5]});
    let points = json!([{"id": 1, "vector": {"a": [1, 2], "m": [[1, 2], [3, 4]], "s": sparse}, "payload": {"n": 1}}]);
    let selector = json!({"points": [1, 2, 3], "payload": {"n": 2}, "key": "a.b"});
    vec![
        ("PUT", "points?wait=true", json!({"points": points, "update_mode": "upsert"})),
        ("PUT", "points", json!({"batch": {"ids": [1, 2], "vectors": {"a": [[1, 2], [3, 4]]}, "payloads": [{}, {}]}})),
        ("POST", "points", json!({"ids": [1, 2, 77], "with_payload": ["n"], "with_vector": ["a"]})),
        ("POST", "points/payload", selector.clone()),
        ("PUT", "points/payload", json!({"filter": filter, "payload": {"n": 3}})),
        ("POST", "points/payload/delete", json!({"points": [1], "keys": ["n", "a[0].b"]})),
        ("POST", "points/payload/clear", json!({"points": [1]})),
        ("PUT", "points/vectors", json!({"points": [{"id": 1, "vector": {"s": sparse}}]})),
        ("POST", "points/vectors/delete", json!({"points": [1], "vector": ["s"]})),
        ("POST", "points/delete", json!({"points": [7]})),
        ("POST", "points/batch", json!({"operations": [{"upsert": {"points": points}}, {"set_payload": selector}]})),
        ("POST", "points/scroll", json!({"filter": filter, "limit": 3, "order_by": {"key": "n", "start_from": 2}})),
        ("POST", "points/count", json!({"filter": filter, "exact": true})),
        ("POST", "facet", json!({"key": "n", "filter": filter, "limit": 3})),
        (
            "POST",
            "points/query",
            json!({"query": [1, 2], "using": "a", "filter": filter, "limit": 3, "offset": 1, "with_payload": true,
                "params": {"hnsw_ef": 9, "exact": true, "quantization": {"oversampling": 2.0}}, "score_threshold": 9}),
        ),
        (
            "POST",
            "points/query",
            json!({"prefetch": [{"query": sparse, "using": "s", "limit": 5}, {"query": [[1, 2]], "using": "m",
                "prefetch": {"query": 3, "using": "a"}}], "query": {"rrf": {"k": 3, "weights": [1, 2]}}, "limit": 3}),
        ),
        (
            "POST",
            "points/query/batch",
            json!({"searches": [
                {"query": {"recommend": {"positive": [1, [3, 4]], "negative": [2], "strategy": "best_score"}}, "using": "a"},
                {"query": {"discover": {"target": 1, "context": [{"positive": 2, "negative": 3}]}}, "using": "a"},
                {"query": {"context": {"positive": 2, "negative": [3, 1]}}, "using": "a"},
                {"query": {"nearest": [1, 2], "mmr": {"diversity": 0.5, "candidates_limit": 9}}, "using": "a"},
                {"query": {"order_by": "n"}},
                {"query": {"sample": "random"}, "limit": 2},
                {"query": {"relevance_feedback": {"target": 1, "feedback": [{"example": 2, "score": 1}, {"example": 3,
                    "score": 0}], "strategy": {"naive": {"a": 1, "b": 1, "c": 1}}}}, "using": "a"},
                {"prefetch": {"query": 1, "using": "a"}, "query": {"formula": {"sum": ["$score", {"mult": [2, "n"]},
                    {"key": "n", "range": {"gt": 2}}]}, "defaults": {"n": 1}}},
            ]}),
        ),
        (
            "POST",
            "points/query/groups",
            json!({"query": [1, 2], "using": "a", "group_by": "n", "group_size": 2, "limit": 3, "with_lookup": "c"}),
        ),
        ("POST", "points/search/matrix/pairs", json!({"using": "a", "sample": 5, "limit": 2, "filter": filter})),
        ("POST", "points/search", json!({"vector": {"name": "a", "vector": [1, 2]}, "limit": 2})),
        ("PATCH", "", json!({"hnsw_config": {"on_disk": true}})),
        ("PUT", "index", json!({"field_name": "n", "field_schema": "integer"})),
        ("PUT", "../d", json!({"vectors": {"x": {"size": 3, "distance": "Dot"}}, "sparse_vectors": {"y": {}}})),
    ]
}

/// Puts a value in some place of another one, or under a new key.
fn mutate(value: &mut Value, way: &mut impl Iterator<Item = usize>, (key, with): (&str, &Value)) {
    let turn = way.next().unwrap_or(0);
    let children = match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    match value {
        Value::Object(fields) if turn % 8 == 1 => drop(fields.insert(key.to_owned(), with.clone())),
        Value::Array(items) if turn % 8 == 1 => items.push(with.clone()),
        Value::Object(fields) if children > 0 && turn % 8 > 1 => {
            if let Some(child) = fields.values_mut().nth(turn / 8 % children) {
                mutate(child, way, (key, with));
            }
        }
        Value::Array(items) if children > 0 && turn % 8 > 1 => {
            mutate(&mut items[turn / 8 % children], way, (key, with))
        }
        value => *value = with.clone(),
    }
}

/// The path below the collection, or that of another one.
fn place_of(path: &str) -> String {
    match path {
        "" => super::C.to_owned(),
        "../d" => "/collections/d".to_owned(),
        path => format!("{}/{path}", super::C),
    }
}

#[test]
fn a_request_that_is_nearly_right_is_never_a_500() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let edge = runtime.block_on(async {
        let edge = super::Edge::new().await;
        let dense = json!({"size": 2, "distance": "Euclid"});
        let multi = json!({"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}});
        let body =
            json!({"vectors": {"a": dense, "b": dense, "m": multi}, "sparse_vectors": {"s": {"modifier": "idf"}}});
        edge.ok("PUT", super::C, body).await;
        let point = |id: u64| {
            let vector = json!({"a": [id, 0], "s": {"indices": [id % 3], "values": [1.0]}});
            json!({"id": id, "vector": vector, "payload": {"n": id, "s": {"t": id % 3}, "a": [{"b": null}]}})
        };
        let points: Vec<Value> = (0..12).map(point).collect();
        edge.ok("PUT", "/collections/c/points", json!({"points": points})).await;
        edge
    });
    for (method, path, body) in right_requests() {
        let (status, answer) = runtime.block_on(edge.call(method, &place_of(path), body.clone()));
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
    }
    for path in ["/collections/d", "/collections/c/index/n"] {
        runtime.block_on(edge.ok("DELETE", path, Value::Null));
    }
    let place = proptest::collection::vec(any::<u16>(), 1..12);
    let mutation = (proptest::sample::select(WORDS), any_json(), place);
    let request = (proptest::sample::select(right_requests()), proptest::collection::vec(mutation, 1..3));
    // PROPTEST_CASES says how many.
    let config = Config { failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&request, |((method, path, mut body), mutations)| {
        for (key, with, place) in &mutations {
            mutate(&mut body, &mut place.iter().map(|turn| usize::from(*turn)), (key, with));
        }
        let path = place_of(path);
        let (status, answer) = runtime.block_on(edge.call(method, &path, body.clone()));
        prop_assert!(status < 500, "{} {} {}: {} {}", method, path, body, status, answer);
        if path == "/collections/d" && status == 200 {
            runtime.block_on(edge.call("DELETE", &path, Value::Null));
        }
        Ok(())
    });
    run.unwrap();
}
