//! Scans: in chunks of rows that threads take until there is none left; over the vectors.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use vicinal_common::distance::Kernel;

use super::by_code::CodeBuffers;
use crate::prefetch::prefetch;
use crate::{Accept, Hit, Rows, SearchParams, Searched, TopK};

/// Bytes that a thread takes at a time: some ten microseconds of reading, so that no thread waits long for another.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes for each thread, at least: some two hundred microseconds of reading. To wake a thread for less and to wait for it
/// takes longer than the reading, and on a busy machine much longer. Tests spread the smallest scan.
const THREAD_BYTES_MIN: usize = if cfg!(test) { 1 } else { 2 << 20 };
/// Rows scored in one go.
pub(super) const BLOCK: usize = 64;

/// The best of what `scan` finds in all chunks of the rows, on up to `params.threads` threads. Before each chunk `goes_on`
/// is told how many rows it has; no more are begun once it says no.
pub(super) fn in_chunks(
    (rows, row_bytes): (usize, usize),
    params: SearchParams,
    goes_on: &(dyn Fn(usize) -> bool + Sync),
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
            let range = number * chunk..rows.min((number + 1) * chunk);
            if number >= chunks || !goes_on(range.len()) {
                return worker;
            }
            scan(range, &mut worker);
        }
    };
    let worth = rows.saturating_mul(row_bytes) / THREAD_BYTES_MIN;
    let helpers = params.threads.min(chunks).min(worth).saturating_sub(1);
    if helpers == 0 {
        return work().searched();
    }
    let all = Mutex::new(Worker::new(params.k, rows));
    rayon::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| {
                // A helper that starts late finds nothing left and costs nothing.
                if next.load(Ordering::Relaxed) < chunks {
                    // First the work, then the lock: an argument is computed with the lock held.
                    let found = work();
                    all.lock().merge(found);
                }
            });
        }
        let own = work();
        all.lock().merge(own);
    });
    all.into_inner().searched()
}

/// What one thread scans with.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) best: TopK,
    /// Distances computed.
    pub(super) distances: u64,
    /// The rows to score.
    pub(super) block: Vec<u32>,
    /// What a scan of codes works in.
    pub(super) buffers: CodeBuffers,
}

impl Worker {
    fn new(k: usize, rows: usize) -> Worker {
        Worker { best: TopK::new(k, rows), ..Worker::default() }
    }

    /// Calls `score` with block after block of the accepted ones of a range of rows, which begins at a multiple of 64. Blocks
    /// have `first` rows until there are as many hits as are wanted.
    pub(super) fn for_each_block(
        &mut self,
        rows: Range<usize>,
        (accept, first): (Accept<'_>, usize),
        mut score: impl FnMut(&mut Worker),
    ) {
        let mut accepted = accept.iter_in(rows.clone());
        let mut all = rows.start as u32..rows.end as u32;
        loop {
            let size = if self.best.worst().is_none() { first } else { BLOCK };
            self.block.clear();
            match accept {
                // A range is written down much faster than bits are looked for.
                Accept::All => self.block.extend(all.by_ref().take(size)),
                Accept::Rows { .. } | Accept::Test { .. } => self.block.extend(accepted.by_ref().take(size)),
            }
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
    scan_while((kernel, rows), query, params, accept, &|_| true)
}

/// The same of the rows that were scored until `goes_on` said no, which is told of rows before they are.
pub(crate) fn scan_while(
    (kernel, rows): (&Kernel, Rows<'_>),
    query: &[f32],
    params: SearchParams,
    accept: Accept<'_>,
    goes_on: &(dyn Fn(usize) -> bool + Sync),
) -> Searched {
    if params.k == 0 {
        return Searched::default();
    }
    in_chunks((rows.len(), 4 * rows.dim), params, goes_on, |chunk, worker| {
        worker.for_each_block(chunk, (accept, BLOCK), |worker| worker.score_block(kernel, rows, query));
    })
}
