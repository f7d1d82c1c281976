//! The graph path: built in the background, close to exact, honest about deletes and filters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use vicinal_common::api::{ReplicaSpec, SearchQuery, WriteOp};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::disk::RealDisk;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};

use super::super::{Shard, ShardEnv, ShardOptions, View};
use super::harness::{Model, Work, env_with, filter, spec};

const ROWS: u64 = 5_000;
const DIM: usize = 32;

fn vector(work: &mut Work) -> Vec<f32> {
    let centre = work.below(50);
    let mut of_centre = Work::new(centre);
    (0..DIM).map(|_| of_centre.below(1_000) as f32 / 50.0 + work.below(1_000) as f32 / 200.0).collect()
}

fn query(work: &mut Work, exact: bool) -> SearchQuery {
    SearchQuery {
        vector_name: String::new(),
        goal: vector(work).into(),
        k: 10,
        filter: None,
        distance_max: None,
        ef: None,
        exact,
    }
}

fn recall(view: &View, queries: &[SearchQuery]) -> f64 {
    let mut found = 0;
    for query in queries {
        let exact = view.search(&SearchQuery { exact: true, ..query.clone() }).unwrap();
        let exact: BTreeSet<PointId> = exact.iter().map(|hit| hit.id).collect();
        let hits = view.search(query).unwrap();
        assert_eq!(hits.len(), 10);
        found += hits.iter().filter(|hit| exact.contains(&hit.id)).count();
    }
    found as f64 / (queries.len() * 10) as f64
}

fn point(id: u64, work: &mut Work) -> Point {
    let payload = json!({"tenth": id.is_multiple_of(10)});
    Point {
        id: PointId::Num(id),
        vectors: BTreeMap::from([(String::new(), vector(work).into())]),
        payload: Payload::from_fields(payload.as_object().unwrap()).unwrap(),
    }
}

fn upsert(shard: &Shard, log: &mut Model, points: Vec<Point>) {
    let request = log.log.len() as u64;
    shard.apply(vec![log.push(super::harness::write_of(WriteOp::Upsert(Arc::new(points)), request))]).unwrap();
}

/// A shard of [`ROWS`] points, all of them in graphs.
fn settled(path: &Path, work: &mut Work, log: &mut Model) -> (ShardEnv, Arc<Shard>) {
    let mut options = ShardOptions { seal_bytes: 200_000, ..ShardOptions::default() };
    options.background = super::super::Background::Manual;
    let env = env_with(Arc::new(RealDisk), options);
    let unnamed = VectorSchema::dense(DIM, Metric::Euclid);
    let schema = CollectionSchema {
        vectors: BTreeMap::from([(String::new(), unnamed)]),
        hnsw: HnswConfig::default(),
        indexing_threshold_kib: 100,
    };
    let spec = ReplicaSpec { schema, ..spec() };
    let shard = Shard::create(&env, path, &spec).unwrap();
    for first in (0..ROWS).step_by(250) {
        upsert(&shard, log, (first..first + 250).map(|id| point(id, work)).collect());
        shard.maintain_once().unwrap();
    }
    shard.flush_blocking().unwrap();
    while shard.maintain_once().unwrap() {}
    let stats = shard.stats();
    assert!(stats.segments <= 4 && !stats.optimizing, "{stats:?}");
    assert_eq!(stats.indexed_vectors, ROWS);
    (env, shard)
}

#[test]
fn a_graph_is_built_and_finds_nearly_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard");
    let (mut work, mut log) = (Work::new(1), Model::default());
    let (env, shard) = settled(&path, &mut work, &mut log);

    let queries: Vec<SearchQuery> = (0..100).map(|_| query(&mut work, false)).collect();
    let found = recall(&shard.view(), &queries);
    assert!(found >= 0.97, "recall {found}");
    let tenth = Arc::new(filter(json!({"must": {"key": "tenth", "match": {"value": true}}})));
    let filtered: Vec<SearchQuery> =
        queries.iter().map(|query| SearchQuery { filter: Some(Arc::clone(&tenth)), ..query.clone() }).collect();
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
    check(&Shard::open(&env, &path).unwrap());
}

#[test]
fn rows_in_a_graph_stay_in_one_while_their_segment_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let (mut work, mut log) = (Work::new(2), Model::default());
    let (_env, shard) = settled(&dir.path().join("shard"), &mut work, &mut log);
    let before: BTreeSet<u64> = shard.view().segments.iter().map(|segment| segment.number).collect();

    // Enough for every segment to be rewritten.
    let written: Vec<u64> = (0..ROWS).filter(|id| id % 3 == 0).collect();
    for ids in written.chunks(250) {
        upsert(&shard, &mut log, ids.iter().map(|id| point(*id, &mut work)).collect());
    }
    shard.flush_blocking().unwrap();
    let kept = ROWS - written.len() as u64;
    for step in 0.. {
        let indexed = shard.stats().indexed_vectors;
        assert!(indexed >= kept, "step {step}: {indexed} of {kept} rows that were in graphs still are");
        if !shard.maintain_once().unwrap() {
            break;
        }
    }
    let stats = shard.stats();
    assert!(stats.indexed_vectors == ROWS && !stats.optimizing, "{stats:?}");
    let after: BTreeSet<u64> = shard.view().segments.iter().map(|segment| segment.number).collect();
    assert!(before.is_disjoint(&after), "{before:?} were not all rewritten: {after:?}");
}
