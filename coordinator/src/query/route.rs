//! Which shards a search asks, where points are routed by cluster. Pure.
//!
//! Home shards can answer every search, search shards those by the routed vector. A map says in which of them the
//! neighbours of a vector are; whatever no map can tell asks all of them.

use std::sync::Arc;

use serde::Serialize;
use vicinal_common::api::{Goal, SearchQuery};
use vicinal_common::filter::{Condition, Filter};
use vicinal_common::ids::MapVersion;
use vicinal_common::limits::EF_MAX;
use vicinal_common::publish::MapRef;
use vicinal_common::vector::Vector;
use vicinal_routing::{AllBecause, Ask, Decision, Filtered, Goal as Aim, Reason, Widening};

use super::request::Query;
use crate::meta::{ClusterRouting, ServedMap};

/// Hard queries get a wider beam where the target is above this.
const RECALL_HIGH: f32 = 0.9;
/// So many times wider.
const BEAM_FACTOR: usize = 4;

/// How widely a query asks search shards, as its client says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Width {
    /// As many as the collection's recall takes.
    #[default]
    Usual,
    /// As many as this recall takes, above 0 and at most 1.
    Recall(f32),
    /// So many, at least 1.
    Shards(u32),
    /// All of them.
    All,
    /// None: home shards answer.
    Homes,
}

/// How a search was routed: what an answer shows of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Routed {
    /// Search shards asked.
    #[serde(rename = "search_shards_asked")]
    pub asked: usize,
    /// Search shards of the map.
    #[serde(rename = "search_shards")]
    pub of: usize,
    /// Of those asked, how many only after the others had answered.
    pub second_wave: usize,
    /// Version of the map; 0 when none is served.
    pub map: MapVersion,
    /// Why so many.
    pub reason: Why,
}

/// Why as many search shards are asked as are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Why {
    /// The map says so.
    Map(Reason),
    /// No map was asked.
    Fixed(Fixed),
}

/// Why no map decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fixed {
    /// Home shards answer.
    Homes {
        /// What made it necessary.
        why: HomesBecause,
    },
    /// All search shards are asked.
    All {
        /// What made it necessary.
        why: EverywhereBecause,
    },
}

/// Why home shards answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HomesBecause {
    /// No map is served.
    NoMap,
    /// A write was acknowledged by a newer map than this coordinator knows to be served.
    NewerMap,
    /// Search shards did not take the map any more.
    Refused,
    /// Search shards hold so much that is old, or so much changed, that the answer would not be exact.
    NotExact,
    /// The query says so.
    Wanted,
    /// The search is among given ids.
    GivenIds,
    /// The search is by a vector that search shards do not hold.
    OtherVector,
    /// The filter asks for a vector that search shards do not hold.
    OtherVectorInFilter,
    /// The filter asks for clusters that search shards cannot tell: of a vector that they do not hold, or not the present ones.
    OtherClusters,
}

/// Why all search shards are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EverywhereBecause {
    /// The query says so.
    Wanted,
    /// The search is exact.
    Exact,
    /// What is searched for is not near one vector.
    Examples,
    /// This coordinator has not read the map yet.
    MapNotLoaded,
}

/// What a search needs, as far as it can be told without the map.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Homes(HomesBecause),
    Everywhere(EverywhereBecause),
    ByVector(Arc<Vector>, Ask),
}

/// The search shards that one search asks.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Their places in the map.
    pub(super) asked: Vec<usize>,
    /// What the map says; `None` when it was not asked.
    pub(super) decision: Option<Decision>,
    why: Why,
    /// How many were asked first.
    first: usize,
}

/// What a search needs, given that no write was acknowledged by maps newer than `floor` only. `clusters`: the map whose
/// centroids are the clusters of the collection.
pub(super) fn kind_of(
    cluster: &ClusterRouting,
    clusters: Option<&MapRef>,
    floor: MapVersion,
    query: &Query,
    sent: &SearchQuery,
) -> Kind {
    let homes = Kind::Homes;
    let Some(served) = &cluster.serving else { return homes(HomesBecause::NoMap) };
    if floor > served.map.version {
        return homes(HomesBecause::NewerMap);
    }
    if query.width == Width::Homes {
        return homes(HomesBecause::Wanted);
    }
    let filter = sent.filter.as_deref();
    if filter.is_some_and(|filter| filter.ids().is_some()) {
        return homes(HomesBecause::GivenIds);
    }
    if sent.vector_name != cluster.vector {
        return homes(HomesBecause::OtherVector);
    }
    if filter.is_some_and(|filter| asks_for_another(filter, &cluster.vector)) {
        return homes(HomesBecause::OtherVectorInFilter);
    }
    if filter.is_some_and(|filter| asks_for_other_clusters(filter, clusters, &cluster.vector)) {
        return homes(HomesBecause::OtherClusters);
    }
    if query.width == Width::All {
        return Kind::Everywhere(EverywhereBecause::Wanted);
    }
    if sent.exact {
        return Kind::Everywhere(EverywhereBecause::Exact);
    }
    let Goal::Nearest(vector) = &sent.goal else { return Kind::Everywhere(EverywhereBecause::Examples) };
    let goal = match query.width {
        Width::Recall(recall) => Aim::Recall(recall),
        Width::Shards(count) => Aim::Shards(count),
        Width::Usual | Width::All | Width::Homes => Aim::Recall(cluster.recall_target),
    };
    let filter = if sent.filter.is_some() { Filtered::Unknown } else { Filtered::No };
    Kind::ByVector(vector.clone(), Ask { k: u32::try_from(sent.k).unwrap_or(u32::MAX), goal, filter })
}

/// Whether a filter asks for a vector of another name.
fn asks_for_another(filter: &Filter, vector: &str) -> bool {
    filter.conditions().any(|condition| match condition {
        Condition::HasVector(name) => name != vector,
        Condition::Filter(filter) | Condition::Nested { filter, .. } => asks_for_another(filter, vector),
        Condition::Field(_)
        | Condition::IsEmpty(_)
        | Condition::IsNull(_)
        | Condition::HasId(_)
        | Condition::InClusters(_)
        | Condition::InClustersOf(_)
        | Condition::Slice(_) => false,
    })
}

/// Whether a filter asks for clusters that search shards do not know. They know those that the tuning of the collection
/// names, and only by the vector that they hold. A filter that was not fixed to a map is refused by whoever decides it.
fn asks_for_other_clusters(filter: &Filter, clusters: Option<&MapRef>, vector: &str) -> bool {
    let known = clusters.filter(|map| map.vector == vector).map(|map| map.digest);
    filter.names_clusters() && filter.cluster_maps().map_or(true, |maps| maps.iter().any(|map| Some(*map) != known))
}

/// The beam for a search that gives none, where that of its graph, `usual`, misses too much inside shards; else `None`.
/// What graphs miss of queries near points is calibrated for. Of those that have nothing to do with the points it is up
/// to three points of recall (docs/BENCHMARKS.md): no matter at a target of 0.9, as nearly all shards are asked then.
pub(super) fn beam(goal: Aim, reason: Reason, usual: usize) -> Option<usize> {
    let is_hard = match reason {
        Reason::Widened { why: Widening::FarQuery, .. } => true,
        Reason::All { why } => matches!(why, AllBecause::FarQuery | AllBecause::HighRecall),
        Reason::Widened { .. } | Reason::Mass { .. } | Reason::Shards { .. } => false,
    };
    let is_high = matches!(goal, Aim::Recall(recall) if recall > RECALL_HIGH);
    (is_hard && is_high).then(|| usual.saturating_mul(BEAM_FACTOR).min(EF_MAX))
}

impl Route {
    /// All search shards of a map.
    pub(super) fn everywhere(served: &ServedMap, why: EverywhereBecause) -> Route {
        let of = served.map.shards.len();
        let why = Why::Fixed(Fixed::All { why });
        Route { asked: (0..of).collect(), decision: None, why, first: of }
    }

    /// The search shards that the map names.
    pub(super) fn by(decision: Decision) -> Route {
        let asked: Vec<usize> = decision.shards().map(|shard| shard as usize).collect();
        let (why, first) = (Why::Map(decision.reason), asked.len());
        Route { asked, decision: Some(decision), why, first }
    }

    /// Who else is to be asked when there are fewer hits than wanted and none may be at `most` or farther; nobody when there
    /// are enough: a shard whose bound says that it may hold a nearer one rarely does. In many dimensions cells are as wide
    /// as they are far apart, so nearly every shard would be asked. A client that says how many shards are asked gets more
    /// of them only where a filter leaves too little.
    pub(super) fn more(&self, has_enough: bool, most: f32, is_filtered: bool) -> Vec<usize> {
        let Some(decision) = self.decision.as_ref().filter(|_| !has_enough) else { return Vec::new() };
        if matches!(decision.reason, Reason::Shards { .. }) && !is_filtered {
            return Vec::new();
        }
        let rest = decision.second_wave(most).map(|shard| shard as usize);
        rest.filter(|shard| !self.asked.contains(shard)).collect()
    }

    /// What an answer shows.
    pub(super) fn shown(&self, served: &ServedMap) -> Routed {
        Routed {
            asked: self.asked.len(),
            of: served.map.shards.len(),
            second_wave: self.asked.len().saturating_sub(self.first),
            map: served.map.version,
            reason: self.why,
        }
    }
}

impl Routed {
    /// What an answer of home shards shows.
    pub(super) fn at_homes(cluster: &ClusterRouting, why: HomesBecause) -> Routed {
        let served = cluster.serving.as_ref();
        Routed {
            asked: 0,
            of: served.map_or(0, |served| served.map.shards.len()),
            second_wave: 0,
            map: served.map_or(MapVersion(0), |served| served.map.version),
            reason: Why::Fixed(Fixed::Homes { why }),
        }
    }
}

#[cfg(test)]
mod tests;
