//! From what a client asks for to what shards search for. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use vicinal_common::api::{Goal, Pair, Weighted};
use vicinal_common::collection::{VectorKind, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::vector::{MultiVector, SparseVector, Vector};

use super::request::{Example, Source, WeightedExample};
use crate::write::check_vector;

/// What shards search for. `vector_of` gives the vector of an example. `None` for what is no search. `BadInput` when
/// vectors do not fit the schema.
pub(super) fn goal_of(
    source: &Source,
    schema: &VectorSchema,
    vector_of: &dyn Fn(&Example) -> Result<Vector>,
) -> Result<Option<Goal>> {
    let fit = |vector: Vector| check_vector(as_query(vector, schema), schema).map(Arc::new);
    let shared = |example: &Example| fit(vector_of(example)?);
    let weighted = |examples: &[WeightedExample]| {
        let one = |(example, weight): &WeightedExample| Ok(Weighted { vector: shared(example)?, weight: *weight });
        examples.iter().map(one).collect::<Result<Vec<_>>>()
    };
    let pair = |positive: &Example, negative: &Example| {
        Ok::<_, Error>(Pair { positive: shared(positive)?, negative: shared(negative)? })
    };
    let pairs = |pairs: &[(Example, Example)]| pairs.iter().map(|(a, b)| pair(a, b)).collect::<Result<Vec<_>>>();
    Ok(Some(match source {
        Source::Vector(vector) => Goal::Nearest(fit(vector.clone())?),
        Source::Point(id) => Goal::Nearest(shared(&Example::Point(*id))?),
        Source::Average { positive, negative } => {
            let vectors = |examples: &[WeightedExample]| {
                let one = |(example, weight): &WeightedExample| {
                    let vector = vector_of(example)?;
                    // Errors about dimensions come before those of arithmetic.
                    check_vector(as_query(vector.clone(), schema), schema)?;
                    Ok((as_query(vector, schema), *weight))
                };
                examples.iter().map(one).collect::<Result<Vec<_>>>()
            };
            Goal::Nearest(fit(average_of(&vectors(positive)?, &vectors(negative)?)?)?)
        }
        Source::BestScore { positive, negative } => {
            Goal::BestScore { positive: weighted(positive)?, negative: weighted(negative)? }
        }
        Source::SumScores { positive, negative } => {
            Goal::SumScores { positive: weighted(positive)?, negative: weighted(negative)? }
        }
        Source::Discover { target, pairs: given } => Goal::Discover { target: shared(target)?, pairs: pairs(given)? },
        Source::Context { pairs: given } => Goal::Context { pairs: pairs(given)? },
        Source::Feedback { target, judged, factors: [factor, power, weight] } => {
            let mut pairs = Vec::new();
            for (better, high) in judged {
                for (worse, low) in judged.iter().filter(|(_, low)| low < high) {
                    pairs.push((pair(better, worse)?, (high - low).powf(*power) * weight));
                }
            }
            Goal::Feedback { target: shared(target)?, factor: *factor, pairs }
        }
        Source::OrderBy(_) | Source::Sample { .. } | Source::Fusion(_) | Source::Formula(_) | Source::All => {
            return Ok(None);
        }
    }))
}

/// A dense vector stands for a multivector of one.
fn as_query(vector: Vector, schema: &VectorSchema) -> Vector {
    match (vector, schema.kind) {
        (Vector::Dense(values), VectorKind::Multi) if !values.is_empty() => {
            Vector::Multi(MultiVector { dim: values.len(), values })
        }
        (vector, _) => vector,
    }
}

/// The mean of the positive examples; with negative ones, twice that less the mean of those. Of multivectors all vectors
/// together, those of negative ones with their signs changed.
fn average_of(positive: &[(Vector, f32)], negative: &[(Vector, f32)]) -> Result<Vector> {
    let first = positive.first().ok_or_else(|| Error::BadInput("a recommendation needs positive examples".into()))?;
    match &first.0 {
        Vector::Dense(values) => {
            let (liked, disliked) = (dense_mean(positive, values.len())?, dense_mean(negative, values.len())?);
            let value = |at: usize| if negative.is_empty() { liked[at] } else { 2.0 * liked[at] - disliked[at] };
            Ok(Vector::Dense((0..values.len()).map(|at| value(at) as f32).collect()))
        }
        Vector::Sparse(_) => {
            let mut sum: BTreeMap<u32, f64> = BTreeMap::new();
            let scale = if negative.is_empty() { 1.0 } else { 2.0 };
            for (index, value) in sparse_mean(positive)? {
                *sum.entry(index).or_default() += scale * value;
            }
            for (index, value) in sparse_mean(negative)? {
                *sum.entry(index).or_default() -= value;
            }
            let (indices, values) = sum.into_iter().map(|(index, value)| (index, value as f32)).unzip();
            Ok(Vector::Sparse(SparseVector { indices, values }))
        }
        Vector::Multi(MultiVector { dim, .. }) => {
            let mut values = Vec::new();
            for (sign, examples) in [(1.0, positive), (-1.0, negative)] {
                for (vector, weight) in examples {
                    let Vector::Multi(multi) = vector else { return Err(mixed()) };
                    values.extend(multi.values.iter().map(|value| sign * weight * value));
                }
            }
            Ok(Vector::Multi(MultiVector { dim: *dim, values }))
        }
    }
}

fn mixed() -> Error {
    Error::BadInput("examples of a recommendation are of different kinds of vectors".into())
}

/// Sum of the weights; not 0, which no mean can be divided by.
fn total(examples: &[(Vector, f32)]) -> Result<f64> {
    let total: f64 = examples.iter().map(|(_, weight)| f64::from(*weight)).sum();
    match examples.is_empty() || total > 0.0 {
        true => Ok(total),
        false => Err(Error::BadInput("the weights of the examples of a recommendation are all 0".into())),
    }
}

fn dense_mean(examples: &[(Vector, f32)], dim: usize) -> Result<Vec<f64>> {
    let mut mean = vec![0.0; dim];
    let total = total(examples)?;
    for (vector, weight) in examples {
        let values = vector.dense().filter(|values| values.len() == dim).ok_or_else(mixed)?;
        mean.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*weight) * f64::from(*value));
    }
    mean.iter_mut().for_each(|sum| *sum /= total.max(f64::MIN_POSITIVE));
    Ok(mean)
}

fn sparse_mean(examples: &[(Vector, f32)]) -> Result<BTreeMap<u32, f64>> {
    let mut mean: BTreeMap<u32, f64> = BTreeMap::new();
    let total = total(examples)?;
    for (vector, weight) in examples {
        let Vector::Sparse(SparseVector { indices, values }) = vector else { return Err(mixed()) };
        for (index, value) in indices.iter().zip(values) {
            *mean.entry(*index).or_default() += f64::from(*weight) * f64::from(*value) / total;
        }
    }
    Ok(mean)
}

/// Multiplies the values of every sparse vector of a goal.
pub(super) fn scale_sparse(goal: &mut Goal, factor: &dyn Fn(u32) -> f32) {
    let scale = |vector: &mut Arc<Vector>| {
        if let Vector::Sparse(SparseVector { indices, values }) = Arc::make_mut(vector) {
            indices.iter().zip(values).for_each(|(index, value)| *value *= factor(*index));
        }
    };
    let pair = |pair: &mut Pair| {
        scale(&mut pair.positive);
        scale(&mut pair.negative);
    };
    match goal {
        Goal::Nearest(vector) => scale(vector),
        Goal::BestScore { positive, negative } | Goal::SumScores { positive, negative } => {
            positive.iter_mut().chain(negative).for_each(|example| scale(&mut example.vector));
        }
        Goal::Discover { target, pairs } => {
            scale(target);
            pairs.iter_mut().for_each(pair);
        }
        Goal::Feedback { target, pairs, .. } => {
            scale(target);
            pairs.iter_mut().for_each(|(of_pair, _)| pair(of_pair));
        }
        Goal::Context { pairs } => pairs.iter_mut().for_each(pair),
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::metric::Metric;

    use super::*;

    fn dense(values: &[f32]) -> (Vector, f32) {
        (Vector::Dense(values.to_vec()), 1.0)
    }

    #[test]
    fn an_average_leads_away_from_what_is_not_liked() {
        let liked = [dense(&[1.0, 0.0]), dense(&[3.0, 2.0])];
        assert_eq!(average_of(&liked, &[]).unwrap(), dense(&[2.0, 1.0]).0);
        assert_eq!(average_of(&liked, &[dense(&[1.0, 4.0])]).unwrap(), dense(&[3.0, -2.0]).0);
        let weighted = [(dense(&[1.0, 0.0]).0, 3.0), dense(&[5.0, 4.0])];
        assert_eq!(average_of(&weighted, &[]).unwrap(), dense(&[2.0, 1.0]).0);
        assert!(average_of(&[(dense(&[1.0]).0, 0.0)], &[]).is_err());
        let sparse = |pairs: &[(u32, f32)]| {
            let (indices, values) = pairs.iter().copied().unzip();
            (Vector::Sparse(SparseVector { indices, values }), 1.0)
        };
        let mean = average_of(&[sparse(&[(1, 2.0)]), sparse(&[(2, 4.0)])], &[sparse(&[(2, 1.0)])]).unwrap();
        assert_eq!(mean, sparse(&[(1, 2.0), (2, 3.0)]).0);
        assert!(average_of(&[dense(&[1.0])], &[sparse(&[])]).is_err());
    }

    #[test]
    fn judgements_become_pairs_of_better_and_worse() {
        let given = |x: f32| Example::Vector(Vector::Dense(vec![x]));
        let judged = vec![(given(1.0), 1.0), (given(2.0), 0.5), (given(3.0), 0.5)];
        let source = Source::Feedback { target: given(0.0), judged, factors: [0.5, 2.0, 4.0] };
        let never = |_: &Example| -> Result<Vector> { unreachable!() };
        let vector_of = |example: &Example| match example {
            Example::Vector(vector) => Ok(vector.clone()),
            other => never(other),
        };
        let goal = goal_of(&source, &VectorSchema::dense(1, Metric::Dot), &vector_of).unwrap();
        let Some(Goal::Feedback { factor, pairs, .. }) = goal else { panic!("{goal:?}") };
        assert_eq!((factor, pairs.len()), (0.5, 2));
        assert!(pairs.iter().all(|(_, weight)| *weight == 1.0));
    }
}
