//! The four metrics, and the one convention by which every index and every merge orders its results.
//!
//! **Distance** (internal): smaller is nearer, for every metric. **Score** (what a client sees): the similarity for
//! inner product and cosine (larger is nearer), the distance itself for L2 and L1 (smaller is nearer).

use serde::{Deserialize, Serialize};

/// How two vectors are compared. The serialised names are those of the REST API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// Cosine of the angle. Vectors are normalised when they are stored, so searching is [`Metric::Dot`].
    Cosine,
    /// Inner product.
    Dot,
    /// Euclidean distance. Internally squared; the score is the square root.
    Euclid,
    /// L1 distance.
    Manhattan,
}

/// Which way a client reads scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreOrder {
    /// Similarities: the best hit has the largest score.
    LargerIsBetter,
    /// Distances: the best hit has the smallest score.
    SmallerIsBetter,
}

impl Metric {
    const ALL: [Metric; 4] = [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan];

    /// The number that stands for it in files: never another one.
    pub fn code(self) -> u32 {
        match self {
            Metric::Cosine => 0,
            Metric::Dot => 1,
            Metric::Euclid => 2,
            Metric::Manhattan => 3,
        }
    }

    /// The metric of a number, `None` when there is none.
    pub fn of_code(code: u32) -> Option<Metric> {
        Metric::ALL.into_iter().find(|metric| metric.code() == code)
    }

    /// The way scores of this metric are ordered.
    pub fn order(self) -> ScoreOrder {
        match self {
            Metric::Cosine | Metric::Dot => ScoreOrder::LargerIsBetter,
            Metric::Euclid | Metric::Manhattan => ScoreOrder::SmallerIsBetter,
        }
    }

    /// Internal distance to client score: `-d` for similarities, the square root for Euclid, `d` for Manhattan.
    pub fn score(self, distance: f32) -> f32 {
        match self {
            // 0.0 - d, not -d: a distance of +0.0 must not show as -0.0.
            Metric::Cosine | Metric::Dot => 0.0 - distance,
            Metric::Euclid => distance.max(0.0).sqrt(),
            Metric::Manhattan => distance,
        }
    }

    /// The internal distance whose score is `score`: the inverse of [`Metric::score`].
    pub fn distance_of_score(self, score: f32) -> f32 {
        match self {
            Metric::Cosine | Metric::Dot => 0.0 - score,
            Metric::Euclid => score * score,
            Metric::Manhattan => score,
        }
    }

    /// Brings a vector into the form it is stored and searched in: unit length for cosine (a zero vector stays zero),
    /// unchanged otherwise.
    pub fn prepare(self, vector: &mut [f32]) {
        match self {
            Metric::Cosine => {
                // Summed in f64 so that large components cannot overflow to infinity.
                let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
                // A vector that is already unit length to f32 precision is kept to the bit: reading a point and
                // writing it back must not change it.
                if norm > 0.0 && (norm - 1.0).abs() > 1e-6 {
                    for x in vector {
                        *x = (f64::from(*x) / norm) as f32;
                    }
                }
            }
            Metric::Dot | Metric::Euclid | Metric::Manhattan => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METRICS: [Metric; 4] = [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan];

    #[test]
    fn serialised_names_are_those_of_the_api() {
        let names = METRICS.map(|metric| serde_json::to_string(&metric).unwrap());
        assert_eq!(names, ["\"Cosine\"", "\"Dot\"", "\"Euclid\"", "\"Manhattan\""]);
    }

    #[test]
    fn a_distance_of_zero_has_a_positive_score_of_zero() {
        for metric in METRICS {
            assert_eq!(metric.score(0.0).to_bits(), 0, "{metric:?}");
        }
    }

    #[test]
    fn a_zero_vector_stays_zero() {
        for metric in METRICS {
            let mut vector = [0.0f32; 5];
            metric.prepare(&mut vector);
            assert_eq!(vector, [0.0; 5], "{metric:?}");
        }
    }

    #[test]
    fn the_largest_components_do_not_overflow_the_norm() {
        let mut vector = [f32::MAX; 4];
        Metric::Cosine.prepare(&mut vector);
        assert_eq!(vector, [0.5; 4]);
    }

    proptest! {
        #[test]
        fn score_and_distance_are_inverse(distance in 0.0f32..1e6) {
            for metric in METRICS {
                let back = metric.distance_of_score(metric.score(distance));
                prop_assert!((back - distance).abs() <= 1e-6 * distance, "{:?}: {} {}", metric, back, distance);
            }
            for metric in [Metric::Cosine, Metric::Dot] {
                prop_assert_eq!(metric.distance_of_score(metric.score(-distance)), 0.0 - distance);
            }
        }

        #[test]
        fn scores_follow_the_order_of_distances(a in 0.0f32..1e6, b in 0.0f32..1e6) {
            let (near, far) = (a.min(b), a.max(b));
            for metric in METRICS {
                match metric.order() {
                    ScoreOrder::LargerIsBetter => prop_assert!(metric.score(near) >= metric.score(far)),
                    ScoreOrder::SmallerIsBetter => prop_assert!(metric.score(near) <= metric.score(far)),
                }
            }
        }

        #[test]
        fn preparing_twice_changes_no_bit(vector in prop::collection::vec(-1e3f32..1e3, 1..300)) {
            for metric in METRICS {
                let mut once = vector.clone();
                metric.prepare(&mut once);
                let mut twice = once.clone();
                metric.prepare(&mut twice);
                let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&once), bits(&twice));
                if metric != Metric::Cosine {
                    prop_assert_eq!(bits(&once), bits(&vector));
                } else if vector.iter().any(|x| *x != 0.0) {
                    let norm = once.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                    prop_assert!((norm - 1.0).abs() < 1e-6, "{}", norm);
                }
            }
        }
    }
}
