//! Which shards a search asks, where points are routed by cluster. Pure.
//!
//! Home shards can answer every search, search shards those by the routed vector. A map says in which of them the
//! neighbours of a vector are; whatever no map can tell asks all of them.

use std::sync::Arc;

use serde::Serialize;
use vicinal_common::api::{Goal, SearchQuery};
use vicinal_common::filter::{Condition, Filter};
use vicinal_common::ids::MapVersion;
use vicinal_common::vector::Vector;
use vicinal_routing::{Ask, Decision, Filtered, Goal as Aim, Reason};

use super::request::Query;
use crate::meta::{ClusterRouting, ServedMap};

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

impl Width {
    /// The parameter that says so.
    pub(super) fn field(self) -> Option<&'static str> {
        match self {
            Width::Usual => None,
            Width::Recall(_) => Some("recall_target"),
            Width::Shards(_) => Some("nprobe_shards"),
            Width::All | Width::Homes => Some("routing"),
        }
    }
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

/// What a search needs, given that no write was acknowledged by maps newer than `floor` only.
pub(super) fn kind_of(cluster: &ClusterRouting, floor: MapVersion, query: &Query, sent: &SearchQuery) -> Kind {
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
        | Condition::Slice(_) => false,
    })
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
mod tests {
    use vicinal_common::api::{PointParts, Weighted};
    use vicinal_common::filter::SortedSet;
    use vicinal_common::ids::{LogIndex, MapDigest, ShardId};
    use vicinal_common::point::PointId;
    use vicinal_common::publish::MapRef;
    use vicinal_routing::{AllBecause, ShardMass};

    use super::super::request::Source;
    use super::*;

    fn served(version: u64) -> ServedMap {
        let shards: Vec<ShardId> = (10..14).map(ShardId).collect();
        let floors = vec![LogIndex(0); shards.len()];
        ServedMap {
            map: MapRef { vector: "v".into(), version: MapVersion(version), digest: MapDigest(1), bytes: 1, shards },
            floors,
        }
    }

    fn cluster(serving: Option<ServedMap>) -> ClusterRouting {
        ClusterRouting {
            vector: "v".into(),
            search_shards: 4,
            copies: 0.2,
            recall_target: 0.9,
            from_points: 0,
            shards: Vec::new(),
            serving,
            next: None,
            ending: None,
            last_version: MapVersion(3),
            is_training: false,
            was_served: false,
            is_held: false,
            is_leaving: false,
        }
    }

    fn query(width: Width, exact: bool) -> Query {
        Query {
            source: Source::Vector(vec![1.0, 0.0].into()),
            using: "v".into(),
            filter: None,
            score_threshold: None,
            limit: 5,
            offset: 2,
            ef: None,
            exact,
            oversampling: None,
            idf_corpus: None,
            parts: PointParts::default(),
            width,
            allow_partial: true,
        }
    }

    fn sent(query: &Query) -> SearchQuery {
        query.search(vicinal_common::metric::Metric::Dot, vec![1.0, 0.0].into(), 100)
    }

    fn filtered(condition: Condition) -> Option<Arc<Filter>> {
        Some(Arc::new(Filter { must_not: vec![condition], ..Filter::default() }))
    }

    fn kind(floor: u64, query: &Query, sent: &SearchQuery) -> String {
        let kind = kind_of(&cluster(Some(served(3))), MapVersion(floor), query, sent);
        match kind {
            Kind::Homes(why) => format!("{why:?}"),
            Kind::Everywhere(why) => format!("all: {why:?}"),
            Kind::ByVector(_, ask) => format!("{} {:?} {:?}", ask.k, ask.goal, ask.filter),
        }
    }

    #[test]
    fn each_row_of_the_table() {
        let plain = query(Width::Usual, false);
        let of = |query: &Query| kind(3, query, &sent(query));
        assert_eq!(of(&plain), "7 Recall(0.9) No");
        assert_eq!(of(&query(Width::Recall(0.5), false)), "7 Recall(0.5) No");
        assert_eq!(of(&query(Width::Shards(2), false)), "7 Shards(2) No");
        assert_eq!(of(&query(Width::All, false)), "all: Wanted");
        assert_eq!(of(&query(Width::Homes, true)), "Wanted");
        assert_eq!(of(&query(Width::Usual, true)), "all: Exact");
        assert_eq!(kind(4, &plain, &sent(&plain)), "NewerMap");
        let none = kind_of(&cluster(None), MapVersion(0), &plain, &sent(&plain));
        assert!(matches!(none, Kind::Homes(HomesBecause::NoMap)));

        let other = SearchQuery { vector_name: "w".into(), ..sent(&plain) };
        assert_eq!(kind(3, &plain, &other), "OtherVector");
        let example = Weighted { vector: Arc::new(vec![1.0, 0.0].into()), weight: 1.0 };
        let goal = Goal::BestScore { positive: vec![example], negative: Vec::new() };
        assert_eq!(kind(3, &plain, &SearchQuery { goal, ..sent(&plain) }), "all: Examples");

        let ids = Condition::HasId(SortedSet::new(vec![PointId::Num(1)]));
        let among = Some(Arc::new(Filter { must: vec![ids.clone()], ..Filter::default() }));
        assert_eq!(kind(3, &plain, &SearchQuery { filter: among, ..sent(&plain) }), "GivenIds");
        let without = SearchQuery { filter: filtered(ids), ..sent(&plain) };
        assert_eq!(kind(3, &plain, &without), "7 Recall(0.9) Unknown");
        let has = |name: &str| filtered(Condition::HasVector(name.into()));
        let within = |inner: Option<Arc<Filter>>| filtered(Condition::Filter(Filter::clone(&inner.unwrap())));
        for (filter, told) in [
            (has("v"), "7 Recall(0.9) Unknown"),
            (has("w"), "OtherVectorInFilter"),
            (within(has("v")), "7 Recall(0.9) Unknown"),
            (within(within(has(""))), "OtherVectorInFilter"),
        ] {
            assert_eq!(kind(3, &plain, &SearchQuery { filter, ..sent(&plain) }), told);
        }
    }

    fn decision(reason: Reason, asked: usize) -> Decision {
        let ranked = (0..4).map(|shard| ShardMass { shard: 3 - shard, mass: 0.25, left: 0.0, bound: shard as f32 });
        Decision { ranked: ranked.collect(), asked, reason, d1: 1.0 }
    }

    #[test]
    fn a_second_wave_goes_where_hits_may_be_when_there_are_too_few() {
        let mut route = Route::by(decision(Reason::Mass { theta: 0.5 }, 1));
        assert_eq!(route.asked, [3]);
        assert_eq!(route.more(true, f32::MAX, false), [0usize; 0]);
        assert_eq!(route.more(false, f32::MAX, false), [2, 1, 0]);
        assert_eq!(route.more(false, 1.5, false), [1, 0]);
        route.asked.push(1);
        assert_eq!(route.more(false, 1.5, false), [0], "nobody is asked twice");
        assert_eq!(route.shown(&served(3)).second_wave, 1);
        let route = Route::by(decision(Reason::Shards { count: 1 }, 1));
        assert_eq!(route.more(true, f32::MAX, true), [0usize; 0]);
        assert_eq!(route.more(false, f32::MAX, false), [0usize; 0]);
        assert_eq!(route.more(false, f32::MAX, true), [2, 1, 0]);
    }

    #[test]
    fn what_is_shown() {
        let text = |routed: &Routed| serde_json::to_string(routed).unwrap();
        let route = Route::by(decision(Reason::All { why: AllBecause::OneShard }, 4));
        assert_eq!(
            text(&route.shown(&served(3))),
            r#"{"search_shards_asked":4,"search_shards":4,"second_wave":0,"map":3,"reason":{"kind":"all","why":"one_shard"}}"#
        );
        assert_eq!(
            text(&Routed::at_homes(&cluster(None), HomesBecause::NoMap)),
            r#"{"search_shards_asked":0,"search_shards":0,"second_wave":0,"map":0,"reason":{"kind":"homes","why":"no_map"}}"#
        );
    }
}
