//! 8-bit codes of vectors, to build a graph or scan with: a quarter of the bytes, and integer arithmetic. What searches walk over is
//! cut from them ([`ShortCodes`]).
//!
//! Each vector is centred on the mean of its segment and scaled by a factor of its own, as in LVQ (Aguerrebere et al.,
//! arXiv 2304.04759): x ~ mean + w * (code - 128), w = max|x - mean| / 127. A query is treated alike, to signed bytes.
//! One inner product of integers then gives the distance for every metric but L1:
//!
//! - L2 and cosine (of unit vectors, where the order by L2 is the order by cosine): |x'|^2 - 2 <q', x'>, both centred
//!   and as their codes say, so that errors shrink with the distance;
//! - inner product: -<mean, x'> - <q', x'>;
//! - L1: codes on one scale for the whole segment, and the sum of their absolute differences.
//!
//! What is left out (|q'|^2, <mean, q>) is the same for all rows of a query. Distances of codes are estimates: searches
//! score the last candidates again with the vectors themselves, and exact scans know how wrong they can be ([`CodeErrors`]).

mod errors;
mod kernel;
mod short;
mod trial;

use std::io;

use rayon::prelude::*;
use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;

pub(crate) use self::errors::{CodeErrors, CodeLimits};
pub(crate) use self::kernel::{CodeKernel, CodeRows, LINE};
pub(crate) use self::short::{ShortCodes, ShortQuery};
use crate::Rows;
use crate::array::{Array, HugeBytes};
use crate::prefetch::prefetch;

/// What turns the integer product of one row into its distance: `add + scale * product * (the query's scale)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct RowTerms {
    /// Step of the row's codes.
    pub(crate) scale: f32,
    /// |x'|^2 for L2, -<mean, x'> for the inner product, 0 for L1.
    pub(crate) add: f32,
}

/// How vectors of one segment become codes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Coder {
    pub(crate) metric: Metric,
    /// `dim` values: subtracted before coding. For L1 the smallest value of the segment, in every place.
    pub(crate) mean: Vec<f32>,
    /// L1 only: the one step of all codes.
    pub(crate) step: f32,
    /// A one for every code, padded as queries are: the query that adds up the codes of a row.
    ones: Vec<i8>,
}

/// Codes of all rows, in memory or mapped.
#[derive(Clone, Copy)]
pub(crate) struct CodesView<'a> {
    pub(crate) coder: &'a Coder,
    pub(crate) rows: CodeRows<'a>,
    pub(crate) terms: &'a [RowTerms],
}

/// A query in the form that is compared with codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct CodedQuery {
    /// Signed codes, padded with zeros to whole lines; for L1 the bits of unsigned ones.
    bytes: Vec<i8>,
    /// Multiplies every product; negative, since near is small.
    scale: f32,
    /// Added to every product before scaling: takes back the 128 that codes are shifted by.
    shift: i32,
    /// Added to every distance: what makes distances between rows complete.
    add: f32,
    /// What distances of a query vector lack: |q'|^2 to be squared L2 distances, for L2 and cosine; -<mean, q> to be internal
    /// distances, for the inner product.
    pub(crate) lacking: f32,
}

impl CodedQuery {
    /// How far apart two neighbouring codes of the query are.
    fn step(&self, coder: &Coder) -> f32 {
        -self.scale / coder.factor()
    }
}

/// Codes of a row reach from 1 to 255, around 128.
const LEVELS: f32 = 127.0;

/// A vector minus the mean as signed levels, padded with zeros to whole lines; their step and their sum.
fn levels(kernel: CodeKernel, vector: &[f32], mean: &[f32], out: &mut Vec<i8>) -> (f32, i32) {
    let scale = kernel.spread(vector, mean) / LEVELS;
    let inverse = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    out.clear();
    out.resize(vector.len().next_multiple_of(LINE), 0);
    let sum = kernel.quantize(vector, mean, inverse, &mut out[..vector.len()]);
    (scale, sum)
}

impl Coder {
    /// Learns the mean (or, for L1, the range) of the rows.
    pub(crate) fn train(rows: Rows<'_>, metric: Metric) -> Coder {
        if metric == Metric::Manhattan {
            let finite = || rows.data.iter().copied().filter(|x| x.is_finite());
            let low = finite().fold(f32::MAX, f32::min);
            let high = finite().fold(f32::MIN, f32::max);
            let low = if low <= high { low } else { 0.0 };
            return Coder::new(metric, vec![low; rows.dim], (high - low).max(0.0) / 255.0);
        }
        let mut sums = vec![0f64; rows.dim];
        for row in rows.data.chunks_exact(rows.dim) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
        }
        let count = rows.len().max(1) as f64;
        Coder::new(metric, sums.into_iter().map(|sum| (sum / count) as f32).collect(), 0.0)
    }

    /// A coder that was trained before.
    pub(crate) fn new(metric: Metric, mean: Vec<f32>, step: f32) -> Coder {
        let mut ones = vec![1; mean.len()];
        ones.resize(mean.len().next_multiple_of(LINE), 0);
        Coder { metric, mean, step, ones }
    }

    /// How many codes a row has.
    pub(crate) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Bytes from one row of codes to the next.
    pub(crate) fn stride(&self, packing: Packing) -> usize {
        match packing {
            // A sum of differences has no neutral query: the bytes behind a row must be its own, and zero.
            Packing::Dense if self.metric != Metric::Manhattan => self.dim(),
            Packing::Dense | Packing::Lines => self.dim().next_multiple_of(LINE),
        }
    }

    /// Writes the codes of a vector to the first bytes of `out` (the rest stays), and returns its terms.
    pub(crate) fn encode(&self, kernel: CodeKernel, vector: &[f32], work: &mut Vec<i8>, out: &mut [u8]) -> RowTerms {
        if self.metric == Metric::Manhattan {
            for ((x, low), code) in vector.iter().zip(&self.mean).zip(out) {
                *code = level_of(x - low, self.step);
            }
            return RowTerms { scale: self.step, add: 0.0 };
        }
        let (scale, _) = levels(kernel, vector, &self.mean, work);
        let mut squares = 0i32;
        for (level, code) in work.iter().zip(out.iter_mut()) {
            *code = (*level as u8) ^ 0x80;
            squares += i32::from(*level) * i32::from(*level);
        }
        let add = match self.metric {
            Metric::Dot => {
                let cross = self.mean.iter().zip(vector).map(|(m, x)| f64::from(*m) * f64::from(x - m)).sum::<f64>();
                -cross as f32
            }
            Metric::Cosine | Metric::Euclid | Metric::Manhattan => scale * (scale * squares as f32),
        };
        RowTerms { scale, add: add.clamp(f32::MIN, f32::MAX) }
    }

    /// Prepares a query vector.
    pub(crate) fn query(&self, kernel: CodeKernel, vector: &[f32], query: &mut CodedQuery) {
        (query.add, query.lacking) = (0.0, 0.0);
        if self.metric == Metric::Manhattan {
            query.bytes.clear();
            query.bytes.resize(vector.len().next_multiple_of(LINE), 0);
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut query.bytes);
            for ((x, low), code) in vector.iter().zip(&self.mean).zip(bytes) {
                *code = level_of(x - low, self.step);
            }
            (query.scale, query.shift) = (1.0, 0);
            return;
        }
        let (scale, sum) = levels(kernel, vector, &self.mean, &mut query.bytes);
        query.shift = -128 * sum;
        query.scale = -scale * self.factor();
        query.lacking = match self.metric {
            Metric::Cosine | Metric::Euclid => {
                // In this order no product is smaller than both of its factors need be.
                scale * (scale * query.bytes.iter().map(|l| i32::from(*l) * i32::from(*l)).sum::<i32>() as f32)
            }
            Metric::Dot => Kernel::new(Metric::Dot).distance(vector, &self.mean),
            Metric::Manhattan => 0.0,
        };
    }

    /// 2 where distances are squared lengths of differences.
    fn factor(&self) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::Euclid => 2.0,
            Metric::Dot | Metric::Manhattan => 1.0,
        }
    }
}

/// An L1 code: where a value stands in the range.
fn level_of(above: f32, step: f32) -> u8 {
    if step > 0.0 { (above / step).round().clamp(0.0, 255.0) as u8 } else { 0 }
}

impl CodesView<'_> {
    /// Takes a row as the query, to the bit as it is stored: the distance of two rows is then the same either way.
    pub(crate) fn row_as_query(&self, kernel: CodeKernel, row: u32, query: &mut CodedQuery) {
        let count = self.coder.dim();
        let codes = &self.rows.data[row as usize * self.rows.stride..][..count];
        let terms = self.terms[row as usize];
        query.bytes.clear();
        if self.coder.metric == Metric::Manhattan {
            query.bytes.extend(codes.iter().map(|code| *code as i8));
            (query.scale, query.shift, query.add) = (1.0, 0, 0.0);
        } else {
            query.bytes.extend(codes.iter().map(|code| (*code ^ 0x80) as i8));
            let mut sum = [0];
            kernel.dots(&self.coder.ones, self.rows, &[row], &mut sum);
            query.shift = -128 * (sum[0] - 128 * count as i32);
            query.scale = -terms.scale * self.coder.factor();
            query.add = terms.add;
        }
        query.bytes.resize(count.next_multiple_of(LINE), 0);
    }

    /// Asks for the codes and the terms of a row ahead of scoring it.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: u32) {
        let start = row as usize * self.rows.stride;
        prefetch(&self.rows.data[start..start + self.coder.dim()]);
        prefetch(&self.terms[row as usize..][..1]);
    }

    /// The distances of rows to a query, in order. `products` is working memory.
    #[inline]
    pub(crate) fn score(
        &self,
        kernel: CodeKernel,
        query: &CodedQuery,
        rows: &[u32],
        products: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        products.resize(rows.len(), 0);
        out.clear();
        if self.coder.metric == Metric::Manhattan {
            kernel.sads(bytemuck::cast_slice(&query.bytes), self.rows, rows, products);
        } else {
            kernel.dots(&query.bytes, self.rows, rows, products);
        }
        #[expect(clippy::manual_clamp, reason = "clamp() would let a NaN through")]
        out.extend(rows.iter().zip(products.iter()).map(|(row, product)| {
            let terms = self.terms[*row as usize];
            let distance = query.add + terms.add + query.scale * (terms.scale * (product + query.shift) as f32);
            // What overflows is as far as can be; NaN too, since min() returns the other operand.
            distance.min(f32::MAX).max(f32::MIN)
        }));
    }
}

/// How rows of codes lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Each begins a cache line: best where they are read at random.
    Lines,
    /// One directly after the other, where the metric allows it: best where they are read in order.
    Dense,
}

/// Codes of all rows.
pub(crate) struct Codes {
    pub(crate) coder: Coder,
    pub(crate) packing: Packing,
    /// `rows * stride` bytes and one line more: the last row is read to the end of its last line.
    pub(crate) data: Array,
    /// [`RowTerms`] of each row.
    pub(crate) terms: Array,
    /// How much nearer than by its code a near row may be: a low quantile of squared distance by distance of codes.
    pub(crate) near_ratio: f32,
    /// How far distances of codes can be from exact ones.
    pub(crate) errors: CodeErrors,
    /// The same codes with 4 bits, where there are any.
    pub(crate) short: Option<ShortCodes>,
}

impl Codes {
    /// Codes all rows, on the threads of the current pool. Fails when there is no memory.
    pub(crate) fn of(rows: Rows<'_>, metric: Metric, packing: Packing) -> io::Result<Codes> {
        let kernel = CodeKernel::new();
        let trial = trial::Trial::new(rows);
        let coder = Coder::train(rows, metric);
        let stride = coder.stride(packing);
        let mut data = HugeBytes::zeroed(rows.len() * stride + LINE)?;
        let mut terms = vec![RowTerms::default(); rows.len()];
        let encoded = data.bytes_mut().par_chunks_exact_mut(stride).zip(rows.data.par_chunks_exact(rows.dim));
        let errors = encoded.zip(&mut terms).map_init(Vec::new, |work, ((out, vector), terms)| {
            *terms = coder.encode(kernel, vector, work, out);
            CodeErrors::of_row(&coder, vector, out, *terms)
        });
        let errors = errors.reduce(CodeErrors::default, CodeErrors::max);
        let terms = Array::copy(&terms)?;
        let mut codes = Codes { coder, packing, data: Array::Owned(data), terms, near_ratio: 1.0, errors, short: None };
        codes.near_ratio = trial.near_ratio(&codes.view(), kernel);
        Ok(codes)
    }

    /// The codes of 4 bits, for vectors that have them. On the threads of the current pool; fails when there is no memory.
    pub(crate) fn shortened(&self) -> io::Result<Option<ShortCodes>> {
        let has = ShortCodes::suit(self.coder.metric, self.coder.dim());
        has.then(|| ShortCodes::of(self.view(), self.errors)).transpose()
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.terms.of::<RowTerms>().len()
    }

    /// Bytes from one row of codes to the next.
    pub(crate) fn stride(&self) -> usize {
        self.coder.stride(self.packing)
    }

    /// Bytes of codes and terms.
    pub(crate) fn bytes(&self) -> u64 {
        let short = self.short.as_ref().map_or(0, ShortCodes::bytes);
        (self.data.bytes().len() + self.terms.bytes().len()) as u64 + short
    }

    /// The codes, borrowed.
    pub(crate) fn view(&self) -> CodesView<'_> {
        let rows = CodeRows { data: self.data.bytes(), stride: self.stride() };
        CodesView { coder: &self.coder, rows, terms: self.terms.of() }
    }
}
