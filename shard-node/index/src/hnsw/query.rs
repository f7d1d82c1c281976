//! Searching: which way to go about a query, walking the graph, and scoring the last candidates exactly.

use vicinal_common::metric::Metric;

use super::HnswIndex;
use super::beam::{Found, Scratch};
use super::build::mix;
use super::search::{
    AcceptedBounds, CodeScorer, Scorer, VectorScorer, descend, look_around, scan_rows, search_accepted, search_graph,
};
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

/// Which way a query goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Every accepted row is scored.
    Scan,
    /// All rows are walked over, accepted ones are taken out of a beam of this size.
    Walk(usize),
    /// A look around the query decides: a walk over accepted rows with a beam of this size, or a scan. The share of
    /// accepted rows among all, in parts per million.
    Filtered { ef: usize, share_ppm: u64 },
}

/// What a filled beam holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nodes, each of which stands for all rows with its vector.
    Nodes,
    /// Accepted rows one by one.
    Rows,
}

/// Share of accepted rows, in percent, from which a walk over all rows meets enough of them.
const MOST_PERCENT: usize = 40;

/// A row that a scan reads in order costs so many percent of one that a walk jumps to.
const SCAN_PERCENT: usize = 25;

/// Candidates that a scan of codes keeps for each hit asked for. Where they lie so close together that these are not
/// enough to be sure, the vectors are scanned.
const SCANNED_PER_HIT: usize = 40;

/// Least beam of a walk over accepted rows, which are connected less well than all rows are.
const FILTERED_EF_MIN: usize = 48;

/// Beam of the look around.
const AROUND: usize = 12;

/// A filter that accepts less than one in so many times its share near the query is against the query: what it accepts
/// lies elsewhere, where the graph does not lead from here.
const AGAINST: u64 = 4;

impl HnswIndex {
    /// Chooses by cost. A beam of b nodes scores about `b * m` rows: each node has at most `2 m` neighbours, and about
    /// half of them were seen before.
    fn way(&self, params: SearchParams, accept: Accept<'_>) -> Way {
        let ef = params.ef.max(params.k);
        let accepted = match (accept, accept.count(self.rows)) {
            (_, Some(count)) => count,
            (Accept::Test { test, .. }, None) if self.rows > SAMPLE => {
                let sampled = (0..SAMPLE as u64).filter(|i| test((mix(*i) % self.rows as u64) as u32)).count();
                (self.rows as u128 * sampled as u128 / SAMPLE as u128) as usize
            }
            (_, None) => return Way::Scan,
        };
        let scanned = accepted.saturating_mul(SCAN_PERCENT) / 100;
        if accepted == 0 || scanned <= ef.saturating_mul(self.params.m) {
            Way::Scan
        } else if accepted >= self.rows {
            Way::Walk(ef)
        } else if accepted.saturating_mul(100) >= self.rows.saturating_mul(MOST_PERCENT) {
            let enough = (4 * params.k as u128 * self.rows as u128).div_ceil(accepted as u128);
            Way::Walk(ef.max(usize::try_from(enough).unwrap_or(usize::MAX)))
        } else {
            let share_ppm = (accepted as u128 * 1_000_000 / self.rows as u128) as u64;
            Way::Filtered { ef: ef.max(FILTERED_EF_MIN), share_ppm }
        }
    }

    /// Fills the beam of `scratch` with what is nearest by `scorer`.
    fn fill<S: Scorer>(
        &self,
        scorer: &S,
        way: Way,
        params: SearchParams,
        accept: Accept<'_>,
        scratch: &mut Scratch,
    ) -> Held {
        let graph = self.graph();
        let is_done = match way {
            Way::Scan => false,
            Way::Walk(ef) => {
                search_graph(graph, scorer, ef, scratch);
                true
            }
            Way::Filtered { ef, share_ppm } => {
                descend(graph, scorer, scratch);
                if graph.twins.is_empty() {
                    self.filtered(scorer, (ef, share_ppm), |row| accept.contains(row), scratch)
                } else {
                    self.filtered(scorer, (ef, share_ppm), |row| self.has_accepted(row, accept), scratch)
                }
            }
        };
        let is_enough = || {
            let found = scratch.beam.found().filter(|found| self.has_accepted(found.node, accept));
            found.take(params.k).count() == params.k
        };
        if is_done && is_enough() {
            return Held::Nodes;
        }
        let candidates = params.k.saturating_mul(SCANNED_PER_HIT).max(params.ef);
        scan_rows(accept.iter(self.rows), scorer, candidates, scratch);
        Held::Rows
    }

    /// Looks around and then walks over accepted rows. False: a scan is the better way.
    fn filtered<S: Scorer>(
        &self,
        scorer: &S,
        (ef, share_ppm): (usize, u64),
        is_accepted: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> bool {
        let base = self.graph().base();
        let (scored, near) = look_around(base, scorer, (AROUND, ef), &is_accepted, scratch);
        if near as u64 * AGAINST * 1_000_000 < scored as u64 * share_ppm {
            return false;
        }
        let bounds = AcceptedBounds {
            accepted_max: 3 * self.params.m / 2,
            // The lists of so many rows hold about 1.5 m accepted ones between them.
            through_max: (1_500_000 / share_ppm.max(1)).min(2 * self.params.m as u64) as usize,
        };
        search_accepted(base, scorer, bounds, is_accepted, scratch);
        true
    }

    /// Offers the accepted rows that a member of the beam stands for. Returns whether a farther one may still be among the
    /// best.
    fn admit(&self, found: Found, held: Held, best: &mut TopK, accept: Accept<'_>) -> bool {
        let hit = |row: u32| Hit { distance: found.distance, row };
        match held {
            Held::Rows => best.push(hit(found.node)),
            // Rows of one chain are in order and equally far: once one is not among the best, none after it is.
            Held::Nodes => {
                let mut rows = self.graph().equal_rows(found.node).filter(|row| accept.contains(*row));
                rows.all(|row| best.push(hit(row)))
            }
        }
    }

    /// The hits of a beam that was filled by codes: candidates are scored with the vectors, nearest by code first, until
    /// none of the rest is likely to be nearer than the k-th hit. Returns whether that came about.
    fn rerank(
        &self,
        codes: &Codes,
        exact: &VectorScorer<'_>,
        (scratch, held): (&Scratch, Held),
        best: &mut TopK,
        accept: Accept<'_>,
    ) -> bool {
        let VectorScorer { kernel, rows, query } = *exact;
        let is_measured = matches!(self.metric, Metric::Cosine | Metric::Euclid);
        let is_candidate = |found: &Found| held == Held::Rows || self.has_accepted(found.node, accept);
        let candidates = scratch.beam.found().filter(is_candidate);
        let most = if is_measured { usize::MAX } else { best.capacity().saturating_mul(CANDIDATES_PER_HIT) };
        let mut ahead = candidates.clone();
        ahead.by_ref().take(AHEAD).for_each(|found| prefetch(rows.row(found.node)));
        for found in candidates.take(most) {
            if is_measured && let Some(worst) = best.worst() {
                // Unit vectors: |a - b|^2 = 2 - 2 <a, b>.
                let limit = if self.metric == Metric::Cosine { 2.0 + 2.0 * worst.distance } else { worst.distance };
                if (found.distance + scratch.query.squared) * codes.near_ratio > limit {
                    return true;
                }
            }
            if let Some(next) = ahead.next() {
                prefetch(rows.row(next.node));
            }
            let distance = kernel.distance(query, rows.row(found.node));
            self.admit(Found { distance, ..found }, held, best, accept);
        }
        false
    }

    fn has_accepted(&self, node: u32, accept: Accept<'_>) -> bool {
        matches!(accept, Accept::All) || self.graph().equal_rows(node).any(|row| accept.contains(row))
    }
}

/// Accepted rows up to which a scan reads the vectors at once: codes would not pay.
const EXACT: usize = 256;

/// Vectors asked for ahead of scoring them.
const AHEAD: usize = 4;

impl VectorIndex for HnswIndex {
    /// Walks the graph, over all rows or over accepted ones, or scans the accepted rows, whichever costs less; what it
    /// finds too few of by walking it scans. Over codes the last candidates are scored with the vectors, so distances are
    /// exact in any case.
    fn search(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Vec<Hit> {
        assert_eq!((rows.dim, rows.len()), (self.dim, self.rows), "searched with the rows the graph was built on");
        if params.k == 0 {
            return Vec::new();
        }
        let way = self.way(params, accept);
        let exact = VectorScorer { kernel: self.kernel, rows, query };
        if way == Way::Scan && (self.codes.is_none() || accept.count(self.rows).is_some_and(|count| count <= EXACT)) {
            return scan(&self.kernel, rows, query, params.k, accept);
        }
        let mut scratch = self.scratches.take();
        let mut best = TopK::new(params.k, self.rows);
        match &self.codes {
            Some(codes) => {
                let view = codes.view();
                let mut coded = std::mem::take(&mut scratch.query);
                view.coder.query(self.code_kernel, query, &mut coded);
                let scorer = CodeScorer { kernel: self.code_kernel, codes: view, query: &coded };
                let held = self.fill(&scorer, way, params, accept, &mut scratch);
                scratch.query = coded;
                let is_sure = self.rerank(codes, &exact, (&scratch, held), &mut best, accept);
                if held == Held::Rows && !is_sure && scratch.beam.is_full() {
                    return scan(&self.kernel, rows, query, params.k, accept);
                }
            }
            None => {
                let held = self.fill(&exact, way, params, accept, &mut scratch);
                let mut found = scratch.beam.found();
                while found.next().is_some_and(|found| self.admit(found, held, &mut best, accept)) {}
            }
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

#[cfg(test)]
mod tests;
