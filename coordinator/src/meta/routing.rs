//! How points are spread over the shards of a collection: as the metadata keep it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vicinal_common::ids::{LogIndex, MapVersion};
use vicinal_common::publish::MapRef;

use super::state::Shard;

/// How points are spread over the shards of a collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Routing {
    /// By their ids, over as many shards as were asked for.
    #[default]
    Hash,
    /// Not at all: one shard, of which each node gets a replica.
    Replicate,
    /// By their ids, and copies of them by their vectors over search shards.
    Cluster(Box<ClusterRouting>),
}

impl Routing {
    /// Its name in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Routing::Hash => "hash",
            Routing::Replicate => "replicate",
            Routing::Cluster(_) => "cluster",
        }
    }

    /// What there is beside the home shards, where points are routed by cluster.
    pub fn cluster(&self) -> Option<&ClusterRouting> {
        match self {
            Routing::Cluster(cluster) => Some(cluster),
            Routing::Hash | Routing::Replicate => None,
        }
    }
}

/// Where copies of points are, for searches by a vector. The collection's own shards are its home shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterRouting {
    /// Name of the routed vector: a dense one.
    pub vector: String,
    /// How many search shards a map is made for.
    pub search_shards: u32,
    /// How many copies of points at borders are made, as a share of all points, 0 to 1.
    pub copies: f32,
    /// Recall that queries get which do not say otherwise, 0 to 1 (exclusive).
    pub recall_target: f32,
    /// The first map is trained once there are so many points.
    pub from_points: u64,
    /// The search shards that exist, ids ascending.
    pub shards: Vec<Shard>,
    /// The map that queries are routed by; `None`: home shards answer.
    pub serving: Option<ServedMap>,
    /// The map that is being filled.
    pub next: Option<MapRef>,
    /// The map that is to be published no more.
    pub ending: Option<MapVersion>,
    /// The newest version there ever was.
    pub last_version: MapVersion,
    /// A new map is wanted, and none has begun yet.
    pub is_training: bool,
    /// Whether queries were routed by the map that is ending: then search shards have to refuse it before home shards
    /// stop to publish by it.
    pub was_served: bool,
    /// The first map was taken back: none is trained by itself until somebody asks for one.
    pub is_held: bool,
    /// Points shall be spread by their ids alone again, once nothing of all this is left.
    pub is_leaving: bool,
    /// Whether search shards are kept even by themselves.
    pub balance: bool,
    /// The map that is wanted is the one that is served with some of its cells moved or split, not one trained anew.
    pub is_balancing: bool,
    /// What training found of the map that is served, or of the one that it came from by moving and splitting.
    pub trained: Option<Trained>,
    /// The same of the next map.
    pub next_trained: Option<Trained>,
    /// How even the search shards were when that was last looked at.
    pub measured: Option<Measured>,
}

/// What was found when a map was trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Points of the collection then.
    pub points: u64,
    /// The recall that the collection wanted then, 0 to 1 (exclusive).
    pub recall: f32,
    /// The mean share of the search shards that searches near stored points asked by the map for that recall, 0 to 1.
    pub fan_out: f32,
}

/// How even search shards are, on a sample of the points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// By which map.
    pub map: MapVersion,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Points of the collection.
    pub points: u64,
    /// Points and copies of the fullest search shard by the mean.
    pub imbalance: f32,
    /// Searches of the most searched shard by the mean; `None` when there were too few to tell.
    pub load_imbalance: Option<f32>,
    /// Share of the points that are in cells that want splitting.
    pub oversized: f32,
    /// As [`Trained::fan_out`], for the recall that is there: now.
    pub fan_out: f32,
    /// What follows.
    pub verdict: Verdict,
}

/// What follows from how even search shards are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing is to be done.
    Even,
    /// Too few points to tell.
    TooSmall,
    /// Cells have to move or to be split.
    Adjust,
    /// Shards are uneven, and neither moving nor splitting cells makes them less so.
    Stuck,
    /// Searches ask so many more shards than after training that a new map is worth its while.
    RetrainForFanOut,
    /// There are so many more points than when the map was trained that another one would be better.
    RetrainForGrowth,
    /// Some shards are asked far more often than others, which moving points would not change: they need replicas.
    Replicas,
}

impl Verdict {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Even => "even",
            Verdict::TooSmall => "too_small",
            Verdict::Adjust => "adjust",
            Verdict::Stuck => "stuck",
            Verdict::RetrainForFanOut => "retrain_for_fan_out",
            Verdict::RetrainForGrowth => "retrain_for_growth",
            Verdict::Replicas => "replicas",
        }
    }
}

impl ClusterRouting {
    /// Nothing is there yet: home shards answer until the first map. Maps are numbered from the one after
    /// `last_version`.
    pub fn new(settings: ClusterSettings, last_version: MapVersion) -> ClusterRouting {
        let ClusterSettings { vector, search_shards, copies, recall_target, from_points, balance } = settings;
        ClusterRouting {
            vector,
            search_shards,
            copies,
            recall_target,
            from_points,
            shards: Vec::new(),
            serving: None,
            next: None,
            ending: None,
            last_version,
            is_training: false,
            was_served: false,
            is_held: false,
            is_leaving: false,
            balance,
            is_balancing: false,
            trained: None,
            next_trained: None,
            measured: None,
        }
    }

    /// Version of the map that is served.
    pub fn served(&self) -> Option<MapVersion> {
        self.serving.as_ref().map(|served| served.map.version)
    }

    /// Vectors of which home shards need no graph, because search shards answer and go on doing so.
    pub fn unindexed(&self) -> BTreeSet<String> {
        let answer = self.serving.is_some() && !self.is_leaving;
        answer.then(|| self.vector.clone()).into_iter().collect()
    }

    /// A map that search shards have been told of, if there is one.
    pub fn known_map(&self) -> MapVersion {
        let next = self.next.as_ref().map(|map| map.version);
        self.served().or(next).or(self.ending).unwrap_or_default()
    }

    /// Version of the next map.
    pub fn map_to_come(&self) -> MapVersion {
        MapVersion(self.last_version.0 + 1)
    }

    /// From how many points on the first map is trained by itself; `None` when none is.
    pub fn trains_from(&self) -> Option<u64> {
        let is_first = self.serving.is_none() && !self.is_held && self.under_way().is_none();
        is_first.then_some(self.from_points)
    }

    /// What is under way, so that no other change can begin.
    pub fn under_way(&self) -> Option<&'static str> {
        match () {
            () if self.is_leaving => Some("the collection is being switched back to `hash`"),
            () if self.next.is_some() => Some("a new map is being filled"),
            () if self.ending.is_some() => Some("the map before is being given up"),
            () if self.is_training && self.is_balancing => Some("search shards are being balanced"),
            () if self.is_training => Some("a new map is being trained"),
            () => None,
        }
    }
}

/// What the owner of a collection says of routing by cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// See [`ClusterRouting::vector`].
    pub vector: String,
    /// See [`ClusterRouting::search_shards`].
    pub search_shards: u32,
    /// See [`ClusterRouting::copies`].
    pub copies: f32,
    /// See [`ClusterRouting::recall_target`].
    pub recall_target: f32,
    /// See [`ClusterRouting::from_points`].
    pub from_points: u64,
    /// See [`ClusterRouting::balance`].
    pub balance: bool,
}

/// How the routing of a collection changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RoutingChange {
    /// By ids alone again.
    Hash,
    /// By cluster from now on.
    Cluster(ClusterSettings),
    /// By cluster as before, with other settings: what is `None` stays.
    Settings {
        /// For the next map.
        search_shards: Option<u32>,
        /// For the next map.
        copies: Option<f32>,
        /// From now on.
        recall_target: Option<f32>,
        /// For the first map.
        from_points: Option<u64>,
        /// From now on.
        balance: Option<bool>,
    },
}

/// A map that queries are routed by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedMap {
    /// The map.
    pub map: MapRef,
    /// Per search shard of the map, in its order: what a replica must have applied before it answers by this map.
    pub floors: Vec<LogIndex>,
}
