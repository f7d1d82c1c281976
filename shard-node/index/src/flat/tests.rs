//! The exact index, by vectors and by codes, against sorting everything.

use proptest::prelude::*;

use super::*;
use crate::hnsw::tests::{METRICS, clustered};
use crate::{Hit, RowSet};

proptest! {
    #[test]
    fn equals_sorting_everything(
        values in prop::collection::vec(-3i8..3, 0..600),
        dim in 1usize..6,
        k in 0usize..40,
        modulus in 1u32..5,
    ) {
        let mut data: Vec<f32> = values.into_iter().map(f32::from).collect();
        data.truncate(data.len() / dim * dim);
        let query = vec![0.5; dim];
        for metric in METRICS {
            let mut data = data.clone();
            data.chunks_exact_mut(dim).for_each(|row| metric.prepare(row));
            let rows = Rows { data: &data, dim };
            let kernel = Kernel::new(metric);
            let mut expected: Vec<Hit> = (0..rows.len() as u32)
                .filter(|row| row.is_multiple_of(modulus))
                .map(|row| Hit { distance: kernel.distance(&query, rows.row(row)), row })
                .collect();
            expected.sort_by(Hit::cmp_total);
            expected.truncate(k);
            let test = |row: u32| row.is_multiple_of(modulus);
            let accept = Accept::test(&test);
            let got = FlatIndex::new(metric).search(rows, &query, SearchParams::new(k, 0), accept);
            prop_assert_eq!(&got, &expected);
            let coded = FlatIndex::coded(rows, metric, 1).unwrap();
            prop_assert_eq!(coded.search(rows, &query, SearchParams::new(k, 0), accept), expected, "{:?}", metric);
        }
    }
}

/// Many chunks, so that threads really share.
#[test]
fn codes_and_threads_change_nothing() {
    const ROWS: usize = 30_000;
    const DIM: usize = 48;
    for metric in METRICS {
        let data = clustered(metric, ROWS, DIM, 3);
        let queries = clustered(metric, 8, DIM, 4);
        let rows = Rows { data: &data, dim: DIM };
        let (plain, coded) = (FlatIndex::new(metric), FlatIndex::coded(rows, metric, 1).unwrap());
        let some = RowSet::of(ROWS, (0..ROWS as u32).filter(|row| row % 7 < 3));
        for query in queries.chunks_exact(DIM) {
            for accept in [Accept::All, some.accept(), Accept::test(&|row| row > 20_000)] {
                for k in [1, 10, 3_000] {
                    let one = SearchParams::new(k, 0);
                    let several = SearchParams { threads: 3, ..one };
                    let expected = plain.search_counted(rows, query, one, accept);
                    assert_eq!(expected.distances, accept.iter(ROWS).count() as u64);
                    assert_eq!(plain.search_counted(rows, query, several, accept), expected);
                    for params in [one, several] {
                        let got = coded.search_counted(rows, query, params, accept);
                        assert_eq!(got.hits, expected.hits, "{metric:?} k {k}");
                        assert!(k > 10 || got.distances < 2 * expected.distances, "codes rule nothing out");
                    }
                }
            }
        }
    }
}

#[test]
fn all_threads_scan_at_the_same_time() {
    const THREADS: usize = 3;
    let data = clustered(Metric::Euclid, 10_000, 64, 5);
    let rows = Rows { data: &data, dim: 64 };
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    let all_seen = std::sync::Condvar::new();
    // The first row of each thread waits until every thread has one; those that must wait for each other never meet.
    let test = |_: u32| {
        let mut seen = seen.lock().unwrap();
        if seen.insert(std::thread::current().id()) {
            all_seen.notify_all();
            let patience = std::time::Duration::from_secs(20);
            let waited = all_seen.wait_timeout_while(seen, patience, |seen| seen.len() < THREADS).unwrap();
            assert!(!waited.1.timed_out(), "{} of {THREADS} threads", waited.0.len());
        }
        true
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap();
    let params = SearchParams { threads: THREADS, ..SearchParams::new(10, 0) };
    let hits = pool.install(|| FlatIndex::new(Metric::Euclid).search(rows, &data[..64], params, Accept::test(&test)));
    assert_eq!(hits.len(), 10);
}

#[test]
fn k_beyond_the_rows_returns_every_row() {
    let data = [1.0, 0.0, 2.0];
    let rows = Rows { data: &data, dim: 1 };
    for index in [FlatIndex::new(Metric::Euclid), FlatIndex::coded(rows, Metric::Euclid, 1).unwrap()] {
        let hits = index.search(rows, &[0.0], SearchParams::new(usize::MAX, 1), Accept::All);
        assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [1, 0, 2]);
    }
}

#[test]
fn no_rows_no_hits() {
    let rows = Rows { data: &[], dim: 7 };
    for index in [FlatIndex::new(Metric::Dot), FlatIndex::coded(rows, Metric::Dot, 1).unwrap()] {
        assert!(index.search(rows, &[0.0; 7], SearchParams::new(3, 3), Accept::All).is_empty());
    }
}
