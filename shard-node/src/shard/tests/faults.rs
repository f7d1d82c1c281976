//! Full disks, damaged files, panicking workers, other shards' directories.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vicinal_common::disk::{Disk, Fault, FaultyDisk};
use vicinal_common::error::Error;
use vicinal_common::ids::ShardId;

use super::super::write::FailOnPanic;
use super::super::{Background, Shard, ShardOptions};
use super::harness::{DIR, Model, Work, create, env, env_with, spec};

fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn filled(entries: usize) -> Model {
    let mut work = Work::new(entries as u64);
    let mut model = Model::default();
    for _ in 0..entries {
        work.entry(&mut model);
    }
    model
}

#[test]
fn a_full_disk_makes_it_read_only_until_there_is_room() {
    let model = filled(300);
    let disk = FaultyDisk::new(5);
    let options = ShardOptions { seal_bytes: 4_000, ..ShardOptions::default() };
    let env = env_with(Arc::new(disk.clone()), options);
    let shard = create(&env).unwrap();
    disk.inject(Fault::Full { bytes: 2_000 }).unwrap();
    model.replay(&shard).unwrap();
    until("it is read-only", || shard.stats().read_only.is_some());
    let refused = shard.admit().unwrap_err();
    assert!(matches!(&refused, Error::Unavailable(text) if text.contains("disk is full")), "{refused}");
    model.check(&shard);
    assert_eq!(shard.stats().failed, None);
    let files = disk.list(Path::new(DIR)).unwrap();
    assert!(files.iter().all(|name| !name.ends_with(".tmp")), "{files:?}");
    disk.lift_full();
    until("it heals", || shard.admit().is_ok() && shard.durable().is_some());
    shard.flush_blocking().unwrap();
    until("the optimizer is done", || !shard.stats().optimizing);
    model.check(&shard);
    shard.close();
    let shard = Shard::open(&env, Path::new(DIR)).unwrap();
    assert_eq!(shard.durable().map(|mark| mark.index.0), Some(300));
    model.check(&shard);
}

#[test]
fn a_panic_while_applying_is_the_end_of_writes_not_of_reads() {
    let model = filled(50);
    let shard = create(&env(FaultyDisk::new(6))).unwrap();
    model.replay(&shard).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = FailOnPanic(&shard);
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    assert!(shard.failure().unwrap().contains("panicked"));
    assert!(shard.apply(Vec::new()).is_err());
    assert!(shard.flush_blocking().is_err(), "nothing of it becomes durable");
    model.check(&shard);
}

#[test]
fn a_merge_without_room_is_put_off_and_writes_go_on() {
    let model = filled(400);
    let disk = FaultyDisk::new(5);
    let env = env(disk.clone());
    let shard = create(&env).unwrap();
    for (i, entry) in model.log.iter().enumerate() {
        shard.apply(vec![entry.clone()]).unwrap();
        if i % 40 == 39 {
            shard.flush_blocking().unwrap();
        }
    }
    let used: u64 = shard.stats().disk_bytes;
    disk.inject(Fault::Full { bytes: used + 8_000 }).unwrap();
    assert!(matches!(shard.maintain_once(), Err(Error::Unavailable(_))));
    assert!(shard.admit().is_ok());
    let stats = shard.stats();
    assert!(stats.optimizing && stats.failed.is_none() && stats.read_only.is_none(), "{stats:?}");
    model.check(&shard);
    disk.lift_full();
    while shard.maintain_once().unwrap() {}
    assert!(shard.stats().segments <= 4);
    model.check(&shard);
}

#[test]
fn too_much_unsealed_data_is_refused_before_it_is_proposed() {
    let model = filled(600);
    let mut env = env(FaultyDisk::new(1));
    env.options.fresh_bytes_max = 8_000;
    let shard = create(&env).unwrap();
    assert!(shard.admit().is_ok());
    model.replay(&shard).unwrap();
    assert!(matches!(shard.admit(), Err(Error::Overloaded(_))));
    while shard.maintain_once().unwrap() {}
    assert!(shard.admit().is_ok());
    model.check(&shard);
}

#[test]
fn a_panicking_worker_is_not_silent() {
    let model = filled(300);
    let options = ShardOptions { seal_bytes: 1_000, background: Background::Pool, ..ShardOptions::default() };
    let shard = create(&env_with(Arc::new(FaultyDisk::new(1)), options)).unwrap();
    shard.on_durable(Box::new(|_| panic!("on purpose")));
    model.replay(&shard).ok();
    until("it has failed", || shard.stats().failed.is_some());
    assert!(shard.stats().failed.unwrap().contains("on purpose"));
    assert!(matches!(shard.admit(), Err(Error::Unavailable(_))));
    assert!(shard.apply(Vec::new()).is_err());
    assert!(shard.view().count(None).is_ok());
}

#[test]
fn any_damaged_byte_on_disk_is_noticed() {
    let model = filled(150);
    let disk = FaultyDisk::new(1);
    let env = env(disk.clone());
    let shard = create(&env).unwrap();
    model.replay(&shard).unwrap();
    shard.flush_blocking().unwrap();
    while shard.maintain_once().unwrap() {}
    shard.close();
    drop(shard);
    let files = disk.list(Path::new(DIR)).unwrap();
    assert!(files.iter().any(|name| name.ends_with(".seg")) && files.iter().any(|name| name.ends_with(".hnsw")));
    for name in files {
        let path = Path::new(DIR).join(&name);
        let bytes = disk.read(&path).unwrap().len() as u64;
        for offset in (0..bytes).step_by(1 + bytes as usize / 700) {
            let flip = Fault::BitFlip { path: path.clone(), offset, bit: (offset % 8) as u8 };
            disk.inject(flip.clone()).unwrap();
            let opened = Shard::open(&env, Path::new(DIR));
            assert!(matches!(opened, Err(Error::Corrupt(_))), "{name} at {offset}: {:?}", opened.err());
            disk.inject(flip).unwrap();
        }
        disk.rename(&path, Path::new("/data/away")).unwrap();
        let expected = if name == "SPEC" { "Not found" } else { "corruption" };
        let error = Shard::open(&env, Path::new(DIR)).err().unwrap().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        disk.rename(Path::new("/data/away"), &path).unwrap();
    }
    model.check(&Shard::open(&env, Path::new(DIR)).unwrap());
}

#[test]
fn a_directory_belongs_to_one_shard() {
    let env = env(FaultyDisk::new(1));
    let shard = create(&env).unwrap();
    assert_eq!((shard.applied(), shard.durable(), shard.membership()), (None, None, None));
    assert!(matches!(shard.snapshot(), Err(Error::Unavailable(_))));
    let other = vicinal_common::api::ReplicaSpec { shard: ShardId(8), ..spec() };
    assert!(matches!(Shard::create(&env, Path::new(DIR), &other), Err(Error::Conflict(_))));
    assert!(matches!(Shard::open(&env, Path::new("/data/nothing")), Err(Error::NotFound(_))));
}
