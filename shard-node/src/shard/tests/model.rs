//! Random work on one shard against the model: sealing, merging, index building, restarts and snapshots all the time.

use std::path::Path;
use std::sync::Arc;

use vicinal_common::disk::{Disk, FaultyDisk};
use vicinal_common::payload_index::PayloadIndexes;

use super::super::{Shard, ShardEnv};
use super::harness::{DIR, Model, Work, all_parts, create, env, spec};

fn read_randomly(work: &mut Work, model: &Model, shard: &Shard) {
    let view = shard.view();
    match work.below(4) {
        0 => {
            let query = work.query();
            assert_eq!(view.search(&query).unwrap(), model.search(&query), "{query:?}");
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
            let expected = model.scroll(None, usize::MAX, Some(&filter)).len() as u64;
            assert_eq!(view.count(Some(&filter)).unwrap(), expected);
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
fn check_snapshot(model: &Model, shard: &Shard, seed: u64) {
    let Ok(snapshot) = shard.snapshot() else { return };
    let target_env = env(FaultyDisk::new(seed));
    let target = create(&target_env).unwrap();
    // It had data of its own before.
    target.apply(model.log[..snapshot.mark.index.0 as usize / 2].to_vec()).unwrap();
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

fn run(seed: u64, operations: usize) {
    let disk = FaultyDisk::new(seed);
    let env = env(disk.clone());
    let mut work = Work::new(seed);
    let mut model = Model::default();
    let mut shard = create(&env).unwrap();
    let (mut sealed, mut most_segments) = (0, 0);
    let mut indexes = PayloadIndexes::default();
    for operation in 0..operations {
        match work.below(100) {
            0..50 => {
                let first = model.log.len();
                let entries: Vec<_> = (0..1 + work.below(4)).map(|_| work.entry(&mut model)).collect();
                assert_eq!(shard.apply(entries).unwrap(), model.outcomes[first..]);
            }
            50..75 => read_randomly(&mut work, &model, &shard),
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
            95 | 96 if operation % 5 == 0 => {
                indexes.revision += 1;
                indexes.fields = work.payload_fields();
                shard.set_payload_indexes(&indexes).unwrap();
            }
            97 if operation % 7 == 0 => check_snapshot(&model, &shard, seed ^ operation as u64),
            97 | 98 => {
                let durable = shard.durable();
                let view = shard.view();
                shard.close();
                drop(shard);
                shard = Shard::create(&env, Path::new(DIR), &spec()).unwrap();
                assert_eq!(shard.applied(), durable);
                assert_eq!(view.scroll(None, 1, None, &all_parts()).unwrap(), model.scroll(None, 1, None));
                model.replay(&shard).unwrap();
                model.check(&shard);
            }
            _ => model.check(&shard),
        }
        most_segments = most_segments.max(shard.stats().segments);
    }
    while shard.maintain_once().unwrap() {}
    model.check(&shard);
    assert!(sealed > operations / 50, "sealed {sealed} times");
    assert!(most_segments > 3 && shard.stats().segments <= 4);
    let stats = shard.stats().payload;
    assert_eq!((stats.revision, stats.missing), (indexes.revision, 0));
    let files = disk.list(Path::new(DIR)).unwrap();
    let graphs = files.iter().filter(|name| name.ends_with(".hnsw")).count();
    let segments = files.iter().filter(|name| name.ends_with(".seg")).count();
    let fields = files.iter().filter(|name| name.ends_with(".pidx")).count();
    assert!(graphs > 0, "{files:?}");
    assert_eq!(fields, segments * indexes.fields.len(), "{files:?}");
    assert_eq!((files.len(), segments as u64), (graphs + segments + fields + 2, shard.stats().segments), "{files:?}");
    drop(Arc::clone(&shard));
}

#[test]
fn equals_the_model_over_20_000_operations() {
    run(1, 20_000);
}

#[test]
fn equals_the_model_with_other_seeds() {
    for seed in 2..8 {
        run(seed, 1_500);
    }
}
