//! Graphs in memory and in their files: the same answers, wherever they are, and while they are moved.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vicinal_common::api::{ReplicaSpec, SearchQuery, ShardHit};
use vicinal_common::collection::HnswConfig;
use vicinal_common::disk::{Disk, FaultyDisk};
use vicinal_common::metric::Metric;
use vicinal_common::tuning::{GraphPlacement, Tuning};
use vicinal_index::Residency;

use super::super::{Background, Shard, ShardEnv, ShardOptions};
use super::harness::{DIR, Model, Work, env, env_with, spec_of};
use super::model::copy_files;

/// Graphs over codes, of both vectors.
pub(super) const VECTORS: [(usize, Metric); 2] = [(48, Metric::Euclid), (40, Metric::Cosine)];

pub(super) fn spec() -> ReplicaSpec {
    spec_of(VECTORS, HnswConfig { m: 8, ef_construction: 32 }, 4)
}

pub(super) fn scene(env: &ShardEnv, seed: u64) -> (Arc<Shard>, Work, Model) {
    (create(env), Work::of(seed, 400, VECTORS), Model::of(spec()))
}

pub(super) fn create(env: &ShardEnv) -> Arc<Shard> {
    Shard::create(env, Path::new(DIR), &spec()).unwrap()
}

/// The unnamed vector's graphs as the first says, those of `b` as the second.
fn placed(revision: u64, [unnamed, b]: [bool; 2]) -> Tuning {
    let graphs = GraphPlacement { on_disk: unnamed, vectors: [("b".to_owned(), b)].into() };
    Tuning { revision, graphs, ..Tuning::default() }
}

/// Checks that every open graph is where it shall be. Returns how many of each vector there are.
pub(super) fn check_residency(shard: &Shard) -> Vec<usize> {
    let view = shard.view();
    let mut graphs = vec![0; view.layout.vectors.len()];
    for (ordinal, index) in view.segments.iter().flat_map(|segment| segment.indexes.iter().enumerate()) {
        let Some(index) = index else { continue };
        assert_eq!(index.residency, view.wanted.residency(ordinal), "vector {ordinal}");
        graphs[ordinal] += 1;
    }
    assert!(!shard.is_misplaced(&shard.commit.lock()));
    graphs
}

fn residency(shard: &Shard) -> [Residency; 2] {
    assert!(check_residency(shard)[..2].iter().all(|graphs| *graphs > 0));
    [0, 1].map(|ordinal| shard.view().wanted.residency(ordinal))
}

fn fill(shard: &Shard, model: &mut Model, work: &mut Work) {
    (0..400).for_each(|_| drop(work.entry(model)));
    model.replay(shard).unwrap();
    shard.flush_blocking().unwrap();
}

fn queries(work: &mut Work) -> Vec<SearchQuery> {
    (0..40).map(|_| SearchQuery { exact: false, ..work.query() }).collect()
}

fn answers(shard: &Shard, queries: &[SearchQuery]) -> Vec<Vec<ShardHit>> {
    let view = shard.view();
    queries.iter().map(|query| view.search(query).unwrap()).collect()
}

const MEMORY: Residency = Residency::Memory;
const MAPPED: Residency = Residency::Mapped;

#[test]
fn graphs_are_where_they_shall_be_after_builds_restarts_and_snapshots() {
    let disk = FaultyDisk::new(1);
    let (shard, mut work, mut model) = scene(&env(disk.clone()), 1);
    shard.tune(&placed(1, [true, false])).unwrap();
    fill(&shard, &mut model, &mut work);
    while shard.maintain_once().unwrap() {}
    assert_eq!(residency(&shard), [MAPPED, MEMORY], "built");
    let queries = queries(&mut work);
    let expected = answers(&shard, &queries);
    model.check(&shard);

    let old = shard.view();
    for (revision, wanted, found) in [
        (1, [false, false], [MAPPED, MEMORY]),
        (2, [true, true], [MAPPED, MAPPED]),
        (3, [false, false], [MEMORY, MEMORY]),
        (4, [false, true], [MEMORY, MAPPED]),
    ] {
        shard.tune(&placed(revision, wanted)).unwrap();
        assert_eq!(shard.stats().optimizing, revision > 1, "an older revision changes nothing");
        assert_eq!(answers(&shard, &queries), expected, "before it is moved");
        while shard.maintain_once().unwrap() {}
        assert_eq!(residency(&shard), found, "revision {revision}");
        assert_eq!(answers(&shard, &queries), expected, "revision {revision}");
        assert!(!shard.stats().optimizing);
    }
    let of_old: Vec<_> = queries.iter().map(|query| old.search(query).unwrap()).collect();
    assert_eq!(of_old, expected, "a view that was taken before");
    drop(old);

    let snapshot = shard.snapshot().unwrap();
    for (own, found) in [(None, [MEMORY, MAPPED]), (Some(placed(9, [true, false])), [MAPPED, MEMORY])] {
        let target_env = env(FaultyDisk::new(2));
        let target = create(&target_env);
        own.iter().for_each(|own| target.tune(own).unwrap());
        let incoming = target.begin_install().unwrap();
        copy_files(&shard.env, &target_env, &snapshot, &incoming);
        target.finish_install(&snapshot.manifest).unwrap();
        assert_eq!(residency(&target), found);
        assert_eq!(answers(&target, &queries), expected);
    }
    shard.close();
    drop(shard);
    let shard = Shard::open(&env(disk), Path::new(DIR)).unwrap();
    assert_eq!((residency(&shard), shard.stats().tuning), ([MEMORY, MAPPED], 4), "opened again");
    assert_eq!(answers(&shard, &queries), expected);
}

#[test]
fn graphs_move_while_queries_run() {
    let options = ShardOptions { seal_bytes: 40_000, ..ShardOptions::default() };
    assert_eq!(options.background, Background::Pool);
    let (shard, mut work, mut model) = scene(&env_with(Arc::new(FaultyDisk::new(3)), options), 3);
    fill(&shard, &mut model, &mut work);
    let settle = |what: &str| {
        let give_up = Instant::now() + Duration::from_secs(30);
        while shard.stats().optimizing {
            assert!(Instant::now() < give_up, "{what}: {:?}", shard.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    settle("built");
    assert_eq!(residency(&shard), [MEMORY, MEMORY], "without a word");
    let queries = queries(&mut work);
    let expected = answers(&shard, &queries);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let search = || {
            let mut rounds = 0;
            while !stop.load(Ordering::Acquire) {
                assert_eq!(answers(&shard, &queries), expected);
                rounds += 1;
            }
            rounds
        };
        let readers = [scope.spawn(search), scope.spawn(search)];
        for revision in 1..=60 {
            let wanted = [revision % 2 == 1, revision % 3 == 0];
            shard.tune(&placed(revision, wanted)).unwrap();
            // Now and then the next one comes while graphs are still being moved.
            if revision % 4 > 0 {
                settle("moved");
                assert_eq!(residency(&shard), wanted.map(|mapped| if mapped { MAPPED } else { MEMORY }));
            }
        }
        settle("moved for the last time");
        stop.store(true, Ordering::Release);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 1));
    });
    assert_eq!(residency(&shard), [MEMORY, MAPPED]);
    assert_eq!(shard.stats().failed, None);
}

#[test]
fn a_file_stays_as_long_as_anything_opened_from_it_is_used() {
    let disk = FaultyDisk::new(4);
    let (shard, mut work, mut model) = scene(&env(disk.clone()), 4);
    fill(&shard, &mut model, &mut work);
    while shard.maintain_once().unwrap() {}
    let snapshot = shard.snapshot().unwrap();
    let all_there = || snapshot.files.iter().all(|file| disk.exists(&file.path).unwrap());
    shard.tune(&placed(1, [true, true])).unwrap();
    while shard.maintain_once().unwrap() {}
    // Merged with what comes, so that no segment of the snapshot is left.
    let before: Vec<u64> = shard.view().segments.iter().map(|segment| segment.number).collect();
    for _ in 0..20 {
        fill(&shard, &mut model, &mut work);
        while shard.maintain_once().unwrap() {}
    }
    assert!(shard.view().segments.iter().all(|segment| !before.contains(&segment.number)));
    assert!(all_there());
    let paths: Vec<_> = snapshot.files.iter().map(|file| file.path.clone()).collect();
    drop(snapshot);
    assert!(!paths.iter().any(|path| disk.exists(path).unwrap()));
    residency(&shard);
    model.check(&shard);
}

#[test]
fn a_damaged_file_stops_writes_and_not_searches() {
    let disk = FaultyDisk::new(5);
    let (shard, mut work, mut model) = scene(&env(disk.clone()), 5);
    fill(&shard, &mut model, &mut work);
    while shard.maintain_once().unwrap() {}
    let queries = queries(&mut work);
    let expected = answers(&shard, &queries);
    let names = disk.list(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join(names.iter().find(|name| name.ends_with(".hnsw")).unwrap());
    let mut bytes = disk.read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.remove(&path).unwrap();
    disk.create(&path).unwrap().write_at(0, &bytes).unwrap();

    shard.tune(&placed(1, [true, true])).unwrap();
    while shard.maintain_once().is_ok_and(|again| again) {}
    let failed = shard.failure().unwrap();
    assert!(failed.contains("cannot open an index again"), "{failed}");
    assert_eq!(answers(&shard, &queries), expected);
}
