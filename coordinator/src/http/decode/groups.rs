//! Bodies of queries by groups, in today's words and in those of older clients.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use vicinal_common::error::Error;
use vicinal_common::filter::{Filter, KeyPath};
use vicinal_common::limits::KEY_PATH_BYTES_MAX;

use super::super::answer::Failure;
use super::super::encode::Shown;
use super::super::selector::{WithPayload, WithVector};
use super::Unsupported;
use super::older::{OlderBody, RecommendBody, SearchBody, VectorToSearch};
use super::query::{ExampleInput, OneOrMany, QueryInput, Strategy};
use super::search::{LookupBody, PrefetchBody, QueryBody};
use super::search_params::SearchParams;
use crate::query::{GroupSpec, QueryTree};

/// Groups when no `limit` is given.
const GROUPS_DEFAULT: usize = 10;
/// Hits in a group when no `group_size` is given.
const GROUP_SIZE_DEFAULT: usize = 3;

/// A query by groups, as the handler needs it.
pub(in super::super) struct GroupsWanted {
    /// The query; how many hits it finds is up to the groups.
    pub(in super::super) tree: QueryTree,
    /// How the payload of its hits is shown.
    pub(in super::super) with_payload: WithPayload,
    /// How hits are put in groups.
    pub(in super::super) groups: GroupSpec,
    /// Where the records that groups stand for are.
    pub(in super::super) lookup: Option<RecordsOf>,
}

/// Records of another collection, and what is shown of them.
pub(in super::super) struct RecordsOf {
    /// Name of the collection, or an alias.
    pub(in super::super) collection: String,
    /// What to show.
    pub(in super::super) shown: Shown,
}

/// A body that asks for groups.
pub(in super::super) trait GroupsBody: DeserializeOwned + 'static {
    /// What is asked for.
    fn into_groups(self) -> Result<GroupsWanted, Failure>;
}

/// How a body says which groups it wants.
struct GroupsInput {
    by: String,
    size: usize,
    limit: usize,
    lookup: Option<WithLookup>,
}

impl GroupsInput {
    /// Joins it with the query, which is for one hit so far.
    fn with(self, query: (QueryTree, WithPayload)) -> Result<GroupsWanted, Failure> {
        let refuse = |message: String| Error::Validation { field: "group_by".into(), message };
        if self.by.len() > KEY_PATH_BYTES_MAX {
            let bytes = self.by.len();
            return Err(refuse(format!("{bytes} bytes, allowed are {KEY_PATH_BYTES_MAX} or fewer")).into());
        }
        let by = KeyPath::parse(&self.by).map_err(refuse)?;
        let groups = GroupSpec { by, size: self.size, limit: self.limit };
        groups.check()?;
        let (tree, with_payload) = query;
        Ok(GroupsWanted { tree, with_payload, groups, lookup: self.lookup.map(WithLookup::into_records) })
    }
}

/// Body of `points/query/groups`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct QueryGroupsBody {
    query: Option<QueryInput>,
    using: Option<String>,
    filter: Option<Filter>,
    params: Option<SearchParams>,
    score_threshold: Option<f32>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    with_payload: Option<WithPayload>,
    allow_partial: Option<bool>,
    prefetch: Option<OneOrMany<PrefetchBody>>,
    lookup_from: Option<LookupBody>,
    #[serde(default)]
    shard_key: Unsupported,
    group_by: String,
    group_size: Option<usize>,
    limit: Option<usize>,
    with_lookup: Option<WithLookup>,
}

impl GroupsBody for QueryGroupsBody {
    fn into_groups(self) -> Result<GroupsWanted, Failure> {
        let groups = GroupsInput {
            by: self.group_by,
            size: self.group_size.unwrap_or(GROUP_SIZE_DEFAULT),
            limit: self.limit.unwrap_or(GROUPS_DEFAULT),
            lookup: self.with_lookup,
        };
        let query = QueryBody {
            query: self.query,
            using: self.using,
            filter: self.filter,
            params: self.params,
            score_threshold: self.score_threshold,
            limit: Some(1),
            offset: None,
            with_vector: self.with_vector,
            with_payload: self.with_payload,
            allow_partial: self.allow_partial,
            prefetch: self.prefetch,
            lookup_from: self.lookup_from,
            shard_key: self.shard_key,
        };
        groups.with(query.into_query()?)
    }
}

/// Body of `points/search/groups`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SearchGroupsBody {
    vector: VectorToSearch,
    filter: Option<Filter>,
    params: Option<SearchParams>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    score_threshold: Option<f32>,
    allow_partial: Option<bool>,
    #[serde(default)]
    shard_key: Unsupported,
    group_by: String,
    group_size: usize,
    limit: usize,
    with_lookup: Option<WithLookup>,
}

impl GroupsBody for SearchGroupsBody {
    fn into_groups(self) -> Result<GroupsWanted, Failure> {
        let groups =
            GroupsInput { by: self.group_by, size: self.group_size, limit: self.limit, lookup: self.with_lookup };
        let query = SearchBody {
            vector: self.vector,
            filter: self.filter,
            params: self.params,
            limit: 1,
            offset: None,
            with_payload: self.with_payload,
            with_vector: self.with_vector,
            score_threshold: self.score_threshold,
            allow_partial: self.allow_partial,
            shard_key: self.shard_key,
        };
        groups.with(query.into_query()?)
    }
}

/// Body of `points/recommend/groups`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RecommendGroupsBody {
    positive: Option<Vec<ExampleInput>>,
    negative: Option<Vec<ExampleInput>>,
    strategy: Option<Strategy>,
    using: Option<String>,
    filter: Option<Filter>,
    params: Option<SearchParams>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    score_threshold: Option<f32>,
    allow_partial: Option<bool>,
    lookup_from: Option<LookupBody>,
    #[serde(default)]
    shard_key: Unsupported,
    group_by: String,
    group_size: usize,
    limit: usize,
    with_lookup: Option<WithLookup>,
}

impl GroupsBody for RecommendGroupsBody {
    fn into_groups(self) -> Result<GroupsWanted, Failure> {
        let groups =
            GroupsInput { by: self.group_by, size: self.group_size, limit: self.limit, lookup: self.with_lookup };
        let query = RecommendBody {
            positive: self.positive,
            negative: self.negative,
            strategy: self.strategy,
            using: self.using,
            filter: self.filter,
            params: self.params,
            limit: 1,
            offset: None,
            with_payload: self.with_payload,
            with_vector: self.with_vector,
            score_threshold: self.score_threshold,
            allow_partial: self.allow_partial,
            lookup_from: self.lookup_from,
            shard_key: self.shard_key,
        };
        groups.with(query.into_query()?)
    }
}

/// The collection whose records groups stand for: its name, or an object that also says what to show.
struct WithLookup {
    collection: String,
    with_payload: Option<WithPayload>,
    with_vectors: Option<WithVector>,
}

impl WithLookup {
    fn into_records(self) -> RecordsOf {
        let payload = self.with_payload.unwrap_or(WithPayload::All);
        let vectors = self.with_vectors.map(|with| with.0).unwrap_or_default();
        RecordsOf { collection: self.collection, shown: Shown { payload, vectors } }
    }
}

impl<'de> Deserialize<'de> for WithLookup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WithLookup, D::Error> {
        deserializer.deserialize_any(WithLookupVisitor)
    }
}

struct WithLookupVisitor;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithLookupBody {
    collection: String,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vector")]
    with_vectors: Option<WithVector>,
}

impl<'de> Visitor<'de> for WithLookupVisitor {
    type Value = WithLookup;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a collection, or {\"collection\": name, \"with_payload\": ..., \"with_vectors\": ...}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<WithLookup, E> {
        Ok(WithLookup { collection: name.to_owned(), with_payload: None, with_vectors: None })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<WithLookup, A::Error> {
        let body = WithLookupBody::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let WithLookupBody { collection, with_payload, with_vectors } = body;
        Ok(WithLookup { collection, with_payload, with_vectors })
    }
}
