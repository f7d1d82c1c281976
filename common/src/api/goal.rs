//! What the hits of a search are scored by.

use std::sync::Arc;

use crate::vector::Vector;

/// What is looked for. Every goal turns similarities (larger is better: the internal distance with its sign changed) into
/// one internal distance, smaller is better.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// To be near to a vector.
    Nearest(Arc<Vector>),
    /// To be near to the best of the positive examples, and not nearer to one of the negative ones.
    BestScore {
        /// What to be near to.
        positive: Vec<Weighted>,
        /// What not to be near to.
        negative: Vec<Weighted>,
    },
    /// To have a large sum of similarities to the positive examples, less those to the negative ones.
    SumScores {
        /// What to be near to.
        positive: Vec<Weighted>,
        /// What not to be near to.
        negative: Vec<Weighted>,
    },
    /// To be on the positive side of as many pairs as possible, and among equals near to the target.
    Discover {
        /// What to be near to.
        target: Arc<Vector>,
        /// Pairs that cut the space in two.
        pairs: Vec<Pair>,
    },
    /// To be near to the target, and nearer to examples that were judged well than to those judged worse.
    Feedback {
        /// What to be near to.
        target: Arc<Vector>,
        /// How much that counts.
        factor: f32,
        /// Pairs of a better and a worse example, each with how much it counts.
        pairs: Vec<(Pair, f32)>,
    },
    /// To be on the positive side of all pairs; how far does not count.
    Context {
        /// Pairs that cut the space in two.
        pairs: Vec<Pair>,
    },
}

/// To be near to a dense vector.
impl From<Vec<f32>> for Goal {
    fn from(values: Vec<f32>) -> Goal {
        Goal::Nearest(Arc::new(Vector::Dense(values)))
    }
}

/// An example, and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// The example.
    pub vector: Arc<Vector>,
    /// Its weight, finite and not negative; 1 is as usual.
    pub weight: f32,
}

/// Two examples: near to the one, far from the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// What to be nearer to.
    pub positive: Arc<Vector>,
    /// What not to be nearer to.
    pub negative: Arc<Vector>,
}

impl Goal {
    /// The vectors it is made of.
    pub fn vectors(&self) -> Vec<&Vector> {
        match self {
            Goal::Nearest(vector) => vec![vector],
            Goal::BestScore { positive, negative } | Goal::SumScores { positive, negative } => {
                positive.iter().chain(negative).map(|example| &*example.vector).collect()
            }
            Goal::Discover { target, pairs } => {
                let pairs = pairs.iter().flat_map(|pair| [&*pair.positive, &*pair.negative]);
                std::iter::once(&**target).chain(pairs).collect()
            }
            Goal::Feedback { target, pairs, .. } => {
                let pairs = pairs.iter().flat_map(|(pair, _)| [&*pair.positive, &*pair.negative]);
                std::iter::once(&**target).chain(pairs).collect()
            }
            Goal::Context { pairs } => pairs.iter().flat_map(|pair| [&*pair.positive, &*pair.negative]).collect(),
        }
    }

    /// The vector, when the goal is to be near to one.
    pub fn nearest(&self) -> Option<&Vector> {
        match self {
            Goal::Nearest(vector) => Some(vector),
            Goal::BestScore { .. }
            | Goal::SumScores { .. }
            | Goal::Discover { .. }
            | Goal::Feedback { .. }
            | Goal::Context { .. } => None,
        }
    }

    /// The internal distance of a point with the given similarity to each of the goal's vectors.
    pub fn distance(&self, similarity: impl Fn(&Vector) -> f32) -> f32 {
        let score = match self {
            Goal::Nearest(vector) => similarity(vector),
            Goal::BestScore { positive, negative } => {
                let best = |examples: &[Weighted], score: fn(f32) -> f32| {
                    let one = |example: &Weighted| score(similarity(&example.vector)) * example.weight;
                    examples.iter().map(one).fold(f32::NEG_INFINITY, f32::max)
                };
                // Without weights the similarities themselves decide: the sigmoid cannot tell large ones apart.
                let is_plain = positive.iter().chain(negative).all(|example| example.weight == 1.0);
                let same: fn(f32) -> f32 = |x| x;
                let (first, then) =
                    if is_plain { (same, scaled_sigmoid as fn(f32) -> f32) } else { (scaled_sigmoid as _, same) };
                let (liked, disliked) = (best(positive, first), best(negative, first));
                if liked > disliked { then(liked) } else { -then(disliked) }
            }
            Goal::SumScores { positive, negative } => {
                let sum = |examples: &[Weighted]| -> f32 {
                    examples.iter().map(|example| example.weight * similarity(&example.vector)).sum()
                };
                sum(positive) - sum(negative)
            }
            Goal::Discover { target, pairs } => {
                let rank = |pair: &Pair| {
                    let (positive, negative) = (similarity(&pair.positive), similarity(&pair.negative));
                    f32::from(i8::from(positive > negative) - i8::from(positive < negative))
                };
                pairs.iter().map(rank).sum::<f32>() + scaled_sigmoid(similarity(target))
            }
            Goal::Feedback { target, factor, pairs } => {
                let gain =
                    |(pair, weight): &(Pair, f32)| weight * (similarity(&pair.positive) - similarity(&pair.negative));
                factor * similarity(target) + pairs.iter().map(gain).sum::<f32>()
            }
            Goal::Context { pairs } => {
                let loss = |pair: &Pair| {
                    let difference = similarity(&pair.positive) - similarity(&pair.negative) - f32::EPSILON;
                    sigmoid(difference.min(0.0))
                };
                pairs.iter().map(loss).sum()
            }
        };
        // 0.0 - s, not -s: a score of +0.0 must not become a distance of -0.0. Not a number is the worst.
        if score.is_nan() { f32::INFINITY } else { 0.0 - score }
    }
}

/// From -1 to 1, without an exponential.
fn sigmoid(x: f32) -> f32 {
    if x.is_infinite() { x.signum() } else { x / (1.0 + x.abs()) }
}

/// From 0 to 1.
fn scaled_sigmoid(x: f32) -> f32 {
    0.5 * (sigmoid(x) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(x: f32) -> Arc<Vector> {
        Arc::new(Vector::Dense(vec![x]))
    }

    fn w(x: f32) -> Weighted {
        Weighted { vector: v(x), weight: 1.0 }
    }

    /// The score of a point whose similarity to each vector is the vector's own number.
    fn score(goal: &Goal) -> f32 {
        let score = -goal.distance(|vector| vector.dense().unwrap()[0]);
        (score * 1e4).round() / 1e4
    }

    #[test]
    fn scores_are_those_of_the_api() {
        let best = |positive: &[f32], negative: &[f32]| Goal::BestScore {
            positive: positive.iter().map(|x| w(*x)).collect(),
            negative: negative.iter().map(|x| w(*x)).collect(),
        };
        assert_eq!(score(&best(&[0.2, 1.0], &[0.5])), 0.75);
        assert_eq!(score(&best(&[0.2], &[1.0])), -0.75);
        assert_eq!(score(&best(&[], &[-1.0])), -0.25);
        let sum = Goal::SumScores { positive: vec![w(1.0), w(2.0)], negative: vec![w(0.5)] };
        assert_eq!(score(&sum), 2.5);
        let pair = |a, b| Pair { positive: v(a), negative: v(b) };
        let pairs = vec![pair(2.0, 1.0), pair(1.0, 1.0), pair(0.0, 1.0), pair(3.0, 1.0)];
        assert_eq!(score(&Goal::Discover { target: v(1.0), pairs: pairs.clone() }), 1.75);
        let feedback = vec![(pair(3.0, 1.0), 0.5), (pair(0.0, 1.0), 0.25)];
        assert_eq!(score(&Goal::Feedback { target: v(2.0), factor: 0.5, pairs: feedback }), 1.75);
        assert_eq!(score(&Goal::Context { pairs }), -0.5);
    }

    #[test]
    fn weights_count() {
        let heavy = Weighted { vector: v(1.0), weight: 3.0 };
        let sum = Goal::SumScores { positive: vec![heavy.clone()], negative: vec![] };
        assert_eq!(score(&sum), 3.0);
        assert_eq!(score(&Goal::BestScore { positive: vec![heavy], negative: vec![w(2.0)] }), 2.25);
    }
}
