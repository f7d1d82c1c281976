//! Makes replicas match the metadata: creates those of new collections, drops those of deleted ones, moves those of
//! replaced nodes, and gives new nodes theirs of replicated collections. Runs on every coordinator and acts on the one that leads the metadata group.
//!
//! Every step can be repeated, and what is still to do is read from the metadata each time: a crash or a change of the
//! leader at any point only means that the next one does it again. Two coordinators may act at once for a moment; what a
//! late step of the old one leaves behind is found by the sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use vicinal_common::api::{FoundGroup, NodeDirectory, NodeStatus, ShardApi};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, NodeId, ShardId};
use vicinal_common::transport::Address;

use super::maps;
use super::plan::replica_spec;
use super::replace::address;
use super::tuning::{announce_tuning, outdated};
use crate::asked::Asked;
use crate::members::Members;
use crate::meta::{Catalog, Collection, CollectionState, MetaCommand, MetaState, Shard};

/// How often the lead is looked at when nothing changes.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// How often replicas that belong to nothing are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// How often collections that wait for their first map are asked how many points they have, and others how even they
/// are.
const LOOK: Duration = Duration::from_secs(2);
/// Collections worked on at a time (those that wait for a node do not count), and calls under way for each.
const COLLECTIONS_AT_ONCE: usize = 16;
const CALLS_AT_ONCE: usize = 16;
/// Longest time of one call to a node.
const CALL: Duration = Duration::from_secs(10);
/// Longest wait for the leaders of new groups before it is reported.
const LEADERS: Duration = Duration::from_secs(10);
/// How often new groups are asked whether they have a leader.
const LEADER_POLL: Duration = Duration::from_millis(20);
/// Longest time of one change of the metadata.
pub(super) const CHANGE: Duration = Duration::from_secs(10);
/// Pause after a failed attempt: first and longest.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(100);
pub(super) const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// Keeps replicas and metadata in agreement.
#[derive(Clone)]
pub struct Reconciler {
    pub(super) catalog: Catalog,
    pub(super) nodes: NodeDirectory,
    pub(super) members: Arc<Members>,
    places: Arc<Semaphore>,
    /// Whose turn it is to train a map.
    pub(super) trainings: Arc<Semaphore>,
    /// What is remembered of the balance of search shards while this coordinator leads.
    pub(super) watches: Arc<Mutex<maps::Watches>>,
    /// What is asked of this coordinator.
    pub(super) asked: Asked,
}

/// An attempt that failed, with what it had done.
pub(super) struct Failed {
    pub(super) steps_done: usize,
    pub(super) error: Error,
}

impl Reconciler {
    /// A reconciler over the nodes of the directory.
    pub fn new(catalog: Catalog, nodes: NodeDirectory, members: Arc<Members>) -> Reconciler {
        let (places, trainings) = (Arc::new(Semaphore::new(COLLECTIONS_AT_ONCE)), Arc::new(Semaphore::new(1)));
        let (watches, asked) = (Arc::default(), Asked::default());
        Reconciler { catalog, nodes, members, places, trainings, watches, asked }
    }

    /// The same, which calibrates maps by what this coordinator is asked, too.
    pub(crate) fn with_asked(self, asked: Asked) -> Reconciler {
        Reconciler { asked, ..self }
    }

    /// Works until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.catalog.changed();
        let mut works = JoinSet::new();
        let mut running: BTreeMap<CollectionId, AbortHandle> = BTreeMap::new();
        let mut next_sweep = None;
        let mut forgetting: Option<AbortHandle> = None;
        let mut tuning: Option<AbortHandle> = None;
        let mut supply: Option<AbortHandle> = None;
        let mut look: Option<AbortHandle> = None;
        let mut glance: Option<AbortHandle> = None;
        let mut next_look = None;
        let mut clustering: BTreeMap<CollectionId, AbortHandle> = BTreeMap::new();
        loop {
            // Marked as seen before the state is read: a change in between wakes the wait below.
            changed.borrow_and_update();
            while let Some(ended) = works.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "placing replicas ended unexpectedly and is begun again");
                }
            }
            running.retain(|_, work| !work.is_finished());
            clustering.retain(|_, work| !work.is_finished());
            if self.catalog.is_leader() {
                let state = self.catalog.state();
                for collection in state.collections.values() {
                    if maps::wants_clusters(collection) && !clustering.contains_key(&collection.id) {
                        clustering.insert(collection.id, works.spawn(self.clone().cluster(collection.id)));
                    }
                    if running.contains_key(&collection.id) {
                        continue;
                    }
                    if collection.state != CollectionState::Active {
                        running.insert(collection.id, works.spawn(self.clone().work(collection.id)));
                    } else if self.needs_move(&state, collection) {
                        running.insert(collection.id, works.spawn(self.clone().move_replicas(collection.id)));
                    } else if self.needs_spread(&state, collection) {
                        running.insert(collection.id, works.spawn(self.clone().spread(collection.id)));
                    } else if maps::todo(collection).is_some() {
                        running.insert(collection.id, works.spawn(self.clone().change_maps(collection.id)));
                    }
                }
                let forgettable = Reconciler::forgettable(&state);
                if !forgettable.is_empty() && forgetting.as_ref().is_none_or(AbortHandle::is_finished) {
                    forgetting = Some(works.spawn(self.clone().forget(forgettable)));
                }
                let outdated = self.outdated(&state);
                if !outdated.is_empty() && tuning.as_ref().is_none_or(AbortHandle::is_finished) {
                    tuning = Some(works.spawn(self.clone().send_tuning(outdated)));
                }
                let lacking = self.lacking(&state);
                if !lacking.is_empty() && supply.as_ref().is_none_or(AbortHandle::is_finished) {
                    supply = Some(works.spawn(self.clone().supply(lacking)));
                }
                if next_look.is_none_or(|due| due <= Instant::now()) {
                    next_look = Some(Instant::now() + LOOK);
                    let is_waited = maps::waiting(&state).next().is_some();
                    if is_waited && look.as_ref().is_none_or(AbortHandle::is_finished) {
                        look = Some(works.spawn(self.clone().want_first_maps()));
                    }
                    let is_watched = maps::watched(&state).next().is_some();
                    if is_watched && glance.as_ref().is_none_or(AbortHandle::is_finished) {
                        glance = Some(works.spawn(self.clone().keep_even()));
                    }
                }
                if next_sweep.is_none_or(|due| due <= Instant::now()) {
                    works.spawn(self.clone().sweep());
                    next_sweep = Some(Instant::now() + SWEEP);
                }
            } else {
                next_sweep = None;
                self.watches.lock().clear();
            }
            tokio::select! {
                () = stop.cancelled() => break,
                alive = changed.changed() => if alive.is_err() { break },
                _ = works.join_next(), if !works.is_empty() => {}
                () = sleep(TICK) => {}
            }
        }
        works.shutdown().await;
    }

    /// Works on one collection until there is nothing left to do, or another coordinator leads.
    async fn work(self, id: CollectionId) {
        let mut pause = PAUSE_FIRST;
        let mut told = String::new();
        while self.catalog.is_leader() {
            // Held for one attempt: a collection whose node never comes back must not keep others from their turn.
            let Ok(place) = self.places.acquire().await else { return };
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&id).cloned() else { return };
            let attempt = match collection.state {
                CollectionState::Active => return,
                CollectionState::Creating => self.create(&state, &collection).await,
                CollectionState::Deleting => self.delete(&collection).await,
            };
            drop(place);
            let Err(Failed { steps_done, error }) = attempt else {
                pause = PAUSE_FIRST;
                continue;
            };
            let what = match collection.state {
                CollectionState::Creating => "creating",
                CollectionState::Deleting => "dropping",
                CollectionState::Active => "serving",
            };
            let text = error.to_string();
            if text != told {
                tracing::warn!("{what} the replicas of collection `{}` has to wait: {text}", collection.name);
                self.note_progress(&state, id, steps_done).await;
                told = text;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    async fn create(&self, state: &MetaState, collection: &Arc<Collection>) -> Result<(), Failed> {
        let shards: Vec<&Shard> = collection.shards.iter().collect();
        let steps_done = self.raise(state, collection, &shards).await?;
        let is_wanted = |now: CollectionState| now == CollectionState::Creating;
        let led = self.wait_for_leaders(collection, &shards, is_wanted).await;
        if !led.map_err(|error| Failed { steps_done, error })? {
            return Ok(());
        }
        let activated = self.change(MetaCommand::ActivateCollection { collection: collection.id }).await;
        activated.map_err(|error| Failed { steps_done, error })
    }

    /// Creates the replicas of new shards and founds their groups; how many steps that were.
    pub(super) async fn raise(
        &self,
        state: &MetaState,
        collection: &Collection,
        shards: &[&Shard],
    ) -> Result<usize, Failed> {
        let replicas = shards.iter().flat_map(|shard| shard.readers().map(|node| (shard.id, node))).collect();
        let created = self.on_each(replicas, |api, shard| {
            let spec = replica_spec(collection, shard);
            async move { api.create_replica(spec).await }
        });
        let steps_done = all(created.await, 0)?;
        if collection.tuning.revision > 0 {
            // Before the first points come: nothing is built then that is not wanted.
            announce_tuning(&self.nodes, collection).await;
        }
        let mut groups = BTreeMap::new();
        for shard in shards {
            let voters = voters(state, shard).map_err(|error| Failed { steps_done, error })?;
            groups.insert(shard.id, voters);
        }
        // One replica of each shard founds its group.
        let firsts = shards.iter().filter_map(|shard| Some((shard.id, *shard.replicas.first()?))).collect();
        let founded = self.on_each(firsts, |api, shard| {
            let voters = groups.get(&shard).cloned().unwrap_or_default();
            async move { api.found_group(FoundGroup { shard, voters }).await }
        });
        all(founded.await, steps_done)
    }

    /// Whether every one of some shards has a leader; `false` when the collection's state says that they are not wanted
    /// any more.
    pub(super) async fn wait_for_leaders(
        &self,
        collection: &Collection,
        shards: &[&Shard],
        is_wanted: impl Fn(CollectionState) -> bool,
    ) -> Result<bool> {
        let mut missing: BTreeSet<ShardId> = shards.iter().map(|shard| shard.id).collect();
        let give_up = Instant::now() + LEADERS;
        loop {
            let asked = shards.iter().filter(|shard| missing.contains(&shard.id));
            let nodes: BTreeSet<NodeId> = asked.flat_map(|shard| shard.replicas.iter().copied()).collect();
            let mut failure = None;
            for (_, answer) in self.statuses(nodes).await {
                match answer {
                    Ok(status) => {
                        for replica in status.replicas {
                            if replica.leader.is_some() && replica.failed.is_none() {
                                missing.remove(&replica.shard);
                            }
                        }
                    }
                    Err(error) => failure = Some(error),
                }
            }
            let Some(first) = missing.first() else { return Ok(true) };
            let now = self.catalog.state().collections.get(&collection.id).map(|found| found.state);
            if !now.is_some_and(&is_wanted) {
                return Ok(false);
            }
            if Instant::now() >= give_up {
                let text = format!("{} of its shards have no leader yet, shard {first} is one", missing.len());
                return Err(failure.unwrap_or(Error::Unavailable(text)));
            }
            sleep(LEADER_POLL).await;
        }
    }

    async fn delete(&self, collection: &Collection) -> Result<(), Failed> {
        let state = self.catalog.state();
        // A replaced node has no data to drop; if it comes back with it after all, it is refused.
        let is_there = |node: &NodeId| state.nodes.get(node).is_some_and(|info| info.replaced_by.is_none());
        let replicas = all_replicas(collection).into_iter().filter(|(_, node)| is_there(node)).collect();
        let dropped = self.on_each(replicas, |api, shard| async move { api.drop_replica(shard).await });
        let steps_done = all(dropped.await, 0)?;
        self.forget_maps(collection).await;
        let finished = self.change(MetaCommand::FinishDelete { collection: collection.id }).await;
        finished.map_err(|error| Failed { steps_done, error })
    }

    /// Tells replicas what they shall have, should their signs of life not have shown that they do not know, and drops
    /// replicas that belong to no collection: a late step of a coordinator that led before, or a node that was away when
    /// its collection was deleted. A shard id below `next_shard` that no collection has was deleted for good, even if this
    /// coordinator's state is old, because ids are never used again.
    async fn sweep(self) {
        let nodes = self.nodes.ids().into_iter().collect();
        for (node, answer) in self.statuses(nodes).await {
            let state = self.catalog.state();
            let kept: BTreeSet<ShardId> =
                state.collections.values().flat_map(|found| found.all_shards()).map(|shard| shard.id).collect();
            let Ok(status) = answer else { continue };
            self.clone().send_tuning(outdated(&state, node, &status.replicas)).await;
            self.sweep_maps(&state, &status).await;
            for replica in status.replicas {
                if replica.shard.0 < state.next_shard && !kept.contains(&replica.shard) {
                    let dropped = self.call(node, |api| async move { api.drop_replica(replica.shard).await }).await;
                    match dropped {
                        Ok(()) => tracing::info!("dropped a replica of deleted shard {} on node {node}", replica.shard),
                        Err(error) => tracing::warn!("a replica of deleted shard {} stays: {error}", replica.shard),
                    }
                }
            }
        }
    }

    /// What nodes say of themselves at this moment.
    pub(super) async fn statuses(&self, nodes: BTreeSet<NodeId>) -> Vec<(NodeId, Result<NodeStatus>)> {
        let calls = nodes
            .into_iter()
            .map(|node| async move { (node, self.call(node, |api| async move { api.status().await }).await) });
        stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect().await
    }

    /// Makes one call for each shard and node, several at a time.
    pub(super) async fn on_each<F: Future<Output = Result<()>>>(
        &self,
        targets: Vec<(ShardId, NodeId)>,
        call: impl Fn(Arc<dyn ShardApi>, ShardId) -> F,
    ) -> Vec<Result<()>> {
        let call = &call;
        let calls = targets.into_iter().map(|(shard, node)| self.call(node, move |api| call(api, shard)));
        stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect().await
    }

    pub(super) async fn call<T, F: Future<Output = Result<T>>>(
        &self,
        node: NodeId,
        call: impl FnOnce(Arc<dyn ShardApi>) -> F,
    ) -> Result<T> {
        let Some(api) = self.nodes.get(node) else {
            let name = self.catalog.state().nodes.get(&node).map(|info| format!("`{}`", info.name));
            let name = name.unwrap_or_else(|| node.to_string());
            return Err(Error::Unavailable(format!("shard node {name} is not connected")));
        };
        let answer = timeout(CALL, call(api)).await;
        answer.unwrap_or_else(|_| Err(Error::Timeout(format!("node {node} did not answer within {CALL:?}"))))
    }

    pub(super) async fn change(&self, command: MetaCommand) -> Result<()> {
        self.catalog.change(command, Instant::now() + CHANGE).await
    }

    /// Shows how far a collection is that has to wait. Those that go through at once need no such entry.
    pub(super) async fn note_progress(&self, state: &MetaState, id: CollectionId, steps: usize) {
        let steps_done = u32::try_from(steps).unwrap_or(u32::MAX);
        let operation = state.operations.iter().find(|(_, operation)| operation.collection == id);
        if let Some((operation, known)) = operation
            && known.steps_done != steps_done
            && let Err(error) = self.change(MetaCommand::Progress { operation: *operation, steps_done }).await
        {
            report(&error);
        }
    }
}

fn report(error: &impl Display) {
    tracing::debug!("progress was not noted: {error}");
}

pub(super) fn all_replicas(collection: &Collection) -> Vec<(ShardId, NodeId)> {
    let mut replicas = Vec::new();
    for shard in collection.all_shards() {
        replicas.extend(shard.readers().map(|node| (shard.id, node)));
    }
    replicas
}

/// Adds up what was done; the first error, if there is one, with the sum.
fn all(results: Vec<Result<()>>, before: usize) -> Result<usize, Failed> {
    let steps_done = before + results.iter().filter(|result| result.is_ok()).count();
    match results.into_iter().find_map(Result::err) {
        None => Ok(steps_done),
        Some(error) => Err(Failed { steps_done, error }),
    }
}

fn voters(state: &MetaState, shard: &Shard) -> Result<BTreeMap<NodeId, Address>> {
    shard.replicas.iter().map(|node| address(state, *node)).collect()
}
