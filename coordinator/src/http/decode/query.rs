//! The `query` of a query: a vector, an id, or an object that says which kind of query it is.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vicinal_common::limits::{EXAMPLES_MAX, PREFETCHES_MAX};
use vicinal_common::point::PointId;

use super::vector::{Dense, refuse_object};
use crate::query::{DIVERSITY_DEFAULT, Example, Fusion, Mmr, RRF_K_DEFAULT, Source};

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
            if many.len() == PREFETCHES_MAX {
                return Err(de::Error::custom(format!("more than {PREFETCHES_MAX} items in a list")));
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
    fn into_source<E: de::Error>(self, nearest: Option<Source>) -> Result<Source, E> {
        let target = match nearest {
            Some(Source::Vector(vector)) => Example::Vector(vector),
            Some(Source::Point(id)) => Example::Point(id),
            Some(_) => return Err(E::custom("`query.mmr` goes with `nearest`, not with another query")),
            None => return Err(E::missing_field("nearest")),
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
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strategy {
    AverageVector,
    BestScore,
    SumScores,
}

impl RecommendInput {
    pub(super) fn into_source<E: de::Error>(self) -> Result<Source, E> {
        let name = match self.strategy {
            None | Some(Strategy::AverageVector) => None,
            Some(Strategy::BestScore) => Some("best_score"),
            Some(Strategy::SumScores) => Some("sum_scores"),
        };
        if let Some(name) = name {
            return Err(E::custom(format!("`query.recommend.strategy` {name} is not supported yet")));
        }
        let examples = |given: Option<Vec<ExampleInput>>| -> Vec<Example> {
            given.unwrap_or_default().into_iter().map(|input| input.0).collect()
        };
        let (positive, negative) = (examples(self.positive), examples(self.negative));
        if positive.is_empty() {
            return Err(E::custom("`query.recommend` needs at least one positive example"));
        }
        let count = positive.len() + negative.len();
        if count > EXAMPLES_MAX {
            return Err(E::custom(format!("`query.recommend` has {count} examples, the limit is {EXAMPLES_MAX}")));
        }
        Ok(Source::Average { positive, negative })
    }
}

/// An example: what can also be searched for by itself.
pub(super) struct ExampleInput(Example);

impl<'de> Deserialize<'de> for ExampleInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExampleInput, D::Error> {
        match NearestInput::deserialize(deserializer)?.0 {
            Source::Vector(vector) => Ok(ExampleInput(Example::Vector(vector))),
            Source::Point(id) => Ok(ExampleInput(Example::Point(id))),
            Source::Average { .. } | Source::Mmr { .. } | Source::Fusion(_) | Source::All => {
                Err(de::Error::custom("an example must be a vector or a point ID"))
            }
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

impl<'de> Visitor<'de> for QueryVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector, a point ID, or {\"nearest\": ...}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Source, A::Error> {
        let Dense(vector) = Dense::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
        Ok(Source::Vector(vector))
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
        let (mut source, mut mmr) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            let is_kind = matches!(key.as_str(), "nearest" | "recommend" | "fusion" | "rrf");
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
                "mmr" => mmr = map.next_value::<Option<MmrInput>>()?,
                "discover" | "context" | "order_by" | "formula" | "defaults" | "sample" | "relevance_feedback"
                | "feedback" | "strategy" => {
                    return Err(de::Error::custom(format!("`query.{key}` is not supported yet")));
                }
                "indices" | "values" | "text" | "image" | "object" | "model" | "options" => {
                    return Err(refuse_object(Some(&key)));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(de::Error::unknown_field(&key, &["nearest", "mmr", "recommend", "fusion", "rrf"]));
                }
            }
        }
        match mmr {
            Some(mmr) => mmr.into_source(source),
            None => source.ok_or_else(|| de::Error::missing_field("nearest")),
        }
    }
}
