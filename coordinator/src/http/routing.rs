//! Routing by cluster at the edge: how it is shown, and asking for a new map or for balance.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Query, State};
use serde_json::{Value, json};
use tokio::time::timeout_at;
use vicinal_common::api::ReplicaStatus;
use vicinal_common::clock::rfc3339;
use vicinal_common::error::Error;
use vicinal_common::ids::{NodeId, ShardId};

use super::answer::{Answer, Failure};
use super::info::{self, Patience};
use super::params::Params;
use crate::Coordinator;
use crate::meta::{ClusterRouting, Collection, Measured, MetaState, Operation, OperationId, Routing, Shard};
use crate::placement::{Action, BalancePlan, POINTS_MIN, announce_tuning, plan_balance};
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

/// `POST /collections/{collection}/routing/balance`: says what balancing would do and, with `apply=true`, wants it.
pub(super) async fn balance(
    State(coordinator): Shared,
    params: Params,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Answer, Failure> {
    let apply = match query.get("apply").map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let text = format!("query parameter `apply` is `{other}`, allowed is true or false");
            return Err(Error::BadInput(text).into());
        }
    };
    let collection = coordinator.collection(params.collection())?;
    let cluster = cluster(&collection)?;
    if let Some(what) = cluster.under_way() {
        return Err(Error::Conflict(format!("search shards are not balanced now: {what}")).into());
    }
    let (catalog, nodes, members) = (&coordinator.catalog, &coordinator.shards.nodes, &coordinator.members);
    // One at a time: it takes memory and processors.
    let planned = async {
        let _turn = coordinator.planning.acquire().await;
        plan_balance(catalog, nodes, members, &collection).await
    };
    let planned = timeout_at(params.deadline, planned).await;
    let planned =
        planned.map_err(|_| Error::Timeout("the sample was not looked at in time: raise `timeout`".into()))??;
    let action = planned.action();
    if apply {
        match action {
            Action::None => {}
            Action::Adjust => {
                catalog.balance_map(collection.id, cluster.map_to_come(), params.deadline).await?;
            }
            Action::Retrain => catalog.train_map(collection.id, params.deadline).await?,
        }
    }
    let now = coordinator.same_collection(params.collection(), collection.id)?;
    let mut shown = self::planned(&planned, cluster);
    shown["applied"] = json!(apply && action != Action::None);
    shown["operation"] = state(&coordinator.catalog.state(), &now, &BTreeMap::new())["operation"].take();
    Answer::json(&shown)
}

/// What balancing would do, in points of the collection.
fn planned(plan: &BalancePlan, cluster: &ClusterRouting) -> Value {
    let points = |sampled: f64| (sampled * plan.scale).round() as u64;
    let shard = |position: u32| plan.shards.get(position as usize);
    let adjusted = plan.adjusted.as_ref().map(|adjusted| {
        let moves: Vec<Value> = adjusted
            .moves
            .iter()
            .map(|step| {
                let (from, to) = (shard(step.from), shard(step.to));
                json!({"cell": step.centroid, "from_shard": from, "to_shard": to, "points": points(step.weight)})
            })
            .collect();
        let sizes = plan.shards.iter().zip(adjusted.before.shards.iter().zip(&adjusted.after.shards));
        let sizes: Vec<Value> = sizes
            .map(|(shard, (before, after))| {
                json!({"shard_id": shard, "points": points(*before as f64), "points_after": points(*after as f64)})
            })
            .collect();
        json!({
            "moves": moves,
            "splits": adjusted.splits,
            "shards": sizes,
            "imbalance_after": rounded(adjusted.after.imbalance()),
        })
    });
    json!({"action": plan.action().name(), "measured": measured(&plan.measured, cluster), "adjusted": adjusted})
}

/// How even search shards were when that was looked at.
fn measured(measured: &Measured, cluster: &ClusterRouting) -> Value {
    json!({
        "map": measured.map,
        "at": rfc3339(measured.at_ms),
        "points": measured.points,
        "imbalance": rounded(measured.imbalance.into()),
        "load_imbalance": measured.load_imbalance.map(|load| rounded(load.into())),
        "points_in_oversized_cells": rounded(measured.oversized.into()),
        "fan_out": rounded(measured.fan_out.into()),
        "fan_out_trained": cluster.trained.map(|trained| rounded(trained.fan_out.into())),
        "points_trained": cluster.trained.map(|trained| trained.points),
        "verdict": measured.verdict.name(),
    })
}

/// To three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
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
    let shown = state(&coordinator.catalog.state(), &collection, &BTreeMap::new());
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
            "balance": cluster.balance,
        }),
    }
}

/// A number with the digits that it has, not those of the nearest number of twice the length.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// What there is of it at the moment; null where there is nothing to tell, as of replicas that were not asked.
pub(super) fn state(state: &MetaState, collection: &Collection, replicas: &BTreeMap<ShardId, ReplicaStatus>) -> Value {
    let Some(cluster) = collection.routing.cluster() else { return Value::Null };
    let place = |shard: &Shard| {
        let nodes: Vec<Value> = shard.readers().map(|node| json!({"node": node, "name": name(state, node)})).collect();
        let points = replicas.get(&shard.id).map(|replica| replica.points);
        json!({"shard_id": shard.id, "nodes": nodes, "points": points})
    };
    let served = cluster.serving.iter().flat_map(|served| &served.map.shards);
    let points: Option<Vec<u64>> = served.map(|shard| Some(replicas.get(shard)?.points)).collect();
    let imbalance = points.filter(|points| !points.is_empty()).map(|points| {
        let (most, total) = (points.iter().max().copied().unwrap_or(0), points.iter().sum::<u64>());
        rounded(if total == 0 { 1.0 } else { most as f64 * points.len() as f64 / total as f64 })
    });
    let operation = state.operations.iter().find(|(_, operation)| operation.collection == collection.id);
    json!({
        "searched_at": if cluster.serving.is_some() { "search shards" } else { "home shards" },
        "serving": cluster.served(),
        "next": cluster.next.as_ref().map(|map| map.version),
        "ending": cluster.ending,
        "training": cluster.is_training,
        "switching_to_hash": cluster.is_leaving,
        "search_shards": cluster.shards.iter().map(place).collect::<Vec<_>>(),
        "imbalance": imbalance,
        "measured": cluster.measured.as_ref().map(|found| measured(found, cluster)),
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
