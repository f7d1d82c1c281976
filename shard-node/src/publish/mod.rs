//! Publishing: the leader of a home shard sends what it has applied to the search shards where the maps in force place
//! it, and a write is acknowledged once what it wrote can be found there.
//!
//! Nothing of this is written down but a mark. What is sent follows from the state: rows with versions above the mark,
//! and for filling the older ones by their ids. So a new leader, a retry or a message sent twice leads to the same
//! copies. docs/designs/routing-by-cluster.md has the protocol and why it is right.

mod fill;
mod gone;
mod lane;
mod lead;
mod limits;
mod maps;
mod plan;
mod queue;
mod round;
mod session;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
mod waiters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use vicinal_common::api::{NodeDirectory, WriteAck, WriteOp};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, MapVersion, NodeId, ShardId};
use vicinal_common::publish::{Copies, Filled, PublishStatus, TargetStatus};
use vicinal_common::rng::Rng;
use vicinal_common::telemetry;

use self::round::Standing;
use self::session::{LaneKey, Session};
pub use self::sweep::SweepOptions;
use self::waiters::{Ticket, Waiters};
use crate::node::MapStore;
use crate::raft::Group;
use crate::shard::View;

/// Longest time a write waits for its copies: less than coordinators wait for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// So much before its deadline it ends anyway, to say why.
const MARGIN: Duration = Duration::from_millis(100);
/// Writes are refused while so many rows are not published.
const UNPUBLISHED_MAX: u64 = 200_000;
/// Writes are refused while so many bytes wait for search shards.
const WAITING_BYTES_MAX: usize = 128 << 20;

/// What publishing needs of the node.
#[derive(Clone)]
pub(crate) struct Around {
    /// The home shard's group.
    pub(crate) group: Arc<Group>,
    /// This node.
    pub(crate) node: NodeId,
    /// The way to nodes with search shards.
    pub(crate) peers: NodeDirectory,
    /// The node's maps.
    pub(crate) maps: Arc<MapStore>,
    /// Identities of messages.
    pub(crate) rng: Arc<dyn Rng>,
}

/// The publisher of one home shard's replica. Idle unless that leads and there are maps in force.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Where a write can be found, and by which map.
type Found = (Vec<(ShardId, LogIndex)>, MapVersion);

/// What the task, its lanes and those who wait share. The lock is never held for long.
struct Shared {
    state: Mutex<State>,
    /// Whether there is a session: all that a write costs where nothing is published.
    is_leading: AtomicBool,
    /// Wakes the task.
    wake: Notify,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    waiters: Waiters<oneshot::Sender<Result<Found>>>,
    /// Why nothing can be published now, in words.
    obstacle: Option<String>,
}

impl State {
    /// Tells those whose writes are where they belong.
    fn release(&mut self) {
        let Some(session) = &self.session else { return };
        for (waiter, copies) in self.waiters.release(&session.rounds) {
            // It may have stopped waiting.
            let _ = waiter.send(Ok((copies, session.oldest)));
        }
    }

    /// Why the write at this position is not acknowledged yet.
    fn why(&self, index: LogIndex) -> Error {
        const SAFE: &str = "it will; repeating the write is safe";
        let standing = self.session.as_ref().map(|session| (session, session.rounds.standing(index)));
        let stuck = standing.and_then(|(session, standing)| match standing {
            Standing::Waits(Some(shard)) => Some((shard, session.rounds.trouble(shard))),
            Standing::Waits(None) | Standing::Done(_) => None,
        });
        match (stuck, &self.obstacle) {
            (Some((shard, Some(Error::Overloaded(words)))), _) => Error::Overloaded(format!(
                "stored, but search shard {shard} has not taken its copy yet ({words}): {SAFE}"
            )),
            (Some((shard, Some(trouble))), _) => Error::Timeout(format!(
                "stored, but search shard {shard} has not taken its copy yet ({trouble}): {SAFE}"
            )),
            (Some((shard, None)), _) => {
                Error::Timeout(format!("stored, but search shard {shard} has not taken its copy yet: {SAFE}"))
            }
            (None, Some(obstacle)) => Error::Timeout(format!("stored, but not published yet ({obstacle}): {SAFE}")),
            (None, None) => Error::Timeout(format!("stored, but not published yet: {SAFE}")),
        }
    }
}

impl Shared {
    fn end(&self, mut outcome: impl FnMut() -> Result<Found>) {
        let mut state = self.state.lock();
        state.session = None;
        self.is_leading.store(false, Ordering::Relaxed);
        for waiter in state.waiters.drain() {
            let _ = waiter.send(outcome());
        }
    }

    /// Ends the session; those who wait go on waiting for the next one.
    fn pause(&self) {
        self.state.lock().session = None;
        self.is_leading.store(false, Ordering::Relaxed);
    }

    fn set_obstacle(&self, obstacle: Option<String>) {
        self.state.lock().obstacle = obstacle;
    }

    /// Does something to the session, if there is one.
    fn with<T>(&self, work: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let done = state.session.as_mut().map(work);
        state.release();
        done
    }

    /// Whether a lane shall go on.
    fn has(&self, lane: &LaneKey) -> bool {
        self.state.lock().session.as_ref().is_some_and(|session| session.has(lane))
    }

    /// Looks at the session, if there is one.
    fn peek<T>(&self, look: impl FnOnce(&Session) -> T) -> Option<T> {
        self.state.lock().session.as_ref().map(look)
    }

    /// The next message of a lane.
    fn take(&self, lane: &LaneKey) -> Option<Copies> {
        let mut state = self.state.lock();
        let session = state.session.as_mut().filter(|session| session.has(lane))?;
        session.rounds.take(lane.shard, Instant::now())
    }

    /// The message of a lane is committed.
    fn done(&self, lane: &LaneKey, index: LogIndex) {
        let wants_more = self.with(|session| session.has(lane) && session.done(lane.shard, index));
        if wants_more == Some(true) {
            self.wake.notify_one();
        }
    }

    /// The message of a lane is not committed yet.
    fn failed(&self, lane: &LaneKey, error: Error, cut_since: Option<Instant>) {
        let mut state = self.state.lock();
        if let Some(session) = state.session.as_mut().filter(|session| session.has(lane)) {
            session.failed(lane.shard, error, cut_since);
        }
    }
}

/// One that waits; forgotten when it stops.
struct Waiting<'a> {
    shared: &'a Shared,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().waiters.remove(self.ticket);
    }
}

impl Publisher {
    /// Starts the publisher of a home shard's replica. It ends with the group.
    pub(crate) fn start(around: Around) -> Arc<Publisher> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), is_leading: AtomicBool::new(false), wake: Notify::new() });
        let task = tokio::spawn(lead::run(shared.clone(), around));
        Arc::new(Publisher { shared, task: Mutex::new(Some(task)) })
    }

    /// Returns once it has ended, which the group's end makes it do.
    pub(crate) async fn ended(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It may have panicked: then it has ended.
            let _ = task.await;
        }
    }

    /// `Overloaded` while search shards cannot keep up.
    pub(crate) fn admit(&self, home: ShardId) -> Result<()> {
        if !self.shared.is_leading.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = self.shared.state.lock();
        let Some(session) = &state.session else { return Ok(()) };
        let (rows, bytes) = (session.rounds.unpublished(), session.rounds.bytes());
        if rows > UNPUBLISHED_MAX {
            return Err(Error::Overloaded(format!(
                "search shards have not taken {rows} points of shard {home} yet, the limit is {UNPUBLISHED_MAX}: write \
                 more slowly"
            )));
        }
        if bytes > WAITING_BYTES_MAX {
            return Err(Error::Overloaded(format!(
                "{bytes} bytes of shard {home} wait for search shards, the limit is {WAITING_BYTES_MAX}: write more \
                 slowly"
            )));
        }
        Ok(())
    }

    /// Completes the acknowledgement of a write that is applied: waits until the points it wrote, or what has replaced
    /// them since, are committed in all their places. Costs a look at the view where nothing is published.
    pub(crate) async fn acknowledge(
        &self,
        group: &Group,
        ack: WriteAck,
        is_awaited: bool,
        deadline: Instant,
    ) -> Result<WriteAck> {
        let view = group.shard().view();
        // What is older than all maps in force is for filling. A retry is acknowledged as its first application was.
        let Some(oldest) = view.feed().targets.first().filter(|oldest| oldest.since <= ack.index) else {
            return Ok(ack);
        };
        if !is_awaited {
            // It may have begun publishing by a map, or ended that.
            self.shared.wake.notify_one();
            return Ok(WriteAck { map: oldest.map.version, ..ack });
        }
        let began = Instant::now();
        let (copies, map) = self.wait(group, ack.index, deadline.min(began + PATIENCE + MARGIN) - MARGIN).await?;
        telemetry::instruments().publish.waited(began.elapsed());
        Ok(WriteAck { copies, map, ..ack })
    }

    async fn wait(&self, group: &Group, index: LogIndex, until: Instant) -> Result<Found> {
        let (sender, receiver) = oneshot::channel();
        let waiting = {
            let mut state = self.shared.state.lock();
            match &state.session {
                Some(session) => {
                    if let Standing::Done(copies) = session.rounds.standing(index) {
                        return Ok((copies, session.oldest));
                    }
                }
                None if !group.leads() => return Err(group.led_elsewhere()),
                // It is about to begin.
                None => self.shared.wake.notify_one(),
            }
            Waiting { shared: &self.shared, ticket: state.waiters.add(index, sender) }
        };
        let ended = timeout_at(until, receiver).await;
        match ended {
            Ok(Ok(found)) => found,
            // The task has panicked, or ends.
            Ok(Err(_)) => Err(group.led_elsewhere()),
            Err(_) => {
                let why = waiting.shared.state.lock().why(index);
                Err(why)
            }
        }
    }

    /// How far it is. What only the leader knows is what the log says elsewhere.
    pub(crate) fn status(&self, view: &View) -> PublishStatus {
        let state = self.shared.state.lock();
        let session = state.session.as_ref();
        let feed = view.feed();
        let published = session.map_or(feed.published, |session| session.rounds.published().max(feed.published));
        let targets = feed.targets.iter().map(|target| {
            let version = target.map.version;
            let (filled, rows_filled) = session.map_or((target.filled, 0), |session| session.fill.of(version));
            let is_filled = filled.max(target.filled) == Filled::Done && published >= target.since;
            TargetStatus { version, is_filled, rows_filled }
        });
        PublishStatus {
            targets: targets.collect(),
            behind: session.map_or(0, |_| view.applied().0.saturating_sub(published.0)),
            ..PublishStatus::default()
        }
    }
}

/// Whether what a write did has to be found by searches before it is acknowledged. Copies of deleted points are not
/// shown.
pub(crate) fn is_awaited(op: &WriteOp) -> bool {
    match op {
        WriteOp::Upsert(_)
        | WriteOp::ConditionalUpsert { .. }
        | WriteOp::UpdateVectors { .. }
        | WriteOp::Edit { .. } => true,
        WriteOp::Delete(_) | WriteOp::DeleteByFilter(_) | WriteOp::Copies(_) | WriteOp::Maps(_) | WriteOp::Feed(_) => {
            false
        }
    }
}
