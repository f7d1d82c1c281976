//! Bodies that read: query, query batch, scroll, count, points by id.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vicinal_common::api::PointParts;
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::limits::{BATCH_POINTS_MAX, BATCH_QUERIES_MAX, RESULTS_MAX};
use vicinal_common::point::{PointId, UNNAMED};

use super::super::answer::Failure;
use super::super::selector::{WithPayload, WithVector};
use super::vector::{Dense, refuse_object};
use super::{Unsupported, refuse_all};
use crate::query::{PageRequest, Query, Source};

/// Hits, points or pages when no `limit` is given.
const LIMIT_DEFAULT: usize = 10;

/// Body of a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct QueryBody {
    query: Option<QueryInput>,
    using: Option<String>,
    filter: Option<Filter>,
    params: Option<SearchParams>,
    score_threshold: Option<f32>,
    limit: Option<usize>,
    offset: Option<usize>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    with_payload: Option<WithPayload>,
    allow_partial: Option<bool>,
    #[serde(default)]
    prefetch: Unsupported,
    #[serde(default)]
    lookup_from: Unsupported,
    #[serde(default)]
    shard_key: Unsupported,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchParams {
    hnsw_ef: Option<usize>,
    exact: Option<bool>,
    indexed_only: Option<bool>,
    #[serde(default)]
    quantization: Unsupported,
    #[serde(default)]
    acorn: Unsupported,
    #[serde(default)]
    idf: Unsupported,
}

impl QueryBody {
    /// The query, and how the payload of its hits is shown.
    pub(in super::super) fn into_query(self) -> Result<(Query, WithPayload), Failure> {
        refuse_all(&[("prefetch", self.prefetch), ("lookup_from", self.lookup_from), ("shard_key", self.shard_key)])?;
        let params = self.params.unwrap_or_default();
        refuse_all(&[
            ("params.quantization", params.quantization),
            ("params.acorn", params.acorn),
            ("params.idf", params.idf),
        ])?;
        if params.indexed_only == Some(true) {
            return Err(Error::BadInput("`params.indexed_only` is not supported yet".into()).into());
        }
        let with_payload = self.with_payload.unwrap_or(WithPayload::None);
        let query = Query {
            source: self.query.map_or(Source::All, |input| input.0),
            using: self.using.unwrap_or_else(|| UNNAMED.to_owned()),
            filter: self.filter.map(Arc::new),
            score_threshold: self.score_threshold,
            limit: self.limit.unwrap_or(LIMIT_DEFAULT),
            offset: self.offset.unwrap_or(0),
            ef: params.hnsw_ef,
            exact: params.exact.unwrap_or(false),
            parts: parts(&with_payload, self.with_vector),
            allow_partial: self.allow_partial.unwrap_or(true),
        };
        query.check()?;
        Ok((query, with_payload))
    }
}

fn parts(with_payload: &WithPayload, with_vector: Option<WithVector>) -> PointParts {
    let payload = *with_payload != WithPayload::None;
    PointParts { payload, vectors: with_vector.map(|with| with.0).unwrap_or_default() }
}

/// Body of several queries.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct QueryBatchBody {
    searches: Vec<QueryBody>,
}

impl QueryBatchBody {
    /// The queries, in the order sent.
    pub(in super::super) fn into_queries(self) -> Result<Vec<(Query, WithPayload)>, Failure> {
        if self.searches.len() > BATCH_QUERIES_MAX {
            let (field, count) = ("searches".into(), self.searches.len());
            let message = format!("{count} queries, allowed are {BATCH_QUERIES_MAX} or fewer");
            return Err(Error::Validation { field, message }.into());
        }
        self.searches.into_iter().map(QueryBody::into_query).collect()
    }
}

/// The `query` of a query: a vector, an id, or an object that names its kind.
struct QueryInput(Source);

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
        let mut source = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "nearest" if self.is_nested || source.is_some() => return Err(de::Error::duplicate_field("nearest")),
                "nearest" => source = Some(map.next_value::<NearestInput>()?.0),
                "mmr" => {
                    if map.next_value::<Unsupported>()?.is_set {
                        return Err(de::Error::custom("`query.mmr` is not supported yet"));
                    }
                }
                "recommend" | "discover" | "context" | "order_by" | "fusion" | "rrf" | "formula" | "defaults"
                | "sample" | "relevance_feedback" | "feedback" | "strategy" => {
                    return Err(de::Error::custom(format!("`query.{key}` is not supported yet")));
                }
                "indices" | "values" | "text" | "image" | "object" | "model" | "options" => {
                    return Err(refuse_object(Some(&key)));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(de::Error::unknown_field(&key, &["nearest"]));
                }
            }
        }
        source.ok_or_else(|| de::Error::missing_field("nearest"))
    }
}

/// Body of a scroll.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ScrollBody {
    offset: Option<PointId>,
    limit: Option<usize>,
    filter: Option<Filter>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    allow_partial: Option<bool>,
    #[serde(default)]
    order_by: Unsupported,
    #[serde(default)]
    shard_key: Unsupported,
}

/// A read of points, as the handlers need it.
pub(in super::super) struct Wanted<T> {
    /// What to read.
    pub(in super::super) request: T,
    /// How payloads are shown.
    pub(in super::super) with_payload: WithPayload,
    /// Whether an answer that misses shards is wanted.
    pub(in super::super) allow_partial: bool,
}

impl ScrollBody {
    /// The page that is wanted.
    pub(in super::super) fn into_page(self) -> Result<Wanted<PageRequest>, Failure> {
        refuse_all(&[("order_by", self.order_by), ("shard_key", self.shard_key)])?;
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if limit == 0 || limit > RESULTS_MAX {
            let bound = if limit == 0 { "1 or larger".to_owned() } else { format!("{RESULTS_MAX} or smaller") };
            let message = format!("value {limit} invalid, must be {bound}");
            return Err(Error::Validation { field: "limit".into(), message }.into());
        }
        let with_payload = self.with_payload.unwrap_or(WithPayload::All);
        let parts = parts(&with_payload, self.with_vector);
        let request = PageRequest { from: self.offset, limit, filter: self.filter.map(Arc::new), parts };
        Ok(Wanted { request, with_payload, allow_partial: self.allow_partial.unwrap_or(true) })
    }
}

/// Body of a count.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct CountBody {
    filter: Option<Filter>,
    /// Every count of ours is exact, which is fine for those who ask for less.
    #[serde(rename = "exact")]
    _exact: Option<bool>,
    allow_partial: Option<bool>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl CountBody {
    /// Which points to count, and whether an answer that misses shards is wanted.
    pub(in super::super) fn into_filter(self) -> Result<(Option<Arc<Filter>>, bool), Failure> {
        self.shard_key.refuse("shard_key")?;
        Ok((self.filter.map(Arc::new), self.allow_partial.unwrap_or(true)))
    }
}

/// Body of a read by ids.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RetrieveBody {
    ids: Vec<PointId>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    allow_partial: Option<bool>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl RetrieveBody {
    /// The ids and the parts of them that are wanted.
    pub(in super::super) fn into_ids(self) -> Result<Wanted<(Vec<PointId>, PointParts)>, Failure> {
        self.shard_key.refuse("shard_key")?;
        if self.ids.len() > BATCH_POINTS_MAX {
            let message = format!("{} ids, allowed are {BATCH_POINTS_MAX} or fewer", self.ids.len());
            return Err(Error::Validation { field: "ids".into(), message }.into());
        }
        let with_payload = self.with_payload.unwrap_or(WithPayload::All);
        let parts = parts(&with_payload, self.with_vector);
        let allow_partial = self.allow_partial.unwrap_or(true);
        Ok(Wanted { request: (self.ids, parts), with_payload, allow_partial })
    }
}
