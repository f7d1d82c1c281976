//! 4-bit codes, to walk a graph with: the upper halves of the 8-bit codes, so half of the bytes again and, where they fit,
//! the terms of a row in the same cache line. A walk waits for memory more than it computes.
//!
//! The first level of LVQ (Aguerrebere et al., arXiv 2304.04759), cut from what is there instead of trained: they are never
//! stored, but made whenever an index gets to memory. What they lose, the walk's last candidates get back from the vectors.
//! A code h stands for the middle of its sixteen 8-bit levels, 16 (h - 7.5) steps of the row.

use std::io;

use rayon::prelude::*;
use vicinal_common::metric::Metric;

use super::errors::{ROUNDED, RowLimits};
use super::{CodeErrors, CodeKernel, CodeRows, CodedQuery, Coder, CodesView, LINE, RowTerms};
use crate::array::HugeBytes;
use crate::prefetch::prefetch;

/// Dimensions in one line of codes: a byte holds one of the first half and one of the second half.
const BLOCK: usize = 2 * LINE;
/// 8-bit levels that one 4-bit code stands for.
const LEVELS: f32 = 16.0;
/// Pairs of rows by which errors are judged, at most, and the share of them that the error must cover.
const PAIRS: usize = 2048;
const COVERED: f64 = 0.997;
/// Dimensions from which errors of single components even out.
const DIM_MIN: usize = 32;
/// Rows that one thread makes at a time.
const CHUNK: usize = 1024;

/// Where the codes of a row lie: whole blocks, then a shorter one, then its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    dim: usize,
    /// Bytes of the last block, which holds twice as many dimensions; 0 when all blocks are whole. A multiple of 8.
    tail: usize,
    /// Where the terms are: behind the codes.
    terms_at: usize,
    /// Bytes from one row to the next.
    stride: usize,
}

impl Layout {
    fn new(dim: usize) -> Layout {
        let tail = (dim % BLOCK).div_ceil(2).next_multiple_of(8);
        let terms_at = dim / BLOCK * LINE + tail;
        let bytes = terms_at + size_of::<RowTerms>();
        // Rows that begin at any multiple of 8 may touch a line more than rows that begin at a line: only where they do
        // not is the room between them saved.
        let is_tight = (LINE - 8 + bytes).div_ceil(LINE) == bytes.div_ceil(LINE);
        Layout { dim, tail, terms_at, stride: if is_tight { bytes } else { bytes.next_multiple_of(LINE) } }
    }

    /// How a vector's dimensions are dealt out: for each line of codes those of the lower halves of its bytes and those of the upper
    /// ones, in order.
    fn blocks(self) -> impl Iterator<Item = [std::ops::Range<usize>; 2]> {
        let whole = self.dim / BLOCK;
        let cut = move |first: usize, half: usize| {
            let middle = (first + half).min(self.dim);
            [first..middle, middle..(first + 2 * half).min(self.dim)]
        };
        let tail = (self.tail > 0).then(|| cut(whole * BLOCK, self.tail));
        (0..whole).map(move |block| cut(block * BLOCK, LINE)).chain(tail)
    }
}

/// Codes of all rows, each with its terms.
pub(crate) struct ShortCodes {
    metric: Metric,
    layout: Layout,
    /// `rows * stride` bytes. No row is read beyond its stride: a row is whole lines, or a few bytes more than that.
    data: HugeBytes,
    errors: CodeErrors,
    /// By how much less than the distance by code the true one is, at most, for nearly all rows, in steps of the row: in
    /// roots of squared distances; for the inner product also in lengths of the query.
    slack_steps: f32,
}

/// A query in the form that is compared with 4-bit codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShortQuery {
    /// Signed 8-bit levels, in the order of the codes, padded with zeros.
    bytes: Vec<i8>,
    /// Subtracted from twice each product: codes are shifted by 7.5.
    shift: i32,
    /// Multiplies every product; negative, since near is small.
    scale: f32,
    /// See [`CodedQuery::lacking`].
    lacking: f32,
    /// Length of the query less the mean, as its codes say. For the inner product.
    length: f32,
}

impl ShortQuery {
    /// The distance to a row, from its product.
    #[inline(always)]
    #[expect(clippy::manual_clamp, reason = "clamp() would let a NaN through")]
    fn distance(&self, terms: RowTerms, product: i32) -> f32 {
        let distance = terms.add + self.scale * (terms.scale * (2 * product - self.shift) as f32);
        // What overflows is as far as can be; NaN too, since min() returns the other operand.
        distance.min(f32::MAX).max(f32::MIN)
    }
}

impl ShortCodes {
    /// Whether vectors have such codes: where distances are made of inner products, and of enough dimensions for errors to
    /// even out.
    pub(crate) fn suit(metric: Metric, dim: usize) -> bool {
        metric != Metric::Manhattan && dim >= DIM_MIN
    }

    /// Bytes from one row to the next.
    pub(crate) fn row_bytes(dim: usize) -> usize {
        Layout::new(dim).stride
    }

    /// Cuts the codes of all rows, on the threads of the current pool. Fails when there is no memory.
    pub(crate) fn of(codes: CodesView<'_>, errors: CodeErrors) -> io::Result<ShortCodes> {
        let layout = Layout::new(codes.coder.dim());
        let rows = codes.terms.len();
        let mut data = HugeBytes::zeroed(rows * layout.stride)?;
        let (chunk, long) = (CHUNK * layout.stride, CHUNK * codes.rows.stride);
        let all = data.bytes_mut();
        let parts = all.par_chunks_mut(chunk).zip(codes.rows.data.par_chunks(long)).zip(codes.terms.par_chunks(CHUNK));
        let metric = codes.coder.metric;
        let bounds = parts.map(|((short, long), terms)| {
            let rows = short.chunks_exact_mut(layout.stride).zip(long.chunks(codes.rows.stride)).zip(terms);
            rows.fold([0i64; 2], |[squares, lost], ((short, long), terms)| {
                let row = cut_row(layout, long, *terms, metric, short);
                [squares.max(row[0]), lost.max(row[1])]
            })
        });
        let [squares, lost] = bounds.reduce(|| [0; 2], |a, b| [a[0].max(b[0]), a[1].max(b[1])]);
        let steps = |quarters: i64| (quarters as f64 / 4.0).sqrt() as f32 * ROUNDED;
        let errors = CodeErrors { error_steps: errors.error_steps + steps(lost), norm_steps: steps(squares), ..errors };
        Ok(ShortCodes { metric, layout, data, errors, slack_steps: f32::INFINITY })
    }

    /// Learns how far distances are off in practice. `near(i)` is a pair of rows that are near each other, for any i.
    pub(crate) fn learn(&mut self, codes: CodesView<'_>, near: impl Fn(u64) -> Option<(u32, u32)>) {
        let kernel = CodeKernel::new();
        let (mut query, mut short) = (CodedQuery::default(), ShortQuery::default());
        let (mut products, mut by_long, mut by_short) = (Vec::new(), Vec::new(), Vec::new());
        let pairs = (0..PAIRS as u64).filter_map(near);
        let mut errors: Vec<f32> = pairs
            .map(|(from, to)| {
                codes.row_as_query(kernel, from, &mut query);
                self.query(&query, &mut short);
                codes.score(kernel, &query, &[to], &mut products, &mut by_long);
                self.score(kernel, &short, &[to], &mut products, &mut by_short);
                // A row as a query has added what makes its distances complete.
                let (long, short_by) = (by_long[0], by_short[0]);
                let error = match self.metric {
                    Metric::Dot => (short_by + query.add - long) / short.length,
                    _ => (short_by + query.add).max(0.0).sqrt() - long.max(0.0).sqrt(),
                };
                error / codes.terms[to as usize].scale
            })
            .filter(|error| error.is_finite())
            .collect();
        errors.sort_unstable_by(f32::total_cmp);
        let place = (errors.len() as f64 * COVERED) as usize;
        self.slack_steps = errors.get(place).map_or(f32::INFINITY, |error| error.max(0.0));
    }

    /// How far distances can be from exact ones. What is left out of the terms only makes distances by code smaller.
    pub(crate) fn errors(&self) -> CodeErrors {
        self.errors
    }

    /// A query that was coded.
    pub(crate) fn query_of(&self, coded: &CodedQuery) -> ShortQuery {
        let mut query = ShortQuery::default();
        self.query(coded, &mut query);
        query
    }

    /// Whether a row at a distance by code is certainly beyond a limit.
    #[inline(always)]
    pub(crate) fn rules_out(&self, limit: RowLimits, row: u32, by_code: f32) -> bool {
        limit.rule_out(by_code, self.terms(row).scale)
    }

    /// Prepares a query that was coded.
    pub(crate) fn query(&self, coded: &CodedQuery, query: &mut ShortQuery) {
        let (mut sum, mut squares) = (0i32, 0f64);
        query.bytes.clear();
        for halves in self.layout.blocks() {
            for half in halves {
                let start = query.bytes.len();
                query.bytes.extend_from_slice(&coded.bytes[half]);
                query.bytes.resize(start + LINE, 0);
            }
        }
        for level in &query.bytes {
            sum += i32::from(*level);
            squares += f64::from(*level).powi(2);
        }
        query.shift = 15 * sum;
        query.scale = coded.scale * LEVELS / 2.0;
        query.lacking = coded.lacking;
        query.length = -coded.scale * squares.sqrt() as f32;
    }

    /// Asks for the codes and the terms of a row ahead of scoring it.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: u32) {
        let start = row as usize * self.layout.stride;
        let line = start & !(LINE - 1);
        let end = start + self.layout.terms_at + size_of::<RowTerms>();
        prefetch(&self.data[line..end]);
    }

    /// The distances of rows to a query, in order. `products` is working memory.
    #[inline]
    pub(crate) fn score(
        &self,
        kernel: CodeKernel,
        query: &ShortQuery,
        rows: &[u32],
        products: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        self.products(kernel, query, rows, products);
        out.clear();
        out.extend(rows.iter().zip(products.iter()).map(|(row, product)| query.distance(self.terms(*row), *product)));
    }

    /// Leaves in `left` those of the rows, in order, that a limit does not rule out. `products` is working memory.
    pub(crate) fn sift(
        &self,
        kernel: CodeKernel,
        (query, limit): (&ShortQuery, RowLimits),
        rows: &[u32],
        products: &mut Vec<i32>,
        left: &mut Vec<u32>,
    ) {
        self.products(kernel, query, rows, products);
        left.resize(rows.len(), 0);
        let mut count = 0;
        // Every row is written and most are written over by the next: no branch can be guessed wrong.
        for (row, product) in rows.iter().zip(products.iter()) {
            let terms = self.terms(*row);
            left[count] = *row;
            count += usize::from(!limit.rule_out(query.distance(terms, *product), terms.scale));
        }
        left.truncate(count);
    }

    #[inline(always)]
    fn products(&self, kernel: CodeKernel, query: &ShortQuery, rows: &[u32], products: &mut Vec<i32>) {
        products.resize(rows.len(), 0);
        let codes = CodeRows { data: &self.data, stride: self.layout.stride };
        kernel.nibble_dots(&query.bytes, codes, rows, products);
    }

    /// What the row's terms are.
    #[inline(always)]
    fn terms(&self, row: u32) -> RowTerms {
        let at = row as usize * self.layout.stride + self.layout.terms_at;
        bytemuck::pod_read_unaligned(&self.data[at..at + size_of::<RowTerms>()])
    }

    /// Whether a row at a distance by code is, with near certainty, not nearer than an exact `distance` (internal; unit vectors
    /// for Cosine).
    #[inline]
    pub(crate) fn is_beyond(&self, query: &ShortQuery, (row, by_code): (u32, f32), distance: f32) -> bool {
        self.is_step_beyond(query, (self.terms(row).scale, by_code), distance)
    }

    /// The same for any row at that distance by code, or a larger one.
    #[inline]
    pub(crate) fn is_all_beyond(&self, query: &ShortQuery, by_code: f32, distance: f32) -> bool {
        self.is_step_beyond(query, (self.errors.step_max, by_code), distance)
    }

    /// Whether a row of a step, at a distance by its 8-bit code, is with near certainty not nearer than an exact `distance`. The error
    /// of those codes is a sixteenth; but that of the query, which both have alike, is no longer small beside it.
    pub(crate) fn is_long_beyond(
        &self,
        coder: &Coder,
        (coded, query): (&CodedQuery, &ShortQuery),
        (step, by_code): (f32, f32),
        distance: f32,
    ) -> bool {
        let slack = self.slack_steps / LEVELS;
        let by_code = by_code + coded.lacking;
        let query_step = coded.step(coder);
        match self.metric {
            Metric::Dot => {
                let longest = self.errors.norm_steps * self.errors.step_max;
                by_code - slack * (step * query.length + query_step * longest) > distance
            }
            Metric::Cosine | Metric::Euclid | Metric::Manhattan => {
                self.is_reach_beyond(slack * (step + query_step), by_code, distance)
            }
        }
    }

    #[inline(always)]
    fn is_step_beyond(&self, query: &ShortQuery, (step, by_code): (f32, f32), distance: f32) -> bool {
        let slack = self.slack_steps * step;
        let by_code = by_code + query.lacking;
        match self.metric {
            Metric::Dot => by_code - slack * query.length > distance,
            Metric::Cosine | Metric::Euclid | Metric::Manhattan => self.is_reach_beyond(slack, by_code, distance),
        }
    }

    fn is_reach_beyond(&self, slack: f32, by_code: f32, distance: f32) -> bool {
        // Unit vectors: |a - b|^2 = 2 - 2 <a, b>.
        let squared = if self.metric == Metric::Cosine { 2.0 + 2.0 * distance } else { distance };
        by_code.max(0.0).sqrt() - slack > squared.max(0.0).sqrt()
    }

    /// Bytes of codes and terms.
    pub(crate) fn bytes(&self) -> u64 {
        self.data.len() as u64
    }
}

/// The upper halves of a row's codes, and its terms. Returns the squared lengths of what the codes stand for and of what was cut
/// off, in quarters of squared steps.
fn cut_row(layout: Layout, long: &[u8], terms: RowTerms, metric: Metric, short: &mut [u8]) -> [i64; 2] {
    let (codes, rest) = short.split_at_mut(layout.terms_at);
    for (line, [low, high]) in codes.chunks_mut(LINE).zip(layout.blocks()) {
        line.iter_mut().zip(&long[low]).for_each(|(out, code)| *out = code >> 4);
        line.iter_mut().zip(&long[high]).for_each(|(out, code)| *out |= code & 0xF0);
    }
    let (mut squares, mut lost) = (0i64, 0i64);
    for part in long[..layout.dim].chunks(BLOCK) {
        let (mut part_squares, mut part_lost) = (0i32, 0i32);
        for code in part {
            // In half steps: at most 240 and 16.
            part_squares += (32 * i32::from(code >> 4) - 240).pow(2);
            part_lost += (2 * i32::from(code & 0x0F) - 16).pow(2);
        }
        squares += i64::from(part_squares);
        lost += i64::from(part_lost);
    }
    let add = match metric {
        Metric::Dot | Metric::Manhattan => terms.add,
        // With x what the 8-bit codes stand for, y the 4-bit ones and q the query: |q - y|^2 - |x - y|^2 is |q - x|^2 plus
        // twice <q - x, x - y>, an error without direction that shrinks with the distance.
        Metric::Cosine | Metric::Euclid => (f64::from(terms.scale).powi(2) * (squares - lost) as f64 / 4.0)
            .clamp(-f64::from(f32::MAX), f32::MAX.into()) as f32,
    };
    rest[..size_of::<RowTerms>()].copy_from_slice(bytemuck::bytes_of(&RowTerms { scale: terms.scale, add }));
    [squares, lost]
}

#[cfg(test)]
mod tests;
