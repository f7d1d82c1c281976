//! How the cluster is: its coordinators, its shard nodes, and the replicas of a collection.
//!
//! The shape is the API's, where every process is a peer; what it has no words for stands beside it under our own names.

mod digest;
mod replicas;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde_json::{Map, Value, json};
use vicinal_common::api::ReplicaRole;
use vicinal_common::clock::rfc3339;
use vicinal_common::cluster::Greeting;
use vicinal_common::ids::NodeId;
use vicinal_common::raft::RaftNode;

use super::answer::{Answer, Failure};
use super::params::Params;
use super::routing;
use crate::Coordinator;
use crate::meta::GroupStatus;

use replicas::role;
pub(super) use replicas::{Replica, replicas, transfers};
pub(super) use survey::Survey;

/// Longest wait for another coordinator to say that it is there.
const GREETING_TIME_MAX: Duration = Duration::from_secs(1);

type Shared = State<Arc<Coordinator>>;

/// `GET /cluster`
pub(super) async fn cluster(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let group = coordinator.catalog.group();
    let (survey, greetings) =
        tokio::join!(Survey::take(&coordinator, params.deadline), coordinator.catalog.greet_others(GREETING_TIME_MAX));
    Answer::json(&json!({
        "status": "enabled",
        "peer_id": group.node,
        "peers": peers(&group, &survey),
        "raft_info": raft_info(&group),
        "consensus_thread_status": consensus_thread(&coordinator, &group),
        "message_send_failures": failures(&group, &greetings),
        "cluster": survey.state.cluster,
        "coordinators": coordinators(&group, &greetings),
        "nodes": nodes(&survey),
        "operations": operations(&survey),
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
        "shard_transfers": transfers(&rows),
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

/// What the other coordinators said, or why they did not.
type Greetings = BTreeMap<NodeId, vicinal_common::error::Result<Greeting>>;

fn coordinators(group: &GroupStatus, greetings: &Greetings) -> Vec<Value> {
    let one = |(node, member): (&NodeId, &RaftNode)| {
        let part = match greetings.get(node) {
            None => role(group.role),
            Some(Err(_)) => "unreachable",
            Some(Ok(_)) if group.leader == Some(*node) => "leader",
            Some(Ok(_)) if group.voters.contains(node) => "follower",
            Some(Ok(_)) => "learner",
        };
        let reason = greetings.get(node).and_then(|greeting| greeting.as_ref().err()).map(survey::brief);
        json!({"id": member.name, "node": node, "uri": member.address, "role": part, "reason": reason})
    };
    let mut rows: Vec<(&NodeId, &RaftNode)> = group.members.iter().collect();
    rows.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    rows.into_iter().map(one).collect()
}

/// Coordinators that do not answer, as the API lists them.
fn failures(group: &GroupStatus, greetings: &Greetings) -> Map<String, Value> {
    let failed = greetings.iter().filter_map(|(node, greeting)| {
        let (error, member) = (greeting.as_ref().err()?, group.members.get(node)?);
        Some((member.address.to_string(), json!({"count": 1, "latest_error": error.to_string()})))
    });
    failed.collect()
}

/// Work under way for collections.
fn operations(survey: &Survey) -> Vec<Value> {
    let operations = survey.state.operations.iter();
    operations.map(|(id, operation)| routing::operation(&survey.state, *id, operation)).collect()
}

fn nodes(survey: &Survey) -> Vec<Value> {
    let placed: BTreeMap<NodeId, usize> = survey.state.replicas_per_node();
    let one = |(node, seen): (&NodeId, &survey::SeenNode)| {
        json!({
            "id": seen.info.name,
            "node": node,
            "uri": seen.info.address,
            "zone": seen.info.zone,
            "state": seen.state(),
            "last_heartbeat_seconds": seen.silent.map(|silent| silent.as_secs_f64()),
            "shards": placed.get(node),
            "leaders": seen.leaders(),
            "read_only": seen.status.as_ref().ok().and_then(|status| status.read_only.as_deref()),
            "reason": seen.reason(),
        })
    };
    let mut rows: Vec<(&NodeId, &survey::SeenNode)> = survey.nodes.iter().collect();
    rows.sort_by(|a, b| a.1.info.name.cmp(&b.1.info.name));
    rows.into_iter().map(one).collect()
}
