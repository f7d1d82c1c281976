//! Runs and segment files against sorted maps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;
use vicinal_common::collection::VectorKind;
use vicinal_common::disk::{Disk, FaultyDisk};
use vicinal_common::error::Error;
use vicinal_common::ids::LogIndex;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED, Vectors};
use vicinal_common::vector::{MultiVector, SparseVector, Vector};

use super::*;

const PATH: &str = "/000001.seg";

fn layout() -> Layout {
    let of = |name: &str, kind, dim| VectorLayout { name: name.into(), kind, dim, metric: Metric::Dot, hnsw: None };
    let vector = |name: &str, dim| of(name, VectorKind::Dense, dim);
    Layout {
        vectors: vec![
            vector(UNNAMED, 2),
            vector("absent", 5),
            of("multi", VectorKind::Multi, 2),
            vector("some", 3),
            of("sparse", VectorKind::Sparse { idf: false }, 0),
        ],
    }
}

fn any_point() -> impl Strategy<Value = Point> {
    let id = prop_oneof![
        3 => (0u64..60).prop_map(PointId::Num),
        1 => (0u128..20).prop_map(|n| PointId::Uuid(Uuid::from_u128(n << 100 | n))),
    ];
    let some = prop::option::of(prop::array::uniform3(-9i8..9));
    let unnamed = prop::option::of(prop::array::uniform2(-9i8..9));
    let multi = prop::option::of(prop::collection::vec(prop::array::uniform2(-9i8..9), 1..4));
    let sparse = prop::option::of(prop::collection::btree_map(0u32..9, -9i8..9, 0..5));
    (id, unnamed, some, 0usize..20, multi, sparse).prop_map(|(id, unnamed, some, text, multi, sparse)| {
        let floats = |values: &[i8]| values.iter().map(|v| f32::from(*v)).collect::<Vec<f32>>();
        let mut vectors = Vectors::new();
        vectors.extend(unnamed.map(|values| (UNNAMED.to_owned(), Vector::Dense(floats(&values)))));
        vectors.extend(some.map(|values| ("some".to_owned(), Vector::Dense(floats(&values)))));
        vectors.extend(multi.map(|rows| {
            (String::from("multi"), Vector::Multi(MultiVector { dim: 2, values: floats(&rows.concat()) }))
        }));
        vectors.extend(sparse.map(|pairs| {
            let (indices, values) = pairs.into_iter().map(|(index, value)| (index, f32::from(value))).unzip();
            (String::from("sparse"), Vector::Sparse(SparseVector { indices, values }))
        }));
        let payload = if text == 0 { Bytes::new() } else { Bytes::from(format!("{{\"t\":\"{}\"}}", "y".repeat(text))) };
        Point { id, vectors, payload: Payload::from_stored(payload) }
    })
}

fn read(run: &dyn Run, row: u32) -> (Point, u64) {
    let mut vectors = Vectors::new();
    for (ordinal, vector) in layout().vectors.iter().enumerate() {
        if let Some(values) = run.vectors(ordinal).get(row) {
            vectors.insert(vector.name.clone(), values.to_vector());
        }
    }
    let payload = run.payload_owned(row);
    assert_eq!(payload.as_bytes(), run.payload(row));
    (Point { id: run.ids().get(row), vectors, payload }, run.versions()[row as usize])
}

fn check(run: &dyn Run, expected: &BTreeMap<PointId, (Point, u64)>, probes: &BTreeSet<PointId>) {
    let found: Vec<(Point, u64)> = (0..run.rows()).map(|row| read(run, row)).collect();
    assert_eq!(found, expected.values().cloned().collect::<Vec<_>>());
    assert_eq!(run.max_version().0, expected.values().map(|(_, version)| *version).max().unwrap_or(0));
    for ordinal in 0..layout().vectors.len() {
        let present = run.vectors(ordinal).present;
        let rows = (0..run.rows()).filter(|row| present.contains(*row)).count();
        assert_eq!(present.count(), rows as u64, "vector {ordinal}");
        if let Some(postings) = run.postings(ordinal) {
            postings.check(run.rows()).unwrap();
            let values: usize = (0..9).map(|dim| postings.len_of(dim)).sum();
            assert_eq!(values, run.vectors(ordinal).lists.unwrap().values.len());
        }
    }
    for id in probes {
        let before = expected.range(..*id).count() as u32;
        assert_eq!(run.ids().lower_bound(*id), before);
        assert_eq!(run.ids().find(*id), expected.contains_key(id).then_some(before));
    }
}

fn open(disk: &Arc<dyn Disk>, info: FileInfo, layout: &Layout) -> Result<Segment, Error> {
    let file = StoredFile::new(Arc::clone(disk), PATH.into(), info);
    Segment::open(disk, Path::new(PATH), file, layout)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn batches_and_their_mergers_are_sorted_maps(batches in prop::collection::vec(prop::collection::vec(any_point(), 1..80), 1..5)) {
        let layout = layout();
        let mut runs: Vec<(MemoryRun, Tombstones)> = Vec::new();
        let mut all = BTreeMap::new();
        let mut probes = BTreeSet::new();
        for (i, batch) in batches.iter().enumerate() {
            let version = 10 + i as u64;
            let run = MemoryRun::from_points(batch, LogIndex(version), &layout).unwrap();
            let one: BTreeMap<PointId, (Point, u64)> = batch.iter().map(|p| (p.id, (p.clone(), version))).collect();
            probes.extend(one.keys().copied());
            check(&run, &one, &probes);
            for (older, dead) in &mut runs {
                dead.extend(one.keys().filter_map(|id| older.ids().find(*id)).collect::<Vec<_>>());
            }
            all.extend(one);
            runs.push((run, Tombstones::default()));
        }
        let sources: Vec<Source<'_>> = runs.iter().map(|(run, dead)| Source { run, dead }).collect();
        check(&merge_runs(&sources, &layout), &all, &probes);

        let faulty = FaultyDisk::new(1);
        let info = write_segment(&faulty, Path::new(PATH), &sources, &layout).unwrap().unwrap();
        let bytes = faulty.read(Path::new(PATH)).unwrap();
        prop_assert_eq!(info, FileInfo { bytes: bytes.len() as u64, crc: crc32fast::hash(&bytes) });
        let disk: Arc<dyn Disk> = Arc::new(faulty);
        let segment = open(&disk, info, &layout).unwrap();
        check(&segment, &all, &probes);
        prop_assert!(segment.vectors(1).rows.is_empty());

        // Out of the segment again, without every other row.
        let dead: Tombstones = (0..segment.rows()).step_by(2).collect();
        let left = all.iter().skip(1).step_by(2).map(|(id, point)| (*id, point.clone())).collect();
        check(&merge_runs(&[Source { run: &segment, dead: &dead }], &layout), &left, &probes);
    }
}

#[test]
fn any_damaged_byte_and_any_other_file_is_noticed() {
    let layout = layout();
    let point = |id: u64| Point {
        id: PointId::Num(id),
        vectors: BTreeMap::from([(UNNAMED.to_owned(), vec![1.0, 2.0].into())]),
        payload: Payload::from_stored(Bytes::from_static(b"{\"a\":1}")),
    };
    let write = |ids: std::ops::Range<u64>| {
        let run = MemoryRun::from_points(&ids.map(point).collect::<Vec<_>>(), LogIndex(1), &layout).unwrap();
        let disk = FaultyDisk::new(1);
        let sources = [Source { run: &run, dead: &Tombstones::default() }];
        let info = write_segment(&disk, Path::new(PATH), &sources, &layout).unwrap().unwrap();
        (disk.read(Path::new(PATH)).unwrap(), info)
    };
    let try_open = |bytes: &[u8], info: FileInfo, layout: &Layout| {
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
        write_whole(&*disk, Path::new(PATH), bytes).unwrap();
        open(&disk, info, layout).map(|_| ())
    };
    let (bytes, info) = write(0..70);
    try_open(&bytes, info, &layout).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let opened = try_open(&damaged, info, &layout);
        assert!(matches!(opened, Err(Error::Corrupt(_))), "byte {at}: {opened:?}");
    }
    for length in [0, 1, 63, 64, 95, 96, bytes.len() / 2, bytes.len() - 1] {
        let cut = FileInfo { bytes: length as u64, crc: crc32fast::hash(&bytes[..length]) };
        assert!(matches!(try_open(&bytes[..length], cut, &layout), Err(Error::Corrupt(_))));
    }
    // Another intact file, and the right file for a collection with other vectors.
    let (other, other_info) = write(1..71);
    assert_eq!(other_info.bytes, info.bytes);
    assert!(matches!(try_open(&other, info, &layout), Err(Error::Corrupt(_))));
    let mut wider = layout.clone();
    wider.vectors[0].dim = 3;
    assert!(matches!(try_open(&bytes, info, &wider), Err(Error::Corrupt(_))));
}

#[test]
fn vectors_that_do_not_fit_are_refused() {
    let point = |name: &str, dim: usize| Point {
        id: PointId::Num(1),
        vectors: BTreeMap::from([(name.to_owned(), vec![0.0; dim].into())]),
        payload: Payload::EMPTY,
    };
    for bad in [point("", 3), point("unknown", 2)] {
        let run = MemoryRun::from_points(&[bad], LogIndex(1), &layout());
        assert!(matches!(run.err(), Some(Error::BadInput(_))));
    }
}

#[test]
fn an_obsolete_file_goes_with_its_last_reader() {
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
    let info = write_whole(&*disk, Path::new("/a"), b"content").unwrap();
    let file = Arc::new(StoredFile::new(Arc::clone(&disk), "/a".into(), info));
    let reader = Arc::clone(&file);
    file.mark_obsolete();
    drop(file);
    assert!(disk.exists(Path::new("/a")).unwrap());
    drop(reader);
    assert!(!disk.exists(Path::new("/a")).unwrap());
    // A file that was never finished leaves nothing either.
    let mut writer = FileWriter::create(&*disk, Path::new("/b")).unwrap();
    writer.write(b"some").unwrap();
    drop(writer);
    assert_eq!(disk.list(Path::new("/")).unwrap(), Vec::<String>::new());
}
