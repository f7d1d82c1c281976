//! Kernels in plain Rust: the oracle for every other file here. Eight running sums, so that the compiler may use
//! whatever vector unit the baseline of the target has, and so that long vectors lose less precision.

use super::Table;

pub(super) static TABLE: Table = Table { dot: (dot, dot4), l2_squared: (l2_squared, l2_squared4), l1: (l1, l1_4) };

const LANES: usize = 8;

#[inline(always)]
fn sum_terms(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    let tail: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| term(*x, *y)).sum();
    sums.iter().sum::<f32>() + tail
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_terms(a, b, |x, y| x * y)
}

fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    sum_terms(a, b, |x, y| (x - y) * (x - y))
}

fn l1(a: &[f32], b: &[f32]) -> f32 {
    sum_terms(a, b, |x, y| (x - y).abs())
}

fn dot4(query: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
    rows.map(|row| dot(query, row))
}

fn l2_squared4(query: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
    rows.map(|row| l2_squared(query, row))
}

fn l1_4(query: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
    rows.map(|row| l1(query, row))
}
