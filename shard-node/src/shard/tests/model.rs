//! Random work on one shard against the model: sealing, merging, index building, restarts and snapshots all the time.

use std::path::Path;
use std::sync::Arc;

use vicinal_common::api::{ReplicaSpec, SearchQuery};
use vicinal_common::collection::HnswConfig;
use vicinal_common::disk::{Disk, FaultyDisk};
use vicinal_common::metric::Metric;
use vicinal_common::publish::ShardRole;
use vicinal_common::tuning::{GraphPlacement, Tuning};
use vicinal_index::hnsw::Over;

use super::super::{Patience, Shard, ShardEnv, ShardOptions, View};
use super::copies::{Sender, search_spec};
use super::feed::{DeathWatch, check_publishing};
use super::harness::{DIR, Model, Work, all_parts, env, env_with, spec, spec_of};
use super::tuning::check_residency;

/// What searches that need not be exact have found.
#[derive(Default)]
pub(super) struct Recall {
    /// Searches of which at least one run had a graph, and how many of these were over codes.
    graphs: [usize; 2],
    wanted: usize,
    found: usize,
}

impl Recall {
    pub(super) fn value(&self) -> f64 {
        self.found as f64 / self.wanted.max(1) as f64
    }

    /// Searches without asking for an exact answer. Whatever is found must be alive, match, have its exact distance and
    /// be there once; only what is missing may differ from the truth.
    pub(super) fn check(&mut self, query: &SearchQuery, view: &View, model: &Model) {
        let query = SearchQuery { exact: false, ..query.clone() };
        let hits = view.search(&query).unwrap();
        assert!(hits.is_sorted_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)).is_lt()), "{query:?}");
        let mut ids: Vec<_> = hits.iter().map(|hit| hit.id).collect();
        ids.sort_unstable();
        assert!(ids.is_sorted_by(|a, b| a < b), "an id twice: {query:?}");
        for hit in &hits {
            assert_eq!(Some(hit), model.hit(&query, hit.id).as_ref(), "{query:?}");
        }
        let truth = model.search(&query);
        if query.goal.nearest().is_none() {
            // Graphs are for distances: what is found of other goals is right, and as much, but not necessarily the best.
            assert!(hits.len() == truth.len() || query.distance_max.is_some() && hits.len() < truth.len(), "{query:?}");
            return;
        }
        // Beyond a largest distance the graph may have found others than those that are near enough.
        assert!(hits.len() == truth.len() || query.distance_max.is_some() && hits.len() < truth.len(), "{query:?}");
        if let Some(farthest) = truth.last() {
            self.found += hits.iter().filter(|hit| hit.distance <= farthest.distance).count();
        }
        self.wanted += truth.len();
        let ordinal = view.layout.ordinal(&query.vector_name).unwrap();
        let mut graphs = view.segments.iter().filter_map(|segment| segment.indexes[ordinal].as_ref()).peekable();
        self.graphs[0] += usize::from(graphs.peek().is_some());
        self.graphs[1] += usize::from(graphs.any(|graph| graph.hnsw.params().over == Over::Codes));
    }
}

fn read_randomly(work: &mut Work, model: &Model, shard: &Shard, recall: &mut Recall) {
    let view = shard.view();
    match work.below(6) {
        5 => check_publishing(work, &view, model),
        0 => {
            let query = work.query();
            assert_eq!(view.search(&query).unwrap(), model.search(&query), "{query:?}");
            recall.check(&query, &view, model);
        }
        1 => {
            let filter = (work.below(2) == 0).then(|| work.filter());
            let from = (work.below(2) == 0).then(|| work.id());
            let limit = work.below(40) as usize;
            let page = view.scroll(from, limit, filter.as_ref(), &all_parts()).unwrap();
            assert_eq!(page, model.scroll(from, limit, filter.as_ref()));
        }
        2 => {
            let filter = work.filter();
            assert_eq!(view.count(Some(&filter)).unwrap(), model.count(&filter));
        }
        3 => {
            let filter = (work.below(2) == 0).then(|| work.filter());
            let (order, limit) = (work.order(), work.below(40) as usize);
            let page = view.page(&order, limit, filter.as_ref(), &all_parts(), &Patience::endless()).unwrap();
            assert_eq!(page, model.page(&order, limit, filter.as_ref()), "{order:?}");
            assert_eq!(view.facet("g", filter.as_ref(), &Patience::endless()).unwrap(), model.facet(filter.as_ref()));
            let indices: Vec<u32> = (0..40).step_by(3).map(|i| i * 1_000_003).collect();
            let frequencies = view.frequencies("s", &indices, filter.as_ref(), &Patience::endless()).unwrap();
            assert_eq!(frequencies, model.frequencies(&indices, filter.as_ref()));
        }
        _ => {
            let ids: Vec<_> = (0..5).map(|_| work.id()).collect();
            let expected: Vec<_> = ids.iter().flat_map(|id| model.scroll(Some(*id), 1, None)).collect();
            let expected: Vec<_> = expected.into_iter().filter(|point| ids.contains(&point.id)).collect();
            let found = view.retrieve(&ids, &all_parts()).unwrap();
            let again: Vec<_> = ids.iter().filter_map(|id| expected.iter().find(|p| p.id == *id).cloned()).collect();
            assert_eq!(found, again);
        }
    }
}

/// Sends a snapshot to a new replica and lets it catch up from the log.
fn check_snapshot(course: &Course, model: &Model, shard: &Shard, seed: u64) {
    let Ok(snapshot) = shard.snapshot() else { return };
    let target_env = course.env(FaultyDisk::new(seed));
    let target = course.create(&target_env);
    // It had data of its own before.
    let before = (snapshot.mark.index.0 as usize / 2).min(1_000);
    target.apply(model.log[..before].to_vec()).unwrap();
    let incoming = target.begin_install().unwrap();
    copy_files(&shard.env, &target_env, &snapshot, &incoming);
    target.finish_install(&snapshot.manifest).unwrap();
    assert_eq!(target.applied(), Some(snapshot.mark.clone()));
    assert_eq!(target.durable(), Some(snapshot.mark.clone()));
    model.replay(&target).unwrap();
    model.check(&target);
    target.close();
    let target = Shard::open(&target_env, Path::new(DIR)).unwrap();
    model.replay(&target).unwrap();
    model.check(&target);
}

pub(super) fn copy_files(from: &ShardEnv, to: &ShardEnv, snapshot: &super::super::ShardSnapshot, incoming: &Path) {
    for file in &snapshot.files {
        let bytes = from.disk.read(&file.path).unwrap();
        assert_eq!((bytes.len() as u64, crc32fast::hash(&bytes)), (file.bytes, file.crc));
        let copy = to.disk.create(&incoming.join(&file.name)).unwrap();
        copy.write_at(0, &bytes).unwrap();
        copy.sync().unwrap();
    }
}

/// What is run: which shard, which points, for how long.
struct Course {
    spec: ReplicaSpec,
    ids: u64,
    seal_bytes: u64,
    operations: usize,
}

impl Course {
    /// A search shard.
    fn search(operations: usize) -> Course {
        Course { spec: search_spec(), ..Course::small(operations) }
    }

    /// Few points of few dimensions, so that they meet often.
    fn small(operations: usize) -> Course {
        Course { spec: spec(), ids: 400, seal_bytes: 4_000, operations }
    }

    /// Points of so many dimensions that graphs are over 8-bit codes, in segments large enough for such graphs.
    fn wide(operations: usize) -> Course {
        let vectors = [(48, Metric::Euclid), (40, Metric::Cosine)];
        let spec = spec_of(vectors, HnswConfig { m: 8, ef_construction: 48 }, 24);
        Course { spec, ids: 1_000, seal_bytes: 80_000, operations }
    }

    fn env(&self, disk: FaultyDisk) -> ShardEnv {
        let options = ShardOptions { seal_bytes: self.seal_bytes, ..env(disk.clone()).options };
        env_with(Arc::new(disk), options)
    }

    fn create(&self, env: &ShardEnv) -> Arc<Shard> {
        Shard::create(env, Path::new(DIR), &self.spec).unwrap()
    }

    fn work(&self, seed: u64) -> Work {
        let vectors = ["", "b"].map(|name| &self.spec.schema.vectors[name]);
        Work::of(seed, self.ids, vectors.map(|vector| (vector.dim, vector.metric)))
    }
}

fn run(course: &Course, seed: u64) -> Recall {
    let (operations, mut recall) = (course.operations, Recall::default());
    let disk = FaultyDisk::new(seed);
    let env = course.env(disk.clone());
    let mut work = course.work(seed);
    let mut model = Model::of(course.spec.clone());
    let mut shard = course.create(&env);
    let (mut sealed, mut most_segments) = (0, 0);
    let mut tuning = Tuning::default();
    let mut sender = Sender::default();
    let mut deaths = DeathWatch::begin(&shard, &model);
    for operation in 0..operations {
        match work.below(100) {
            0..50 => {
                let first = model.log.len();
                let entries: Vec<_> = (0..1 + work.below(4))
                    .map(|_| match course.spec.role {
                        ShardRole::Home => work.entry(&mut model),
                        ShardRole::Search => sender.entry(&mut work, &mut model),
                    })
                    .collect();
                assert_eq!(shard.apply(entries).unwrap(), model.outcomes[first..]);
            }
            50..75 => {
                read_randomly(&mut work, &model, &shard, &mut recall);
                if operation % 9 == 0 && course.spec.role == ShardRole::Home {
                    deaths.check(&shard, &model);
                }
            }
            75..95 => {
                let before = shard.durable();
                shard.maintain_once().unwrap();
                sealed += usize::from(shard.durable() != before);
            }
            95 if operation % 5 > 0 => shard.request_flush(),
            96 if operation % 5 > 0 => {
                shard.flush_blocking().unwrap();
                assert_eq!(shard.durable(), shard.applied());
            }
            97 if operation % 7 == 0 => check_snapshot(course, &model, &shard, seed ^ operation as u64),
            95 | 96 if operation % 5 == 0 => {
                tuning.revision += 1;
                tuning.payload_indexes = work.payload_fields();
                let own = (work.below(2) == 0).then(|| ("b".to_owned(), work.below(2) == 0));
                tuning.graphs = GraphPlacement { on_disk: work.below(2) == 0, vectors: own.into_iter().collect() };
                tuning.unindexed =
                    ["", "b"].iter().filter(|_| work.below(6) == 0).map(|name| (*name).to_owned()).collect();
                shard.tune(&tuning).unwrap();
            }
            97 | 98 => {
                let durable = shard.durable();
                let view = shard.view();
                shard.close();
                drop(shard);
                shard = course.create(&env);
                assert_eq!(shard.applied(), durable);
                deaths = DeathWatch::begin(&shard, &model);
                assert_eq!(view.scroll(None, 1, None, &all_parts()).unwrap(), model.scroll(None, 1, None));
                model.replay(&shard).unwrap();
                model.check(&shard);
            }
            _ => model.check(&shard),
        }
        most_segments = most_segments.max(shard.stats().segments);
    }
    for names in [&["", "b"][..], &[]] {
        tuning.revision += 1;
        tuning.unindexed = names.iter().map(|name| (*name).to_owned()).collect();
        shard.tune(&tuning).unwrap();
        while shard.maintain_once().unwrap() {}
        model.check(&shard);
        let is_none = disk.list(Path::new(DIR)).unwrap().iter().all(|name| !name.ends_with(".hnsw"));
        let expected = !names.is_empty() && course.spec.role == ShardRole::Home;
        // Search shards do not listen.
        assert_eq!(is_none, expected, "graphs of {names:?} are not wanted");
    }
    if course.spec.role == ShardRole::Home {
        deaths.check(&shard, &model);
    }
    // Deaths that nobody takes keep the files of their rows.
    shard.watch_deaths(false);
    assert!(sealed > operations / 50, "sealed {sealed} times");
    assert!(most_segments > 3 && shard.stats().segments <= 4);
    let stats = shard.stats();
    assert_eq!((stats.tuning, stats.payload.missing), (tuning.revision, 0));
    check_residency(&shard);
    let files = disk.list(Path::new(DIR)).unwrap();
    let graphs = files.iter().filter(|name| name.ends_with(".hnsw")).count();
    let segments = files.iter().filter(|name| name.ends_with(".seg")).count();
    let fields = files.iter().filter(|name| name.ends_with(".pidx")).count();
    assert!(graphs > 0, "{files:?}");
    assert_eq!(fields, segments * tuning.payload_indexes.len(), "{files:?}");
    assert_eq!((files.len(), segments as u64), (graphs + segments + fields + 2, shard.stats().segments), "{files:?}");
    drop(Arc::clone(&shard));
    recall
}

/// More work than by default: so many times as much, with other seeds.
const TIMES: &str = "MODEL_TIMES";

fn times() -> u64 {
    std::env::var(TIMES).map_or(1, |text| text.parse().expect("a whole number"))
}

#[test]
fn equals_the_model_over_60_000_operations() {
    for seed in 0..times() {
        let recall = run(&Course::small(60_000), 1 + 100 * seed);
        assert!(recall.graphs[0] > 500, "{:?}", recall.graphs);
        assert!(recall.value() >= 0.95, "recall {}", recall.value());
    }
}

#[test]
fn equals_the_model_over_40_000_operations_with_graphs_over_codes() {
    for seed in 0..times() {
        let recall = run(&Course::wide(40_000), 51 + 100 * seed);
        assert!(recall.graphs[1] > 500, "{:?}", recall.graphs);
        assert!(recall.value() >= 0.95, "recall {}", recall.value());
    }
}

#[test]
fn equals_the_model_over_30_000_operations_of_a_search_shard() {
    for seed in 0..times() {
        let recall = run(&Course::search(30_000), 71 + 100 * seed);
        assert!(recall.value() >= 0.95, "recall {}", recall.value());
    }
}

#[test]
fn equals_the_model_with_other_seeds() {
    for seed in 2..8 {
        run(&Course::small(1_500), seed);
        run(&Course::search(1_500), seed);
    }
}
