//! Routing by cluster at the edge: how it is shown, and asking for a new map.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};
use vicinal_common::clock::rfc3339;
use vicinal_common::error::Error;
use vicinal_common::ids::NodeId;

use super::answer::{Answer, Failure};
use super::info::{self, Patience};
use super::params::Params;
use crate::Coordinator;
use crate::meta::{ClusterRouting, Collection, MetaState, Operation, OperationId, Routing, Shard};
use crate::placement::{POINTS_MIN, announce_tuning};
use crate::shards::CollectionRef;

type Shared = State<Arc<Coordinator>>;

/// `POST /collections/{collection}/routing/train`: answers once it is agreed on that a new map is wanted.
pub(super) async fn train(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let cluster = cluster(&collection)?;
    if let Some(what) = cluster.under_way() {
        return Err(Error::Conflict(format!("no map is trained now: {what}")).into());
    }
    let replicas = info::survey(&coordinator.shards, &collection, Patience::EachShard, params.deadline).await;
    let homes = replicas.values().filter(|replica| collection.is_home(replica.shard));
    let points: u64 = homes.map(|replica| replica.points).sum();
    let least = POINTS_MIN.max(u64::from(cluster.search_shards));
    if points < least {
        let text = format!("a map needs points to be trained on: the collection has {points}, {least} are the least");
        return Err(Error::BadInput(text).into());
    }
    coordinator.catalog.train_map(collection.id, params.deadline).await?;
    answer(&coordinator, &params, &collection)
}

/// `POST /collections/{collection}/routing/abort`: answers once it is agreed on that the change is taken back. One that
/// is served already stays.
pub(super) async fn abort(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let cluster = cluster(&collection)?;
    let version = match &cluster.next {
        Some(map) => map.version,
        None if cluster.is_training => cluster.map_to_come(),
        None => {
            let text = "there is no map to take back: none is being trained or filled";
            return Err(Error::Conflict(text.into()).into());
        }
    };
    coordinator.catalog.abort_map(collection.id, version, params.deadline).await?;
    answer(&coordinator, &params, &collection)
}

fn answer(coordinator: &Coordinator, params: &Params, before: &Collection) -> Result<Answer, Failure> {
    let collection: CollectionRef = coordinator.same_collection(params.collection(), before.id)?;
    let shown = state(&coordinator.catalog.state(), &collection);
    let nodes = coordinator.shards.nodes.clone();
    // Ends by itself: every call in it is bounded. Whoever is not reached hears of it later.
    tokio::spawn(async move { announce_tuning(&nodes, &collection).await });
    Answer::json(&shown)
}

fn cluster(collection: &Collection) -> Result<&ClusterRouting, Failure> {
    collection.routing.cluster().ok_or_else(|| {
        let (name, method) = (&collection.name, collection.routing.name());
        let text = format!("Collection `{name}` has `routing.method` {method}: only `cluster` has maps");
        Error::BadInput(text).into()
    })
}

/// The settings, as they can be given when a collection is created.
pub(super) fn settings(routing: &Routing) -> Value {
    match routing {
        Routing::Hash | Routing::Replicate => json!({"method": routing.name()}),
        Routing::Cluster(cluster) => json!({
            "method": routing.name(),
            "vector": cluster.vector,
            "search_shards": cluster.search_shards,
            "copies": decimal(cluster.copies),
            "recall_target": decimal(cluster.recall_target),
            "from_points": cluster.from_points,
        }),
    }
}

/// A number with the digits that it has, not those of the nearest number of twice the length.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// What there is of it at the moment; null where there is nothing to tell.
pub(super) fn state(state: &MetaState, collection: &Collection) -> Value {
    let Some(cluster) = collection.routing.cluster() else { return Value::Null };
    let place = |shard: &Shard| {
        let nodes: Vec<Value> = shard.readers().map(|node| json!({"node": node, "name": name(state, node)})).collect();
        json!({"shard_id": shard.id, "nodes": nodes})
    };
    let operation = state.operations.iter().find(|(_, operation)| operation.collection == collection.id);
    json!({
        "searched_at": if cluster.serving.is_some() { "search shards" } else { "home shards" },
        "serving": cluster.served(),
        "next": cluster.next.as_ref().map(|map| map.version),
        "ending": cluster.ending,
        "training": cluster.is_training,
        "switching_to_hash": cluster.is_leaving,
        "search_shards": cluster.shards.iter().map(place).collect::<Vec<_>>(),
        "operation": operation.map(|(id, of)| self::operation(state, *id, of)),
    })
}

fn name(state: &MetaState, node: NodeId) -> Option<&str> {
    state.nodes.get(&node).map(|info| info.name.as_str())
}

/// Work under way for a collection, with its progress.
pub(super) fn operation(state: &MetaState, id: OperationId, operation: &Operation) -> Value {
    let collection = state.collections.get(&operation.collection);
    let share = f64::from(operation.steps_done) / f64::from(operation.steps_total.max(1));
    json!({
        "id": id.0,
        "kind": operation.kind.name(),
        "collection": collection.map(|collection| &collection.name),
        "started_at": rfc3339(operation.started_ms),
        "progress": (share * 1_000.0).round() / 1_000.0,
    })
}
