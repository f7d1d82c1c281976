//! Integer kernels over rows of codes of 8 and of 4 bits: one prepared query against several rows per call, one file per instruction
//! set. Every result is an exact integer, so all instruction sets agree to the bit.
//!
//! A query is padded to whole cache lines and a row is read as far as the query goes, beyond its end into the next one if
//! need be: where a query is zero, whatever is read counts nothing.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use vicinal_common::distance::Isa;

/// Bytes of a cache line: queries are whole lines.
pub(crate) const LINE: usize = 64;

/// Rows of codes as a kernel sees them.
#[derive(Clone, Copy)]
pub(crate) struct CodeRows<'a> {
    /// Row-major.
    pub(crate) data: &'a [u8],
    /// Bytes from one row to the next, at least 1.
    pub(crate) stride: usize,
}

impl CodeRows<'_> {
    /// Where a row begins. The address is only valid when the row exists.
    #[inline(always)]
    fn start(&self, row: u32) -> *const u8 {
        self.data.as_ptr().wrapping_add(row as usize * self.stride)
    }
}

/// `out[i]` = sum over the bytes of `query[j] * codes[rows[i]][j]`, or of `|query[j] - codes[rows[i]][j]|`.
///
/// SAFETY contract: the CPU has the instruction set of the table; `query.len()` is a multiple of [`LINE`]; so many bytes
/// can be read from the start of every row of `rows`; `out` is as long as `rows`.
///
/// Of 4-bit codes (`nibble_dot`) a line of a row is met by two lines of the query: the first for the lower halves of its
/// bytes, the second for the upper ones. `query.len()` is a multiple of two [`LINE`]s, and half as many bytes of each row are read.
type DotFn = unsafe fn(query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]);
type SadFn = unsafe fn(query: &[u8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]);

/// The largest |vector[j] - mean[j]|. SAFETY contract: the instruction set.
type SpreadFn = unsafe fn(vector: &[f32], mean: &[f32]) -> f32;
/// `out[j]` = (vector[j] - mean[j]) * inverse, rounded to the nearest integer within -127 and 127; their sum. SAFETY
/// contract: the instruction set.
type QuantizeFn = unsafe fn(vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32;

/// The kernels of one instruction set.
pub(super) struct Table {
    dot: DotFn,
    nibble_dot: DotFn,
    sad: SadFn,
    spread: SpreadFn,
    quantize: QuantizeFn,
}

/// Plain Rust for both kinds of work on floats, which compilers turn into vector code for whatever instruction set the
/// caller is compiled for. Each value is computed by itself, so all instruction sets agree to the bit.
#[inline(always)]
fn spread(vector: &[f32], mean: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut largest = [0f32; LANES];
    let (vectors, vector) = vector.as_chunks::<LANES>();
    let (means, mean) = mean.as_chunks::<LANES>();
    for (x, m) in vectors.iter().zip(means) {
        for lane in 0..LANES {
            largest[lane] = largest[lane].max((x[lane] - m[lane]).abs());
        }
    }
    let rest = vector.iter().zip(mean).fold(0f32, |max, (x, m)| max.max((x - m).abs()));
    largest.into_iter().fold(rest, f32::max).min(f32::MAX)
}

/// See [`spread`]. A NaN counts as the lowest level. Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits.
#[inline(always)]
#[expect(clippy::manual_clamp, reason = "clamp() would let a NaN through")]
fn quantize(vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
    const ROUND: f32 = 12_582_912.0;
    let mut sum = 0i32;
    for ((x, m), out) in vector.iter().zip(mean).zip(out) {
        let level = ((x - m) * inverse).max(-127.0).min(127.0) + ROUND;
        let level = level.to_bits() as i32 - ROUND.to_bits() as i32;
        *out = level as i8;
        sum += level;
    }
    sum
}

/// The kernels of one instruction set, checked to be there.
#[derive(Clone, Copy)]
pub(crate) struct CodeKernel {
    table: &'static Table,
}

impl CodeKernel {
    /// The fastest that this machine has.
    pub(crate) fn new() -> CodeKernel {
        let best = Isa::ALL.into_iter().rev().find_map(CodeKernel::with_isa);
        best.unwrap_or(CodeKernel { table: &scalar::TABLE })
    }

    /// The kernels of one instruction set, `None` when this machine lacks it.
    pub(crate) fn with_isa(isa: Isa) -> Option<CodeKernel> {
        let table = match isa {
            Isa::Scalar => Some(&scalar::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => std::arch::is_x86_feature_detected!("avx2").then_some(&avx2::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512vnni"))
            .then_some(&avx512::TABLE),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon").then_some(&neon::TABLE),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => None,
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon => None,
        };
        table.map(|table| CodeKernel { table })
    }

    /// The inner products of a signed query with unsigned codes. Panics when a row or a length does not fit.
    #[inline]
    pub(crate) fn dots(self, query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
        check(query.len(), codes, rows, out);
        // SAFETY: checked just above; with_isa() gives out tables of this machine only.
        unsafe { (self.table.dot)(query, codes, rows, out) }
    }

    /// The inner products of a signed query with codes of 4 bits, in the order described at [`DotFn`]. Panics when a row or a
    /// length does not fit.
    #[inline]
    pub(crate) fn nibble_dots(self, query: &[i8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
        assert!(query.len().is_multiple_of(2 * LINE), "a query is whole pairs of lines");
        check(query.len() / 2, codes, rows, out);
        // SAFETY: checked just above; with_isa() gives out tables of this machine only.
        unsafe { (self.table.nibble_dot)(query, codes, rows, out) }
    }

    /// The largest distance of a component from that of `mean`, at most `f32::MAX`.
    pub(crate) fn spread(self, vector: &[f32], mean: &[f32]) -> f32 {
        // SAFETY: with_isa() gives out tables of this machine only.
        unsafe { (self.table.spread)(vector, mean) }
    }

    /// The components minus those of `mean`, times `inverse`, as signed levels of at most 127; their sum.
    pub(crate) fn quantize(self, vector: &[f32], mean: &[f32], inverse: f32, out: &mut [i8]) -> i32 {
        // SAFETY: with_isa() gives out tables of this machine only.
        unsafe { (self.table.quantize)(vector, mean, inverse, out) }
    }

    /// The L1 distances of a query's codes to those of rows. Panics when a row or a length does not fit.
    #[inline]
    pub(crate) fn sads(self, query: &[u8], codes: CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
        check(query.len(), codes, rows, out);
        // SAFETY: checked just above; with_isa() gives out tables of this machine only.
        unsafe { (self.table.sad)(query, codes, rows, out) }
    }
}

/// The contract of the kernels. One pass over the row numbers: next to reading the rows it costs nothing.
#[inline]
fn check(query_bytes: usize, codes: CodeRows<'_>, rows: &[u32], out: &[i32]) {
    assert!(query_bytes.is_multiple_of(LINE), "a query is whole lines");
    assert_eq!(rows.len(), out.len(), "one result per row");
    if let Some(last) = rows.iter().copied().max() {
        // No overflow: a row number has 32 bits, and a stride is far below the other 32.
        let end = last as usize * codes.stride + query_bytes;
        assert!(end <= codes.data.len(), "row {last} ends at {end} of {} bytes", codes.data.len());
    }
}
