//! What this coordinator has learned of each node: how fast it answers, how much it is doing for us, whether it fails, and
//! when it was last heard of. Only a matter of preference: no node is ever ruled out by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use vicinal_common::ids::NodeId;

use super::breaker::{Breaker, Verdict};
use super::counters::Counters;
use super::latency::{Latency, Work, WorkKind};
use crate::members::SUSPECT_AFTER;

/// How long a node that said it is overloaded is spared.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(200);
/// Latencies below this are alike, in microseconds. Also what is assumed of a node that has not answered such a request
/// yet: so it is asked, and becomes known.
const MICROS_MIN: f64 = 100.0;
/// An attempt may take this many times as long as the slowest of the node's recent answers.
const ATTEMPT_FACTOR: u32 = 4;
/// Bounds of the time of one attempt of a read, and that of a node that is not known yet.
const READ_ATTEMPT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
const READ_ATTEMPT_UNKNOWN: Duration = Duration::from_secs(1);
/// The same of a write, which waits for a majority; a leader that is paused is given up in time for the client.
const WRITE_ATTEMPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// How good a choice a node is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing is wrong with it.
    Fine,
    /// It answers, but not this just now.
    Busy,
    /// It is leaving, or has been silent for too long.
    Suspect,
    /// It failed several times in a row; one request may find out whether it answers again.
    HalfOpen,
    /// It failed several times in a row just now.
    Open,
}

/// A node as replica choice sees it. Less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Counts first.
    pub tier: Tier,
    /// How long an answer would take about now, in microseconds.
    pub cost: u64,
}

/// On whom an answer depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// On the node alone: when it is late, the node is slow.
    Node,
    /// On others too, such as an election: a late answer says nothing of the node.
    Others,
}

#[derive(Default)]
struct Node {
    breaker: Breaker,
    latency: BTreeMap<Work, Latency>,
    in_flight: u32,
    answered: Option<Instant>,
    heard: Option<Instant>,
    is_leaving: bool,
    spared_until: Option<Instant>,
}

/// What is known of all nodes. Time comes in from outside, so the same events lead to the same choices.
#[derive(Default)]
pub struct Health {
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    turns: AtomicU64,
    counters: Counters,
}

impl Health {
    /// Counts of the read and write path.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The node sent a sign of life. Takes back that it is leaving: call [`Health::left`] afterwards if it still says so.
    pub fn heard(&self, node: NodeId, at: Instant) {
        let mut nodes = self.nodes.lock();
        let node = nodes.entry(node).or_default();
        node.heard = Some(node.heard.map_or(at, |before| before.max(at)));
        node.is_leaving = false;
        node.breaker.heard(at);
    }

    /// The node said that it is leaving.
    pub fn left(&self, node: NodeId) {
        self.nodes.lock().entry(node).or_default().is_leaving = true;
    }

    /// Whether the node is probably gone, or about to go. One that never sent a sign of life, as in a single process, is
    /// not suspect.
    pub fn suspect(&self, node: NodeId) -> bool {
        self.suspect_at(node, Instant::now())
    }

    /// The same at a given time.
    pub fn suspect_at(&self, node: NodeId, now: Instant) -> bool {
        self.nodes.lock().get(&node).is_some_and(|node| node.is_suspect(now))
    }

    /// Forgets nodes that no longer exist, which bounds the table.
    pub fn retain(&self, exists: impl Fn(NodeId) -> bool) {
        self.nodes.lock().retain(|node, known| exists(*node) || known.in_flight > 0);
    }

    /// A number that differs from one request to the next: equals take turns by it.
    pub fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// How good a choice the node is for this work.
    pub fn standing(&self, node: NodeId, work: Work, now: Instant) -> Standing {
        let nodes = self.nodes.lock();
        let Some(node) = nodes.get(&node) else {
            return Standing { tier: Tier::Fine, cost: MICROS_MIN as u64 };
        };
        let tier = match node.breaker.verdict(now) {
            Verdict::Open => Tier::Open,
            Verdict::HalfOpen => Tier::HalfOpen,
            Verdict::Closed if node.is_suspect(now) => Tier::Suspect,
            Verdict::Closed if node.spared_until.is_some_and(|until| now < until) => Tier::Busy,
            Verdict::Closed => Tier::Fine,
        };
        // What took how long for another size still tells fast nodes from slow ones.
        let known =
            node.latency.get(&work).or_else(|| node.latency.range(work.of_kind()).next().map(|(_, known)| known));
        let micros = known.map_or(MICROS_MIN, |latency| latency.mean_micros(now));
        Standing { tier, cost: (micros.max(MICROS_MIN) * f64::from(node.in_flight + 1)) as u64 }
    }

    /// The latency that `percent` of the node's recent answers to such work did not exceed.
    pub fn quantile(&self, node: NodeId, work: Work, percent: u32) -> Option<Duration> {
        self.nodes.lock().get(&node)?.latency.get(&work)?.quantile(percent)
    }

    /// How long to wait for the node before another replica is asked too.
    pub fn attempt_time(&self, node: NodeId, work: Work) -> Duration {
        let (least, most) = if work.is_write() { WRITE_ATTEMPT } else { READ_ATTEMPT };
        let unknown = if work.is_write() { WRITE_ATTEMPT.0 } else { READ_ATTEMPT_UNKNOWN };
        self.quantile(node, work, 99).map_or(unknown, |high| (high * ATTEMPT_FACTOR).clamp(least, most))
    }

    /// Takes the place of the one request that may find out whether a node given up answers again, if that is due.
    pub fn begin_probe(self: &Arc<Health>, node: NodeId, now: Instant) -> Option<Ticket> {
        let is_due = self.nodes.lock().get(&node).is_some_and(|node| node.breaker.verdict(now) == Verdict::HalfOpen);
        is_due.then(|| self.begin(node, Work::new(WorkKind::Status, 1), Blame::Others, now))
    }

    /// A request to the node begins. The ticket must be told how it ended; dropped, it counts as not waited for.
    pub fn begin(self: &Arc<Health>, node: NodeId, work: Work, blame: Blame, now: Instant) -> Ticket {
        let mut nodes = self.nodes.lock();
        let known = nodes.entry(node).or_default();
        known.in_flight += 1;
        let is_probe = known.breaker.probe(now);
        self.counters.add_attempt();
        if is_probe {
            self.counters.add_probe();
        }
        Ticket { health: self.clone(), node, work, blame, began: now, is_probe, is_overdue: false, is_over: false }
    }
}

impl Node {
    fn is_suspect(&self, now: Instant) -> bool {
        self.is_leaving || self.heard.is_some_and(|at| now.saturating_duration_since(at) > SUSPECT_AFTER)
    }

    fn latency(&mut self, work: Work, now: Instant) -> &mut Latency {
        self.latency.entry(work).or_insert_with(|| Latency::new(now))
    }
}

/// A request under way to a node.
pub struct Ticket {
    health: Arc<Health>,
    node: NodeId,
    work: Work,
    blame: Blame,
    began: Instant,
    is_probe: bool,
    is_overdue: bool,
    is_over: bool,
}

/// How a request to a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The node answered, whatever it said.
    Answered,
    /// The node answered that it has too much to do.
    Overloaded,
    /// The node could not be reached, or cannot serve anything.
    Failed,
}

impl Ticket {
    /// The request is over.
    pub fn end(mut self, how: Ended, now: Instant) {
        self.is_over = true;
        let mut nodes = self.health.nodes.lock();
        let Some(node) = nodes.get_mut(&self.node) else { return };
        node.in_flight = node.in_flight.saturating_sub(1);
        match how {
            Ended::Answered | Ended::Overloaded => {
                node.breaker.succeed();
                node.answered = Some(now);
                if how == Ended::Overloaded {
                    node.spared_until = Some(now + OVERLOAD_PAUSE);
                } else if self.blame == Blame::Node {
                    node.latency(self.work, now).note(now.saturating_duration_since(self.began), now);
                }
            }
            Ended::Failed if self.is_overdue => {}
            Ended::Failed => {
                if node.breaker.fail(self.is_probe, now) {
                    self.health.counters.add_breaker_opening();
                }
            }
        }
    }

    /// The answer is late: others are asked too, while this one may still come. That counts against the node, unless it
    /// has answered something else meanwhile: then this request is heavy, and the node not silent.
    pub fn overdue(&mut self, now: Instant) {
        if self.is_overdue {
            return;
        }
        self.health.counters.add_attempt_timed_out();
        let mut nodes = self.health.nodes.lock();
        let Some(node) = nodes.get_mut(&self.node) else { return };
        if self.blame == Blame::Others || node.answered.is_some_and(|at| at >= self.began) {
            return;
        }
        self.is_overdue = true;
        node.latency(self.work, now).note_at_least(now.saturating_duration_since(self.began), now);
        if node.breaker.fail(self.is_probe, now) {
            self.health.counters.add_breaker_opening();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let now = Instant::now();
        let mut nodes = self.health.nodes.lock();
        let Some(node) = nodes.get_mut(&self.node) else { return };
        node.in_flight = node.in_flight.saturating_sub(1);
        if self.is_probe && !self.is_overdue {
            node.breaker.abandon_probe();
        }
        // Somebody else was faster: otherwise a node whose requests are always given up would look as fast as it once was.
        if self.blame == Blame::Node {
            node.latency(self.work, now).note_at_least(now.saturating_duration_since(self.began), now);
        }
    }
}
