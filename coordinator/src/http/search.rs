//! Handlers of queries.

use std::sync::Arc;

use axum::extract::State;
use tracing::Instrument;
use vicinal_common::telemetry;

use super::answer::{Answer, Failure};
use super::body::{JsonBody, off_thread};
use super::decode::{QueryBatchBody, QueryBody};
use super::encode::{self, Shown};
use super::indexes::{Purpose, check_filter};
use super::params::Params;
use super::points::check_parts;
use super::selector::WithPayload;
use crate::Coordinator;
use crate::query::{self, Coverage, Query};

type Shared = State<Arc<Coordinator>>;

/// `POST /collections/{collection}/points/query`
pub(super) async fn query(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    coordinator.collection(params.collection())?;
    let query = body.decode(QueryBody::into_query).await?;
    let (encoded, coverage) = run(&coordinator, &params, vec![query]).await?;
    Ok(Answer::encoded(encoded.into_iter().next().unwrap_or_default()).with_coverage(coverage).with_session(&params))
}

/// `POST /collections/{collection}/points/query/batch`: all queries in one scatter.
pub(super) async fn query_batch(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    coordinator.collection(params.collection())?;
    let queries = body.decode(QueryBatchBody::into_queries).await?;
    let (encoded, coverage) = run(&coordinator, &params, queries).await?;
    let mut out = Vec::with_capacity(encoded.iter().map(|one| one.len() + 1).sum::<usize>() + 2);
    out.push(b'[');
    out.extend_from_slice(&encoded.join(&b','));
    out.push(b']');
    Ok(Answer::encoded(out).with_coverage(coverage).with_session(&params))
}

/// Runs queries and encodes the answer to each. The coverage is that of all of them together.
async fn run(
    coordinator: &Coordinator,
    params: &Params,
    queries: Vec<(Query, WithPayload)>,
) -> Result<(Vec<Vec<u8>>, Coverage), Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (queries, with_payload): (Vec<Query>, Vec<WithPayload>) = queries.into_iter().unzip();
    for query in &queries {
        check_parts(&collection, &query.parts)?;
        check_filter(&collection, query.filter.as_deref(), Purpose::Read)?;
    }
    let lookup = params.lookup(coordinator);
    let span = telemetry::query_span(&collection.name, queries.len());
    let running = query::run(&coordinator.shards, &lookup, params.read_spec(), &queries);
    let answers = running.instrument(span).await?;
    let mut coverage = answers.first().map(|answer| answer.coverage.clone()).unwrap_or_default();
    for answer in &answers {
        coverage.add(&answer.coverage);
    }
    let size = answers.iter().flat_map(|answer| &answer.hits).filter_map(|hit| hit.point.as_ref());
    let size = encode::size_of_points(size);
    let encoded = off_thread(size, move || {
        let shown = queries.into_iter().zip(with_payload);
        let shown = shown.map(|(query, payload)| Shown { payload, vectors: query.parts.vectors });
        let one = |(answer, shown): (query::Answer, Shown)| {
            let mut out = b"{\"points\":".to_vec();
            encode::hits(&mut out, &answer.hits, &shown)?;
            out.push(b'}');
            Ok(out)
        };
        answers.into_iter().zip(shown).map(one).collect::<Result<Vec<_>, Failure>>()
    });
    Ok((encoded.await?, coverage))
}
