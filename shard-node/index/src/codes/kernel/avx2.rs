//! Kernels for AVX2: even and odd codes are multiplied as 16 bits, because the 8-bit multiply-add saturates; four rows at a
//! time.

use std::arch::x86_64::*;

use super::{CodeRows, LINE, Table};

pub(super) static TABLE: Table = Table { dot: dots, nibble_dot: nibble_dots, sad: sads, spread, quantize };

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

/// The sums of four registers of i32 at once.
#[target_feature(enable = "avx2")]
fn reduce_words4(sums: [__m256i; 4]) -> [i32; 4] {
    let [a, b, c, d] = sums;
    let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let all = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    let mut out = [0; 4];
    // SAFETY: `out` has room for four i32.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), all) };
    out
}

#[target_feature(enable = "avx2")]
fn reduce_longs4(sums: [__m256i; 4]) -> [i32; 4] {
    sums.map(|sum| reduce_longs(sum))
}

/// 32 signed codes of a query as 16 bits: the even ones, the odd ones. Once for all rows of a call.
#[target_feature(enable = "avx2")]
fn dot_query(q: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(q)), _mm256_srai_epi16::<8>(q)]
}

/// One step of the inner product over 32 codes: no product of u8 and i8, and no pair of them, leaves 32 bits.
#[target_feature(enable = "avx2")]
fn dot_step(acc: __m256i, [even, odd]: [__m256i; 2], c: __m256i) -> __m256i {
    let evens = _mm256_madd_epi16(even, _mm256_and_si256(c, _mm256_set1_epi16(0xFF)));
    let odds = _mm256_madd_epi16(odd, _mm256_srli_epi16::<8>(c));
    _mm256_add_epi32(acc, _mm256_add_epi32(evens, odds))
}

#[target_feature(enable = "avx2")]
fn sad_query(q: __m256i) -> __m256i {
    q
}

#[target_feature(enable = "avx2")]
fn sad_step(acc: __m256i, q: __m256i, c: __m256i) -> __m256i {
    _mm256_add_epi64(acc, _mm256_sad_epu8(q, c))
}

/// Defines the kernel over all rows from the step over 32 codes and the reduction.
macro_rules! kernel {
    ($name:ident, $query:ty, $prepare:ident, $step:ident, $reduce4:ident, $reduce:ident) => {
        #[target_feature(enable = "avx2")]
        fn $name(query: &[$query], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
            let bytes = query.len();
            let query = query.as_ptr();
            let (quads, rest) = rows.as_chunks::<4>();
            let (out_quads, out_rest) = out.as_chunks_mut::<4>();
            for (i, (quad, out)) in quads.iter().zip(out_quads).enumerate() {
                ahead(codes, &rows[4 * (i + 1)..], bytes);
                let starts = quad.map(|row| codes.start(row));
                let mut sums = [_mm256_setzero_si256(); 4];
                for at in (0..bytes).step_by(LANES) {
                    // SAFETY: at + LANES <= bytes, the length of the query and at most that of a row.
                    let q = $prepare(unsafe { _mm256_loadu_si256(query.add(at).cast()) });
                    for (sum, start) in sums.iter_mut().zip(starts) {
                        // SAFETY: as above.
                        let c = unsafe { _mm256_loadu_si256(start.add(at).cast()) };
                        *sum = $step(*sum, q, c);
                    }
                }
                *out = $reduce4(sums);
            }
            for (row, out) in rest.iter().zip(out_rest) {
                let start = codes.start(*row);
                let mut sum = _mm256_setzero_si256();
                for at in (0..bytes).step_by(LANES) {
                    // SAFETY: as above.
                    let (q, c) =
                        unsafe { (_mm256_loadu_si256(query.add(at).cast()), _mm256_loadu_si256(start.add(at).cast())) };
                    sum = $step(sum, $prepare(q), c);
                }
                *out = $reduce(sum);
            }
        }
    };
}

/// Asks for the lines of the next four rows while the present four are computed.
#[inline(always)]
fn ahead(codes: CodeRows<'_>, next: &[u32], bytes: usize) {
    for row in next.iter().take(4) {
        let start = codes.start(*row);
        for at in (0..bytes).step_by(LINE) {
            // SAFETY: a prefetch reads nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
        }
    }
}

kernel!(dots, i8, dot_query, dot_step, reduce_words4, reduce_words);
kernel!(sads, u8, sad_query, sad_step, reduce_longs4, reduce_longs);

/// One step over 32 bytes of 4-bit codes: products of u4 and i8 and their pairs are far from the ends of 16 bits.
#[target_feature(enable = "avx2")]
fn nibble_step(acc: __m256i, [low, high]: [__m256i; 2], c: __m256i) -> __m256i {
    let lower = _mm256_set1_epi8(0x0F);
    let lows = _mm256_maddubs_epi16(_mm256_and_si256(c, lower), low);
    let highs = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(c), lower), high);
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_add_epi16(lows, highs), _mm256_set1_epi16(1)))
}

/// Four rows at a time, and those of the next four are asked for meanwhile.
#[target_feature(enable = "avx2")]
fn nibble_dots(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    let bytes = query.len() / 2;
    let query = query.as_ptr();
    let query_at = |at: usize| {
        let low = at / LINE * 2 * LINE + at % LINE;
        // SAFETY: the query has two lines for each line of codes.
        unsafe { [low, low + LINE].map(|at| _mm256_loadu_si256(query.add(at).cast())) }
    };
    let (quads, rest) = rows.as_chunks::<4>();
    let (out_quads, out_rest) = out.as_chunks_mut::<4>();
    for (i, (quad, out)) in quads.iter().zip(out_quads).enumerate() {
        ahead(codes, &rows[4 * (i + 1)..], bytes);
        let starts = quad.map(|row| codes.start(row));
        let mut sums = [_mm256_setzero_si256(); 4];
        for at in (0..bytes).step_by(LANES) {
            let q = query_at(at);
            for (sum, start) in sums.iter_mut().zip(starts) {
                // SAFETY: at + LANES <= bytes, and so many can be read of every row: `check` saw to it.
                *sum = nibble_step(*sum, q, unsafe { _mm256_loadu_si256(start.add(at).cast()) });
            }
        }
        *out = reduce_words4(sums);
    }
    for (row, out) in rest.iter().zip(out_rest) {
        let start = codes.start(*row);
        let mut sum = _mm256_setzero_si256();
        for at in (0..bytes).step_by(LANES) {
            // SAFETY: as above.
            sum = nibble_step(sum, query_at(at), unsafe { _mm256_loadu_si256(start.add(at).cast()) });
        }
        *out = reduce_words(sum);
    }
}

#[target_feature(enable = "avx2")]
fn spread(vector: &[f32], mean: &[f32]) -> f32 {
    super::spread(vector, mean)
}

#[target_feature(enable = "avx2")]
fn quantize(vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
    super::quantize(vector, mean, inverse, out)
}
