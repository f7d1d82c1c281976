//! Distances of stored vectors to what a query looks for.

use vicinal_common::api::Goal;
use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;
use vicinal_common::vector::{SparseRef, Vector, VectorRef};

use crate::segment::VectorLayout;

/// A goal on the vectors of one name.
pub(super) struct GoalScorer<'a> {
    goal: &'a Goal,
    kernel: Kernel,
    metric: Metric,
    dim: u64,
    /// Values in the vectors of the goal.
    parts: u64,
}

impl<'a> GoalScorer<'a> {
    /// The vectors of the goal must be those of the layout.
    pub(super) fn new(goal: &'a Goal, layout: &VectorLayout) -> GoalScorer<'a> {
        let bytes: usize = goal.vectors().into_iter().map(Vector::bytes).sum();
        let (dim, parts) = (layout.dim.max(1) as u64, (bytes / size_of::<f32>()) as u64);
        GoalScorer { goal, kernel: Kernel::new(layout.metric), metric: layout.metric, dim, parts }
    }

    /// About how many nanoseconds a distance takes.
    pub(super) fn cost(&self, vector: VectorRef<'_>) -> u64 {
        let values = (vector.bytes() / size_of::<f32>()) as u64;
        // One multiplication for each pair of values in the same place, some eight of them in a nanosecond.
        1 + match vector {
            VectorRef::Multi(multi) => self.parts * values / multi.dim.max(1) as u64 / 8,
            VectorRef::Dense(_) => self.parts * values / self.dim / 8,
            VectorRef::Sparse(_) => self.parts + values,
        }
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
        self.goal.distance(|part| 0.0 - self.kernel.between(part.as_ref(), vector).unwrap_or(0.0))
    }

    /// The distance of a vector that may be a hit: none when a sparse vector is looked for and shares nothing with it.
    pub(super) fn hit_distance(&self, vector: VectorRef<'_>) -> Option<f32> {
        match self.goal {
            Goal::Nearest(part) => {
                let distance = self.kernel.between((**part).as_ref(), vector)?;
                Some(self.goal.distance(|_| 0.0 - distance))
            }
            Goal::BestScore { .. }
            | Goal::SumScores { .. }
            | Goal::Discover { .. }
            | Goal::Feedback { .. }
            | Goal::Context { .. } => Some(self.distance(vector)),
        }
    }
}
