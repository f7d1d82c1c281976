//! Filters of every share and every relation to the query: recall must not collapse, whichever way a search goes.

use super::super::tests::{build_with, clustered, kinds};
use super::*;
use crate::hnsw::HnswParams;
use crate::hnsw::mix;
use crate::{FlatIndex, RowSet, VectorIndex};

const ROWS: usize = 12_000;
const DIM: usize = 40;

/// The rows that pass.
fn filter(accepts: impl Fn(u32) -> bool) -> RowSet {
    RowSet::of(ROWS, (0..ROWS as u32).filter(|row| accepts(*row)))
}

/// For one query: rows by a hash, the nearest rows, the farthest rows; `percent` of all.
fn masks(distances: &[f32], percent: usize) -> [(&'static str, RowSet); 3] {
    let mut sorted = distances.to_vec();
    sorted.sort_by(f32::total_cmp);
    let share = ROWS * percent / 100;
    let (near, far) = (sorted[share], sorted[ROWS - 1 - share]);
    [
        ("independent", filter(|row| mix(u64::from(row)) % 100 < percent as u64)),
        ("near", filter(|row| distances[row as usize] < near)),
        ("far", filter(|row| distances[row as usize] > far)),
    ]
}

#[test]
fn recall_does_not_collapse_under_any_filter() {
    for (metric, over) in kinds() {
        let data = clustered(metric, ROWS, DIM, 21);
        let queries = clustered(metric, 12, DIM, 22);
        let rows = Rows { data: &data, dim: DIM };
        let index = build_with(rows, metric, HnswParams { over, ..HnswParams::default() }, 2);
        let (flat, kernel) = (FlatIndex::new(metric), vicinal_common::distance::Kernel::new(metric));
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
