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
