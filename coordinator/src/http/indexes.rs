//! Handlers of payload indexes, and what indexes do to filters: how they cut texts, and the rule that a field must have one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use vicinal_common::api::check_logged;
use vicinal_common::filter::{Filter, TextResolver};

use super::answer::{Answer, Failure};
use super::body::JsonBody;
use super::decode::{IndexBody, NewIndex, index_path};
use super::params::Params;
use super::strict::{check_filter_size, check_new_index};
use crate::Coordinator;
use crate::meta::Collection;
use crate::placement::{announce_tuning, wait_for_indexes};
use crate::shards::CollectionRef;

type Shared = State<Arc<Coordinator>>;

/// `PUT /collections/{collection}/index`
pub(super) async fn create(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let NewIndex { field, index } = body.decode(IndexBody::into_index).await?;
    check_new_index(&collection, &field)?;
    coordinator.catalog.create_index(collection.id, field, index, params.deadline).await?;
    changed(&coordinator, &params, &collection).await
}

/// `DELETE /collections/{collection}/index/{field}`: one that is not there is fine.
pub(super) async fn delete(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let field = index_path(params.segment("field"))?;
    coordinator.catalog.drop_index(collection.id, field, params.deadline).await?;
    changed(&coordinator, &params, &collection).await
}

/// Tells the replicas. The change itself is durable: whoever is not reached hears of it later.
async fn changed(coordinator: &Coordinator, params: &Params, before: &Collection) -> Result<Answer, Failure> {
    let collection: CollectionRef = coordinator.same_collection(params.collection(), before.id)?;
    let operation = collection.tuning.revision;
    let nodes = coordinator.shards.nodes.clone();
    let status = if params.wait {
        let deadline = params.deadline;
        let announced = tokio::time::timeout_at(deadline, announce_tuning(&nodes, &collection)).await;
        // The answer must still get out before the client's own time is up.
        let until = deadline - deadline.saturating_duration_since(Instant::now()) / 10;
        match announced.is_ok() && wait_for_indexes(&nodes, &collection, until).await {
            true => "completed",
            false => "wait_timeout",
        }
    } else {
        // Ends by itself: every call in it is bounded.
        tokio::spawn(async move { announce_tuning(&nodes, &collection).await });
        "acknowledged"
    };
    Answer::json(&json!({"operation_id": operation, "status": status}))
}

/// What a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Update,
}

/// Makes a client's filter ready for the shards: fixes how its full-text conditions cut texts, by the collection's indexes as
/// they are now, and refuses a filter that strict mode does not allow: on a field without an index, or too large. Every filter
/// of a request must come through here or [`prepare_one_of`], once: here when a request has no other.
pub(super) fn prepare_filter(
    collection: &Collection,
    filter: Option<&mut Filter>,
    purpose: Purpose,
) -> Result<(), Failure> {
    prepare_one_of(&mut text_resolver(collection), collection, filter, purpose)
}

/// [`prepare_filter`] for requests with several filters, which share a resolver.
pub(super) fn prepare_one_of(
    texts: &mut TextResolver<'_>,
    collection: &Collection,
    filter: Option<&mut Filter>,
    purpose: Purpose,
) -> Result<(), Failure> {
    let Some(filter) = filter else { return Ok(()) };
    if purpose == Purpose::Update {
        check_logged(filter)?;
    }
    texts.resolve(filter)?;
    check_filter(collection, filter, purpose)
}

/// What fixes how the full-text conditions of one request cut texts.
pub(super) fn text_resolver(collection: &Collection) -> TextResolver<'_> {
    TextResolver::new(&collection.tuning.payload_indexes)
}

/// Refuses a filter that strict mode does not allow.
pub(super) fn check_filter(collection: &Collection, filter: &Filter, purpose: Purpose) -> Result<(), Failure> {
    let Some(strict) = collection.strict.enforced() else { return Ok(()) };
    check_filter_size(strict, filter)?;
    let unindexed = match purpose {
        Purpose::Read => strict.unindexed_filtering_retrieve,
        Purpose::Update => strict.unindexed_filtering_update,
    };
    if unindexed != Some(false) {
        return Ok(());
    }
    let Some(required) = filter.required_index(&collection.tuning.payload_indexes) else { return Ok(()) };
    let types: Vec<&str> = required.types.iter().map(|of| of.name()).collect();
    let text = format!(
        "Bad request: Index required but not found for \"{}\" of one of the following types: [{}]. Help: Create an index \
         for this key or use a different filter.",
        required.field,
        types.join(", ")
    );
    Err(Failure::new(StatusCode::BAD_REQUEST, text))
}
