//! Handlers of queries.

use std::sync::Arc;

use axum::extract::State;
use tracing::Instrument;
use vicinal_common::error::Error;
use vicinal_common::filter::TextResolver;
use vicinal_common::payload_index::FieldType;
use vicinal_common::telemetry;

use super::answer::{Answer, Failure};
use super::body::{JsonBody, off_thread};
use super::clusters;
use super::decode::{OlderBatchBody, OlderBody, QueryBatchBody, QueryBody};
use super::encode::{self, Shown};
use super::indexes::{Purpose, prepare_one_of, text_resolver};
use super::params::Params;
use super::points::check_parts;
use super::selector::WithPayload;
use super::strict;
use crate::Coordinator;
use crate::meta::Collection;
use crate::query::{self, Coverage, QueryTree, Source};

type Shared = State<Arc<Coordinator>>;

/// `POST /collections/{collection}/points/query`
pub(super) async fn query(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    coordinator.collection(params.collection())?;
    let query = body.decode(QueryBody::into_query).await?;
    let (encoded, coverage) = run(&coordinator, &params, vec![query], Form::Points).await?;
    Ok(Answer::encoded(first(encoded)).with_coverage(coverage).with_session(&params))
}

/// `POST /collections/{collection}/points/search` and `/recommend`: a query in the words of older clients.
pub(super) async fn older<B: OlderBody>(
    State(coordinator): Shared,
    params: Params,
    body: JsonBody,
) -> Result<Answer, Failure> {
    coordinator.collection(params.collection())?;
    let query = body.decode(B::into_query).await?;
    let (encoded, coverage) = run(&coordinator, &params, vec![query], Form::List).await?;
    Ok(Answer::encoded(first(encoded)).with_coverage(coverage).with_session(&params))
}

/// The same for several of them.
pub(super) async fn older_batch<B: OlderBody>(
    State(coordinator): Shared,
    params: Params,
    body: JsonBody,
) -> Result<Answer, Failure> {
    coordinator.collection(params.collection())?;
    let queries = body.decode(OlderBatchBody::<B>::into_queries).await?;
    let (encoded, coverage) = run(&coordinator, &params, queries, Form::List).await?;
    Ok(Answer::encoded(list(&encoded)).with_coverage(coverage).with_session(&params))
}

/// `POST /collections/{collection}/points/query/batch`: all queries in one scatter.
pub(super) async fn query_batch(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    coordinator.collection(params.collection())?;
    let queries = body.decode(QueryBatchBody::into_queries).await?;
    let (encoded, coverage) = run(&coordinator, &params, queries, Form::Points).await?;
    Ok(Answer::encoded(list(&encoded)).with_coverage(coverage).with_session(&params))
}

/// How the hits of a query are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `{"points": [hit, ...]}`
    Points,
    /// `[hit, ...]`
    List,
}

fn first(encoded: Vec<Vec<u8>>) -> Vec<u8> {
    encoded.into_iter().next().unwrap_or_default()
}

fn list(encoded: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.iter().map(|one| one.len() + 1).sum::<usize>() + 2);
    out.push(b'[');
    out.extend_from_slice(&encoded.join(&b','));
    out.push(b']');
    out
}

/// Runs queries and encodes the answer to each. The coverage is that of all of them together.
async fn run(
    coordinator: &Coordinator,
    params: &Params,
    queries: Vec<(QueryTree, WithPayload)>,
    form: Form,
) -> Result<(Vec<Vec<u8>>, Coverage), Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (mut trees, with_payload): (Vec<QueryTree>, Vec<WithPayload>) = queries.into_iter().unzip();
    strict::check_queries(&collection, &trees)?;
    trees.iter().try_for_each(|tree| check_parts(&collection, &tree.query.parts))?;
    prepare_filters(&collection, &mut trees)?;
    strict::count_batch(coordinator, &collection, strict::Kind::Read, trees.len())?;
    clusters::fix_trees(coordinator, params, &mut trees).await?;
    resolve(coordinator, params, &collection, &mut trees).await?;
    let lookup = params.lookup(coordinator);
    let span = telemetry::query_span(&collection.name, trees.len());
    let running = query::run_trees(&coordinator.shards, &lookup, params.read_spec(), &trees);
    let answers = running.instrument(span).await?;
    let mut coverage = answers.first().map(|answer| answer.coverage.clone()).unwrap_or_default();
    for answer in &answers {
        coverage.add(&answer.coverage);
    }
    let size = answers.iter().flat_map(|answer| &answer.hits).filter_map(|hit| hit.point.as_ref());
    let size = encode::size_of_points(size);
    let encoded = off_thread(size, move || {
        let shown = trees.into_iter().zip(with_payload);
        let shown = shown.map(|(tree, payload)| Shown { payload, vectors: tree.query.parts.vectors });
        let one = |(answer, shown): (query::Answer, Shown)| {
            let mut out = Vec::new();
            if form == Form::Points {
                out.extend_from_slice(b"{\"points\":");
            }
            encode::hits(&mut out, &answer.hits, &shown)?;
            if form == Form::Points {
                out.push(b'}');
            }
            Ok(out)
        };
        answers.into_iter().zip(shown).map(one).collect::<Result<Vec<_>, Failure>>()
    });
    Ok((encoded.await?, coverage))
}

/// Looks up the points of other collections that queries are made of.
pub(super) async fn resolve(
    coordinator: &Coordinator,
    params: &Params,
    collection: &Collection,
    trees: &mut [QueryTree],
) -> Result<(), Failure> {
    let find = |name: &str| coordinator.collection(name);
    Ok(query::resolve_lookups(&coordinator.shards, &find, params.read_spec(), collection.id, trees).await?)
}

/// Types of indexes of keys that points are ordered by.
pub(super) const ORDERED: [FieldType; 3] = [FieldType::Integer, FieldType::Float, FieldType::Datetime];

/// Prepares the filters of all queries of a request and of their prefetches, and the conditions of formulas. Refuses what
/// strict mode does not allow: keys and conditions of formulas must have a payload index where filters must.
pub(super) fn prepare_filters(collection: &Collection, trees: &mut [QueryTree]) -> Result<(), Failure> {
    let mut texts = text_resolver(collection);
    trees.iter_mut().try_for_each(|tree| prepare_tree(&mut texts, collection, tree))
}

fn prepare_tree(texts: &mut TextResolver<'_>, collection: &Collection, tree: &mut QueryTree) -> Result<(), Failure> {
    prepare_one_of(texts, collection, tree.query.filter.as_mut().map(Arc::make_mut), Purpose::Read)?;
    prepare_one_of(texts, collection, tree.query.idf_corpus.as_mut().map(Arc::make_mut), Purpose::Read)?;
    if let Source::Formula(formula) = &mut tree.query.source {
        strict::check_formula(collection, &formula.formula)?;
        let mut conditions = Arc::make_mut(formula).conditions_mut().into_iter();
        conditions.try_for_each(|filter| match filter.names_clusters() {
            true => Err(Error::BadInput("query.formula: a condition of a formula cannot ask for clusters".into())),
            false => texts.resolve(filter),
        })?;
    }
    if let Source::OrderBy(order) = &tree.query.source {
        strict::check_read_key(collection, &order.key, &ORDERED)?;
    }
    tree.prefetch.iter_mut().try_for_each(|prefetch| prepare_tree(texts, collection, prefetch))
}
