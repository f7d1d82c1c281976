//! Recall and speed on a real data set. Not part of a test run: `VICINAL_BENCH_DATA` names the folder of one set, with
//! `base_u8.npy`, `query_u8.npy` and `gt.npy` (Euclid).

use std::path::Path;
use std::time::Instant;

use vicinal_common::metric::Metric;

use super::tests::{build_with, reachable};
use super::*;

/// Shape and raw values of a C-order .npy file of two dimensions.
fn read_npy(path: &Path) -> (usize, usize, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "{}", path.display());
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let sizes: Vec<usize> = shape.split(',').map(|n| n.trim().parse().unwrap()).collect();
    (sizes[0], sizes[1], bytes[end..].to_vec())
}

#[test]
#[ignore = "needs VICINAL_BENCH_DATA, takes a minute"]
fn recall_and_speed_on_real_data() {
    let folder = std::env::var("VICINAL_BENCH_DATA").expect("VICINAL_BENCH_DATA names a data set");
    let read = |name: &str| read_npy(&Path::new(&folder).join(name));
    let (_, dim, base) = read("base_u8.npy");
    let (queries, _, query) = read("query_u8.npy");
    let (_, depth, truth) = read("gt.npy");
    let base: Vec<f32> = base.into_iter().map(f32::from).collect();
    let query: Vec<f32> = query.into_iter().map(f32::from).collect();
    let truth: Vec<u32> = truth.as_chunks::<4>().0.iter().map(|row| u32::from_le_bytes(*row)).collect();
    let rows = Rows { data: &base, dim };
    let start = Instant::now();
    let index = build_with(rows, Metric::Euclid, HnswParams::default(), 1);
    println!(
        "build, one thread: {:.1} s, {} bytes a row",
        start.elapsed().as_secs_f64(),
        index.bytes() / rows.len() as u64
    );
    println!("reachable: {} of {}", reachable(&index), rows.len());
    let queries = queries.min(5000);
    for ef in [32, 64, 128] {
        let params = SearchParams { k: 10, ef };
        let mut best_seconds = f64::MAX;
        let mut found = 0;
        for _ in 0..3 {
            let start = Instant::now();
            let hits: Vec<Vec<Hit>> =
                query.chunks_exact(dim).take(queries).map(|q| index.search(rows, q, params, &|_| true)).collect();
            best_seconds = best_seconds.min(start.elapsed().as_secs_f64());
            let near = |i: usize| &truth[i * depth..i * depth + 10];
            found = (0..queries).map(|i| hits[i].iter().filter(|hit| near(i).contains(&hit.row)).count()).sum();
        }
        let recall = found as f64 / (10 * queries) as f64;
        println!("ef {ef}: recall@10 {recall:.4}, {:.0} queries/s on one thread", queries as f64 / best_seconds);
        assert!(recall > 0.98);
    }
}
