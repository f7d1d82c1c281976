//! Kernels for AVX-512F: 16 values per register, two running sums per row, the tail read through a lane mask.

use std::arch::x86_64::*;

use super::Table;

pub(super) static TABLE: Table = Table { dot: (dot, dot4), l2_squared: (l2_squared, l2_squared4), l1: (l1, l1_4) };

const LANES: usize = 16;

/// The lanes of the last, partial register. `rest` is below [`LANES`].
fn tail_mask(rest: usize) -> __mmask16 {
    (1u16 << rest) - 1
}

/// Defines the kernel for one pair and the kernel for four rows from one accumulation step. Both add the same terms to
/// the same lanes in the same order, which makes their results equal to the bit.
macro_rules! kernels {
    ($pair:ident, $quad:ident, |$acc:ident, $x:ident, $y:ident| $step:expr) => {
        #[target_feature(enable = "avx512f")]
        fn $pair(a: &[f32], b: &[f32]) -> f32 {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let step = |$acc: __m512, $x: __m512, $y: __m512| -> __m512 { $step };
            let mut sums = [_mm512_setzero_ps(); 2];
            let mut i = 0;
            while i + 2 * LANES <= n {
                for half in 0..2 {
                    let at = i + half * LANES;
                    // SAFETY: at + LANES <= n, the length of both slices.
                    let (x, y) = unsafe { (_mm512_loadu_ps(pa.add(at)), _mm512_loadu_ps(pb.add(at))) };
                    sums[half] = step(sums[half], x, y);
                }
                i += 2 * LANES;
            }
            if i + LANES <= n {
                // SAFETY: i + LANES <= n, the length of both slices.
                let (x, y) = unsafe { (_mm512_loadu_ps(pa.add(i)), _mm512_loadu_ps(pb.add(i))) };
                sums[0] = step(sums[0], x, y);
                i += LANES;
            }
            if i < n {
                let mask = tail_mask(n - i);
                // SAFETY: the mask selects n - i lanes; a masked lane is not read.
                let (x, y) =
                    unsafe { (_mm512_maskz_loadu_ps(mask, pa.add(i)), _mm512_maskz_loadu_ps(mask, pb.add(i))) };
                sums[1] = step(sums[1], x, y);
            }
            _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
        }

        #[target_feature(enable = "avx512f")]
        fn $quad(query: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
            let n = rows.iter().fold(query.len(), |n, row| n.min(row.len()));
            let pq = query.as_ptr();
            let pr = rows.map(<[f32]>::as_ptr);
            let step = |$acc: __m512, $x: __m512, $y: __m512| -> __m512 { $step };
            let mut sums = [[_mm512_setzero_ps(); 2]; 4];
            let mut i = 0;
            while i + 2 * LANES <= n {
                for half in 0..2 {
                    let at = i + half * LANES;
                    // SAFETY: at + LANES <= n, the length of all five slices.
                    let x = unsafe { _mm512_loadu_ps(pq.add(at)) };
                    for r in 0..4 {
                        // SAFETY: as above.
                        let y = unsafe { _mm512_loadu_ps(pr[r].add(at)) };
                        sums[r][half] = step(sums[r][half], x, y);
                    }
                }
                i += 2 * LANES;
            }
            if i + LANES <= n {
                // SAFETY: i + LANES <= n, the length of all five slices.
                let x = unsafe { _mm512_loadu_ps(pq.add(i)) };
                for r in 0..4 {
                    // SAFETY: as above.
                    let y = unsafe { _mm512_loadu_ps(pr[r].add(i)) };
                    sums[r][0] = step(sums[r][0], x, y);
                }
                i += LANES;
            }
            if i < n {
                let mask = tail_mask(n - i);
                // SAFETY: the mask selects n - i lanes; a masked lane is not read.
                let x = unsafe { _mm512_maskz_loadu_ps(mask, pq.add(i)) };
                for r in 0..4 {
                    // SAFETY: as above.
                    let y = unsafe { _mm512_maskz_loadu_ps(mask, pr[r].add(i)) };
                    sums[r][1] = step(sums[r][1], x, y);
                }
            }
            let mut out = [0.0; 4];
            for r in 0..4 {
                out[r] = _mm512_reduce_add_ps(_mm512_add_ps(sums[r][0], sums[r][1]));
            }
            out
        }
    };
}

kernels!(dot, dot4, |acc, x, y| _mm512_fmadd_ps(x, y, acc));
kernels!(l2_squared, l2_squared4, |acc, x, y| {
    let d = _mm512_sub_ps(x, y);
    _mm512_fmadd_ps(d, d, acc)
});
kernels!(l1, l1_4, |acc, x, y| _mm512_add_ps(acc, _mm512_abs_ps(_mm512_sub_ps(x, y))));
