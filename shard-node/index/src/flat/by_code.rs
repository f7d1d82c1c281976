//! Scans by codes, which leave only few vectors to be read and find what a scan of the vectors finds.
//!
//! Codes rule out rows for certain, once enough hits are known to say what is too far. Where most rows are scanned, 4-bit codes
//! say first which of the 8-bit ones are read; and since what they can say depends on how good the hits known so far are, the first
//! hits are the nearest by code of some hundred rows, not the first rows. Among few rows the best are far, and the limits of 4-bit
//! codes too wide to rule out enough.

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
    in_chunks((rows.len(), stride), params, |chunk, worker| {
        worker.for_each_block(chunk, (accept, first), |worker| scan.block(worker));
    })
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
