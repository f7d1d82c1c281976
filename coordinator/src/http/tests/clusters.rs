//! Clusters at the edge: trained, listed, searched near, sampled, and in filters.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const PATH: &str = "/collections/c/clusters";

/// 320 points around 5 places, 16 without any; with clusters. And the cluster of each point.
async fn clustered() -> (Edge, BTreeMap<u64, u64>) {
    let edge = Edge::new().await;
    edge.ok("PUT", C, json!({"vectors": {"": {"size": 2, "distance": "Euclid"}, "b": {"size": 2, "distance": "Dot"}}}))
        .await;
    let point = |id: u64| {
        let vector = json!({"": [(id % 5) * 100 + id / 5 % 3, id / 15 % 3]});
        json!({"id": id, "vector": vector, "payload": {"n": id, "even": id % 2}})
    };
    let without = |id: u64| json!({"id": id, "vector": {"b": [1, id]}});
    let points: Vec<Value> = (0..320).map(point).chain((1_000..1_016).map(without)).collect();
    edge.ok("PUT", "/collections/c/points?wait=true", json!({"points": points})).await;
    train(&edge, 5).await;
    let mut clusters = BTreeMap::new();
    for id in 0..320 {
        let near = edge.ok("POST", &format!("{PATH}/nearest"), json!({"query": id, "limit": 1})).await;
        clusters.insert(id, near["clusters"][0]["id"].as_u64().unwrap());
    }
    (edge, clusters)
}

/// Trains, and waits until the clusters are there.
async fn train(edge: &Edge, count: u64) -> Value {
    let before = edge.call("GET", PATH, Value::Null).await.1["result"]["version"].clone();
    let wanted = edge.ok("PUT", PATH, json!({"count": count, "vector": ""})).await;
    assert_eq!(wanted["training"]["count"], count);
    for _ in 0..1_000 {
        let shown = edge.ok("GET", PATH, Value::Null).await;
        if shown["version"] != before && shown["version"].is_u64() && shown["ready"] == true {
            assert!(shown["training"].is_null());
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no clusters came");
}

fn ids(points: &Value) -> BTreeSet<u64> {
    points.as_array().unwrap().iter().map(|point| point["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn clusters_are_listed_with_their_size_medoid_and_spread() {
    let (edge, clusters) = clustered().await;
    let shown = edge.ok("GET", PATH, Value::Null).await;
    assert_eq!((&shown["vector"], &shown["ready"], &shown["of"]), (&json!(""), &json!(true), &json!("clustering")));
    assert_eq!(shown["count"], shown["clusters"].as_array().unwrap().len());
    for one in shown["clusters"].as_array().unwrap() {
        let size = clusters.values().filter(|cluster| **cluster == one["id"].as_u64().unwrap()).count();
        assert_eq!(one["size"], size, "{one}");
        assert_eq!(clusters[&one["medoid"].as_u64().unwrap()], one["id"].as_u64().unwrap());
        // Nothing was written since, and the sample was nearly all points.
        assert!(one["spread"].as_f64().unwrap() > 0.0 && one["drift"].as_f64().unwrap().abs() < 0.2, "{one}");
        assert!(one["shard"].is_null());
        let alone = edge.ok("GET", &format!("{PATH}/{}", one["id"]), Value::Null).await;
        assert_eq!((&alone["medoid"], &alone["version"]), (&one["medoid"], &shown["version"]));
    }
    let page = edge.ok("GET", &format!("{PATH}?order=size&limit=2&offset=1"), Value::Null).await;
    let sizes: Vec<u64> =
        page["clusters"].as_array().unwrap().iter().map(|one| one["size"].as_u64().unwrap()).collect();
    assert!(sizes.len() == 2 && sizes[0] >= sizes[1]);

    let (status, text) = edge.refused("GET", &format!("{PATH}/99"), Value::Null).await;
    assert!(status == 404 && text.contains("there is no cluster 99"), "{text}");
    for (url, words) in
        [("?order=name", "`order`"), ("?limit=0", "`limit`"), ("?offset=x", "`offset`"), ("/x", "whole number")]
    {
        let (status, text) = edge.refused("GET", &format!("{PATH}{url}"), Value::Null).await;
        assert!(status == 400 && text.contains(words), "{url}: {text}");
    }
}

#[tokio::test]
async fn filters_ask_for_clusters_in_every_read() {
    let (edge, clusters) = clustered().await;
    let version = edge.ok("GET", PATH, Value::Null).await["version"].clone();
    let of: BTreeSet<u64> = [clusters[&0], clusters[&1]].into();
    let inside: BTreeSet<u64> = clusters.iter().filter(|(_, c)| of.contains(c)).map(|(id, _)| *id).collect();
    let conditions = [
        json!({"in_clusters": of}),
        json!({"in_clusters": {"version": version, "clusters": of}}),
        json!({"in_clusters_of": [0, 1, 77_777, 1_003]}),
    ];
    for condition in conditions {
        let filter = json!({"must": [condition]});
        let page = edge.ok("POST", "/collections/c/points/scroll", json!({"filter": filter, "limit": 1000})).await;
        assert_eq!(ids(&page["points"]), inside, "{condition}");
        let others = json!({"must_not": [condition], "must": [{"key": "even", "match": {"value": 1}}]});
        let count = edge.ok("POST", "/collections/c/points/count", json!({"filter": others})).await;
        let expected = clusters.keys().filter(|id| **id % 2 == 1 && !inside.contains(id)).count();
        assert_eq!(count["count"], expected);
        for query in [json!({"sample": "random"}), json!([0.0, 0.0])] {
            let body = json!({"query": query, "filter": filter, "limit": 500, "using": ""});
            let found = edge.ok("POST", "/collections/c/points/query", body).await;
            assert_eq!(ids(&found["points"]), inside);
        }
        let prefetch = json!({"query": [0.0, 0.0], "filter": filter, "limit": 500});
        let body = json!({"prefetch": [prefetch], "query": {"fusion": "rrf"}, "limit": 500});
        assert_eq!(ids(&edge.ok("POST", "/collections/c/points/query", body).await["points"]), inside);
        let facets = edge.ok("POST", "/collections/c/facet", json!({"key": "even", "filter": filter})).await;
        let sum: u64 = facets["hits"].as_array().unwrap().iter().map(|hit| hit["count"].as_u64().unwrap()).sum();
        assert_eq!(sum, inside.len() as u64);
    }
}

#[tokio::test]
async fn a_sample_is_spread_over_the_clusters_that_were_not_seen() {
    let (edge, clusters) = clustered().await;
    let count = clusters.values().collect::<BTreeSet<_>>().len();
    let sample = |body: Value| {
        let edge = &edge;
        async move { edge.ok("POST", &format!("{PATH}/sample"), body).await }
    };
    let all = sample(json!({"limit": 100, "seed": 1, "with_payload": true})).await;
    let points = all["points"].as_array().unwrap();
    assert_eq!(points.len(), count, "one of each");
    for point in points {
        let id = point["id"].as_u64().unwrap();
        assert_eq!((&point["cluster"], &point["payload"]["n"]), (&json!(clusters[&id]), &json!(id)));
    }
    assert_eq!(sample(json!({"limit": 100, "seed": 1, "with_payload": true})).await, all, "the same by the same seed");
    let other = sample(json!({"limit": 100, "seed": 2})).await;
    assert_ne!(ids(&other["points"]), ids(&all["points"]));
    assert!(other["points"][0].get("payload").is_none());

    let body = json!({
        "limit": 100, "per_cluster": 3, "not_in": [clusters[&0]], "history": [1], "seed": 5,
        "filter": {"must": {"key": "even", "match": {"value": 0}}},
    });
    let found = sample(body).await;
    let mut taken: BTreeMap<u64, usize> = BTreeMap::new();
    for point in found["points"].as_array().unwrap() {
        let (id, cluster) = (point["id"].as_u64().unwrap(), point["cluster"].as_u64().unwrap());
        assert!(id % 2 == 0 && cluster == clusters[&id]);
        assert!(cluster != clusters[&0] && cluster != clusters[&1]);
        *taken.entry(cluster).or_default() += 1;
    }
    assert!(!taken.is_empty() && taken.values().all(|taken| *taken == 3), "{taken:?}");
    assert_eq!(sample(json!({"limit": 2})).await["points"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_new_clustering_gets_another_version_and_old_ids_are_refused() {
    let (edge, _) = clustered().await;
    let old = edge.ok("GET", PATH, Value::Null).await["version"].as_u64().unwrap();
    let new = train(&edge, 3).await["version"].as_u64().unwrap();
    assert!(new > old);
    let is_alone = || edge.model.lock().maps.values().all(|maps| maps.len() == 1);
    for _ in 0..1_000 {
        if is_alone() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(is_alone(), "the old map is removed");
    let filter = json!({"must": {"in_clusters": {"version": old, "clusters": [0]}}});
    let (status, text) = edge.refused("POST", "/collections/c/points/count", json!({"filter": filter})).await;
    assert!(status == 409 && text.contains(&format!("version {new} now, not {old}")), "{text}");
    let body = json!({"not_in": [0], "version": old});
    assert_eq!(edge.refused("POST", &format!("{PATH}/sample"), body).await.0, 409);

    assert_eq!(edge.ok("DELETE", PATH, Value::Null).await, json!(true));
    for (method, path, body) in [
        ("GET", PATH.to_owned(), Value::Null),
        ("POST", format!("{PATH}/nearest"), json!({"query": 1})),
        ("POST", format!("{PATH}/sample"), json!({})),
        ("POST", "/collections/c/points/count".to_owned(), json!({"filter": {"must": {"in_clusters": [0]}}})),
    ] {
        let (status, text) = edge.refused(method, &path, body).await;
        assert!(status == 404 && text.contains("has no clusters"), "{path}: {status} {text}");
    }
    assert_eq!(edge.ok("DELETE", PATH, Value::Null).await, json!(true), "again");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_field_and_limit() {
    let (edge, _) = clustered().await;
    let nearest = format!("{PATH}/nearest");
    let sample = format!("{PATH}/sample");
    let points = "/collections/c/points";
    let filter = json!({"must": [{"in_clusters": [0]}]});
    for (method, path, body, status, words) in [
        ("PUT", PATH, json!({"count": 1}), 422, "count: value 1 invalid, must be from 2 to 65536"),
        ("PUT", PATH, json!({"count": 22}), 422, "must be 21 or smaller: the collection has 336 points"),
        ("PUT", PATH, json!({"count": 4, "vector": "x"}), 400, "Not existing vector name error: x"),
        ("PUT", PATH, json!({"count": 4, "clusters": 4}), 400, "clusters"),
        ("PUT", PATH, json!({}), 400, "count"),
        ("POST", &nearest, json!({"query": [1.0]}), 400, "expected dim: 2, got 1"),
        ("POST", &nearest, json!({"query": 55_555}), 404, "55555"),
        ("POST", &nearest, json!({"query": 1_001}), 400, "has no vector"),
        ("POST", &nearest, json!({"query": 1, "limit": 0}), 422, "limit: value 0 invalid"),
        ("POST", &sample, json!({"per_cluster": 0}), 422, "per_cluster: value 0 invalid"),
        ("POST", &sample, json!({"not_in": [9_999]}), 400, "there is no cluster 9999"),
        ("POST", &sample, json!({"not_in": ["a"]}), 400, "not_in"),
        ("POST", &format!("{points}/count"), json!({"filter": {"must": {"in_clusters": [77]}}}), 400, "no cluster 77"),
        (
            "POST",
            &format!("{points}/delete"),
            json!({"filter": filter}),
            400,
            "`in_clusters` and `in_clusters_of` are for reads",
        ),
        ("POST", &format!("{points}/payload"), json!({"payload": {"a": 1}, "filter": filter}), 400, "are for reads"),
        (
            "PUT",
            points,
            json!({"points": [{"id": 1, "vector": {"": [1, 2]}}], "update_filter": filter}),
            400,
            "are for reads",
        ),
    ] {
        let (got, text) = edge.refused(method, path, body.clone()).await;
        assert!(got == status && text.contains(words), "{method} {path} {body}: {got} {text}");
    }
}
