//! Scans by codes for searches that need not be exact: the accepted rows nearest by code are scored with their vectors, as the last
//! candidates of a walk are, and the answer counts only where the errors of the codes, as they are in practice, let no other row
//! be nearer. Where matches lie all around at nearly one distance, as they do far from the query, 4-bit codes cannot tell
//! them apart; 8-bit ones can, or else the exact scan has to.

use super::super::HnswIndex;
use super::super::beam::Found;
use super::super::search::VectorScorer;
use super::rerank::{Beyond, beyond_by_short, rerank};
use crate::codes::{CodedQuery, Codes, ShortCodes, ShortQuery};
use crate::top_k::TopK;
use crate::{Accept, Hit, SearchParams, Searched};

/// Rows that are kept by 4-bit code for each hit asked for, and at least: about a row and a half are scored before it is clear that none
/// of the rest is nearer, up to three.
const KEPT_PER_HIT: usize = 4;
const KEPT_MIN: usize = 64;

/// By 8-bit code so many times as many, and at least one in so many accepted rows: of rows far from the query 1 % to 10 % can
/// be among the best, the less the more there are.
const LONG_KEPT_TIMES: usize = 16;
const LONG_KEPT_SHARE: usize = 16;

/// Dimensions from which that pays: with fewer, bounds that are certain are not much wider, and vectors not much longer than codes.
const LONG_DIM_MIN: usize = 256;

/// Whether rows are known to lie far from the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Nothing is known.
    Anywhere,
    /// Farther than chance would have it: 4-bit codes need not be asked.
    Far,
}

/// Codes of both widths, and a query as it meets them.
#[derive(Clone, Copy)]
pub(super) struct BothCodes<'a> {
    pub(super) long: &'a Codes,
    pub(super) coded: &'a CodedQuery,
    pub(super) short: &'a ShortCodes,
    pub(super) query: &'a ShortQuery,
}

impl HnswIndex {
    /// The nearest of so many accepted rows, but for what errors of codes hide in rare cases. `distances` counts what was computed
    /// even where there are no hits, because only an exact scan can tell.
    pub(super) fn shortlist(
        &self,
        both: BothCodes<'_>,
        exact: &VectorScorer<'_>,
        (params, lie): (SearchParams, Lie),
        accept: Accept<'_>,
    ) -> (Searched, bool) {
        let BothCodes { long, coded, short, query } = both;
        let accepted = accept.count(self.rows).unwrap_or(self.rows);
        let kept = params.k.saturating_mul(KEPT_PER_HIT).max(KEPT_MIN);
        let mut distances = 0;
        let mut settle = |found: Searched, kept: usize, beyond: &dyn Fn(Found, f32) -> Beyond| {
            let mut best = TopK::new(params.k, self.rows);
            let candidates = found.hits.iter().map(|hit| Found { distance: hit.distance, node: hit.row });
            let admit = |found: Found, best: &mut TopK| {
                best.push(Hit { distance: found.distance, row: found.node });
            };
            let reranked = rerank(exact, candidates, &mut best, beyond, admit);
            distances += found.distances + reranked.scored;
            // With all accepted rows scored there is no other.
            (reranked.is_settled || found.hits.len() < kept).then(|| best.into_sorted())
        };
        if lie == Lie::Anywhere {
            let found = short.nearest((self.code_kernel, self.rows), query, SearchParams { k: kept, ..params }, accept);
            let beyond = |found: Found, distance: f32| beyond_by_short(short, query, found, distance);
            if let Some(hits) = settle(found, kept, &beyond) {
                return (Searched { hits, distances }, true);
            }
        }
        if self.dim < LONG_DIM_MIN {
            return (Searched { hits: Vec::new(), distances }, false);
        }
        let kept = kept.saturating_mul(LONG_KEPT_TIMES).max(accepted / LONG_KEPT_SHARE);
        let found = long.nearest(self.code_kernel, coded, SearchParams { k: kept, ..params }, accept);
        let steps = long.view().terms;
        let beyond = |found: Found, distance: f32| {
            let is_beyond = |step| short.is_long_beyond(&long.coder, (coded, query), (step, found.distance), distance);
            if is_beyond(long.errors.step_max) {
                Beyond::Rest
            } else if is_beyond(steps[found.node as usize].scale) {
                Beyond::This
            } else {
                Beyond::Not
            }
        };
        let hits = settle(found, kept, &beyond);
        let is_settled = hits.is_some();
        (Searched { hits: hits.unwrap_or_default(), distances }, is_settled)
    }
}
