//! The power is cut at every operation of a workload with sealing, merging, index building and a received snapshot.

use std::path::Path;
use std::sync::Arc;

use vicinal_common::disk::{Disk as _, Fault, FaultyDisk};
use vicinal_common::error::{Error, Result};

use super::super::{Shard, ShardEnv, ShardSnapshot};
use super::copies::{Sender, search_spec};
use super::harness::{DIR, Model, Work, create, create_of, env};
use super::model::copy_files;
use crate::manifest::Manifest;
use crate::shard::files::names_of;

const ENTRIES: usize = 220;
/// The snapshot is taken here and received after half of this.
const SNAPSHOT_AT: usize = 160;

struct Scene {
    model: Model,
    donor_env: ShardEnv,
    snapshot: ShardSnapshot,
}

fn scene() -> Scene {
    let (mut work, mut model) = (Work::new(99), Model::default());
    (0..ENTRIES).for_each(|_| drop(work.entry(&mut model)));
    scene_of(model)
}

fn search_scene() -> Scene {
    let (mut sender, mut work, mut model) = (Sender::default(), Work::new(98), Model::of(search_spec()));
    (0..ENTRIES).for_each(|_| drop(sender.entry(&mut work, &mut model)));
    scene_of(model)
}

fn scene_of(model: Model) -> Scene {
    let donor_env = env(FaultyDisk::new(1));
    let donor = create_of(&donor_env, &model.spec).unwrap();
    for chunk in model.log[..SNAPSHOT_AT].chunks(16) {
        donor.apply(chunk.to_vec()).unwrap();
        while donor.maintain_once().unwrap() {}
    }
    donor.flush_blocking().unwrap();
    while donor.maintain_once().unwrap() {}
    let snapshot = donor.snapshot().unwrap();
    Scene { model, donor_env, snapshot }
}

/// The workload. `durable` is told what the shard calls durable.
fn work(scene: &Scene, env: &ShardEnv, durable: &mut u64) -> Result<()> {
    let shard = create_of(env, &scene.model.spec)?;
    let step = |shard: &Shard, durable: &mut u64| -> Result<()> {
        let more = shard.maintain_once();
        *durable = shard.durable().map_or(*durable, |mark| mark.index.0);
        more.map(|_| ())
    };
    for chunk in scene.model.log[..SNAPSHOT_AT / 2].chunks(3) {
        shard.apply(chunk.to_vec())?;
        step(&shard, durable)?;
    }
    let incoming = shard.begin_install()?;
    install_files(scene, env, &incoming)?;
    let installed = shard.finish_install(&scene.snapshot.manifest);
    *durable = shard.durable().map_or(*durable, |mark| mark.index.0);
    installed?;
    for chunk in scene.model.log[SNAPSHOT_AT..].chunks(4) {
        shard.apply(chunk.to_vec())?;
        step(&shard, durable)?;
        step(&shard, durable)?;
    }
    shard.flush_blocking()?;
    *durable = shard.durable().map_or(*durable, |mark| mark.index.0);
    while shard.maintain_once()? {}
    scene.model.check(&shard);
    Ok(())
}

fn install_files(scene: &Scene, env: &ShardEnv, incoming: &Path) -> Result<()> {
    if env.disk.list(incoming).is_err() {
        return Err(Error::Internal("no power".into()));
    }
    for file in &scene.snapshot.files {
        let bytes = scene.donor_env.disk.read(&file.path).unwrap();
        let written = env.disk.create(&incoming.join(&file.name)).and_then(|copy| {
            copy.write_at(0, &bytes)?;
            copy.sync()
        });
        written.map_err(|e| Error::Internal(e.to_string()))?;
    }
    Ok(())
}

/// Reopens, catches up from the log, and compares; then once more after all background work.
fn check_recovery(scene: &Scene, env: &ShardEnv, durable: u64) {
    let shard = create_of(env, &scene.model.spec).unwrap();
    let found = shard.applied().map_or(0, |mark| mark.index.0);
    assert!(found >= durable, "{durable} was durable, {found} is there");
    let manifest = Manifest::load(&*env.disk, Path::new(DIR)).unwrap();
    let files = env.disk.list(Path::new(DIR)).unwrap();
    assert_eq!(files, names_of(&manifest).into_iter().collect::<Vec<_>>());
    scene.model.replay(&shard).unwrap();
    scene.model.check(&shard);
    shard.flush_blocking().unwrap();
    while shard.maintain_once().unwrap() {}
    scene.model.check(&shard);
    assert_eq!(shard.stats().failed, None);
    shard.close();
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing() {
    cut_everywhere(&scene(), 4);
}

#[test]
fn a_power_cut_at_any_operation_of_a_search_shard_loses_nothing() {
    cut_everywhere(&search_scene(), 1);
}

fn cut_everywhere(scene: &Scene, seeds: u64) {
    let disk = FaultyDisk::new(0);
    let mut durable = 0;
    work(scene, &env(disk.clone()), &mut durable).unwrap();
    assert_eq!(durable, ENTRIES as u64);
    let total = disk.operations();
    assert!(total > 200, "the workload has only {total} operations");
    let files = disk.list(Path::new(DIR)).unwrap();
    assert!(files.iter().any(|name| name.ends_with(".hnsw")), "{files:?}");
    assert!(scene.snapshot.files.iter().any(|file| file.name.ends_with(".hnsw")));
    // What a cut leaves of unsynced names and bytes is drawn from the seed.
    for (cut, seed) in (0..total).flat_map(|cut| (0..seeds).map(move |seed| (cut, seed))) {
        let disk = FaultyDisk::new(cut << 8 | seed);
        let env = env(disk.clone());
        disk.inject(Fault::Cut { operations: cut }).unwrap();
        let mut durable = 0;
        // The last operations may be the removal of old files, of which a failure does not matter.
        let _ = work(scene, &env, &mut durable);
        assert!(disk.is_off(), "cut {cut} did not hit");
        disk.reboot();
        check_recovery(scene, &env, durable);
    }
}

#[test]
fn a_failed_sync_stops_the_shard_and_loses_nothing() {
    let scene = scene();
    let disk = FaultyDisk::new(0);
    work(&scene, &env(disk.clone()), &mut 0).unwrap();
    for sync in 0..disk.syncs() {
        let disk = FaultyDisk::new(sync);
        let env = env(disk.clone());
        disk.inject(Fault::SyncError { syncs: sync }).unwrap();
        let mut durable = 0;
        work(&scene, &env, &mut durable).unwrap_err();
        disk.reboot();
        check_recovery(&scene, &env, durable);
    }
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let scene = scene();
    for (i, file) in scene.snapshot.files.iter().enumerate() {
        let disk = FaultyDisk::new(i as u64);
        let env = env(disk.clone());
        let shard = create(&env).unwrap();
        shard.apply(scene.model.log[..50].to_vec()).unwrap();
        let incoming = shard.begin_install().unwrap();
        copy_files(&scene.donor_env, &env, &scene.snapshot, &incoming);
        let path = incoming.join(&file.name);
        disk.inject(Fault::BitFlip { path, offset: file.bytes / 2, bit: 3 }).unwrap();
        let before = shard.view().scroll(None, usize::MAX, None, &super::harness::all_parts()).unwrap();
        assert!(matches!(shard.finish_install(&scene.snapshot.manifest), Err(Error::Corrupt(_))));
        assert_eq!(shard.view().scroll(None, usize::MAX, None, &super::harness::all_parts()).unwrap(), before);
        // The shard goes on, and takes the next one.
        let incoming = shard.begin_install().unwrap();
        copy_files(&scene.donor_env, &env, &scene.snapshot, &incoming);
        shard.finish_install(&scene.snapshot.manifest).unwrap();
        scene.model.replay(&shard).unwrap();
        scene.model.check(&shard);
        let older = Arc::clone(&shard).finish_install(&scene.snapshot.manifest);
        assert!(matches!(older, Err(Error::BadInput(_))), "an older snapshot is refused");
    }
}
