//! Who is in a shard's group: what a replica knows of it, and changing it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use openraft::async_runtime::watch::WatchReceiver;

use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, RaftMetrics, ServerState};
use vicinal_common::api::{ChangeMembers as Wanted, MembersChange, ReplicaRole, ReplicaStatus};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, NodeId};
use vicinal_common::raft::RaftNode;
use vicinal_common::transport::Address;

use super::command::ShardRaft;
use super::group::{Group, STARTING, State};

/// A learner gets its vote, or counts as filled, once it misses no more entries than this: the last ones arrive while the
/// change is agreed on.
const CAUGHT_UP_ENTRIES: u64 = 64;

type Metrics = RaftMetrics<ShardRaft>;

impl Group {
    /// State for people and for the reconciler.
    pub fn status(&self) -> ReplicaStatus {
        let stats = self.shard().stats();
        let spec = self.shard().spec();
        let mut status = ReplicaStatus {
            applied: self.applied.borrow().unwrap_or_default(),
            points: stats.points,
            indexed_vectors: stats.indexed_vectors,
            waiting_vectors: stats.waiting_vectors,
            segments: stats.segments,
            fresh_rows: stats.fresh_rows,
            disk_bytes: stats.disk_bytes,
            tuning: stats.tuning,
            payload: stats.payload,
            optimizing: stats.optimizing,
            builds: stats.builds,
            failed: stats.failed,
            searches: self.shard().paces().searches.load(Ordering::Relaxed),
            ..ReplicaStatus::unknown(spec.shard, spec.collection)
        };
        let view = self.shard().view();
        if let Some(publisher) = self.publisher() {
            status.publish = publisher.status(&view);
        }
        match &*self.state.borrow() {
            State::Up(raft) => describe(&raft.metrics().borrow_watched().clone(), &mut status),
            State::Starting => status.failed = Some(STARTING.to_owned()),
            State::Down(words) | State::Failed(words) => status.failed = Some(words.clone()),
        }
        // What any replica knows: its state says so.
        status.publish.published = status.publish.published.max(view.feed().published);
        status.publish.maps = view.maps();
        status
    }

    /// Brings the members one step nearer to what is wanted. `WrongLeader` when this replica does not lead.
    pub async fn change_members(&self, wanted: &Wanted) -> Result<MembersChange> {
        let Wanted { shard: _, voters, learners, filled } = wanted;
        if voters.is_empty() {
            return Err(Error::BadInput(format!("shard {} must keep at least one replica that votes", self.id())));
        }
        if let Some(node) = learners.keys().find(|node| voters.contains_key(node)) {
            return Err(Error::BadInput(format!("shard {}: node {node} cannot be voter and learner", self.id())));
        }
        let raft = self.raft()?;
        let metrics = raft.metrics().borrow_watched().clone();
        if metrics.current_leader != Some(metrics.id) {
            let hint = metrics.current_leader.map(NodeId);
            return Err(Error::WrongLeader { shard: self.id(), hint, term: metrics.current_term });
        }
        let mut status = self.status();
        if let Some(node) = learners.keys().find(|node| status.voters.contains_key(node)) {
            return Err(Error::Conflict(format!("shard {}: node {node} votes, which is not taken away", self.id())));
        }
        let known = |node: &NodeId| status.voters.get(node).or_else(|| status.learners.get(node)).cloned();
        let set: BTreeMap<u64, RaftNode> = voters
            .iter()
            .chain(learners)
            .filter(|(node, address)| known(node).as_ref() != Some(*address))
            .map(|(node, address)| (node.0, member(*node, address)))
            .collect();
        if !set.is_empty() {
            // A member that moved keeps its identity, which every message names: another process at the old address
            // does not answer for it.
            self.agreed(raft.change_membership(ChangeMembers::SetNodes(set), true).await.map(|_| ()))?;
            status = self.status();
        }
        let new = voters.keys().filter(|node| !status.voters.contains_key(node));
        if let Some(entries) = most_behind(&status, new) {
            return Ok(MembersChange::CatchingUp { entries });
        }
        let is_joint = metrics.membership_config.membership().get_joint_config().len() > 1;
        if is_joint || !status.voters.keys().eq(voters.keys()) {
            // Those that lose their vote leave the group; learners stay in it.
            let voters: BTreeSet<u64> = voters.keys().map(|node| node.0).collect();
            self.agreed(raft.change_membership(voters, false).await.map(|_| ()))?;
            status = self.status();
        }
        let is_wanted = |node: &NodeId| voters.contains_key(node) || learners.contains_key(node);
        let strays: BTreeSet<u64> = status.learners.keys().filter(|node| !is_wanted(node)).map(|node| node.0).collect();
        if !strays.is_empty() {
            self.agreed(raft.change_membership(ChangeMembers::RemoveNodes(strays), false).await.map(|_| ()))?;
        }
        let filled = filled.iter().filter(|node| learners.contains_key(node));
        let behind = most_behind(&status, filled);
        Ok(behind.map_or(MembersChange::Done, |entries| MembersChange::CatchingUp { entries }))
    }

    fn agreed(&self, result: Result<(), RaftError<ShardRaft, ClientWriteError<ShardRaft>>>) -> Result<()> {
        let shard = self.id();
        match result {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(
                ClientWriteError::ForwardToLeader(to) | ClientWriteError::LogEntryDiscarded(to),
            )) => Err(Error::WrongLeader { shard, hint: to.leader_id.map(NodeId), term: 0 }),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                busy @ ChangeMembershipError::InProgress(_),
            ))) => Err(Error::Unavailable(format!("shard {shard}: {busy}; try again"))),
            Err(RaftError::APIError(error)) => Err(Error::Internal(format!("shard {shard}: {error}"))),
            Err(RaftError::Fatal(error)) => Err(self.fatal(&error)),
        }
    }
}

/// What the one of `nodes` furthest behind misses of the leader's log, when it has not caught up.
fn most_behind<'a>(status: &ReplicaStatus, nodes: impl Iterator<Item = &'a NodeId>) -> Option<u64> {
    let missing = nodes.filter_map(|node| {
        let matched = status.matched.get(node).copied().unwrap_or_default();
        let missing = status.last_log.0.saturating_sub(matched.0);
        // In a short log one that was never reached misses little, too.
        (missing > CAUGHT_UP_ENTRIES || matched == LogIndex(0)).then_some(missing)
    });
    missing.max()
}

/// A member as the membership entry names it.
pub(super) fn member(node: NodeId, address: &Address) -> RaftNode {
    RaftNode { name: format!("node {node}"), address: address.clone() }
}

/// What raft says of itself.
fn describe(metrics: &Metrics, status: &mut ReplicaStatus) {
    status.role = match metrics.state {
        ServerState::Leader => ReplicaRole::Leader,
        ServerState::Follower => ReplicaRole::Follower,
        ServerState::Candidate => ReplicaRole::Candidate,
        ServerState::Learner => ReplicaRole::Learner,
        ServerState::Shutdown => ReplicaRole::Down,
    };
    status.leader = metrics.current_leader.map(NodeId);
    status.term = metrics.current_term;
    status.last_log = LogIndex(metrics.last_log_index.unwrap_or_default());
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    for (node, info) in membership.nodes() {
        let members = if voters.contains(node) { &mut status.voters } else { &mut status.learners };
        members.insert(NodeId(*node), info.address.clone());
    }
    let others = metrics.replication.iter().flatten().filter(|(node, _)| **node != metrics.id);
    for (node, matched) in others {
        let index = matched.as_ref().map_or(0, |id| id.index);
        status.matched.insert(NodeId(*node), LogIndex(index));
    }
}

#[cfg(test)]
mod tests;
