//! The distance kernels: f32 in, internal distance out, one file per instruction set.
//!
//! [`Kernel`] is chosen once per search or build and then called in the hot loop. For one instruction set a pair of
//! vectors has one distance to the bit, whichever entry point computes it and in whichever order the pair is given, so
//! results of different indexes over the same rows can be merged and compared exactly.

mod any;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use crate::metric::Metric;

/// Sum over the components of one pair. SAFETY contract of the pointer: both slices have the same length and the CPU
/// has the instruction set of the table it was taken from.
type PairFn = unsafe fn(&[f32], &[f32]) -> f32;
/// The same for one vector against four others; the same contract, all five slices of one length.
type QuadFn = unsafe fn(&[f32], [&[f32]; 4]) -> [f32; 4];

/// The kernels of one instruction set, before sign and clamping.
struct Table {
    dot: (PairFn, QuadFn),
    l2_squared: (PairFn, QuadFn),
    l1: (PairFn, QuadFn),
}

/// An instruction set that a kernel is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust: the oracle of the others, and what runs where nothing else does.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
    /// AArch64 with Advanced SIMD.
    Neon,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        self.table().is_some()
    }

    /// The fastest this machine has.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }

    /// Its kernels, only when this machine can run them.
    fn table(self) -> Option<&'static Table> {
        match self {
            Isa::Scalar => Some(&scalar::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"))
                .then_some(&avx2::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => std::arch::is_x86_feature_detected!("avx512f").then_some(&avx512::TABLE),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon").then_some(&neon::TABLE),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => None,
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon => None,
        }
    }
}

/// Computes internal distances of one [`Metric`]: `-<a,b>` for Dot and Cosine, the squared L2 distance for Euclid, the
/// L1 distance for Manhattan. Vectors are taken as prepared (see [`Metric::prepare`]).
///
/// A result is never NaN and never infinite: what overflows is clamped to `f32::MAX` or `f32::MIN`, and NaN (which
/// finite components reach only through overflow) counts as `f32::MAX`, the farthest. It is never `-0.0` either, so
/// [`f32::total_cmp`] sees equal distances as equal.
#[derive(Clone, Copy)]
pub struct Kernel {
    pair: PairFn,
    quad: QuadFn,
    sign: f32,
    isa: Isa,
}

impl Kernel {
    /// The fastest kernel of this machine for a metric.
    pub fn new(metric: Metric) -> Kernel {
        Kernel::with_isa(metric, Isa::best()).expect("best() returns an available instruction set")
    }

    /// The kernel of one instruction set, `None` when this machine lacks it.
    pub fn with_isa(metric: Metric, isa: Isa) -> Option<Kernel> {
        let table = isa.table()?;
        let ((pair, quad), sign) = match metric {
            Metric::Cosine | Metric::Dot => (table.dot, -1.0),
            Metric::Euclid => (table.l2_squared, 1.0),
            Metric::Manhattan => (table.l1, 1.0),
        };
        Some(Kernel { pair, quad, sign, isa })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The distance between two vectors. Panics when their lengths differ.
    #[inline]
    pub fn distance(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "vectors of one distance have one length");
        // SAFETY: the lengths are equal, and with_isa() takes pointers only from an available table.
        self.finish(unsafe { (self.pair)(a, b) })
    }

    /// The distances between one vector and four others, read side by side. Panics when a length differs.
    #[inline]
    pub fn distance4(&self, query: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
        for row in rows {
            assert_eq!(query.len(), row.len(), "vectors of one distance have one length");
        }
        // SAFETY: the lengths are equal, and with_isa() takes pointers only from an available table.
        unsafe { (self.quad)(query, rows) }.map(|sum| self.finish(sum))
    }

    /// The distances between `query` and every row of `data` (row-major, `out.len()` rows of `dim` values, written to
    /// `out` in order). Panics when the lengths do not fit.
    pub fn distances(&self, query: &[f32], data: &[f32], dim: usize, out: &mut [f32]) {
        assert_eq!(query.len(), dim, "the query has dim values");
        assert_eq!(data.len(), dim * out.len(), "data has dim values per distance");
        let row = |i: usize| &data[i * dim..(i + 1) * dim];
        let (quads, rest) = out.as_chunks_mut::<4>();
        let tail_start = quads.len() * 4;
        for (i, quad) in quads.iter_mut().enumerate() {
            *quad = self.distance4(query, [row(4 * i), row(4 * i + 1), row(4 * i + 2), row(4 * i + 3)]);
        }
        for (i, distance) in rest.iter_mut().enumerate() {
            *distance = self.distance(query, row(tail_start + i));
        }
    }

    /// Sign and clamp. `f32::min` returns the other operand for a NaN; adding to +0.0 turns -0.0 into +0.0.
    #[inline]
    #[expect(clippy::manual_clamp, reason = "clamp() would let a NaN through")]
    fn finish(&self, sum: f32) -> f32 {
        (0.0 + self.sign * sum).min(f32::MAX).max(f32::MIN)
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("isa", &self.isa).finish_non_exhaustive()
    }
}
