//! What may be said of routing.

use super::*;
use crate::meta::{Routing, RoutingChange};

#[test]
fn routing_by_cluster_has_settings_with_bounds_and_defaults() {
    let with = |routing: Value| one_vector(json!({"routing": routing}));
    let cluster = |body: Value| match created(body).routing {
        Routing::Cluster(cluster) => *cluster,
        other => panic!("{other:?}"),
    };
    let default = cluster(with(json!({"method": "cluster"})));
    assert_eq!((default.vector.as_str(), default.search_shards, default.from_points), ("", 4, 100_000));
    assert_eq!((default.copies, default.recall_target, default.serving), (0.2, 0.95, None));
    let two = cluster(with(json!({"method": "cluster", "search_shards": 2})));
    assert_eq!(two.from_points, 64 * 1_024, "64 for each centroid");
    let mut one = with(json!({"method": "cluster"}));
    one["shard_number"] = json!(1);
    assert_eq!(cluster(one).search_shards, 2);
    let said = json!({"method": "cluster", "vector": "a", "search_shards": 128, "copies": 0, "recall_target": 0.5,
        "from_points": 7});
    let several = |routing: &Value| {
        let dense = json!({"size": 2, "distance": "Dot"});
        let mut multi = dense.clone();
        multi["multivector_config"] = json!({"comparator": "max_sim"});
        json!({"vectors": {"a": dense, "b": dense, "m": multi}, "sparse_vectors": {"s": {}}, "routing": routing})
    };
    let said = cluster(several(&said));
    assert_eq!((said.vector.as_str(), said.search_shards, said.copies), ("a", 128, 0.0));
    assert_eq!((said.recall_target, said.from_points), (0.5, 7));

    for (field, value, parts) in [
        ("search_shards", json!(1), &["routing.search_shards", "from 2 to 128"][..]),
        ("search_shards", json!(129), &["routing.search_shards", "from 2 to 128"]),
        ("copies", json!(1.5), &["routing.copies", "1.5", "from 0 to 1"]),
        ("copies", json!(-0.1), &["routing.copies", "from 0 to 1"]),
        ("recall_target", json!(1), &["routing.recall_target", "from 0.5 to 0.999"]),
        ("recall_target", json!(0.49), &["routing.recall_target", "from 0.5 to 0.999"]),
        ("from_points", json!(0), &["routing.from_points", "from 1 to"]),
        ("vector", json!("none"), &["routing.vector", "`none`", "the name of a vector"]),
        ("vector", json!("s"), &["routing.vector", "`s`", "a dense vector"]),
        ("vector", json!("m"), &["routing.vector", "`m`", "a dense vector"]),
        ("copies", Value::Null, &["routing.vector", "one of the 2 dense vectors"]),
    ] {
        let mut routing = json!({"method": "cluster"});
        routing[field] = value;
        let failure = create(several(&routing)).err().unwrap_or_else(|| panic!("{routing} was accepted"));
        assert_eq!(failure.status.as_u16(), 422, "{routing}: {}", failure.text);
        assert!(parts.iter().all(|part| failure.text.contains(part)), "{routing}: {}", failure.text);
    }
    let sparse = json!({"sparse_vectors": {"s": {}}, "routing": {"method": "cluster"}});
    assert!(create(sparse).err().is_some_and(|failure| failure.text.contains("no dense vector")));
    let mut replicas = with(json!({"method": "cluster"}));
    replicas["replication_factor"] = json!(3);
    assert_eq!(created(replicas).replication_factor, 3);
}

#[test]
fn a_method_can_change_between_hash_and_cluster() {
    let routing = |known: &Collection, routing: Value| change(known, json!({"routing": routing})).map(|of| of.routing);
    let hash = created(one_vector(json!({})));
    assert_eq!(routing(&hash, json!({"method": "hash"})), Ok(None));
    let Ok(Some(RoutingChange::Cluster(settings))) = routing(&hash, json!({"method": "cluster", "copies": 0.5})) else {
        panic!("not switched");
    };
    assert_eq!((settings.search_shards, settings.copies), (2, 0.5));
    let cluster = created(one_vector(json!({"routing": {"method": "cluster"}})));
    assert_eq!(routing(&cluster, json!({"method": "hash"})), Ok(Some(RoutingChange::Hash)));
    let change = RoutingChange::Settings {
        search_shards: None,
        copies: None,
        recall_target: Some(0.99),
        from_points: None,
        balance: Some(false),
    };
    let body = json!({"method": "cluster", "vector": "", "recall_target": 0.99, "balance": false});
    assert_eq!(routing(&cluster, body), Ok(Some(change)));
    for (known, body, part) in [
        (&cluster, json!({"method": "cluster", "vector": "a"}), "`routing.vector: a` is not supported"),
        (&cluster, json!({"method": "cluster", "copies": 2}), "routing.copies"),
        (&cluster, json!({"method": "replicate"}), "the collection has `cluster`"),
        (&hash, json!({"method": "replicate"}), "the collection has `hash`"),
        (&hash, json!({"method": "cluster", "vector": "a"}), "the name of a vector"),
    ] {
        let failure = routing(known, body.clone()).err().unwrap_or_else(|| panic!("{body} was accepted"));
        assert!(failure.text.contains(part), "{body}: {}", failure.text);
    }
}

#[test]
fn routing_decides_what_may_be_said_of_shards_and_replicas() {
    let new = |more: Value| create(one_vector(more));
    let accepted = |more: Value| new(more).unwrap_or_else(|failure| panic!("{failure:?}"));
    let hash = accepted(json!({"routing": {"method": "hash"}, "shard_number": 4, "replication_factor": 3}));
    assert_eq!((hash.routing, hash.shard_number, hash.replication_factor), (Routing::Hash, Some(4), 3));
    assert_eq!(accepted(json!({"routing": null})).routing, Routing::Hash);
    for more in [json!({}), json!({"shard_number": 1, "write_consistency_factor": 1})] {
        let mut more = more;
        more["routing"] = json!({"method": "replicate"});
        let replicated = accepted(more);
        assert_eq!((replicated.routing, replicated.shard_number), (Routing::Replicate, Some(1)));
        assert!(replicated.config["params"].get("replication_factor").is_none(), "{}", replicated.config);
    }
    for (more, status, parts) in [
        (json!({"routing": {"method": "Hash"}}), 422, &["routing.method", "`Hash`", "hash, replicate or cluster"][..]),
        (json!({"routing": {}}), 400, &["method"]),
        (json!({"routing": "replicate"}), 400, &["expected an object"]),
        (json!({"routing": {"method": "hash", "copies": 1}}), 400, &["`routing.copies` is not", "no meaning"]),
        (json!({"routing": {"method": "cluster", "shards": 4}}), 400, &["unknown field `shards`"]),
        (json!({"routing": {"method": "replicate"}, "shard_number": 2}), 422, &["shard_number", "1 or left out"]),
        (json!({"routing": {"method": "replicate"}, "replication_factor": 1}), 400, &["`replication_factor` is not"]),
        (
            json!({"routing": {"method": "replicate"}, "write_consistency_factor": 2}),
            422,
            &["write_consistency_factor", "1 or left out"],
        ),
    ] {
        let failure = new(more.clone()).err().unwrap_or_else(|| panic!("{more} was accepted"));
        assert_eq!(failure.status.as_u16(), status, "{more}: {}", failure.text);
        assert!(parts.iter().all(|part| failure.text.contains(part)), "{more}: {}", failure.text);
    }
    let known = created(one_vector(json!({"routing": {"method": "replicate"}})));
    assert!(change(&known, json!({"routing": {"method": "replicate"}})).is_ok());
    for (body, part) in [
        (
            json!({"routing": {"method": "hash"}}),
            "`routing.method: hash` is not supported: the collection has `replicate`",
        ),
        (json!({"params": {"replication_factor": 1}}), "`params.replication_factor` is not"),
        (json!({"params": {"write_consistency_factor": 2}}), "params.write_consistency_factor"),
    ] {
        let failure = change(&known, body.clone()).err().unwrap_or_else(|| panic!("{body} was accepted"));
        assert!(failure.text.contains(part), "{body}: {}", failure.text);
    }
}
