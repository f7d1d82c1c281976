//! The graph path: built in the background, close to exact, honest about deletes and filters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use vicinal_common::api::{NearestQuery, ReplicaSpec, WriteOp};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::disk::RealDisk;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};

use super::super::{Shard, ShardOptions, View};
use super::harness::{Model, Work, env_with, filter, spec};

const ROWS: u64 = 5_000;
const DIM: usize = 32;

fn vector(work: &mut Work) -> Vec<f32> {
    let centre = work.below(50);
    let mut of_centre = Work::new(centre);
    (0..DIM).map(|_| of_centre.below(1_000) as f32 / 50.0 + work.below(1_000) as f32 / 200.0).collect()
}

fn query(work: &mut Work, exact: bool) -> NearestQuery {
    NearestQuery {
        vector_name: String::new(),
        vector: vector(work).into(),
        k: 10,
        filter: None,
        distance_max: None,
        ef: None,
        exact,
    }
}

fn recall(view: &View, queries: &[NearestQuery]) -> f64 {
    let mut found = 0;
    for query in queries {
        let exact = view.search(&NearestQuery { exact: true, ..query.clone() }).unwrap();
        let exact: BTreeSet<PointId> = exact.iter().map(|hit| hit.id).collect();
        let hits = view.search(query).unwrap();
        assert_eq!(hits.len(), 10);
        found += hits.iter().filter(|hit| exact.contains(&hit.id)).count();
    }
    found as f64 / (queries.len() * 10) as f64
}

#[test]
fn a_graph_is_built_and_finds_nearly_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = ShardOptions { seal_bytes: 200_000, ..ShardOptions::default() };
    options.background = super::super::Background::Manual;
    let env = env_with(Arc::new(RealDisk), options);
    let unnamed = VectorSchema { dim: DIM, metric: Metric::Euclid, hnsw: None };
    let schema = CollectionSchema {
        vectors: BTreeMap::from([(String::new(), unnamed)]),
        hnsw: HnswConfig::default(),
        indexing_threshold_kib: 100,
    };
    let spec = ReplicaSpec { schema, ..spec() };
    let path = dir.path().join("shard");
    let shard = Shard::create(&env, &path, &spec).unwrap();

    let mut work = Work::new(1);
    let mut log = Model::default();
    for first in (0..ROWS).step_by(250) {
        let point = |id: u64| Point {
            id: PointId::Num(id),
            vectors: BTreeMap::from([(String::new(), vector(&mut work))]),
            payload: Payload::from_fields(json!({"tenth": id.is_multiple_of(10)}).as_object().unwrap()).unwrap(),
        };
        let points: Vec<Point> = (first..first + 250).map(point).collect();
        shard.apply(vec![log.push(super::harness::write_of(WriteOp::Upsert(Arc::new(points)), first))]).unwrap();
        shard.maintain_once().unwrap();
    }
    shard.flush_blocking().unwrap();
    while shard.maintain_once().unwrap() {}
    let stats = shard.stats();
    assert!(stats.segments <= 4 && !stats.optimizing, "{stats:?}");
    assert_eq!(stats.indexed_vectors, ROWS);

    let queries: Vec<NearestQuery> = (0..100).map(|_| query(&mut work, false)).collect();
    let found = recall(&shard.view(), &queries);
    assert!(found >= 0.97, "recall {found}");
    let tenth = Arc::new(filter(json!({"must": {"key": "tenth", "match": {"value": true}}})));
    let filtered: Vec<NearestQuery> =
        queries.iter().map(|query| NearestQuery { filter: Some(Arc::clone(&tenth)), ..query.clone() }).collect();
    let found = recall(&shard.view(), &filtered);
    assert!(found >= 0.97, "recall {found} with a filter");

    // Deleted points are not found, in the graph neither before nor after the rewrite that drops them.
    let mut gone = BTreeSet::new();
    for query in &queries {
        gone.extend(shard.view().search(query).unwrap().into_iter().take(3).map(|hit| hit.id));
    }
    let delete = WriteOp::Delete(gone.iter().copied().collect());
    shard.apply(vec![log.push(super::harness::write_of(delete, ROWS))]).unwrap();
    let check = |shard: &Shard| {
        let view = shard.view();
        for query in &queries {
            assert!(view.search(query).unwrap().iter().all(|hit| !gone.contains(&hit.id)));
        }
        let found = recall(&view, &queries);
        assert!(found >= 0.97, "recall {found} after deletes");
    };
    check(&shard);
    shard.flush_blocking().unwrap();
    while shard.maintain_once().unwrap() {}
    check(&shard);
    shard.close();
    check(&Shard::open(&env, Path::new(&path)).unwrap());
}
