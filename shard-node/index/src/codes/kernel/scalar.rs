//! Plain Rust: the oracle of the other files, and what runs where nothing else does.

use super::{CodeRows, LINE, Table};

pub(super) static TABLE: Table = Table { dot: dots, nibble_dot: nibble_dots, sad: sads, spread, quantize };

fn dots(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let codes = &codes.data[*row as usize * codes.stride..][..query.len()];
        *out = query.iter().zip(codes).map(|(q, c)| i32::from(*q) * i32::from(*c)).sum();
    }
}

fn nibble_dots(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let codes = &codes.data[*row as usize * codes.stride..][..query.len() / 2];
        let lines = query.chunks_exact(2 * LINE).zip(codes.chunks_exact(LINE));
        let products = lines.flat_map(|(query, codes)| {
            let (low, high) = query.split_at(LINE);
            let both = low.iter().zip(high).zip(codes);
            both.map(|((l, h), c)| i32::from(*l) * i32::from(c & 0x0F) + i32::from(*h) * i32::from(c >> 4))
        });
        *out = products.sum();
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
