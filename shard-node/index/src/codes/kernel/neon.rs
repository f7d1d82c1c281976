//! Kernels for AArch64 Advanced SIMD: codes widened to 16 bits, multiplied into 32.

use std::arch::aarch64::*;

use super::{CodeRows, LINE, Table};

pub(super) static TABLE: Table = Table { dot: dots, nibble_dot: nibble_dots, sad: sads, spread, quantize };

const LANES: usize = 16;

#[target_feature(enable = "neon")]
fn dots(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let start = codes.start(*row);
        let mut sums = [vdupq_n_s32(0); 2];
        for at in (0..query.len()).step_by(LANES) {
            // SAFETY: at + LANES <= query.len(), which is at most the length of a row.
            let (q, c) = unsafe { (vld1q_s8(query.as_ptr().add(at)), vld1q_u8(start.add(at))) };
            let q = [vmovl_s8(vget_low_s8(q)), vmovl_s8(vget_high_s8(q))];
            // A code is below 2^15, so its 16 bits are the same number signed.
            let c = [vmovl_u8(vget_low_u8(c)), vmovl_u8(vget_high_u8(c))].map(|c| vreinterpretq_s16_u16(c));
            for half in 0..2 {
                sums[0] = vmlal_s16(sums[0], vget_low_s16(q[half]), vget_low_s16(c[half]));
                sums[1] = vmlal_s16(sums[1], vget_high_s16(q[half]), vget_high_s16(c[half]));
            }
        }
        *out = vaddvq_s32(vaddq_s32(sums[0], sums[1]));
    }
}

/// A 4-bit code is below 2^7, so its 8 bits are the same number signed.
#[target_feature(enable = "neon")]
fn nibble_dots(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let start = codes.start(*row);
        let mut sum = vdupq_n_s32(0);
        for at in (0..query.len() / 2).step_by(LANES) {
            let low = at / LINE * 2 * LINE + at % LINE;
            // SAFETY: the query has two lines for each line of codes, and a row at least half as many bytes as the query.
            let (q, c) = unsafe {
                let q = [low, low + LINE].map(|at| vld1q_s8(query.as_ptr().add(at)));
                (q, vld1q_u8(start.add(at)))
            };
            let c = [vandq_u8(c, vdupq_n_u8(0x0F)), vshrq_n_u8::<4>(c)].map(|c| vreinterpretq_s8_u8(c));
            for (q, c) in q.into_iter().zip(c) {
                sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(q), vget_low_s8(c)));
                sum = vpadalq_s16(sum, vmull_high_s8(q, c));
            }
        }
        *out = vaddvq_s32(sum);
    }
}

#[target_feature(enable = "neon")]
fn sads(query: &[u8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        let start = codes.start(*row);
        let mut sum = vdupq_n_u32(0);
        for at in (0..query.len()).step_by(LANES) {
            // SAFETY: at + LANES <= query.len(), which is at most the length of a row.
            let (q, c) = unsafe { (vld1q_u8(query.as_ptr().add(at)), vld1q_u8(start.add(at))) };
            sum = vpadalq_u16(sum, vpaddlq_u8(vabdq_u8(q, c)));
        }
        *out = vaddvq_u32(sum) as i32;
    }
}

#[target_feature(enable = "neon")]
fn spread(vector: &[f32], mean: &[f32]) -> f32 {
    super::spread(vector, mean)
}

#[target_feature(enable = "neon")]
fn quantize(vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
    super::quantize(vector, mean, inverse, out)
}
