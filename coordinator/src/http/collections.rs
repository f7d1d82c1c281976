//! Handlers of collections and aliases.

use std::sync::Arc;

use axum::extract::State;
use serde_json::json;
use vicinal_common::error::Error;

use super::answer::{Answer, Failure};
use super::body::JsonBody;
use super::decode::{AliasesBody, ChangeBody, CreateBody, NamePlace, check_name};
use super::info;
use super::params::Params;
use crate::Coordinator;
use crate::meta::CreateCollection;
use crate::placement::announce_tuning;

type Shared = State<Arc<Coordinator>>;

/// `GET /collections`
pub(super) async fn list(State(coordinator): Shared) -> Result<Answer, Failure> {
    let state = coordinator.catalog.state();
    let names: Vec<_> = state.active().map(|collection| json!({"name": collection.name})).collect();
    Answer::json(&json!({"collections": names}))
}

/// `GET /collections/{collection}/exists`
pub(super) async fn exists(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let exists = coordinator.catalog.state().lookup(params.collection()).is_some();
    Answer::json(&json!({"exists": exists}))
}

/// `GET /collections/{collection}`
pub(super) async fn describe(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let state = coordinator.catalog.state();
    let result = info::describe(&coordinator.shards, &state, &collection, params.deadline).await?;
    Ok(Answer::encoded(result))
}

/// `PUT /collections/{collection}`: answers once the collection is served.
pub(super) async fn create(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    check_name(NamePlace::Path, "collection_name", params.collection())?;
    let default_shards = coordinator.options.default_shards;
    let mut new = body.decode(move |body: CreateBody| body.into_collection(default_shards)).await?;
    let shard_number = new.shard_number.unwrap_or(default_shards);
    new.config["params"]["shard_number"] = json!(shard_number);
    let create = CreateCollection {
        name: params.collection().to_owned(),
        schema: new.schema,
        routing: new.routing,
        shard_number,
        replication_factor: new.replication_factor,
        write_consistency_factor: new.write_consistency_factor,
        config_json: new.config.to_string(),
        strict: new.strict,
        graphs: new.graphs,
    };
    let (nodes, members) = (coordinator.shards.nodes.clone(), coordinator.members.clone());
    let is_connected = move |node| nodes.get(node).is_some() && members.may_take_more(node);
    coordinator.catalog.create_collection(create, is_connected, params.deadline).await?;
    Answer::json(&true)
}

/// `PATCH /collections/{collection}`: answers once the change is agreed on; replicas follow in the background.
pub(super) async fn change(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let before = coordinator.collection(params.collection())?;
    let known = before.clone();
    let change = body.decode(move |body: ChangeBody| body.into_change(&known)).await?;
    coordinator.catalog.change_collection(before.id, change, params.deadline).await?;
    let collection = coordinator.same_collection(params.collection(), before.id)?;
    let nodes = coordinator.shards.nodes.clone();
    // Ends by itself: every call in it is bounded. Whoever is not reached hears of it later.
    tokio::spawn(async move { announce_tuning(&nodes, &collection).await });
    Answer::json(&true)
}

/// `DELETE /collections/{collection}`: the result says whether there was one.
pub(super) async fn delete(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let existed = coordinator.catalog.delete_collection(params.collection(), params.deadline).await?;
    coordinator.shards.retain(&coordinator.catalog.state());
    Answer::json(&existed)
}

/// `POST /collections/aliases`: all changes or none.
pub(super) async fn update_aliases(
    State(coordinator): Shared,
    params: Params,
    body: JsonBody,
) -> Result<Answer, Failure> {
    let changes = body.decode(AliasesBody::into_changes).await?;
    coordinator.catalog.update_aliases(changes, params.deadline).await?;
    Answer::json(&true)
}

/// `GET /aliases`
pub(super) async fn all_aliases(State(coordinator): Shared) -> Result<Answer, Failure> {
    let state = coordinator.catalog.state();
    let aliases = state.aliases.iter();
    let aliases: Vec<_> = aliases.map(|(alias, name)| json!({"alias_name": alias, "collection_name": name})).collect();
    Answer::json(&json!({"aliases": aliases}))
}

/// `GET /collections/{collection}/aliases`
pub(super) async fn aliases(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let state = coordinator.catalog.state();
    let name = params.collection();
    let missing = || Error::NotFound(format!("Collection `{name}` doesn't exist!"));
    let collection = state.lookup(name).ok_or_else(missing)?;
    let aliases = state.aliases_of(&collection.name);
    let aliases: Vec<_> =
        aliases.map(|alias| json!({"alias_name": alias, "collection_name": collection.name})).collect();
    Answer::json(&json!({"aliases": aliases}))
}
