//! Kernels for AVX2 with FMA: 8 values per register, two running sums per row, the tail read through a lane mask.

use std::arch::x86_64::*;

use super::Table;

pub(super) static TABLE: Table = Table { dot: (dot, dot4), l2_squared: (l2_squared, l2_squared4), l1: (l1, l1_4) };

const LANES: usize = 8;

/// The lanes of the last, partial register: lane i is read when `i < rest`.
#[target_feature(enable = "avx2,fma")]
fn tail_mask(rest: usize) -> __m256i {
    let rest = i32::try_from(rest).unwrap_or(i32::MAX);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(rest), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// The sum of the eight lanes.
#[target_feature(enable = "avx2,fma")]
fn reduce(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
    _mm_cvtss_f32(one)
}

/// The absolute value of every lane: the sign bit cleared.
#[target_feature(enable = "avx2,fma")]
fn abs(v: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), v)
}

/// Defines the kernel for one pair and the kernel for four rows from one accumulation step. Both add the same terms to
/// the same lanes in the same order, which makes their results equal to the bit.
macro_rules! kernels {
    ($pair:ident, $quad:ident, |$acc:ident, $x:ident, $y:ident| $step:expr) => {
        #[target_feature(enable = "avx2,fma")]
        fn $pair(a: &[f32], b: &[f32]) -> f32 {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let step = |$acc: __m256, $x: __m256, $y: __m256| -> __m256 { $step };
            let mut sums = [_mm256_setzero_ps(); 2];
            let mut i = 0;
            while i + 2 * LANES <= n {
                for half in 0..2 {
                    let at = i + half * LANES;
                    // SAFETY: at + LANES <= n, the length of both slices.
                    let (x, y) = unsafe { (_mm256_loadu_ps(pa.add(at)), _mm256_loadu_ps(pb.add(at))) };
                    sums[half] = step(sums[half], x, y);
                }
                i += 2 * LANES;
            }
            if i + LANES <= n {
                // SAFETY: i + LANES <= n, the length of both slices.
                let (x, y) = unsafe { (_mm256_loadu_ps(pa.add(i)), _mm256_loadu_ps(pb.add(i))) };
                sums[0] = step(sums[0], x, y);
                i += LANES;
            }
            if i < n {
                let mask = tail_mask(n - i);
                // SAFETY: the mask selects n - i lanes; a masked lane is not read.
                let (x, y) = unsafe { (_mm256_maskload_ps(pa.add(i), mask), _mm256_maskload_ps(pb.add(i), mask)) };
                sums[1] = step(sums[1], x, y);
            }
            reduce(_mm256_add_ps(sums[0], sums[1]))
        }

        #[target_feature(enable = "avx2,fma")]
        fn $quad(query: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
            let n = rows.iter().fold(query.len(), |n, row| n.min(row.len()));
            let pq = query.as_ptr();
            let pr = rows.map(<[f32]>::as_ptr);
            let step = |$acc: __m256, $x: __m256, $y: __m256| -> __m256 { $step };
            let mut sums = [[_mm256_setzero_ps(); 2]; 4];
            let mut i = 0;
            while i + 2 * LANES <= n {
                for half in 0..2 {
                    let at = i + half * LANES;
                    // SAFETY: at + LANES <= n, the length of all five slices.
                    let x = unsafe { _mm256_loadu_ps(pq.add(at)) };
                    for r in 0..4 {
                        // SAFETY: as above.
                        let y = unsafe { _mm256_loadu_ps(pr[r].add(at)) };
                        sums[r][half] = step(sums[r][half], x, y);
                    }
                }
                i += 2 * LANES;
            }
            if i + LANES <= n {
                // SAFETY: i + LANES <= n, the length of all five slices.
                let x = unsafe { _mm256_loadu_ps(pq.add(i)) };
                for r in 0..4 {
                    // SAFETY: as above.
                    let y = unsafe { _mm256_loadu_ps(pr[r].add(i)) };
                    sums[r][0] = step(sums[r][0], x, y);
                }
                i += LANES;
            }
            if i < n {
                let mask = tail_mask(n - i);
                // SAFETY: the mask selects n - i lanes; a masked lane is not read.
                let x = unsafe { _mm256_maskload_ps(pq.add(i), mask) };
                for r in 0..4 {
                    // SAFETY: as above.
                    let y = unsafe { _mm256_maskload_ps(pr[r].add(i), mask) };
                    sums[r][1] = step(sums[r][1], x, y);
                }
            }
            let mut out = [0.0; 4];
            for r in 0..4 {
                out[r] = reduce(_mm256_add_ps(sums[r][0], sums[r][1]));
            }
            out
        }
    };
}

kernels!(dot, dot4, |acc, x, y| _mm256_fmadd_ps(x, y, acc));
kernels!(l2_squared, l2_squared4, |acc, x, y| {
    let d = _mm256_sub_ps(x, y);
    _mm256_fmadd_ps(d, d, acc)
});
kernels!(l1, l1_4, |acc, x, y| _mm256_add_ps(acc, abs(_mm256_sub_ps(x, y))));
