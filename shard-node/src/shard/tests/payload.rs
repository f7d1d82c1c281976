//! Payload indexes of a shard: files that outlive restarts, damage that is named, snapshots, fresh rows.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use vicinal_common::disk::{Disk, FaultyDisk};
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::payload_index::FieldType;
use vicinal_common::tuning::Tuning;

use super::super::Shard;
use super::super::files::field_name;
use super::harness::{DIR, Model, Work, create, env, filter};
use super::model::copy_files;
use crate::manifest::Manifest;
use crate::payload_index::cut_in_another_way;

fn wanted(revision: u64, fields: &[(&str, FieldType)]) -> Tuning {
    let payload_indexes = fields.iter().map(|(name, of)| ((*name).to_owned(), (*of).into())).collect();
    Tuning { revision, payload_indexes, ..Tuning::default() }
}

/// A shard with some segments, some fresh rows, and indexes of two fields that are built.
fn indexed(disk: &FaultyDisk) -> (Arc<Shard>, Model) {
    let shard = create(&env(disk.clone())).unwrap();
    let (mut work, mut model) = (Work::new(5), Model::default());
    shard.tune(&wanted(3, &[("g", FieldType::Integer), ("text", FieldType::Keyword)])).unwrap();
    for _ in 0..2 {
        (0..60).for_each(|_| drop(work.entry(&mut model)));
        model.replay(&shard).unwrap();
        shard.flush_blocking().unwrap();
    }
    while shard.maintain_once().unwrap() {}
    (0..12).for_each(|_| drop(work.entry(&mut model)));
    model.replay(&shard).unwrap();
    assert!(shard.stats().segments > 0 && shard.stats().fresh_rows > 0, "{:?}", shard.stats());
    (shard, model)
}

fn index_files(disk: &FaultyDisk) -> Vec<String> {
    disk.list(Path::new(DIR)).unwrap().into_iter().filter(|name| name.ends_with(".pidx")).collect()
}

fn check_filters(shard: &Shard, model: &Model) {
    let view = shard.view();
    for group in 0..30 {
        for one in [
            json!({"must": {"key": "g", "match": {"value": group}}}),
            json!({"must_not": {"key": "g", "range": {"lt": group}}}),
            json!({"should": [{"key": "text", "match": {"prefix": "x".repeat(group)}}, {"is_empty": {"key": "g"}}]}),
            json!({"must": [{"key": "g", "range": {"gte": group}}, {"key": "unknown", "is_null": false}]}),
        ] {
            let one: Filter = filter(one);
            let expected = model.scroll(None, usize::MAX, Some(&one));
            assert_eq!(view.count(Some(&one)).unwrap(), expected.len() as u64, "{one:?}");
            assert_eq!(view.scroll(None, usize::MAX, Some(&one), &super::harness::all_parts()).unwrap(), expected);
        }
    }
}

#[test]
fn indexes_are_found_again_and_missing_ones_are_built() {
    let disk = FaultyDisk::new(1);
    let (shard, model) = indexed(&disk);
    let files = index_files(&disk);
    assert_eq!(files.len() as u64, 2 * shard.stats().segments);
    check_filters(&shard, &model);
    let points = |shard: &Shard| shard.stats().payload.points;
    let expected = |key: &str| {
        model.scroll(None, usize::MAX, None).iter().filter(|p| p.payload.fields().unwrap().contains_key(key)).count()
            as u64
    };
    assert_eq!(points(&shard), [("g".to_owned(), expected("g")), ("text".to_owned(), expected("text"))].into());
    shard.close();
    drop(shard);

    let shard = Shard::open(&env(disk.clone()), Path::new(DIR)).unwrap();
    let stats = shard.stats();
    assert_eq!((stats.tuning, stats.payload.missing), (3, 0), "opening needs to build nothing");
    assert_eq!(index_files(&disk), files);
    model.replay(&shard).unwrap();
    check_filters(&shard, &model);
    shard.close();
    drop(shard);

    disk.remove(&Path::new(DIR).join(&files[0])).unwrap();
    let shard = Shard::open(&env(disk.clone()), Path::new(DIR)).unwrap();
    assert_eq!(shard.stats().payload.missing, 1);
    assert!(shard.stats().optimizing);
    model.replay(&shard).unwrap();
    check_filters(&shard, &model);
    while shard.maintain_once().unwrap() {}
    assert_eq!(shard.stats().payload.missing, 0);
    check_filters(&shard, &model);
}

#[test]
fn indexes_follow_the_newest_set() {
    let disk = FaultyDisk::new(2);
    let (shard, model) = indexed(&disk);
    shard.tune(&wanted(2, &[])).unwrap();
    assert_eq!(shard.stats().tuning, 3, "an older set changes nothing");
    // Another type under the same name, a new field, one that goes.
    shard.tune(&wanted(4, &[("g", FieldType::Float), ("a[].b", FieldType::Geo)])).unwrap();
    assert!(shard.stats().payload.missing > 0);
    check_filters(&shard, &model);
    while shard.maintain_once().unwrap() {}
    assert_eq!(index_files(&disk).len() as u64, 2 * shard.stats().segments);
    check_filters(&shard, &model);
    shard.tune(&wanted(5, &[])).unwrap();
    assert!(index_files(&disk).is_empty());
    check_filters(&shard, &model);
}

#[test]
fn a_damaged_index_is_named_and_not_used() {
    let disk = FaultyDisk::new(3);
    let (shard, _) = indexed(&disk);
    shard.close();
    drop(shard);
    for name in index_files(&disk) {
        let path = Path::new(DIR).join(&name);
        let good = disk.read(&path).unwrap();
        let check = |bytes: &[u8], what: &str| {
            disk.remove(&path).unwrap();
            disk.create(&path).unwrap().write_at(0, bytes).unwrap();
            let error = Shard::open(&env(disk.clone()), Path::new(DIR)).err();
            let is_named = matches!(&error, Some(Error::Corrupt(text)) if text.contains(&name));
            assert!(is_named, "{name} {what}: {error:?}");
        };
        for at in (0..good.len()).step_by(1 + good.len() / 40) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            check(&bytes, &format!("flipped at {at}"));
            check(&good[..at], &format!("cut at {at}"));
        }
        check(&[good.as_slice(), &[0; 64]].concat(), "longer");
        disk.remove(&path).unwrap();
        disk.create(&path).unwrap().write_at(0, &good).unwrap();
    }
    Shard::open(&env(disk), Path::new(DIR)).unwrap();
}

#[test]
fn a_snapshot_brings_its_indexes() {
    let disk = FaultyDisk::new(4);
    let (shard, model) = indexed(&disk);
    let snapshot = shard.snapshot().unwrap();
    for (own, revision) in [(None, 3), (Some(wanted(9, &[("g", FieldType::Integer)])), 9)] {
        let target_disk = FaultyDisk::new(5);
        let target_env = env(target_disk.clone());
        let target = create(&target_env).unwrap();
        if let Some(own) = &own {
            target.tune(own).unwrap();
        }
        let incoming = target.begin_install().unwrap();
        copy_files(&shard.env, &target_env, &snapshot, &incoming);
        target.finish_install(&snapshot.manifest).unwrap();
        let stats = target.stats();
        assert_eq!((stats.tuning, stats.payload.missing), (revision, 0));
        let fields = if own.is_some() { 1 } else { 2 };
        assert_eq!(index_files(&target_disk).len() as u64, fields * target.stats().segments);
        model.replay(&target).unwrap();
        check_filters(&target, &model);
        target.close();
        drop(target);
        let target = Shard::open(&target_env, Path::new(DIR)).unwrap();
        assert_eq!((target.stats().tuning, target.stats().payload.missing), (revision, 0));
    }
}

/// Makes the text indexes in a directory those of another evaluator. The manifest that names them.
fn of_another_evaluator(disk: &FaultyDisk, dir: &Path, mut manifest: Manifest) -> Vec<u8> {
    for segment in &mut manifest.segments {
        for index in segment.payload_indexes.iter_mut().filter(|index| index.of == FieldType::Text) {
            let path = dir.join(field_name(segment.number, index.number));
            let mut bytes = disk.read(&path).unwrap();
            cut_in_another_way(&mut bytes);
            index.crc = crc32fast::hash(&bytes);
            disk.remove(&path).unwrap();
            disk.create(&path).unwrap().write_at(0, &bytes).unwrap();
        }
    }
    manifest.encode().unwrap()
}

#[test]
fn text_indexes_of_another_evaluator_are_built_again() {
    let disk = FaultyDisk::new(6);
    let (shard, model) = indexed(&disk);
    shard.tune(&wanted(4, &[("g", FieldType::Integer), ("text", FieldType::Text)])).unwrap();
    while shard.maintain_once().unwrap() {}
    let are_built_again = |shard: &Shard, disk: &FaultyDisk| {
        let stats = shard.stats();
        assert_eq!(stats.payload.missing, stats.segments);
        assert_eq!(index_files(disk).len() as u64, stats.segments, "the others stay");
        model.replay(shard).unwrap();
        check_filters(shard, &model);
        while shard.maintain_once().unwrap() {}
        assert_eq!(shard.stats().payload.missing, 0);
        assert_eq!(index_files(disk).len() as u64, 2 * shard.stats().segments);
        check_filters(shard, &model);
    };

    let snapshot = shard.snapshot().unwrap();
    let target_disk = FaultyDisk::new(7);
    let target_env = env(target_disk.clone());
    let target = create(&target_env).unwrap();
    let incoming = target.begin_install().unwrap();
    copy_files(&shard.env, &target_env, &snapshot, &incoming);
    let manifest = Manifest::decode(&snapshot.manifest).unwrap();
    target.finish_install(&of_another_evaluator(&target_disk, &incoming, manifest)).unwrap();
    are_built_again(&target, &target_disk);

    drop(snapshot);
    shard.close();
    drop(shard);
    let dir = Path::new(DIR);
    let manifest = of_another_evaluator(&disk, dir, Manifest::load(&disk, dir).unwrap());
    assert!(Manifest::store(&disk, dir, &manifest).is_ok());
    are_built_again(&Shard::open(&env(disk.clone()), dir).unwrap(), &disk);
}
