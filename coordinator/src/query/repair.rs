//! Read repair: copies that home shards refused to confirm are removed from the search shards that had them.
//!
//! Searches trip over copies that nobody needs: publishers forget what is gone when the lead of a home shard changes, and
//! the sweep takes its time. What a search has seen is only where to look. A copy goes for the same facts as in the sweep:
//! its home shard, read as its leader confirms it with a majority, has replaced the version and has the later one in its
//! places, or, having applied the version, has the point no more. A replica that is behind cannot be a witness, whatever it
//! let a search believe. Then the copy stays for a while, so that a search that asks two shards at different moments finds
//! one of the two. Facts stay true: late, twice or never is fine. So what finds no room, or no answer, is forgotten; whoever
//! trips over it next, or the sweep, finds it again.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use vicinal_common::api::{NodeDirectory, PointParts, ReadContext, RetrieveRequest, ShardApi, WriteOp, WriteRequest};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, NodeId, RequestId, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{AtHome, Copies, CopyVersion, gone};
use vicinal_common::telemetry::instruments;

use crate::meta::{Collection, Shard};

/// Copies that are remembered at a time; more are dropped.
pub(super) const COPIES_MAX: usize = 4_096;
/// Copies that are asked about, or removed, at a time.
const BATCH_MAX: usize = 512;
/// Pause between two batches: what many searches trip over is brought together.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a copy stays after its successor was seen in its places.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Longest time of a call.
const CALL: Duration = Duration::from_secs(2);
/// Shards that are called at a time.
const SHARDS_AT_ONCE: usize = 4;

/// A copy that a search shard gave to a search.
pub(super) type FoundCopy = (ShardId, PointId, LogIndex);

/// A shard and where to reach it.
#[derive(Debug)]
struct Place {
    shard: ShardId,
    collection: CollectionId,
    epoch: Epoch,
    nodes: Vec<NodeId>,
}

/// A copy that may have to go.
#[derive(Clone, Debug)]
struct Suspect {
    id: PointId,
    version: LogIndex,
    /// The search shard that has it.
    search: Arc<Place>,
    home: Arc<Place>,
}

impl Suspect {
    fn copy(&self) -> FoundCopy {
        (self.search.shard, self.id, self.version)
    }
}

/// Copies on their way out, at most [`COPIES_MAX`]. A task works on them while there are any.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    found: VecDeque<Suspect>,
    /// Those that are gone for certain, with the time from which on they are removed.
    proven: VecDeque<(Instant, Suspect)>,
    /// All that wait or are being worked on: each once, however many searches trip over it.
    known: HashSet<FoundCopy>,
    is_worked_on: bool,
}

impl Repairs {
    /// Takes in copies that a search was given and home shards refused. Returns at once.
    pub(super) fn take_in(&self, nodes: &NodeDirectory, collection: &Collection, refused: &[FoundCopy]) {
        if refused.is_empty() {
            return;
        }
        let place = |shard: &Shard, epoch| {
            let (shard, nodes) = (shard.id, shard.readers().collect());
            Arc::new(Place { shard, collection: collection.id, epoch, nodes })
        };
        let mut places: BTreeMap<ShardId, Arc<Place>> = BTreeMap::new();
        let mut place_of = |id: ShardId| {
            if let Some(known) = places.get(&id) {
                return Some(known.clone());
            }
            let made = place(collection.shard(id)?, collection.epoch_of(id));
            places.insert(id, made.clone());
            Some(made)
        };
        let mut queue = self.queue.lock();
        for (shard, id, version) in refused {
            let (Some(search), Some(home)) = (place_of(*shard), place_of(collection.tokens.shard_of(*id))) else {
                continue;
            };
            if queue.known.len() >= COPIES_MAX {
                instruments().repair.dropped.inc();
            } else if queue.known.insert((*shard, *id, *version)) {
                instruments().repair.found.inc();
                queue.found.push_back(Suspect { id: *id, version: *version, search, home });
            }
        }
        if !queue.known.is_empty() && !std::mem::replace(&mut queue.is_worked_on, true) {
            tokio::spawn(work(self.queue.clone(), nodes.clone()));
        }
    }

    /// Copies that wait, or are being worked on.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> BTreeSet<FoundCopy> {
        self.queue.lock().known.iter().copied().collect()
    }

    /// What the task does in its next step, as if so much time had passed.
    #[cfg(test)]
    pub(super) async fn step(&self, nodes: &NodeDirectory, after: Duration) {
        prove(&self.queue, nodes).await;
        remove(&self.queue, nodes, Instant::now() + after).await;
    }
}

/// Works until nothing is left. It ends: a copy is asked about once and removed once, whatever comes of it.
async fn work(queue: Arc<Mutex<Queue>>, nodes: NodeDirectory) {
    /// Lets a search start another one when this one panics or is dropped.
    struct Working {
        queue: Arc<Mutex<Queue>>,
        is_done: bool,
    }
    impl Drop for Working {
        fn drop(&mut self) {
            if !self.is_done {
                self.queue.lock().is_worked_on = false;
            }
        }
    }
    let mut working = Working { queue, is_done: false };
    loop {
        sleep(PAUSE).await;
        prove(&working.queue, &nodes).await;
        remove(&working.queue, &nodes, Instant::now()).await;
        let mut queue = working.queue.lock();
        if queue.found.is_empty() && queue.proven.is_empty() {
            // What was under way when a task before this one was dropped is nobody's any more.
            queue.known.clear();
            // With the lock held, so that nothing comes in between.
            queue.is_worked_on = false;
            drop(queue);
            working.is_done = true;
            return;
        }
    }
}

/// Asks home shards about a batch.
async fn prove(queue: &Mutex<Queue>, nodes: &NodeDirectory) {
    let batch: Vec<Suspect> = {
        let mut queue = queue.lock();
        let count = queue.found.len().min(BATCH_MAX);
        queue.found.drain(..count).collect()
    };
    let mut by_home: BTreeMap<ShardId, (Arc<Place>, Vec<Suspect>)> = BTreeMap::new();
    for suspect in batch {
        let of_home = by_home.entry(suspect.home.shard).or_insert_with(|| (suspect.home.clone(), Vec::new()));
        of_home.1.push(suspect);
    }
    let asked = by_home.into_values().map(|(home, suspects)| async move {
        let at_home = ask(nodes, &home, suspects.iter().map(|suspect| suspect.id).collect()).await;
        (at_home, suspects)
    });
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(SHARDS_AT_ONCE).collect().await;
    let due = Instant::now() + GRACE;
    let mut queue = queue.lock();
    for (at_home, suspects) in answers {
        let pairs: Vec<CopyVersion> = suspects.iter().map(|suspect| (suspect.id, suspect.version)).collect();
        let gone: HashSet<CopyVersion> = gone(&pairs, &[at_home]).gone.into_iter().collect();
        for suspect in suspects {
            if gone.contains(&(suspect.id, suspect.version)) {
                queue.proven.push_back((due, suspect));
            } else {
                instruments().repair.kept.inc();
                queue.known.remove(&suspect.copy());
            }
        }
    }
}

/// What a home shard has of these points; `None` when nobody can say so for certain.
async fn ask(nodes: &NodeDirectory, home: &Place, ids: BTreeSet<PointId>) -> Option<AtHome> {
    let ids: Arc<Vec<PointId>> = Arc::new(ids.into_iter().collect());
    let read = |api: Arc<dyn ShardApi>| {
        let context = ReadContext {
            collection: home.collection,
            epoch: home.epoch,
            shards: vec![(home.shard, LogIndex(0))],
            consistency: Consistency::Linearizable,
            deadline: Instant::now() + CALL,
        };
        let request = RetrieveRequest { context, ids: ids.clone(), parts: PointParts::default() };
        async move {
            let answer = api.retrieve(request).await.into_iter().find(|answer| answer.shard == home.shard);
            let answer = answer.ok_or(Error::NoSuchShard(home.shard))?;
            Ok((answer.applied, answer.result?))
        }
    };
    let (node, (applied, points)) = at_leader(nodes, home, read).await?;
    let versions: BTreeMap<PointId, LogIndex> = points.into_iter().map(|point| (point.id, point.version)).collect();
    // After the versions: what was published before it was asked is published. Without an answer nothing counts as that.
    let published = match (versions.is_empty(), nodes.get(node)) {
        (false, Some(api)) => match timeout(CALL, api.status()).await {
            Ok(Ok(status)) => status.replicas.iter().find(|of| of.shard == home.shard).map(|of| of.publish.published),
            Ok(Err(_)) | Err(_) => None,
        },
        (true, _) | (false, None) => None,
    };
    Some(AtHome { applied, published: published.unwrap_or_default(), versions })
}

/// Removes a batch of those whose time has come.
async fn remove(queue: &Mutex<Queue>, nodes: &NodeDirectory, now: Instant) {
    let batch: Vec<Suspect> = {
        let mut queue = queue.lock();
        let due = queue.proven.iter().take(BATCH_MAX).take_while(|(due, _)| *due <= now).count();
        queue.proven.drain(..due).map(|(_, suspect)| suspect).collect()
    };
    let mut by_shard: BTreeMap<ShardId, Vec<Suspect>> = BTreeMap::new();
    for suspect in batch {
        by_shard.entry(suspect.search.shard).or_default().push(suspect);
    }
    let removed = by_shard.into_values().map(|suspects| async move {
        let is_removed = remove_from(nodes, &suspects).await;
        (is_removed, suspects)
    });
    let removed: Vec<_> = stream::iter(removed).buffer_unordered(SHARDS_AT_ONCE).collect().await;
    let mut queue = queue.lock();
    for (is_removed, suspects) in removed {
        let counter = if is_removed { &instruments().repair.sent } else { &instruments().repair.dropped };
        counter.inc_by(suspects.len() as u64);
        for suspect in suspects {
            queue.known.remove(&suspect.copy());
        }
    }
}

/// Has the leader of a search shard remove copies; all are of the same one.
async fn remove_from(nodes: &NodeDirectory, suspects: &[Suspect]) -> bool {
    let Some(Suspect { search, version, .. }) = suspects.first() else { return true };
    let gone = suspects.iter().map(|suspect| (suspect.id, suspect.version)).collect();
    let op = WriteOp::Copies(Arc::new(Copies { gone, ..Copies::default() }));
    let write = |api: Arc<dyn ShardApi>| {
        let request = WriteRequest {
            // Search shards do not remember requests of this kind: to do one again changes nothing.
            request: RequestId(u128::from(search.shard.0) << 64 | u128::from(version.0)),
            part: 0,
            collection: search.collection,
            epoch: search.epoch,
            shard: search.shard,
            op: op.clone(),
            deadline: Instant::now() + CALL,
        };
        async move { api.write(request).await }
    };
    at_leader(nodes, search, write).await.is_some()
}

/// What the leader of a shard answers, and where it is. Each node is asked once at most. No error is worth more: what is
/// not done now is found again.
async fn at_leader<T, F: Future<Output = Result<T>>>(
    nodes: &NodeDirectory,
    place: &Place,
    call: impl Fn(Arc<dyn ShardApi>) -> F,
) -> Option<(NodeId, T)> {
    let mut left: VecDeque<NodeId> = place.nodes.iter().copied().collect();
    let mut asked = BTreeSet::new();
    while let Some(node) = left.pop_front() {
        let Some(api) = nodes.get(node).filter(|_| asked.insert(node)) else { continue };
        match timeout(CALL, call(api)).await {
            Ok(Ok(answer)) => return Some((node, answer)),
            Ok(Err(Error::WrongLeader { hint: Some(hint), .. })) => left.push_front(hint),
            Ok(Err(error)) => tracing::debug!(shard = %place.shard, %node, %error, "no repair of copies there"),
            Err(_) => tracing::debug!(shard = %place.shard, %node, "no repair of copies there: no answer in time"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_facts_count() {
        let home = |applied: u64, published: u64, version: Option<u64>| AtHome {
            applied: LogIndex(applied),
            published: LogIndex(published),
            versions: version.map(|version| (PointId::Num(1), LogIndex(version))).into_iter().collect(),
        };
        let replaced = |home: AtHome| gone(&[(PointId::Num(1), LogIndex(5))], &[Some(home)]).gone.len() == 1;
        assert!(replaced(home(9, 8, Some(8))), "its successor is in its places");
        assert!(!replaced(home(9, 7, Some(8))), "it is not");
        assert!(!replaced(home(9, 9, Some(5))), "it is current");
        assert!(!replaced(home(9, 9, Some(4))), "never the other way round");
        assert!(replaced(home(5, 0, None)), "deleted");
        assert!(!replaced(home(4, 4, None)), "it was not there yet");
    }
}
