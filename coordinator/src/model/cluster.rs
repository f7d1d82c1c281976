//! A model cluster whose collection is routed by cluster: home shards that publish, search shards that hold copies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vicinal_common::ids::{LogIndex, MapDigest, MapVersion, NodeId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::point::{Point, PointId, UNNAMED};
use vicinal_common::publish::{Copies, Copy, MapRange, MapRef, ShardRole};
use vicinal_routing::{CentroidMap, D1Quantiles, Flatness, MapParts, Placer, Router, ThetaTable};

use super::{ModelCluster, ModelShard};
use crate::meta::{ClusterRouting, Collection, Routing, ServedMap, Shard};

/// Shards of a model, by their ids.
type Shards = BTreeMap<ShardId, ModelShard>;

/// Version of the map that is served at the beginning.
const MAP: MapVersion = MapVersion(3);
/// The first search shard.
const SEARCH: u64 = 100;
/// Cells along the first axis, each so wide; points are expected in them.
const CELLS: usize = 16;
const WIDTH: f32 = 4.0;

/// How home shards of a model publish: at once, with every write. They never say what is gone.
pub(crate) struct Publish {
    placer: Placer,
    map: MapRef,
}

impl Publish {
    /// The search shards of a point.
    pub(crate) fn places(&self, point: &Point) -> BTreeSet<ShardId> {
        let Some(vector) = point.vectors.get(UNNAMED).and_then(|vector| vector.dense()) else { return BTreeSet::new() };
        let places = self.placer.place(vector);
        std::iter::once(places.home).chain(places.copy).map(|place| self.map.shards[place as usize]).collect()
    }

    /// Version of the map.
    pub(crate) fn map(&self) -> MapVersion {
        self.map.version
    }

    /// Sends the rows of a home shard that a write made. Returns where they are now, and since when.
    pub(crate) fn send(&self, shards: &mut Shards, home: ShardId, index: LogIndex) -> Vec<(ShardId, LogIndex)> {
        let rows = shards[&home].points.values().filter(|(version, _)| *version == index).cloned();
        let mut lanes: BTreeMap<ShardId, Vec<Copy>> = BTreeMap::new();
        for (version, point) in rows.collect::<Vec<_>>() {
            for shard in self.places(&point) {
                lanes.entry(shard).or_default().push(Copy { version, point: point.clone() });
            }
        }
        let mut taken = Vec::new();
        for (shard, points) in lanes {
            let search_shard = shards.get_mut(&shard).unwrap();
            search_shard.take_copies(&Copies { points, ..Copies::default() });
            taken.push((shard, LogIndex(search_shard.log)));
        }
        taken
    }
}

impl ModelShard {
    /// What a search shard does with copies.
    pub(crate) fn take_copies(&mut self, copies: &Copies) {
        self.log += 1;
        for Copy { version, point } in &copies.points {
            if self.points.get(&point.id).is_none_or(|(held, _)| held < version) {
                self.points.insert(point.id, (*version, point.clone()));
                self.arrived.insert(point.id, self.log);
            }
        }
        let misplaced = copies.misplaced.iter().filter(|misplaced| {
            let only = MapRange { oldest: misplaced.map, newest: misplaced.map };
            self.maps == only
        });
        let pairs: Vec<(PointId, LogIndex)> =
            copies.gone.iter().chain(misplaced.flat_map(|misplaced| &misplaced.pairs)).copied().collect();
        for (id, version) in pairs {
            if self.points.get(&id).is_some_and(|(held, _)| *held == version) {
                self.points.remove(&id);
            }
        }
    }
}

/// A model cluster with one collection that is routed by cluster.
pub(crate) struct ClusterModel {
    pub(crate) base: ModelCluster,
    pub(crate) publish: Arc<Publish>,
    bytes: Vec<u8>,
}

impl ClusterModel {
    /// So many home shards and search shards on three nodes. The map is on all nodes, and this coordinator has read it.
    pub(crate) fn new(homes: u64, search_shards: u64, replicas: u64) -> ClusterModel {
        let mut base = ModelCluster::new(homes, replicas);
        let map = Arc::new(map(search_shards as u32));
        let bytes = map.encode();
        let placed = (0..search_shards).map(|place| Shard {
            id: ShardId(SEARCH + place),
            replicas: (0..replicas).map(|replica| NodeId((place + replica) % 3 + 1)).collect(),
            learners: Vec::new(),
        });
        let placed: Vec<Shard> = placed.collect();
        for shard in &placed {
            let made = ModelShard {
                collection: Some(base.collection.id),
                leader: Some(shard.replicas[0]),
                role: ShardRole::Search,
                maps: MapRange { oldest: MAP, newest: MAP },
                metrics: BTreeMap::from([(UNNAMED.to_owned(), Metric::Euclid)]),
                ..ModelShard::default()
            };
            base.model.lock().shards.insert(shard.id, made);
        }
        let shards: Vec<ShardId> = placed.iter().map(|shard| shard.id).collect();
        let named = MapRef {
            vector: UNNAMED.to_owned(),
            version: MAP,
            digest: MapDigest::of(&bytes),
            bytes: bytes.len() as u64,
            shards,
        };
        let floors = vec![LogIndex(0); placed.len()];
        let routing = ClusterRouting {
            vector: UNNAMED.to_owned(),
            search_shards: search_shards as u32,
            copies: 0.2,
            recall_target: 0.9,
            from_points: 0,
            shards: placed,
            serving: Some(ServedMap { map: named.clone(), floors }),
            next: None,
            ending: None,
            last_version: MAP,
            is_training: false,
            was_served: false,
            is_held: false,
            is_leaving: false,
            balance: true,
            is_balancing: false,
            trained: None,
            next_trained: None,
            measured: None,
        };
        let collection = (*base.collection).clone();
        base.collection = Arc::new(Collection { routing: Routing::Cluster(Box::new(routing)), ..collection });
        let publish = Arc::new(Publish { placer: Placer::new(map.clone()), map: named });
        base.model.lock().publish = Some(publish.clone());
        let cluster = ClusterModel { base, publish, bytes };
        (1..=3).for_each(|node| cluster.give_map(NodeId(node)));
        cluster
    }

    /// The same with the map read by this coordinator.
    pub(crate) fn with_map(self) -> ClusterModel {
        let map = Arc::new(CentroidMap::decode(&self.bytes).unwrap());
        self.base.access.maps.put(self.served().map.digest, Arc::new(Router::new(map)));
        self
    }

    /// The map that is served.
    pub(crate) fn served(&self) -> ServedMap {
        self.base.collection.routing.cluster().unwrap().serving.clone().unwrap()
    }

    /// The collection as changed metadata have it.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut ClusterRouting)) -> Arc<Collection> {
        let mut collection = (*self.base.collection).clone();
        if let Routing::Cluster(routing) = &mut collection.routing {
            change(routing);
        }
        Arc::new(collection)
    }

    /// Puts the map on a node.
    pub(crate) fn give_map(&self, node: NodeId) {
        let digest = self.served().map.digest;
        self.base.model.lock().maps.entry(node).or_default().insert(digest, self.bytes.clone().into());
    }

    /// Ids of the search shards.
    pub(crate) fn search_shards(&self) -> Vec<ShardId> {
        self.served().map.shards
    }
}

/// Cells along the first axis, neighbours in the same shard. A point in a cell is at most 2.5 from its middle.
fn map(shards: u32) -> CentroidMap {
    let parts = MapParts {
        version: MAP.0,
        metric: Metric::Euclid,
        dim: 2,
        shards,
        centroids: (0..CELLS).flat_map(|cell| [cell as f32 * WIDTH, 0.0]).collect(),
        radius: vec![2.5; CELLS],
        weight: vec![1.0; CELLS],
        shard_of: (0..CELLS as u32).map(|cell| cell * shards / CELLS as u32).collect(),
        tau: 0.1,
        copy_ratio: 1.5,
        thetas: ThetaTable::new(vec![1, 100], vec![0.5, 0.9], vec![0.5, 0.6, 0.5, 0.6]).unwrap(),
        d1: D1Quantiles { q50: 1e6, q90: 1e6, q99: 1e6, q999: 1e6 },
        flatness: Flatness::default(),
    };
    CentroidMap::new(parts).unwrap()
}
