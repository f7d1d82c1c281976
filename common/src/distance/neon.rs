//! Kernels for AArch64 Advanced SIMD: 4 values per register, two running sums per row, the tail added one by one.

use std::arch::aarch64::*;

use super::Table;

pub(super) static TABLE: Table = Table { dot: (dot, dot4), l2_squared: (l2_squared, l2_squared4), l1: (l1, l1_4) };

const LANES: usize = 4;

/// Defines the kernel for one pair and the kernel for four rows from one accumulation step and its scalar twin for the
/// tail. Both kernels add the same terms in the same order, which makes their results equal to the bit.
macro_rules! kernels {
    ($pair:ident, $quad:ident, |$acc:ident, $x:ident, $y:ident| $step:expr, |$sx:ident, $sy:ident| $term:expr) => {
        #[target_feature(enable = "neon")]
        fn $pair(a: &[f32], b: &[f32]) -> f32 {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let step = |$acc: float32x4_t, $x: float32x4_t, $y: float32x4_t| -> float32x4_t { $step };
            let term = |$sx: f32, $sy: f32| -> f32 { $term };
            let mut sums = [vdupq_n_f32(0.0); 2];
            let mut i = 0;
            while i + 2 * LANES <= n {
                for half in 0..2 {
                    let at = i + half * LANES;
                    // SAFETY: at + LANES <= n, the length of both slices.
                    let (x, y) = unsafe { (vld1q_f32(pa.add(at)), vld1q_f32(pb.add(at))) };
                    sums[half] = step(sums[half], x, y);
                }
                i += 2 * LANES;
            }
            let mut tail = 0.0;
            for j in i..n {
                tail += term(a[j], b[j]);
            }
            vaddvq_f32(vaddq_f32(sums[0], sums[1])) + tail
        }

        #[target_feature(enable = "neon")]
        fn $quad(query: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
            let n = rows.iter().fold(query.len(), |n, row| n.min(row.len()));
            let pq = query.as_ptr();
            let pr = rows.map(<[f32]>::as_ptr);
            let step = |$acc: float32x4_t, $x: float32x4_t, $y: float32x4_t| -> float32x4_t { $step };
            let term = |$sx: f32, $sy: f32| -> f32 { $term };
            let mut sums = [[vdupq_n_f32(0.0); 2]; 4];
            let mut i = 0;
            while i + 2 * LANES <= n {
                for half in 0..2 {
                    let at = i + half * LANES;
                    // SAFETY: at + LANES <= n, the length of all five slices.
                    let x = unsafe { vld1q_f32(pq.add(at)) };
                    for r in 0..4 {
                        // SAFETY: as above.
                        let y = unsafe { vld1q_f32(pr[r].add(at)) };
                        sums[r][half] = step(sums[r][half], x, y);
                    }
                }
                i += 2 * LANES;
            }
            let mut out = [0.0; 4];
            for r in 0..4 {
                let mut tail = 0.0;
                for j in i..n {
                    tail += term(query[j], rows[r][j]);
                }
                out[r] = vaddvq_f32(vaddq_f32(sums[r][0], sums[r][1])) + tail;
            }
            out
        }
    };
}

kernels!(dot, dot4, |acc, x, y| vfmaq_f32(acc, x, y), |x, y| x * y);
kernels!(
    l2_squared,
    l2_squared4,
    |acc, x, y| {
        let d = vsubq_f32(x, y);
        vfmaq_f32(acc, d, d)
    },
    |x, y| (x - y) * (x - y)
);
kernels!(l1, l1_4, |acc, x, y| vaddq_f32(acc, vabdq_f32(x, y)), |x, y| (x - y).abs());
