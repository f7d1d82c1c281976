//! Every bit that flips in a stored file is noticed, or lies in the last batch.

use std::path::PathBuf;

use super::model::{contents, random_steps};
use super::*;
use crate::log::tests::crash::Run;
use vicinal_common::disk::Fault;

/// The files of a disk, by name.
fn files(disk: &FaultyDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |name: String| (dir().join(&name), disk.read(&dir().join(name)).unwrap());
    disk.list(dir()).unwrap().into_iter().map(read).collect()
}

/// A new disk with these files.
fn disk_with(files: &[(PathBuf, Vec<u8>)]) -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    disk.create_dir_all(dir()).unwrap();
    for (path, bytes) in files {
        let file = disk.create(path).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
    }
    disk.sync_dir(dir()).unwrap();
    disk
}

#[test]
fn a_flipped_bit_is_never_taken_for_truth() {
    let disk = FaultyDisk::new(1);
    let run = Run::of(&random_steps(3, 70), &disk);
    let files = files(&disk);
    assert!(files.len() > 1, "the workload must fill several files");
    let (newest, bytes) = files.last().unwrap();
    // Find where the last batch starts: cutting a byte off drops it.
    let cut = disk_with(&files);
    cut.open(newest).unwrap().truncate(bytes.len() as u64 - 1).unwrap();
    let (log, recovery) = open(&cut).unwrap();
    assert_eq!(recovery.notes.len(), 1);
    let without_last = contents(&log);
    drop(log);
    let last_batch = cut.open(newest).unwrap().len().unwrap();

    let (mut corrupt, mut torn) = (0, 0);
    for (path, bytes) in &files {
        for offset in 0..bytes.len() as u64 {
            let disk = disk_with(&files);
            disk.inject(Fault::BitFlip { path: path.clone(), offset, bit: (offset % 8) as u8 }).unwrap();
            match open(&disk) {
                Ok((log, recovery)) => {
                    assert!(path == newest && offset >= last_batch, "{} at {offset}", path.display());
                    assert_eq!(recovery.notes.len(), 1);
                    assert_eq!(contents(&log), without_last);
                    torn += 1;
                }
                Err(Error::Corrupt(what)) => {
                    assert!(what.contains(".log at offset"), "{what}");
                    corrupt += 1;
                }
                Err(e) => panic!("{} at {offset}: {e}", path.display()),
            }
        }
    }
    assert!(corrupt > 1000 && torn > 28, "{corrupt} {torn}");
    assert_eq!(run.acked, run.history.len() - 1);
}

/// What is missing at the end of the newest file looks like writes cut short, back to where it was begun: the log is what
/// it was at some earlier time, never a mixture, or is refused. Any other file must be whole.
#[test]
fn a_file_that_is_cut_off_is_named_or_leaves_an_earlier_state() {
    let disk = FaultyDisk::new(1);
    let run = Run::of(&random_steps(3, 70), &disk);
    let files = files(&disk);
    let (newest, _) = files.last().unwrap();
    let (mut named, mut earlier) = (0, 0);
    for (i, (path, bytes)) in files.iter().enumerate() {
        for length in (0..bytes.len()).step_by(3) {
            let mut cut = files.clone();
            cut[i].1.truncate(length);
            match open(&disk_with(&cut)) {
                Ok((log, _)) => {
                    assert_eq!(path, newest, "cut off at {length}");
                    assert!(run.history.contains(&contents(&log)), "{} at {length}", path.display());
                    earlier += 1;
                }
                Err(Error::Corrupt(what)) => {
                    // An older file may be gone since the newest said that it may go.
                    assert!(what.contains(".log") || path == newest && what.contains("a file was lost"), "{what}");
                    named += 1;
                }
                Err(e) => panic!("{} at {length}: {e}", path.display()),
            }
        }
    }
    assert!(named > 300, "{named} {earlier}");
}

#[test]
fn a_damaged_checkpoint_is_no_interrupted_start_when_older_files_are_gone() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let a = log.group(ShardId(1));
    for start in (0..40).step_by(4) {
        append(&a, entries(start..start + 4, 100)).unwrap();
        a.purge_to(start + 3, Bytes::from_static(b"m")).unwrap();
    }
    append(&a, entries(40..41, 1)).unwrap();
    drop((a, log));
    let (path, _) = files(&disk).pop().unwrap();
    for name in disk.list(dir()).unwrap().iter().rev().skip(1) {
        disk.remove(&dir().join(name)).unwrap();
    }
    disk.open(&path).unwrap().truncate(50).unwrap();
    assert!(matches!(open(&disk).err().unwrap(), Error::Corrupt(_)));
}

#[test]
fn an_entry_that_rots_under_a_running_log_is_not_served() {
    let disk = FaultyDisk::new(1);
    let (log, _) = open(&disk).unwrap();
    let a = log.group(ShardId(1));
    append(&a, entries(0..1, 100)).unwrap();
    append(&a, entries(1..20, 100)).unwrap();
    let path = dir().join("0000000000000001.log");
    disk.inject(Fault::BitFlip { path, offset: 170, bit: 0 }).unwrap();
    assert!(matches!(a.read(0..1, 1), Err(LogError::Corrupt(_))));
    assert_eq!(a.read(1..20, u64::MAX).unwrap(), entries(1..20, 100));
}
