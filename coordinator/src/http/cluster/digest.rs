//! Whether the replicas of a shard hold the same: each digests what it holds, at the same log index or later.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use vicinal_common::api::{DigestRequest, ReadContext, ShardDigest};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, NodeId};

use super::replicas::replicas;
use super::survey::Survey;
use crate::Coordinator;
use crate::meta::{Collection, Shard};

/// How often replicas are asked that were read at different log indexes because writes went on.
const ROUNDS_MAX: usize = 20;
/// Pause before they are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// One replica's answer: up to which log index it was read, and what it holds.
type Answer = Result<(LogIndex, ShardDigest)>;

/// The digests of all replicas of all shards, with the verdict per shard.
pub(super) async fn digests(coordinator: &Coordinator, collection: &Collection, deadline: Instant) -> Value {
    let survey = Survey::take(coordinator, deadline).await;
    let floors = replicas(&survey, collection);
    let shards = collection.all_shards().map(|shard| {
        let floor = |role: Option<&str>| {
            let known = floors.iter().filter(|row| row.shard == shard.id && role.is_none_or(|role| row.role == role));
            known.filter_map(|row| row.applied).max()
        };
        // Without a leader the one furthest along is what the others can reach.
        let floor = floor(Some("leader")).or_else(|| floor(None)).unwrap_or_default();
        compare(coordinator, &survey, collection, shard, floor, deadline)
    });
    json!({"shards": join_all(shards).await})
}

async fn compare(
    coordinator: &Coordinator,
    survey: &Survey,
    collection: &Collection,
    shard: &Shard,
    mut floor: LogIndex,
    deadline: Instant,
) -> Value {
    let mut rounds = 1;
    let (answers, verdict) = loop {
        let asked = shard
            .readers()
            .map(|node| async move { (node, ask(coordinator, collection, shard, node, floor, deadline).await) });
        let answers = join_all(asked).await;
        let verdict = Verdict::of(&answers);
        let is_last = rounds == ROUNDS_MAX || Instant::now() + PAUSE >= deadline;
        if verdict != Verdict::Moving || is_last {
            break (answers, verdict);
        }
        floor = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|read| read.0).max().unwrap_or(floor);
        rounds += 1;
        sleep(PAUSE).await;
    };
    let replicas: Vec<Value> = answers.iter().map(|(node, answer)| shown(&survey.name(*node), answer)).collect();
    let mut result = json!({"shard": shard.id, "equal": verdict == Verdict::Equal, "replicas": replicas});
    if let Some(reason) = verdict.reason() {
        result["reason"] = json!(reason);
    }
    result
}

async fn ask(
    coordinator: &Coordinator,
    collection: &Collection,
    shard: &Shard,
    node: NodeId,
    floor: LogIndex,
    deadline: Instant,
) -> Answer {
    let unavailable = |text: &str| Error::Unavailable(text.to_owned());
    let api = coordinator.shards.nodes.get(node).ok_or_else(|| unavailable("the node has not been heard of"))?;
    let context = ReadContext {
        collection: collection.id,
        epoch: collection.epoch_of(shard.id),
        shards: vec![(shard.id, floor)],
        // Any replica shall answer for itself, the floor says what it must have seen.
        consistency: Consistency::ReadYourWrites,
        deadline,
    };
    let answers = timeout_at(deadline, api.digest(DigestRequest { context })).await;
    let answers = answers.map_err(|_| Error::Timeout("no digest in time".into()))?;
    let answer = answers.into_iter().find(|answer| answer.shard == shard.id);
    let answer = answer.ok_or_else(|| unavailable("the node did not answer for this shard"))?;
    Ok((answer.applied, answer.result?))
}

fn shown(node: &str, answer: &Answer) -> Value {
    match answer {
        Ok((applied, ShardDigest { points, digest })) => {
            json!({"node": node, "applied": applied, "points": points, "digest": format!("{digest:016x}")})
        }
        Err(error) => json!({"node": node, "error": error.to_string()}),
    }
}

/// What the answers of a shard's replicas say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All hold the same.
    Equal,
    /// They hold different things at the same log index: a defect.
    Different,
    /// They were read at different log indexes, which says nothing.
    Moving,
    /// One did not answer.
    Incomplete,
}

impl Verdict {
    fn of(answers: &[(NodeId, Answer)]) -> Verdict {
        let mut read: Vec<_> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
        read.sort_by_key(|(index, _)| *index);
        let mut pairs = read.windows(2);
        if pairs.clone().any(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1) {
            Verdict::Different
        } else if read.len() < answers.len() || read.is_empty() {
            Verdict::Incomplete
        } else if pairs.all(|pair| pair[0].1 == pair[1].1) {
            Verdict::Equal
        } else {
            Verdict::Moving
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Verdict::Equal => None,
            Verdict::Different => Some("replicas differ at the same log index: please report this defect"),
            Verdict::Moving => Some("writes went on: the replicas were read at different log indexes; ask again"),
            Verdict::Incomplete => Some("not every replica answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(index: u64, digest: u64) -> (NodeId, Answer) {
        (NodeId(1), Ok((LogIndex(index), ShardDigest { points: 3, digest })))
    }

    #[test]
    fn only_the_same_digest_from_all_is_equal() {
        let missing = (NodeId(2), Err(Error::Timeout("late".into())));
        assert_eq!(Verdict::of(&[read(5, 1), read(5, 1)]), Verdict::Equal);
        assert_eq!(Verdict::of(&[read(5, 1), read(6, 1)]), Verdict::Equal);
        assert_eq!(Verdict::of(&[read(5, 1), read(5, 2)]), Verdict::Different);
        assert_eq!(Verdict::of(&[read(6, 2), read(5, 1)]), Verdict::Moving);
        assert_eq!(Verdict::of(&[read(6, 2), read(5, 1), read(6, 3)]), Verdict::Different);
        assert_eq!(Verdict::of(&[read(5, 1), missing]), Verdict::Incomplete);
        assert_eq!(Verdict::of(&[]), Verdict::Incomplete);
    }
}
