//! The replicas of a collection, one line each, and what of it the API has words for.

use serde::Serialize;
use serde_json::{Value, json};
use vicinal_common::api::{ReplicaRole, ReplicaStatus};
use vicinal_common::ids::{LogIndex, NodeId, ShardId};

use super::survey::Survey;
use crate::meta::{Collection, Shard};

/// Log entries a voter may be behind its leader and still count as active: the two were not asked at the same instant,
/// and writes go on between.
const LAG_ACTIVE_MAX: u64 = 1_000;

/// One replica.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::http) struct Replica {
    pub(in crate::http) shard: ShardId,
    /// Which part of the collection the shard is.
    pub(in crate::http) part: &'static str,
    /// The node's name.
    pub(in crate::http) node: String,
    pub(in crate::http) node_id: NodeId,
    pub(in crate::http) role: &'static str,
    pub(in crate::http) term: Option<u64>,
    pub(in crate::http) applied: Option<LogIndex>,
    /// Log entries it has not applied that its leader has; `None` when one of the two is not known.
    pub(in crate::http) lag: Option<u64>,
    pub(in crate::http) points: Option<u64>,
    pub(in crate::http) segments: Option<u64>,
    pub(in crate::http) bytes: Option<u64>,
    pub(in crate::http) state: State,
    /// Why it is not active.
    pub(in crate::http) reason: Option<String>,
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum State {
    /// It serves and holds what its leader holds.
    Active,
    /// It works towards that.
    CatchingUp,
    /// It does not serve, and will not by itself.
    Failed,
    /// Its node does not answer.
    Unreachable,
}

/// The collection's replicas in order of their shards, then as they are placed.
pub(in crate::http) fn replicas(survey: &Survey, collection: &Collection) -> Vec<Replica> {
    let part = |shard: &Shard| if collection.is_home(shard.id) { "home" } else { "search" };
    collection.all_shards().flat_map(|shard| of_shard(survey, shard, part(shard))).collect()
}

fn of_shard(survey: &Survey, shard: &Shard, part: &'static str) -> Vec<Replica> {
    let leader = leader(survey, shard);
    let mut members: Vec<NodeId> = shard.readers().collect();
    // A replica that is being moved here is a member of the group before the metadata says so.
    let joining = leader.iter().flat_map(|(_, status)| status.voters.keys().chain(status.learners.keys()));
    for node in joining.copied().collect::<Vec<_>>() {
        if !members.contains(&node) {
            members.push(node);
        }
    }
    let leader = leader.map(|(_, status)| status);
    members.into_iter().map(|node| Replica { part, ..row(survey, shard, node, leader) }).collect()
}

/// The node that leads the shard and what it says. Of several that believe so, the one of the latest term.
fn leader<'a>(survey: &'a Survey, shard: &Shard) -> Option<(NodeId, &'a ReplicaStatus)> {
    let all = survey.nodes.keys().filter_map(|node| Some((*node, status(survey, *node, shard.id).ok()??)));
    all.filter(|(_, status)| status.role == ReplicaRole::Leader).max_by_key(|(_, status)| status.term)
}

/// What a node says of its replica: `Ok(None)` when it has none.
fn status(survey: &Survey, node: NodeId, shard: ShardId) -> Result<Option<&ReplicaStatus>, String> {
    let unknown = || "the metadata does not know its node any more".to_owned();
    let status = survey.nodes.get(&node).ok_or_else(unknown)?.status.as_ref().map_err(Clone::clone)?;
    Ok(status.replicas.iter().find(|replica| replica.shard == shard))
}

fn row(survey: &Survey, shard: &Shard, node: NodeId, leader: Option<&ReplicaStatus>) -> Replica {
    let bare = Replica {
        shard: shard.id,
        part: "home",
        node: survey.name(node),
        node_id: node,
        role: "down",
        term: None,
        applied: None,
        lag: None,
        points: None,
        segments: None,
        bytes: None,
        state: State::Unreachable,
        reason: None,
    };
    let status = match status(survey, node, shard.id) {
        Err(reason) => return Replica { reason: Some(reason), ..bare },
        Ok(None) => {
            let reason = Some("it is not created yet on this node".to_owned());
            return Replica { state: State::CatchingUp, reason, ..bare };
        }
        Ok(Some(status)) => status,
    };
    let lag = leader.map(|leader| leader.applied.0.saturating_sub(status.applied.0));
    let (state, reason) = judge(status, lag, shard.learners.contains(&node));
    Replica {
        role: role(status.role),
        term: Some(status.term),
        applied: Some(status.applied),
        lag,
        points: Some(status.points),
        segments: Some(status.segments),
        bytes: Some(status.disk_bytes),
        state,
        reason,
        ..bare
    }
}

/// `stays_learner`: it was filled once, and has no vote because there are enough.
fn judge(status: &ReplicaStatus, lag: Option<u64>, stays_learner: bool) -> (State, Option<String>) {
    if let Some(reason) = &status.failed {
        return (State::Failed, Some(reason.clone()));
    }
    let behind = match (status.role, lag) {
        (ReplicaRole::Down, _) => return (State::Failed, Some("its part in the shard's group does not run".into())),
        (_, None) => "the shard has no leader at the moment".to_owned(),
        (ReplicaRole::Candidate, _) => "it asks for votes: it does not hear its leader".to_owned(),
        (ReplicaRole::Learner, Some(lag)) if !stays_learner => {
            format!("it is new and being filled, {lag} log entries to go")
        }
        (ReplicaRole::Follower | ReplicaRole::Learner, Some(lag)) if lag > LAG_ACTIVE_MAX => {
            format!("it is {lag} log entries behind")
        }
        (ReplicaRole::Leader | ReplicaRole::Follower | ReplicaRole::Learner, Some(_)) => return (State::Active, None),
    };
    (State::CatchingUp, Some(behind))
}

/// The role in words.
pub(in crate::http) fn role(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Leader => "leader",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Learner => "learner",
        ReplicaRole::Down => "down",
    }
}

impl Replica {
    /// The API's word for how it is.
    pub(in crate::http) fn api_state(&self) -> &'static str {
        match (self.state, self.applied) {
            (State::Active, _) => "Active",
            (State::CatchingUp, None) => "Initializing",
            (State::CatchingUp, Some(_)) => "Partial",
            (State::Failed | State::Unreachable, _) => "Dead",
        }
    }

    /// As the API lists it: a coordinator holds no points, so that every replica is remote.
    pub(in crate::http) fn remote_shard(&self) -> Value {
        json!({"shard_id": self.shard, "peer_id": self.node_id, "state": self.api_state()})
    }
}

/// Replicas being filled by their leaders, as the API lists transfers.
pub(in crate::http) fn transfers(replicas: &[Replica]) -> Vec<Value> {
    let filled = replicas.iter().filter(|replica| replica.role == "learner" && replica.state != State::Active);
    let transfer = |to: &Replica| {
        let from = replicas.iter().find(|from| from.shard == to.shard && from.role == "leader")?;
        let ids = (from.node_id, to.node_id);
        Some(json!({
            "shard_id": to.shard,
            "from": ids.0,
            "to": ids.1,
            "sync": true,
            "method": "snapshot",
            "comment": to.reason,
        }))
    };
    filled.filter_map(transfer).collect()
}

#[cfg(test)]
mod tests {
    use vicinal_common::ids::CollectionId;

    use super::*;

    fn status(role: ReplicaRole) -> ReplicaStatus {
        ReplicaStatus { role, ..ReplicaStatus::unknown(ShardId(1), CollectionId(uuid::Uuid::nil())) }
    }

    #[test]
    fn what_is_wrong_with_a_replica_is_said() {
        use ReplicaRole::{Candidate, Down, Follower, Leader, Learner};
        for (role, lag, state, part) in [
            (Leader, Some(0), State::Active, ""),
            (Follower, Some(LAG_ACTIVE_MAX), State::Active, ""),
            (Follower, Some(LAG_ACTIVE_MAX + 1), State::CatchingUp, "1001 log entries behind"),
            (Follower, None, State::CatchingUp, "no leader"),
            (Candidate, Some(0), State::CatchingUp, "asks for votes"),
            (Learner, Some(7), State::CatchingUp, "7 log entries to go"),
            (Down, Some(0), State::Failed, "does not run"),
        ] {
            let (found, reason) = judge(&status(role), lag, false);
            assert_eq!(found, state, "{role:?} {lag:?}");
            assert!(reason.unwrap_or_default().contains(part), "{role:?} {lag:?}");
        }
        let broken = ReplicaStatus { failed: Some("checksum".into()), ..status(Leader) };
        assert_eq!(judge(&broken, Some(0), false), (State::Failed, Some("checksum".into())));
        assert_eq!(judge(&status(Learner), Some(7), true), (State::Active, None), "it is filled");
        let (state, reason) = judge(&status(Learner), Some(LAG_ACTIVE_MAX + 1), true);
        assert_eq!((state, reason.as_deref()), (State::CatchingUp, Some("it is 1001 log entries behind")));
    }
}
