//! Handlers that change points.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::answer::{Answer, Failure};
use super::body::JsonBody;
use super::decode::{BatchUpdateBody, UpdateBody};
use super::indexes::{Purpose, prepare_one_of, text_resolver};
use super::params::Params;
use super::strict;
use crate::Coordinator;
use crate::meta::Collection;
use crate::write::{self, Update, Written};

type Shared = State<Arc<Coordinator>>;

/// One change of points, of any kind.
pub(super) async fn update<B: UpdateBody>(
    State(coordinator): Shared,
    params: Params,
    body: JsonBody,
) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (id, known) = (collection.id, collection.clone());
    let check = move |body: B| {
        let mut update = body.into_update(&known.schema)?;
        prepare_updates(&known, std::slice::from_mut(&mut update))?;
        Ok(update)
    };
    let update = body.decode(check).await?;
    strict::check_room(&coordinator, &collection, &update, params.deadline).await?;
    let lookup = || coordinator.same_collection(params.collection(), id);
    let written = write::apply(&coordinator.shards, &lookup, params.write_spec(&coordinator), update).await?;
    Ok(Answer::json(&result(written, &params))?.with_session(&params))
}

/// `POST /collections/{collection}/points/batch`: changes one after the other. All are checked before the first is made;
/// one that fails ends the batch, and those before it stay.
pub(super) async fn batch(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (id, known) = (collection.id, collection.clone());
    let check = move |body: BatchUpdateBody| {
        let mut updates = body.into_updates(&known.schema)?;
        prepare_updates(&known, &mut updates)?;
        Ok(updates)
    };
    let updates = body.decode(check).await?;
    strict::count_batch(&coordinator, &collection, strict::Kind::Write, updates.len())?;
    for update in &updates {
        strict::check_room(&coordinator, &collection, update, params.deadline).await?;
    }
    let lookup = || coordinator.same_collection(params.collection(), id);
    let count = updates.len();
    let mut results: Vec<Value> = Vec::with_capacity(count);
    for update in updates {
        let written = write::apply(&coordinator.shards, &lookup, params.write_spec(&coordinator), update).await;
        let place = results.len() + 1;
        let written = written.map_err(|error| match place {
            1 => error,
            _ => error.with_note(&format!("operation {place} of {count}; those before it are done")),
        })?;
        results.push(result(written, &params));
    }
    Ok(Answer::json(&Value::from(results))?.with_session(&params))
}

/// Prepares the filters of all changes of a request, and refuses what strict mode does not allow.
fn prepare_updates(collection: &Collection, updates: &mut [Update]) -> Result<(), Failure> {
    let mut texts = text_resolver(collection);
    updates.iter_mut().try_for_each(|update| {
        strict::check_update(collection, update)?;
        let mut filters = update.filters_mut();
        filters.try_for_each(|filter| prepare_one_of(&mut texts, collection, Some(filter), Purpose::Update))
    })
}

/// The answer to a write. It is durable and applied by now in any case; a client that did not wait for that is told the
/// weaker word it expects.
fn result(written: Written, params: &Params) -> Value {
    let status = if params.wait { "completed" } else { "acknowledged" };
    json!({"operation_id": written.index.0, "status": status})
}
