//! Filters of every share and every relation to the query: recall must not collapse, whichever way a search goes.

use vicinal_common::distance::Kernel;

use super::super::tests::{build_default, build_with, clustered, kinds};
use super::*;
use crate::hnsw::mix;
use crate::hnsw::{HnswParams, Over};
use crate::{FlatIndex, RowSet, VectorIndex};

/// The metrics that have 4-bit codes, and dimensions of all their layouts.
const SHORT: [(Metric, usize); 5] =
    [(Metric::Cosine, 100), (Metric::Cosine, 384), (Metric::Euclid, 32), (Metric::Euclid, 200), (Metric::Dot, 72)];

const ROWS: usize = 12_000;
const DIM: usize = 40;

/// For one query: rows by a hash, the nearest rows, the farthest rows; `percent` of all.
fn masks(distances: &[f32], percent: usize) -> [(&'static str, RowSet); 3] {
    let mut sorted = distances.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rows = distances.len();
    let share = rows * percent / 100;
    let (near, far) = (sorted[share], sorted[rows - 1 - share]);
    let filter = |accepts: &dyn Fn(u32) -> bool| RowSet::of(rows, (0..rows as u32).filter(|row| accepts(*row)));
    [
        ("independent", filter(&|row| mix(u64::from(row)) % 100 < percent as u64)),
        ("near", filter(&|row| distances[row as usize] < near)),
        ("far", filter(&|row| distances[row as usize] > far)),
    ]
}

#[test]
fn recall_does_not_collapse_under_any_filter() {
    for (metric, over) in kinds() {
        let data = clustered(metric, ROWS, DIM, 21);
        let queries = clustered(metric, 12, DIM, 22);
        let rows = Rows { data: &data, dim: DIM };
        let index = build_with(rows, metric, HnswParams { over, ..HnswParams::default() }, 2);
        let (flat, kernel) = (FlatIndex::new(metric), Kernel::new(metric));
        let params = SearchParams::new(10, 64);
        for percent in [70, 50, 20, 10, 5, 2] {
            let mut found = [0usize; 3];
            for query in queries.chunks_exact(DIM) {
                let mut distances = vec![0.0; ROWS];
                kernel.distances(query, &data, DIM, &mut distances);
                for (i, (name, mask)) in masks(&distances, percent).iter().enumerate() {
                    let exact = flat.search(rows, query, params, mask.accept());
                    let hits = index.search(rows, query, params, mask.accept());
                    assert_eq!(hits.len(), exact.len(), "{metric:?} {over:?} {name} {percent} %");
                    assert!(hits.is_sorted_by(|a, b| a.cmp_total(b).is_lt()));
                    for hit in &hits {
                        assert!(mask.accept().contains(hit.row), "{name}: a row that is not accepted");
                        assert_eq!(hit.distance, distances[hit.row as usize], "an inexact distance");
                    }
                    found[i] += hits.iter().filter(|hit| exact.iter().any(|other| other.row == hit.row)).count();
                    // The same rows through a test whose count is not known.
                    let test = |row: u32| mask.accept().contains(row);
                    assert_eq!(index.search(rows, query, params, Accept::test(&test)).len(), exact.len());
                }
            }
            let least = found.iter().min().copied().unwrap_or(0);
            assert!(least * 100 >= 95 * 120, "{metric:?} {over:?} {percent} %: {found:?} of 120");
        }
    }
}

/// How many of the exact hits are among others.
fn found_of(exact: &[Hit], hits: &[Hit]) -> usize {
    hits.iter().filter(|hit| exact.iter().any(|other| other.row == hit.row)).count()
}

#[test]
fn scans_by_short_codes_find_what_exact_ones_find() {
    const ROWS: usize = 5000;
    for (metric, dim) in SHORT {
        let data = clustered(metric, ROWS, dim, 31);
        let queries = clustered(metric, 10, dim, 32);
        let rows = Rows { data: &data, dim };
        let index = build_default(rows, metric, Over::Codes);
        let (flat, kernel) = (FlatIndex::new(metric), Kernel::new(metric));
        let mut found = [0usize; 3];
        let mut wanted = 0;
        for (query, percent) in queries.chunks_exact(dim).flat_map(|query| [(query, 6), (query, 25)]) {
            let mut distances = vec![0.0; ROWS];
            kernel.distances(query, &data, dim, &mut distances);
            // A beam that makes the walk so long that matches are scanned.
            for (k, ef) in [(1, 200), (10, 200), (50, 200)] {
                let params = SearchParams::new(k, ef);
                wanted += k;
                for (i, (name, mask)) in masks(&distances, percent).iter().enumerate() {
                    let accept = mask.accept();
                    assert_eq!(index.way(params, accept), Way::Scan);
                    let exact = flat.search(rows, query, params, accept);
                    let hits = index.search(rows, query, params, accept);
                    assert_eq!(hits.len(), k);
                    assert!(hits.is_sorted_by(|a, b| a.cmp_total(b).is_lt()), "{metric:?} {name}");
                    assert!(hits.iter().all(|hit| accept.contains(hit.row)));
                    assert!(hits.iter().all(|hit| hit.distance == distances[hit.row as usize]), "inexact distances");
                    found[i] += found_of(&exact, &hits);
                    // The same in any form, on any number of threads, and for certain where that is asked for.
                    let test = |row: u32| accept.contains(row);
                    let tested = Accept::Test { test: &test, count: Some(mask.count()) };
                    assert_eq!(index.search(rows, query, params, tested), hits);
                    let spread = SearchParams { threads: 3, ..params };
                    assert_eq!(index.search(rows, query, spread, accept), hits);
                    let certain = SearchParams { exact: true, ..params };
                    assert_eq!(index.search(rows, query, certain, accept), exact, "{metric:?} {name}");
                }
            }
        }
        let least = found.iter().min().copied().unwrap_or(0);
        assert!(least * 1000 >= wanted * 985, "{metric:?} {dim}: {found:?} of {wanted}");
    }
}

#[test]
fn copies_do_not_crowd_out_what_is_nearer() {
    // Many more copies than candidates are kept, of vectors that are about as near as those that are there once.
    for (metric, dim) in SHORT {
        let once = clustered(metric, 1500, dim, 41);
        let mut data = once.clone();
        for copied in [3, 4, 700] {
            data.extend(std::iter::repeat_n(&once[copied * dim..][..dim], 600).flatten());
        }
        let rows = Rows { data: &data, dim };
        let index = build_default(rows, metric, Over::Codes);
        let flat = FlatIndex::new(metric);
        let dead = |row: u32| mix(u64::from(row)).is_multiple_of(10);
        let living = RowSet::of(rows.len(), (0..rows.len() as u32).filter(|row| !dead(*row)));
        let (mut found, mut wanted) = (0, 0);
        for of in [0, 3, 4, 5, 700, 701] {
            let query = &once[of * dim..][..dim];
            for k in [1, 10, 300, 1000] {
                let params = SearchParams::new(k, 400);
                assert_eq!(index.way(params, living.accept()), Way::Scan);
                let exact = flat.search(rows, query, params, living.accept());
                let hits = index.search(rows, query, params, living.accept());
                assert!(hits.is_sorted_by(|a, b| a.cmp_total(b).is_lt()));
                found += found_of(&exact, &hits);
                wanted += exact.len();
                if exact[0].distance == exact[exact.len() - 1].distance {
                    assert_eq!(hits, exact, "{metric:?}: rows decide between equal distances");
                }
            }
        }
        assert!(found * 1000 >= wanted * 985, "{metric:?} {dim}: {found} of {wanted}");
    }
}

#[test]
fn few_matches_and_many_hits() {
    for (metric, dim) in SHORT {
        let data = clustered(metric, 3000, dim, 51);
        let rows = Rows { data: &data, dim };
        let index = build_default(rows, metric, Over::Codes);
        let flat = FlatIndex::new(metric);
        for matches in [0, 1, 2, 63, 64, 65, 256, 257, 300, 1025] {
            let mask = RowSet::of(3000, (0..matches).map(|i| (i * 7919) % 3000));
            for (k, ef) in [(1, 1), (10, 0), (64, 1), (300, 1), (2000, 5000), (usize::MAX, usize::MAX)] {
                let params = SearchParams::new(k, ef);
                let exact = flat.search(rows, &data[..dim], params, mask.accept());
                let hits = index.search(rows, &data[..dim], params, mask.accept());
                assert_eq!(hits.len(), exact.len(), "{metric:?} {dim} {matches} {k}");
                if k as u64 >= u64::from(matches) {
                    assert_eq!(hits, exact, "{metric:?} {dim} {matches} {k}");
                }
            }
        }
    }
}
