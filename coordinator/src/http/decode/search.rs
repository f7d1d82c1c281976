//! Bodies that read: query, query batch, scroll, count, facet, points by id.

use std::sync::Arc;

use serde::Deserialize;
use vicinal_common::api::{PointParts, ScrollOrder};
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::limits::{BATCH_POINTS_MAX, RESULTS_MAX};
use vicinal_common::point::{PointId, UNNAMED};

use super::super::answer::Failure;
use super::super::selector::{WithPayload, WithVector};
use super::Unsupported;
use super::older::check_batch;
use super::query::{OneOrMany, OrderByInput, QueryInput};
use super::search_params::{SearchParams, Understood};
use super::update::check_key;
use crate::query::{FacetQuery, LookupFrom, PageRequest, Query, QueryTree, Source};

/// Hits, points or pages when no `limit` is given.
const LIMIT_DEFAULT: usize = 10;

/// Body of a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct QueryBody {
    pub(super) query: Option<QueryInput>,
    pub(super) using: Option<String>,
    pub(super) filter: Option<Filter>,
    pub(super) params: Option<SearchParams>,
    pub(super) score_threshold: Option<f32>,
    pub(super) limit: Option<usize>,
    pub(super) offset: Option<usize>,
    #[serde(alias = "with_vectors")]
    pub(super) with_vector: Option<WithVector>,
    pub(super) with_payload: Option<WithPayload>,
    pub(super) allow_partial: Option<bool>,
    pub(super) prefetch: Option<OneOrMany<PrefetchBody>>,
    pub(super) lookup_from: Option<LookupBody>,
    #[serde(default)]
    pub(super) shard_key: Unsupported,
}

/// Where the points are that a query is made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookupBody {
    collection: String,
    vector: Option<String>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl LookupBody {
    fn into_lookup(self) -> Result<LookupFrom, Failure> {
        self.shard_key.refuse("lookup_from.shard_key")?;
        Ok(LookupFrom { collection: self.collection, vector: self.vector })
    }
}

/// A query whose results another one chooses from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrefetchBody {
    query: Option<QueryInput>,
    using: Option<String>,
    filter: Option<Filter>,
    params: Option<SearchParams>,
    score_threshold: Option<f32>,
    limit: Option<usize>,
    prefetch: Option<OneOrMany<PrefetchBody>>,
    lookup_from: Option<LookupBody>,
}

impl QueryBody {
    /// The query, and how the payload of its hits is shown.
    pub(in super::super) fn into_query(self) -> Result<(QueryTree, WithPayload), Failure> {
        self.shard_key.refuse("shard_key")?;
        let allow_partial = self.allow_partial.unwrap_or(true);
        let with_payload = self.with_payload.unwrap_or(WithPayload::None);
        let parts = parts(&with_payload, self.with_vector);
        let body = PrefetchBody {
            query: self.query,
            using: self.using,
            filter: self.filter,
            params: self.params,
            score_threshold: self.score_threshold,
            limit: self.limit,
            prefetch: self.prefetch,
            lookup_from: self.lookup_from,
        };
        let mut tree = body.into_tree(allow_partial)?;
        tree.query.offset = self.offset.unwrap_or(0);
        tree.query.parts = parts;
        tree.query.check()?;
        Ok((tree, with_payload))
    }
}

impl PrefetchBody {
    fn into_tree(self, allow_partial: bool) -> Result<QueryTree, Failure> {
        let lookup_from = self.lookup_from.map(LookupBody::into_lookup).transpose()?;
        let Understood { ef, exact, oversampling, idf_corpus, width } = self.params.unwrap_or_default().understood()?;
        let query = Query {
            source: self.query.map_or(Source::All, |input| input.0),
            using: self.using.unwrap_or_else(|| UNNAMED.to_owned()),
            filter: self.filter.map(Arc::new),
            score_threshold: self.score_threshold,
            limit: self.limit.unwrap_or(LIMIT_DEFAULT),
            offset: 0,
            ef,
            exact,
            oversampling,
            idf_corpus,
            parts: PointParts::default(),
            width,
            allow_partial,
        };
        query.check()?;
        let prefetch = self.prefetch.map_or_else(Vec::new, |prefetch| prefetch.0).into_iter();
        let prefetch = prefetch.map(|body| body.into_tree(allow_partial)).collect::<Result<_, _>>()?;
        Ok(QueryTree { query, prefetch, lookup_from })
    }
}

pub(super) fn parts(with_payload: &WithPayload, with_vector: Option<WithVector>) -> PointParts {
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
    pub(in super::super) fn into_queries(self) -> Result<Vec<(QueryTree, WithPayload)>, Failure> {
        check_batch(self.searches.len())?;
        self.searches.into_iter().map(QueryBody::into_query).collect()
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
    order_by: Option<OrderByInput>,
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
        self.shard_key.refuse("shard_key")?;
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        check_limit(limit)?;
        let with_payload = self.with_payload.unwrap_or(WithPayload::All);
        let parts = parts(&with_payload, self.with_vector);
        let order = match (self.order_by, self.offset) {
            (Some(_), Some(_)) => {
                let message = "cannot be used with `order_by`: go on with `order_by.start_from`".into();
                return Err(Error::Validation { field: "offset".into(), message }.into());
            }
            (Some(OrderByInput(order)), None) => ScrollOrder::Key(order),
            (None, from) => ScrollOrder::Id { from },
        };
        let request = PageRequest { order, limit, filter: self.filter.map(Arc::new), parts };
        Ok(Wanted { request, with_payload, allow_partial: self.allow_partial.unwrap_or(true) })
    }
}

/// Body of a count.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct CountBody {
    filter: Option<Filter>,
    /// Every count of ours is exact, which is fine for those who ask for less.
    exact: Option<bool>,
    allow_partial: Option<bool>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl CountBody {
    /// Which points to count, whether an exact number is asked for, and whether an answer that misses shards is wanted.
    pub(in super::super) fn into_filter(self) -> Result<(Option<Arc<Filter>>, bool, bool), Failure> {
        self.shard_key.refuse("shard_key")?;
        Ok((self.filter.map(Arc::new), self.exact.unwrap_or(true), self.allow_partial.unwrap_or(true)))
    }
}

/// Body of a facet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct FacetBody {
    key: String,
    limit: Option<usize>,
    filter: Option<Filter>,
    /// Every count of ours is exact.
    #[serde(rename = "exact")]
    _exact: Option<bool>,
    allow_partial: Option<bool>,
    #[serde(default)]
    shard_key: Unsupported,
}

impl FacetBody {
    /// What to count, and whether an answer that misses shards is wanted.
    pub(in super::super) fn into_facet(self) -> Result<(FacetQuery, bool), Failure> {
        self.shard_key.refuse("shard_key")?;
        check_key("key", &self.key)?;
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        check_limit(limit)?;
        let facet = FacetQuery { key: self.key, limit, filter: self.filter.map(Arc::new) };
        Ok((facet, self.allow_partial.unwrap_or(true)))
    }
}

fn check_limit(limit: usize) -> Result<(), Failure> {
    let bound = match limit {
        0 => "1 or larger".to_owned(),
        1..=RESULTS_MAX => return Ok(()),
        _ => format!("{RESULTS_MAX} or smaller"),
    };
    let message = format!("value {limit} invalid, must be {bound}");
    Err(Error::Validation { field: "limit".into(), message }.into())
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
