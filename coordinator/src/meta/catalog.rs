//! [`Catalog`]: the metadata as the rest of a coordinator uses it. Reading is local and immediate; changes go through
//! the leader of the metadata group, wherever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use vicinal_common::api::ReplicaRole;
use vicinal_common::clock::Clock;
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::NodeId;
use vicinal_common::raft::{CallError, NetworkFactory, RaftNode};
use vicinal_common::rng::Rng;
use vicinal_common::transport::{Handler, Transport};

use super::command::{MetaCommand, MetaReply, MetaRequest};
use super::network::{PROPOSE, Proposed, WholeSnapshot, handler, propose_here};
use super::raft::{LogId, MetaRaft, MetaTypes, Published};
use super::state::MetaState;
use super::writer::Writer;

/// Longest time one attempt to propose may take; an attempt at a leader that lost its group would wait forever.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Pause between attempts: first and longest.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(250);

/// Longest wait for another coordinator to take over the lead.
const HAND_OVER: Duration = Duration::from_millis(1_000);
/// Free space below which changes are refused: 16 MiB, many times what the store ever writes at once.
const RESERVE_BYTES: u64 = 16 << 20;

/// The metadata group as this coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// This coordinator.
    pub node: NodeId,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Its part in the group.
    pub role: ReplicaRole,
    /// Why it takes no part any more, if so.
    pub stopped: Option<String>,
    /// Its term.
    pub term: u64,
    /// Index of the last entry it has applied.
    pub applied: Option<u64>,
    /// All members by id.
    pub members: BTreeMap<NodeId, RaftNode>,
    /// Those of them that vote.
    pub voters: BTreeSet<NodeId>,
    /// Index of the last entry in its log.
    pub last_log: Option<u64>,
    /// Log entries that each other member misses; known to the leader only.
    pub missing: BTreeMap<NodeId, u64>,
}

/// Handle to the metadata. Clones share it.
#[derive(Clone)]
pub struct Catalog {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) raft: MetaRaft,
    pub(super) published: Arc<Published>,
    pub(super) network: NetworkFactory<WholeSnapshot>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) writer: Arc<Writer>,
    /// The disk that holds the store, when changes are to be refused before it is full.
    pub(super) space: OnceLock<(Arc<dyn Disk>, PathBuf)>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Catalog {
    /// From now on refuses changes while the disk that holds `dir` has less than [`RESERVE_BYTES`] free. A store that
    /// fails a write is not used again, so a change must not find out that the disk is full.
    pub fn guard_space(&self, disk: Arc<dyn Disk>, dir: PathBuf) {
        // Set once: the store does not move.
        let _ = self.inner.space.set((disk, dir));
    }

    fn check_space(&self) -> Result<()> {
        let Some((disk, dir)) = self.inner.space.get() else { return Ok(()) };
        match disk.free_bytes(dir) {
            Ok(free) if free < RESERVE_BYTES => Err(Error::Unavailable(format!(
                "disk is full: {free} bytes are free where the metadata is kept, {RESERVE_BYTES} are needed; free some \
                 space"
            ))),
            // Not known: writing will tell.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The latest state this coordinator has applied.
    pub fn state(&self) -> Arc<MetaState> {
        self.inner.published.state()
    }

    /// Tells of changes: the value is one more than the index of the last applied log entry.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.published.watch()
    }

    /// Answers what other coordinators send to routes that begin with `raft/meta/`.
    pub fn handler(&self) -> Arc<dyn Handler> {
        handler(self.inner.raft.clone())
    }

    /// The time of day by this coordinator's clock, in Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.inner.clock.unix_millis()
    }

    /// Where this coordinator's random numbers come from.
    pub fn rng(&self) -> &dyn Rng {
        &*self.inner.rng
    }

    /// This coordinator's identity in the group.
    pub fn node(&self) -> NodeId {
        NodeId(*self.inner.raft.node_id())
    }

    /// Whether this coordinator leads the group, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// The group.
    pub fn group(&self) -> GroupStatus {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.unwrap_or(0);
        let missing = |(id, matched): (&u64, &Option<LogId>)| {
            (NodeId(*id), last.saturating_sub(matched.as_ref().map_or(0, |matched| matched.index)))
        };
        GroupStatus {
            node: NodeId(metrics.id),
            leader: metrics.current_leader.map(NodeId),
            role: match metrics.state {
                ServerState::Leader => ReplicaRole::Leader,
                ServerState::Follower => ReplicaRole::Follower,
                ServerState::Candidate => ReplicaRole::Candidate,
                ServerState::Learner => ReplicaRole::Learner,
                ServerState::Shutdown => ReplicaRole::Down,
            },
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
            term: metrics.current_term,
            applied: metrics.last_applied.map(|id| id.index),
            members: membership.nodes().map(|(id, node)| (NodeId(*id), node.clone())).collect(),
            voters: membership.voter_ids().map(NodeId).collect(),
            last_log: metrics.last_log_index,
            missing: metrics.replication.iter().flatten().map(missing).collect(),
        }
    }

    pub(super) fn raft(&self) -> &MetaRaft {
        &self.inner.raft
    }

    /// Proposes a command and waits until it is applied here. Finds the leader and repeats until the deadline; however
    /// often it is sent, it is applied once. `Timeout` leaves open whether it will be.
    pub async fn propose(&self, command: MetaCommand, deadline: Instant) -> Result<MetaReply> {
        self.check_space()?;
        let request = MetaRequest { request: self.inner.rng.request_id(), command };
        let mut pause = PAUSE_FIRST;
        let mut last_error = "the metadata group has no leader at the moment".to_string();
        let mut leader = None;
        loop {
            let attempt = deadline.min(Instant::now() + ATTEMPT);
            match timeout_at(attempt, self.propose_at(leader, request.clone(), attempt)).await {
                Ok(Ok(Proposed::Applied { reply, index })) => {
                    self.wait_applied(index, deadline).await?;
                    return Ok(reply);
                }
                Ok(Ok(Proposed::NotLeader { leader: hint })) => {
                    let first_try = leader.is_none() && hint.is_some();
                    leader = hint;
                    if first_try {
                        continue;
                    }
                }
                Ok(Err(error)) => (leader, last_error) = (None, error),
                Err(_) => (leader, last_error) = (None, "the metadata group did not agree in time".into()),
            }
            if let Some(stopped) = self.stopped() {
                return Err(Error::Unavailable(format!("this coordinator keeps no metadata any more: {stopped}")));
            }
            let next = Instant::now() + pause;
            if next >= deadline {
                return Err(Error::Timeout(format!("the change was not confirmed in time: {last_error}")));
            }
            sleep_until(next).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// Like [`Catalog::propose`], for commands whose only answer is that they took effect.
    pub async fn change(&self, command: MetaCommand, deadline: Instant) -> Result<()> {
        match self.propose(command, deadline).await? {
            MetaReply::Done => Ok(()),
            MetaReply::Refused(error) => Err(error),
            MetaReply::ShardIdsTaken { next_shard } => {
                Err(Error::Internal(format!("shard ids below {next_shard} are taken, which this command has none of")))
            }
        }
    }

    async fn propose_at(
        &self,
        leader: Option<u64>,
        request: MetaRequest,
        until: Instant,
    ) -> std::result::Result<Proposed, String> {
        let raft = &self.inner.raft;
        let Some(leader) = leader.filter(|leader| leader != raft.node_id()) else {
            return propose_here(raft, request).await;
        };
        let Some(node) = self.group().members.remove(&NodeId(leader)) else {
            return Ok(Proposed::NotLeader { leader: None });
        };
        let within = until.saturating_duration_since(Instant::now());
        let answer = self.inner.network.link(leader, node.address).call(PROPOSE, &request, within).await;
        answer.map_err(|error: CallError| error.to_string())
    }

    pub(super) async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<()> {
        let mut applied = self.changed();
        let reached = timeout_at(deadline, applied.wait_for(|applied| *applied > index)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            // It took effect, but this coordinator has not heard of it yet.
            Ok(Err(_)) | Err(_) => Err(Error::Timeout("the change is made but not yet visible here".into())),
        }
    }

    fn stopped(&self) -> Option<String> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Gives the lead to the voter that is furthest, if this coordinator leads and is not alone. Waits a moment for it.
    pub async fn hand_over(&self) {
        let group = self.group();
        let others = group.voters.iter().filter(|voter| **voter != group.node);
        let missing = |voter: &&NodeId| group.missing.get(voter).copied().unwrap_or(u64::MAX);
        let Some(to) = others.min_by_key(missing).filter(|_| self.is_leader()) else { return };
        if self.inner.raft.trigger().transfer_leader(to.0).await.is_ok() {
            let gone = |m: &openraft::RaftMetrics<MetaTypes>| m.current_leader != Some(m.id);
            // When nobody takes over in time, the others elect a leader by themselves.
            let _ = self.inner.raft.wait(Some(HAND_OVER)).metrics(gone, "hand over the lead").await;
        }
    }

    /// Stops taking part, writes what is to be written and closes the store.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "the metadata group's task did not end well");
        }
        let writer = self.inner.writer.clone();
        if let Err(error) = exec::blocking(move || writer.close()).await {
            tracing::error!(%error, "the metadata store was not closed");
        }
    }
}
