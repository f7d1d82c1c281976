//! The bounds hold for every pair, and are not much wider than they must be.

use proptest::prelude::*;
use vicinal_common::distance::Kernel;

use super::*;
use crate::Rows;
use crate::codes::{CodeKernel, Codes, Packing, ShortQuery};
use crate::hnsw::tests::{METRICS, clustered};

/// For each row its distance by code, the limit at its exact distance, and whether that rules it out; by 8-bit codes, then by
/// 4-bit ones where there are any.
fn limits(data: &[f32], dim: usize, metric: Metric, query: &[f32]) -> Vec<Vec<(f32, f32, bool)>> {
    let rows = Rows { data, dim };
    let (kernel, code_kernel) = (Kernel::new(metric), CodeKernel::new());
    let mut codes = Codes::of(rows, metric, Packing::Dense).unwrap();
    codes.short = codes.shortened().unwrap();
    let mut coded = CodedQuery::default();
    codes.coder.query(code_kernel, query, &mut coded);
    let limits = CodeLimits::new(&codes.coder, codes.errors, query, &coded);
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let (mut products, mut by_code) = (Vec::new(), Vec::new());
    codes.view().score(code_kernel, &coded, &all, &mut products, &mut by_code);
    let of_all = |limits: &CodeLimits, by_code: &[f32]| {
        let of_row = |row: u32| {
            let exact = kernel.distance(query, rows.row(row));
            let step = codes.view().terms[row as usize].scale;
            (by_code[row as usize], limits.at(exact).of(step), limits.at(exact).rule_out(by_code[row as usize], step))
        };
        all.iter().map(|row| of_row(*row)).collect()
    };
    let mut both = vec![of_all(&limits, &by_code)];
    if let Some(short) = &codes.short {
        let mut query_short = ShortQuery::default();
        short.query(&coded, &mut query_short);
        short.score(code_kernel, &query_short, &all, &mut products, &mut by_code);
        both.push(of_all(&CodeLimits::new(&codes.coder, short.errors(), query, &coded), &by_code));
    }
    both
}

proptest! {
    #[test]
    fn no_row_is_farther_by_its_code_than_its_limit(
        values in prop::collection::vec(prop_oneof![4 => -1f32..1.0, 1 => -1e6f32..1e6, 1 => Just(0f32), 1 => -1e-35f32..1e-35], 1..700),
        dim in 1usize..70,
        shift in prop_oneof![Just(0f32), -1e3f32..1e3],
    ) {
        let mut data = values;
        data.resize(data.len().next_multiple_of(dim) + dim, 0.5);
        data.iter_mut().for_each(|x| *x += shift);
        for metric in METRICS {
            let mut data = data.clone();
            data.chunks_exact_mut(dim).for_each(|row| metric.prepare(row));
            let (query, rows) = data.split_at(dim);
            let all = limits(rows, dim, metric, query).into_iter().flat_map(|of| of.into_iter().enumerate());
            for (row, (by_code, limit, is_out)) in all {
                prop_assert!(by_code <= limit || limit.is_nan(), "{metric:?} row {row}: {by_code} by code, the limit is {limit}");
                prop_assert!(!is_out, "{metric:?} row {row}: {by_code} is ruled out by {limit}");
            }
        }
    }
}

#[test]
fn limits_are_near_what_is_limited() {
    let dim = 96;
    for metric in METRICS {
        let data = clustered(metric, 400, dim, 5);
        let (query, rows) = data.split_at(dim);
        let distances = limits(rows, dim, metric, query).swap_remove(0);
        let mean =
            |of: &dyn Fn(&(f32, f32, bool)) -> f32| distances.iter().map(of).sum::<f32>() / distances.len() as f32;
        let spread = mean(&|(by_code, ..)| (by_code - mean(&|(by_code, ..)| *by_code)).abs());
        let gap = mean(&|(by_code, limit, _)| limit - by_code);
        assert!(gap < 0.25 * spread, "{metric:?}: limits are {gap} away, distances {spread} apart");
    }
}

#[test]
fn what_has_no_bound_rules_nothing_out() {
    let data = [f32::MAX, -f32::MAX, 1.0, 2.0, f32::MAX, 3.0];
    for metric in METRICS {
        let query = [f32::MAX, f32::MIN];
        for (by_code, limit, is_out) in limits(&data, 2, metric, &query).swap_remove(0) {
            assert!(!is_out, "{metric:?}: {by_code} is ruled out by {limit}");
        }
    }
}

/// Fails for a row that its own distance rules out. Rows come with their opposites, so that the mean is zero.
fn none_is_ruled_out(row: &[f32], metric: Metric, query: &[f32]) {
    let rows = [row.to_vec(), row.iter().map(|x| -x).collect()].concat();
    for (by_code, limit, is_out) in limits(&rows, row.len(), metric, query).into_iter().flatten() {
        assert!(!is_out, "{metric:?} dim {}: {by_code} is ruled out by {limit}", row.len());
    }
}

/// Arbitrary, and the same for the same numbers.
fn chance(seed: u64, i: usize) -> u64 {
    crate::hnsw::mix(seed << 20 | i as u64)
}

/// The distance of a near-duplicate is less than its own rounding: the difference of two numbers that are nearly one.
#[test]
fn near_duplicates_on_the_border_of_two_codes_are_not_ruled_out() {
    for dim in [32, 64, 128] {
        for seed in 0..1_000 {
            // Levels just before the border to the next one in the row, just behind it in the query; the first sets the step.
            let at = |border: f32| {
                let level = |i: usize| {
                    let side = if chance(seed, i + dim).is_multiple_of(2) { border } else { -border };
                    (chance(seed, i) % 121) as f32 - 60.0 + side
                };
                let mut vector: Vec<f32> = (0..dim).map(|i| if i == 0 { 127.0 } else { level(i) }).collect();
                Metric::Cosine.prepare(&mut vector);
                vector
            };
            none_is_ruled_out(&at(0.4985), Metric::Cosine, &at(0.5045));
        }
    }
}

#[test]
fn the_smallest_and_the_largest_vectors_are_not_ruled_out() {
    let mut axes = [vec![0.0; 64], vec![0.0; 64]];
    (axes[0][0], axes[1][1]) = (3e21, 3e21);
    // Each too long for a product by code, which is zero all the same.
    none_is_ruled_out(&axes[0], Metric::Dot, &axes[1]);
    for seed in 0..20 {
        // Steps too small to divide by, all components just before the border to the next code.
        let level = |i: usize| if i == 0 { 127.0 } else { (chance(seed, i) % 100) as f32 + 0.51 };
        let row: Vec<f32> = (0..96).map(|i| 0.99e-30 * level(i)).collect();
        none_is_ruled_out(&row, Metric::Dot, &[1.0; 96]);
        none_is_ruled_out(&row, Metric::Manhattan, &[0.0; 96]);
        // Squares below the normal numbers.
        for scale in [1e-22, 3e-22, 1e-21] {
            let vector =
                |seed| -> Vec<f32> { (0..4096).map(|i| scale * ((chance(seed, i) % 240) as f32 - 120.0)).collect() };
            none_is_ruled_out(&vector(seed), Metric::Euclid, &vector(seed + 100));
            none_is_ruled_out(&vector(seed), Metric::Euclid, &vector(seed));
        }
    }
}
