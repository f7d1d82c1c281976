//! What is to be done next for the maps of a collection, read from metadata and from what nodes say. Pure.

use std::collections::{BTreeMap, BTreeSet};

use vicinal_common::api::{NodeStatus, ReplicaRole, ReplicaStatus};
use vicinal_common::collection::{VectorKind, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{MapDigest, MapVersion, NodeId, ShardId};
use vicinal_common::publish::{MapRange, MapRef};

use super::super::plan::{Load, place};
use crate::meta::{ClusterRouting, Collection, CollectionState, MAP_STEPS, MetaState, Shard};

/// Fewest points that a map is trained on.
pub const POINTS_MIN: u64 = 64;
/// Progress of a change, in steps of [`MAP_STEPS`], when a part of it is done.
pub(super) mod progress {
    pub(in super::super) const SAMPLED: u32 = 50;
    pub(in super::super) const LEARNED: u32 = 150;
    pub(in super::super) const BEGUN: u32 = 200;
    pub(in super::super) const RAISED: u32 = 230;
    pub(in super::super) const TOLD: u32 = 260;
    pub(in super::super) const FILLING: u32 = 300;
    pub(in super::super) const FILLED: u32 = 900;
    pub(in super::super) const INDEXED: u32 = 900;
    pub(in super::super) const FENCED: u32 = 950;
    pub(in super::super) const ENDED: u32 = 980;
}

/// What is to be done. It stays the same until metadata change: whoever takes over begins with it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Todo {
    /// A map of this version is wanted: to be trained, stored on nodes, and begun.
    Train(MapVersion),
    /// The next map: search shards are to be created and filled, then it is served.
    Fill(MapVersion),
    /// The map that is served, with cells moved or split, is wanted as this version.
    Balance(MapVersion),
    /// A map that is ending: nobody shall search by it, then nobody shall publish by it.
    End(MapVersion),
    /// The next map is not wanted: the collection shall be routed by hash.
    Abort(MapVersion),
    /// The map that is served is not wanted, for the same reason: home shards are to get graphs, then to answer.
    ServeHomes,
}

/// What is to be done for a collection next, if anything.
pub(in super::super) fn todo(collection: &Collection) -> Option<Todo> {
    let cluster = collection.routing.cluster().filter(|_| collection.state == CollectionState::Active)?;
    if let Some(next) = &cluster.next {
        return Some(if cluster.is_leaving { Todo::Abort(next.version) } else { Todo::Fill(next.version) });
    }
    if let Some(ending) = cluster.ending {
        return Some(Todo::End(ending));
    }
    if cluster.is_leaving {
        return cluster.serving.as_ref().map(|_| Todo::ServeHomes);
    }
    let of = if cluster.is_balancing { Todo::Balance } else { Todo::Train };
    cluster.is_training.then(|| of(cluster.map_to_come()))
}

/// Collections that get their first map once they have points enough.
pub(in super::super) fn waiting(state: &MetaState) -> impl Iterator<Item = &Collection> {
    let active = state.collections.values().filter(|collection| collection.state == CollectionState::Active);
    let waits = |collection: &&Collection| collection.routing.cluster().is_some_and(|of| of.trains_from().is_some());
    active.map(|collection| &**collection).filter(waits)
}

/// Fewest points that a collection needs for a map.
pub(super) fn points_needed(cluster: &ClusterRouting) -> u64 {
    POINTS_MIN.max(u64::from(cluster.search_shards))
}

/// The routed vector. It is dense: that was checked when the routing was chosen.
pub(super) fn routed<'a>(collection: &'a Collection, cluster: &ClusterRouting) -> Result<&'a VectorSchema> {
    let vector = collection.schema.vectors.get(&cluster.vector).filter(|vector| vector.kind == VectorKind::Dense);
    vector.ok_or_else(|| Error::Internal(format!("the routed vector `{}` is no dense vector", cluster.vector)))
}

/// The search shards of a map by their positions, and those of them that do not exist yet, with ids from `first` on. As
/// many as possible of those that are served stay: what stays where it is need not be sent.
pub(super) fn search_shards(
    collection: &Collection,
    cluster: &ClusterRouting,
    count: u32,
    load: &BTreeMap<NodeId, Load>,
    first: u64,
) -> Result<(Vec<ShardId>, Vec<Shard>)> {
    let mut shards: Vec<ShardId> = cluster.serving.iter().flat_map(|served| served.map.shards.clone()).collect();
    shards.truncate(count as usize);
    let missing = count.saturating_sub(u32::try_from(shards.len()).unwrap_or(u32::MAX));
    if missing == 0 {
        return Ok((shards, Vec::new()));
    }
    let placed = place(load, missing, collection.replication_factor)?;
    let shard = |(id, replicas)| Shard { id: ShardId(id), replicas, learners: Vec::new() };
    let new: Vec<Shard> = (first..).zip(placed).map(shard).collect();
    shards.extend(new.iter().map(|shard| shard.id));
    Ok((shards, new))
}

/// Refuses to begin a map that is not stored where it has to be: on all nodes that are up, and on a majority of each
/// shard.
pub(super) fn check_stored<'a>(
    shards: impl Iterator<Item = &'a Shard>,
    stored: &BTreeSet<NodeId>,
    is_up: impl Fn(NodeId) -> bool,
) -> Result<()> {
    for shard in shards {
        let has = |node: &&NodeId| stored.contains(node);
        if let Some(node) = shard.readers().find(|node| is_up(*node) && !stored.contains(node)) {
            return Err(Error::Unavailable(format!("node {node}, which is up, has not stored the map")));
        }
        if shard.replicas.iter().filter(has).count() * 2 <= shard.replicas.len() {
            let text = format!("no majority of shard {} has stored the map: its nodes are away", shard.id);
            return Err(Error::Unavailable(text));
        }
    }
    Ok(())
}

/// The maps by which search shards are searched while the next one is being filled.
pub(super) fn range_filling(cluster: &ClusterRouting, next: &MapRef) -> MapRange {
    MapRange { oldest: cluster.served().unwrap_or(next.version), newest: next.version }
}

/// The same once a map that was served is ending. Without another one nothing is searched.
pub(super) fn range_after(cluster: &ClusterRouting) -> MapRange {
    let only = cluster.served().unwrap_or(MapVersion(u64::MAX));
    MapRange { oldest: only, newest: only }
}

/// Maps of a collection that nodes have to keep; `None` while one is ending, which some still need.
pub(super) fn kept(collection: &Collection) -> Option<Vec<MapDigest>> {
    let is_ending = collection.routing.cluster().is_some_and(|cluster| cluster.ending.is_some());
    (!is_ending).then(|| all_maps(collection).map(|map| map.digest).collect())
}

/// The maps of a collection's routing that there are, but for one that is ending, and that of its clusters.
pub(super) fn all_maps(collection: &Collection) -> impl Iterator<Item = &MapRef> {
    let own = collection.clustering.iter().map(|clusters| &clusters.map);
    collection.routing.cluster().into_iter().flat_map(maps).chain(own)
}

/// The maps that there are, but for one that is ending.
pub(super) fn maps(cluster: &ClusterRouting) -> impl Iterator<Item = &MapRef> {
    cluster.serving.iter().map(|served| &served.map).chain(&cluster.next)
}

/// What the leader of a shard says of it. Of several that believe to lead the one of the latest term is right.
pub(super) fn leader(statuses: &[NodeStatus], shard: ShardId) -> Option<&ReplicaStatus> {
    let replicas = statuses.iter().flat_map(|status| &status.replicas);
    let leads = |of: &&ReplicaStatus| of.shard == shard && of.role == ReplicaRole::Leader && of.failed.is_none();
    replicas.filter(leads).max_by_key(|of| of.term)
}

/// Points of each of some shards, as its leader knows them, or the replica that is furthest along.
pub(super) fn points(statuses: &[NodeStatus], shards: impl Iterator<Item = ShardId>) -> BTreeMap<ShardId, u64> {
    let replicas = || statuses.iter().flat_map(|status| &status.replicas);
    let of = |shard: ShardId| {
        let furthest = replicas().filter(|of| of.shard == shard).max_by_key(|of| of.applied);
        leader(statuses, shard).or(furthest).map(|of| (shard, of.points))
    };
    shards.filter_map(of).collect()
}

/// How far home shards are with filling a map: `None` when all of them are through, else the progress of the change.
pub(super) fn filling(statuses: &[NodeStatus], collection: &Collection, version: MapVersion) -> Option<u32> {
    let (mut done, mut all, mut is_filled) = (0u64, 0u64, true);
    let points = points(statuses, collection.shard_ids());
    for shard in collection.shard_ids() {
        let points = points.get(&shard).copied().unwrap_or(0);
        let targets = leader(statuses, shard).into_iter().flat_map(|of| &of.publish.targets);
        let target = targets.into_iter().find(|target| target.version == version);
        all += points;
        done += target.map_or(0, |target| if target.is_filled { points } else { target.rows_filled.min(points) });
        is_filled &= target.is_some_and(|target| target.is_filled);
    }
    let width = u64::from(progress::FILLED - progress::FILLING);
    // Below a thousand: the difference of two of the parts.
    let share = (width * done / all.max(1)).min(width) as u32;
    (!is_filled).then_some((progress::FILLING + share).min(MAP_STEPS))
}

/// Home shards can do without search shards when at most one in so many of their vectors waits for a graph. Not none: while
/// a client writes, there is nearly always a small new segment without.
const WAITING_SHARE: u64 = 10;

/// How far home shards are with the graphs that they need to answer all queries: `None` when they can, else the progress of
/// the change.
///
/// Of each home shard, all replicas that answer have to be ready, and a majority. One that is away is not waited for: it
/// may never come back, and no read goes to it either; should it come back it scans for a while, which is right, only slow.
/// Nor is one waited for that has failed, or that cannot build because its disk is full. Less than a majority is no shard
/// that could be written to, so the change could not end in any case.
pub(super) fn indexing(statuses: &[NodeStatus], collection: &Collection) -> Option<u32> {
    let (mut done, mut all, mut is_ready) = (0, 0, true);
    for shard in &collection.shards {
        let mut ready = BTreeSet::new();
        for status in statuses.iter().filter(|status| status.read_only.is_none() && shard.is_on(status.node)) {
            let Some(replica) = status.replicas.iter().find(|of| of.shard == shard.id && of.failed.is_none()) else {
                continue;
            };
            let ReplicaStatus { indexed_vectors: indexed, waiting_vectors: waiting, .. } = *replica;
            let is_told = replica.tuning >= collection.tuning.revision;
            all += indexed + waiting;
            done += if is_told { indexed } else { 0 };
            match is_told && waiting.saturating_mul(WAITING_SHARE) <= indexed + waiting {
                true => drop(ready.insert(status.node)),
                false => is_ready = false,
            }
        }
        let voters = shard.replicas.iter().filter(|node| ready.contains(node)).count();
        is_ready &= voters * 2 > shard.replicas.len();
    }
    let share = (u64::from(progress::INDEXED) * done / all.max(1)).min(u64::from(progress::INDEXED)) as u32;
    (!is_ready).then_some(share)
}

#[cfg(test)]
mod tests {
    use vicinal_common::ids::CollectionId;
    use vicinal_common::publish::{PublishStatus, TargetStatus};

    use super::*;

    fn shard(id: u64, replicas: &[u64]) -> Shard {
        Shard { id: ShardId(id), replicas: replicas.iter().copied().map(NodeId).collect(), learners: Vec::new() }
    }

    #[test]
    fn a_map_begins_only_where_it_will_be_found_again() {
        let shards = [shard(1, &[1, 2, 3]), shard(2, &[3, 4])];
        let check = |stored: &[u64], up: &[u64]| {
            let stored = stored.iter().copied().map(NodeId).collect();
            check_stored(shards.iter(), &stored, |node| up.contains(&node.0)).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[1, 2, 3, 4], &[1, 2, 3, 4]), Ok(()));
        assert!(check(&[1, 2, 4], &[1, 2, 3, 4]).unwrap_err().contains("node 3, which is up"));
        assert_eq!(check(&[1, 3, 4], &[1, 3, 4]), Ok(()));
        assert!(check(&[1, 2, 4], &[1, 2, 4]).unwrap_err().contains("no majority of shard 2"));
        assert!(check(&[1, 2, 3], &[]).unwrap_err().contains("no majority of shard 2"));
    }

    #[test]
    fn homes_answer_once_those_that_are_up_have_graphs_and_are_a_majority() {
        let mut collection = Collection::clone(&crate::model::ModelCluster::new(1, 3).collection);
        let shard = collection.shards[0].clone();
        assert_eq!(shard.replicas.len(), 3);
        collection.tuning.revision = 5;
        let of = |node: usize, tuning, waiting| {
            let unknown = ReplicaStatus::unknown(shard.id, collection.id);
            let replica = ReplicaStatus { tuning, indexed_vectors: 100 - waiting, waiting_vectors: waiting, ..unknown };
            NodeStatus { node: shard.replicas[node], replicas: vec![replica], read_only: None, maps: Vec::new() }
        };
        let with = |change: &dyn Fn(&mut NodeStatus)| {
            let mut status = of(2, 4, 90);
            change(&mut status);
            [of(0, 5, 10), of(1, 6, 0), status]
        };
        let indexing = |statuses: &[NodeStatus]| indexing(statuses, &collection);
        assert_eq!(indexing(&[of(0, 5, 10), of(1, 5, 0), of(2, 5, 0)]), None, "little that waits does no harm");
        assert_eq!(indexing(&[of(0, 5, 50), of(1, 5, 0), of(2, 5, 40)]), Some(630));
        assert_eq!(indexing(&[of(0, 5, 11), of(1, 5, 0), of(2, 5, 0)]), Some(867));
        assert_eq!(indexing(&[of(0, 5, 0), of(1, 5, 0), of(2, 4, 0)]), Some(600), "it does not know what is wanted");
        assert_eq!(indexing(&[of(0, 5, 0), of(1, 5, 0)]), None, "one is away");
        assert_eq!(indexing(&[of(0, 5, 0)]), Some(900), "two are away");
        assert_eq!(indexing(&[]), Some(0));
        assert!(indexing(&with(&|_| ())).is_some());
        assert_eq!(indexing(&with(&|status| status.replicas[0].failed = Some("broken".into()))), None);
        assert_eq!(indexing(&with(&|status| status.read_only = Some("its disk is full".into()))), None);
        assert_eq!(indexing(&with(&|status| status.node = NodeId(99))), None, "it is no member");
    }

    fn status(node: u64, term: u64, role: ReplicaRole, filled: Option<(bool, u64)>) -> NodeStatus {
        let collection = CollectionId(uuid::Uuid::nil());
        let target = |(is_filled, rows_filled)| TargetStatus { version: MapVersion(3), is_filled, rows_filled };
        let publish = PublishStatus { targets: filled.map(target).into_iter().collect(), ..PublishStatus::default() };
        let unknown = ReplicaStatus::unknown(ShardId(0), collection);
        let replica = ReplicaStatus { role, term, points: 100, publish, ..unknown };
        NodeStatus { node: NodeId(node), replicas: vec![replica], read_only: None, maps: Vec::new() }
    }

    #[test]
    fn only_leaders_know_how_far_a_map_is_filled() {
        use ReplicaRole::{Follower, Leader};
        let collection = crate::model::ModelCluster::new(1, 3).collection;
        let filling = |statuses: &[NodeStatus]| filling(statuses, &collection, MapVersion(3));
        assert_eq!(filling(&[status(1, 1, Follower, Some((true, 9)))]), Some(300));
        assert_eq!(filling(&[status(1, 1, Leader, None)]), Some(300));
        assert_eq!(filling(&[status(1, 1, Leader, Some((false, 50)))]), Some(600));
        assert_eq!(filling(&[status(1, 1, Leader, Some((true, 0)))]), None);
        let deposed = status(1, 1, Leader, Some((true, 0)));
        assert_eq!(filling(&[deposed, status(2, 2, Leader, Some((false, 500)))]), Some(900));
    }
}
