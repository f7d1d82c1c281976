//! Plain Rust: the oracle of the other files, and what runs where nothing else does.

use super::{CodeRows, Table};

pub(super) static TABLE: Table = Table { dot: dots, sad: sads, spread, quantize };

fn dots(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let codes = &codes.data[*row as usize * codes.stride..][..query.len()];
        *out = query.iter().zip(codes).map(|(q, c)| i32::from(*q) * i32::from(*c)).sum();
    }
}

fn sads(query: &[u8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let codes = &codes.data[*row as usize * codes.stride..][..query.len()];
        *out = query.iter().zip(codes).map(|(q, c)| i32::from(q.abs_diff(*c))).sum();
    }
}

fn spread(vector: &[f32], mean: &[f32]) -> f32 {
    super::spread(vector, mean)
}

fn quantize(vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
    super::quantize(vector, mean, inverse, out)
}
