//! How the cluster is: its coordinators, its shard nodes, and the replicas of a collection.
//!
//! The shape is the API's, where every process is a peer; what it has no words for stands beside it under our own names.

mod digest;
mod replicas;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};
use vicinal_common::api::ReplicaRole;
use vicinal_common::clock::rfc3339;
use vicinal_common::ids::NodeId;

use super::answer::{Answer, Failure};
use super::params::Params;
use crate::Coordinator;
use crate::meta::GroupStatus;

pub(super) use replicas::{Replica, replicas, role};
pub(super) use survey::Survey;

type Shared = State<Arc<Coordinator>>;

/// `GET /cluster`
pub(super) async fn cluster(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let group = coordinator.catalog.group();
    let survey = Survey::take(&coordinator, params.deadline).await;
    Answer::json(&json!({
        "status": "enabled",
        "peer_id": group.node,
        "peers": peers(&group, &survey),
        "raft_info": raft_info(&group),
        "consensus_thread_status": consensus_thread(&coordinator, &group),
        "message_send_failures": {},
        "cluster": survey.state.cluster,
        "coordinators": coordinators(&group),
        "nodes": nodes(&survey),
    }))
}

/// `GET /collections/{collection}/cluster`
pub(super) async fn collection(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let survey = Survey::take(&coordinator, params.deadline).await;
    let rows = replicas(&survey, &collection);
    Answer::json(&json!({
        "peer_id": coordinator.catalog.node(),
        "shard_count": collection.shards.len(),
        "local_shards": [],
        "remote_shards": rows.iter().map(Replica::remote_shard).collect::<Vec<_>>(),
        "shard_transfers": replicas::transfers(&rows),
        "resharding_operations": [],
        "replicas": rows,
    }))
}

/// `GET /collections/{collection}/replicas/digest`
pub(super) async fn digest(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    Answer::json(&digest::digests(&coordinator, &collection, params.deadline).await)
}

/// Every process by its identity: those that the placement of replicas names are among them.
pub(super) fn peers(group: &GroupStatus, survey: &Survey) -> Map<String, Value> {
    let coordinators = group.members.iter().map(|(node, member)| (node, &member.address));
    let nodes = survey.nodes.iter().map(|(node, seen)| (node, &seen.info.address));
    coordinators.chain(nodes).map(|(node, address)| (node.to_string(), json!({"uri": address}))).collect()
}

fn raft_info(group: &GroupStatus) -> Value {
    json!({
        "term": group.term,
        "commit": group.applied.unwrap_or(0),
        "pending_operations": pending(group),
        "leader": group.leader,
        "role": raft_role(group.role),
        "is_voter": group.voters.contains(&group.node),
    })
}

/// Entries of the metadata log that this coordinator has not applied yet.
pub(super) fn pending(group: &GroupStatus) -> u64 {
    group.last_log.unwrap_or(0).saturating_sub(group.applied.unwrap_or(0))
}

/// The API's word for a role; it has none for one that takes no part.
pub(super) fn raft_role(role: ReplicaRole) -> Option<&'static str> {
    match role {
        ReplicaRole::Leader => Some("Leader"),
        ReplicaRole::Follower | ReplicaRole::Learner => Some("Follower"),
        ReplicaRole::Candidate => Some("Candidate"),
        ReplicaRole::Down => None,
    }
}

/// Whether the metadata group runs in this process.
pub(super) fn consensus_thread(coordinator: &Coordinator, group: &GroupStatus) -> Value {
    match &group.stopped {
        None => {
            json!({"consensus_thread_status": "working", "last_update": rfc3339(coordinator.catalog.now_ms())})
        }
        Some(reason) => json!({"consensus_thread_status": "stopped_with_err", "err": reason}),
    }
}

fn coordinators(group: &GroupStatus) -> Vec<Value> {
    let one = |(node, member): (&NodeId, &vicinal_common::raft::RaftNode)| {
        let is_this = *node == group.node;
        let part = if is_this {
            role(group.role)
        } else if group.leader == Some(*node) {
            "leader"
        } else if group.voters.contains(node) {
            "follower"
        } else {
            "learner"
        };
        json!({"id": member.name, "node": node, "uri": member.address, "role": part})
    };
    group.members.iter().map(one).collect()
}

fn nodes(survey: &Survey) -> Vec<Value> {
    let placed: BTreeMap<NodeId, usize> = survey.state.replicas_per_node();
    let one = |(node, seen): (&NodeId, &survey::SeenNode)| {
        let state = if seen.status.is_ok() { "up" } else { "down" };
        json!({
            "id": seen.info.name,
            "node": node,
            "uri": seen.info.address,
            "zone": null,
            "state": state,
            "last_heartbeat_seconds": null,
            "shards": placed.get(node),
            "leaders": seen.leaders(),
            "read_only": seen.status.as_ref().ok().and_then(|status| status.read_only.as_deref()),
            "reason": seen.status.as_ref().err(),
        })
    };
    survey.nodes.iter().map(one).collect()
}
