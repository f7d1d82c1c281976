//! Collections at the edge of what there can be: nothing, one point, equal points, zeros, one dimension, 65,536.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vicinal_common::api::{SearchQuery, ShardHit, WriteOp};
use vicinal_common::collection::HnswConfig;
use vicinal_common::disk::FaultyDisk;
use vicinal_common::limits::DIM_MAX;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};

use super::super::{Shard, ShardEnv};
use super::harness::{DIR, Model, Work, env, spec_of};

const METRICS: [Metric; 4] = [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan];

/// A collection whose graphs, when it has any, may be a little wrong, or are as right as exact search.
#[derive(Clone, Copy, PartialEq)]
enum Graphs {
    None,
    Close,
    Right,
}

struct Case {
    metric: Metric,
    dim: usize,
    vectors: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    graphs: Graphs,
}

impl Case {
    fn query(&self, vector: &[f32], k: usize, exact: bool) -> SearchQuery {
        let mut vector = vector.to_vec();
        self.metric.prepare(&mut vector);
        let (filter, distance_max, ef) = (None, None, None);
        SearchQuery { vector_name: String::new(), goal: vector.to_vec().into(), k, filter, distance_max, ef, exact }
    }

    /// Searches as the model says: exactly, and with the graphs there are.
    fn check_searches(&self, shard: &Shard, model: &Model) {
        let view = shard.view();
        for vector in &self.queries {
            for k in [0, 1, 10, self.vectors.len(), self.vectors.len() + 7] {
                let query = self.query(vector, k, true);
                let truth = model.search(&query);
                assert_eq!(view.search(&query).unwrap(), truth);
                let hits = view.search(&SearchQuery { exact: false, ..query.clone() }).unwrap();
                assert_eq!(hits.len(), truth.len(), "{:?} {} k {k}", self.metric, self.dim);
                if self.graphs != Graphs::Close || hits.len() == model.len() {
                    let bits = |hits: &[ShardHit]| hits.iter().map(|hit| hit.distance.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&hits), bits(&truth), "{:?} {} k {k}", self.metric, self.dim);
                }
                for hit in &hits {
                    assert_eq!(Some(hit), model.hit(&query, hit.id).as_ref());
                }
            }
        }
    }

    /// Upsert, seal, build, search, delete a tenth, restart: the same answers all the time.
    fn run(&self) {
        let spec = spec_of([(self.dim, self.metric), (3, Metric::Dot)], HnswConfig { m: 8, ef_construction: 40 }, 16);
        let mut env: ShardEnv = env(FaultyDisk::new(1));
        (env.options.seal_bytes, env.options.fresh_bytes_max) = (16 << 20, 64 << 20);
        let shard = Shard::create(&env, Path::new(DIR), &spec).unwrap();
        let mut model = Model::of(spec);
        let mut ids = (0..).map(PointId::Num);
        for vectors in self.vectors.chunks(500) {
            let points = vectors.iter().zip(&mut ids).map(|(vector, id)| {
                let mut vector = vector.clone();
                self.metric.prepare(&mut vector);
                Point { id, vectors: BTreeMap::from([(String::new(), vector.into())]), payload: Payload::EMPTY }
            });
            let points = points.collect();
            shard.apply(vec![model.write(WriteOp::Upsert(Arc::new(points)))]).unwrap();
        }
        self.check_searches(&shard, &model);
        self.settle(&shard, &model);
        let graphs = shard.view().segments.iter().filter(|segment| segment.indexes[0].is_some()).count();
        assert_eq!(graphs > 0, self.graphs != Graphs::None, "{:?} {}", self.metric, self.dim);

        let some = (0..self.vectors.len() as u64).filter(|id| id % 10 == 3).map(PointId::Num).collect();
        shard.apply(vec![model.write(WriteOp::Delete(some))]).unwrap();
        model.check(&shard);
        self.check_searches(&shard, &model);
        self.settle(&shard, &model);
        shard.close();
        let shard = Shard::open(&env, Path::new(DIR)).unwrap();
        model.check(&shard);
        self.check_searches(&shard, &model);

        // All of it goes, and the shard is as good as new.
        let all = (0..self.vectors.len() as u64).map(PointId::Num).collect();
        shard.apply(vec![model.write(WriteOp::Delete(all))]).unwrap();
        self.settle(&shard, &model);
        assert_eq!((shard.stats().points, shard.stats().segments), (0, 0));
        shard.close();
        model.check(&Shard::open(&env, Path::new(DIR)).unwrap());
    }

    fn settle(&self, shard: &Shard, model: &Model) {
        shard.flush_blocking().unwrap();
        let steps = (0..100).take_while(|_| shard.maintain_once().unwrap()).count();
        assert!(steps < 100, "background work does not end");
        let stats = shard.stats();
        assert_eq!((stats.failed.as_ref(), stats.fresh_rows, stats.optimizing), (None, 0, false), "{stats:?}");
        assert_eq!(stats.indexed_vectors, model.len() as u64);
        model.check(shard);
        self.check_searches(shard, model);
    }
}

fn noise(work: &mut Work, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| work.below(2_000) as f32 / 1_000.0 - 1.0).collect()
}

#[test]
fn no_point_and_one_point() {
    for metric in METRICS {
        for vectors in [vec![], vec![vec![0.5; 40]], vec![vec![0.0; 40]]] {
            let queries = vec![vec![1.0; 40], vec![0.0; 40], vec![-0.5; 40]];
            Case { metric, dim: 40, vectors, queries, graphs: Graphs::None }.run();
        }
    }
}

#[test]
fn one_point_with_a_graph() {
    for metric in METRICS {
        let mut work = Work::new(1);
        let dim = 5_000;
        let vectors = vec![noise(&mut work, dim)];
        let queries = vec![noise(&mut work, dim), vectors[0].clone(), vec![0.0; dim]];
        Case { metric, dim, vectors, queries, graphs: Graphs::Right }.run();
    }
}

#[test]
fn five_thousand_equal_points() {
    for (metric, dim) in METRICS.into_iter().flat_map(|metric| [(metric, 6), (metric, 48)]) {
        let one: Vec<f32> = (0..dim).map(|i| i as f32 - 2.5).collect();
        let queries = vec![one.clone(), vec![1.0; dim]];
        Case { metric, dim, vectors: vec![one; 5_000], queries, graphs: Graphs::Right }.run();
    }
}

#[test]
fn zeros_alone_and_among_others() {
    for (metric, dim) in METRICS.into_iter().flat_map(|metric| [(metric, 6), (metric, 48)]) {
        let mut work = Work::new(2);
        let queries = vec![vec![0.0; dim], noise(&mut work, dim), vec![1.0; dim]];
        let zeros = vec![vec![0.0; dim]; 1_000];
        let mixed = (0..1_000).map(|i| if i % 3 == 0 { vec![0.0; dim] } else { noise(&mut work, dim) }).collect();
        Case { metric, dim, vectors: zeros, queries: queries.clone(), graphs: Graphs::Right }.run();
        Case { metric, dim, vectors: mixed, queries, graphs: Graphs::Close }.run();
    }
}

#[test]
fn one_dimension() {
    for metric in METRICS {
        let mut work = Work::new(3);
        let vectors = (0..5_000).map(|_| vec![work.below(600) as f32 - 300.0]).collect();
        let queries = vec![vec![0.0], vec![-1.5], vec![250.0], vec![1e6]];
        // Cosine leaves three values, the inner product the two ends.
        Case { metric, dim: 1, vectors, queries, graphs: Graphs::Right }.run();
    }
}

#[test]
fn the_most_dimensions() {
    for metric in METRICS {
        let mut work = Work::new(4);
        let mut vectors: Vec<Vec<f32>> = (0..30).map(|_| noise(&mut work, DIM_MAX)).collect();
        // The largest sums that codes can have, and all the same.
        vectors.extend([vec![1.0; DIM_MAX], vec![-1.0; DIM_MAX], vec![0.0; DIM_MAX], vectors[3].clone()]);
        let mut queries = vec![noise(&mut work, DIM_MAX), vec![1.0; DIM_MAX], vec![-1.0; DIM_MAX]];
        queries.push(vectors[7].clone());
        Case { metric, dim: DIM_MAX, vectors, queries, graphs: Graphs::Close }.run();
    }
}
