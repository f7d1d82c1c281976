//! Brings messages to one search shard: to its leader, whoever that is by then. Never gives up: what it carries is
//! either taken, or still to be taken.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use vicinal_common::api::{WriteOp, WriteRequest};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{Epoch, LogIndex, NodeId, ShardId};
use vicinal_common::publish::Copies;
use vicinal_common::telemetry;

use super::session::LaneKey;
use super::{Around, Shared};

/// Pauses between attempts: first and longest.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(200);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How much longer a node that does not keep to that is waited for.
const GRACE: Duration = Duration::from_millis(100);
/// How often a lane looks whether a removal is due.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often the operator is told of the same trouble.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Sends what the queue of a search shard holds, until the session has no such lane any more.
pub(super) async fn run(lane: LaneKey, shared: Arc<Shared>, around: Around) {
    let mut route = Route::default();
    while shared.has(&lane) {
        match shared.take(&lane) {
            Some(copies) => {
                let (points, gone) = (copies.points.len() as u64, copies.gone.len() as u64);
                let began = Instant::now();
                let Some(index) = deliver(&lane, copies, &mut route, &shared, &around).await else { return };
                telemetry::instruments().publish.sent(points, gone, began.elapsed());
                shared.done(&lane, index);
            }
            // Elapsing means to look at the clock.
            None => drop(timeout(LOOK_AGAIN, lane.signal.notified()).await),
        }
    }
}

/// Returns where in its log the search shard has them; `None` when the session has no such lane any more.
async fn deliver(
    lane: &LaneKey,
    copies: Copies,
    route: &mut Route,
    shared: &Shared,
    around: &Around,
) -> Option<LogIndex> {
    let op = WriteOp::Copies(Arc::new(copies));
    let shard = lane.shard;
    let mut pauses = Pauses::default();
    let mut told: Option<Instant> = None;
    while shared.has(lane) {
        let replicas = around.group.shard().nodes_of(shard);
        let deadline = Instant::now() + ATTEMPT;
        let (node, answer) = match route.choose(&replicas) {
            Some(node) => (Some(node), attempt(shard, node, op.clone(), deadline, around).await),
            None => (None, Err(Error::Unavailable(format!("no node is known to hold search shard {shard}")))),
        };
        let error = match answer {
            Ok(index) => {
                route.taken(node);
                return Some(index);
            }
            Err(error) => error,
        };
        telemetry::instruments().publish.refused();
        if !error.is_retryable() && told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            told = Some(Instant::now());
            tracing::error!(home = %around.group.id(), search = %shard, %error, "a search shard refuses copies");
        }
        let wants_pause = route.refused(node, &error, Instant::now());
        shared.failed(lane, error, route.cut_since());
        if wants_pause {
            sleep(pauses.next()).await;
        }
    }
    None
}

async fn attempt(shard: ShardId, node: NodeId, op: WriteOp, deadline: Instant, around: &Around) -> Result<LogIndex> {
    let Some(api) = around.peers.get(node) else {
        return Err(Error::Unavailable(format!("node {node} is not known here")));
    };
    let collection = around.group.shard().spec().collection;
    let request = around.rng.request_id();
    // Copies are facts whatever the map, so any epoch will do.
    let write = WriteRequest { request, part: 0, collection, epoch: Epoch::default(), shard, op, deadline };
    match timeout_at(deadline + GRACE, api.write(write)).await {
        Ok(answer) => answer.map(|ack| ack.index),
        Err(_) => Err(Error::Timeout(format!("node {node} did not answer in time"))),
    }
}

/// Growing pauses.
#[derive(Default)]
struct Pauses(Option<Duration>);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0.unwrap_or(PAUSE_FIRST);
        self.0 = Some((pause * 2).min(PAUSE_LONGEST));
        pause
    }
}

/// Whom to ask.
#[derive(Debug, Default)]
struct Route {
    leader: Option<NodeId>,
    /// Which replica is asked while nobody is known to lead.
    turn: usize,
    /// Whether a replica has just said who leads: it is asked at once, but only once.
    is_told: bool,
    /// Who leads by what another replica says, but does not answer, and since when.
    cut: Option<(NodeId, Instant)>,
}

impl Route {
    fn choose(&self, replicas: &[NodeId]) -> Option<NodeId> {
        let leader = self.leader.filter(|leader| replicas.contains(leader) || self.is_told);
        leader.or_else(|| replicas.get(self.turn % replicas.len().max(1)).copied())
    }

    fn taken(&mut self, node: Option<NodeId>) {
        (self.leader, self.is_told, self.cut) = (node, false, None);
    }

    /// Takes in an answer; returns whether to pause before the next attempt.
    fn refused(&mut self, node: Option<NodeId>, error: &Error, now: Instant) -> bool {
        match error {
            Error::WrongLeader { hint: Some(hint), .. } if Some(*hint) != node => {
                let was_told = std::mem::replace(&mut self.is_told, true);
                self.leader = Some(*hint);
                if self.cut.is_some_and(|(leader, _)| leader != *hint) {
                    self.cut = None;
                }
                was_told
            }
            // It is the right one.
            Error::Overloaded(_) => true,
            _ => {
                let is_silent = matches!(error, Error::Unavailable(_) | Error::Timeout(_));
                if is_silent && self.is_told && self.leader == node {
                    self.cut = self.cut.or(node.map(|node| (node, now)));
                }
                (self.leader, self.is_told) = (None, false);
                self.turn = self.turn.wrapping_add(1);
                true
            }
        }
    }

    /// Since when the leader that others name does not answer.
    fn cut_since(&self) -> Option<Instant> {
        self.cut.map(|(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICAS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn led_by(node: u64) -> Error {
        Error::WrongLeader { shard: ShardId(9), hint: Some(NodeId(node)), term: 1 }
    }

    fn away() -> Error {
        Error::Unavailable("away".into())
    }

    #[test]
    fn hints_are_followed_and_silent_nodes_passed_over() {
        let now = Instant::now();
        let mut route = Route::default();
        assert_eq!(route.choose(&[]), None);
        assert_eq!(route.choose(&REPLICAS), Some(NodeId(1)));
        assert!(!route.refused(Some(NodeId(1)), &led_by(3), now));
        assert_eq!(route.choose(&REPLICAS), Some(NodeId(3)));
        assert!(route.refused(Some(NodeId(3)), &led_by(2), now), "hints in a circle need pauses");
        assert_eq!(route.choose(&REPLICAS), Some(NodeId(2)));
        assert!(route.refused(Some(NodeId(2)), &away(), now));
        assert_eq!(route.choose(&REPLICAS), Some(NodeId(2)), "its turn");
        assert!(route.refused(Some(NodeId(2)), &Error::NoSuchShard(ShardId(9)), now));
        assert_eq!(route.choose(&REPLICAS), Some(NodeId(3)));
        route.taken(Some(NodeId(3)));
        assert_eq!(route.choose(&REPLICAS), Some(NodeId(3)));
        assert!(route.refused(Some(NodeId(3)), &Error::Overloaded("full".into()), now));
        assert_eq!(route.choose(&REPLICAS), Some(NodeId(3)));
        // It holds the shard no more.
        assert_ne!(route.choose(&REPLICAS[..2]), Some(NodeId(3)));
    }

    #[test]
    fn a_leader_that_only_others_reach_is_noticed() {
        let now = Instant::now();
        let mut route = Route::default();
        for (i, later) in [0, 1, 2].into_iter().enumerate() {
            let now = now + Duration::from_millis(later * 500);
            route.refused(Some(NodeId(1)), &led_by(2), now);
            assert_eq!(route.choose(&REPLICAS), Some(NodeId(2)));
            route.refused(Some(NodeId(2)), &away(), now);
            route.turn = i * 3;
        }
        assert_eq!(route.cut_since(), Some(now));
        // Another one leads.
        route.refused(Some(NodeId(1)), &led_by(3), now);
        assert_eq!(route.cut_since(), None);
        route.taken(Some(NodeId(3)));
        assert_eq!(route.cut_since(), None);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut pauses = Pauses::default();
        let all: Vec<u128> = (0..7).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(all, [10, 20, 40, 80, 160, 200, 200]);
    }
}
