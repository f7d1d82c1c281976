//! Distances between vectors of every kind.

use super::Kernel;
use crate::vector::{MultiRef, VectorRef};

impl Kernel {
    /// The internal distance of two vectors of one kind and dimension: for sparse ones the inner product with its sign changed,
    /// for multivectors MaxSim as a distance, the sum, over the vectors of `a`, of the distance to the nearest of `b`. `None`
    /// for sparse vectors that share no dimension, and for vectors of different kinds.
    pub fn between(&self, a: VectorRef<'_>, b: VectorRef<'_>) -> Option<f32> {
        match (a, b) {
            (VectorRef::Dense(a), VectorRef::Dense(b)) => Some(self.distance(a, b)),
            (VectorRef::Sparse(a), VectorRef::Sparse(b)) => a.dot(b).map(|product| 0.0 - product),
            (VectorRef::Multi(a), VectorRef::Multi(b)) => Some(self.max_sim(a, b)),
            (VectorRef::Dense(_) | VectorRef::Sparse(_) | VectorRef::Multi(_), _) => None,
        }
    }

    fn max_sim(&self, query: MultiRef<'_>, point: MultiRef<'_>) -> f32 {
        let nearest = |vector: &[f32]| {
            let mut best = f32::INFINITY;
            let mut quads = point.values.chunks_exact(4 * point.dim);
            for quad in &mut quads {
                let (first, second) = quad.split_at(2 * point.dim);
                let ((a, b), (c, d)) = (first.split_at(point.dim), second.split_at(point.dim));
                best = self.distance4(vector, [a, b, c, d]).into_iter().fold(best, f32::min);
            }
            let rest = quads.remainder().chunks_exact(point.dim);
            rest.fold(best, |best, other| best.min(self.distance(vector, other)))
        };
        query.vectors().map(nearest).sum()
    }
}
