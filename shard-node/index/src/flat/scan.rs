//! Scans: over the vectors, or over codes that leave only few vectors to be read. Both give the same hits. A scan may be
//! spread over threads: they take chunks of rows until there is none left.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use vicinal_common::distance::Kernel;

use crate::codes::{CodeKernel, CodeLimits, CodedQuery, Codes, ShortCodes, ShortQuery};
use crate::prefetch::prefetch;
use crate::{Accept, Hit, Rows, SearchParams, Searched, TopK};

/// Bytes that a thread takes at a time: some ten microseconds of reading, so that no thread waits long for another.
const CHUNK_BYTES: usize = 256 << 10;
/// Rows scored in one go.
const BLOCK: usize = 64;

/// The best of what `scan` finds in all chunks of the rows, on up to `params.threads` threads.
fn in_chunks(
    (rows, row_bytes): (usize, usize),
    params: SearchParams,
    scan: impl Fn(Range<usize>, &mut Worker) + Sync,
) -> Searched {
    let chunk = (CHUNK_BYTES / row_bytes.max(1)).next_multiple_of(64).max(64);
    let chunks = rows.div_ceil(chunk);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut worker = Worker::new(params.k, rows);
        loop {
            // Relaxed: only the number counts; results are handed over by the lock, or never leave this thread.
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= chunks {
                return worker;
            }
            scan(number * chunk..rows.min((number + 1) * chunk), &mut worker);
        }
    };
    let helpers = params.threads.min(chunks).saturating_sub(1);
    if helpers == 0 {
        return work().searched();
    }
    let all = Mutex::new(Worker::new(params.k, rows));
    rayon::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| {
                // A helper that starts late finds nothing left and costs nothing.
                if next.load(Ordering::Relaxed) < chunks {
                    all.lock().merge(work());
                }
            });
        }
        let own = work();
        all.lock().merge(own);
    });
    all.into_inner().searched()
}

/// What one thread scans with.
struct Worker {
    best: TopK,
    distances: u64,
    block: Vec<u32>,
    coded: Vec<f32>,
    products: Vec<i32>,
    /// Rows of the block that 4-bit codes did not rule out.
    left: Vec<u32>,
}

impl Worker {
    fn new(k: usize, rows: usize) -> Worker {
        let (block, coded, products, left) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Worker { best: TopK::new(k, rows), distances: 0, block, coded, products, left }
    }

    /// Calls `score` with block after block of the rows.
    fn for_each_block(&mut self, mut rows: impl Iterator<Item = u32>, mut score: impl FnMut(&mut Worker)) {
        loop {
            self.block.clear();
            self.block.extend(rows.by_ref().take(BLOCK));
            if self.block.is_empty() {
                return;
            }
            self.distances += self.block.len() as u64;
            score(self);
        }
    }

    fn merge(&mut self, other: Worker) {
        self.distances += other.distances;
        for hit in other.best.into_sorted() {
            self.best.push(hit);
        }
    }

    fn searched(self) -> Searched {
        Searched { hits: self.best.into_sorted(), distances: self.distances }
    }

    /// Scores the vectors of the rows of the block, four at a time.
    fn score_block(&mut self, kernel: &Kernel, rows: Rows<'_>, query: &[f32]) {
        let (quads, rest) = self.block.as_chunks::<4>();
        for (i, quad) in quads.iter().enumerate() {
            // Rows in a row are fetched ahead by the hardware; after gaps it has to be told.
            self.block[4 * (i + 1)..].iter().take(4).for_each(|row| prefetch(rows.row(*row)));
            let distances = kernel.distance4(query, quad.map(|row| rows.row(row)));
            for (row, distance) in quad.iter().zip(distances) {
                self.best.push(Hit { distance, row: *row });
            }
        }
        for row in rest {
            self.best.push(Hit { distance: kernel.distance(query, rows.row(*row)), row: *row });
        }
    }
}

/// The exact k nearest accepted rows, best first.
pub(crate) fn scan(
    kernel: &Kernel,
    rows: Rows<'_>,
    query: &[f32],
    params: SearchParams,
    accept: Accept<'_>,
) -> Searched {
    if params.k == 0 {
        return Searched::default();
    }
    in_chunks((rows.len(), 4 * rows.dim), params, |chunk, worker| {
        worker.for_each_block(accept.iter_in(chunk), |worker| worker.score_block(kernel, rows, query));
    })
}

/// The same by codes: the vectors of those rows alone are read that could be among the best. Where there are 4-bit codes they
/// say first which of the 8-bit ones are read.
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
    let view = codes.view();
    let limits = CodeLimits::new(&codes.coder, codes.errors, query, coded);
    let short = codes.short.as_ref().map(|short| {
        let mut by_short = ShortQuery::default();
        short.query(coded, &mut by_short);
        (short, by_short, CodeLimits::new(&codes.coder, short.errors(), query, coded))
    });
    let stride = short.as_ref().map_or(codes.stride(), |_| ShortCodes::row_bytes(rows.dim));
    in_chunks((rows.len(), stride), params, |chunk, worker| {
        let mut worst = worker.best.worst().map(|hit| hit.distance);
        let mut limit = worst.map_or(f32::INFINITY, |worst| limits.of_any(worst));
        worker.for_each_block(accept.iter_in(chunk), |worker| {
            let Worker { best, distances, block, coded: by_code, products, left } = worker;
            let left = match &short {
                Some((short, query, limits)) if let Some(worst) = worst => {
                    short.score(code_kernel, query, block, products, by_code);
                    let limit = limits.of_any(worst);
                    left.clear();
                    let by_short = block.iter().zip(by_code.iter()).filter(|(_, by_code)| **by_code <= limit);
                    let by_row =
                        by_short.filter(|(row, by_code)| **by_code <= limits.of(worst, short.terms(**row).scale));
                    left.extend(by_row.map(|(row, _)| *row));
                    *distances += left.len() as u64;
                    &*left
                }
                _ => &*block,
            };
            view.score(code_kernel, coded, left, products, by_code);
            for (row, by_code) in left.iter().zip(by_code.iter()) {
                let is_out = |worst| *by_code > limits.of(worst, view.terms[*row as usize].scale);
                if *by_code > limit || worst.is_some_and(is_out) {
                    continue;
                }
                *distances += 1;
                let distance = kernel.distance(query, rows.row(*row));
                if best.push(Hit { distance, row: *row }) {
                    worst = best.worst().map(|hit| hit.distance);
                    limit = worst.map_or(f32::INFINITY, |worst| limits.of_any(worst));
                }
            }
        });
    })
}
