//! The log from outside: what is appended is read back, old files go, and each rule of the handle holds.

mod bitflip;
mod crash;
mod faults;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use vicinal_common::disk::{Disk, FaultyDisk, RealDisk};
use vicinal_common::ids::ShardId;

use super::*;

/// Small enough that every workload rotates, evicts and splits batches.
fn small() -> LogOptions {
    LogOptions { file_bytes: 1500, cache_bytes: 600, batch_bytes: 400, queue_bytes_max: 4096 }
}

fn dir() -> &'static Path {
    Path::new("/node/log")
}

fn open(disk: &FaultyDisk) -> Result<(ShardLog, Recovery)> {
    ShardLog::open(Arc::new(disk.clone()), dir(), small())
}

fn entry(index: u64, len: usize) -> LogEntry {
    let fill = index.wrapping_mul(37) as u8;
    LogEntry { index, bytes: Bytes::from(vec![fill; len]) }
}

fn entries(range: std::ops::Range<u64>, len: usize) -> Vec<LogEntry> {
    range.map(|index| entry(index, len)).collect()
}

/// A callback, and where its answer arrives.
fn answer() -> (Done, Receiver<Result<(), LogError>>) {
    let (send, receive) = channel();
    (Box::new(move |result| send.send(result).unwrap_or(())), receive)
}

fn append(group: &GroupLog, entries: Vec<LogEntry>) -> Result<(), LogError> {
    let (done, receive) = answer();
    group.append(entries, done);
    receive.recv().expect("every callback is called")
}

fn save(group: &GroupLog, key: u8, bytes: &'static [u8]) -> Result<(), LogError> {
    let (done, receive) = answer();
    group.save_state(key, Bytes::from_static(bytes), done);
    receive.recv().expect("every callback is called")
}

fn all(group: &GroupLog) -> Vec<LogEntry> {
    group.read(0..u64::MAX, u64::MAX).unwrap()
}

#[test]
fn entries_are_read_back_from_memory_and_file() {
    let disk = FaultyDisk::new(1);
    let (log, recovery) = open(&disk).unwrap();
    assert!(recovery.groups.is_empty() && recovery.notes.is_empty());
    let (a, b) = (log.group(ShardId(1)), log.group(ShardId(2)));
    for start in (0..40).step_by(4) {
        append(&a, entries(start..start + 4, 60)).unwrap();
        append(&b, entries(start + 1..start + 5, 10)).unwrap();
    }
    save(&a, 1, b"vote").unwrap();
    assert_eq!(all(&a), entries(0..40, 60));
    assert_eq!(all(&b), entries(1..41, 10));
    assert_eq!(a.read(7..30, 130).unwrap(), entries(7..9, 60));
    assert_eq!(a.read(7..30, 0).unwrap(), entries(7..8, 60));
    assert!(a.read(40..50, 100).unwrap().is_empty());
    assert_eq!((a.bytes().unwrap(), b.bytes().unwrap()), (2400, 400));
    assert!(log.stats().files > 1);
    drop((a, b, log));

    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.groups.len(), 2);
    assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
    assert_eq!(recovery.groups[1].1.last(), Some(40));
    let a = log.group(ShardId(1));
    assert_eq!(all(&a), entries(0..40, 60));
    assert_eq!(a.load_state(1).unwrap().unwrap(), "vote");
    assert_eq!(a.load_state(2).unwrap(), None);
    append(&a, entries(40..41, 60)).unwrap();
    assert_eq!(all(&a), entries(0..41, 60));
}

#[test]
fn old_files_go_when_every_group_has_purged_them() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let (a, b) = (log.group(ShardId(1)), log.group(ShardId(2)));
    append(&b, entries(0..1, 10)).unwrap();
    save(&b, 0, b"kept").unwrap();
    for start in (0..60).step_by(4) {
        append(&a, entries(start..start + 4, 100)).unwrap();
    }
    let before = log.stats();
    assert!(before.files >= 4);
    assert_eq!(before.oldest_file_shards, [ShardId(1), ShardId(2)]);
    a.purge_to(55, Bytes::from_static(b"m55")).unwrap();
    save(&a, 0, b"x").unwrap();
    assert!(log.stats().files >= before.files, "the entry of the idle group keeps the oldest file");
    assert_eq!(log.stats().oldest_file_shards, [ShardId(2)]);
    b.purge_to(0, Bytes::from_static(b"m0")).unwrap();
    // The second answer comes after the files of the first one are gone.
    save(&a, 0, b"y").unwrap();
    save(&a, 0, b"z").unwrap();
    assert!(log.stats().files <= 2);
    assert_eq!(log.stats().files, disk.list(dir()).unwrap().len());
    drop((a, b, log));

    let (log, recovery) = open(&disk).unwrap();
    assert!(recovery.notes.is_empty());
    let (a, b) = (log.group(ShardId(1)), log.group(ShardId(2)));
    assert_eq!(all(&a), entries(56..60, 100));
    assert_eq!(a.bounds().unwrap().purged, Some((55, Bytes::from_static(b"m55"))));
    assert_eq!(b.bounds().unwrap(), Bounds { first: 1, next: 1, purged: Some((0, Bytes::from_static(b"m0"))) });
    assert_eq!(b.load_state(0).unwrap().unwrap(), "kept");
}

#[test]
fn a_lost_file_is_noticed() {
    for lost in [1, 2] {
        let disk = FaultyDisk::new(1);
        let (log, _) = open(&disk).unwrap();
        let a = log.group(ShardId(1));
        for start in (0..60).step_by(4) {
            append(&a, entries(start..start + 4, 100)).unwrap();
        }
        drop((a, log));
        disk.remove(&dir().join(format!("{lost:016}.log"))).unwrap();
        assert!(matches!(open(&disk).err().unwrap(), Error::Corrupt(_)));
    }
}

#[test]
fn a_removed_group_can_begin_anew() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let a = log.group(ShardId(1));
    append(&a, entries(0..9, 100)).unwrap();
    save(&a, 1, b"old").unwrap();
    a.remove().unwrap();
    assert_eq!(append(&a, entries(9..10, 1)), Err(LogError::Removed(ShardId(1))));
    assert_eq!(a.bounds(), Err(LogError::Removed(ShardId(1))));
    let a = log.group(ShardId(1));
    assert!(all(&a).is_empty() && a.load_state(1).unwrap().is_none() && a.bytes().unwrap() == 0);
    append(&a, entries(3..5, 7)).unwrap();
    assert_eq!(all(&a), entries(3..5, 7));
    drop((a, log));
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.groups.len(), 1);
    let a = log.group(ShardId(1));
    assert_eq!(all(&a), entries(3..5, 7));
    a.remove().unwrap();
    drop((a, log));
    assert!(open(&disk).unwrap().1.groups.is_empty());
}

/// While a truncation is queued, the files hold other entries under the same indexes.
#[test]
fn a_replaced_entry_is_read_from_memory_until_it_is_written() {
    let disk = FaultyDisk::new(1);
    let options = LogOptions { cache_bytes: 0, batch_bytes: 100, ..small() };
    let (log, _) = ShardLog::open(Arc::new(disk.clone()), dir(), options).unwrap();
    let (a, b) = (log.group(ShardId(1)), log.group(ShardId(2)));
    append(&a, entries(0..6, 20)).unwrap();
    // The flusher stands still in a callback, first before the batch of `b`, then between it and that of `a`.
    let stop = |group: &GroupLog, index| {
        let ((reached, is_reached), (release, released)) = (channel(), channel::<()>());
        let done = move |_| {
            reached.send(()).unwrap();
            released.recv().unwrap_or(());
        };
        group.append(entries(index..index + 1, 200), Box::new(done));
        (is_reached, release)
    };
    let (reached, release) = stop(&b, 0);
    reached.recv().unwrap();
    let (reached_again, release_again) = stop(&b, 1);
    a.truncate_after(Some(2)).unwrap();
    let (done, written) = answer();
    a.append(entries(3..5, 33), done);
    drop(release);
    reached_again.recv().unwrap();
    let expected = [entries(0..3, 20), entries(3..5, 33)].concat();
    assert_eq!(all(&a), expected);
    drop(release_again);
    written.recv().unwrap().unwrap();
    assert_eq!(all(&a), expected);
}

#[test]
fn gaps_and_giants_are_refused() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let a = log.group(ShardId(1));
    append(&a, entries(0..3, 5)).unwrap();
    assert!(matches!(append(&a, entries(4..5, 5)), Err(LogError::Misuse(_))));
    assert!(matches!(append(&a, vec![entry(3, 5), entry(5, 5)]), Err(LogError::Misuse(_))));
    assert!(matches!(append(&a, vec![entry(3, APPEND_BYTES_MAX as usize)]), Err(LogError::Misuse(_))));
    assert!(matches!(a.purge_to(2, vec![0; 1 << 20].into()), Err(LogError::Misuse(_))));
    assert!(matches!(a.purge_to(u64::MAX, Bytes::new()), Err(LogError::Misuse(_))));
    assert_eq!(all(&a), entries(0..3, 5));
    append(&a, Vec::new()).unwrap();
    append(&a, entries(3..4, 5)).unwrap();
}

#[test]
fn many_writers_share_syncs_on_a_real_disk() {
    let home = tempfile::tempdir().unwrap();
    let options = LogOptions { file_bytes: 100_000, queue_bytes_max: 20_000, ..LogOptions::default() };
    let (log, _) = ShardLog::open(Arc::new(RealDisk), home.path(), options.clone()).unwrap();
    std::thread::scope(|scope| {
        for shard in 0..4 {
            let group = log.group(ShardId(shard));
            scope.spawn(move || {
                let (send, receive) = channel();
                for index in 0..200 {
                    let send = send.clone();
                    group.append(vec![entry(index, 500)], Box::new(move |result| send.send((index, result)).unwrap()));
                }
                let acks: Vec<_> = (0..200).map(|_| receive.recv().unwrap()).collect();
                assert!(acks.iter().enumerate().all(|(at, ack)| *ack == (at as u64, Ok(()))), "acks come in order");
            });
        }
    });
    drop(log);
    let (log, recovery) = ShardLog::open(Arc::new(RealDisk), home.path(), options).unwrap();
    assert!(recovery.notes.is_empty() && log.stats().files > 2);
    assert!((0..4).all(|shard| all(&log.group(ShardId(shard))) == entries(0..200, 500)));
}
