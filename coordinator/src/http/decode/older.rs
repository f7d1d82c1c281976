//! Bodies of the query operations that came before `points/query` and that older clients still send: each is one of its
//! queries in other words.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::limits::BATCH_QUERIES_MAX;
use vicinal_common::vector::Vector;

use super::super::answer::Failure;
use super::super::selector::{WithPayload, WithVector};
use super::Unsupported;
use super::query::{ExampleInput, OneOrMany, PairInput, QueryInput, RecommendInput, Strategy, pairs};
use super::search::{LookupBody, QueryBody};
use super::search_params::SearchParams;
use super::vector::{AnyVector, read_list};
use crate::query::{QueryTree, Source};

/// A body that is one query in other words.
pub(in super::super) trait OlderBody: DeserializeOwned + 'static {
    /// The query, and how the payload of its hits is shown.
    fn into_query(self) -> Result<(QueryTree, WithPayload), Failure>;
}

/// Body of `points/search`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SearchBody {
    pub(super) vector: VectorToSearch,
    pub(super) filter: Option<Filter>,
    pub(super) params: Option<SearchParams>,
    pub(super) limit: usize,
    pub(super) offset: Option<usize>,
    pub(super) with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    pub(super) with_vector: Option<WithVector>,
    pub(super) score_threshold: Option<f32>,
    pub(super) allow_partial: Option<bool>,
    #[serde(default)]
    pub(super) shard_key: Unsupported,
}

impl OlderBody for SearchBody {
    fn into_query(self) -> Result<(QueryTree, WithPayload), Failure> {
        let VectorToSearch { name, vector } = self.vector;
        let query = QueryBody {
            query: Some(QueryInput(Source::Vector(vector))),
            using: name,
            filter: self.filter,
            params: self.params,
            score_threshold: self.score_threshold,
            limit: Some(self.limit),
            offset: self.offset,
            with_vector: self.with_vector,
            with_payload: self.with_payload,
            allow_partial: self.allow_partial,
            prefetch: None,
            lookup_from: None,
            shard_key: self.shard_key,
        };
        query.into_query()
    }
}

/// Body of `points/recommend`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RecommendBody {
    pub(super) positive: Option<Vec<ExampleInput>>,
    pub(super) negative: Option<Vec<ExampleInput>>,
    pub(super) strategy: Option<Strategy>,
    pub(super) using: Option<String>,
    pub(super) filter: Option<Filter>,
    pub(super) params: Option<SearchParams>,
    pub(super) limit: usize,
    pub(super) offset: Option<usize>,
    pub(super) with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    pub(super) with_vector: Option<WithVector>,
    pub(super) score_threshold: Option<f32>,
    pub(super) allow_partial: Option<bool>,
    pub(super) lookup_from: Option<LookupBody>,
    #[serde(default)]
    pub(super) shard_key: Unsupported,
}

impl OlderBody for RecommendBody {
    fn into_query(self) -> Result<(QueryTree, WithPayload), Failure> {
        let input = RecommendInput {
            positive: self.positive,
            negative: self.negative,
            strategy: self.strategy,
            positive_weights: None,
            negative_weights: None,
        };
        let source = input.into_source().map_err(|error: de::value::Error| Error::BadInput(error.to_string()))?;
        let query = QueryBody {
            query: Some(QueryInput(source)),
            using: self.using,
            filter: self.filter,
            params: self.params,
            score_threshold: self.score_threshold,
            limit: Some(self.limit),
            offset: self.offset,
            with_vector: self.with_vector,
            with_payload: self.with_payload,
            allow_partial: self.allow_partial,
            prefetch: None,
            lookup_from: self.lookup_from,
            shard_key: self.shard_key,
        };
        query.into_query()
    }
}

/// Body of `points/discover`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DiscoverBody {
    target: Option<ExampleInput>,
    context: Option<OneOrMany<PairInput>>,
    using: Option<String>,
    filter: Option<Filter>,
    params: Option<SearchParams>,
    limit: usize,
    offset: Option<usize>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    allow_partial: Option<bool>,
    lookup_from: Option<LookupBody>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl OlderBody for DiscoverBody {
    fn into_query(self) -> Result<(QueryTree, WithPayload), Failure> {
        let pairs = pairs("context", self.context).map_err(|e: de::value::Error| Error::BadInput(e.to_string()))?;
        let source = match self.target {
            Some(ExampleInput(target)) => Source::Discover { target, pairs },
            None if pairs.is_empty() => {
                return Err(Error::BadInput("`target` or `context` must be given".into()).into());
            }
            None => Source::Context { pairs },
        };
        let query = QueryBody {
            query: Some(QueryInput(source)),
            using: self.using,
            filter: self.filter,
            params: self.params,
            score_threshold: None,
            limit: Some(self.limit),
            offset: self.offset,
            with_vector: self.with_vector,
            with_payload: self.with_payload,
            allow_partial: self.allow_partial,
            prefetch: None,
            lookup_from: self.lookup_from,
            shard_key: self.shard_key,
        };
        query.into_query()
    }
}

/// Several bodies of one kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct OlderBatchBody<B> {
    searches: Vec<B>,
}

impl<B: OlderBody> OlderBatchBody<B> {
    /// The queries, in the order sent.
    pub(in super::super) fn into_queries(self) -> Result<Vec<(QueryTree, WithPayload)>, Failure> {
        check_batch(self.searches.len())?;
        self.searches.into_iter().map(B::into_query).collect()
    }
}

/// Refuses a batch of too many queries.
pub(super) fn check_batch(count: usize) -> Result<(), Failure> {
    if count > BATCH_QUERIES_MAX {
        let message = format!("{count} queries, allowed are {BATCH_QUERIES_MAX} or fewer");
        return Err(Error::Validation { field: "searches".into(), message }.into());
    }
    Ok(())
}

/// A vector, by itself or with the name of the vector that is searched.
pub(super) struct VectorToSearch {
    name: Option<String>,
    vector: Vector,
}

impl<'de> Deserialize<'de> for VectorToSearch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VectorToSearch, D::Error> {
        deserializer.deserialize_any(VectorVisitor)
    }
}

struct VectorVisitor;

impl<'de> Visitor<'de> for VectorVisitor {
    type Value = VectorToSearch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector, or {\"name\": ..., \"vector\": [...]}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<VectorToSearch, A::Error> {
        Ok(VectorToSearch { name: None, vector: read_list(seq)? })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VectorToSearch, A::Error> {
        let (mut name, mut vector) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" if name.is_none() => name = Some(map.next_value::<String>()?),
                "vector" if vector.is_none() => vector = Some(map.next_value::<AnyVector>()?.0),
                "name" | "vector" => return Err(de::Error::custom(format!("`vector.{key}` is given twice"))),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(de::Error::unknown_field(&key, &["name", "vector"]));
                }
            }
        }
        match (name, vector) {
            (Some(name), Some(vector)) => Ok(VectorToSearch { name: Some(name), vector }),
            (None, _) => Err(de::Error::missing_field("name")),
            (_, None) => Err(de::Error::missing_field("vector")),
        }
    }
}
