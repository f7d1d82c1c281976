//! Scoring candidates exactly that were found by estimates of their distances, and knowing when to stop.

use super::super::HnswIndex;
use super::super::beam::Found;
use super::super::search::VectorScorer;
use crate::Hit;
use crate::codes::{CodedQuery, Codes, ShortCodes, ShortQuery};
use crate::prefetch::prefetch;
use crate::top_k::TopK;
use vicinal_common::metric::Metric;

/// Vectors asked for ahead of scoring them.
const AHEAD: usize = 4;

/// What the estimate of a candidate says about its being as near as some distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It may be.
    Not,
    /// It is not, but a later one may be: errors are larger where steps are.
    This,
    /// Neither it nor any later one is.
    Rest,
}

/// What came of candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reranked {
    /// How many were scored.
    pub(super) scored: u64,
    /// Whether the estimates said that none of the rest is near enough, and not only that there is no more.
    pub(super) is_settled: bool,
}

/// Scores candidates, nearest by estimate first, until none of the rest is likely to be nearer than the k-th hit. `admit` is given each
/// with its exact distance.
pub(super) fn rerank(
    exact: &VectorScorer<'_>,
    candidates: impl Iterator<Item = Found> + Clone,
    best: &mut TopK,
    beyond: impl Fn(Found, f32) -> Beyond,
    admit: impl Fn(Found, &mut TopK),
) -> Reranked {
    let VectorScorer { kernel, rows, query } = *exact;
    let mut ahead = candidates.clone();
    ahead.by_ref().take(AHEAD).for_each(|found| prefetch(rows.row(found.node)));
    let mut scored = 0;
    for found in candidates {
        match best.worst().map_or(Beyond::Not, |worst| beyond(found, worst.distance)) {
            Beyond::Not => {}
            Beyond::This => continue,
            Beyond::Rest => return Reranked { scored, is_settled: true },
        }
        if let Some(next) = ahead.next() {
            prefetch(rows.row(next.node));
        }
        admit(Found { distance: kernel.distance(query, rows.row(found.node)), ..found }, best);
        scored += 1;
    }
    Reranked { scored, is_settled: false }
}

/// What a distance by 4-bit code says.
pub(super) fn beyond_by_short(codes: &ShortCodes, query: &ShortQuery, found: Found, distance: f32) -> Beyond {
    if codes.is_all_beyond(query, found.distance, distance) {
        Beyond::Rest
    } else if codes.is_beyond(query, (found.node, found.distance), distance) {
        Beyond::This
    } else {
        Beyond::Not
    }
}

/// What a distance by 8-bit code says, where the errors are known as a ratio of squared distances.
pub(super) fn beyond_by_ratio(codes: &Codes, query: &CodedQuery, found: Found, distance: f32) -> Beyond {
    // Unit vectors: |a - b|^2 = 2 - 2 <a, b>.
    let limit = if codes.coder.metric == Metric::Cosine { 2.0 + 2.0 * distance } else { distance };
    if (found.distance + query.lacking) * codes.near_ratio > limit { Beyond::Rest } else { Beyond::Not }
}

impl HnswIndex {
    /// Offers the accepted rows that a member of the beam stands for. Returns whether a farther one may still be among the
    /// best.
    pub(super) fn admit(&self, found: Found, best: &mut TopK, accept: crate::Accept<'_>) -> bool {
        // Rows of one chain are in order and equally far: once one is not among the best, none after it is.
        let mut rows = self.graph().equal_rows(found.node).filter(|row| accept.contains(*row));
        rows.all(|row| best.push(Hit { distance: found.distance, row }))
    }
}
