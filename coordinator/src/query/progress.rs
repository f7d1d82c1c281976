//! How far a scatter is: which shards are open, whom they wait for, and what to send next. Decides without waiting: time
//! and answers come in, calls come out.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use vicinal_common::api::{ReadContext, ShardAnswer};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Error;
use vicinal_common::ids::{Epoch, LogIndex, NodeId, ShardId};

use super::attempt::{Attempt, Call, Reason, Timer};
use super::gather::{Coverage, Missing};
use super::hedge;
use super::open_shard::{Exhausted, OpenShard, how_it_ended};
use super::plan::{Candidate, NodeTask, Wanted, plan};
use super::scatter::{Effort, Gathered, ReadSpec, Targets};
use crate::meta::Collection;
use crate::shard_client::{Blame, Tier, Work};
use crate::shards::ShardAccess;

/// The state of a scatter.
pub(super) struct Progress<'a, T> {
    access: &'a ShardAccess,
    collection: &'a Collection,
    spec: ReadSpec<'a>,
    effort: Effort,
    epoch: Epoch,
    asked: usize,
    began: Instant,
    answers: Vec<(ShardId, T)>,
    open: BTreeMap<ShardId, OpenShard>,
    missing: BTreeMap<ShardId, Error>,
    attempts: BTreeMap<u64, Attempt>,
    next_attempt: u64,
    timers: BTreeSet<(Instant, Timer)>,
}

impl<'a, T> Progress<'a, T> {
    pub(super) fn new(
        access: &'a ShardAccess,
        collection: &'a Collection,
        spec: ReadSpec<'a>,
        effort: Effort,
        targets: Targets<'_>,
    ) -> Progress<'a, T> {
        spec.session.enter(collection);
        let mut open = BTreeMap::new();
        let mut missing = BTreeMap::new();
        for (id, least) in targets.each() {
            match collection.shard(id) {
                Some(shard) => drop(open.insert(id, OpenShard::new(access, spec, &collection.routing, shard, least))),
                None => drop(missing.insert(id, Error::NoSuchShard(id))),
            }
        }
        Progress {
            access,
            collection,
            spec,
            effort,
            epoch: targets.epoch,
            asked: open.len() + missing.len(),
            began: Instant::now(),
            answers: Vec::with_capacity(open.len()),
            open,
            missing,
            attempts: BTreeMap::new(),
            next_attempt: 0,
            timers: BTreeSet::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The first calls.
    pub(super) fn start(&mut self, now: Instant) -> Vec<Call> {
        let all: BTreeSet<ShardId> = self.open.keys().copied().collect();
        let replicas: BTreeSet<NodeId> = self.open.values().flat_map(|open| open.replicas.iter().copied()).collect();
        self.access.probe(replicas.into_iter(), now);
        self.launch(&all, Reason::First, now)
    }

    /// What has become due by `now`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut again = BTreeSet::new();
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Hedge(attempt) => calls.extend(self.hedge(attempt, now)),
                Timer::Overdue(attempt) => again.extend(self.overdue(attempt, now)),
                Timer::Again(shard) => {
                    if let Some(open) = self.open.get_mut(&shard) {
                        open.begin_round();
                        again.insert(shard);
                    }
                }
            }
        }
        calls.extend(self.launch(&again, Reason::Retry, now));
        calls
    }

    /// Takes in the answers to one call; what it leaves open goes to other replicas.
    pub(super) fn take_in(&mut self, attempt: u64, answers: Vec<ShardAnswer<T>>, now: Instant) -> Vec<Call> {
        let Some(attempt) = self.attempts.remove(&attempt) else { return Vec::new() };
        let Attempt { node, shards, reason, consistency, ticket, .. } = attempt;
        ticket.end(how_it_ended(&answers), now);
        let mut unanswered: BTreeSet<ShardId> = shards.into_iter().collect();
        for shard in &unanswered {
            if let Some(open) = self.open.get_mut(shard) {
                open.under_way.remove(&node);
            }
        }
        let mut again = BTreeSet::new();
        let mut is_useful = false;
        for answer in answers {
            if !unanswered.remove(&answer.shard) {
                continue;
            }
            match answer.result {
                Ok(result) => {
                    is_useful |= self.open.remove(&answer.shard).is_some_and(|_| {
                        self.learn(answer.shard, node, answer.applied, consistency);
                        self.answers.push((answer.shard, result));
                        true
                    });
                }
                Err(error) => {
                    if self.refused(answer.shard, node, error, now) {
                        again.insert(answer.shard);
                    }
                }
            }
        }
        for shard in unanswered {
            let error = Error::Unavailable(format!("node {node} did not answer for it"));
            if self.refused(shard, node, error, now) {
                again.insert(shard);
            }
        }
        if is_useful && reason == Reason::Hedge {
            self.access.health.counters().add_hedge_won();
        }
        self.launch(&again, Reason::Retry, now)
    }

    /// What a good answer says of the shard.
    fn learn(&self, shard: ShardId, node: NodeId, applied: LogIndex, consistency: Consistency) {
        match consistency {
            Consistency::Linearizable => {
                self.access.note_leader(shard, node);
                self.access.note_linearizable(shard, applied);
            }
            Consistency::ReadYourWrites => self.access.note_read(shard, applied),
        }
        self.spec.session.note(self.collection.id, shard, applied);
    }

    /// Takes in why a node has no answer for a shard. Returns whether somebody else may have one.
    fn refused(&mut self, shard: ShardId, node: NodeId, error: Error, now: Instant) -> bool {
        let Some(open) = self.open.get_mut(&shard) else { return false };
        match &error {
            Error::WrongLeader { hint, term, .. } => {
                self.access.forget_leader(shard, node);
                if let Some(leader) = hint.filter(|hint| *hint != node) {
                    self.access.note_leader_at(shard, leader, *term);
                }
            }
            Error::Unavailable(_) | Error::Timeout(_) => {
                if open.needs_leader {
                    self.access.forget_leader(shard, node);
                }
                self.access.note_refusal(shard, node, now);
            }
            Error::Corrupt(_) | Error::Internal(_) | Error::NoSuchShard(_) => {
                self.access.note_refusal(shard, node, now);
            }
            Error::Overloaded(_)
            | Error::WrongEpoch { .. }
            | Error::BadInput(_)
            | Error::Validation { .. }
            | Error::NotFound(_)
            | Error::Conflict(_)
            | Error::TooLarge(_) => {}
        }
        let is_open = open.refuse(error);
        if !is_open && let Some(open) = self.open.remove(&shard) {
            self.missing.insert(shard, open.into_error(shard));
        }
        is_open
    }

    /// Sends open shards to the best of the replicas that were not asked in this round. A shard without one waits for what
    /// is under way, is asked again later, or is given up.
    fn launch(&mut self, shards: &BTreeSet<ShardId>, reason: Reason, now: Instant) -> Vec<Call> {
        let mut calls = Vec::new();
        for needs_leader in [true, false] {
            let open = shards.iter().filter(|id| self.open.get(id).is_some_and(|s| s.needs_leader == needs_leader));
            let wanted: Vec<Wanted> = open.map(|id| self.wanted(*id, shards.len(), now)).collect();
            let plan = plan(&wanted, self.spec.session.turn(&self.access.health));
            for task in plan.tasks {
                calls.push(self.send(task, reason, now));
            }
            for shard in plan.without {
                self.exhausted(shard, now);
            }
        }
        calls
    }

    /// Who may be asked for an open shard.
    fn wanted(&self, id: ShardId, shards: usize, now: Instant) -> Wanted {
        let work = self.work(shards);
        let open = self.open.get(&id);
        let replicas = open.into_iter().flat_map(|open| {
            open.replicas.iter().filter(|node| !open.tried.contains(node) && !open.under_way.contains_key(node))
        });
        let candidates = replicas.filter(|node| self.access.nodes.get(**node).is_some()).map(|node| {
            let mut standing = self.access.health.standing(*node, work, now);
            if self.access.has_refused(id, *node, now) || self.access.is_behind(id, *node) {
                standing.tier = standing.tier.max(Tier::Busy);
            }
            Candidate { node: *node, standing }
        });
        let preferred = open.filter(|open| open.needs_leader).and_then(|_| self.access.leader(id));
        Wanted { shard: id, candidates: candidates.collect(), preferred }
    }

    fn work(&self, shards: usize) -> Work {
        Work::new(self.effort.kind, self.effort.units.saturating_mul(shards))
    }

    /// Begins an attempt.
    fn send(&mut self, task: NodeTask, reason: Reason, now: Instant) -> Call {
        let NodeTask { node, shards } = task;
        let (id, work, health) = (self.next_attempt, self.work(shards.len()), &self.access.health);
        self.next_attempt += 1;
        let mut context = ReadContext {
            collection: self.collection.id,
            epoch: self.epoch,
            shards: Vec::with_capacity(shards.len()),
            consistency: Consistency::ReadYourWrites,
            deadline: self.spec.deadline,
        };
        let mut blame = Blame::Node;
        for shard in &shards {
            let Some(open) = self.open.get_mut(shard) else { continue };
            open.tried.insert(node);
            open.under_way.insert(node, false);
            context.shards.push((*shard, open.floor));
            if open.needs_leader {
                context.consistency = Consistency::Linearizable;
            }
            // A replica that does not lead waits for an election, and one that is asked for more than this coordinator
            // has seen acknowledged waits for whatever the client's token says.
            let waits_for_others = match open.needs_leader {
                true => self.access.leader(*shard) != Some(node),
                false => open.replicas.len() > 1 && self.access.floor(*shard).unwrap_or_default() < open.floor,
            };
            if waits_for_others {
                blame = Blame::Others;
            }
        }
        match reason {
            Reason::Hedge => health.counters().add_hedge_sent(),
            Reason::Retry => health.counters().add_retry(),
            Reason::First => {}
        }
        if matches!(reason, Reason::First | Reason::Retry) {
            self.access.hedges.earn();
            // A timer that is the first of its process to end wakes the thread up that waits for the sockets: none is set in
            // vain.
            let has_others = |id| self.open.get(id).is_some_and(|open: &OpenShard| open.replicas.len() > 1);
            if context.consistency == Consistency::ReadYourWrites && shards.iter().any(has_others) {
                self.timers.insert((now + hedge::delay(health, node, work), Timer::Hedge(id)));
            }
        }
        self.timers.insert((now + health.attempt_time(node, work), Timer::Overdue(id)));
        let ticket = health.begin(node, work, blame, now);
        let consistency = context.consistency;
        self.attempts.insert(id, Attempt { node, shards, reason, consistency, ticket, is_overdue: false });
        Call { attempt: id, node, context, is_hedge: reason == Reason::Hedge }
    }

    /// Shards of an attempt that is under way and not late which nobody has answered yet.
    fn waiting(&self, attempt: u64) -> BTreeSet<ShardId> {
        let shards = self.attempts.get(&attempt).filter(|attempt| !attempt.is_overdue).map(|attempt| &attempt.shards);
        shards.into_iter().flatten().filter(|shard| self.open.contains_key(shard)).copied().collect()
    }

    /// Asks other replicas, with which nothing is wrong, for what a slow attempt still owes, within the budget.
    fn hedge(&mut self, attempt: u64, now: Instant) -> Vec<Call> {
        let waiting = self.waiting(attempt);
        // One more that is under way for the shard is its hedge already.
        let alone = waiting.iter().filter(|id| self.open.get(id).is_some_and(|open| open.under_way.len() == 1));
        let wanted = alone.map(|id| self.wanted(*id, waiting.len(), now)).map(|mut wanted| {
            wanted.candidates.retain(|candidate| candidate.standing.tier == Tier::Fine);
            wanted
        });
        let wanted: Vec<Wanted> = wanted.collect();
        let tasks = plan(&wanted, self.spec.session.turn(&self.access.health)).tasks;
        let mut calls = Vec::new();
        for task in tasks {
            if self.access.hedges.take() {
                calls.push(self.send(task, Reason::Hedge, now));
            } else {
                self.access.health.counters().add_hedge_refused();
            }
        }
        calls
    }

    /// An attempt is late: returns the shards that others are to be asked for. If it comes first after all, it counts.
    fn overdue(&mut self, attempt: u64, now: Instant) -> BTreeSet<ShardId> {
        let waiting = self.waiting(attempt);
        let Some(late) = self.attempts.get_mut(&attempt) else { return waiting };
        late.is_overdue = true;
        late.ticket.overdue(now);
        for shard in &waiting {
            if let Some(open) = self.open.get_mut(shard) {
                open.is_late(late.node);
            }
        }
        waiting
    }

    /// There is nobody left to ask for the shard in this round.
    fn exhausted(&mut self, shard: ShardId, now: Instant) {
        let Some(open) = self.open.get_mut(&shard) else { return };
        match open.exhausted(now, self.began, self.spec.deadline) {
            Exhausted::Waits => {}
            Exhausted::Again(at) => drop(self.timers.insert((at, Timer::Again(shard)))),
            Exhausted::GiveUp => {
                if let Some(open) = self.open.remove(&shard) {
                    self.missing.insert(shard, open.into_error(shard));
                }
            }
        }
    }

    /// The answers, and why the others are missing.
    pub(super) fn finish(mut self) -> Gathered<T> {
        for (shard, open) in std::mem::take(&mut self.open) {
            self.missing.insert(shard, open.into_error(shard));
        }
        self.answers.sort_by_key(|(shard, _)| *shard);
        if !self.missing.is_empty() && !self.answers.is_empty() {
            self.access.health.counters().add_partial_answer();
        }
        let missing = std::mem::take(&mut self.missing).into_iter();
        let missing = missing.map(|(shard, reason)| Missing { shard, reason }).collect();
        let coverage =
            Coverage { shards_asked: self.asked, shards_answered: self.answers.len(), missing, routed: None };
        Gathered { answers: self.answers, coverage }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::ModelCluster;
    use crate::session::Session;
    use crate::shard_client::WorkKind;

    #[tokio::test]
    async fn nothing_is_timed_for_a_hedge_that_cannot_be() {
        for (replicas, is_hedged) in [(1, false), (3, true)] {
            let cluster = ModelCluster::new(2, replicas);
            let (session, now) = (Session::default(), Instant::now());
            let shards: Vec<ShardId> = cluster.collection.shard_ids().collect();
            // With a floor that is known any replica may answer.
            shards.iter().for_each(|shard| cluster.access.note_linearizable(*shard, LogIndex(1)));
            let consistency = Consistency::ReadYourWrites;
            let spec = ReadSpec { consistency, deadline: now + Duration::from_secs(60), session: &session };
            let effort = Effort { kind: WorkKind::Search, units: 1 };
            let targets = Targets::homes(&cluster.collection, &shards);
            let mut progress: Progress<'_, ()> =
                Progress::new(&cluster.access, &cluster.collection, spec, effort, targets);
            assert!(!progress.start(now).is_empty());
            let hedges = progress.timers.iter().filter(|(_, timer)| matches!(timer, Timer::Hedge(_))).count();
            assert_eq!(hedges > 0, is_hedged, "{replicas} replicas");
            assert!(progress.next_timer().is_some(), "late calls are noticed in any case");
        }
    }
}
