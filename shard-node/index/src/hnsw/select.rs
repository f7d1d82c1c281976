//! The geometry a graph is built in, and the choice of neighbours in it.

use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;

use super::beam::{Found, ScoreBuffers};
use super::search::{CodeScorer, Scorer, VectorScorer};
use crate::Rows;
use crate::codes::{CodeKernel, CodedQuery, CodesView};
use crate::prefetch::prefetch;

/// Distances between rows during a build.
///
/// By inner product alone the short vectors are nobody's neighbours and a vector is not its own nearest one, so a graph
/// by that order leaves parts of the rows behind. When lengths differ, a graph therefore gets half its edges as if
/// every vector x had one more component sqrt(max - |x|^2), the *lifted* order: then all have one length, the order by
/// inner product is the order by L2, and for a query, whose extra component is 0, it is still the order by the plain
/// inner product (Bachrach et al., RecSys 2014). The other half is by the plain order, whose edges lead from anywhere
/// to the long vectors, where most answers are (Morozov & Babenko, NeurIPS 2018).
pub(super) struct Geometry<'a> {
    space: Space<'a>,
    rows: Rows<'a>,
    /// The extra component of each row; `None` when it would be 0 for all (or the metric needs none).
    extra: Option<Vec<f32>>,
}

/// What distances are computed from.
pub(super) enum Space<'a> {
    /// The vectors themselves.
    Vectors(Kernel),
    /// Their codes.
    Codes(CodeKernel, CodesView<'a>),
}

/// A row that others are compared with. Reused: it holds the row's codes in the form of a query.
#[derive(Default)]
pub(super) struct Target {
    row: u32,
    query: CodedQuery,
}

impl<'a> Geometry<'a> {
    /// The geometry of all rows under a metric.
    pub(super) fn new(rows: Rows<'a>, metric: Metric, space: Space<'a>) -> Geometry<'a> {
        let extra = match metric {
            Metric::Cosine | Metric::Dot => extra_components(rows),
            Metric::Euclid | Metric::Manhattan => None,
        };
        Geometry { space, rows, extra }
    }

    /// Whether the lifted order differs from the plain one.
    pub(super) fn is_lifted(&self) -> bool {
        self.extra.is_some()
    }

    /// Makes a row the one that others are compared with.
    pub(super) fn aim(&self, target: &mut Target, row: u32) {
        target.row = row;
        if let Space::Codes(kernel, codes) = &self.space {
            codes.row_as_query(*kernel, row, &mut target.query);
        }
    }

    /// Scores in the lifted order: the one that every stored distance is in.
    pub(super) fn scorer<'t>(&'t self, target: &'t Target) -> RowScorer<'t> {
        RowScorer { geometry: self, target, extra: self.extra_of(target.row) }
    }

    /// Scores in the plain order of the metric.
    pub(super) fn plain_scorer<'t>(&'t self, target: &'t Target) -> RowScorer<'t> {
        RowScorer { geometry: self, target, extra: 0.0 }
    }

    /// The lifted distance of two rows whose plain distance is known.
    pub(super) fn lift(&self, a: u32, b: u32, distance: f32) -> f32 {
        (distance - self.extra_of(a) * self.extra_of(b)).max(f32::MIN)
    }

    /// The plain distance of two rows whose lifted distance is known, to rounding.
    fn lower(&self, a: u32, b: u32, distance: f32) -> f32 {
        (distance + self.extra_of(a) * self.extra_of(b)).min(f32::MAX)
    }

    fn extra_of(&self, row: u32) -> f32 {
        self.extra.as_ref().map_or(0.0, |extra| extra[row as usize])
    }
}

/// Relative gap between squared lengths below which they count as equal: unit vectors in f32 differ by less.
const LENGTH_TOLERANCE: f64 = 1e-5;

fn extra_components(rows: Rows<'_>) -> Option<Vec<f32>> {
    let squared: Vec<f64> =
        rows.data.chunks_exact(rows.dim).map(|row| row.iter().map(|x| f64::from(*x).powi(2)).sum()).collect();
    let max = squared.iter().copied().fold(0.0, f64::max);
    let gaps = squared.into_iter().map(|s| if max - s > LENGTH_TOLERANCE * max { max - s } else { 0.0 });
    let extra: Vec<f32> = gaps.map(|gap| (gap.sqrt() as f32).min(f32::MAX)).collect();
    extra.iter().any(|x| *x != 0.0).then_some(extra)
}

/// Scores rows against one row of the build.
pub(super) struct RowScorer<'a> {
    geometry: &'a Geometry<'a>,
    target: &'a Target,
    extra: f32,
}

impl Scorer for RowScorer<'_> {
    fn score(&self, rows: &[u32], buffers: &mut ScoreBuffers) {
        match self.geometry.space {
            Space::Vectors(kernel) => {
                let query = self.geometry.rows.row(self.target.row);
                VectorScorer { kernel, rows: self.geometry.rows, query }.score(rows, buffers);
            }
            Space::Codes(kernel, codes) => {
                CodeScorer { kernel, codes, query: &self.target.query }.score(rows, buffers);
            }
        }
        if let Some(extra) = &self.geometry.extra {
            // The product of the extra components. Clamped like a kernel's result.
            for (distance, row) in buffers.distances.iter_mut().zip(rows) {
                *distance = (*distance - self.extra * extra[*row as usize]).max(f32::MIN);
            }
        }
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        match &self.geometry.space {
            Space::Vectors(_) => prefetch(self.geometry.rows.row(row)),
            Space::Codes(_, codes) => codes.prefetch(row),
        }
    }
}

/// The working memory of [`select`].
#[derive(Default)]
pub(super) struct SelectScratch {
    target: Target,
    buffers: ScoreBuffers,
    chosen_rows: Vec<u32>,
    passed_over: Vec<Found>,
}

/// Chooses at most `degree` of the candidates (sorted, without repetition; lifted distances to `owner`, the row that
/// gets the list), nearest first. `row_of` names the row of a node. Where the lifted order differs from the plain one,
/// each chooses half.
pub(super) fn select(
    geometry: &Geometry<'_>,
    owner: u32,
    candidates: &[Found],
    degree: usize,
    row_of: impl Fn(u32) -> u32,
    scratch: &mut SelectScratch,
) -> Vec<Found> {
    if !geometry.is_lifted() {
        return choose(geometry, Order::Lifted, candidates, degree, &row_of, scratch);
    }
    let mut chosen = choose(geometry, Order::Lifted, candidates, degree / 2, &row_of, scratch);
    let mut plain: Vec<Found> = candidates
        .iter()
        .map(|found| Found { distance: geometry.lower(owner, row_of(found.node), found.distance), ..*found })
        .collect();
    plain.sort_by(Found::cmp_total);
    let by_plain = choose(geometry, Order::Plain, &plain, degree / 2, &row_of, scratch);
    let is_by_plain = |found: &&Found| by_plain.iter().any(|other| other.node == found.node);
    let already = chosen.len();
    for found in candidates.iter().filter(is_by_plain) {
        if chosen[..already].iter().all(|other| other.node != found.node) {
            chosen.push(*found);
        }
    }
    chosen.sort_by(Found::cmp_total);
    chosen
}

/// The two orders of a lifted geometry.
#[derive(Clone, Copy)]
enum Order {
    Lifted,
    Plain,
}

/// Chosen rows that one candidate is compared with at a time: the first that is nearer ends it.
const COMPARED: usize = 8;

/// Chooses in one order.
///
/// A candidate is passed over when a chosen one is nearer to it than the owner is, so that edges point in different
/// directions (algorithm 4 of arXiv 1603.09320). If that leaves less than half the degree, the nearest of those passed
/// over fill it up to there.
fn choose(
    geometry: &Geometry<'_>,
    order: Order,
    candidates: &[Found],
    degree: usize,
    row_of: impl Fn(u32) -> u32,
    scratch: &mut SelectScratch,
) -> Vec<Found> {
    let SelectScratch { target, buffers, chosen_rows, passed_over } = scratch;
    let mut chosen: Vec<Found> = Vec::with_capacity(degree);
    chosen_rows.clear();
    passed_over.clear();
    for &candidate in candidates {
        if chosen.len() == degree {
            break;
        }
        let row = row_of(candidate.node);
        geometry.aim(target, row);
        let scorer = match order {
            Order::Lifted => geometry.scorer(target),
            Order::Plain => geometry.plain_scorer(target),
        };
        let is_covered = chosen_rows.chunks(COMPARED).any(|some| {
            scorer.score(some, buffers);
            buffers.distances.iter().any(|distance| *distance < candidate.distance)
        });
        if is_covered {
            passed_over.push(candidate);
        } else {
            chosen.push(candidate);
            chosen_rows.push(row);
        }
    }
    let missing = (degree / 2).saturating_sub(chosen.len());
    chosen.extend(passed_over.iter().copied().take(missing));
    chosen.sort_by(Found::cmp_total);
    chosen
}
