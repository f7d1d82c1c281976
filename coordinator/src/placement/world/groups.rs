//! What nodes share of their shards: points, maps, what home shards publish; with the order in which things may happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use vicinal_common::api::*;
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, MapVersion, NodeId, ShardId};
use vicinal_common::payload::Payload;
use vicinal_common::point::PointId;
use vicinal_common::publish::{FeedChange, MapRange, MapRef, ShardRole, TargetStatus};
use vicinal_common::tuning::Tuning;

/// Signs of life of a leader until it has filled a map.
const LOOKS_TO_FILL: u64 = 2;
/// Signs of life of a replica until it has built its graphs.
const LOOKS_TO_INDEX: u64 = 3;

/// One shard.
#[derive(Debug)]
struct Group {
    role: ShardRole,
    leader: Option<NodeId>,
    points: Vec<(u64, Vec<f32>)>,
    /// Maps that it publishes by, each with how often its leader was looked at since.
    feed: Vec<(MapRef, u64)>,
    /// The newest map that it ever published by.
    newest: MapVersion,
    range: MapRange,
    log: u64,
}

/// All shards.
#[derive(Default)]
pub(in super::super) struct Groups {
    groups: Mutex<BTreeMap<ShardId, Group>>,
    calls: AtomicUsize,
    /// The call that fails, counted over all nodes, and what is stopped by it.
    interrupted: Mutex<Option<(usize, CancellationToken)>>,
    /// Home shards do not get on with filling.
    pub(in super::super) stuck: AtomicBool,
    /// Looks until the replicas of home shards that were told to have no graphs have them again; `None`: they shall not.
    unindexed: Mutex<BTreeMap<(ShardId, NodeId), Option<u64>>>,
    /// Replicas do not get on with building graphs.
    pub(in super::super) is_slow: AtomicBool,
    /// Nodes that are away.
    pub(in super::super) away: Mutex<BTreeSet<NodeId>>,
}

impl Groups {
    /// Fails one call, and stops something with it.
    pub(in super::super) fn interrupt(&self, call: usize, stop: CancellationToken) {
        *self.interrupted.lock() = Some((call, stop));
    }

    /// Calls so far.
    pub(in super::super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(super) fn interrupts(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let interrupted = self.interrupted.lock();
        let Some((_, stop)) = interrupted.as_ref().filter(|(at, _)| *at == call) else { return false };
        stop.cancel();
        true
    }

    /// Gives a shard points of two dimensions.
    pub(in super::super) fn fill(&self, shard: ShardId, points: Vec<(u64, Vec<f32>)>) {
        self.groups.lock().get_mut(&shard).unwrap().points = points;
    }

    /// Maps that a home shard publishes by.
    pub(in super::super) fn published(&self, shard: ShardId) -> Vec<u64> {
        self.groups.lock()[&shard].feed.iter().map(|(map, _)| map.version.0).collect()
    }

    /// Whether a search shard answers searches by a map.
    pub(in super::super) fn is_searched(&self, shard: ShardId, map: MapVersion) -> bool {
        self.groups.lock()[&shard].range.contains(map)
    }

    /// What a replica is told to have.
    pub(super) fn tune(&self, node: NodeId, shard: ShardId, tuning: &Tuning) {
        if self.groups.lock()[&shard].role == ShardRole::Search {
            return;
        }
        let mut unindexed = self.unindexed.lock();
        match tuning.unindexed.is_empty() {
            false => drop(unindexed.insert((shard, node), None)),
            true => {
                if let Some(left) = unindexed.get_mut(&(shard, node)) {
                    left.get_or_insert(LOOKS_TO_INDEX);
                }
            }
        }
    }

    /// Replicas of home shards that have no graphs.
    pub(in super::super) fn unindexed(&self) -> BTreeSet<(ShardId, NodeId)> {
        let unindexed = self.unindexed.lock();
        unindexed.iter().filter(|(_, left)| **left != Some(0)).map(|(replica, _)| *replica).collect()
    }

    /// Whether a node leads a shard.
    pub(in super::super) fn leads(&self, node: NodeId) -> bool {
        self.groups.lock().values().any(|group| group.leader == Some(node))
    }

    /// How far a shard is.
    pub(in super::super) fn log(&self, shard: ShardId) -> u64 {
        self.groups.lock()[&shard].log
    }

    pub(super) fn create(&self, spec: &ReplicaSpec) {
        let vectors = spec.schema.vectors.len();
        assert!(spec.role == ShardRole::Home || vectors == 1, "a search shard has the routed vector only");
        let mut groups = self.groups.lock();
        let group = groups.entry(spec.shard).or_insert_with(|| Group {
            role: spec.role,
            leader: None,
            points: Vec::new(),
            feed: Vec::new(),
            newest: MapVersion(0),
            range: MapRange::default(),
            log: 1,
        });
        assert_eq!(group.role, spec.role);
    }

    pub(super) fn found(&self, shard: ShardId, node: NodeId) {
        self.groups.lock().get_mut(&shard).unwrap().leader.get_or_insert(node);
    }

    pub(super) fn is_founded(&self, shard: ShardId) -> bool {
        self.groups.lock()[&shard].leader.is_some()
    }

    /// What a node says of its replica.
    pub(super) fn status(&self, node: NodeId, known: ReplicaStatus) -> ReplicaStatus {
        let mut groups = self.groups.lock();
        let Some(group) = groups.get_mut(&known.shard) else { return known };
        let mut status = known;
        status.points = group.points.len() as u64;
        status.applied = LogIndex(group.log);
        status.publish.maps = group.range;
        status.indexed_vectors = status.points;
        if let Some(Some(left)) = self.unindexed.lock().get_mut(&(status.shard, node)) {
            *left -= u64::from(*left > 0 && !self.is_slow.load(Ordering::SeqCst));
            if *left > 0 {
                (status.indexed_vectors, status.waiting_vectors) = (0, status.points);
            }
        }
        if group.leader != Some(node) {
            return status;
        }
        status.role = ReplicaRole::Leader;
        for (map, looks) in &mut group.feed {
            *looks += u64::from(!self.stuck.load(Ordering::SeqCst));
            let is_filled = *looks > LOOKS_TO_FILL;
            let target = TargetStatus { version: map.version, is_filled, rows_filled: *looks };
            status.publish.targets.push(target);
        }
        status
    }

    pub(super) fn write(&self, node: NodeId, request: WriteRequest) -> Result<WriteAck> {
        let shard = request.shard;
        let mut groups = self.groups.lock();
        let ranges: BTreeMap<ShardId, MapRange> = groups.iter().map(|(shard, group)| (*shard, group.range)).collect();
        let group = groups.get_mut(&shard).ok_or(Error::NoSuchShard(shard))?;
        if group.leader != Some(node) {
            return Err(Error::WrongLeader { shard, hint: group.leader, term: 1 });
        }
        group.log += 1;
        match request.op {
            WriteOp::Maps(range) => {
                assert_eq!(group.role, ShardRole::Search);
                if range.oldest == MapVersion(u64::MAX) {
                    let away = self.away.lock();
                    let missing: Vec<_> = self.unindexed().into_iter().filter(|(_, on)| !away.contains(on)).collect();
                    assert!(missing.is_empty(), "home shards answer without graphs: {missing:?}");
                }
                group.range = group.range.raised(range);
            }
            WriteOp::Feed(FeedChange::Begin(map)) => {
                assert_eq!(group.role, ShardRole::Home);
                for shard in &map.shards {
                    let known = ranges.get(shard).is_some_and(|range| range.newest >= map.version);
                    assert!(known, "shard {shard} does not know map {} yet", map.version);
                }
                if map.version > group.newest {
                    group.newest = map.version;
                    group.feed.push((map, 0));
                }
                assert!(group.feed.len() <= 2, "two at a time: {:?}", group.feed);
            }
            WriteOp::Feed(FeedChange::End { version }) => {
                assert_eq!(group.role, ShardRole::Home);
                group.newest = group.newest.max(version);
                group.feed.retain(|(map, _)| map.version != version);
            }
            other => panic!("{other:?}"),
        }
        let (index, effect) = (LogIndex(group.log), Effect::default());
        Ok(WriteAck { index, term: 1, effect, copies: Vec::new(), map: MapVersion(0) })
    }

    pub(super) fn scroll(&self, shard: ShardId, request: &ScrollRequest) -> ShardAnswer<Vec<StoredPoint>> {
        let groups = self.groups.lock();
        let ScrollOrder::Random { seed } = request.order else { panic!("{:?}", request.order) };
        let stored = |(id, vector): &(u64, Vec<f32>)| StoredPoint {
            id: PointId::Num(*id),
            version: LogIndex(1),
            payload: Payload::default(),
            vectors: [(String::new(), vector.clone().into())].into(),
            order: None,
        };
        let mut points: Vec<StoredPoint> = groups[&shard].points.iter().map(stored).collect();
        points.sort_by_key(|point| random_key(seed, point.id));
        points.truncate(request.limit);
        ShardAnswer { shard, applied: LogIndex(groups[&shard].log), result: Ok(points) }
    }

    pub(super) fn count(&self, node: NodeId, shard: ShardId, context: &ReadContext) -> ShardAnswer<u64> {
        assert_eq!(context.consistency, Consistency::Linearizable);
        let groups = self.groups.lock();
        let group = &groups[&shard];
        let result = match group.leader {
            Some(leader) if leader == node => Ok(0),
            hint => Err(Error::WrongLeader { shard, hint, term: 1 }),
        };
        assert!(group.range.contains(MapVersion(context.epoch.0)), "{context:?} {group:?}");
        ShardAnswer { shard, applied: LogIndex(group.log), result }
    }
}
