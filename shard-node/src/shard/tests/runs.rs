//! Searches of several runs: what the first have found spares work in the next, and changes no answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use vicinal_common::api::{SearchQuery, WriteOp};
use vicinal_common::collection::HnswConfig;
use vicinal_common::disk::FaultyDisk;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};

use super::super::{Patience, Shard};
use super::harness::{DIR, Model, Work, env, filter, spec_of};

const ROWS: u64 = 3_000;

/// The work of some searches for the points of a group, whose payloads have to be read, in so many runs of equal size.
fn spent(runs: u64) -> u64 {
    let spec = spec_of([(6, Metric::Euclid), (3, Metric::Dot)], HnswConfig { m: 4, ef_construction: 16 }, 1 << 20);
    let mut env = env(FaultyDisk::new(1));
    (env.options.seal_bytes, env.options.fresh_bytes_max) = (16 << 20, 64 << 20);
    let shard = Shard::create(&env, Path::new(DIR), &spec).unwrap();
    let (mut work, mut model) = (Work::new(3), Model::of(spec));
    for run in 0..runs {
        let points = (0..ROWS).map(|n| Point {
            id: PointId::Num(run * ROWS + n),
            vectors: BTreeMap::from([(String::new(), work.vector(6).into())]),
            payload: Payload::from_fields(json!({"g": n % 20}).as_object().unwrap()).unwrap(),
        });
        let points = Arc::new(points.collect());
        shard.apply(vec![model.write(WriteOp::Upsert(points))]).unwrap();
        shard.flush_blocking().unwrap();
    }
    let view = shard.view();
    assert_eq!(view.segments.len() as u64, runs);
    let patience = Patience::endless();
    for group in 0..20 {
        let query = SearchQuery {
            vector_name: String::new(),
            goal: work.vector(6).into(),
            k: 10,
            filter: Some(Arc::new(filter(json!({"must": {"key": "g", "match": {"value": group}}})))),
            distance_max: None,
            ef: None,
            exact: true,
        };
        let hits = view.search_on(&query, 1, &patience).unwrap();
        assert_eq!((hits.len(), &hits), (10, &model.search(&query)));
        // A bound that the client gives is one from the first run on.
        let near = SearchQuery { distance_max: Some(hits[4].distance), ..query };
        assert_eq!(view.search(&near).unwrap(), model.search(&near));
    }
    patience.spent()
}

#[test]
fn the_best_hits_so_far_spare_payloads_of_later_runs() {
    let (one, four) = (spent(1), spent(4));
    eprintln!("work in one run {one}, in four {four}: {:.2} times", four as f64 / one as f64);
    // Four times as much without; the distances of all rows are a part that stays.
    assert!(four * 10 < one * 25, "{one} {four}");
}
