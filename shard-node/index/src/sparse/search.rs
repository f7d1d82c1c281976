//! Searching postings. The rows are taken in windows; within one, list after list is added to an array of scores (term at a
//! time), which stays in the cache. Once `k` hits are found, lists are left out as far as that pays: those that together cannot
//! lift a row over the worst of the hits are only looked up, for the rows that the others brought near it (MaxScore: Turtle & Flood,
//! Query evaluation: strategies and optimizations, 1995; by windows as in Lucene's MaxScoreBulkScorer).
//!
//! Lists are left out, and sums of partial scores compared, with a margin for their rounding. Whoever passes is scored anew,
//! so that pruning changes no hit and no bit of a score.

use super::postings::Postings;
use super::term::{Term, WINDOW, gallop};
use super::{SparseRef, hit};
use crate::{Accept, Hit, TopK};

/// Adding so many values of a list costs as much as looking up one row in it.
const LOOKUP: usize = 32;
/// Share of the threshold that is left out at first.
const FIRST_SHARE: f64 = 0.3;
/// Values in a window up to which their places are listed: with more, all scores are looked at.
const FEW: usize = WINDOW / 16;
/// Most terms of a query that is pruned: margins are not proven for more.
const PRUNED_TERMS_MAX: usize = 1 << 20;

/// Which lists are left out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pruning {
    /// As many as pays.
    Paying,
    /// As many as can be: to test.
    Full,
    /// None: to measure and to test against.
    Off,
}

/// [`Postings::search`].
pub(super) fn search(
    postings: Postings<'_>,
    query: SparseRef<'_>,
    k: usize,
    accept: Accept<'_>,
    pruning: Pruning,
) -> Vec<Hit> {
    let mut search = Search::new(postings, query, k, accept, pruning);
    if search.best.capacity() == 0 {
        return Vec::new();
    }
    let mut window = 0;
    loop {
        search.leave_out(window);
        // Lists that are left out bring no hit: what comes after the end of the others need not be seen.
        let added = search.terms.iter_mut().filter(|term| !term.is_left_out);
        let Some(next) = added.filter_map(|term| term.next_window(window)).min() else {
            return search.best.into_sorted();
        };
        window = next;
        search.add_lists(window);
        if search.left_out.is_empty() {
            search.collect(window);
        } else {
            search.collect_pruned(window);
        }
        search.clear_scores();
        window += 1;
    }
}

struct Search<'a> {
    /// In the order of the indices.
    terms: Vec<Term<'a>>,
    /// Positions in `terms`: those first that save most reading for what they may add.
    by_saving: Vec<usize>,
    /// Positions in `terms` of those left out, greatest bound first.
    left_out: Vec<usize>,
    accept: Accept<'a>,
    best: TopK,
    pruning: Pruning,
    /// How far sums of the same products, in whatever order, are apart at most. Infinite: nothing is pruned.
    margin: f64,
    /// Share of the threshold that the lists left out may add up to.
    share: f64,
    /// How many windows there are.
    windows: usize,
    /// Of the rows of the window; 0 between windows.
    scores: Box<[f32]>,
    /// How many values were added to them.
    added: usize,
    /// Places in the window of rows that may be hits, ascending.
    candidates: Vec<u32>,
}

impl<'a> Search<'a> {
    fn new(postings: Postings<'a>, query: SparseRef<'_>, k: usize, accept: Accept<'a>, pruning: Pruning) -> Search<'a> {
        let mut terms = Vec::new();
        // Of the absolute values of all products of a row.
        let mut sum = 0.0;
        for (dim, weight) in query.indices.iter().zip(query.values) {
            let Some(list) = postings.list(*dim) else { continue };
            // As products are rounded, so are these, and rounding keeps the order.
            let (a, b) = (f64::from(weight * list.max), f64::from(weight * list.min));
            sum += a.abs().max(b.abs());
            terms.push(Term {
                rows: list.rows,
                values: list.values,
                weight: *weight,
                bound: a.max(b).max(0.0),
                start: 0,
                end: 0,
                is_left_out: false,
            });
        }
        let is_pruned = pruning != Pruning::Off && terms.len() <= PRUNED_TERMS_MAX && sum < f64::from(f32::MAX) / 4.0;
        // A sum of n numbers in f32 is wrong by (n - 1) * 2^-24 of the sum of their absolute values and a little more
        // (Higham, Accuracy and Stability of Numerical Algorithms, 4.2); two sums are compared, and there is room for twice
        // that.
        let margin = if is_pruned { 2.0 * terms.len() as f64 * f64::from(f32::EPSILON) * sum } else { f64::INFINITY };
        let mut by_saving: Vec<usize> = (0..terms.len()).collect();
        by_saving.sort_by(|a, b| {
            let cost = |term: &Term<'_>| term.bound / term.rows.len() as f64;
            cost(&terms[*a]).total_cmp(&cost(&terms[*b]))
        });
        let rows = terms.iter().map(|term| term.rows.len()).sum();
        let last_row = terms.iter().filter_map(|term| term.rows.last()).max();
        let windows = last_row.map_or(0, |row| *row as usize / WINDOW) + 1;
        Search {
            terms,
            by_saving,
            left_out: Vec::new(),
            accept,
            best: TopK::new(k, rows),
            pruning,
            margin,
            share: if pruning == Pruning::Full { 1.0 } else { FIRST_SHARE },
            windows,
            scores: vec![0.0; WINDOW].into(),
            added: 0,
            candidates: Vec::new(),
        }
    }

    /// The score that hits must reach, once there are `k`.
    fn threshold(&self) -> Option<f32> {
        self.best.worst().map(|worst| -worst.distance)
    }

    /// Partial scores below this are out when at most `rest` is still added to them. Positive as long as lists are left out.
    fn cutoff(&self, rest: f64) -> f32 {
        self.threshold()
            .map_or(f32::NEG_INFINITY, |threshold| ((f64::from(threshold) - rest - self.margin) as f32).next_down())
    }

    /// Leaves out lists that a row could have all of, and no other, and still stay below the threshold; not as many as can
    /// be, but as many as has paid so far.
    fn leave_out(&mut self, windows_taken: usize) {
        let mut rest = 0.0;
        self.left_out.clear();
        let budget = self.share * self.threshold().map_or(0.0, f64::from);
        for position in &self.by_saving {
            let bound = self.terms[*position].bound;
            let is_left_out = rest + bound <= budget && self.cutoff(rest + bound) > 0.0;
            self.terms[*position].is_left_out = is_left_out;
            if is_left_out {
                // It has no rows in the window until it enters it.
                self.terms[*position].start = self.terms[*position].end;
                rest += bound;
                self.left_out.push(*position);
            }
        }
        // Of the next window, when rows come in no order of scores: these values are not added, and these rows are scored
        // anew. For a large k that is too many.
        let saved = self.left_out.iter().map(|position| self.terms[*position].rows.len()).sum::<usize>() / self.windows;
        let paid = self.best.capacity() / windows_taken.max(1) * self.terms.len() * LOOKUP;
        if self.pruning == Pruning::Paying && 2 * paid > saved {
            self.left_out.drain(..).for_each(|position| self.terms[position].is_left_out = false);
        }
        let terms = &self.terms;
        self.left_out.sort_by(|a, b| terms[*b].bound.total_cmp(&terms[*a].bound));
    }

    /// Adds the lists that are not left out to the scores.
    fn add_lists(&mut self, window: usize) {
        let mut added = self.terms.iter_mut().filter(|term| !term.is_left_out).peekable();
        while let Some(term) = added.next() {
            if let Some(next) = added.peek() {
                next.prefetch();
            }
            self.added += term.add(window, &mut self.scores);
        }
    }

    /// Makes all scores 0 again.
    fn clear_scores(&mut self) {
        if self.added > FEW {
            self.scores.fill(0.0);
        } else {
            let rows = self.terms.iter().flat_map(|term| term.rows());
            rows.for_each(|row| self.scores[*row as usize % WINDOW] = 0.0);
        }
        self.added = 0;
    }

    /// Makes those rows candidates that were added to and whose scores are not below a cutoff.
    fn find_candidates(&mut self, cutoff: f32) {
        let is_below = |score: f32| score < cutoff;
        self.candidates.clear();
        // Rows that were not added to have a score of 0.
        if self.added > FEW && cutoff > 0.0 {
            const CHUNK: usize = 32;
            for (number, chunk) in self.scores.chunks_exact(CHUNK).enumerate() {
                // Without a branch for each of them: nearly all chunks have none.
                if !chunk.iter().fold(true, |all, score| all & is_below(*score)) {
                    let places = ((number * CHUNK) as u32..).zip(chunk);
                    self.candidates.extend(places.filter(|(_, score)| !is_below(**score)).map(|(place, _)| place));
                }
            }
            return;
        }
        let mut was_added_to = [0u64; WINDOW / 64];
        for row in self.terms.iter().flat_map(|term| term.rows()) {
            let place = *row as usize % WINDOW;
            was_added_to[place / 64] |= 1 << (place % 64);
        }
        for (word, bits) in was_added_to.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let place = 64 * word as u32 + bits.trailing_zeros();
                if !is_below(self.scores[place as usize]) {
                    self.candidates.push(place);
                }
                bits &= bits - 1;
            }
        }
    }

    /// Takes the hits of a window to which all lists were added, in the order of the indices.
    fn collect(&mut self, window: usize) {
        self.find_candidates(self.threshold().unwrap_or(f32::NEG_INFINITY));
        let candidates = std::mem::take(&mut self.candidates);
        candidates.iter().for_each(|place| self.offer(window, *place, self.scores[*place as usize]));
        self.candidates = candidates;
    }

    /// Takes the hits of a window in which lists were left out.
    fn collect_pruned(&mut self, window: usize) {
        let mut rest: f64 = self.left_out.iter().map(|position| self.terms[*position].bound).sum();
        self.find_candidates(self.cutoff(rest));
        let mut candidates = std::mem::take(&mut self.candidates);
        let (mut saved, mut paid) = (0, 0);
        for position in &self.left_out {
            if candidates.is_empty() {
                break;
            }
            let term = &mut self.terms[*position];
            term.enter(window);
            saved += term.rows().len();
            if candidates.len() * LOOKUP < term.rows().len() {
                paid += candidates.len() * LOOKUP;
                let mut at = term.start;
                for place in &candidates {
                    let row = (window * WINDOW) as u32 + place;
                    at = gallop(&term.rows[..term.end], at, |other| other < row);
                    if at < term.end && term.rows[at] == row {
                        self.scores[*place as usize] += term.weight * term.values[at];
                    }
                }
            } else {
                paid += term.rows().len();
                term.end = term.start;
                self.added += term.add(window, &mut self.scores);
            }
            rest -= term.bound;
            let cutoff = self.cutoff(rest.max(0.0));
            candidates.retain(|place| self.scores[*place as usize] >= cutoff);
        }
        for place in &candidates {
            if self.scores[*place as usize] >= self.cutoff(0.0) {
                let row = (window * WINDOW) as u32 + place;
                // What costs nothing to know spares the look-ups.
                if !matches!(self.accept, Accept::Rows { .. }) || self.accept.contains(row) {
                    paid += LOOKUP * self.terms.len();
                    self.offer(window, *place, self.score(row));
                }
            }
        }
        self.candidates = candidates;
        // Windows are alike: what was right for this one is tried with the next.
        if self.pruning == Pruning::Full {
            return;
        }
        if 2 * paid > saved {
            self.share /= 2.0;
        } else if 8 * paid <= saved {
            self.share = (1.25 * self.share).min(1.0);
        }
    }

    /// The score of a row of the window, to the last bit.
    fn score(&self, row: u32) -> f32 {
        self.terms.iter().fold(0.0, |score, term| match term.rows().binary_search(&row) {
            Ok(at) => score + term.weight * term.values[term.start + at],
            Err(_) => score,
        })
    }

    #[inline]
    fn offer(&mut self, window: usize, place: u32, score: f32) {
        let hit = hit((window * WINDOW) as u32 + place, score);
        if self.best.would_take(&hit) && self.accept.contains(hit.row) {
            self.best.push(hit);
        }
    }
}
