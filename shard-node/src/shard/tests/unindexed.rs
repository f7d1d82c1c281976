//! Home shards without the graphs that search shards have for them: dropped, not built, and built again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vicinal_common::api::SearchQuery;
use vicinal_common::collection::HnswConfig;
use vicinal_common::disk::{Disk, Fault, FaultyDisk};
use vicinal_common::error::{Error, Result};
use vicinal_common::publish::ShardRole;
use vicinal_common::tuning::Tuning;

use super::super::{Background, Patience, Shard, ShardEnv, ShardOptions};
use super::harness::{DIR, Model, Work, env, env_with, spec_of};
use super::model::copy_files;
use super::tuning::{VECTORS, create, scene, spec};

fn without(revision: u64, vectors: &[&str]) -> Tuning {
    let unindexed = vectors.iter().map(|name| (*name).to_owned()).collect();
    Tuning { revision, unindexed, ..Tuning::default() }
}

fn fill(shard: &Shard, model: &mut Model, work: &mut Work) {
    (0..400).for_each(|_| drop(work.entry(model)));
    model.replay(shard).unwrap();
    shard.flush_blocking().unwrap();
}

fn settle(shard: &Shard) {
    while shard.maintain_once().unwrap() {}
    let stats = shard.stats();
    assert!(!stats.optimizing && stats.waiting_vectors == 0 && stats.indexed_vectors > 0, "{stats:?}");
}

/// Graphs of the two vectors in the newest view; their files are all there are.
fn graphs(shard: &Shard) -> [usize; 2] {
    let view = shard.view();
    let of = |ordinal: usize| view.segments.iter().filter(|segment| segment.indexes[ordinal].is_some()).count();
    let graphs = [of(0), of(1)];
    let names = shard.env.disk.list(Path::new(DIR)).unwrap();
    assert_eq!(names.iter().filter(|name| name.ends_with(".hnsw")).count(), graphs.iter().sum::<usize>(), "{names:?}");
    graphs
}

fn queries(work: &mut Work) -> Vec<SearchQuery> {
    (0..40)
        .map(|_| SearchQuery { vector_name: String::new(), ..work.query() })
        .filter(|q| {
            q.goal.nearest().is_some_and(|vector| vector.dense().is_some_and(|values| values.len() == VECTORS[0].0))
        })
        .collect()
}

#[test]
fn graphs_go_and_come_again_and_answers_stay_right() {
    let disk = FaultyDisk::new(1);
    let (shard, mut work, mut model) = scene(&env(disk.clone()), 1);
    fill(&shard, &mut model, &mut work);
    settle(&shard);
    assert!(graphs(&shard).iter().all(|graphs| *graphs > 0));
    let before = shard.stats();

    let old = shard.view();
    shard.tune(&without(1, &[""])).unwrap();
    assert!(shard.stats().optimizing, "there is something to drop");
    assert_eq!(shard.stats().waiting_vectors, 0, "nobody waits for what is not wanted");
    // Searches of before use them on, and keep the files.
    assert!(shard.maintain_once().unwrap());
    assert_eq!(shard.view().segments.iter().filter(|segment| segment.indexes[0].is_some()).count(), 0);
    let named = |segment: &str| disk.list(Path::new(DIR)).unwrap().iter().any(|name| name == segment);
    let old_files: Vec<String> = old
        .segments
        .iter()
        .filter_map(|segment| segment.indexes[0].as_ref())
        .map(|graph| graph.file.path().file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(!old_files.is_empty() && old_files.iter().all(|name| named(name)));
    // Wanted again meanwhile: of the same segments, in other files.
    shard.tune(&without(2, &[])).unwrap();
    assert!(shard.stats().waiting_vectors > 0);
    settle(&shard);
    drop(old);
    assert!(!old_files.iter().any(|name| named(name)));
    assert!(graphs(&shard).iter().all(|graphs| *graphs > 0));

    shard.tune(&without(3, &["", "never"])).unwrap();
    settle(&shard);
    let [none, some] = graphs(&shard);
    assert!(none == 0 && some > 0);
    let after = shard.stats();
    assert_eq!(after.indexed_vectors, before.indexed_vectors, "those that are scanned by design count");
    assert!(after.disk_bytes < before.disk_bytes, "{} {}", after.disk_bytes, before.disk_bytes);
    let queries = queries(&mut work);
    for query in &queries {
        assert_eq!(shard.view().search(&SearchQuery { exact: false, ..query.clone() }).unwrap(), model.search(query));
    }
    // None is built of what comes.
    for _ in 0..5 {
        fill(&shard, &mut model, &mut work);
        settle(&shard);
        assert_eq!(graphs(&shard)[0], 0);
    }
    model.check(&shard);
    shard.close();
    drop(shard);
    let shard = Shard::open(&env(disk.clone()), Path::new(DIR)).unwrap();
    assert_eq!(graphs(&shard)[0], 0, "opened again");
    settle(&shard);
    shard.tune(&without(4, &[])).unwrap();
    settle(&shard);
    assert!(graphs(&shard).iter().all(|graphs| *graphs > 0));
    model.check(&shard);
}

#[test]
fn search_shards_keep_their_graphs() {
    let search = super::copies::search_spec();
    let env = env(FaultyDisk::new(2));
    let shard = Shard::create(&env, Path::new(DIR), &search).unwrap();
    let names: Vec<&str> = search.schema.vectors.keys().map(String::as_str).collect();
    shard.tune(&without(1, &names)).unwrap();
    assert_eq!(search.role, ShardRole::Search);
    let view = shard.view();
    assert!((0..names.len()).all(|ordinal| view.wanted.wants_graph(ordinal)));
    assert_eq!(shard.policy(&view.wanted), shard.policy);
}

#[test]
fn a_snapshot_is_taken_without_what_is_not_wanted_here() {
    let (donor, mut work, mut model) = scene(&env(FaultyDisk::new(3)), 3);
    fill(&donor, &mut model, &mut work);
    settle(&donor);
    let with_graphs = donor.snapshot().unwrap();
    donor.tune(&without(7, &[""])).unwrap();
    settle(&donor);
    let without_graphs = donor.snapshot().unwrap();
    for (own, snapshot, expected) in [
        // The donor has not heard of it yet.
        (Some(without(8, &[""])), &with_graphs, false),
        (None, &without_graphs, false),
        (Some(without(8, &[])), &without_graphs, true),
        (None, &with_graphs, true),
    ] {
        let target_env = env(FaultyDisk::new(4));
        let target = create(&target_env);
        own.iter().for_each(|own| target.tune(own).unwrap());
        let incoming = target.begin_install().unwrap();
        copy_files(&donor.env, &target_env, snapshot, &incoming);
        target.finish_install(&snapshot.manifest).unwrap();
        if !expected {
            assert_eq!(graphs(&target)[0], 0, "neither opened nor moved");
        }
        settle(&target);
        assert_eq!(graphs(&target)[0] > 0, expected);
        model.replay(&target).unwrap();
        model.check(&target);
        target.close();
        drop(target);
        let target = Shard::open(&target_env, Path::new(DIR)).unwrap();
        assert_eq!(graphs(&target)[0] > 0, expected);
        model.check(&target);
    }
}

/// Drops graphs, builds them again, and drops them, with writes in between.
fn switches(model: &Model, env: &ShardEnv) -> Result<()> {
    let shard = Shard::create(env, Path::new(DIR), &spec())?;
    for (revision, part) in (1..).zip(model.log.chunks(model.log.len().div_ceil(3))) {
        shard.apply(part.to_vec())?;
        shard.flush_blocking()?;
        while shard.maintain_once()? {}
        shard.tune(&without(revision, if revision % 2 == 1 { &[""] } else { &[] }))?;
        while shard.maintain_once()? {}
    }
    Ok(())
}

#[test]
fn a_power_cut_at_any_moment_of_a_switch_loses_nothing() {
    let (mut work, mut model) = (Work::of(5, 60, VECTORS), Model::of(spec()));
    (0..60).for_each(|_| drop(work.entry(&mut model)));
    let disk = FaultyDisk::new(0);
    switches(&model, &env(disk.clone())).unwrap();
    let total = disk.operations();
    let mut found = [0; 2];
    for cut in 0..total {
        let disk = FaultyDisk::new(cut);
        let env = env(disk.clone());
        disk.inject(Fault::Cut { operations: cut }).unwrap();
        let _ = switches(&model, &env);
        assert!(disk.is_off(), "cut {cut} did not hit");
        disk.reboot();
        let shard = create(&env);
        let is_unindexed = shard.view().tuning().unindexed.contains("");
        found[usize::from(is_unindexed)] += 1;
        assert!(!is_unindexed || graphs(&shard)[0] == 0, "cut {cut}");
        model.replay(&shard).unwrap();
        model.check(&shard);
        // Once more before anything is committed: what is gone is not missed.
        shard.close();
        drop(shard);
        let shard = create(&env);
        model.replay(&shard).unwrap();
        shard.tune(&without(9, &[])).unwrap();
        shard.flush_blocking().unwrap();
        settle(&shard);
        assert!(graphs(&shard)[0] > 0, "cut {cut}");
        model.check(&shard);
        shard.tune(&without(10, &[""])).unwrap();
        settle(&shard);
        assert_eq!((graphs(&shard)[0], shard.stats().failed), (0, None));
    }
    assert!(found.iter().all(|times| *times > 10), "{found:?} of {total}");
}

#[test]
fn a_build_that_is_not_wanted_any_more_is_ended() {
    let options = ShardOptions { seal_bytes: 4 << 20, ..ShardOptions::default() };
    assert_eq!(options.background, Background::Pool);
    let env = env_with(Arc::new(FaultyDisk::new(6)), options);
    let spec = spec_of(VECTORS, HnswConfig { m: 32, ef_construction: 400 }, 4);
    let shard = Shard::create(&env, Path::new(DIR), &spec).unwrap();
    let (mut work, mut model) = (Work::of(6, 100_000, VECTORS), Model::of(spec));
    (0..2_000).for_each(|_| drop(work.entry(&mut model)));
    model.replay(&shard).unwrap();
    shard.flush_blocking().unwrap();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < give_up, "{what}: {:?}", shard.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    shard.schedule_optimizer(Duration::ZERO);
    until("a build begins", &|| shard.stats().builds.iter().any(|build| build.vector.is_empty()));
    shard.tune(&without(1, &["", "b"])).unwrap();
    until("it ends", &|| !shard.stats().optimizing);
    assert_eq!(graphs(&shard), [0, 0]);
    assert_eq!(shard.stats().failed, None);
    shard.tune(&without(2, &[])).unwrap();
    until("another one begins", &|| !shard.stats().builds.is_empty());
    shard.close();
    assert_eq!(shard.stats().failed, None);
}

#[test]
fn scans_end_with_the_time() {
    let (shard, mut work, mut model) = scene(&env(FaultyDisk::new(7)), 7);
    shard.tune(&without(1, &[""])).unwrap();
    fill(&shard, &mut model, &mut work);
    settle(&shard);
    let late = Patience::until(tokio::time::Instant::now() - Duration::from_secs(1));
    let query = SearchQuery { filter: None, k: 5, exact: false, ..queries(&mut work).remove(0) };
    let view = shard.view();
    // Work is counted, and the clock looked at every few milliseconds of it.
    let ended = (0..100_000).find_map(|_| view.search_on(&query, 1, &late).err());
    assert!(matches!(ended, Some(Error::Timeout(_))), "{ended:?}");
    assert!(view.search_on(&query, 1, &late).is_err(), "from then on");
    assert!(view.search_on(&query, 1, &Patience::endless()).is_ok());
}
