//! Failing syncs stop the log for good; a full disk fails what does not fit and heals.

use super::crash::Run;
use super::model::{contents, random_steps};
use super::*;
use vicinal_common::disk::Fault;

#[test]
fn a_failed_sync_stops_the_log_and_a_restart_finds_what_was_acknowledged() {
    for seed in 1..=3 {
        let steps = random_steps(seed + 100, 60);
        for sync in 0.. {
            let disk = FaultyDisk::new(sync);
            disk.inject(Fault::SyncError { syncs: sync }).unwrap();
            let run = Run::of(&steps, &disk);
            if disk.syncs() <= sync {
                break;
            }
            let what = format!("seed {seed} sync {sync}");
            // First the process alone is started again, on the same kernel: it can read what is not on the disk.
            let (log, _) = open(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
            let found = contents(&log);
            run.check(&found, &what);
            let group = log.group(ShardId(1));
            let next = group.bounds().unwrap().next;
            append(&group, entries(next..next + 1, 9)).unwrap();
            let found = contents(&log);
            drop((group, log));
            // Then the power fails. What the log said after the restart must hold.
            disk.reboot();
            let (log, recovery) = open(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(contents(&log), found, "{what}: {:?}", recovery.notes);
        }
    }
}

#[test]
fn a_stopped_log_says_so() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let a = log.group(ShardId(1));
    append(&a, entries(0..3, 5)).unwrap();
    disk.inject(Fault::SyncError { syncs: disk.syncs() }).unwrap();
    let error = append(&a, entries(3..4, 5)).unwrap_err();
    assert!(matches!(&error, LogError::Poisoned(_)) && error.to_string().contains("restart the node"), "{error}");
    let syncs = disk.syncs();
    assert!(matches!(append(&a, entries(3..4, 5)), Err(LogError::Poisoned(_))));
    assert!(matches!(a.truncate_after(None), Err(LogError::Poisoned(_))));
    assert!(matches!(save(&a, 0, b"x"), Err(LogError::Poisoned(_))));
    assert_eq!(disk.syncs(), syncs, "a failed sync is never tried again");
    assert_eq!(all(&a), entries(0..3, 5));
    assert!(log.stats().poisoned.is_some());
}

#[test]
fn a_full_disk_fails_what_does_not_fit_and_heals() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let (a, b) = (log.group(ShardId(1)), log.group(ShardId(2)));
    append(&a, entries(0..5, 50)).unwrap();
    append(&b, entries(0..5, 50)).unwrap();
    save(&a, 0, b"old").unwrap();
    disk.inject(Fault::Full { bytes: log.stats().bytes }).unwrap();
    a.truncate_after(Some(3)).unwrap();
    assert!(matches!(append(&a, entries(4..9, 50)), Err(LogError::Full(_))));
    assert_eq!(all(&a), entries(0..4, 50), "the truncation holds, the append is undone");
    assert!(matches!(save(&a, 0, b"new"), Err(LogError::Full(_))));
    assert_eq!(a.load_state(0).unwrap().unwrap(), "old");
    assert!(matches!(append(&a, entries(4..9, 50)), Err(LogError::Full(_))));
    assert_eq!((a.bounds().unwrap().next, a.bytes().unwrap()), (4, 200));
    // A follower of the failed append, sent before its failure was known, must not leave a hole.
    let ((first, first_answer), (second, second_answer)) = (answer(), answer());
    a.append(entries(4..12, 50), first);
    a.append(entries(12..14, 1), second);
    assert!(first_answer.recv().unwrap().is_err() && second_answer.recv().unwrap().is_err());
    b.purge_to(3, Bytes::from_static(b"m")).unwrap();
    disk.lift_full();
    append(&a, entries(4..9, 50)).unwrap();
    append(&b, entries(5..6, 50)).unwrap();
    assert_eq!((all(&a), all(&b)), (entries(0..9, 50), entries(4..6, 50)));
    let before = contents(&log);
    drop((a, b, log));
    disk.reboot();
    let (log, recovery) = open(&disk).unwrap();
    assert!(recovery.notes.is_empty());
    assert_eq!(contents(&log), before);
}

#[test]
fn what_did_not_fit_leaves_no_trace() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let a = log.group(ShardId(1));
    append(&a, entries(0..5, 50)).unwrap();
    disk.inject(Fault::Full { bytes: log.stats().bytes + 100 }).unwrap();
    assert!(matches!(append(&a, entries(5..9, 50)), Err(LogError::Full(_))));
    drop((a, log));
    // Opening needs no room.
    let (log, recovery) = open(&disk).unwrap();
    assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
    let a = log.group(ShardId(1));
    append(&a, entries(5..6, 2)).unwrap();
    assert_eq!(all(&a), [entries(0..5, 50), entries(5..6, 2)].concat());
}

#[test]
fn a_disk_may_fill_up_anywhere() {
    let steps = random_steps(5, 60);
    let mut fulls = 0;
    for room in (0..6000).step_by(37) {
        let disk = FaultyDisk::new(room);
        drop(open(&disk).unwrap());
        disk.inject(Fault::Full { bytes: 60 + room }).unwrap();
        let run = Run::of(&steps, &disk);
        fulls += usize::from(run.acked < steps.len());
        disk.lift_full();
        // Everything acknowledged is there after a power cut, the rest may be in part: purges and truncations wait.
        disk.reboot();
        let (log, recovery) = open(&disk).unwrap_or_else(|e| panic!("room {room}: {e}"));
        assert!(log.stats().poisoned.is_none());
        drop(recovery);
        let next = log.group(ShardId(0)).bounds().unwrap().next;
        append(&log.group(ShardId(0)), entries(next..next + 2, 10)).unwrap();
        let found = contents(&log);
        drop(log);
        disk.reboot();
        assert_eq!(contents(&open(&disk).unwrap().0), found);
    }
    assert!(fulls > 20);
}
