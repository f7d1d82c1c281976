//! Who leads a group, as far as its replica knows, and what depends on leading.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ForwardToLeader;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, NodeId};

use super::command::ShardRaft;
use super::group::Group;
use crate::publish::{Around, Publisher};

/// How long a replica of a replicated shard looks for a leader before it tells the caller to ask elsewhere.
const LEADER_PATIENCE: Duration = Duration::from_secs(2);
/// Pauses while there is no leader: first and longest.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LONGEST: Duration = Duration::from_millis(100);

impl Group {
    /// Starts what publishes while this replica leads: of a home shard.
    pub(crate) fn start_publisher(self: &Arc<Self>, around: Around) {
        self.publisher.get_or_init(|| Publisher::start(around));
    }

    /// What publishes, of a home shard.
    pub(crate) fn publisher(&self) -> Option<&Arc<Publisher>> {
        self.publisher.get()
    }

    /// The term in which this replica leads, if it does, as far as it knows.
    pub(crate) fn leading(&self) -> Option<u64> {
        let metrics = self.raft().ok()?.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(metrics.current_term)
    }

    /// Whether this replica leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.leading().is_some()
    }

    /// Returns once this replica does not lead.
    pub(crate) async fn leads_no_more(&self) {
        let Ok(raft) = self.raft() else { return };
        let mut metrics = raft.server_metrics();
        while metrics.borrow_watched().state == ServerState::Leader {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Who leads instead of this replica, as an answer.
    pub(crate) fn led_elsewhere(&self) -> Error {
        let metrics = self.raft().ok().map(|raft| raft.metrics().borrow_watched().clone());
        let leader = metrics.as_ref().and_then(|metrics| metrics.current_leader).map(NodeId);
        let hint = leader.filter(|leader| *leader != self.parts.node);
        Error::WrongLeader { shard: self.id(), hint, term: metrics.map_or(0, |metrics| metrics.current_term) }
    }

    /// Tells of each position that is applied, once a view shows it.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<Option<LogIndex>> {
        self.applied.subscribe()
    }

    /// Cancelled when the group stops.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }
}

/// Patience while no leader is known.
pub(super) struct Waiting {
    until: Instant,
    deadline: Instant,
    pause: Duration,
}

impl Waiting {
    /// A lone replica can only wait for itself; with others, the caller had better ask another one.
    pub(super) fn new(deadline: Instant, alone: bool) -> Waiting {
        let until = if alone { deadline } else { deadline.min(Instant::now() + LEADER_PATIENCE) };
        Waiting { until, deadline, pause: PAUSE_FIRST }
    }

    /// Pauses when the leader may appear here; otherwise says who leads.
    pub(super) async fn for_leader(&mut self, group: &Group, to: &ForwardToLeader<ShardRaft>) -> Result<()> {
        let elsewhere = to.leader_id.map(NodeId).filter(|leader| *leader != group.parts.node);
        let now = Instant::now();
        if elsewhere.is_some() || now >= self.until {
            let term = group.raft().map_or(0, |raft| raft.metrics().borrow_watched().current_term);
            if elsewhere.is_none() && now >= self.deadline {
                return Err(Error::Timeout(format!("shard {} has no leader", group.id())));
            }
            return Err(Error::WrongLeader { shard: group.id(), hint: elsewhere, term });
        }
        sleep_until((now + self.pause).min(self.until)).await;
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        Ok(())
    }
}
