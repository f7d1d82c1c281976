//! What the faulty disk promises: synced things stay, unsynced things may go, and each fault does what it says.

use super::super::replace_file;
use super::*;

fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}

fn disk(seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk
}

#[test]
fn synced_content_under_a_synced_name_stays() {
    for seed in 0..50 {
        let disk = disk(seed);
        let file = disk.create(&path("a")).unwrap();
        file.write_at(0, &[7; 2000]).unwrap();
        file.truncate(1500).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        disk.reboot();
        assert_eq!(disk.read(&path("a")).unwrap(), [7; 1500]);
        assert!(file.read_at(0, &mut [0]).is_err(), "files opened before a reboot are dead");
    }
}

#[test]
fn unsynced_things_come_and_go() {
    let (mut names, mut contents, mut renames) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for seed in 0..300 {
        let disk = disk(seed);
        let file = disk.create(&path("a")).unwrap();
        file.sync().unwrap();
        disk.create(&path("b")).unwrap().write_at(0, b"b").unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        file.write_at(100, &[7; 1000]).unwrap();
        disk.create(&path("c")).unwrap();
        disk.rename(&path("b"), &path("d")).unwrap();
        disk.reboot();
        let listed = disk.list(Path::new("/data")).unwrap();
        names.insert(listed.contains(&"c".to_string()));
        renames.insert(listed.contains(&"d".to_string()));
        assert!(listed.contains(&"b".to_string()) != listed.contains(&"d".to_string()), "a rename is atomic");
        let content = disk.read(&path("a")).unwrap();
        assert!(content.iter().all(|byte| *byte == 0 || *byte == 7) && content.len() <= 1100);
        // Which of the three pieces 100..512, 512..1024, 1024..1100 arrived whole.
        contents.insert([100..512, 512..1024, 1024..1100].map(|piece: std::ops::Range<usize>| {
            content.get(piece).is_some_and(|piece| piece.iter().all(|byte| *byte == 7))
        }));
    }
    assert_eq!((names.len(), renames.len()), (2, 2));
    assert_eq!(contents.len(), 8, "pieces arrive independently: {contents:?}");
}

#[test]
fn a_removal_is_undone_unless_the_directory_was_synced() {
    let mut back = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        for name in ["a", "b"] {
            disk.create(&path(name)).unwrap();
        }
        disk.sync_dir(Path::new("/data")).unwrap();
        disk.remove(&path("a")).unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        disk.remove(&path("b")).unwrap();
        disk.reboot();
        assert!(!disk.exists(&path("a")).unwrap());
        back.insert(disk.exists(&path("b")).unwrap());
    }
    assert_eq!(back.len(), 2);
}

#[test]
fn a_removed_directory_may_be_found_half_empty() {
    let mut left = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        disk.create_dir_all(&path("d")).unwrap();
        for name in ["d/x", "d/y"] {
            disk.create(&path(name)).unwrap();
        }
        disk.sync_dir(&path("d")).unwrap();
        disk.remove_dir_all(&path("d")).unwrap();
        assert!(!disk.exists(&path("d")).unwrap());
        let synced = seed % 2 == 0;
        if synced {
            disk.sync_dir(Path::new("/data")).unwrap();
        }
        disk.reboot();
        assert!(!synced || !disk.exists(&path("d")).unwrap());
        left.insert(disk.list(&path("d")).unwrap().len());
    }
    assert_eq!(left, BTreeSet::from([0, 1, 2]));
}

#[test]
fn power_fails_after_the_given_operation() {
    let disk = disk(1);
    disk.inject(Fault::Cut { operations: disk.operations() + 2 }).unwrap();
    let file = disk.create(&path("a")).unwrap();
    file.write_at(0, b"x").unwrap();
    assert!(!disk.is_off() && file.len().unwrap() == 1);
    assert!(file.sync().is_err() && disk.is_off());
    assert!(file.len().is_err() && disk.list(Path::new("/data")).is_err() && disk.create(&path("b")).is_err());
    disk.reboot();
    disk.create(&path("b")).unwrap();
}

#[test]
fn a_full_disk_takes_what_fits_and_heals() {
    let disk = disk(1);
    let file = disk.create(&path("a")).unwrap();
    disk.inject(Fault::Full { bytes: 10 }).unwrap();
    file.write_at(0, &[1; 8]).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/data")).unwrap(), 2);
    assert_eq!(file.write_at(8, &[2; 8]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.read(&path("a")).unwrap(), [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]);
    file.write_at(0, &[3; 10]).unwrap();
    file.truncate(8).unwrap();
    disk.lift_full();
    file.write_at(8, &[2; 8]).unwrap();
}

#[test]
fn data_of_a_failed_sync_is_readable_and_never_durable() {
    let disk = disk(1);
    let file = disk.create(&path("a")).unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    file.write_at(0, b"old").unwrap();
    file.sync().unwrap();
    disk.inject(Fault::SyncError { syncs: disk.syncs() }).unwrap();
    file.write_at(0, b"new").unwrap();
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(disk.read(&path("a")).unwrap(), b"new");
    disk.reboot();
    assert_eq!(disk.read(&path("a")).unwrap(), b"old");
}

#[test]
fn a_flipped_bit_stays_flipped() {
    let disk = disk(1);
    let file = disk.create(&path("a")).unwrap();
    file.write_at(0, &[0; 3]).unwrap();
    disk.inject(Fault::BitFlip { path: path("a"), offset: 1, bit: 3 }).unwrap();
    assert!(disk.inject(Fault::BitFlip { path: path("a"), offset: 3, bit: 3 }).is_err());
    assert_eq!(disk.read(&path("a")).unwrap(), [0, 8, 0]);
    file.sync().unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    disk.reboot();
    assert_eq!(disk.read(&path("a")).unwrap(), [0, 8, 0]);
}

#[test]
fn a_replaced_file_is_old_or_new_at_every_cut() {
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        let mut cut = 0;
        loop {
            let disk = disk(seed);
            replace_file(&disk, &path("a"), &[1; 700]).unwrap();
            disk.inject(Fault::Cut { operations: disk.operations() + cut }).unwrap();
            let done = replace_file(&disk, &path("a"), &[2; 1400]).is_ok();
            disk.reboot();
            let content = disk.read(&path("a")).unwrap();
            assert!(content == [2; 1400] || (!done && content == [1; 700]), "cut {cut} seed {seed}");
            seen.insert(content[0]);
            assert!(disk.map(&path("a")).unwrap().as_ptr().align_offset(64) == 0);
            if done {
                break;
            }
            cut += 1;
        }
    }
    assert_eq!(seen.len(), 2);
}
