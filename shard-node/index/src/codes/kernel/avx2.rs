//! Kernels for AVX2: codes widened to 16 bits, because the 8-bit multiply-add saturates; two rows at a time.

use std::arch::x86_64::*;

use super::{CodeRows, LINE, Table};

pub(super) static TABLE: Table = Table { dot: dots, sad: sads, spread, quantize };

const LANES: usize = 32;

/// The sum of eight i32.
#[target_feature(enable = "avx2")]
fn reduce_words(sum: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
    _mm_cvtsi128_si32(one)
}

/// The sum of four i64 of small numbers.
#[target_feature(enable = "avx2")]
fn reduce_longs(sum: __m256i) -> i32 {
    let two = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let one = _mm_add_epi64(two, _mm_unpackhi_epi64(two, two));
    _mm_cvtsi128_si32(one)
}

/// One step of the inner product over 32 codes: no product of u8 and i8, and no pair of them, leaves 32 bits.
#[target_feature(enable = "avx2")]
fn dot_step(acc: __m256i, q: __m256i, c: __m256i) -> __m256i {
    let low = _mm256_madd_epi16(
        _mm256_cvtepi8_epi16(_mm256_castsi256_si128(q)),
        _mm256_cvtepu8_epi16(_mm256_castsi256_si128(c)),
    );
    let high = _mm256_madd_epi16(
        _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(q)),
        _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(c)),
    );
    _mm256_add_epi32(acc, _mm256_add_epi32(low, high))
}

#[target_feature(enable = "avx2")]
fn sad_step(acc: __m256i, q: __m256i, c: __m256i) -> __m256i {
    _mm256_add_epi64(acc, _mm256_sad_epu8(q, c))
}

/// Defines the kernel over all rows from the step over 32 codes and the reduction.
macro_rules! kernel {
    ($name:ident, $query:ty, $step:ident, $reduce:ident) => {
        #[target_feature(enable = "avx2")]
        fn $name(query: &[$query], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
            let bytes = query.len();
            let query = query.as_ptr();
            let (pairs, rest) = rows.as_chunks::<2>();
            let (out_pairs, out_rest) = out.as_chunks_mut::<2>();
            for (i, (pair, out)) in pairs.iter().zip(out_pairs).enumerate() {
                ahead(codes, &rows[2 * (i + 1)..], bytes);
                let starts = pair.map(|row| codes.start(row));
                let mut sums = [_mm256_setzero_si256(); 2];
                for at in (0..bytes).step_by(LANES) {
                    // SAFETY: at + LANES <= bytes, the length of the query and at most that of a row.
                    let q = unsafe { _mm256_loadu_si256(query.add(at).cast()) };
                    for (sum, start) in sums.iter_mut().zip(starts) {
                        // SAFETY: as above.
                        let c = unsafe { _mm256_loadu_si256(start.add(at).cast()) };
                        *sum = $step(*sum, q, c);
                    }
                }
                *out = [$reduce(sums[0]), $reduce(sums[1])];
            }
            for (row, out) in rest.iter().zip(out_rest) {
                let start = codes.start(*row);
                let mut sum = _mm256_setzero_si256();
                for at in (0..bytes).step_by(LANES) {
                    // SAFETY: as above.
                    let (q, c) =
                        unsafe { (_mm256_loadu_si256(query.add(at).cast()), _mm256_loadu_si256(start.add(at).cast())) };
                    sum = $step(sum, q, c);
                }
                *out = $reduce(sum);
            }
        }
    };
}

/// Asks for the lines of the next two rows while the present two are computed.
#[inline(always)]
fn ahead(codes: CodeRows<'_>, next: &[u32], bytes: usize) {
    for row in next.iter().take(2) {
        let start = codes.start(*row);
        for at in (0..bytes).step_by(LINE) {
            // SAFETY: a prefetch reads nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
        }
    }
}

kernel!(dots, i8, dot_step, reduce_words);
kernel!(sads, u8, sad_step, reduce_longs);

#[target_feature(enable = "avx2")]
fn spread(vector: &[f32], mean: &[f32]) -> f32 {
    super::spread(vector, mean)
}

#[target_feature(enable = "avx2")]
fn quantize(vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
    super::quantize(vector, mean, inverse, out)
}
