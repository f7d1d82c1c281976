//! A shard's raft group as the rest of the node uses it: found, write, wait, answer the network.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, LinearizableReadError, RaftError};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use vicinal_common::api::WriteAck;
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, MapVersion, NodeId, ShardId};
use vicinal_common::raft::{RaftNode, serve};
use vicinal_common::rng::Rng;
use vicinal_common::transport::{Address, Transport};

use super::command::{Command, ShardRaft};
use super::fault::Fault;
use super::lead::Waiting;
use super::log_store::LogStore;
use super::machine::Machine;
use super::members::member;
use super::snapshot::Receiver;
use super::transfer::serve_transfer;
use crate::log::GroupLog;
use crate::publish::Publisher;
use crate::room::DiskRoom;
use crate::shard::{LoggedWrite, Shard};

pub(super) type Raft = openraft::Raft<ShardRaft, Machine>;

/// How long a read waits for a replica that is behind while another one may be further.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// Why a replica that was not tried yet does not serve.
pub(super) const STARTING: &str = "the replica is starting";

/// Longest wait for another replica to take over the lead.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Writes of one group that may be under way at a time.
const WRITES_MAX: usize = 1_024;

/// Settings of a group.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// The shard is asked to seal its fresh part when about this many bytes of log are needed to replay it. More: fewer
    /// small segments under small writes, longer starts.
    pub replay_bytes_max: u64,
    /// Entries that the shard no longer needs are kept for replicas that are behind until the group's log holds this
    /// many bytes; then such a replica gets a snapshot. More: more disk, fewer transfers of whole shards.
    pub keep_bytes_max: u64,
}

impl Default for GroupOptions {
    fn default() -> GroupOptions {
        GroupOptions { replay_bytes_max: 64 << 20, keep_bytes_max: 128 << 20 }
    }
}

/// What a group is made from.
pub struct GroupParts {
    /// This node.
    pub node: NodeId,
    /// The replica.
    pub shard: Arc<Shard>,
    /// Its part of the node's log.
    pub log: GroupLog,
    /// Where snapshots are read from and written to.
    pub disk: Arc<dyn Disk>,
    /// The way to the other replicas.
    pub transport: Arc<dyn Transport>,
    /// Names of snapshot transfers.
    pub rng: Arc<dyn Rng>,
    /// Whether the disk has room.
    pub room: Arc<DiskRoom>,
    /// Settings.
    pub options: GroupOptions,
}

/// Whether raft runs, and why not.
#[derive(Clone)]
pub(super) enum State {
    /// It was not tried yet.
    Starting,
    /// Not at the moment, or, while reads go on, not any more; in words.
    Down(String),
    /// It runs.
    Up(Raft),
    /// It will not run again in this process; in words.
    Failed(String),
}

/// The replica of one shard with its raft group.
pub struct Group {
    pub(super) parts: GroupParts,
    pub(super) state: watch::Sender<State>,
    pub(super) applied: watch::Sender<Option<LogIndex>>,
    /// All that this replica may have applied before a restart is applied again: reads cannot go back in time.
    pub(super) recovered: watch::Sender<bool>,
    pub(super) fault: Arc<Fault>,
    /// Kept over restarts of raft, because it holds the newest committed position.
    pub(super) store: LogStore,
    pub(super) receiver: Receiver,
    /// Wakes the maintenance: a new durable position, or the node's log is too long.
    pub(super) wake: Arc<Notify>,
    /// The node's log is too long, and this group holds its oldest file.
    pub(super) pressed: AtomicBool,
    pub(super) stop: CancellationToken,
    writes: Semaphore,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Of a home shard's replica, once it is started.
    pub(super) publisher: OnceLock<Arc<Publisher>>,
}

impl Group {
    /// Starts the group. It replays its log in the background: see [`Group::started`].
    pub fn start(parts: GroupParts) -> Arc<Group> {
        let fault = Arc::new(Fault::default());
        let wake = Arc::new(Notify::new());
        let waker = wake.clone();
        parts.shard.on_durable(Box::new(move |_| waker.notify_one()));
        let receiver = Receiver { shard: parts.shard.clone(), disk: parts.disk.clone(), incoming: Arc::default() };
        let group = Arc::new(Group {
            state: watch::Sender::new(State::Starting),
            applied: watch::Sender::new(parts.shard.applied().map(|mark| mark.index)),
            recovered: watch::Sender::new(false),
            store: LogStore::new(parts.log.clone(), fault.clone()),
            fault,
            receiver,
            wake,
            pressed: AtomicBool::new(false),
            stop: CancellationToken::new(),
            writes: Semaphore::new(WRITES_MAX),
            task: Mutex::new(None),
            publisher: OnceLock::new(),
            parts,
        });
        let task = tokio::spawn(super::supervise::supervise(group.clone()));
        *group.task.lock() = Some(task);
        group
    }

    /// The replica's data.
    pub fn shard(&self) -> &Arc<Shard> {
        &self.parts.shard
    }

    /// Its part of the node's log.
    #[cfg(test)]
    pub(crate) fn log(&self) -> &GroupLog {
        &self.parts.log
    }

    /// The shard.
    pub fn id(&self) -> ShardId {
        self.parts.shard.spec().shard
    }

    /// Returns once the log is replayed as far as it is known to be committed, or could not be at the first attempt: a
    /// replica that waits for room on the disk must not keep the others of its node from serving.
    pub async fn started(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as the group.
        let _ = state.wait_for(|state| !matches!(state, State::Starting)).await;
    }

    /// Why the replica does not run.
    pub fn failed(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Failed(words) => Some(words.clone()),
            State::Starting | State::Down(_) | State::Up(_) => None,
        }
    }

    pub(super) fn raft(&self) -> Result<Raft> {
        let shard = self.id();
        match &*self.state.borrow() {
            State::Up(raft) => Ok(raft.clone()),
            State::Starting => Err(Error::Unavailable(format!("shard {shard}: {STARTING}"))),
            State::Down(words) => Err(Error::Unavailable(format!("shard {shard}: {words}"))),
            State::Failed(words) => Err(Error::Unavailable(format!("shard {shard} has stopped: {words}"))),
        }
    }

    /// Founds the group with its first voters; one that is founded already is left alone.
    pub async fn found(&self, voters: &BTreeMap<NodeId, Address>) -> Result<()> {
        let voters = voters.iter().map(|(node, address)| (node.0, member(*node, address)));
        let members: BTreeMap<u64, RaftNode> = voters.collect();
        match self.raft()?.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                let (node, shard) = (self.parts.node, self.id());
                Err(Error::BadInput(format!(
                    "node {node} is asked to found shard {shard} but is not one of its voters"
                )))
            }
            Err(RaftError::Fatal(e)) => Err(self.fatal(&e)),
        }
    }

    /// Whether a write may be proposed: the replica works, is not overloaded and has room.
    pub fn admit(&self) -> Result<()> {
        self.raft()?;
        self.parts.shard.admit()
    }

    /// Proposes a write and waits until it is durable on a majority and applied here. After `Timeout` it may still
    /// take place; the same request can be repeated.
    pub async fn write(&self, write: LoggedWrite, deadline: Instant) -> Result<WriteAck> {
        let Ok(_place) = self.writes.try_acquire() else {
            let shard = self.id();
            return Err(Error::Overloaded(format!("shard {shard} has {WRITES_MAX} writes under way; try again")));
        };
        let command = Command(Arc::new(write));
        let mut waiting = Waiting::new(deadline, self.is_alone());
        loop {
            let raft = self.raft()?;
            let Ok(answer) = timeout_at(deadline, raft.client_write(command.clone())).await else {
                return Err(Error::Timeout(format!(
                    "shard {} did not confirm the write in time; it may still take place, repeating it is safe",
                    self.id()
                )));
            };
            match answer {
                Ok(done) => {
                    let term = done.log_id.committed_leader_id().term;
                    let (index, effect) = (done.data.index, done.data.outcome?);
                    return Ok(WriteAck { index, term, effect, copies: Vec::new(), map: MapVersion(0) });
                }
                // The entry may still be committed by the new leader: the request table makes the retry safe.
                Err(RaftError::APIError(
                    ClientWriteError::ForwardToLeader(to) | ClientWriteError::LogEntryDiscarded(to),
                )) => waiting.for_leader(self, &to).await?,
                Err(RaftError::APIError(e)) => return Err(Error::Internal(format!("shard {}: {e}", self.id()))),
                Err(RaftError::Fatal(e)) => return Err(self.fatal(&e)),
            }
        }
    }

    /// Returns once this replica, as the leader, has confirmed with a majority that it leads and has applied all that
    /// was committed when it was asked.
    pub async fn linearize(&self, deadline: Instant) -> Result<()> {
        let mut waiting = Waiting::new(deadline, self.is_alone());
        loop {
            let raft = self.raft()?;
            let Ok(answer) = timeout_at(deadline, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await else {
                return Err(self.no_majority());
            };
            match answer {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                    waiting.for_leader(self, &to).await?;
                }
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => return Err(self.no_majority()),
                Err(RaftError::Fatal(e)) => return Err(self.fatal(&e)),
            }
        }
    }

    fn no_majority(&self) -> Error {
        Error::Unavailable(format!("shard {}: a majority of the replicas did not answer in time", self.id()))
    }

    /// Returns once the replica has recovered what it held before a restart and has applied the log up to `floor`. Where
    /// there are other replicas it gives up early enough to leave time for asking them.
    pub async fn wait_applied(&self, floor: LogIndex, deadline: Instant) -> Result<()> {
        if let Some(words) = self.failed() {
            return Err(Error::Unavailable(format!("shard {} has stopped: {words}", self.id())));
        }
        let mut recovered = self.recovered.subscribe();
        let mut applied = self.applied.subscribe();
        let reached = async {
            let _ = recovered.wait_for(|recovered| *recovered).await;
            let _ = applied.wait_for(|applied| applied.is_some_and(|index| index >= floor)).await;
        };
        let now = Instant::now();
        let patience = READ_PATIENCE.min(deadline.saturating_duration_since(now) / 2);
        let until = if self.is_alone() { deadline } else { now + patience };
        timeout_at(until, reached).await.map_err(|_| {
            let (shard, at) = (self.id(), *self.applied.borrow());
            let at = at.map_or("nothing".into(), |index| format!("log index {index}"));
            Error::Timeout(format!(
                "this replica of shard {shard} has applied {at}, the read asks for log index {floor}"
            ))
        })
    }

    /// Answers a request of another replica; `None` when there is no such call.
    pub async fn handle(&self, name: &str, body: &[u8]) -> Option<Bytes> {
        let raft = self.raft().ok()?;
        match serve_transfer(&self.receiver, &raft, name, body).await {
            Some(answer) => Some(answer),
            None => serve(&raft, name, body).await,
        }
    }

    /// Asks the group to let go of old log entries: the node's log is too long.
    pub fn press(&self) {
        self.pressed.store(true, std::sync::atomic::Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether nobody else votes. A learner is never alone: it follows somebody.
    pub(super) fn is_alone(&self) -> bool {
        let state = self.state.borrow();
        let State::Up(raft) = &*state else { return false };
        let own = self.parts.node.0;
        raft.voter_ids().all(|voter| voter == own)
    }

    /// Gives the lead to the replica that is the furthest, if this one leads and is not alone. Waits a moment for it.
    pub async fn hand_over(&self) {
        let Ok(raft) = self.raft() else { return };
        let metrics = raft.metrics().borrow_watched().clone();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let followers =
            metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id && voters.contains(*id));
        let Some((to, _)) = followers.max_by_key(|(_, matched)| **matched) else { return };
        if raft.trigger().transfer_leader(*to).await.is_ok() {
            let gone = |m: &openraft::RaftMetrics<ShardRaft>| m.current_leader != Some(m.id);
            // When nobody takes over in time, the others elect a leader by themselves.
            let _ = raft.wait(Some(HAND_OVER_TIMEOUT)).metrics(gone, "hand over the lead").await;
        }
    }

    /// A leader whose shard refuses writes for good refuses them for the whole group: another replica takes over.
    pub(super) async fn step_aside(&self) {
        if self.parts.shard.failure().is_some() {
            self.hand_over().await;
        }
    }

    /// Begins to stop, without waiting.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Stops raft. The shard stays open. Entries that were acknowledged are in the log.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(publisher) = self.publisher.get() {
            publisher.ended().await;
        }
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    pub(super) fn fatal(&self, error: &Fatal<ShardRaft>) -> Error {
        if self.stop.is_cancelled() {
            return Error::Unavailable(format!("shard {}: the replica is being stopped", self.id()));
        }
        // The supervisor says more in the replica's status once it has looked at the cause.
        Error::Unavailable(format!("shard {}: raft has stopped ({error}); it is being started again", self.id()))
    }
}
