//! One shard of a scatter that has not answered: who was asked in this round, and whether asking again may help.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use vicinal_common::api::ShardAnswer;
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, NodeId, ShardId};

use super::scatter::ReadSpec;
use crate::meta::{Routing, Shard};
use crate::shard_client::Ended;
use crate::shards::ShardAccess;

/// How long replicas that all refused are asked again: several elections.
const PATIENCE: Duration = Duration::from_secs(5);
/// First and longest pause before all replicas of a shard are asked again: an election takes a few of the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// A shard that has not answered.
pub(super) struct OpenShard {
    /// Nodes that hold a replica, those without a vote among them.
    pub(super) replicas: Vec<NodeId>,
    /// Only the leader can answer, after it has confirmed that it leads.
    pub(super) needs_leader: bool,
    /// What a replica must have applied.
    pub(super) floor: LogIndex,
    /// Asked in this round.
    pub(super) tried: BTreeSet<NodeId>,
    /// Under way, each with whether it is late.
    pub(super) under_way: BTreeMap<NodeId, bool>,
    /// Asking all replicas again may help.
    may_recover: bool,
    is_overloaded: bool,
    pause: Duration,
    /// The next round is set.
    is_resting: bool,
    error: Option<Error>,
}

/// What to do with a shard when nobody is left to ask in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// Wait for what is under way.
    Waits,
    /// Ask all replicas again then.
    Again(Instant),
    /// There will be no answer.
    GiveUp,
}

impl OpenShard {
    /// A coordinator that knows no floor of a replicated shard cannot tell a current replica from one that missed the
    /// last writes: then only the leader can answer. Where replicas come by themselves, the only one that its metadata
    /// knows may be one of several by now. `least` is no such floor: it says what a replica must have, not that nothing is
    /// newer.
    pub(super) fn new(
        access: &ShardAccess,
        spec: ReadSpec<'_>,
        routing: &Routing,
        shard: &Shard,
        least: LogIndex,
    ) -> OpenShard {
        let floor = access.floor(shard.id).max(spec.session.floor(shard.id));
        let replicas: Vec<NodeId> = shard.readers().collect();
        let is_blind = floor.is_none() && (replicas.len() > 1 || *routing == Routing::Replicate);
        OpenShard {
            replicas,
            needs_leader: is_blind || spec.consistency == Consistency::Linearizable,
            floor: floor.unwrap_or_default().max(least),
            tried: BTreeSet::new(),
            under_way: BTreeMap::new(),
            may_recover: false,
            is_overloaded: false,
            pause: PAUSE.0,
            is_resting: false,
            error: None,
        }
    }

    /// All replicas may be asked again, except those that are still under way.
    pub(super) fn begin_round(&mut self) {
        self.tried.clear();
        self.may_recover = false;
        self.is_overloaded = false;
        self.is_resting = false;
    }

    /// The node has not answered in time, which may be otherwise with another, or later.
    pub(super) fn is_late(&mut self, node: NodeId) {
        self.under_way.insert(node, true);
        self.may_recover |= self.replicas.len() > 1;
    }

    /// Takes in why a replica has no answer. `false` when no other one can have one either.
    pub(super) fn refuse(&mut self, error: Error) -> bool {
        let is_replicated = self.replicas.len() > 1;
        let others_may = match &error {
            Error::WrongLeader { .. } => {
                self.may_recover = true;
                true
            }
            Error::Unavailable(_) | Error::Timeout(_) => {
                self.may_recover |= is_replicated;
                true
            }
            Error::Overloaded(_) => {
                self.is_overloaded = true;
                true
            }
            Error::Corrupt(_) | Error::Internal(_) | Error::NoSuchShard(_) => true,
            // A replica that is behind does not know the table yet; the others may.
            Error::WrongEpoch { asked, current, .. } => {
                self.may_recover |= is_replicated && asked > current;
                asked > current
            }
            Error::BadInput(_)
            | Error::Validation { .. }
            | Error::NotFound(_)
            | Error::Conflict(_)
            | Error::TooLarge(_) => false,
        };
        if !others_may {
            self.under_way.clear();
        }
        self.error = Some(error);
        others_may
    }

    /// There is nobody left to ask in this round of a read that began at `began`.
    pub(super) fn exhausted(&mut self, now: Instant, began: Instant, deadline: Instant) -> Exhausted {
        if self.is_resting || self.under_way.values().any(|is_late| !is_late) {
            return Exhausted::Waits;
        }
        let somebody_is_late = !self.under_way.is_empty();
        let others = self.replicas.iter().any(|node| !self.under_way.contains_key(node));
        let at = now + self.pause;
        // Nobody is asked again because it has too much to do: the client hears of it instead.
        let may_help = self.may_recover && others && (somebody_is_late || !self.is_overloaded);
        if may_help && at < began + PATIENCE && at < deadline {
            self.pause = (self.pause * 2).min(PAUSE.1);
            self.is_resting = true;
            return Exhausted::Again(at);
        }
        if somebody_is_late { Exhausted::Waits } else { Exhausted::GiveUp }
    }

    /// Why there is no answer, in words for a client.
    pub(super) fn into_error(self, shard: ShardId) -> Error {
        match (self.under_way.keys().next(), self.error) {
            (Some(node), _) => Error::Timeout(format!("node {node} did not answer in time")),
            // Replicas that point at each other mean nothing to a client.
            (None, Some(Error::WrongLeader { .. })) => {
                Error::Unavailable(format!("shard {shard} has no leader at the moment"))
            }
            (None, Some(error)) => error,
            (None, None) => Error::Unavailable("no node with a replica can be reached".into()),
        }
    }
}

/// What the answers of one node say of it: one that serves nothing at all has failed.
pub(super) fn how_it_ended<T>(answers: &[ShardAnswer<T>]) -> Ended {
    let errors = || answers.iter().filter_map(|answer| answer.result.as_ref().err());
    if errors().any(|error| matches!(error, Error::Overloaded(_))) {
        Ended::Overloaded
    } else if errors().filter(|error| matches!(error, Error::Unavailable(_))).count() == answers.len() {
        Ended::Failed
    } else {
        Ended::Answered
    }
}
