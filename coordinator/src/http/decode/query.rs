//! The `query` of a query: a vector, an id, or an object that says which kind of query it is.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;
use vicinal_common::api::{OrderBy, OrderValue};
use vicinal_common::filter::DateTime;
use vicinal_common::limits::{EXAMPLES_MAX, FEEDBACK_MAX};
use vicinal_common::point::PointId;

use super::formula::{DefaultsInput, FormulaInput};
use super::update::check_key;
use super::vector::{SparseParts, read_list, refuse_object};
use crate::query::{DIVERSITY_DEFAULT, Example, Fusion, Mmr, RRF_K_DEFAULT, Source, WeightedExample};

/// A list of objects, or a single one in its place.
pub(super) struct OneOrMany<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany<T>, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany<T>, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany<T>, A::Error> {
        let mut many = Vec::new();
        while let Some(item) = seq.next_element()? {
            if many.len() == EXAMPLES_MAX {
                return Err(de::Error::custom(format!("more than {EXAMPLES_MAX} items in a list")));
            }
            many.push(item);
        }
        Ok(OneOrMany(many))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum FusionInput {
    Rrf,
    Dbsf,
}

impl From<FusionInput> for Fusion {
    fn from(input: FusionInput) -> Fusion {
        match input {
            FusionInput::Rrf => Fusion::Rrf { k: RRF_K_DEFAULT, weights: None },
            FusionInput::Dbsf => Fusion::Dbsf,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RrfInput {
    k: Option<u32>,
    weights: Option<Vec<f32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MmrInput {
    diversity: Option<f32>,
    candidates_limit: Option<usize>,
}

impl MmrInput {
    /// The source that chooses among the neighbours of `nearest`.
    fn into_source<E: de::Error>(self, nearest: Source) -> Result<Source, E> {
        let target = match nearest {
            Source::Vector(vector) => Example::Vector(vector),
            Source::Point(id) => Example::Point(id),
            _ => return Err(E::custom("`query.mmr` goes with `nearest`, not with another query")),
        };
        let diversity = self.diversity.unwrap_or(DIVERSITY_DEFAULT);
        Ok(Source::Mmr { target, mmr: Mmr { diversity, candidates: self.candidates_limit } })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecommendInput {
    pub(super) positive: Option<Vec<ExampleInput>>,
    pub(super) negative: Option<Vec<ExampleInput>>,
    pub(super) strategy: Option<Strategy>,
    /// One for each positive example. Not part of Qdrant's API, as the next one.
    pub(super) positive_weights: Option<Vec<f32>>,
    pub(super) negative_weights: Option<Vec<f32>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strategy {
    AverageVector,
    BestScore,
    SumScores,
}

fn check_examples<E: de::Error>(field: &str, count: usize) -> Result<(), E> {
    match count <= EXAMPLES_MAX {
        true => Ok(()),
        false => Err(E::custom(format!("`query.{field}` has {count} examples, the limit is {EXAMPLES_MAX}"))),
    }
}

/// Examples with their weights, all 1 when there are none.
fn weighted<E: de::Error>(
    field: &str,
    examples: Option<Vec<ExampleInput>>,
    weights: Option<Vec<f32>>,
) -> Result<Vec<WeightedExample>, E> {
    let examples = examples.unwrap_or_default();
    let weights = weights.unwrap_or_else(|| vec![1.0; examples.len()]);
    if weights.len() != examples.len() {
        let (weights, examples) = (weights.len(), examples.len());
        let text = format!("`query.recommend.{field}_weights` has {weights} weights for {examples} examples");
        return Err(E::custom(text));
    }
    if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) {
        return Err(E::custom(format!("`query.recommend.{field}_weights` must be finite and not negative")));
    }
    Ok(examples.into_iter().map(|input| input.0).zip(weights).collect())
}

impl RecommendInput {
    pub(super) fn into_source<E: de::Error>(self) -> Result<Source, E> {
        let positive = weighted("positive", self.positive, self.positive_weights)?;
        let negative = weighted("negative", self.negative, self.negative_weights)?;
        check_examples("recommend", positive.len() + negative.len())?;
        match self.strategy.unwrap_or(Strategy::AverageVector) {
            Strategy::AverageVector if positive.is_empty() => {
                Err(E::custom("`query.recommend` needs at least one positive example"))
            }
            Strategy::BestScore | Strategy::SumScores if positive.is_empty() && negative.is_empty() => {
                Err(E::custom("`query.recommend` needs at least one example"))
            }
            Strategy::AverageVector => Ok(Source::Average { positive, negative }),
            Strategy::BestScore => Ok(Source::BestScore { positive, negative }),
            Strategy::SumScores => Ok(Source::SumScores { positive, negative }),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairInput {
    positive: ExampleInput,
    negative: ExampleInput,
}

/// Pairs of examples within the limit.
pub(super) fn pairs<E: de::Error>(
    field: &str,
    given: Option<OneOrMany<PairInput>>,
) -> Result<Vec<(Example, Example)>, E> {
    let pairs = given.map_or_else(Vec::new, |given| given.0);
    check_examples(field, 2 * pairs.len())?;
    Ok(pairs.into_iter().map(|pair| (pair.positive.0, pair.negative.0)).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscoverInput {
    target: ExampleInput,
    context: Option<OneOrMany<PairInput>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedbackInput {
    target: ExampleInput,
    feedback: Vec<JudgedInput>,
    strategy: FeedbackStrategy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JudgedInput {
    example: ExampleInput,
    score: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedbackStrategy {
    naive: NaiveFactors,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NaiveFactors {
    a: f32,
    b: f32,
    c: f32,
}

impl FeedbackInput {
    fn into_source<E: de::Error>(self) -> Result<Source, E> {
        // Each is compared with each.
        if self.feedback.len() > FEEDBACK_MAX {
            let count = self.feedback.len();
            let text = format!("`query.relevance_feedback.feedback` has {count} examples, the limit is {FEEDBACK_MAX}");
            return Err(E::custom(text));
        }
        let NaiveFactors { a, b, c } = self.strategy.naive;
        let judged: Vec<(Example, f32)> =
            self.feedback.into_iter().map(|judged| (judged.example.0, judged.score)).collect();
        let mut numbers = judged.iter().map(|(_, score)| *score).chain([a, b, c]);
        if numbers.any(|number| !number.is_finite()) {
            return Err(E::custom("numbers of `query.relevance_feedback` must be finite"));
        }
        Ok(Source::Feedback { target: self.target.0, judged, factors: [a, b, c] })
    }
}

/// How points are ordered: a key, or an object that says more.
pub(super) struct OrderByInput(pub(super) OrderBy);

#[derive(Deserialize)]
#[serde(untagged)]
enum StartFrom {
    Integer(i64),
    Float(f64),
    Time(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderByBody {
    key: String,
    direction: Option<Direction>,
    start_from: Option<StartFrom>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Asc,
    Desc,
}

impl<'de> Deserialize<'de> for OrderByInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrderByInput, D::Error> {
        deserializer.deserialize_any(OrderByVisitor)
    }
}

struct OrderByVisitor;

impl<'de> Visitor<'de> for OrderByVisitor {
    type Value = OrderByInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload key, or {\"key\": ..., \"direction\": ..., \"start_from\": ...}")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<OrderByInput, E> {
        let body = OrderByBody { key: key.to_owned(), direction: None, start_from: None };
        body.into_order().map(OrderByInput)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OrderByInput, A::Error> {
        let body = OrderByBody::deserialize(de::value::MapAccessDeserializer::new(map))?;
        body.into_order().map(OrderByInput)
    }
}

impl OrderByBody {
    fn into_order<E: de::Error>(self) -> Result<OrderBy, E> {
        check_key("order_by.key", &self.key).map_err(E::custom)?;
        let from = match self.start_from {
            None => None,
            Some(StartFrom::Integer(integer)) => Some(OrderValue::Integer(integer)),
            Some(StartFrom::Float(float)) => Some(OrderValue::Float(float)),
            Some(StartFrom::Time(text)) => match DateTime::parse(&text) {
                Some(time) => Some(OrderValue::Integer(time.micros())),
                None => {
                    return Err(E::custom(format!("`order_by.start_from` {text:?} is neither a number nor a time")));
                }
            },
        };
        Ok(OrderBy { key: self.key, descending: self.direction == Some(Direction::Desc), from })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SampleInput {
    Random,
}

/// An example: what can also be searched for by itself.
pub(super) struct ExampleInput(pub(super) Example);

impl<'de> Deserialize<'de> for ExampleInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExampleInput, D::Error> {
        match NearestInput::deserialize(deserializer)?.0 {
            Source::Vector(vector) => Ok(ExampleInput(Example::Vector(vector))),
            Source::Point(id) => Ok(ExampleInput(Example::Point(id))),
            _ => Err(de::Error::custom("an example must be a vector or a point ID")),
        }
    }
}

/// The `query` of a query: a vector, an id, or an object that names its kind.
pub(super) struct QueryInput(pub(super) Source);

impl<'de> Deserialize<'de> for QueryInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<QueryInput, D::Error> {
        deserializer.deserialize_any(QueryVisitor { is_nested: false }).map(QueryInput)
    }
}

/// What stands inside `{"nearest": ...}`.
struct NearestInput(Source);

impl<'de> Deserialize<'de> for NearestInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NearestInput, D::Error> {
        deserializer.deserialize_any(QueryVisitor { is_nested: true }).map(NearestInput)
    }
}

struct QueryVisitor {
    is_nested: bool,
}

/// Keys that say what a query is.
const KINDS: &[&str] = &[
    "nearest",
    "recommend",
    "discover",
    "context",
    "order_by",
    "sample",
    "fusion",
    "rrf",
    "formula",
    "relevance_feedback",
];

impl<'de> Visitor<'de> for QueryVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector, a point ID, or {\"nearest\": ...}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Source, A::Error> {
        read_list(seq).map(Source::Vector)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Source, E> {
        Ok(Source::Point(PointId::Num(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Source, E> {
        PointId::deserialize(de::value::I64Deserializer::new(value)).map(Source::Point)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Source, E> {
        PointId::deserialize(de::value::StrDeserializer::new(value)).map(Source::Point)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Source, A::Error> {
        let mut source = None;
        let mut sparse = SparseParts::default();
        let mut is_sparse = false;
        let (mut defaults, mut mmr) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            if sparse.take(&key, &mut map)? {
                is_sparse = true;
                continue;
            }
            let is_kind = KINDS.contains(&key.as_str());
            if (is_kind && source.is_some()) || (self.is_nested && (is_kind || key == "mmr")) {
                return Err(de::Error::custom(format!("`query.{key}` stands beside another query or inside one")));
            }
            match key.as_str() {
                "nearest" => source = Some(map.next_value::<NearestInput>()?.0),
                "recommend" => source = Some(map.next_value::<RecommendInput>()?.into_source()?),
                "fusion" => source = Some(Source::Fusion(map.next_value::<FusionInput>()?.into())),
                "rrf" => {
                    let RrfInput { k, weights } = map.next_value()?;
                    source = Some(Source::Fusion(Fusion::Rrf { k: k.unwrap_or(RRF_K_DEFAULT), weights }));
                }
                "formula" => source = Some(map.next_value::<FormulaInput>()?.into_source()),
                "defaults" => defaults = map.next_value::<Option<DefaultsInput>>()?,
                "mmr" => mmr = map.next_value::<Option<MmrInput>>()?,
                "discover" => {
                    let DiscoverInput { target, context } = map.next_value()?;
                    source = Some(Source::Discover { target: target.0, pairs: pairs("discover", context)? });
                }
                "context" => {
                    let pairs = pairs("context", map.next_value()?)?;
                    if pairs.is_empty() {
                        return Err(de::Error::custom("`query.context` needs at least one pair"));
                    }
                    source = Some(Source::Context { pairs });
                }
                "order_by" => source = Some(Source::OrderBy(map.next_value::<OrderByInput>()?.0)),
                "sample" => {
                    let SampleInput::Random = map.next_value()?;
                    source = Some(Source::Sample { seed: Uuid::new_v4().as_u128() as u64 });
                }
                "relevance_feedback" => source = Some(map.next_value::<FeedbackInput>()?.into_source()?),
                "text" | "image" | "object" | "model" | "options" => {
                    return Err(refuse_object(Some(&key)));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(de::Error::unknown_field(&key, KINDS));
                }
            }
        }
        let source = match (source, is_sparse) {
            (Some(source), false) => source,
            (None, true) => Source::Vector(sparse.finish()?),
            (Some(_), true) => return Err(de::Error::custom("`query` is a sparse vector and something else at once")),
            (None, false) => return Err(de::Error::missing_field("nearest")),
        };
        let source = match mmr {
            Some(mmr) => MmrInput::into_source(mmr, source)?,
            None => source,
        };
        match defaults {
            Some(defaults) => defaults.join(source),
            None => Ok(source),
        }
    }
}
