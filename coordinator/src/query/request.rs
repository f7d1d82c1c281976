//! Queries as they are understood, and what they are answered with.

use std::sync::Arc;

use vicinal_common::api::{Goal, OrderBy, OrderValue, PointParts, SearchQuery, StoredPoint, VectorSelector};
use vicinal_common::collection::{CollectionSchema, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::ids::LogIndex;
use vicinal_common::limits::{EF_MAX, RESULTS_MAX};
use vicinal_common::metric::{Metric, ScoreOrder};
use vicinal_common::point::{PointId, UNNAMED};
use vicinal_common::vector::Vector;

use super::formula::FormulaQuery;
use super::fusion::Fusion;
use super::gather::Coverage;
use super::mmr::Mmr;
use super::route::Width;

/// One query of a client.
#[derive(Clone, Debug)]
pub struct Query {
    /// What to look for.
    pub source: Source,
    /// Name of the vector searched; `""` is the unnamed one.
    pub using: String,
    /// Which points may be hits.
    pub filter: Option<Arc<Filter>>,
    /// Worst score a hit may have (inclusive).
    pub score_threshold: Option<f32>,
    /// How many hits to return, at least 1.
    pub limit: usize,
    /// How many of the best hits to leave out.
    pub offset: usize,
    /// Query beam; `None`: chosen by the shards.
    pub ef: Option<usize>,
    /// Exact scan instead of the index.
    pub exact: bool,
    /// Candidates for each hit, at least 1, where the client chose: the beam holds as many.
    pub oversampling: Option<f64>,
    /// Of which points the frequencies of dimensions are those of an `idf`; all when there is no filter.
    pub idf_corpus: Option<Arc<Filter>>,
    /// What to return of each hit.
    pub parts: PointParts,
    /// How many search shards are asked, where points are routed by cluster.
    pub width: Width,
    /// Whether an answer that misses shards is wanted.
    pub allow_partial: bool,
}

/// What a query looks for.
#[derive(Clone, Debug)]
pub enum Source {
    /// The neighbours of this vector, as the client sent it.
    Vector(Vector),
    /// The neighbours of a stored point, itself left out.
    Point(PointId),
    /// The neighbours of an average of examples; stored ones are left out.
    Average {
        /// What to be near to.
        positive: Vec<WeightedExample>,
        /// What not to be near to: the average of these is subtracted from twice that of the others.
        negative: Vec<WeightedExample>,
    },
    /// What is like the best of the examples; stored ones are left out.
    BestScore {
        /// What to be near to.
        positive: Vec<WeightedExample>,
        /// What not to be near to.
        negative: Vec<WeightedExample>,
    },
    /// What is like all of the examples in sum; stored ones are left out.
    SumScores {
        /// What to be near to.
        positive: Vec<WeightedExample>,
        /// What not to be near to.
        negative: Vec<WeightedExample>,
    },
    /// What is on the positive side of most pairs, and of that the neighbours of the target.
    Discover {
        /// What to be near to.
        target: Example,
        /// Positive and negative examples.
        pairs: Vec<(Example, Example)>,
    },
    /// What is on the positive side of all pairs.
    Context {
        /// Positive and negative examples.
        pairs: Vec<(Example, Example)>,
    },
    /// The neighbours of the target, led on by how earlier hits were judged.
    Feedback {
        /// What to be near to.
        target: Example,
        /// Examples with their judgement, the larger the better.
        judged: Vec<(Example, f32)>,
        /// How much the target counts, the power of a difference of judgements, and how much pairs count.
        factors: [f32; 3],
    },
    /// Points in order of a payload key.
    OrderBy(OrderBy),
    /// Points at random.
    Sample {
        /// Another seed, another choice.
        seed: u64,
    },
    /// The neighbours of an example (itself left out when it is stored), chosen so that they differ from each other.
    Mmr {
        /// What to be near to.
        target: Example,
        /// How they are chosen.
        mmr: Mmr,
    },
    /// What the lists of several queries have in common.
    Fusion(Fusion),
    /// What the lists of several queries hold, scored anew.
    Formula(Arc<FormulaQuery>),
    /// Nothing in particular: points in order of their ids.
    All,
}

/// A vector that is given, or that of a stored point.
#[derive(Clone, Debug, PartialEq)]
pub enum Example {
    /// As the client sent it.
    Vector(Vector),
    /// A point.
    Point(PointId),
}

/// An example, and how much it counts: 1 is as usual.
pub type WeightedExample = (Example, f32);

impl Source {
    /// The examples it is made of.
    pub fn examples(&self) -> Vec<&Example> {
        fn of_pairs(pairs: &[(Example, Example)]) -> Vec<&Example> {
            pairs.iter().flat_map(|(a, b)| [a, b]).collect()
        }
        match self {
            Source::Average { positive, negative }
            | Source::BestScore { positive, negative }
            | Source::SumScores { positive, negative } => {
                positive.iter().chain(negative).map(|(example, _)| example).collect()
            }
            Source::Discover { target, pairs } => std::iter::once(target).chain(of_pairs(pairs)).collect(),
            Source::Context { pairs } => of_pairs(pairs),
            Source::Mmr { target, .. } => vec![target],
            Source::Feedback { target, judged, .. } => {
                std::iter::once(target).chain(judged.iter().map(|(example, _)| example)).collect()
            }
            Source::Vector(_)
            | Source::Point(_)
            | Source::OrderBy(_)
            | Source::Sample { .. }
            | Source::Fusion(_)
            | Source::Formula(_)
            | Source::All => Vec::new(),
        }
    }

    /// The stored points it is made of.
    pub fn points(&self) -> Vec<PointId> {
        if let Source::Point(id) = self {
            return vec![*id];
        }
        let points = self.examples().into_iter().filter_map(|example| match example {
            Example::Point(id) => Some(*id),
            Example::Vector(_) => None,
        });
        points.collect()
    }

    /// Whether shards search vectors for it.
    pub fn is_search(&self) -> bool {
        match self {
            Source::Vector(_)
            | Source::Point(_)
            | Source::Average { .. }
            | Source::BestScore { .. }
            | Source::SumScores { .. }
            | Source::Discover { .. }
            | Source::Context { .. }
            | Source::Feedback { .. } => true,
            Source::OrderBy(_)
            | Source::Sample { .. }
            | Source::Mmr { .. }
            | Source::Fusion(_)
            | Source::Formula(_)
            | Source::All => false,
        }
    }

    /// Whether its scores are those of the metric. Else they have no unit, and the largest is the best.
    fn is_by_metric(&self) -> bool {
        matches!(self, Source::Vector(_) | Source::Point(_) | Source::Average { .. })
    }

    /// The score of a hit at an internal distance.
    pub fn score(&self, metric: Metric, distance: f32) -> f32 {
        if self.is_by_metric() { metric.score(distance) } else { 0.0 - distance }
    }

    /// Which way its scores are ordered.
    pub fn order(&self, metric: Metric) -> ScoreOrder {
        if self.is_by_metric() { metric.order() } else { ScoreOrder::LargerIsBetter }
    }

    /// The same with vectors in the place of stored points; `vector_of` gives that of each.
    pub fn with_vectors(mut self, vector_of: &dyn Fn(PointId) -> Result<Vector>) -> Result<Source> {
        if let Source::Point(id) = self {
            return Ok(Source::Vector(vector_of(id)?));
        }
        for example in self.examples_mut() {
            if let Example::Point(id) = example {
                *example = Example::Vector(vector_of(*id)?);
            }
        }
        Ok(self)
    }

    fn examples_mut(&mut self) -> Vec<&mut Example> {
        fn of_pairs(pairs: &mut [(Example, Example)]) -> Vec<&mut Example> {
            pairs.iter_mut().flat_map(|(a, b)| [a, b]).collect()
        }
        match self {
            Source::Average { positive, negative }
            | Source::BestScore { positive, negative }
            | Source::SumScores { positive, negative } => {
                positive.iter_mut().chain(negative).map(|(example, _)| example).collect()
            }
            Source::Discover { target, pairs } => std::iter::once(target).chain(of_pairs(pairs)).collect(),
            Source::Context { pairs } => of_pairs(pairs),
            Source::Mmr { target, .. } => vec![target],
            Source::Feedback { target, judged, .. } => {
                std::iter::once(target).chain(judged.iter_mut().map(|(example, _)| example)).collect()
            }
            Source::Vector(_)
            | Source::Point(_)
            | Source::OrderBy(_)
            | Source::Sample { .. }
            | Source::Fusion(_)
            | Source::Formula(_)
            | Source::All => Vec::new(),
        }
    }
}

/// One hit.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The point.
    pub id: PointId,
    /// Its version.
    pub version: LogIndex,
    /// Its score, in the metric's own direction; 1 where no vector is searched for.
    pub score: f32,
    /// The value it has its place by, in an order by a payload key.
    pub order: Option<OrderValue>,
    /// The parts asked for; `None` when none were.
    pub point: Option<StoredPoint>,
}

/// The answer to one query.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Which shards they come from.
    pub coverage: Coverage,
}

impl Query {
    /// Checks the bounds that need no collection.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::Validation { field: field.into(), message });
        if self.limit == 0 {
            return refuse("limit", "value 0 invalid, must be 1 or larger".into());
        }
        if self.limit.saturating_add(self.offset) > RESULTS_MAX {
            let message = format!("limit {} plus offset {} is above {RESULTS_MAX}", self.limit, self.offset);
            return refuse("limit", message);
        }
        if let Some(ef) = self.ef
            && !(1..=EF_MAX).contains(&ef)
        {
            return refuse("params.hnsw_ef", format!("value {ef} invalid, must be from 1 to {EF_MAX}"));
        }
        if self.score_threshold.is_some_and(|score| !score.is_finite()) {
            return refuse("score_threshold", "must be a finite number".into());
        }
        // The smaller a difference of judgements the more it would count.
        if let Source::Feedback { factors: [_, power, _], .. } = &self.source
            && !(power.is_finite() && *power >= 0.0)
        {
            let message = format!("value {power} invalid, must be 0.0 or larger");
            return refuse("query.relevance_feedback.strategy.naive.b", message);
        }
        Ok(())
    }

    /// Whether anything beyond ids and scores is wanted.
    pub fn wants_parts(&self) -> bool {
        self.parts.payload || self.parts.vectors != VectorSelector::None
    }

    /// Hits that each shard is asked for: own points are left out afterwards, so as many more are needed.
    pub(super) fn hits_asked(&self) -> usize {
        self.limit + self.offset + self.source.points().len()
    }

    /// The query as shards understand it. `goal` is what to search for, made for the collection, whose graphs were built with a
    /// beam of `ef_construction`.
    pub fn search(&self, metric: Metric, goal: Goal, ef_construction: usize) -> SearchQuery {
        let bound = |score: f32| match self.source.is_by_metric() {
            true => loose_bound(metric, score),
            false => 0.0 - score,
        };
        let k = self.hits_asked();
        let ef = match self.oversampling {
            None => self.ef,
            Some(factor) => {
                let candidates = ((k as f64 * factor).ceil() as usize).min(EF_MAX);
                Some(self.ef.unwrap_or(ef_construction).max(candidates))
            }
        };
        SearchQuery {
            vector_name: self.using.clone(),
            goal,
            k,
            filter: self.filter.clone(),
            distance_max: self.score_threshold.map(bound),
            ef,
            exact: self.exact,
        }
    }

    /// Whether a score is good enough.
    pub fn accepts(&self, metric: Metric, score: f32) -> bool {
        match (self.score_threshold, self.source.order(metric)) {
            (None, _) => true,
            (Some(least), ScoreOrder::LargerIsBetter) => score >= least,
            (Some(most), ScoreOrder::SmallerIsBetter) => score <= most,
        }
    }
}

/// A distance bound for the shards that is never tighter than the client's score: the square of a rounded root can be less
/// than what it is the root of. The exact comparison follows on scores.
fn loose_bound(metric: Metric, score: f32) -> f32 {
    match metric {
        Metric::Euclid if score < 0.0 => -1.0,
        Metric::Euclid => metric.distance_of_score(score) * (1.0 + 4.0 * f32::EPSILON),
        Metric::Cosine | Metric::Dot | Metric::Manhattan => metric.distance_of_score(score),
    }
}

/// Finds a vector of the collection by the name a request gives.
pub fn resolve_vector_name<'a>(schema: &'a CollectionSchema, name: &str) -> Result<&'a VectorSchema> {
    if let Some(found) = schema.vectors.get(name) {
        return Ok(found);
    }
    let names: Vec<&str> = schema.vectors.keys().map(String::as_str).filter(|name| *name != UNNAMED).collect();
    if name == UNNAMED {
        let names = names.join(", ");
        return Err(Error::BadInput(format!(
            "Collection requires specified vector name in the request, available names: {names}"
        )));
    }
    Err(Error::BadInput(format!("Not existing vector name error: {name}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_bound_for_shards_never_drops_an_accepted_score(distance in 0.0f32..1e12, step in 0.5f32..2.0) {
            for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan] {
                let score = metric.score(distance);
                for threshold in [score, score * step] {
                    let accepted = match metric.order() {
                        ScoreOrder::LargerIsBetter => score >= threshold,
                        ScoreOrder::SmallerIsBetter => score <= threshold,
                    };
                    prop_assert!(!accepted || distance <= loose_bound(metric, threshold), "{metric:?} {score} {threshold}");
                }
            }
        }
    }

    #[test]
    fn no_distance_is_below_a_negative_threshold() {
        assert!(loose_bound(Metric::Euclid, -1.0) < 0.0);
    }
}
