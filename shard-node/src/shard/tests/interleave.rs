//! Writes, and flushes, that come in the middle of a flush, a merge or an index build: at every file it makes. What
//! dies between the capture and the commit must be dead afterwards, yet alive again after a restart until the log says
//! otherwise.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use vicinal_common::disk::{Disk, DiskFile, FaultyDisk, Mapping};

use super::super::{Shard, ShardEnv};
use super::harness::{DIR, Model, Work, create, env};

type Hook = Box<dyn FnMut(&Path) + Send>;

/// Tells the hook of every file before it is created.
#[derive(Clone)]
struct HookedDisk {
    disk: FaultyDisk,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl Disk for HookedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // Taken out while it runs: what it does itself is not interrupted.
        let hook = self.hook.lock().take();
        if let Some(mut hook) = hook {
            hook(path);
            *self.hook.lock() = Some(hook);
        }
        self.disk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }
    fn map(&self, path: &Path) -> io::Result<Mapping> {
        self.disk.map(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
}

/// Gives the shard its next entries and checks what became of them.
fn advance(shard: &Shard, model: &Model, entries: usize) {
    let from = shard.applied().map_or(0, |mark| mark.index.0) as usize;
    let to = (from + entries).min(model.log.len());
    let outcomes = shard.apply(model.log[from..to].to_vec()).unwrap();
    assert_eq!(outcomes, model.outcomes[from..to]);
}

/// The model after the entries that the shard has applied.
fn model_at(model: &Model, shard: &Shard) -> Model {
    let mut prefix = Model::default();
    let applied = shard.applied().map_or(0, |mark| mark.index.0) as usize;
    for entry in &model.log[..applied] {
        prefix.push(entry.payload.clone());
    }
    prefix
}

/// How often something happened in the middle of something else.
#[derive(Default, Debug)]
struct Interruptions {
    writes: usize,
    flushes_in_merges: usize,
    flushes_in_builds: usize,
}

fn run(seed: u64, entries: usize) -> Interruptions {
    let disk = HookedDisk { disk: FaultyDisk::new(seed), hook: Arc::default() };
    let env: ShardEnv = env(disk.clone());
    let mut work = Work::new(seed);
    let mut model = Model::default();
    for _ in 0..entries {
        work.entry(&mut model);
    }
    let model = Arc::new(model);
    let counts = Arc::new(Mutex::new(Interruptions::default()));
    let mut shard = create(&env).unwrap();
    while shard.applied().is_none_or(|mark| mark.index.0 < entries as u64) {
        advance(&shard, &model, 1 + work.below(6) as usize);
        let flushes = work.below(4) == 0;
        *disk.hook.lock() = Some(interrupt(&shard, &model, &counts, flushes, work.below(1 << 32)));
        if flushes {
            shard.flush_blocking().unwrap();
        } else {
            let _single = shard.optimizer.lock();
            shard.optimize_once().unwrap();
        }
        *disk.hook.lock() = None;
        match work.below(12) {
            0 => model_at(&model, &shard).check(&shard),
            1 => {
                let (applied, durable) = (shard.applied().unwrap(), shard.durable());
                shard.close();
                shard = Shard::open(&env, Path::new(DIR)).unwrap();
                assert_eq!(shard.applied(), durable);
                model_at(&model, &shard).check(&shard);
                let missing = applied.index.0 - durable.map_or(0, |mark| mark.index.0);
                advance(&shard, &model, missing as usize);
                model_at(&model, &shard).check(&shard);
            }
            _ => {}
        }
    }
    shard.flush_blocking().unwrap();
    model.check(&shard);
    std::mem::take(&mut *counts.lock())
}

/// A hook that writes, and flushes where that is possible: not in a flush, and not while a manifest is committed.
fn interrupt(
    shard: &Arc<Shard>,
    model: &Arc<Model>,
    counts: &Arc<Mutex<Interruptions>>,
    in_flush: bool,
    seed: u64,
) -> Hook {
    let (shard, model, counts) = (Arc::downgrade(shard), Arc::clone(model), Arc::clone(counts));
    let mut work = Work::new(seed);
    Box::new(move |path: &Path| {
        let Some(shard) = shard.upgrade() else { return };
        let name: PathBuf = path.file_name().map(PathBuf::from).unwrap_or_default();
        let name = name.to_string_lossy();
        advance(&shard, &model, 1 + work.below(4) as usize);
        counts.lock().writes += 1;
        if in_flush || name.starts_with("MANIFEST") || work.below(2) == 0 {
            return;
        }
        shard.flush_blocking().unwrap();
        advance(&shard, &model, 1 + work.below(4) as usize);
        if name.ends_with(".seg.tmp") {
            counts.lock().flushes_in_merges += 1;
        } else {
            counts.lock().flushes_in_builds += 1;
        }
    })
}

#[test]
fn work_in_the_middle_of_work_equals_the_model() {
    let mut all = Interruptions::default();
    for seed in 0..6 {
        let counts = run(seed, 1_500);
        all.writes += counts.writes;
        all.flushes_in_merges += counts.flushes_in_merges;
        all.flushes_in_builds += counts.flushes_in_builds;
    }
    assert!(all.writes > 250 && all.flushes_in_merges > 25 && all.flushes_in_builds > 25, "{all:?}");
}
