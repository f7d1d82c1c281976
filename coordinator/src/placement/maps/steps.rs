//! The steps by which a map comes to be served, and by which one ends. Each can be repeated.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use vicinal_common::api::{NodeStatus, WriteOp};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, MapVersion, NodeId, ShardId};
use vicinal_common::publish::{FeedChange, MapRef};

use super::super::reconcile::Reconciler;
use super::super::tuning::{announce_tuning, outdated};
use super::plan::{self, progress};
use crate::meta::{ClusterRouting, Collection, CollectionState, MAP_STEPS, MetaCommand, MetaState, Shard};

/// Shards that are written to at a time.
const SHARDS_AT_ONCE: usize = 16;

/// A part of the work that is done shard by shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// The group of a search shard has a leader.
    Raised,
    /// A search shard knows the next map.
    Told,
    /// A home shard publishes by it.
    Begun,
    /// A search shard refuses searches by the map that ends.
    Fenced,
    /// A home shard publishes by it no more.
    Ended,
}

/// What this coordinator has seen done, so that a new attempt goes on. It is only ever less than the truth.
#[derive(Default)]
pub(super) struct Done {
    parts: BTreeSet<(Part, ShardId)>,
    /// Nodes that lacked a map were sent it. Others are seen by their signs of life.
    is_supplied: bool,
    /// The operation by which home shards get graphs has begun.
    is_indexing: bool,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It did all there was.
    Done,
    /// Others have work to do; look again in a moment.
    Waiting,
}

impl Reconciler {
    /// Creates the next map's search shards, has them filled, and serves it.
    pub(super) async fn fill(
        &self,
        state: &MetaState,
        collection: &Collection,
        cluster: &ClusterRouting,
        done: &mut Done,
    ) -> Result<Outcome> {
        let Some(next) = &cluster.next else { return Ok(Outcome::Done) };
        let statuses = self.all_statuses(collection).await;
        if !std::mem::replace(&mut done.is_supplied, true) {
            self.supply_now(state, collection, &statuses).await;
        }
        self.raise_search_shards(state, collection, next, &statuses, done).await?;
        self.progress(collection.id, progress::RAISED).await;
        let range = plan::range_filling(cluster, next);
        let searched = cluster.shards.iter();
        self.write_each(collection, searched, (Part::Told, WriteOp::Maps(range)), done).await?;
        self.progress(collection.id, progress::TOLD).await;
        // Not before: a row may be removed as misplaced only where no younger map is known.
        let begin = WriteOp::Feed(FeedChange::Begin(next.clone()));
        self.write_each(collection, collection.shards.iter(), (Part::Begun, begin), done).await?;
        // Asked again: what was said before is not true of what was begun since.
        let statuses = self.all_statuses(collection).await;
        if let Some(progress) = plan::filling(&statuses, collection, next.version) {
            self.progress(collection.id, progress).await;
            return Ok(Outcome::Waiting);
        }
        self.progress(collection.id, progress::FILLED).await;
        let version = next.version;
        let floors = stream::iter(next.shards.clone()).map(|shard| async move {
            let shard = collection.shard(shard).ok_or_else(|| lost(shard, version))?;
            self.floor(collection, shard, version).await
        });
        let floors: Vec<_> = floors.buffered(SHARDS_AT_ONCE).collect().await;
        let floors = floors.into_iter().collect::<Result<Vec<_>>>()?;
        self.change(MetaCommand::ServeMap { collection: collection.id, version, floors }).await?;
        tracing::info!("collection `{}` is searched by map {version}", collection.name);
        Ok(Outcome::Done)
    }

    /// Makes sure that the search shards of a map exist and have leaders, and that home shards know where they are.
    async fn raise_search_shards(
        &self,
        state: &MetaState,
        collection: &Collection,
        next: &MapRef,
        statuses: &[NodeStatus],
        done: &mut Done,
    ) -> Result<()> {
        let is_raised = |shard: ShardId| {
            let replicas = statuses.iter().flat_map(|status| &status.replicas);
            replicas.into_iter().any(|of| of.shard == shard && of.leader.is_some() && of.failed.is_none())
        };
        let missing: Vec<ShardId> =
            next.shards.iter().copied().filter(|shard| !done.parts.contains(&(Part::Raised, *shard))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let shards: Result<Vec<&Shard>> = missing
            .iter()
            .filter(|shard| !is_raised(**shard))
            .map(|shard| collection.shard(*shard).ok_or_else(|| lost(*shard, next.version)))
            .collect();
        let shards = shards?;
        for shard in &shards {
            self.move_unfounded(state, collection, shard, statuses).await?;
        }
        if !shards.is_empty() {
            self.raise(state, collection, &shards).await.map_err(|failed| failed.error)?;
            self.wait_for_leaders(collection, &shards, |now| now == CollectionState::Active).await?;
        }
        // Home shards would hear of it with their next signs of life; this is sooner.
        announce_tuning(&self.nodes, collection).await;
        done.parts.extend(missing.into_iter().map(|shard| (Part::Raised, shard)));
        Ok(())
    }

    /// Replicas of a search shard on nodes that were replaced before its group was founded are to be on those that came under
    /// their names: a group without a leader cannot be told. An error when there were some: what follows is for an attempt
    /// that knows of it.
    async fn move_unfounded(
        &self,
        state: &MetaState,
        collection: &Collection,
        shard: &Shard,
        statuses: &[NodeStatus],
    ) -> Result<()> {
        let (moves, others): (Vec<_>, Vec<_>) =
            shard.readers().map(|node| (node, state.successor(node))).partition(|(from, to)| from != to);
        if moves.is_empty() {
            return Ok(());
        }
        // All that could have been told of the founding have to say that they were not.
        let is_unfounded = |node: NodeId| {
            let said = statuses.iter().find(|status| status.node == node);
            said.is_some_and(|of| of.replicas.iter().all(|of| of.shard != shard.id || of.voters.is_empty()))
        };
        if others.iter().all(|(node, _)| is_unfounded(*node)) {
            self.note_moves(collection, shard, moves).await?;
        }
        Err(Error::Unavailable(format!("replicas of search shard {} were on nodes that have been replaced", shard.id)))
    }

    /// Ends a map: nobody searches by it, then nobody publishes by it, then it is forgotten.
    pub(super) async fn end(
        &self,
        collection: &Collection,
        cluster: &ClusterRouting,
        ending: MapVersion,
        done: &mut Done,
    ) -> Result<Outcome> {
        // By one that was taken back nobody ever searched: its search shards may not even be there.
        if cluster.was_served {
            let range = plan::range_after(cluster);
            let searched = cluster.shards.iter();
            self.write_each(collection, searched, (Part::Fenced, WriteOp::Maps(range)), done).await?;
        }
        self.progress(collection.id, progress::FENCED).await;
        let end = WriteOp::Feed(FeedChange::End { version: ending });
        self.write_each(collection, collection.shards.iter(), (Part::Ended, end), done).await?;
        self.progress(collection.id, progress::ENDED).await;
        self.change(MetaCommand::EndMap { collection: collection.id, version: ending }).await?;
        Ok(Outcome::Done)
    }

    /// Has home shards build the graphs that only search shards had, then has them answer all queries.
    pub(super) async fn serve_homes(
        &self,
        state: &MetaState,
        collection: &Collection,
        done: &mut Done,
    ) -> Result<Outcome> {
        let (id, now_ms) = (collection.id, self.catalog.now_ms());
        if !done.is_indexing {
            self.change(MetaCommand::IndexHomes { collection: id, now_ms }).await?;
            done.is_indexing = true;
        }
        let statuses = self.all_statuses(collection).await;
        if let Some(progress) = plan::indexing(&statuses, collection) {
            // Their signs of life would tell; this is sooner.
            let outdated = statuses.iter().flat_map(|status| outdated(state, status.node, &status.replicas));
            self.clone().send_tuning(outdated.collect()).await;
            self.progress(id, progress).await;
            return Ok(Outcome::Waiting);
        }
        self.progress(id, progress::INDEXED).await;
        self.change(MetaCommand::ServeHomes { collection: id, now_ms }).await?;
        tracing::info!("collection `{}` is searched at its home shards again", collection.name);
        Ok(Outcome::Done)
    }

    /// Drops replicas and maps that were needed before a map ended. What cannot be reached is found by the sweep.
    pub(super) async fn clean_up(&self, state: &MetaState, before: &Collection, now: &Collection) {
        let gone = before.all_shards().filter(|shard| now.shard(shard.id).is_none());
        let replicas: Vec<(ShardId, NodeId)> =
            gone.flat_map(|shard| shard.readers().map(|node| (shard.id, node))).collect();
        let nodes: BTreeSet<NodeId> = before.all_shards().flat_map(Shard::readers).collect();
        let dropped = self.on_each(replicas, |api, shard| async move { api.drop_replica(shard).await }).await;
        if let Some(error) = dropped.into_iter().find_map(Result::err) {
            tracing::debug!(%error, "replicas of a search shard that is not needed stay until the next sweep");
        }
        self.keep_maps(state, now, nodes).await;
    }

    /// Writes to each of some shards that was not written to, several at a time; the first error, if there is one.
    async fn write_each<'a>(
        &self,
        collection: &Collection,
        shards: impl Iterator<Item = &'a Shard>,
        (part, op): (Part, WriteOp),
        done: &mut Done,
    ) -> Result<()> {
        let left: Vec<Shard> = shards.filter(|shard| !done.parts.contains(&(part, shard.id))).cloned().collect();
        let writes = left.into_iter().map(|shard| {
            let op = op.clone();
            async move { (shard.id, self.write(collection, &shard, op).await) }
        });
        let written: Vec<(ShardId, Result<()>)> = stream::iter(writes).buffer_unordered(SHARDS_AT_ONCE).collect().await;
        let mut first = None;
        for (shard, result) in written {
            match result {
                Ok(()) => drop(done.parts.insert((part, shard))),
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// What the nodes of a collection say of themselves; those that do not answer are left out.
    pub(super) async fn all_statuses(&self, collection: &Collection) -> Vec<NodeStatus> {
        let nodes = collection.all_shards().flat_map(Shard::readers).collect();
        self.statuses(nodes).await.into_iter().filter_map(|(_, status)| status.ok()).collect()
    }

    /// Shows how far a change is. It does not go back when parts of the work are done again.
    pub(super) async fn progress(&self, id: CollectionId, steps: u32) {
        // Hundredths: filling moves more often than anybody looks.
        let steps = steps - steps % (MAP_STEPS / 100);
        let state = self.catalog.state();
        let mut operations = state.operations.values().filter(|operation| operation.collection == id);
        if operations.all(|operation| operation.steps_done < steps) {
            self.note_progress(&state, id, steps as usize).await;
        }
    }
}

/// Metadata that contradict themselves.
fn lost(shard: ShardId, version: MapVersion) -> Error {
    Error::Internal(format!("shard {shard} of map {version} is not in the metadata"))
}
