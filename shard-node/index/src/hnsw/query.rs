//! Searching: which way to go about a query, walking the graph, and scoring the last candidates exactly.

use vicinal_common::metric::Metric;

use super::HnswIndex;
use super::beam::{Found, Scratch};
use super::build::mix;
use super::search::{CodeScorer, VectorScorer, search_graph};
use crate::codes::Codes;
use crate::flat::scan;
use crate::prefetch::prefetch;
use crate::top_k::TopK;
use crate::{Accept, Hit, Rows, SearchParams, VectorIndex};

/// Rows whose acceptance is looked at to estimate how many there are, where that is not known. Fewer rows are simply
/// scanned.
const SAMPLE: usize = 512;

/// Candidates scored exactly for each hit asked for, where the error of the codes is not known as a ratio.
const CANDIDATES_PER_HIT: usize = 2;

impl HnswIndex {
    /// The beam that is expected to hold `wanted` accepted rows, or `None` when scanning the accepted rows costs less.
    ///
    /// A beam of b nodes scores about `b * m` rows: each node has at most `2 m` neighbours, and about half of them were
    /// seen before.
    fn beam_for(&self, wanted: usize, accept: Accept<'_>) -> Option<usize> {
        let (accepted, among) = match accept {
            Accept::All => (self.rows, self.rows),
            Accept::Rows { count, .. } | Accept::Test { count: Some(count), .. } => (count, self.rows),
            Accept::Test { .. } if self.rows <= SAMPLE => return None,
            Accept::Test { test, count: None } => {
                let sampled = (0..SAMPLE as u64).filter(|i| test((mix(*i) % self.rows as u64) as u32));
                (sampled.count(), SAMPLE)
            }
        };
        if accepted == 0 {
            return None;
        }
        let beam = wanted.checked_mul(among)?.div_ceil(accepted);
        let scored_by_graph = beam.checked_mul(self.params.m)?;
        let scored_by_scan = (self.rows as u128 * accepted as u128 / among as u128) as usize;
        (scored_by_graph < scored_by_scan).then_some(beam)
    }

    /// The hits among the nodes of a beam that was walked over the vectors.
    fn hits(&self, scratch: &Scratch, best: &mut TopK, accept: Accept<'_>) {
        for found in scratch.beam.found() {
            if !self.admit(found, best, accept) {
                break;
            }
        }
    }

    /// Offers all accepted rows with a node's vector. Returns whether a farther node may still be among the best.
    fn admit(&self, found: Found, best: &mut TopK, accept: Accept<'_>) -> bool {
        // Rows of one chain are in order and equally far: once one is not among the best, none after it is.
        let graph = self.graph();
        let mut rows = graph.equal_rows(found.node).filter(|row| accept.contains(*row));
        rows.all(|row| best.push(Hit { distance: found.distance, row }))
    }

    /// The hits among the nodes of a beam that was walked over codes: candidates are scored with the vectors, nearest by
    /// code first, until none of the rest is likely to be nearer than the k-th hit.
    fn rerank(&self, codes: &Codes, exact: VectorScorer<'_>, scratch: &Scratch, best: &mut TopK, accept: Accept<'_>) {
        let VectorScorer { kernel, rows, query } = exact;
        let is_measured = matches!(self.metric, Metric::Cosine | Metric::Euclid);
        let candidates = scratch.beam.found().filter(|found| self.has_accepted(found.node, accept));
        let most = if is_measured { usize::MAX } else { best.capacity().saturating_mul(CANDIDATES_PER_HIT) };
        let mut ahead = candidates.clone();
        ahead.by_ref().take(AHEAD).for_each(|found| prefetch(rows.row(found.node)));
        for found in candidates.take(most) {
            if is_measured && let Some(worst) = best.worst() {
                // Unit vectors: |a - b|^2 = 2 - 2 <a, b>.
                let limit = if self.metric == Metric::Cosine { 2.0 + 2.0 * worst.distance } else { worst.distance };
                if (found.distance + scratch.query.squared) * codes.near_ratio > limit {
                    break;
                }
            }
            if let Some(next) = ahead.next() {
                prefetch(rows.row(next.node));
            }
            let distance = kernel.distance(query, rows.row(found.node));
            self.admit(Found { distance, ..found }, best, accept);
        }
    }

    fn has_accepted(&self, node: u32, accept: Accept<'_>) -> bool {
        matches!(accept, Accept::All) || self.graph().equal_rows(node).any(|row| accept.contains(row))
    }
}

/// Vectors asked for ahead of scoring them.
const AHEAD: usize = 4;

impl VectorIndex for HnswIndex {
    /// Walks all rows and admits the accepted ones among the nodes of the final beam, which is widened by the estimated
    /// share of accepted rows. When the accepted rows are so few that scoring all of them is cheaper, or the beam holds
    /// fewer than `k` of them, they are scanned: the answer is then exact.
    fn search(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Vec<Hit> {
        assert_eq!((rows.dim, rows.len()), (self.dim, self.rows), "searched with the rows the graph was built on");
        if params.k == 0 {
            return Vec::new();
        }
        let Some(beam) = self.beam_for(params.ef.max(params.k), accept) else {
            return scan(&self.kernel, rows, query, params.k, accept);
        };
        let mut scratch = self.scratches.take();
        let mut best = TopK::new(params.k, self.rows);
        let exact = VectorScorer { kernel: self.kernel, rows, query };
        match &self.codes {
            Some(codes) => {
                let view = codes.view();
                let mut coded = std::mem::take(&mut scratch.query);
                view.coder.query(self.code_kernel, query, &mut coded);
                let scorer = CodeScorer { kernel: self.code_kernel, codes: view, query: &coded };
                search_graph(self.graph(), &scorer, beam, &mut scratch);
                scratch.query = coded;
                self.rerank(codes, exact, &scratch, &mut best, accept);
            }
            None => {
                search_graph(self.graph(), &exact, beam, &mut scratch);
                self.hits(&scratch, &mut best, accept);
            }
        }
        if best.len() < params.k {
            return scan(&self.kernel, rows, query, params.k, accept);
        }
        best.into_sorted()
    }

    fn name(&self) -> &'static str {
        "hnsw"
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn bytes(&self) -> u64 {
        let graph = &self.graph;
        let arrays = [&graph.base, &graph.upper_rows, &graph.upper, &graph.twins];
        let codes = self.codes.iter().flat_map(|codes| [&codes.data, &codes.terms]);
        arrays.into_iter().chain(codes).map(|array| array.bytes().len() as u64).sum()
    }
}
