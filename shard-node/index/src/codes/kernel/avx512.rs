//! Kernels for AVX-512 with VNNI: a whole line per instruction, four rows at a time.

use std::arch::x86_64::*;

use super::{CodeRows, LINE, Table};

pub(super) static TABLE: Table = Table { dot: dots, nibble_dot: nibble_dots, sad: sads, spread, quantize };

/// Defines the kernel over all rows from the step over one line and the reduction of one row's sums.
macro_rules! kernel {
    ($name:ident, $query:ty, |$acc:ident, $q:ident, $c:ident| $step:expr, $reduce4:ident, $reduce:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn $name(query: &[$query], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
            let lines = query.len() / LINE;
            let query = query.as_ptr();
            let step = |$acc: __m512i, $q: __m512i, $c: __m512i| -> __m512i { $step };
            let (quads, rest) = rows.as_chunks::<4>();
            let (out_quads, out_rest) = out.as_chunks_mut::<4>();
            for (i, (quad, out)) in quads.iter().zip(out_quads).enumerate() {
                ahead(codes, &rows[4 * (i + 1)..], lines);
                let starts = quad.map(|row| codes.start(row));
                let mut sums = [_mm512_setzero_si512(); 4];
                for line in 0..lines {
                    // SAFETY: the query has `lines` lines, and every row at least as many.
                    let q = unsafe { _mm512_loadu_si512(query.add(line * LINE).cast()) };
                    for (sum, start) in sums.iter_mut().zip(starts) {
                        // SAFETY: as above.
                        let c = unsafe { _mm512_loadu_si512(start.add(line * LINE).cast()) };
                        *sum = step(*sum, q, c);
                    }
                }
                *out = $reduce4(sums);
            }
            for (row, out) in rest.iter().zip(out_rest) {
                let start = codes.start(*row);
                let mut sum = _mm512_setzero_si512();
                for line in 0..lines {
                    // SAFETY: as above.
                    let (q, c) = unsafe {
                        let q = _mm512_loadu_si512(query.add(line * LINE).cast());
                        (q, _mm512_loadu_si512(start.add(line * LINE).cast()))
                    };
                    sum = step(sum, q, c);
                }
                *out = $reduce(sum);
            }
        }
    };
}

/// Asks for the lines of the next four rows while the present four are computed.
#[inline(always)]
fn ahead(codes: CodeRows<'_>, next: &[u32], lines: usize) {
    for row in next.iter().take(4) {
        let start = codes.start(*row);
        for line in 0..lines {
            // SAFETY: a prefetch reads nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE).cast()) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn reduce_words(sum: __m512i) -> i32 {
    _mm512_reduce_add_epi32(sum)
}

/// The sums of four registers of i32 at once.
#[target_feature(enable = "avx512f")]
fn reduce_words4(sums: [__m512i; 4]) -> [i32; 4] {
    let [a, b, c, d] = sums.map(|sum| {
        let half = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
        _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    });
    let all = _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
    let mut out = [0; 4];
    // SAFETY: `out` has room for four i32.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), all) };
    out
}

/// The sums of absolute differences are i64 lanes of small numbers.
#[target_feature(enable = "avx512f")]
fn reduce_longs(sum: __m512i) -> i32 {
    _mm512_reduce_add_epi64(sum) as i32
}

#[target_feature(enable = "avx512f")]
fn reduce_longs4(sums: [__m512i; 4]) -> [i32; 4] {
    sums.map(|sum| reduce_longs(sum))
}

kernel!(dots, i8, |acc, q, c| _mm512_dpbusd_epi32(acc, c, q), reduce_words4, reduce_words);
kernel!(sads, u8, |acc, q, c| _mm512_add_epi64(acc, _mm512_sad_epu8(c, q)), reduce_longs4, reduce_longs);

/// One line of a row meets two of the query. Four rows at a time, and those of the next four are asked for meanwhile.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn nibble_dots(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
    let lines = query.len() / (2 * LINE);
    let query = query.as_ptr();
    let lower = _mm512_set1_epi8(0x0F);
    let step = |sum: __m512i, q: [__m512i; 2], c: __m512i| {
        let low = _mm512_dpbusd_epi32(sum, _mm512_and_si512(c, lower), q[0]);
        _mm512_dpbusd_epi32(low, _mm512_and_si512(_mm512_srli_epi16::<4>(c), lower), q[1])
    };
    // SAFETY: the query has twice as many lines as a row.
    let query_at =
        |line: usize| unsafe { [2 * line, 2 * line + 1].map(|line| _mm512_loadu_si512(query.add(line * LINE).cast())) };
    let (quads, rest) = rows.as_chunks::<4>();
    let (out_quads, out_rest) = out.as_chunks_mut::<4>();
    for (i, (quad, out)) in quads.iter().zip(out_quads).enumerate() {
        ahead(codes, &rows[4 * (i + 1)..], lines);
        let starts = quad.map(|row| codes.start(row));
        let mut sums = [_mm512_setzero_si512(); 4];
        for line in 0..lines {
            let q = query_at(line);
            for (sum, start) in sums.iter_mut().zip(starts) {
                // SAFETY: every row has at least `lines` lines.
                let c = unsafe { _mm512_loadu_si512(start.add(line * LINE).cast()) };
                *sum = step(*sum, q, c);
            }
        }
        *out = reduce_words4(sums);
    }
    for (row, out) in rest.iter().zip(out_rest) {
        let start = codes.start(*row);
        let mut sum = _mm512_setzero_si512();
        for line in 0..lines {
            // SAFETY: as above.
            let c = unsafe { _mm512_loadu_si512(start.add(line * LINE).cast()) };
            sum = step(sum, query_at(line), c);
        }
        *out = reduce_words(sum);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn spread(vector: &[f32], mean: &[f32]) -> f32 {
    super::spread(vector, mean)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn quantize(vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
    super::quantize(vector, mean, inverse, out)
}
