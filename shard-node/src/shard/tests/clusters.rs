//! Clusters of rows against the nearest centroid of each point, whatever was written, sealed, merged and restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use vicinal_common::api::{
    ClusterSample, ClusterStat, LoggedFilter, OrderValue, ScrollOrder, SearchQuery, StoredPoint, WriteOp,
};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::distance::Kernel;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{ClusteringFacts, EVALUATOR_VERSION, Filter, InClusters};
use vicinal_common::ids::{MapDigest, MapVersion};
use vicinal_common::metric::Metric;
use vicinal_common::payload::parse_fields;
use vicinal_common::point::PointId;
use vicinal_common::publish::MapRef;
use vicinal_common::tuning::Tuning;
use vicinal_common::vector::Vector;
use vicinal_routing::{CentroidMap, D1Quantiles, Flatness, MapParts, Placer, ThetaTable};

use super::super::{MapSource, Patience, Shard, ShardEnv, View};
use super::harness::{DIR, Model, Work, all_parts, create, env, filter};
use crate::node::OpenMap;
use crate::segment::Run;

const DIM: usize = 6;
const CLUSTERS: usize = 12;

/// Maps in memory.
#[derive(Default)]
struct Maps(Mutex<BTreeMap<MapDigest, Arc<OpenMap>>>);

impl MapSource for Maps {
    fn holds(&self, map: MapDigest) -> bool {
        self.0.lock().contains_key(&map)
    }

    fn open(&self, map: MapDigest) -> Result<Arc<OpenMap>> {
        self.0.lock().get(&map).cloned().ok_or_else(|| Error::NotFound("not yet".into()))
    }
}

struct Scene {
    env: ShardEnv,
    maps: Arc<Maps>,
    shard: Arc<Shard>,
    work: Work,
    model: Model,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let maps = Arc::<Maps>::default();
        let env = ShardEnv { maps: maps.clone(), ..env(FaultyDisk::new(seed)) };
        let shard = create(&env).unwrap();
        Scene { env, maps, shard, work: Work::new(seed), model: Model::default() }
    }

    fn write(&mut self, entries: usize) {
        (0..entries).for_each(|_| drop(self.work.entry(&mut self.model)));
        self.model.replay(&self.shard).unwrap();
    }

    fn settle(&self) {
        while self.shard.maintain_once().unwrap() {}
    }

    fn restart(&mut self) {
        self.shard.close();
        self.shard = Shard::open(&self.env, Path::new(DIR)).unwrap();
        self.model.replay(&self.shard).unwrap();
    }

    fn tune(&self, revision: u64, map: Option<&CentroidMap>) {
        let clustering = map.map(|map| MapRef {
            version: MapVersion(map.parts().version),
            vector: String::new(),
            digest: digest(map),
            bytes: map.encode().len() as u64,
            shards: Vec::new(),
        });
        self.shard.tune(&Tuning { revision, clustering, ..Tuning::default() }).unwrap();
    }

    fn put(&self, map: &CentroidMap) {
        let open = OpenMap { map: Arc::new(map.clone()), placer: Placer::new(Arc::new(map.clone())) };
        self.maps.0.lock().insert(digest(map), Arc::new(open));
    }

    /// How many rows are assigned without anybody asking, of how many.
    fn assigned(&self, map: &CentroidMap) -> (u64, u64) {
        let view = self.shard.view();
        let of =
            |run: &dyn Run| (run.assigned().by(digest(map)).map_or(0, |known| known.assigned()), u64::from(run.rows()));
        view.sources().map(|source| of(source.run)).fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1))
    }
}

fn digest(map: &CentroidMap) -> MapDigest {
    MapDigest::of(&map.encode())
}

fn map(seed: u64) -> CentroidMap {
    let mut random = StdRng::seed_from_u64(seed);
    CentroidMap::new(MapParts {
        version: seed,
        metric: Metric::Euclid,
        dim: DIM,
        shards: 1,
        centroids: (0..CLUSTERS * DIM).map(|_| random.random_range(-8.0..8.0f32)).collect(),
        radius: vec![1.0; CLUSTERS],
        weight: vec![1.0; CLUSTERS],
        shard_of: vec![0; CLUSTERS],
        tau: 0.05,
        copy_ratio: 0.0,
        thetas: ThetaTable::default(),
        d1: D1Quantiles::default(),
        flatness: Flatness::default(),
    })
    .unwrap()
}

/// The nearest centroid of a point and the length to it.
fn nearest(map: &CentroidMap, point: &StoredPoint) -> Option<(u32, f32)> {
    let Some(Vector::Dense(vector)) = point.vectors.get("") else { return None };
    let kernel = Kernel::new(Metric::Euclid);
    let all = (0..CLUSTERS as u32).map(|centroid| (centroid, kernel.distance(vector, map.rows().row(centroid)).sqrt()));
    all.reduce(|best, next| if next.1 < best.1 { next } else { best })
}

fn points(view: &View) -> Vec<StoredPoint> {
    view.scroll(None, 10_000, None, &all_parts()).unwrap()
}

fn by(filter: &mut Filter, map: &CentroidMap) {
    let facts = ClusteringFacts { version: MapVersion(1), map: digest(map), count: CLUSTERS, of_points: &|_| None };
    filter.fix_clusters(&facts).unwrap();
}

fn some_filter(work: &mut Work) -> Filter {
    let mut some =
        || json!({"in_clusters": (0..work.below(5)).map(|_| work.below(CLUSTERS as u64)).collect::<Vec<_>>()});
    let (a, b) = (some(), some());
    let group = json!({"key": "g", "range": {"gte": work.below(30)}});
    let id = work.below(400);
    filter(match work.below(7) {
        0 => json!({"must": [a]}),
        1 => json!({"must_not": [a]}),
        2 => json!({"should": [a, b, {"has_vector": "b"}]}),
        3 => json!({"must": [a, group]}),
        4 => json!({"must": [group], "must_not": [a, b]}),
        5 => json!({"must": [{"has_id": [id, id + 1, id + 2, id + 3, id + 5]}], "must_not": [a]}),
        _ => json!({"min_should": {"conditions": [a, b, group], "min_count": 2}}),
    })
}

/// Everything that asks for clusters, against the same by hand.
fn check(scene: &mut Scene, map: &CentroidMap) {
    let view = scene.shard.view();
    let points = points(&view);
    let clusters: BTreeMap<PointId, Option<(u32, f32)>> = points.iter().map(|p| (p.id, nearest(map, p))).collect();
    let patience = Patience::endless();

    let stats = view.cluster_stats(digest(map), &patience).unwrap();
    assert!(stats.is_ready());
    let mut expected: BTreeMap<u32, ClusterStat> = BTreeMap::new();
    for (id, (cluster, length)) in clusters.iter().filter_map(|(id, of)| Some((*id, (*of)?))) {
        let one = ClusterStat { cluster, points: 1, length_sum: length.into(), nearest_length: length, nearest: id };
        expected.entry(cluster).and_modify(|stat| *stat = stat.and(one)).or_insert(one);
    }
    assert_eq!(stats.clusters.len(), expected.len());
    for (got, expected) in stats.clusters.iter().zip(expected.values()) {
        assert!((got.length_sum - expected.length_sum).abs() < 1e-3, "{got:?} {expected:?}");
        assert_eq!(ClusterStat { length_sum: expected.length_sum, ..*got }, *expected);
    }

    for _ in 0..6 {
        let mut filter = some_filter(&mut scene.work);
        by(&mut filter, map);
        let matching: BTreeSet<PointId> = points
            .iter()
            .filter(|point| {
                let fields = parse_fields(point.payload.as_bytes()).unwrap();
                let cluster = clusters[&point.id].map(|(cluster, _)| cluster);
                let is_in = |asked: &InClusters| cluster.is_some_and(|cluster| asked.has(cluster));
                filter.matches_with(point.id, &fields, &|name| point.vectors.contains_key(name), &is_in)
            })
            .map(|point| point.id)
            .collect();
        let ids = |points: Vec<StoredPoint>| points.into_iter().map(|point| point.id).collect::<BTreeSet<_>>();
        let page = |order, filter| view.page(&order, 1_000, Some(filter), &all_parts(), &patience).unwrap();
        assert_eq!(view.count(Some(&filter)).unwrap(), matching.len() as u64, "{filter:?}");
        assert_eq!(ids(page(ScrollOrder::Id { from: None }, &filter)), matching, "{filter:?}");
        assert_eq!(ids(page(ScrollOrder::Random { seed: 3 }, &filter)), matching);
        let query = SearchQuery {
            k: 1_000,
            vector_name: String::new(),
            filter: Some(Arc::new(filter.clone())),
            distance_max: None,
            ef: None,
            exact: true,
            goal: scene.work.vector(DIM).into(),
        };
        let hits: BTreeSet<PointId> = view.search(&query).unwrap().into_iter().map(|hit| hit.id).collect();
        let with_vector = matching.iter().copied().filter(|id| clusters[id].is_some()).collect();
        assert_eq!(hits, with_vector, "{filter:?}");

        let sample = ClusterSample { seed: scene.work.below(100), map: digest(map), per_cluster: 2 };
        let limit = 1 + scene.work.below(30) as usize;
        let found = view.page(&ScrollOrder::Clusters(sample), limit, Some(&filter), &all_parts(), &patience).unwrap();
        let mut order: Vec<_> = matching.iter().filter_map(|id| Some((clusters[id]?.0, *id))).collect();
        order.sort_by_key(|(cluster, id)| (sample.cluster_key(*cluster), sample.point_key(*id)));
        let mut taken: BTreeMap<u32, u64> = BTreeMap::new();
        order.retain(|(cluster, _)| {
            let taken = taken.entry(*cluster).or_default();
            *taken += 1;
            *taken <= sample.per_cluster
        });
        order.truncate(limit);
        let expected: Vec<_> = order.iter().map(|(c, id)| (Some(OrderValue::Integer(i64::from(*c))), *id)).collect();
        assert_eq!(found.iter().map(|point| (point.order, point.id)).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn clusters_are_those_of_the_nearest_centroids_whatever_happens() {
    for seed in 1..=3 {
        let mut scene = Scene::new(seed);
        let map = map(seed);
        scene.put(&map);
        scene.tune(1, Some(&map));
        for _ in 0..60 {
            scene.write(12);
            match scene.work.below(8) {
                0 => scene.shard.flush_blocking().unwrap(),
                1 => scene.settle(),
                2 => scene.restart(),
                3..=5 => drop(scene.shard.maintain_once().unwrap()),
                _ => {}
            }
            check(&mut scene, &map);
        }
        assert!(scene.model.len() > 100);
        scene.model.check(&scene.shard);
    }
}

#[test]
fn what_was_assigned_once_stays_so_through_seals_and_merges() {
    let mut scene = Scene::new(7);
    let map = map(7);
    scene.put(&map);
    scene.tune(1, Some(&map));
    for round in 0..12 {
        scene.write(60);
        check(&mut scene, &map);
        scene.shard.flush_blocking().unwrap();
        let (assigned, rows) = scene.assigned(&map);
        assert_eq!(assigned, rows, "sealed in round {round}");
        scene.settle();
        let (assigned, rows) = scene.assigned(&map);
        assert!(rows > 0 && assigned == rows, "merged in round {round}");
    }
    assert_eq!(scene.shard.view().fresh.len(), 0);
}

#[test]
fn rows_are_assigned_in_the_background_once_the_map_is_there() {
    let mut scene = Scene::new(8);
    let map = map(8);
    scene.write(200);
    scene.shard.flush_blocking().unwrap();
    scene.tune(1, Some(&map));
    scene.settle();
    let (assigned, rows) = scene.assigned(&map);
    assert!(assigned == 0 && rows > 100);
    let mut of_one = filter(json!({"must": {"in_clusters": [1]}}));
    by(&mut of_one, &map);
    let ask = |scene: &Scene| scene.shard.view().know_clusters(Some(&of_one), &Patience::endless());
    let said = ask(&scene).unwrap_err();
    assert!(matches!(&said, Error::Unavailable(words) if words.contains("not yet")), "{said}");

    scene.put(&map);
    assert!(scene.shard.stats().optimizing);
    scene.settle();
    assert_eq!(scene.assigned(&map), (rows, rows));
    ask(&scene).unwrap();
    check(&mut scene, &map);

    scene.restart();
    assert_eq!(scene.assigned(&map).0, 0, "in memory only");
    scene.settle();
    assert_eq!(scene.assigned(&map).0, scene.assigned(&map).1);
}

#[test]
fn a_new_clustering_takes_the_place_of_the_old_one() {
    let mut scene = Scene::new(9);
    let (old, new) = (map(9), map(10));
    scene.put(&old);
    scene.put(&new);
    scene.tune(1, Some(&old));
    scene.write(150);
    scene.settle();
    check(&mut scene, &old);
    scene.tune(2, Some(&new));
    assert_eq!(scene.assigned(&old).0, 0, "its memory is given back");
    let mut by_old = filter(json!({"must": {"in_clusters": [1]}}));
    by(&mut by_old, &old);
    let view = scene.shard.view();
    let said = view.know_clusters(Some(&by_old), &Patience::endless()).unwrap_err();
    assert!(matches!(&said, Error::Unavailable(words) if words.contains("changing")), "{said}");
    let stats = view.cluster_stats(digest(&old), &Patience::endless()).unwrap();
    assert!(stats.assigned == 0 && !stats.is_ready() && stats.clusters.is_empty());
    // Whoever asks without having made sure is told, and gets nothing by half.
    assert!(matches!(view.count(Some(&by_old)), Err(Error::Unavailable(_))));
    check(&mut scene, &new);
    scene.tune(3, None);
    assert_eq!(scene.assigned(&new).0, 0);
    assert!(!scene.shard.view().cluster_stats(digest(&new), &Patience::endless()).unwrap().is_ready());
}

#[test]
fn a_filter_that_no_coordinator_has_fixed_is_refused() {
    let scene = Scene::new(11);
    let of_one = filter(json!({"must": {"in_clusters": [1]}}));
    let said = scene.shard.view().know_clusters(Some(&of_one), &Patience::endless());
    assert!(matches!(said, Err(Error::Internal(_))), "{said:?}");
}

#[test]
fn writes_by_clusters_are_refused_by_every_replica() {
    let mut scene = Scene::new(12);
    scene.write(30);
    let before = points(&scene.shard.view()).len();
    let json = json!({"must": [{"in_clusters": [1]}]}).to_string();
    let filter = LoggedFilter { evaluator: EVALUATOR_VERSION, json };
    let mut model = scene.model.clone();
    let entry = model.write(WriteOp::DeleteByFilter(filter));
    let applied = scene.shard.apply(vec![entry]).unwrap();
    let outcome = &applied[0].outcome;
    assert!(matches!(outcome, Err(Error::BadInput(words)) if words.contains("in_clusters")), "{outcome:?}");
    assert_eq!(points(&scene.shard.view()).len(), before);
}
