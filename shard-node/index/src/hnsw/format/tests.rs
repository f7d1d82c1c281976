//! The file: what is written is what is opened, and nothing else is opened.

use std::ops::Deref;

use proptest::prelude::*;

use super::super::tests::{build_default, build_with, clustered, kinds};
use super::*;
use crate::FlatIndex;
use crate::codes::ShortCodes;
use crate::{Accept, SearchParams, VectorIndex};

/// Bytes at an address that is a multiple of 64, as a memory map has them.
struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

fn mapping(bytes: &[u8]) -> Mapping {
    let mut lines = vec![Line([0; 64]); bytes.len().div_ceil(64)];
    bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
    Mapping::new(Aligned { lines, len: bytes.len() })
}

fn is_corrupt(result: &Result<HnswIndex>) -> bool {
    matches!(result, Err(Error::Corrupt(_)))
}

/// Vectors with some repetition, so that every section is present, and the file over them.
fn sample(metric: Metric, over: Over) -> (Vec<f32>, Vec<u8>) {
    let mut data = clustered(metric, 700, 4, 1);
    data.extend_from_within(..100 * 4);
    let params = HnswParams { m: 4, ef_construction: 20, seed: 5, over };
    let mut bytes = Vec::new();
    build_with(Rows { data: &data, dim: 4 }, metric, params, 1).encode(&mut bytes);
    (data, bytes)
}

fn search_all(index: &HnswIndex, rows: Rows<'_>) -> Vec<crate::Hit> {
    let params = SearchParams::new(5, 8);
    (0..20).flat_map(|row| index.search(rows, rows.row(row), params, Accept::All)).collect()
}

#[test]
fn an_opened_file_searches_like_the_built_graph() {
    for (metric, over) in kinds() {
        let (data, bytes) = sample(metric, over);
        let rows = Rows { data: &data, dim: 4 };
        let params = HnswParams { m: 4, ef_construction: 20, seed: 5, over };
        let built = build_with(rows, metric, params, 1);
        for residency in [Residency::Memory, Residency::Mapped] {
            let opened = HnswIndex::open(mapping(&bytes), rows, residency).unwrap();
            assert_eq!((opened.metric(), opened.params()), (metric, params));
            let short = built.codes.as_ref().and_then(|codes| codes.short.as_ref()).map_or(0, ShortCodes::bytes);
            let left_out = if residency == Residency::Mapped { short } else { 0 };
            assert_eq!(opened.bytes(), built.bytes() - left_out);
            assert!(opened.graph().layer_nodes.len() >= 2 && !opened.graph().twins.is_empty());
            assert_eq!(search_all(&opened, rows), search_all(&built, rows));
            let mut again = Vec::new();
            opened.encode(&mut again);
            assert!(again == bytes);
        }
    }
}

#[test]
fn an_empty_graph_round_trips() {
    let rows = Rows { data: &[], dim: 9 };
    let mut bytes = Vec::new();
    build_default(rows, Metric::Dot, Over::Vectors).encode(&mut bytes);
    assert_eq!(bytes.len(), HEADER_BYTES);
    let opened = HnswIndex::open(mapping(&bytes), rows, Residency::Memory).unwrap();
    assert!(opened.search(rows, &[0.0; 9], SearchParams::new(1, 1), Accept::All).is_empty());
}

#[test]
fn other_rows_and_other_files_are_refused() {
    let (data, bytes) = sample(Metric::Euclid, Over::Codes);
    for (len, dim) in [(799 * 4, 4), (800 * 4, 2), (0, 4)] {
        assert!(is_corrupt(&HnswIndex::open(mapping(&bytes), Rows { data: &data[..len], dim }, Residency::Memory)));
    }
    let rows = Rows { data: &data, dim: 4 };
    for len in [0, 1, 255, 256, 1000, bytes.len() - 64, bytes.len() - 1] {
        assert!(is_corrupt(&HnswIndex::open(mapping(&bytes[..len]), rows, Residency::Memory)), "{len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(is_corrupt(&HnswIndex::open(mapping(&longer), rows, Residency::Memory)));
}

/// Sets the checksums right, as a faulty writer would.
fn reseal(bytes: &mut [u8]) {
    for i in 0..SECTIONS {
        let at = SECTIONS_AT + SECTION_BYTES * i;
        let read = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let (start, len) = (read(at), read(at + 8));
        if let Some(section) = bytes.get(start..start.saturating_add(len)) {
            let crc = crc32fast::hash(section);
            bytes[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
    bytes[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_changed_byte_is_noticed_or_harmless(changes in prop::collection::vec((any::<u32>(), 1u8..), 400)) {
        let (data, bytes) = sample(Metric::Euclid, Over::Codes);
        let rows = Rows { data: &data, dim: 4 };
        let expected = search_all(&HnswIndex::open(mapping(&bytes), rows, Residency::Memory).unwrap(), rows);
        // Half of the changes go to the header.
        for (i, (at, mask)) in changes.into_iter().enumerate() {
            let mut changed = bytes.clone();
            let range = if i % 2 == 0 { HEADER_BYTES } else { bytes.len() };
            let at = at as usize % range;
            changed[at] ^= mask;
            match HnswIndex::open(mapping(&changed), rows, Residency::Memory) {
                Ok(index) => prop_assert_eq!(search_all(&index, rows), expected.clone(), "byte {}", at),
                Err(error) => prop_assert!(matches!(error, Error::Corrupt(_)), "byte {}: {}", at, error),
            }
        }
    }

    #[test]
    fn a_wrong_word_under_right_checksums_never_panics(
        changes in prop::collection::vec((any::<u32>(), prop_oneof![0u32..1200, any::<u32>(), Just(u32::MAX)]), 400),
    ) {
        let (data, bytes) = sample(Metric::Dot, Over::Codes);
        let rows = Rows { data: &data, dim: 4 };
        for (i, (at, value)) in changes.into_iter().enumerate() {
            let mut changed = bytes.clone();
            let range = if i % 2 == 0 { HEADER_CRC_AT } else { bytes.len() };
            let at = at as usize % range / 4 * 4;
            changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
            reseal(&mut changed);
            match HnswIndex::open(mapping(&changed), rows, Residency::Memory) {
                Ok(index) => drop(search_all(&index, rows)),
                Err(error) => prop_assert!(matches!(error, Error::Corrupt(_)), "byte {}: {}", at, error),
            }
        }
    }
}

/// With dimensions enough for 4-bit codes, which are in no file.
#[test]
fn codes_cut_when_opening_are_those_of_the_build() {
    const DIM: usize = 40;
    for metric in [Metric::Euclid, Metric::Cosine, Metric::Dot] {
        let data = clustered(metric, 3_000, DIM, 31);
        let rows = Rows { data: &data, dim: DIM };
        let built = build_default(rows, metric, Over::Codes);
        let mut bytes = Vec::new();
        built.encode(&mut bytes);
        let open = |residency| HnswIndex::open(mapping(&bytes), rows, residency).unwrap();
        let (memory, mapped) = (open(Residency::Memory), open(Residency::Mapped));
        let short =
            |index: &HnswIndex| index.codes.as_ref().and_then(|codes| codes.short.as_ref()).map(ShortCodes::bytes);
        assert_eq!(short(&memory), Some((3_000 * ShortCodes::row_bytes(DIM)) as u64));
        assert_eq!((short(&mapped), memory.bytes()), (None, built.bytes()));
        let flat = FlatIndex::new(metric);
        let (mut found, params) = (0, SearchParams::new(10, 64));
        for query in clustered(metric, 40, DIM, 32).chunks_exact(DIM) {
            let hits = memory.search(rows, query, params, Accept::All);
            assert_eq!(hits, built.search(rows, query, params, Accept::All), "{metric:?}");
            let exact = flat.search(rows, query, params, Accept::All);
            found += mapped.search(rows, query, params, Accept::All).iter().filter(|hit| exact.contains(hit)).count();
        }
        assert!(found >= 380, "{metric:?}: {found} of 400 by the codes of the file");
    }
}
