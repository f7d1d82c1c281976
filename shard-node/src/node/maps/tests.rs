//! Map files through crashes, damage and late messages.

use vicinal_common::disk::{Fault, FaultyDisk};
use vicinal_common::metric::Metric;
use vicinal_routing::{D1Quantiles, Flatness, MapParts, ThetaTable};

use super::*;

const DIR: &str = "/data/maps";

fn collection(number: u128) -> CollectionId {
    CollectionId(uuid::Uuid::from_u128(number))
}

/// A put of a small map of this version for a collection.
pub(in crate::node) fn put_of(number: u128, version: u64) -> PutMap {
    let parts = MapParts {
        version,
        metric: Metric::Euclid,
        dim: 2,
        shards: 2,
        centroids: vec![0.0, 0.0, 4.0, 4.0],
        radius: vec![1.0; 2],
        weight: vec![1.0; 2],
        shard_of: vec![0, 1],
        tau: 0.1,
        copy_ratio: 0.0,
        thetas: ThetaTable::default(),
        d1: D1Quantiles::default(),
        flatness: Flatness::default(),
    };
    let bytes: Bytes = CentroidMap::new(parts).unwrap().encode().into();
    PutMap { collection: collection(number), digest: MapDigest::of(&bytes), bytes }
}

pub(in crate::node) fn keep_of(number: u128, as_of: u64, digests: &[&PutMap]) -> KeepMaps {
    let digests = digests.iter().map(|put| put.digest).collect();
    KeepMaps { collection: collection(number), as_of: MapVersion(as_of), digests }
}

fn start(disk: &FaultyDisk) -> MapStore {
    MapStore::start(Arc::new(disk.clone()), DIR.into()).unwrap()
}

fn sorted(puts: &[&PutMap]) -> Vec<MapDigest> {
    let mut digests: Vec<MapDigest> = puts.iter().map(|put| put.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}

fn flip(disk: &FaultyDisk, put: &PutMap) {
    let path = Path::new(DIR).join(Name { collection: put.collection, digest: put.digest }.file());
    disk.inject(Fault::BitFlip { path, offset: 90, bit: 3 }).unwrap();
}

#[test]
fn a_map_is_there_after_a_power_cut_and_may_be_put_again() {
    let disk = FaultyDisk::new(1);
    let put = put_of(1, 1);
    let store = start(&disk);
    assert!(matches!(store.get(put.digest), Err(Error::NotFound(_))));
    assert!(matches!(store.open(put.digest), Err(Error::NotFound(_))));
    store.put(&put).unwrap();
    let operations = disk.operations();
    store.put(&put).unwrap();
    assert_eq!(disk.operations(), operations);
    disk.reboot();
    let store = start(&disk);
    assert_eq!(store.get(put.digest).unwrap(), put.bytes);
    assert_eq!(store.digests(), [put.digest]);
    store.put(&put).unwrap();
}

#[test]
fn what_is_no_such_map_is_refused() {
    let store = start(&FaultyDisk::new(1));
    let good = put_of(1, 1);
    let other = PutMap { digest: MapDigest(7), ..good.clone() };
    assert!(matches!(store.put(&other), Err(Error::Corrupt(_))));
    let bytes = good.bytes.slice(1..);
    let no_map = PutMap { digest: MapDigest::of(&bytes), bytes, ..good.clone() };
    assert!(matches!(store.put(&no_map), Err(Error::BadInput(_))));
    let bytes = Bytes::from(vec![0; MAP_BYTES_MAX + 1]);
    let large = PutMap { digest: MapDigest::of(&bytes), bytes, ..good };
    assert!(matches!(store.put(&large), Err(Error::TooLarge(_))));
    assert!(store.digests().is_empty());
}

#[test]
fn a_damaged_file_is_not_served_and_can_be_put_again() {
    let disk = FaultyDisk::new(1);
    let (put, same_elsewhere) = (put_of(1, 1), put_of(2, 1));
    assert_eq!(put.digest, same_elsewhere.digest);
    let mut store = start(&disk);
    store.put(&put).unwrap();
    for is_found_at_start in [false, true] {
        flip(&disk, &put);
        if is_found_at_start {
            store = start(&disk);
            assert!(store.digests().is_empty());
        }
        assert!(matches!(store.get(put.digest), Err(Error::Corrupt(_))));
        assert!(store.digests().is_empty());
        assert!(matches!(store.get(put.digest), Err(Error::Corrupt(_))));
        assert!(matches!(store.open(put.digest), Err(Error::Corrupt(_))));
        store.put(&put).unwrap();
        assert_eq!(store.digests(), [put.digest]);
        assert_eq!(store.get(put.digest).unwrap(), put.bytes);
    }
    // Another collection's file of the same bytes stands in.
    store.put(&same_elsewhere).unwrap();
    flip(&disk, &put);
    assert_eq!(store.get(put.digest).unwrap(), put.bytes);
    assert_eq!(store.digests(), [put.digest]);
    // A damaged file is swept whatever its version was.
    store.keep(&keep_of(1, 0, &[])).unwrap();
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 1);
}

#[test]
fn only_what_is_named_or_newer_stays() {
    let disk = FaultyDisk::new(1);
    let store = start(&disk);
    let [one, two, three] = [1, 2, 3].map(|version| put_of(1, version));
    let foreign = put_of(2, 9);
    for put in [&one, &two, &three, &foreign] {
        store.put(put).unwrap();
    }
    // Sent before map 3 was known.
    store.keep(&keep_of(1, 2, &[&two])).unwrap();
    assert_eq!(store.digests(), sorted(&[&two, &three, &foreign]));
    store.keep(&keep_of(1, 3, &[&three])).unwrap();
    assert_eq!(store.digests(), sorted(&[&three, &foreign]));
    // Late, and twice: nothing more is removed.
    store.keep(&keep_of(1, 2, &[&two])).unwrap();
    store.keep(&keep_of(1, 1, &[])).unwrap();
    assert_eq!(store.digests(), sorted(&[&three, &foreign]));
    disk.reboot();
    let store = start(&disk);
    assert_eq!(store.digests(), sorted(&[&three, &foreign]));
    // A collection that is gone.
    store.keep(&keep_of(1, u64::MAX, &[])).unwrap();
    assert_eq!(store.digests(), sorted(&[&foreign]));
    assert!(matches!(store.get(three.digest), Err(Error::NotFound(_))));
}

#[test]
fn all_that_use_a_map_share_one_parse() {
    let disk = FaultyDisk::new(1);
    let store = start(&disk);
    let [one, two] = [1, 2].map(|version| put_of(1, version));
    store.put(&one).unwrap();
    store.put(&two).unwrap();
    let open = store.open(one.digest).unwrap();
    assert_eq!(open.map.parts().version, 1);
    assert_eq!(open.placer.place(&[3.0, 3.0]).home, 1);
    assert!(Arc::ptr_eq(&open, &store.open(one.digest).unwrap()));
    drop(open);
    store.open(two.digest).unwrap();
    assert_eq!(store.opened.lock().len(), 1, "what nobody uses is forgotten");
    let kept = store.open(two.digest).unwrap();
    store.keep(&keep_of(1, 2, &[])).unwrap();
    assert!(matches!(store.open(two.digest), Err(Error::NotFound(_))));
    assert_eq!(kept.map.parts().version, 2);
}

#[test]
fn a_full_disk_keeps_what_is_there() {
    let disk = FaultyDisk::new(1);
    let store = start(&disk);
    let [one, two] = [1, 2].map(|version| put_of(1, version));
    store.put(&one).unwrap();
    disk.inject(Fault::Full { bytes: one.bytes.len() as u64 + 10 }).unwrap();
    assert!(matches!(store.put(&two), Err(Error::Unavailable(_))));
    assert_eq!(store.digests(), [one.digest]);
    disk.lift_full();
    store.put(&two).unwrap();
    assert_eq!(store.digests(), sorted(&[&one, &two]));
}

/// What the crash test does; returns how many steps were answered well.
fn steps(store: &MapStore, puts: &[PutMap; 3]) -> usize {
    let [one, two, three] = puts;
    let steps: [&dyn Fn() -> Result<()>; 4] =
        [&|| store.put(one), &|| store.put(two), &|| store.keep(&keep_of(1, 2, &[two])), &|| store.put(three)];
    steps.iter().take_while(|step| step().is_ok()).count()
}

#[test]
fn a_crash_at_any_operation_leaves_only_whole_maps() {
    let puts = [1, 2, 3].map(|version| put_of(1, version));
    let [one, two, three] = &puts;
    let all = {
        let disk = FaultyDisk::new(0);
        assert_eq!(steps(&start(&disk), &puts), 4);
        disk.operations()
    };
    for cut in 0..all {
        for seed in 0..4 {
            let disk = FaultyDisk::new(seed);
            disk.inject(Fault::Cut { operations: cut }).unwrap();
            let store = MapStore::start(Arc::new(disk.clone()), DIR.into());
            let done = store.as_ref().map_or(0, |store| steps(store, &puts));
            assert!(done < 4);
            disk.reboot();
            let store = start(&disk);
            let held = store.digests();
            // After two steps the first map may be swept, and only the answer lost.
            let certain = [None, Some(one), Some(two), Some(two)][done];
            assert!(certain.is_none_or(|put| held.contains(&put.digest)), "cut {cut}, seed {seed}: {done} steps");
            if done >= 3 {
                assert!(!held.contains(&one.digest), "cut {cut}, seed {seed}");
            }
            for digest in held {
                let put = puts.iter().find(|put| put.digest == digest).unwrap();
                assert_eq!(store.get(digest).unwrap(), put.bytes);
            }
            let files = disk.list(Path::new(DIR)).unwrap();
            assert_eq!(files.len(), store.digests().len(), "{files:?}");
            assert_eq!(steps(&store, &puts), 4);
            assert_eq!(store.digests(), sorted(&[two, three]));
        }
    }
}

#[test]
fn a_failed_sync_is_no_promise() {
    let put = put_of(1, 1);
    let disk = FaultyDisk::new(3);
    let store = start(&disk);
    for more in 0..2 {
        disk.inject(Fault::SyncError { syncs: disk.syncs() + more }).unwrap();
        assert!(matches!(store.put(&put), Err(Error::Internal(_))));
        assert!(store.digests().is_empty());
    }
    store.put(&put).unwrap();
    disk.reboot();
    assert_eq!(start(&disk).get(put.digest).unwrap(), put.bytes);
}

#[test]
fn other_files_are_left_alone() {
    let name = Name { collection: collection(5), digest: MapDigest(0xab) };
    assert_eq!(Name::parse(&name.file()), Some(name));
    for file in ["x.map", "-.map", &name.file().to_uppercase(), &name.file()[1..], "MANIFEST"] {
        assert_eq!(Name::parse(file), None, "{file}");
    }
    let disk = FaultyDisk::new(1);
    drop(start(&disk));
    drop(disk.create(&Path::new(DIR).join("notes")).unwrap());
    drop(disk.create(&Path::new(DIR).join("x.map.tmp")).unwrap());
    assert!(start(&disk).digests().is_empty());
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), ["notes"]);
}
