//! Applies what concerns maps of collections that are routed by cluster. Pure, like all of apply.
//!
//! One change at a time: a map is wanted, then it is `next`, then it is served while the one before is `ending`; or it
//! is taken back and is itself `ending`. `next` and `ending` are never there together, so that there is always one
//! thing to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, LogIndex, MapVersion, ShardId};
use vicinal_common::limits::SEARCH_SHARDS_MAX;

use super::apply::refuse;
use super::command::{BeginMap, MetaReply};
use super::routing::{ClusterRouting, Measured, RoutingChange, ServedMap};
use super::state::{Collection, CollectionState, MetaState, OperationKind, Routing, Shard};

/// Steps of each operation that is about a map: thousandths of the work, roughly.
pub const MAP_STEPS: u32 = 1_000;

impl MetaState {
    /// A collection that exists.
    fn living(&mut self, id: CollectionId) -> Result<&mut Collection> {
        let found = self.collections.get_mut(&id).filter(|found| found.state != CollectionState::Deleting);
        found.map(Arc::make_mut).ok_or_else(|| Error::NotFound(format!("Collection {id} was deleted")))
    }

    fn cluster(&mut self, id: CollectionId) -> Result<&mut ClusterRouting> {
        let collection = self.living(id)?;
        match &mut collection.routing {
            Routing::Cluster(cluster) => Ok(cluster),
            other => Err(Error::Conflict(format!(
                "Collection `{}` is not routed by cluster, its routing is `{}`",
                collection.name,
                other.name()
            ))),
        }
    }

    pub(super) fn train_map(&mut self, id: CollectionId, now_ms: u64) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) if cluster.is_training && !cluster.is_balancing => return MetaReply::Done,
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        if let Some(what) = cluster.under_way() {
            return refuse(Error::Conflict(format!("no map is trained now: {what}")));
        }
        (cluster.is_training, cluster.is_balancing, cluster.is_held) = (true, false, false);
        self.begin_operation(OperationKind::ChangeMap, id, now_ms, MAP_STEPS as usize);
        MetaReply::Done
    }

    pub(super) fn balance_map(&mut self, id: CollectionId, version: MapVersion, now_ms: u64) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        let to_come = cluster.map_to_come();
        let next = cluster.next.as_ref().map(|map| map.version);
        let is_wanted = cluster.is_balancing && version == to_come;
        if is_wanted || cluster.served() == Some(version) || next == Some(version) {
            return MetaReply::Done;
        }
        if cluster.serving.is_none() {
            return refuse(Error::Conflict("search shards are balanced once a map is served".into()));
        }
        if let Some(what) = cluster.under_way() {
            return refuse(Error::Conflict(format!("search shards are not balanced now: {what}")));
        }
        if version != to_come {
            return refuse(Error::Conflict(format!("the next map has version {to_come}, not {version}")));
        }
        (cluster.is_training, cluster.is_balancing) = (true, true);
        self.begin_operation(OperationKind::BalanceMap, id, now_ms, MAP_STEPS as usize);
        MetaReply::Done
    }

    pub(super) fn note_balance(&mut self, id: CollectionId, measured: Measured) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        // One of another map says nothing of the one that is served.
        if cluster.served() == Some(measured.map) {
            cluster.measured = Some(measured);
        }
        MetaReply::Done
    }

    pub(super) fn begin_map(&mut self, begin: &BeginMap) -> MetaReply {
        let version = begin.map.version;
        let next_shard = self.next_shard;
        let cluster = match self.cluster(begin.collection) {
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        let is_served = cluster.serving.as_ref().is_some_and(|served| served.map == begin.map);
        if is_served || cluster.next.as_ref() == Some(&begin.map) {
            return MetaReply::Done;
        }
        if !cluster.is_training {
            return refuse(Error::Conflict(format!("map {version} is not wanted any more")));
        }
        if version != cluster.map_to_come() {
            let last = cluster.last_version;
            return refuse(Error::Conflict(format!("map {version} does not follow map {last}, the newest there was")));
        }
        let ends = match check_shards(cluster, begin, next_shard) {
            Ok(Some(ends)) => ends,
            Ok(None) => return MetaReply::ShardIdsTaken { next_shard },
            Err(error) => return refuse(error),
        };
        let mut nodes = begin.new_shards.iter().flat_map(Shard::readers);
        if let Some(unknown) = nodes.find(|node| !self.nodes.contains_key(node)) {
            return refuse(Error::BadInput(format!("node {unknown} is not registered")));
        }
        self.next_shard = ends;
        self.newest_map = self.newest_map.max(version);
        self.with_cluster(begin.collection, |cluster| {
            (cluster.is_training, cluster.is_balancing) = (false, false);
            cluster.last_version = version;
            cluster.next = Some(begin.map.clone());
            cluster.next_trained = begin.trained;
            cluster.shards.extend(begin.new_shards.iter().cloned());
        })
    }

    pub(super) fn serve_map(&mut self, id: CollectionId, version: MapVersion, floors: &[LogIndex]) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) if cluster.served() == Some(version) => return MetaReply::Done,
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        let Some(map) = cluster.next.clone().filter(|map| map.version == version) else {
            return refuse(Error::Conflict(format!("map {version} is not the one that is being filled")));
        };
        if floors.len() != map.shards.len() {
            let (floors, shards) = (floors.len(), map.shards.len());
            return refuse(Error::BadInput(format!("map {version} has {shards} shards, not {floors}")));
        }
        let ending = cluster.served();
        cluster.next = None;
        (cluster.trained, cluster.measured) = (cluster.next_trained.take(), None);
        cluster.serving = Some(ServedMap { map, floors: floors.to_vec() });
        (cluster.ending, cluster.was_served) = (ending, ending.is_some());
        if ending.is_none() {
            self.end_operations(id);
        }
        self.tell_shards(id)
    }

    pub(super) fn end_map(&mut self, id: CollectionId, version: MapVersion) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) => cluster,
            // The last one ended, and with it the routing.
            Err(Error::Conflict(_)) => return MetaReply::Done,
            Err(error) => return refuse(error),
        };
        if cluster.ending != Some(version) {
            let next = cluster.next.as_ref().map(|map| map.version);
            let is_used = cluster.served() == Some(version) || next == Some(version);
            return match is_used || version > cluster.last_version {
                true => refuse(Error::Conflict(format!("map {version} is not ending"))),
                // It has ended before.
                false => MetaReply::Done,
            };
        }
        let done = self.with_cluster(id, |cluster| {
            (cluster.ending, cluster.was_served) = (None, false);
            let kept: BTreeSet<ShardId> =
                cluster.serving.iter().flat_map(|served| served.map.shards.iter().copied()).collect();
            cluster.shards.retain(|shard| kept.contains(&shard.id));
        });
        self.end_operations(id);
        self.leave(id);
        done
    }

    pub(super) fn abort_map(&mut self, id: CollectionId, version: MapVersion, now_ms: u64) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        if cluster.next.as_ref().is_some_and(|map| map.version == version) {
            (cluster.next, cluster.next_trained) = (None, None);
            (cluster.ending, cluster.was_served) = (Some(version), false);
            cluster.is_held = cluster.serving.is_none();
            self.end_operations(id);
            self.begin_operation(OperationKind::AbortMap, id, now_ms, MAP_STEPS as usize);
            return MetaReply::Done;
        }
        if cluster.served() == Some(version) {
            return refuse(Error::Conflict(format!("map {version} is served already")));
        }
        let to_come = cluster.map_to_come();
        if version > to_come {
            return refuse(Error::Conflict(format!("there is no map {version}")));
        }
        if version == to_come && cluster.is_training {
            (cluster.is_training, cluster.is_balancing) = (false, false);
            cluster.is_held = cluster.serving.is_none();
            self.end_operations(id);
        }
        MetaReply::Done
    }

    pub(super) fn serve_homes(&mut self, id: CollectionId, now_ms: u64) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        let Some(version) = cluster.served() else { return MetaReply::Done };
        if let Some(what) = cluster.under_way().filter(|_| cluster.next.is_some() || cluster.ending.is_some()) {
            return refuse(Error::Conflict(format!("home shards cannot take over searches now: {what}")));
        }
        cluster.serving = None;
        (cluster.ending, cluster.was_served) = (Some(version), true);
        (cluster.is_training, cluster.is_balancing) = (false, false);
        (cluster.trained, cluster.measured) = (None, None);
        if !self.is_indexing_homes(id) {
            self.end_operations(id);
            self.begin_operation(OperationKind::ServeHomes, id, now_ms, MAP_STEPS as usize);
        }
        self.tell_shards(id)
    }

    pub(super) fn index_homes(&mut self, id: CollectionId, now_ms: u64) -> MetaReply {
        let cluster = match self.cluster(id) {
            Ok(cluster) => cluster,
            Err(error) => return refuse(error),
        };
        // Else home shards answer already, or something else goes first.
        let is_due = cluster.is_leaving && cluster.serving.is_some() && cluster.next.is_none();
        if is_due && cluster.ending.is_none() && !self.is_indexing_homes(id) {
            self.begin_operation(OperationKind::ServeHomes, id, now_ms, MAP_STEPS as usize);
        }
        MetaReply::Done
    }

    fn is_indexing_homes(&self, id: CollectionId) -> bool {
        let mut operations = self.operations.values().filter(|operation| operation.collection == id);
        operations.any(|operation| operation.kind == OperationKind::ServeHomes)
    }

    pub(super) fn change_routing(&mut self, id: CollectionId, change: &RoutingChange) -> MetaReply {
        let newest = self.newest_map;
        let collection = match self.living(id) {
            Ok(collection) => collection,
            Err(error) => return refuse(error),
        };
        let conflict = |text: &str| refuse(Error::Conflict(format!("`routing.method`: {text}")));
        match (change, &mut collection.routing) {
            (_, Routing::Replicate) => return conflict("the collection has `replicate`, which stays"),
            (RoutingChange::Hash, Routing::Hash) => {}
            (RoutingChange::Hash, Routing::Cluster(cluster)) => {
                cluster.is_leaving = true;
                cluster.is_balancing = false;
                if std::mem::take(&mut cluster.is_training) {
                    self.end_operations(id);
                }
                self.leave(id);
                // If it is served still, home shards need graphs before they answer.
                return self.tell_shards(id);
            }
            (RoutingChange::Cluster(settings), routing @ Routing::Hash) => {
                *routing = Routing::Cluster(Box::new(ClusterRouting::new(settings.clone(), newest)));
            }
            (RoutingChange::Cluster(_), Routing::Cluster(_)) => return conflict("it has become `cluster` meanwhile"),
            (RoutingChange::Settings { .. }, Routing::Hash) => return conflict("it has become `hash` meanwhile"),
            (RoutingChange::Settings { .. }, Routing::Cluster(cluster)) if cluster.is_leaving => {
                return conflict("the collection is being switched back to `hash`");
            }
            (
                RoutingChange::Settings { search_shards, copies, recall_target, from_points, balance },
                Routing::Cluster(cluster),
            ) => {
                cluster.search_shards = search_shards.unwrap_or(cluster.search_shards);
                cluster.copies = copies.unwrap_or(cluster.copies);
                cluster.recall_target = recall_target.unwrap_or(cluster.recall_target);
                cluster.from_points = from_points.unwrap_or(cluster.from_points);
                cluster.balance = balance.unwrap_or(cluster.balance);
            }
        }
        MetaReply::Done
    }

    /// Spreads points by their ids alone, if that is wanted and nothing is left of routing by cluster.
    fn leave(&mut self, id: CollectionId) {
        let Ok(collection) = self.living(id) else { return };
        let is_over = |cluster: &ClusterRouting| {
            let maps = (cluster.served(), &cluster.next, cluster.ending);
            cluster.is_leaving && maps == (None, &None, None)
        };
        if collection.routing.cluster().is_some_and(is_over) {
            collection.routing = Routing::Hash;
            collection.tell_shards();
        }
    }

    /// See [`Collection::tell_shards`].
    fn tell_shards(&mut self, id: CollectionId) -> MetaReply {
        match self.living(id) {
            Ok(collection) => collection.tell_shards(),
            Err(error) => return refuse(error),
        }
        MetaReply::Done
    }

    /// Changes what is known of maps and search shards, and tells the shards of it.
    fn with_cluster(&mut self, id: CollectionId, change: impl FnOnce(&mut ClusterRouting)) -> MetaReply {
        match self.cluster(id) {
            Ok(cluster) => change(cluster),
            Err(error) => return refuse(error),
        }
        self.tell_shards(id)
    }
}

/// The number after the last shard id that is in use with the new shards of a map; `None` when some of them are taken.
fn check_shards(cluster: &ClusterRouting, begin: &BeginMap, next_shard: u64) -> Result<Option<u64>> {
    let (map, new) = (&begin.map, &begin.new_shards);
    if new.windows(2).any(|pair| pair[0].id >= pair[1].id) {
        return Err(Error::Internal("shard ids of new search shards must ascend".into()));
    }
    if new.first().is_some_and(|first| first.id.0 < next_shard) {
        return Ok(None);
    }
    if map.vector != cluster.vector {
        let text = format!("map {} places `{}`, the routed vector is `{}`", map.version, map.vector, cluster.vector);
        return Err(Error::BadInput(text));
    }
    let named: BTreeSet<ShardId> = map.shards.iter().copied().collect();
    if map.shards.is_empty() || named.len() != map.shards.len() || named.len() > SEARCH_SHARDS_MAX as usize {
        let shards = map.shards.len();
        return Err(Error::BadInput(format!(
            "map {}: {shards} search shards, 1 to {SEARCH_SHARDS_MAX} different \
                                            ones are allowed",
            map.version
        )));
    }
    let is_there = |id: &ShardId| cluster.shards.iter().chain(new).any(|shard| shard.id == *id);
    if let Some(missing) = named.iter().find(|id| !is_there(id)) {
        return Err(Error::BadInput(format!("map {} names shard {missing}, which is no search shard", map.version)));
    }
    if let Some(useless) = new.iter().find(|shard| !named.contains(&shard.id)) {
        return Err(Error::BadInput(format!("map {} does not name its new shard {}", map.version, useless.id)));
    }
    let ends = match new.last() {
        Some(last) => last.id.0.checked_add(1),
        None => Some(next_shard),
    };
    ends.map(Some).ok_or_else(|| Error::Internal("shard ids are used up".into()))
}

#[cfg(test)]
mod tests;
