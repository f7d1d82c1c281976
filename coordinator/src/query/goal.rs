//! From what a client asks for to what shards search for. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use vicinal_common::api::{Goal, Pair, Weighted};
use vicinal_common::error::{Error, Result};
use vicinal_common::vector::{MultiVector, SparseVector, Vector};

use super::examples::Examples;
use super::request::{Example, Source, WeightedExample};

/// What shards search for, made of the examples' vectors. `None` for what is no search. `BadInput` when vectors do not fit
/// the schema.
pub(super) fn goal_of(source: &Source, examples: &Examples<'_>) -> Result<Option<Goal>> {
    let shared = |example: &Example| examples.fitting(example);
    let weighted = |given: &[WeightedExample]| {
        let one = |(example, weight): &WeightedExample| Ok(Weighted { vector: shared(example)?, weight: *weight });
        given.iter().map(one).collect::<Result<Vec<_>>>()
    };
    let pair = |(positive, negative): &(Example, Example)| {
        Ok::<_, Error>(Pair { positive: shared(positive)?, negative: shared(negative)? })
    };
    let pairs = |pairs: &[(Example, Example)]| pairs.iter().map(pair).collect::<Result<Vec<_>>>();
    Ok(Some(match source {
        Source::Vector(vector) => Goal::Nearest(Arc::new(examples.fit(vector)?)),
        Source::Point(id) => Goal::Nearest(shared(&Example::Point(*id))?),
        Source::Average { positive, negative } => {
            // Errors about dimensions come before those of arithmetic.
            positive.iter().chain(negative).try_for_each(|(example, _)| shared(example).map(drop))?;
            let average = average_of(&given(positive, examples)?, &given(negative, examples)?)?;
            Goal::Nearest(Arc::new(examples.fit(&average)?))
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
            let one = |(example, judgement): &(Example, f32)| Ok((shared(example)?, *judgement));
            let judged = judged.iter().map(one).collect::<Result<Vec<_>>>()?;
            let mut pairs = Vec::new();
            for (better, high) in &judged {
                for (worse, low) in judged.iter().filter(|(_, low)| low < high) {
                    let pair = Pair { positive: better.clone(), negative: worse.clone() };
                    pairs.push((pair, (high - low).powf(*power) * weight));
                }
            }
            Goal::Feedback { target: shared(target)?, factor: *factor, pairs }
        }
        Source::OrderBy(_)
        | Source::Sample { .. }
        | Source::Mmr { .. }
        | Source::Fusion(_)
        | Source::Formula(_)
        | Source::All => return Ok(None),
    }))
}

/// The examples of an average as they were given or are stored, with their weights.
fn given<'b, 'a: 'b>(weighted: &'b [WeightedExample], examples: &Examples<'a>) -> Result<Vec<(Cow<'b, Vector>, f32)>> {
    let one = |(example, weight): &'b WeightedExample| Ok((examples.as_query(examples.vector(example)?), *weight));
    weighted.iter().map(one).collect()
}

/// The mean of the positive examples; with negative ones, twice that less the mean of those. Of multivectors all vectors
/// together, those of negative ones with their signs changed.
fn average_of(positive: &[(Cow<'_, Vector>, f32)], negative: &[(Cow<'_, Vector>, f32)]) -> Result<Vector> {
    let first = positive.first().ok_or_else(|| Error::BadInput("a recommendation needs positive examples".into()))?;
    match &*first.0 {
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
                    let Vector::Multi(multi) = &**vector else { return Err(mixed()) };
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
fn total(examples: &[(Cow<'_, Vector>, f32)]) -> Result<f64> {
    let total: f64 = examples.iter().map(|(_, weight)| f64::from(*weight)).sum();
    match examples.is_empty() || total > 0.0 {
        true => Ok(total),
        false => Err(Error::BadInput("the weights of the examples of a recommendation are all 0".into())),
    }
}

fn dense_mean(examples: &[(Cow<'_, Vector>, f32)], dim: usize) -> Result<Vec<f64>> {
    let mut mean = vec![0.0; dim];
    let total = total(examples)?;
    for (vector, weight) in examples {
        let values = vector.dense().filter(|values| values.len() == dim).ok_or_else(mixed)?;
        mean.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*weight) * f64::from(*value));
    }
    mean.iter_mut().for_each(|sum| *sum /= total.max(f64::MIN_POSITIVE));
    Ok(mean)
}

fn sparse_mean(examples: &[(Cow<'_, Vector>, f32)]) -> Result<BTreeMap<u32, f64>> {
    let mut mean: BTreeMap<u32, f64> = BTreeMap::new();
    let total = total(examples)?;
    for (vector, weight) in examples {
        let Vector::Sparse(SparseVector { indices, values }) = &**vector else { return Err(mixed()) };
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
    use vicinal_common::collection::VectorSchema;
    use vicinal_common::metric::Metric;
    use vicinal_common::point::PointId;

    use super::*;

    fn dense(values: &[f32]) -> (Cow<'static, Vector>, f32) {
        (Cow::Owned(Vector::Dense(values.to_vec())), 1.0)
    }

    #[test]
    fn an_average_leads_away_from_what_is_not_liked() {
        let liked = [dense(&[1.0, 0.0]), dense(&[3.0, 2.0])];
        assert_eq!(average_of(&liked, &[]).unwrap(), *dense(&[2.0, 1.0]).0);
        assert_eq!(average_of(&liked, &[dense(&[1.0, 4.0])]).unwrap(), *dense(&[3.0, -2.0]).0);
        let weighted = [(dense(&[1.0, 0.0]).0, 3.0), dense(&[5.0, 4.0])];
        assert_eq!(average_of(&weighted, &[]).unwrap(), *dense(&[2.0, 1.0]).0);
        assert!(average_of(&[(dense(&[1.0]).0, 0.0)], &[]).is_err());
        let sparse = |pairs: &[(u32, f32)]| {
            let (indices, values) = pairs.iter().copied().unzip();
            (Cow::Owned(Vector::Sparse(SparseVector { indices, values })), 1.0)
        };
        let mean = average_of(&[sparse(&[(1, 2.0)]), sparse(&[(2, 4.0)])], &[sparse(&[(2, 1.0)])]).unwrap();
        assert_eq!(mean, *sparse(&[(1, 2.0), (2, 3.0)]).0);
        assert!(average_of(&[dense(&[1.0])], &[sparse(&[])]).is_err());
    }

    #[test]
    fn judgements_become_pairs_of_better_and_worse() {
        let given = |x: f32| Example::Vector(Vector::Dense(vec![x]));
        let judged = vec![(given(1.0), 1.0), (given(2.0), 0.5), (given(3.0), 0.5)];
        let source = Source::Feedback { target: given(0.0), judged, factors: [0.5, 2.0, 4.0] };
        let schema = VectorSchema::dense(1, Metric::Dot);
        let none = |_: PointId, _: &str| unreachable!("all are given");
        let goal = goal_of(&source, &Examples::new("", &schema, &none)).unwrap();
        let Some(Goal::Feedback { factor, pairs, .. }) = goal else { panic!("{goal:?}") };
        assert_eq!((factor, pairs.len()), (0.5, 2));
        assert!(pairs.iter().all(|(_, weight)| *weight == 1.0));
        assert!(Arc::ptr_eq(&pairs[0].0.positive, &pairs[1].0.positive), "each example is made once");
    }
}
