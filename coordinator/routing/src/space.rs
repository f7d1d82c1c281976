//! Distances as lengths: what ratios of distances, radii and bounds are computed with.
//!
//! | metric | points and centroids | queries and centroids |
//! |---|---|---|
//! | Euclid | L2 distance | the same |
//! | Cosine | L2 distance of unit vectors (the chord); centroids are unit vectors: spherical k-means | the same |
//! | Manhattan | L1 distance; centroids are means nevertheless, which are near enough to medians | the same |
//! | Dot | L2 distance: points of similar direction *and* length share a cell | `reach - <q, c> / norm(q)` |
//!
//! For Dot, `reach` is a bound on the length of all points, so that the length of a query is never negative, falls as the
//! inner product rises, and does not depend on how long the query is. For unit vectors it is half the squared chord.

use vicinal_common::metric::Metric;

/// The metric by which points are assigned to centroids.
pub(crate) fn placing(metric: Metric) -> Metric {
    match metric {
        Metric::Dot => Metric::Euclid,
        Metric::Cosine | Metric::Euclid | Metric::Manhattan => metric,
    }
}

/// The length that an internal distance of [`placing`] stands for.
pub(crate) fn length(placing: Metric, internal: f32) -> f32 {
    match placing {
        Metric::Cosine => (2.0 + 2.0 * internal).max(0.0).sqrt(),
        Metric::Euclid => internal.max(0.0).sqrt(),
        Metric::Manhattan => internal,
        // Unit vectors are the only ones it is asked for.
        Metric::Dot => (1.0 + internal).max(0.0),
    }
}

/// How long a vector is.
pub(crate) fn norm(vector: &[f32]) -> f32 {
    vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32
}

/// Between internal distances of one query and lengths.
#[derive(Clone, Copy)]
pub(crate) struct QueryScale {
    metric: Metric,
    /// Dot only: a bound on the length of the points.
    reach: f32,
    /// Dot only: the length of the query.
    norm: f32,
}

impl QueryScale {
    /// Of one query.
    pub(crate) fn new(metric: Metric, reach: f32, query: &[f32]) -> QueryScale {
        let norm = if metric == Metric::Dot { norm(query).max(f32::MIN_POSITIVE) } else { 1.0 };
        QueryScale { metric, reach, norm }
    }

    /// The length of an internal distance, at least 0.
    pub(crate) fn length(&self, internal: f32) -> f32 {
        match self.metric {
            Metric::Dot => (self.reach + internal / self.norm).max(0.0),
            Metric::Cosine | Metric::Euclid | Metric::Manhattan => length(self.metric, internal),
        }
    }

    /// The least internal distance of a point that is within `radius` of a centroid at this length: by the triangle
    /// inequality, or for Dot by that of Cauchy and Schwarz.
    pub(crate) fn bound(&self, length: f32, radius: f32) -> f32 {
        match self.metric {
            Metric::Dot => (length - self.reach - radius) * self.norm,
            Metric::Cosine => (length - radius).max(0.0).powi(2) / 2.0 - 1.0,
            Metric::Euclid => (length - radius).max(0.0).powi(2),
            Metric::Manhattan => (length - radius).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::distance::Kernel;

    use super::*;
    use crate::testing::{METRICS, points};

    #[test]
    fn no_point_is_nearer_than_its_bound() {
        for metric in METRICS {
            let data = points(60, 6, 5, metric, 3);
            let rows = vicinal_index::Rows { data: &data, dim: 6 };
            let (kernel, by_place) = (Kernel::new(metric), Kernel::new(placing(metric)));
            let reach = data.chunks_exact(6).map(norm).fold(0.0, f32::max);
            for (query, centroid, point) in [(0, 1, 2), (3, 30, 9), (7, 7, 8), (11, 59, 59), (20, 41, 33)] {
                let scale = QueryScale::new(metric, reach, rows.row(query));
                let length_of = scale.length(kernel.distance(rows.row(query), rows.row(centroid)));
                let radius = length(placing(metric), by_place.distance(rows.row(centroid), rows.row(point)));
                let distance = kernel.distance(rows.row(query), rows.row(point));
                let bound = scale.bound(length_of, radius);
                assert!(bound <= distance + 1e-3 * distance.abs().max(1.0), "{metric:?}: {bound} {distance}");
            }
        }
    }
}
