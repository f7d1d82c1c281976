//! Searching: which way to go about a query, walking the graph, and scoring the last candidates exactly.

mod rerank;
mod shortlist;

use vicinal_common::metric::Metric;

use self::rerank::{Beyond, beyond_by_ratio, beyond_by_short, rerank};
use self::shortlist::{BothCodes, Lie};
use super::HnswIndex;
use super::beam::{Found, ScoreBuffers, Scratch, Width};
use super::build::any_row;
use super::search::{
    AcceptedBounds, CodeScorer, Scorer, ShortScorer, VectorScorer, descend, keep_accepted, search_accepted,
    search_graph, start_layer, walk_layer,
};
use crate::codes::{CodedQuery, Codes, ShortQuery};
use crate::flat::{scan, scan_codes};
use crate::top_k::TopK;
use crate::{Accept, Hit, Rows, SearchParams, Searched, VectorIndex};

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

/// Share of accepted rows, in percent, from which a walk over all rows meets enough of them.
const MOST_PERCENT: usize = 40;

/// A row that a scan reads in order costs so many percent of one that a walk over accepted rows jumps to, with the lists it looks through
/// on the way. It was 9 to 20, most where matches are near and dimensions few; a scan finds more.
const SCAN_PERCENT: usize = 18;
/// The same where 8-bit codes are scanned, because there are no shorter ones or the hits must be the nearest for certain.
const LONG_SCAN_PERCENT: usize = 25;

/// Least beam of a walk over accepted rows, which are connected less well than all rows are.
const FILTERED_EF_MIN: usize = 48;

/// Steps of the look around.
const AROUND: usize = 16;

/// A filter that accepts less than one in so many times its share near the query is against the query: what it accepts
/// lies elsewhere, where the graph does not lead from here.
const AGAINST: u64 = 4;

/// The beam that a walk over all rows needs to hold enough accepted ones, of which there are so many.
fn walked_ef(k: usize, rows: usize, accepted: usize) -> usize {
    let enough = (4 * k as u128 * rows as u128).div_ceil(accepted.max(1) as u128);
    usize::try_from(enough).unwrap_or(usize::MAX)
}

/// The beam of a walk for the `k` nearest that expands `ef` nodes.
fn width<S: Scorer>(ef: usize, k: usize) -> Width {
    Width { window: ef, kept: k.saturating_mul(S::KEPT_PER_HIT) }
}

impl HnswIndex {
    /// Chooses by cost where both are allowed. A beam of b nodes scores about `b * m` rows: each node has at most `2 m` neighbours, and about
    /// half of them were seen before.
    fn way(&self, params: SearchParams, accept: Accept<'_>) -> Way {
        let ef = params.ef.max(params.k);
        let accepted = match (accept, accept.count(self.rows)) {
            (_, Some(count)) => count,
            (Accept::Test { test, .. }, None) if self.rows > SAMPLE => {
                let sampled = (0..SAMPLE as u64).filter(|i| test(any_row(*i, self.rows))).count();
                (self.rows as u128 * sampled as u128 / SAMPLE as u128) as usize
            }
            (_, None) => return Way::Scan,
        };
        let has_short = self.codes.as_ref().is_some_and(|codes| codes.short.is_some());
        let percent = if has_short { SCAN_PERCENT } else { LONG_SCAN_PERCENT };
        let scanned = accepted.saturating_mul(percent) / 100;
        let is_most = accepted.saturating_mul(100) >= self.rows.saturating_mul(MOST_PERCENT);
        let walked = if is_most { ef } else { ef.max(FILTERED_EF_MIN) };
        if params.exact || accepted == 0 || scanned <= walked.saturating_mul(self.params.m) {
            Way::Scan
        } else if accepted >= self.rows {
            Way::Walk(ef)
        } else if is_most {
            Way::Walk(ef.max(walked_ef(params.k, self.rows, accepted)))
        } else {
            let share_ppm = (accepted as u128 * 1_000_000 / self.rows as u128) as u64;
            Way::Filtered { ef, share_ppm }
        }
    }

    /// Fills the beam of `scratch` with the nodes nearest by `scorer`. False: too few of them are accepted, or a scan is the
    /// better way.
    fn walk<S: Scorer>(&self, scorer: &S, way: Way, (k, accept): (usize, Accept<'_>), scratch: &mut Scratch) -> bool {
        let graph = self.graph();
        let is_done = match way {
            Way::Scan => false,
            Way::Walk(ef) => {
                search_graph(graph, scorer, width::<S>(ef, k), scratch);
                true
            }
            Way::Filtered { ef, share_ppm } => {
                descend(graph, scorer, scratch);
                if graph.twins.is_empty()
                    && let Accept::Rows { words, .. } = accept
                {
                    // The usual case, asked for every neighbour: what is no row has no word either.
                    let is_accepted =
                        |row: u32| words.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1);
                    self.filtered(scorer, (k, ef, share_ppm), is_accepted, scratch)
                } else if graph.twins.is_empty() {
                    self.filtered(scorer, (k, ef, share_ppm), |row| accept.contains(row), scratch)
                } else {
                    self.filtered(scorer, (k, ef, share_ppm), |row| self.has_accepted(row, accept), scratch)
                }
            }
        };
        let is_enough = || {
            let found = scratch.beam.found().filter(|found| self.has_accepted(found.node, accept));
            found.take(k).count() == k
        };
        is_done && is_enough()
    }

    /// Looks around and then walks on, over all rows or over accepted ones. False: a scan is the better way.
    fn filtered<S: Scorer>(
        &self,
        scorer: &S,
        (k, ef, share_ppm): (usize, usize, u64),
        is_accepted: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> bool {
        let base = self.graph().base();
        start_layer(base, width::<S>(ef, k), scratch);
        walk_layer(base, scorer, AROUND, scratch);
        let scored = scratch.visited.len();
        let near = scratch.visited.since(0).iter().filter(|node| is_accepted(**node)).count();
        if near as u64 * AGAINST * 1_000_000 < scored as u64 * share_ppm {
            return false;
        }
        if near * 100 >= scored * MOST_PERCENT {
            scratch.beam.widen(walked_ef(k, scored, near));
            walk_layer(base, scorer, usize::MAX, scratch);
            return true;
        }
        let bounds = AcceptedBounds {
            accepted_max: 3 * self.params.m / 2,
            // The lists of so many rows hold about 1.5 m accepted ones between them.
            through_max: (1_500_000 / share_ppm.max(1)).min(2 * self.params.m as u64) as usize,
        };
        let ef = ef.max(FILTERED_EF_MIN);
        keep_accepted(scorer, width::<S>(ef, k), &is_accepted, scratch);
        search_accepted(base, scorer, bounds, is_accepted, scratch);
        true
    }

    fn has_accepted(&self, node: u32, accept: Accept<'_>) -> bool {
        matches!(accept, Accept::All) || self.graph().equal_rows(node).any(|row| accept.contains(row))
    }
}

/// Accepted rows up to which a scan reads the vectors at once: codes would not pay.
const EXACT: usize = 256;

/// Scores rows by a function.
struct GivenScorer<'a>(&'a dyn Fn(u32) -> f32);

impl Scorer for GivenScorer<'_> {
    fn score(&self, rows: &[u32], buffers: &mut ScoreBuffers) {
        buffers.scored += rows.len() as u64;
        buffers.distances.clear();
        buffers.distances.extend(rows.iter().map(|row| (self.0)(*row)));
    }

    fn prefetch(&self, _: u32) {}
}

impl HnswIndex {
    /// The accepted rows of least distance, where that is any function of the row (never NaN, equal for equal vectors) and not
    /// the distance to one vector: walked as for a vector, which finds good rows as far as neighbours have like distances.
    pub fn search_by(&self, distance: &dyn Fn(u32) -> f32, params: SearchParams, accept: Accept<'_>) -> Searched {
        if params.k == 0 {
            return Searched::default();
        }
        let way = self.way(params, accept);
        let mut scratch = self.scratches.take();
        scratch.buffers.scored = 0;
        let mut best = TopK::new(params.k, self.rows);
        if way != Way::Scan && self.walk(&GivenScorer(distance), way, (params.k, accept), &mut scratch) {
            // Equal distances are usual for such functions, and rows decide between them: only a farther one ends it.
            for found in scratch.beam.found() {
                if best.worst().is_some_and(|worst| worst.distance < found.distance) {
                    break;
                }
                self.admit(found, &mut best, accept);
            }
        } else {
            for row in accept.iter(self.rows) {
                best.push(Hit { distance: distance(row), row });
                scratch.buffers.scored += 1;
            }
        }
        Searched { hits: best.into_sorted(), distances: scratch.buffers.scored }
    }
}

impl HnswIndex {
    /// A search by codes: over 4-bit ones where there are such, and some error is allowed.
    fn search_codes(
        &self,
        (codes, coded, short_query): (&Codes, &CodedQuery, &mut ShortQuery),
        exact: &VectorScorer<'_>,
        (params, way): (SearchParams, Way),
        accept: Accept<'_>,
        scratch: &mut Scratch,
    ) -> Searched {
        let kernel = self.code_kernel;
        let mut best = TopK::new(params.k, self.rows);
        let admit = |found: Found, best: &mut TopK| _ = self.admit(found, best, accept);
        let mut wasted = 0;
        let reranked = match codes.short.as_ref().filter(|_| !params.exact) {
            Some(short) => {
                short.query(coded, short_query);
                let query = &*short_query;
                if self.walk(&ShortScorer { kernel, codes: short, query }, way, (params.k, accept), scratch) {
                    let beyond = |found: Found, distance: f32| beyond_by_short(short, query, found, distance);
                    let candidates = scratch.beam.found().filter(|found| self.has_accepted(found.node, accept));
                    Some(rerank(exact, candidates, &mut best, beyond, admit))
                } else {
                    let lie = if way == Way::Scan { Lie::Anywhere } else { Lie::Far };
                    let both = BothCodes { long: codes, coded, short, query };
                    let (mut searched, is_settled) = self.shortlist(both, exact, (params, lie), accept);
                    searched.distances += scratch.buffers.scored;
                    if is_settled {
                        return searched;
                    }
                    wasted = searched.distances;
                    None
                }
            }
            None => {
                let scorer = CodeScorer { kernel, codes: codes.view(), query: coded };
                let is_found = self.walk(&scorer, way, (params.k, accept), scratch);
                is_found.then(|| {
                    let candidates = scratch.beam.found().filter(|found| self.has_accepted(found.node, accept));
                    if matches!(self.metric, Metric::Cosine | Metric::Euclid) {
                        let beyond = |found: Found, distance: f32| beyond_by_ratio(codes, coded, found, distance);
                        rerank(exact, candidates, &mut best, beyond, admit)
                    } else {
                        let most = params.k.saturating_mul(CANDIDATES_PER_HIT);
                        rerank(exact, candidates.take(most), &mut best, |_, _| Beyond::Not, admit)
                    }
                })
            }
        };
        match reranked {
            Some(reranked) => {
                Searched { hits: best.into_sorted(), distances: scratch.buffers.scored + reranked.scored }
            }
            None => {
                let (by_code, vectors) = ((codes, kernel), (&self.kernel, exact.rows));
                let mut searched = scan_codes(by_code, vectors, (exact.query, coded), params, accept);
                searched.distances += wasted.max(scratch.buffers.scored);
                searched
            }
        }
    }
}

impl VectorIndex for HnswIndex {
    /// Walks the graph, over all rows or over accepted ones, or scans the accepted rows, whichever costs less; what it
    /// finds too few of by walking it scans. Over codes the last candidates are scored with the vectors, so distances are
    /// exact in any case.
    fn search_counted(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Searched {
        assert_eq!((rows.dim, rows.len()), (self.dim, self.rows), "searched with the rows the graph was built on");
        if params.k == 0 {
            return Searched::default();
        }
        let way = self.way(params, accept);
        let is_few = accept.count(self.rows).is_some_and(|count| count <= EXACT);
        if way == Way::Scan && (self.codes.is_none() || is_few) {
            return scan(&self.kernel, rows, query, params, accept);
        }
        let exact = VectorScorer { kernel: self.kernel, rows, query };
        let mut scratch = self.scratches.take();
        scratch.buffers.scored = 0;
        let Some(codes) = &self.codes else {
            if !self.walk(&exact, way, (params.k, accept), &mut scratch) {
                let mut searched = scan(&self.kernel, rows, query, params, accept);
                searched.distances += scratch.buffers.scored;
                return searched;
            }
            let mut best = TopK::new(params.k, self.rows);
            let mut found = scratch.beam.found();
            while found.next().is_some_and(|found| self.admit(found, &mut best, accept)) {}
            return Searched { hits: best.into_sorted(), distances: scratch.buffers.scored };
        };
        let (mut coded, mut short) = (std::mem::take(&mut scratch.query), std::mem::take(&mut scratch.short));
        codes.coder.query(self.code_kernel, query, &mut coded);
        let searched = self.search_codes((codes, &coded, &mut short), &exact, (params, way), accept, &mut scratch);
        (scratch.query, scratch.short) = (coded, short);
        searched
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
        let codes = self.codes.as_ref().map_or(0, Codes::bytes);
        arrays.into_iter().map(|array| array.bytes().len() as u64).sum::<u64>() + codes
    }
}

#[cfg(test)]
mod tests;
