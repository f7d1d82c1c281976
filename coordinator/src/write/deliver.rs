//! Brings one part of a write to the leader of its shard, whoever that is by then, until it is acknowledged, refused for
//! good, or out of time. Every attempt is the same `(request, part)`, so the shard applies it once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};
use vicinal_common::api::{WriteAck, WriteRequest};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::NodeId;
use vicinal_common::telemetry;

use crate::meta::{ClusterRouting, Collection};
use crate::shard_client::{Blame, Ended, Ticket, Tier, Work, WorkKind};
use crate::shards::ShardAccess;

/// How long a shard may refuse before the client hears of it: a leader that is paused, several elections, and less than
/// clients' own time-outs.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// First pause before all replicas are asked again; doubled each time.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest such pause: what a write waits in vain after an election.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// A part of a write on its way.
struct Delivery<'a> {
    access: &'a ShardAccess,
    /// Those that vote.
    replicas: &'a [NodeId],
    /// One that has just got its vote leads before the metadata says so.
    learners: &'a [NodeId],
    request: &'a WriteRequest,
    /// The leader waits for search shards before it answers.
    waits_for_copies: bool,
    work: Work,
    give_up: Instant,
    /// Asked in this round.
    tried: BTreeSet<NodeId>,
    under_way: BTreeMap<NodeId, Attempt>,
    pause: Duration,
    /// When all replicas may be asked again.
    resting: Option<Instant>,
    error: Option<Error>,
}

struct Attempt {
    ticket: Ticket,
    /// From when on it is late; `None` when it is.
    late_at: Option<Instant>,
}

/// Writes one part.
pub(super) async fn deliver(access: &ShardAccess, collection: &Collection, request: &WriteRequest) -> Result<WriteAck> {
    let shard = collection.shard(request.shard);
    let (replicas, learners) =
        shard.map_or((&[][..], &[][..]), |shard| (shard.replicas.as_slice(), shard.learners.as_slice()));
    if replicas.is_empty() {
        return Err(Error::Unavailable("it has no replica".into()));
    }
    let mut delivery = Delivery {
        access,
        replicas,
        learners,
        request,
        waits_for_copies: collection.routing.cluster().is_some_and(is_published),
        work: Work::new(WorkKind::Write, request.op.bytes() / 1024),
        give_up: request.deadline.min(Instant::now() + PATIENCE),
        tried: BTreeSet::new(),
        under_way: BTreeMap::new(),
        pause: PAUSE_MIN,
        resting: None,
        error: None,
    };
    let send = |node: NodeId, attempt: u64| {
        let span = telemetry::write_call_span(node.0, request.shard.0, request.part, attempt);
        let sent = async move {
            let answer = match access.nodes.get(node) {
                Some(api) => api.write(request.clone()).await,
                None => Err(Error::Unavailable(format!("node {node} cannot be reached"))),
            };
            if answer.is_err() {
                telemetry::failed(&Span::current());
            }
            (node, answer)
        };
        sent.instrument(span)
    };
    access.probe(replicas.iter().copied(), Instant::now());
    let mut attempts = 0;
    let mut in_flight = FuturesUnordered::new();
    // Ends at the deadline at the latest; rounds of attempts have growing pauses between them.
    loop {
        if let Some(node) = delivery.next(Instant::now())? {
            attempts += 1;
            in_flight.push(send(node, attempts));
        }
        let wake = delivery.wake();
        tokio::select! {
            biased;
            Some((node, answer)) = in_flight.next() => match answer {
                Ok(ack) => return Ok(delivery.acknowledged(node, ack)),
                Err(error) => delivery.refused(node, error, Instant::now())?,
            },
            () = sleep_until(wake) => delivery.due(Instant::now())?,
        }
    }
}

/// Whether home shards publish by some map.
fn is_published(cluster: &ClusterRouting) -> bool {
    cluster.serving.is_some() || cluster.next.is_some() || cluster.ending.is_some()
}

impl Delivery<'_> {
    /// Whom to send to now, if anybody. Nobody while an attempt is under way that is not late: a write is never sent to
    /// two replicas at once without need. An error when there is nothing more to hope for.
    fn next(&mut self, now: Instant) -> Result<Option<NodeId>> {
        if self.resting.is_some() || self.under_way.values().any(|attempt| attempt.late_at.is_some()) {
            return Ok(None);
        }
        let Some(node) = self.choose(now) else {
            return self.rest(now).map(|()| None);
        };
        self.tried.insert(node);
        // A replica that does not lead may wait for an election.
        let leads = self.access.leader(self.request.shard) == Some(node);
        let blame = if leads && !self.waits_for_copies { Blame::Node } else { Blame::Others };
        let late_at = now + self.access.health.attempt_time(node, self.work);
        if self.error.is_some() || !self.under_way.is_empty() {
            self.access.health.counters().add_retry();
        }
        let ticket = self.access.health.begin(node, self.work, blame, now);
        self.under_way.insert(node, Attempt { ticket, late_at: Some(late_at) });
        Ok(Some(node))
    }

    /// The leader as far as it is known, unless others are in less trouble; else the replica that is in the least, in the
    /// order of the metadata.
    fn choose(&self, now: Instant) -> Option<NodeId> {
        let is_free = |node: &NodeId| !self.tried.contains(node) && !self.under_way.contains_key(node);
        let tier = |node: NodeId| self.access.health.standing(node, self.work, now).tier;
        let best = self.replicas.iter().copied().filter(is_free).min_by_key(|node| tier(*node))?;
        let leader = self.access.leader(self.request.shard).filter(|node| self.may_lead(node) && is_free(node));
        let is_well = |node: &NodeId| tier(*node) < Tier::Suspect || tier(*node) == tier(best);
        Some(leader.filter(is_well).unwrap_or(best))
    }

    fn may_lead(&self, node: &NodeId) -> bool {
        self.replicas.contains(node) || self.learners.contains(node)
    }

    /// All replicas were asked in vain: waits for a moment, or for what is late, or gives up.
    fn rest(&mut self, now: Instant) -> Result<()> {
        let others = self.replicas.iter().any(|node| !self.under_way.contains_key(node));
        if others && now + self.pause < self.give_up {
            self.resting = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return Ok(());
        }
        match self.under_way.is_empty() {
            false => Ok(()),
            true => Err(self.error.take().unwrap_or_else(|| Error::Timeout("no replica answered in time".into()))),
        }
    }

    /// When to look again if no answer comes before.
    fn wake(&self) -> Instant {
        let late = self.under_way.values().filter_map(|attempt| attempt.late_at);
        late.chain(self.resting).min().map_or(self.request.deadline, |at| at.min(self.request.deadline))
    }

    /// Time has passed.
    fn due(&mut self, now: Instant) -> Result<()> {
        if now >= self.request.deadline {
            let node = self.under_way.keys().next();
            return Err(match (node, self.error.take()) {
                (Some(node), _) => Error::Timeout(format!("node {node} did not acknowledge in time")),
                (None, Some(error)) => error,
                (None, None) => Error::Timeout("no replica answered in time".into()),
            });
        }
        if self.resting.is_some_and(|at| now >= at) {
            self.resting = None;
            self.tried.clear();
        }
        let alone = self.replicas.len() == 1;
        for (node, attempt) in &mut self.under_way {
            if attempt.late_at.is_some_and(|at| now >= at) {
                attempt.late_at = None;
                attempt.ticket.overdue(now);
                if !alone {
                    self.access.forget_leader(self.request.shard, *node);
                }
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, node: NodeId, ack: WriteAck) -> WriteAck {
        if let Some(attempt) = self.under_way.remove(&node) {
            attempt.ticket.end(Ended::Answered, Instant::now());
        }
        self.access.note_leader_at(self.request.shard, node, ack.term);
        self.access.note_ack(self.request.shard, ack.index);
        ack
    }

    /// Takes in a refusal: an error when it is final.
    fn refused(&mut self, node: NodeId, error: Error, now: Instant) -> Result<()> {
        let (access, shard) = (self.access, self.request.shard);
        let how = if matches!(error, Error::Overloaded(_)) {
            Ended::Overloaded
        } else if matches!(error, Error::Unavailable(_)) {
            Ended::Failed
        } else {
            Ended::Answered
        };
        if let Some(attempt) = self.under_way.remove(&node) {
            attempt.ticket.end(how, now);
        }
        match &error {
            Error::WrongLeader { hint, term, .. } => {
                access.forget_leader(shard, node);
                if let Some(leader) = hint.filter(|hint| *hint != node && self.may_lead(hint)) {
                    access.note_leader_at(shard, leader, *term);
                }
            }
            Error::Unavailable(_) | Error::NoSuchShard(_) => access.forget_leader(shard, node),
            // One damaged replica: the others go on, and one of them leads.
            Error::Corrupt(_) if self.replicas.len() > 1 => access.forget_leader(shard, node),
            // It may not lead any more, and have too much to do to say so: the others know.
            Error::Overloaded(_) => {}
            Error::WrongEpoch { .. }
            // The leader has waited for all that it could, such as copies in search shards, and says what is missing.
            | Error::Timeout(_)
            | Error::BadInput(_)
            | Error::Validation { .. }
            | Error::NotFound(_)
            | Error::Conflict(_)
            | Error::TooLarge(_)
            | Error::Corrupt(_)
            | Error::Internal(_) => return Err(error),
        }
        self.error = Some(error);
        Ok(())
    }
}
