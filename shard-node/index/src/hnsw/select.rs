//! The geometry a graph is built in, and the choice of neighbours in it.

use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;

use super::beam::Found;
use super::prefetch::prefetch;
use super::search::Scorer;
use crate::Rows;

/// Distances between rows during a build.
///
/// By inner product alone the short vectors are nobody's neighbours and a vector is not its own nearest one, so a graph
/// by that order leaves parts of the rows behind. When lengths differ, a graph therefore gets half its edges as if
/// every vector x had one more component sqrt(max - |x|^2), the *lifted* order: then all have one length, the order by
/// inner product is the order by L2, and for a query, whose extra component is 0, it is still the order by the plain
/// inner product (Bachrach et al., RecSys 2014). The other half is by the plain order, whose edges lead from anywhere
/// to the long vectors, where most answers are (Morozov & Babenko, NeurIPS 2018).
pub(super) struct Geometry<'a> {
    kernel: Kernel,
    rows: Rows<'a>,
    /// The extra component of each row; `None` when it would be 0 for all (or the metric needs none).
    extra: Option<Vec<f32>>,
}

impl<'a> Geometry<'a> {
    /// The geometry of all rows under a metric.
    pub(super) fn new(rows: Rows<'a>, metric: Metric) -> Geometry<'a> {
        let extra = match metric {
            Metric::Cosine | Metric::Dot => extra_components(rows),
            Metric::Euclid | Metric::Manhattan => None,
        };
        Geometry { kernel: Kernel::new(metric), rows, extra }
    }

    /// Whether the lifted order differs from the plain one.
    pub(super) fn is_lifted(&self) -> bool {
        self.extra.is_some()
    }

    /// Scores in the lifted order: the one that every stored distance is in.
    pub(super) fn scorer(&self, row: u32) -> RowScorer<'_> {
        RowScorer { geometry: self, vector: self.rows.row(row), extra: self.extra_of(row) }
    }

    /// Scores in the plain order of the metric.
    pub(super) fn plain_scorer(&self, row: u32) -> RowScorer<'_> {
        RowScorer { geometry: self, vector: self.rows.row(row), extra: 0.0 }
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
    vector: &'a [f32],
    extra: f32,
}

impl RowScorer<'_> {
    /// Adds the product of the extra components. Clamped like a kernel's result.
    #[inline]
    fn correct(&self, row: u32, distance: f32) -> f32 {
        match &self.geometry.extra {
            Some(extra) => (distance - self.extra * extra[row as usize]).max(f32::MIN),
            None => distance,
        }
    }
}

impl Scorer for RowScorer<'_> {
    #[inline]
    fn one(&self, row: u32) -> f32 {
        self.correct(row, self.geometry.kernel.distance(self.vector, self.geometry.rows.row(row)))
    }

    #[inline]
    fn four(&self, rows: [u32; 4]) -> [f32; 4] {
        let mut distances = self.geometry.kernel.distance4(self.vector, rows.map(|row| self.geometry.rows.row(row)));
        for (distance, row) in distances.iter_mut().zip(rows) {
            *distance = self.correct(row, *distance);
        }
        distances
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        prefetch(self.geometry.rows.row(row));
    }
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
) -> Vec<Found> {
    if !geometry.is_lifted() {
        return choose(candidates, degree, |node| geometry.scorer(row_of(node)), &row_of);
    }
    let mut chosen = choose(candidates, degree / 2, |node| geometry.scorer(row_of(node)), &row_of);
    let mut plain: Vec<Found> = candidates
        .iter()
        .map(|found| Found { distance: geometry.lower(owner, row_of(found.node), found.distance), ..*found })
        .collect();
    plain.sort_by(Found::cmp_total);
    let by_plain = choose(&plain, degree / 2, |node| geometry.plain_scorer(row_of(node)), &row_of);
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

/// Chooses in one order.
///
/// A candidate is passed over when a chosen one is nearer to it than the owner is, so that edges point in different
/// directions (algorithm 4 of arXiv 1603.09320). If that leaves less than half the degree, the nearest of those passed
/// over fill it up to there.
fn choose<'a>(
    candidates: &[Found],
    degree: usize,
    scorer_of: impl Fn(u32) -> RowScorer<'a>,
    row_of: impl Fn(u32) -> u32,
) -> Vec<Found> {
    let mut chosen: Vec<Found> = Vec::with_capacity(degree);
    let mut chosen_rows: Vec<u32> = Vec::with_capacity(degree);
    let mut passed_over: Vec<Found> = Vec::new();
    for &candidate in candidates {
        if chosen.len() == degree {
            break;
        }
        let scorer = scorer_of(candidate.node);
        let (quads, rest) = chosen_rows.as_chunks::<4>();
        let covered = quads.iter().any(|quad| scorer.four(*quad).iter().any(|d| *d < candidate.distance))
            || rest.iter().any(|row| scorer.one(*row) < candidate.distance);
        if covered {
            passed_over.push(candidate);
        } else {
            chosen.push(candidate);
            chosen_rows.push(row_of(candidate.node));
        }
    }
    let missing = (degree / 2).saturating_sub(chosen.len());
    chosen.extend(passed_over.into_iter().take(missing));
    chosen.sort_by(Found::cmp_total);
    chosen
}
