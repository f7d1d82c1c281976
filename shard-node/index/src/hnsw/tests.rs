//! Quality, determinism and robustness of whole graphs, against the exact index.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::graph::NONE;
use super::*;
use crate::{Accept, FlatIndex, Hit, SearchParams, VectorIndex};

pub(crate) const METRICS: [Metric; 4] = [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan];

/// `rows` prepared vectors around 100 centres whose lengths differ, row-major.
pub(crate) fn clustered(metric: Metric, rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let unit = |n: u64| (build::mix(n) >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    let mut data = Vec::with_capacity(rows * dim);
    for row in 0..rows as u64 {
        let cluster = build::mix(seed ^ row.wrapping_mul(77)) % 100;
        let scale = 0.3 + (cluster % 10) as f32;
        for d in 0..dim as u64 {
            let centre = unit(cluster * 1000 + d) * scale;
            data.push(centre + unit(seed.wrapping_add((row * 1000 + d) << 8)) * 0.5 * scale);
        }
    }
    data.chunks_exact_mut(dim).for_each(|row| metric.prepare(row));
    data
}

pub(super) fn build_with(rows: Rows<'_>, metric: Metric, params: HnswParams, threads: usize) -> HnswIndex {
    let (cancel, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let index = HnswIndex::build(rows, metric, params, BuildControl { cancel: &cancel, done: &done, threads }).unwrap();
    let index = index.with_short_codes().unwrap();
    assert_eq!(done.load(Ordering::Relaxed), rows.len() as u64);
    index
}

pub(super) fn build_default(rows: Rows<'_>, metric: Metric, over: Over) -> HnswIndex {
    build_with(rows, metric, HnswParams { over, ..HnswParams::default() }, 1)
}

/// Every metric with every kind of graph.
pub(super) fn kinds() -> impl Iterator<Item = (Metric, Over)> {
    METRICS.into_iter().flat_map(|metric| [(metric, Over::Vectors), (metric, Over::Codes)])
}

/// Mean share of the exact top k that the graph finds.
fn recall(index: &HnswIndex, rows: Rows<'_>, queries: &[f32], params: SearchParams, accept: Accept<'_>) -> f64 {
    let flat = FlatIndex::new(index.metric());
    let mut found = 0;
    let mut wanted = 0;
    for query in queries.chunks_exact(rows.dim) {
        let exact: BTreeSet<u32> = flat.search(rows, query, params, accept).iter().map(|hit| hit.row).collect();
        let hits = index.search(rows, query, params, accept);
        assert!(hits.is_sorted_by(|a, b| a.cmp_total(b).is_lt()));
        assert!(hits.iter().all(|hit| accept.contains(hit.row)));
        assert_eq!(hits.len(), exact.len());
        found += hits.iter().filter(|hit| exact.contains(&hit.row)).count();
        wanted += exact.len();
    }
    if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 }
}

/// How many rows can be reached from the entry point in layer 0, chains included.
pub(super) fn reachable(index: &HnswIndex) -> usize {
    let graph = index.graph();
    let mut seen = BTreeSet::from([graph.entry]);
    let mut open = vec![graph.entry];
    while let Some(row) = open.pop() {
        let list = graph.base().neighbours(row).iter().copied().take_while(|next| *next != NONE);
        open.extend(list.filter(|next| seen.insert(*next)));
    }
    seen.into_iter().map(|row| graph.equal_rows(row).count()).sum()
}

#[test]
fn recall_is_high_and_grows_with_ef_for_every_metric() {
    for (metric, over) in kinds() {
        let data = clustered(metric, 10_000, 32, 1);
        let queries = clustered(metric, 100, 32, 2);
        let rows = Rows { data: &data, dim: 32 };
        let index = build_default(rows, metric, over);
        assert_eq!(reachable(&index), rows.len(), "{metric:?} {over:?}");
        let recalls =
            [16, 32, 64, 128, 256].map(|ef| recall(&index, rows, &queries, SearchParams::new(10, ef), Accept::All));
        assert!(recalls[3] >= 0.97, "{metric:?} {over:?} {recalls:?}");
        assert!(recalls.is_sorted_by(|a, b| *b >= a - 0.005), "{metric:?} {over:?} {recalls:?}");
    }
}

#[test]
fn the_graph_depends_on_rows_parameters_and_seed_but_not_on_threads() {
    let data = clustered(Metric::Dot, 3000, 8, 3);
    let rows = Rows { data: &data, dim: 8 };
    let bytes = |seed, threads| {
        let mut out = Vec::new();
        build_with(rows, Metric::Dot, HnswParams { m: 6, ef_construction: 40, seed, ..HnswParams::default() }, threads)
            .encode(&mut out);
        out
    };
    let one = bytes(7, 1);
    assert!(one == bytes(7, 1) && one == bytes(7, 2) && one == bytes(7, 5));
    assert!(one != bytes(8, 1));
}

#[test]
fn filters_do_not_collapse() {
    for (metric, over) in kinds() {
        let data = clustered(metric, 10_000, 32, 4);
        let queries = clustered(metric, 50, 32, 5);
        let rows = Rows { data: &data, dim: 32 };
        let index = build_default(rows, metric, over);
        for (per_mille, ef) in [(999, 64), (500, 64), (100, 16), (100, 4), (10, 64), (1, 64), (0, 64)] {
            let accept = |row: u32| build::mix(u64::from(row)) % 1000 < per_mille;
            let recall = recall(&index, rows, &queries, SearchParams::new(10, ef), Accept::test(&accept));
            assert!(recall >= 0.9, "{metric:?} {over:?} {per_mille}/1000 ef {ef}: {recall}");
        }
        // Only rows far from the query: correlation against the filter.
        let query = &queries[..32];
        let kernel = Kernel::new(metric);
        let mut distances: Vec<f32> = (0..10_000).map(|row| kernel.distance(query, rows.row(row))).collect();
        distances.sort_by(f32::total_cmp);
        let far = |row: u32| kernel.distance(query, rows.row(row)) > distances[6000];
        assert!(
            recall(&index, rows, query, SearchParams::new(10, 64), Accept::test(&far)) >= 0.9,
            "{metric:?} {over:?}"
        );
    }
}

#[test]
fn thousands_of_equal_rows_are_all_found_in_row_order() {
    for (metric, over) in kinds() {
        let mut data = vec![3.0f32; 4 * 5000];
        data.chunks_exact_mut(4).for_each(|row| metric.prepare(row));
        let equal = data[..4].to_vec();
        data.splice(0..0, clustered(metric, 1500, 4, 6));
        data.extend(clustered(metric, 1500, 4, 7));
        let rows = Rows { data: &data, dim: 4 };
        let index = build_default(rows, metric, over);
        assert_eq!(reachable(&index), 8000, "{metric:?} {over:?}");
        let odd = |row: u32| row % 2 == 1;
        let flat = FlatIndex::new(metric);
        for k in [1, 10, 100] {
            let params = SearchParams::new(k, 32);
            assert_eq!(
                index.search(rows, &equal, params, Accept::All),
                flat.search(rows, &equal, params, Accept::All),
                "{metric:?} {over:?}"
            );
            assert_eq!(
                index.search(rows, &equal, params, Accept::test(&odd)),
                flat.search(rows, &equal, params, Accept::test(&odd)),
                "{metric:?} {over:?}"
            );
        }
        let queries = clustered(metric, 50, 4, 8);
        assert!(recall(&index, rows, &queries, SearchParams::new(10, 64), Accept::All) >= 0.97, "{metric:?} {over:?}");
    }
}

#[test]
fn degenerate_rows_give_exact_answers() {
    let line: Vec<f32> = (0..2000u16).map(|i| f32::from(i / 2)).collect();
    // Squares underflow to 0: every distance is equal although no two rows are.
    let tiny: Vec<f32> = (1..=2000u32).map(f32::from_bits).collect();
    let huge: Vec<f32> = (0..2000u16).map(|i| f32::MAX - f32::MAX / 5000.0 * f32::from(i)).collect();
    let same = vec![1.0f32; 2000];
    for (metric, over) in kinds() {
        for data in [&line, &tiny, &huge, &same] {
            let mut data = data.clone();
            data.chunks_exact_mut(1).for_each(|row| metric.prepare(row));
            let rows = Rows { data: &data, dim: 1 };
            let index = build_default(rows, metric, over);
            assert_eq!(reachable(&index), 2000, "{metric:?} {over:?}");
            let flat = FlatIndex::new(metric);
            for query in [[0.0], [700.0], [-1.0]] {
                for params in [SearchParams::new(10, 40), SearchParams::new(3000, 1)] {
                    let distances = |hits: Vec<Hit>| hits.iter().map(|hit| hit.distance).collect::<Vec<_>>();
                    let expected = distances(flat.search(rows, &query, params, Accept::All));
                    let got = distances(index.search(rows, &query, params, Accept::All));
                    // Products of two tiny or two huge rows leave the range of f32: the build sees only ties, where a
                    // query of ordinary size sees differences.
                    let out_of_range = data[0] == tiny[0] || data[0] == huge[0];
                    // So do codes of them; and codes for L1 have 256 levels for all rows together.
                    let coarse = over == Over::Codes && (out_of_range || metric == Metric::Manhattan);
                    if metric == Metric::Dot && out_of_range || coarse {
                        assert_eq!(got.len(), expected.len());
                    } else {
                        assert_eq!(got, expected, "{metric:?} {over:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn few_rows_and_odd_parameters() {
    for (metric, over) in kinds() {
        for count in [0, 1, 2, 129, 600] {
            let data = clustered(metric, count, 3, 9);
            let rows = Rows { data: &data, dim: 3 };
            let params = HnswParams { m: 2, ef_construction: 1, seed: 1, over };
            let index = build_with(rows, metric, params, 1);
            for (k, ef) in [(0, 10), (1, 0), (5, 1), (count, 2), (count + 10, 3), (usize::MAX, usize::MAX)] {
                let hits = index.search(rows, &[0.1, 0.2, 0.3], SearchParams::new(k, ef), Accept::All);
                assert_eq!(hits.len(), k.min(count), "{metric:?} {over:?} {count} {k} {ef}");
                assert!(index.search(rows, &[0.1; 3], SearchParams::new(k, ef), Accept::test(&|_| false)).is_empty());
            }
        }
    }
}

#[test]
fn a_build_can_be_cancelled_and_refuses_bad_parameters() {
    let data = clustered(Metric::Euclid, 1000, 4, 10);
    let rows = Rows { data: &data, dim: 4 };
    let (cancel, done) = (AtomicBool::new(true), AtomicU64::new(0));
    let control = BuildControl { cancel: &cancel, done: &done, threads: 2 };
    let build = |params| HnswIndex::build(rows, Metric::Euclid, params, control).err();
    assert_eq!(build(HnswParams::default()), Some(BuildError::Cancelled));
    for (m, ef_construction) in [(1, 100), (257, 100), (16, 0), (16, 10_001)] {
        let error = build(HnswParams { m, ef_construction, seed: 0, ..HnswParams::default() });
        assert_eq!(error, Some(BuildError::Params { m, ef_construction }));
    }
    cancel.store(false, Ordering::Relaxed);
    // Cancelled from another thread while it runs: the build ends at once, finished or not.
    let many = clustered(Metric::Euclid, 20_000, 16, 11);
    let many = Rows { data: &many, dim: 16 };
    let result = std::thread::scope(|scope| {
        let build = scope.spawn(|| HnswIndex::build(many, Metric::Euclid, HnswParams::default(), control));
        while done.load(Ordering::Relaxed) < 256 {
            std::thread::yield_now();
        }
        cancel.store(true, Ordering::Relaxed);
        build.join().unwrap()
    });
    assert_eq!(result.err(), Some(BuildError::Cancelled));
    assert!(done.load(Ordering::Relaxed) < 20_000);
}
