//! Scans by codes, which leave only few vectors to be read and find what a scan of the vectors finds.
//!
//! Codes rule out rows for certain, once enough hits are known to say what is too far. Where most rows are scanned, 4-bit codes
//! say first which of the 8-bit ones are read; and since what they can say depends on how good the hits known so far are, the first
//! hits are the nearest by code of some hundred rows, not the first rows. Among few rows the best are far, and the limits of 4-bit
//! codes too wide to rule out enough.

use std::ops::Range;

use vicinal_common::distance::Kernel;

use super::scan::{BLOCK, Worker, in_chunks};
use crate::codes::{CodeKernel, CodeLimits, CodedQuery, Codes, ShortCodes, ShortQuery};
use crate::{Accept, Hit, Rows, SearchParams, Searched};

/// Rows among which the first hits are looked for.
const FIRST: usize = 512;

/// 4-bit codes that leave more than one in so many rows do not pay, and are not asked any more, once that many rows have shown it.
const LEFT_SHARE: usize = 4;
const SHOWN: usize = 2048;
const SHOWN_PER_HIT: usize = 32;

/// What a thread works in.
#[derive(Default)]
pub(super) struct CodeBuffers {
    /// Distances by code, one per row asked for, and integers on the way to them.
    by_code: Vec<f32>,
    products: Vec<i32>,
    /// Rows of the block that 4-bit codes did not rule out.
    left: Vec<u32>,
    /// Rows that 4-bit codes were asked about, and how many of them they left.
    asked: usize,
    asked_left: usize,
    /// Rows of the first block with their distances by 4-bit code.
    first: Vec<Hit>,
    /// What a scan for the nearest by code has found, those that are too far among them.
    near: Vec<Hit>,
}

/// The exact k nearest accepted rows, best first.
pub(crate) fn scan_codes(
    (codes, code_kernel): (&Codes, CodeKernel),
    (kernel, rows): (&Kernel, Rows<'_>),
    (query, coded): (&[f32], &CodedQuery),
    params: SearchParams,
    accept: Accept<'_>,
) -> Searched {
    if params.k == 0 {
        return Searched::default();
    }
    let is_most = accept.count(rows.len()).is_some_and(|count| 2 * count >= rows.len());
    let short = codes.short.as_ref().filter(|_| is_most).map(|short| ShortScan {
        codes: short,
        query: short.query_of(coded),
        limits: CodeLimits::new(&codes.coder, short.errors(), query, coded),
    });
    let (stride, first) = match &short {
        Some(_) => (ShortCodes::row_bytes(rows.dim), FIRST),
        None => (codes.stride(), BLOCK),
    };
    let limits = CodeLimits::new(&codes.coder, codes.errors, query, coded);
    let scan = CodeScan { codes, code_kernel, kernel, rows, query, coded, limits, short };
    in_chunks((rows.len(), stride), params, &|_| true, |chunk, worker| {
        worker.for_each_block(chunk, (accept, first), |worker| scan.block(worker));
    })
}

impl ShortCodes {
    /// The `params.k` accepted ones of so many rows that are nearest by code, with those distances. The same for any number of
    /// threads.
    pub(crate) fn nearest(
        &self,
        (kernel, rows): (CodeKernel, usize),
        query: &ShortQuery,
        params: SearchParams,
        accept: Accept<'_>,
    ) -> Searched {
        nearest((rows, self.bytes() as usize), params, accept, |block, CodeBuffers { by_code, products, .. }| {
            self.score(kernel, query, block, products, by_code);
        })
    }
}

impl Codes {
    /// The same by 8-bit codes.
    pub(crate) fn nearest(
        &self,
        kernel: CodeKernel,
        query: &CodedQuery,
        params: SearchParams,
        accept: Accept<'_>,
    ) -> Searched {
        let (view, size) = (self.view(), (self.rows(), self.data.bytes().len()));
        nearest(size, params, accept, |block, CodeBuffers { by_code, products, .. }| {
            view.score(kernel, query, block, products, by_code);
        })
    }
}

/// The accepted rows nearest by what `score` says of a block of them.
fn nearest(
    (rows, bytes): (usize, usize),
    params: SearchParams,
    accept: Accept<'_>,
    score: impl Fn(&[u32], &mut CodeBuffers) + Sync,
) -> Searched {
    // Only the bytes of accepted rows are read; and one thread has no reason to stop in between.
    let share = accept.count(rows).unwrap_or(rows) as f64 / rows.max(1) as f64;
    let row_bytes = if params.threads > 1 { (bytes as f64 / rows.max(1) as f64 * share) as usize } else { 1 };
    in_chunks((rows, row_bytes), params, &|_| true, |chunk, worker| {
        let Worker { best, distances, buffers, .. } = worker;
        let kept = best.capacity();
        let mut limit = best.worst().map_or(f32::INFINITY, |worst| worst.distance);
        for_each_block(accept, chunk, |block| {
            score(block, buffers);
            *distances += block.len() as u64;
            let CodeBuffers { by_code, near, .. } = &mut *buffers;
            for (row, distance) in block.iter().zip(by_code.iter()) {
                if *distance > limit {
                    continue;
                }
                near.push(Hit { distance: *distance, row: *row });
                // Far cheaper than to keep them in order: most of the first are too far in the end.
                if near.len() == 2 * kept {
                    near.select_nth_unstable_by(kept - 1, Hit::cmp_total);
                    near.truncate(kept);
                    limit = limit.min(near[kept - 1].distance);
                }
            }
        });
        buffers.near.drain(..).for_each(|hit| _ = best.push(hit));
    })
}

/// Calls `score` with block after block of the accepted ones of a range of rows, which begins at a multiple of 64.
fn for_each_block(accept: Accept<'_>, rows: Range<usize>, mut score: impl FnMut(&[u32])) {
    let mut block = [0u32; 2 * BLOCK];
    let mut len = 0;
    match accept {
        Accept::Rows { words, .. } => {
            let words = &words[rows.start / 64..rows.end.div_ceil(64)];
            for (first, bits) in rows.clone().step_by(64).zip(words) {
                let bits = match rows.end - first {
                    left @ ..64 => bits & ((1 << left) - 1),
                    64.. => *bits,
                };
                len += write_rows(bits, first as u32, &mut block[len..]);
                if len >= BLOCK {
                    score(&block[..BLOCK]);
                    block.copy_within(BLOCK..len, 0);
                    len -= BLOCK;
                }
            }
        }
        Accept::All | Accept::Test { .. } => {
            for row in accept.iter_in(rows) {
                block[len] = row;
                len += 1;
                if len == BLOCK {
                    score(&block[..BLOCK]);
                    len = 0;
                }
            }
        }
    }
    score(&block[..len]);
}

/// Writes down the rows of one word of bits, of which `first` is the first. Returns how many there are.
#[inline(always)]
fn write_rows(mut bits: u64, first: u32, out: &mut [u32]) -> usize {
    const ALWAYS: usize = 4;
    let count = bits.count_ones() as usize;
    let mut write = |out: &mut u32| {
        *out = first.wrapping_add(bits.trailing_zeros());
        bits &= bits.wrapping_sub(1);
    };
    // To guess wrong how many bits there are costs more than to write some that are written over by the next.
    let (always, rest) = out.split_at_mut(ALWAYS);
    always.iter_mut().for_each(&mut write);
    if count > ALWAYS {
        rest[..count - ALWAYS].iter_mut().for_each(&mut write);
    }
    count
}

/// A query as it meets 4-bit codes.
struct ShortScan<'a> {
    codes: &'a ShortCodes,
    query: ShortQuery,
    limits: CodeLimits,
}

/// A query as it meets everything.
struct CodeScan<'a> {
    codes: &'a Codes,
    code_kernel: CodeKernel,
    kernel: &'a Kernel,
    rows: Rows<'a>,
    query: &'a [f32],
    coded: &'a CodedQuery,
    limits: CodeLimits,
    short: Option<ShortScan<'a>>,
}

impl CodeScan<'_> {
    /// Scores the rows of the block.
    fn block(&self, worker: &mut Worker) {
        let CodeBuffers { asked, asked_left, .. } = worker.buffers;
        // Many hits take long to become good ones.
        let shown = SHOWN.max(worker.best.capacity().saturating_mul(SHOWN_PER_HIT));
        let short = self.short.as_ref().filter(|_| asked < shown || asked_left * LEFT_SHARE <= asked);
        let is_asked = match (short, worker.best.worst()) {
            (Some(short), Some(worst)) => {
                let CodeBuffers { products, left, .. } = &mut worker.buffers;
                let limit = short.limits.at(worst.distance);
                short.codes.sift(self.code_kernel, (&short.query, limit), &worker.block, products, left);
                true
            }
            (Some(short), None) if worker.block.len() > worker.best.capacity() => {
                self.first_block(short, worker);
                true
            }
            (Some(_) | None, _) => {
                worker.buffers.left.clone_from(&worker.block);
                false
            }
        };
        if is_asked {
            let left = worker.buffers.left.len();
            worker.distances += left as u64;
            worker.buffers.asked += worker.block.len();
            worker.buffers.asked_left += left;
        }
        self.left(worker);
    }

    /// Scores the nearest by 4-bit code exactly, and leaves those of the others that are not ruled out by that.
    fn first_block(&self, short: &ShortScan<'_>, worker: &mut Worker) {
        let CodeBuffers { by_code, products, left, first, .. } = &mut worker.buffers;
        short.codes.score(self.code_kernel, &short.query, &worker.block, products, by_code);
        first.clear();
        first.extend(
            worker.block.iter().zip(by_code.iter()).map(|(row, distance)| Hit { distance: *distance, row: *row }),
        );
        let count = worker.best.capacity();
        first.select_nth_unstable_by(count - 1, Hit::cmp_total);
        let (nearest, others) = first.split_at(count);
        for hit in nearest {
            worker.best.push(Hit { distance: self.exact(hit.row), ..*hit });
        }
        worker.distances += count as u64;
        let limit = worker.best.worst().map(|worst| short.limits.at(worst.distance));
        let is_out = |hit: &&Hit| limit.is_some_and(|limit| short.codes.rules_out(limit, hit.row, hit.distance));
        left.clear();
        left.extend(others.iter().filter(|hit| !is_out(hit)).map(|hit| hit.row));
    }

    /// Scores the rows that are left, by 8-bit code and exactly where that may be needed.
    fn left(&self, worker: &mut Worker) {
        let Worker { best, distances, buffers: CodeBuffers { by_code, products, left, .. }, .. } = worker;
        let view = self.codes.view();
        view.score(self.code_kernel, self.coded, left, products, by_code);
        let mut limit = best.worst().map(|worst| self.limits.at(worst.distance));
        for (row, by_code) in left.iter().zip(by_code.iter()) {
            if limit.is_some_and(|limit| limit.rule_out(*by_code, view.terms[*row as usize].scale)) {
                continue;
            }
            *distances += 1;
            if best.push(Hit { distance: self.exact(*row), row: *row }) {
                limit = best.worst().map(|worst| self.limits.at(worst.distance));
            }
        }
    }

    fn exact(&self, row: u32) -> f32 {
        self.kernel.distance(self.query, self.rows.row(row))
    }
}

#[cfg(test)]
mod tests;
