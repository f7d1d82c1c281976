//! Asks many shards at once under one deadline. What a node cannot answer falls to another replica if there is one.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep, timeout_at};
use vicinal_common::api::{ReadContext, ShardAnswer, ShardApi};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Error;
use vicinal_common::ids::{NodeId, ShardId};

use super::gather::{Coverage, Missing};
use super::plan::{NodeTask, plan};
use crate::meta::{Collection, Shard};
use crate::shards::ShardAccess;

/// How often one shard is asked again because it was led elsewhere.
const LEADER_TRIES_MAX: u32 = 12;
/// Pause before a shard is asked again that named no new leader: an election takes a few of these.
const ELECTION_PAUSE: Duration = Duration::from_millis(100);

/// What a read may see, and until when it may take.
#[derive(Clone, Copy, Debug)]
pub struct ReadSpec {
    /// What may be seen.
    pub consistency: Consistency,
    /// When to answer with what is there.
    pub deadline: Instant,
}

/// The answers of a scatter.
#[derive(Debug)]
pub struct Gathered<T> {
    /// One per shard that answered, in order of the shards.
    pub answers: Vec<(ShardId, T)>,
    /// Which shards those are, and why others are missing.
    pub coverage: Coverage,
}

impl<T> Gathered<T> {
    /// Whether a shard refused because the request was routed by other metadata than its own.
    pub fn is_stale(&self) -> bool {
        let mut reasons = self.coverage.missing.iter().map(|missing| &missing.reason);
        reasons.any(|reason| matches!(reason, Error::WrongEpoch { .. } | Error::NoSuchShard(_)))
    }
}

/// What is known of the shards under way.
struct Progress<T> {
    answers: Vec<(ShardId, T)>,
    reasons: HashMap<ShardId, Error>,
    tried: HashSet<(ShardId, NodeId)>,
    leader_tries: HashMap<ShardId, u32>,
}

/// Asks each of `shards` through `ask`, one call per node. Never later than the deadline: a shard that has not answered by
/// then is missing, and so says the coverage.
pub async fn scatter<T, F, Fut>(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec,
    shards: &[ShardId],
    ask: F,
) -> Gathered<T>
where
    F: Fn(Arc<dyn ShardApi>, ReadContext) -> Fut,
    Fut: Future<Output = Vec<ShardAnswer<T>>>,
{
    let wanted: HashSet<ShardId> = shards.iter().copied().collect();
    let mut progress = Progress {
        answers: Vec::with_capacity(wanted.len()),
        reasons: HashMap::new(),
        tried: HashSet::new(),
        leader_tries: HashMap::new(),
    };
    let call = |task: NodeTask, pause: Duration| {
        let ask = &ask;
        async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let Some(api) = access.nodes.get(task.node) else { return (task, Ok(Vec::new())) };
            let floors = task.shards.iter().map(|shard| (*shard, access.floor(*shard).unwrap_or_default())).collect();
            let context = ReadContext {
                collection: collection.id,
                epoch: collection.epoch,
                shards: floors,
                consistency: needed(access, collection, &task, spec.consistency),
                deadline: spec.deadline,
            };
            let outcome = timeout_at(spec.deadline, ask(api, context)).await;
            (task, outcome)
        }
    };
    let mut in_flight = FuturesUnordered::new();
    for task in launch(access, collection, &wanted, &mut progress) {
        in_flight.push(call(task, Duration::ZERO));
    }
    // Ends: every launch marks (shard, node) as tried, and marks are taken back LEADER_TRIES_MAX times per shard.
    while let Some((task, outcome)) = in_flight.next().await {
        let Ok(answers) = outcome else {
            let text = format!("node {} did not answer in time", task.node);
            progress.reasons.extend(task.shards.iter().map(|shard| (*shard, Error::Timeout(text.clone()))));
            continue;
        };
        let (again, pause) = take_in(access, &task, answers, &mut progress);
        if !again.is_empty() && Instant::now() + pause < spec.deadline {
            for task in launch(access, collection, &again, &mut progress) {
                in_flight.push(call(task, pause));
            }
        }
    }
    progress.finish(collection, &wanted)
}

/// A coordinator that has not acknowledged a write to a shard yet knows no floor for it: a replica that missed the last
/// writes before a restart could pass for current. Then only the leader can answer.
fn needed(access: &ShardAccess, collection: &Collection, task: &NodeTask, asked: Consistency) -> Consistency {
    let is_replicated =
        |id: &ShardId| collection.shards.iter().any(|shard| shard.id == *id && shard.replicas.len() > 1);
    let is_blind = task.shards.iter().any(|shard| access.floor(*shard).is_none() && is_replicated(shard));
    if is_blind { Consistency::Linearizable } else { asked }
}

/// Plans the next calls and marks them as tried.
fn launch<T>(
    access: &ShardAccess,
    collection: &Collection,
    shards: &HashSet<ShardId>,
    progress: &mut Progress<T>,
) -> Vec<NodeTask> {
    let chosen = collection.shards.iter().filter(|shard: &&Shard| shards.contains(&shard.id));
    let reachable = |node| access.nodes.get(node).is_some();
    let plan = plan(chosen, |shard| access.leader(shard), &progress.tried, reachable);
    for shard in plan.without {
        let reason = || Error::Unavailable("no node with a replica can be reached".into());
        progress.reasons.entry(shard).or_insert_with(reason);
    }
    for task in &plan.tasks {
        progress.tried.extend(task.shards.iter().map(|shard| (*shard, task.node)));
    }
    plan.tasks
}

/// Takes in one node's answers. Returns the shards to ask again, and after which pause.
fn take_in<T>(
    access: &ShardAccess,
    task: &NodeTask,
    answers: Vec<ShardAnswer<T>>,
    progress: &mut Progress<T>,
) -> (HashSet<ShardId>, Duration) {
    let mut open: HashSet<ShardId> = task.shards.iter().copied().collect();
    let mut again = HashSet::new();
    let mut pause = Duration::ZERO;
    for answer in answers {
        if !open.remove(&answer.shard) {
            continue;
        }
        let error = match answer.result {
            Ok(result) => {
                progress.reasons.remove(&answer.shard);
                progress.answers.push((answer.shard, result));
                continue;
            }
            Err(error) => error,
        };
        match &error {
            Error::WrongLeader { hint, .. } => {
                access.forget_leader(answer.shard, task.node);
                let tries = progress.leader_tries.entry(answer.shard).or_default();
                *tries += 1;
                let new = hint.filter(|hint| *hint != task.node);
                if let Some(leader) = new {
                    access.note_leader(answer.shard, leader);
                } else {
                    pause = ELECTION_PAUSE;
                }
                if *tries <= LEADER_TRIES_MAX {
                    progress.tried.remove(&(answer.shard, new.unwrap_or(task.node)));
                    again.insert(answer.shard);
                }
            }
            Error::Unavailable(_)
            | Error::Overloaded(_)
            | Error::Timeout(_)
            | Error::Corrupt(_)
            | Error::Internal(_) => {
                again.insert(answer.shard);
            }
            Error::WrongEpoch { .. }
            | Error::NoSuchShard(_)
            | Error::BadInput(_)
            | Error::Validation { .. }
            | Error::NotFound(_)
            | Error::Conflict(_)
            | Error::TooLarge(_) => {}
        }
        progress.reasons.insert(answer.shard, error);
    }
    for shard in open {
        progress.reasons.insert(shard, Error::Unavailable(format!("node {} did not answer for it", task.node)));
        again.insert(shard);
    }
    (again, pause)
}

impl<T> Progress<T> {
    fn finish(mut self, collection: &Collection, wanted: &HashSet<ShardId>) -> Gathered<T> {
        self.answers.sort_by_key(|(shard, _)| *shard);
        let answered: HashSet<ShardId> = self.answers.iter().map(|(shard, _)| *shard).collect();
        let mut open: Vec<ShardId> = wanted.difference(&answered).copied().collect();
        open.sort_unstable();
        let mut missing = Vec::with_capacity(open.len());
        for shard in open {
            let unknown = || match collection.shard(shard) {
                Some(_) => Error::Timeout("no answer in time".into()),
                None => Error::NoSuchShard(shard),
            };
            missing.push(Missing { shard, reason: self.reasons.remove(&shard).unwrap_or_else(unknown) });
        }
        let coverage = Coverage { shards_asked: wanted.len(), shards_answered: answered.len(), missing };
        Gathered { answers: self.answers, coverage }
    }
}
