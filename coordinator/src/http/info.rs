//! The state of a collection, put together from what its nodes say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use vicinal_common::api::{ReplicaRole, ReplicaStatus};
use vicinal_common::clock::rfc3339;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{NodeId, ShardId};
use vicinal_common::payload_index::PayloadIndex;
use vicinal_common::tuning::GraphPlacement;

use super::routing;
use crate::meta::{Collection, MetaState, Shard, is_single};
use crate::shards::ShardAccess;

/// Longest time one node may take to say how it is: the others' replicas speak for one that is paused.
const STATUS_TIME_MAX: Duration = Duration::from_secs(2);

/// Whose answers a survey waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Those of all nodes: the replica that is furthest along stands for its shard.
    AllNodes,
    /// One of each shard, by whichever replica that serves is first.
    EachShard,
}

/// The replica of each shard whose figures stand for it; shards of which none answered in time are left out.
pub(super) async fn survey(
    access: &ShardAccess,
    collection: &Collection,
    patience: Patience,
    deadline: Instant,
) -> BTreeMap<ShardId, ReplicaStatus> {
    let nodes: BTreeSet<NodeId> = collection.all_shards().flat_map(Shard::readers).collect();
    let until = deadline.min(Instant::now() + STATUS_TIME_MAX);
    let ask = |node| async move {
        let Some(api) = access.nodes.get(node) else { return (node, Vec::new()) };
        let status = timeout_at(until, api.status()).await;
        (node, status.ok().and_then(|status| status.ok()).map(|status| status.replicas).unwrap_or_default())
    };
    let mut asked: FuturesUnordered<_> = nodes.into_iter().map(ask).collect();
    let mut chosen: BTreeMap<ShardId, (NodeId, ReplicaStatus)> = BTreeMap::new();
    while let Some((node, replicas)) = asked.next().await {
        let is_own =
            |replica: &ReplicaStatus| replica.collection == collection.id && collection.shard(replica.shard).is_some();
        for replica in replicas.into_iter().filter(is_own) {
            let better =
                chosen.get(&replica.shard).is_none_or(|(known, other)| rank(node, &replica) > rank(*known, other));
            if better {
                chosen.insert(replica.shard, (node, replica));
            }
        }
        let is_served = |shard: ShardId| chosen.get(&shard).is_some_and(|(_, replica)| serves(replica));
        if patience == Patience::EachShard && collection.shard_ids().all(is_served) {
            break;
        }
    }
    chosen.into_iter().map(|(shard, (_, replica))| (shard, replica)).collect()
}

/// Describes a collection. Green: everything served and indexed. Yellow: background work is under way. Red: a shard does
/// not serve or did not answer; the figures then leave it out.
pub(super) async fn describe(
    access: &ShardAccess,
    state: &MetaState,
    collection: &Collection,
    deadline: Instant,
) -> Result<Vec<u8>> {
    let chosen = survey(access, collection, Patience::AllNodes, deadline).await;
    let replicas: Vec<&ReplicaStatus> = chosen.values().collect();
    // Search shards hold the same points once more.
    let homes: Vec<&ReplicaStatus> = chosen.values().filter(|replica| collection.is_home(replica.shard)).collect();
    let info = json!({
        "status": status(collection, &replicas),
        "optimizer_status": optimizer_status(&replicas),
        "warnings": warnings(collection, &replicas),
        "indexed_vectors_count": homes.iter().map(|replica| replica.indexed_vectors).sum::<u64>(),
        "points_count": homes.iter().map(|replica| replica.points).sum::<u64>(),
        "builds": builds(&replicas),
        "segments_count": replicas.iter().map(|replica| replica.segments).sum::<u64>(),
        "config": config(collection)?,
        "payload_schema": payload_schema(collection, &homes),
        "routing": routing::state(state, collection, &chosen),
        "created_at": rfc3339(collection.created_ms),
        "update_queue": {"length": replicas.iter().map(|replica| behind(replica)).sum::<u64>()},
    });
    Ok(info.to_string().into_bytes())
}

/// The configuration of a collection: what it was created with, and what can change since.
pub(super) fn config(collection: &Collection) -> Result<Value> {
    let mut config: Value = serde_json::from_str(&collection.config_json)
        .map_err(|e| Error::Corrupt(format!("the collection's stored configuration: {e}")))?;
    let GraphPlacement { on_disk, vectors } = &collection.tuning.graphs;
    config["hnsw_config"]["on_disk"] = json!(on_disk);
    config["strict_mode_config"] = collection.strict.shown();
    config["routing"] = routing::settings(&collection.routing);
    let shown = &mut config["params"]["vectors"];
    let is_single = is_single(shown);
    for (name, own) in vectors {
        let shown = if is_single { &mut *shown } else { &mut shown[name] };
        shown["hnsw_config"]["on_disk"] = json!(own);
    }
    if is_single {
        hide_disabled(shown);
    } else if let Value::Object(vectors) = shown {
        vectors.values_mut().for_each(hide_disabled);
    }
    Ok(config)
}

/// Takes the word `Disabled` away, which the API knows in requests only.
fn hide_disabled(vector: &mut Value) {
    if let Value::Object(fields) = vector
        && fields.get("quantization_config").is_some_and(Value::is_string)
    {
        fields.remove("quantization_config");
    }
}

/// Entries of the log that the replica has not applied yet.
fn behind(replica: &ReplicaStatus) -> u64 {
    replica.last_log.0.saturating_sub(replica.applied.0)
}

/// The shards that are needed to serve: search shards are not before queries are routed to them.
fn needed(collection: &Collection) -> impl Iterator<Item = ShardId> + '_ {
    let served = collection.routing.cluster().and_then(|cluster| cluster.serving.as_ref());
    collection.shard_ids().chain(served.into_iter().flat_map(|served| served.map.shards.iter().copied()))
}

/// What the figures do not show.
fn warnings(collection: &Collection, replicas: &[&ReplicaStatus]) -> Value {
    let is_known = |shard: &ShardId| replicas.iter().any(|replica| replica.shard == *shard);
    let missing = needed(collection).filter(|shard| !is_known(shard));
    let missing = missing.map(|shard| format!("shard {shard} did not answer: the figures leave it out"));
    let waiting = replicas.iter().filter(|replica| replica.builds.iter().any(|build| build.waits_for_memory));
    let waiting = waiting.map(|replica| format!("shard {}: a build of an index waits for memory", replica.shard));
    missing.chain(waiting).map(|message| json!({"message": message})).collect()
}

/// The vector indexes that are being built.
fn builds(replicas: &[&ReplicaStatus]) -> Value {
    let all = replicas.iter().flat_map(|replica| replica.builds.iter().map(|build| (replica.shard, build)));
    let tenths = |seconds: f64| (seconds * 10.0).round() / 10.0;
    let shown = all.map(|(shard, build)| {
        json!({
            "shard_id": shard.0,
            "vector": build.vector,
            "segment": build.segment,
            "vectors_count": build.rows,
            "vectors_done": build.rows_done,
            "seconds": tenths(build.seconds),
            "eta_seconds": build.eta_seconds().map(tenths),
            "waits_for_memory": build.waits_for_memory,
        })
    });
    shown.collect()
}

/// The payload indexes, each with the number of points that have a value in it, and as the client described it.
fn payload_schema(collection: &Collection, replicas: &[&ReplicaStatus]) -> Value {
    let points = |field: &String| replicas.iter().filter_map(|replica| replica.payload.points.get(field)).sum::<u64>();
    let fields = collection.tuning.payload_indexes.iter();
    let shown = |(field, index): (&String, &PayloadIndex)| {
        let mut shown = json!({"data_type": index.of().name(), "points": points(field)});
        // JSON when it was stored; should that not be so, the figures count more than what the client once sent.
        if let Some(params) = index.options().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            shown["params"] = params;
        }
        (field.clone(), shown)
    };
    fields.map(shown).collect()
}

/// Whether the replica is a full one: nothing is wrong with it, and it is not one that still comes into being.
pub(super) fn serves(replica: &ReplicaStatus) -> bool {
    replica.failed.is_none() && matches!(replica.role, ReplicaRole::Leader | ReplicaRole::Follower)
}

/// Which replica's figures stand for the shard: one that serves, the leader, the one furthest along.
fn rank(node: NodeId, replica: &ReplicaStatus) -> (bool, bool, bool, u64) {
    (replica.failed.is_none(), serves(replica), replica.leader == Some(node), replica.applied.0)
}

fn status(collection: &Collection, replicas: &[&ReplicaStatus]) -> &'static str {
    let is_known = |shard: ShardId| replicas.iter().any(|replica| replica.shard == shard);
    let is_changing = collection.routing.cluster().is_some_and(|cluster| cluster.under_way().is_some());
    if !needed(collection).all(is_known) || replicas.iter().any(|replica| replica.failed.is_some()) {
        "red"
    } else if is_changing || replicas.iter().any(|replica| replica.optimizing) {
        "yellow"
    } else {
        "green"
    }
}

fn optimizer_status(replicas: &[&ReplicaStatus]) -> Value {
    let failed = replicas.iter().find_map(|replica| replica.failed.as_ref().map(|reason| (replica.shard, reason)));
    match failed {
        Some((shard, reason)) => json!({"error": format!("shard {shard}: {reason}")}),
        None => json!("ok"),
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::ids::{CollectionId, LogIndex};

    use super::*;

    fn replica(shard: u64, failed: Option<&str>, optimizing: bool) -> ReplicaStatus {
        ReplicaStatus {
            leader: Some(NodeId(1)),
            applied: LogIndex(5),
            points: 10,
            indexed_vectors: 10,
            optimizing,
            failed: failed.map(str::to_owned),
            ..ReplicaStatus::unknown(ShardId(shard), CollectionId(uuid::Uuid::nil()))
        }
    }

    #[test]
    fn a_serving_leader_speaks_for_its_shard() {
        let good = replica(1, None, false);
        assert!(rank(NodeId(1), &good) > rank(NodeId(2), &good));
        assert!(rank(NodeId(2), &good) > rank(NodeId(1), &replica(1, Some("broken"), false)));
    }

    #[test]
    fn a_failed_shard_is_named() {
        let (good, bad) = (replica(1, None, true), replica(2, Some("checksum"), false));
        assert_eq!(optimizer_status(&[&good]), json!("ok"));
        assert_eq!(optimizer_status(&[&good, &bad]), json!({"error": "shard 2: checksum"}));
    }
}
