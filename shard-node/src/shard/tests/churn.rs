//! Points that are written again and again: after five rewrites of everything a shard answers like one that was
//! written once, and holds no more than that one does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::seq::SliceRandom;
use vicinal_common::api::{ReplicaSpec, SearchQuery, WriteOp};
use vicinal_common::collection::HnswConfig;
use vicinal_common::disk::FaultyDisk;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};

use super::super::{Shard, ShardEnv};
use super::harness::{DIR, Model, Work, env, spec_of};
use super::model::Recall;

const POINTS: u64 = 6_000;
const BATCH: usize = 100;
const REWRITES: usize = 5;
const VECTORS: [(usize, Metric); 2] = [(48, Metric::Euclid), (3, Metric::Dot)];

fn scene() -> (ShardEnv, ReplicaSpec) {
    let mut env = env(FaultyDisk::new(1));
    // Nine or ten segments of one rewrite, before they are merged.
    env.options.seal_bytes = 150_000;
    env.options.fresh_bytes_max = 1 << 20;
    (env, spec_of(VECTORS, HnswConfig { m: 8, ef_construction: 64 }, 40))
}

fn point(id: u64, work: &mut Work) -> Point {
    let vectors = BTreeMap::from([(String::new(), work.vector_of("").into())]);
    Point { id: PointId::Num(id), vectors, payload: Payload::EMPTY }
}

/// At most one row of an id lives, each with the newest version.
fn check_ids(shard: &Shard, model: &Model) {
    model.check(shard);
    let view = shard.view();
    let live: u64 = view.sources().map(|source| u64::from(source.run.rows() - source.dead.count())).sum();
    assert_eq!(live, model.len() as u64);
}

fn settle(shard: &Shard, env: &ShardEnv) {
    shard.flush_blocking().unwrap();
    let steps = (0..1_000).take_while(|_| shard.maintain_once().unwrap()).count();
    assert!(steps < 1_000, "background work does not end");
    let stats = shard.stats();
    assert!(stats.segments <= env.options.segments_target as u64 && !stats.optimizing, "{stats:?}");
    assert_eq!((stats.indexed_vectors, stats.fresh_rows), (POINTS, 0));
    // Nothing of what was overwritten takes more room than the policy lets it.
    let rows: u64 = shard.view().segments.iter().map(|segment| u64::from(segment.source().run.rows())).sum();
    assert!(rows <= POINTS * 5 / 4, "{rows} rows for {POINTS} points");
}

fn recall(shard: &Shard, model: &Model, queries: &[SearchQuery]) -> f64 {
    let (view, mut recall) = (shard.view(), Recall::default());
    queries.iter().for_each(|query| recall.check(query, &view, model));
    recall.value()
}

#[test]
fn five_rewrites_of_everything_cost_no_recall_and_leave_nothing_behind() {
    let (mut env, spec) = scene();
    let mut shard = Shard::create(&env, Path::new(DIR), &spec).unwrap();
    let mut model = Model::of(spec.clone());
    let mut work = Work::of(1, POINTS, VECTORS);
    let mut most_segments = 0;
    let mut ids: Vec<u64> = (0..POINTS).collect();
    for rewrite in 0..=REWRITES {
        ids.shuffle(&mut work.random);
        for (i, ids) in ids.chunks(BATCH).enumerate() {
            let points = ids.iter().map(|id| point(*id, &mut work)).collect();
            shard.apply(vec![model.write(WriteOp::Upsert(Arc::new(points)))]).unwrap();
            match work.below(10) {
                0 => shard.flush_blocking().unwrap(),
                1..7 => drop(shard.maintain_once().unwrap()),
                _ => {}
            }
            most_segments = most_segments.max(shard.stats().segments);
            if i % 10 == 0 {
                check_ids(&shard, &model);
            }
        }
        if rewrite % 2 == 1 {
            shard.close();
            shard = Shard::open(&env, Path::new(DIR)).unwrap();
            model.replay(&shard).unwrap();
        }
        assert_eq!(model.len() as u64, POINTS);
        check_ids(&shard, &model);
    }
    assert!((4..12).contains(&most_segments), "{most_segments} segments at once");
    let queries: Vec<SearchQuery> = (0..700)
        .map(|_| SearchQuery {
            vector_name: String::new(),
            goal: work.vector_of("").into(),
            k: 10,
            filter: None,
            distance_max: None,
            // So small that graphs miss something: there is something to lose.
            ef: Some(40),
            exact: false,
        })
        .collect();
    let unsettled = recall(&shard, &model, &queries);
    settle(&shard, &env);
    check_ids(&shard, &model);
    let churned = recall(&shard, &model, &queries);

    // The same data, written once, into one segment with one graph.
    let (mut fresh_env, _) = scene();
    (fresh_env.options.seal_bytes, fresh_env.options.segments_target) = (1 << 30, 1);
    let fresh = Shard::create(&fresh_env, Path::new(DIR), &spec).unwrap();
    let mut once = Model::of(spec);
    for points in model.scroll(None, usize::MAX, None).chunks(BATCH) {
        let points = points.iter().cloned().map(|p| Point { id: p.id, vectors: p.vectors, payload: p.payload });
        fresh.apply(vec![once.write(WriteOp::Upsert(Arc::new(points.collect())))]).unwrap();
    }
    settle(&fresh, &fresh_env);
    assert_eq!(fresh.stats().segments, 1);
    let written_once = recall(&fresh, &once, &queries);

    // After a restart there is the same, and in one segment, too, it is as good: more segments are searched more widely.
    shard.close();
    env.options.segments_target = 1;
    let shard = Shard::open(&env, Path::new(DIR)).unwrap();
    check_ids(&shard, &model);
    assert_eq!(recall(&shard, &model, &queries), churned);
    settle(&shard, &env);
    check_ids(&shard, &model);
    let merged = recall(&shard, &model, &queries);
    let text = format!(
        "recall@10 after rewrites {unsettled}, after the last merges {churned}, in one segment {merged}, written once \
         {written_once}"
    );
    eprintln!("{text}");
    assert!((0.95..0.9995).contains(&written_once), "{text}");
    assert!([unsettled, churned, merged].iter().all(|found| *found >= written_once - 0.005), "{text}");
}
