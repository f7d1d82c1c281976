//! Distances of stored vectors to what a query looks for.

use vicinal_common::api::Goal;
use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;
use vicinal_common::vector::{MultiRef, SparseRef, Vector, VectorRef};
use vicinal_index::sparse::dot;

use crate::segment::VectorLayout;

/// A goal on the vectors of one name.
pub(super) struct GoalScorer<'a> {
    goal: &'a Goal,
    kernel: Kernel,
    metric: Metric,
}

impl<'a> GoalScorer<'a> {
    /// The vectors of the goal must be those of the layout.
    pub(super) fn new(goal: &'a Goal, layout: &VectorLayout) -> GoalScorer<'a> {
        GoalScorer { goal, kernel: Kernel::new(layout.metric), metric: layout.metric }
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    /// The dense vector that is all the goal is about.
    pub(super) fn nearest_dense(&self) -> Option<&'a [f32]> {
        self.goal.nearest().and_then(Vector::dense)
    }

    /// The sparse vector that is all the goal is about.
    pub(super) fn nearest_sparse(&self) -> Option<SparseRef<'a>> {
        match self.goal.nearest()? {
            Vector::Sparse(sparse) => Some(sparse.as_ref()),
            Vector::Dense(_) | Vector::Multi(_) => None,
        }
    }

    /// The distance of a vector. Sparse vectors that share nothing with an example are as near to it as one of product 0.
    pub(super) fn distance(&self, vector: VectorRef<'_>) -> f32 {
        self.goal.distance(|part| 0.0 - self.between(part.as_ref(), vector).unwrap_or(0.0))
    }

    /// The distance of a vector that may be a hit: none when a sparse vector is looked for and shares nothing with it.
    pub(super) fn hit_distance(&self, vector: VectorRef<'_>) -> Option<f32> {
        match self.goal {
            Goal::Nearest(part) => {
                let distance = self.between((**part).as_ref(), vector)?;
                Some(self.goal.distance(|_| 0.0 - distance))
            }
            Goal::BestScore { .. }
            | Goal::SumScores { .. }
            | Goal::Discover { .. }
            | Goal::Feedback { .. }
            | Goal::Context { .. } => Some(self.distance(vector)),
        }
    }

    fn between(&self, a: VectorRef<'_>, b: VectorRef<'_>) -> Option<f32> {
        match (a, b) {
            (VectorRef::Dense(a), VectorRef::Dense(b)) => Some(self.kernel.distance(a, b)),
            (VectorRef::Sparse(a), VectorRef::Sparse(b)) => dot(a, b).map(|product| 0.0 - product),
            (VectorRef::Multi(a), VectorRef::Multi(b)) => Some(self.max_sim(a, b)),
            // A run holds vectors of its layout, and goals are checked against that.
            (VectorRef::Dense(_) | VectorRef::Sparse(_) | VectorRef::Multi(_), _) => None,
        }
    }

    /// MaxSim as a distance: the sum, over the vectors of the query, of the distance to the nearest of the point's.
    fn max_sim(&self, query: MultiRef<'_>, point: MultiRef<'_>) -> f32 {
        let nearest = |vector: &[f32]| {
            let mut best = f32::INFINITY;
            let mut quads = point.values.chunks_exact(4 * point.dim);
            for quad in &mut quads {
                let (first, second) = quad.split_at(2 * point.dim);
                let ((a, b), (c, d)) = (first.split_at(point.dim), second.split_at(point.dim));
                best = self.kernel.distance4(vector, [a, b, c, d]).into_iter().fold(best, f32::min);
            }
            let rest = quads.remainder().chunks_exact(point.dim);
            rest.fold(best, |best, other| best.min(self.kernel.distance(vector, other)))
        };
        query.vectors().map(nearest).sum()
    }
}
