//! Each row of the table of routes, the second wave, and what is shown.

use vicinal_common::api::{PointParts, Weighted};
use vicinal_common::filter::{ClusteringName, InClusters, SortedSet};
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
        balance: true,
        is_balancing: false,
        trained: None,
        next_trained: None,
        measured: None,
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

fn clustering(vector: &str, digest: u128) -> MapRef {
    let shards = Vec::new();
    MapRef { vector: vector.into(), version: MapVersion(2), digest: MapDigest(digest), bytes: 1, shards }
}

fn kind(floor: u64, query: &Query, sent: &SearchQuery) -> String {
    kind_with(Some(&served(3).map), floor, query, sent)
}

fn kind_with(clusters: Option<&MapRef>, floor: u64, query: &Query, sent: &SearchQuery) -> String {
    let kind = kind_of(&cluster(Some(served(3))), clusters, MapVersion(floor), query, sent);
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
    let none = kind_of(&cluster(None), None, MapVersion(0), &plain, &sent(&plain));
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

#[test]
fn home_shards_answer_where_search_shards_do_not_know_the_clusters() {
    let plain = query(Width::Usual, false);
    let by_map = "7 Recall(0.9) Unknown";
    let of = |digest| ClusteringName::Map(MapDigest(digest));
    let within = |of| filtered(Condition::InClusters(InClusters { of, clusters: SortedSet::new(vec![1]) }));
    let inside = |filter: Option<Arc<Filter>>| filtered(Condition::Filter(Filter::clone(&filter.unwrap())));
    let (same, own, other) = (clustering("v", 1), clustering("v", 5), clustering("w", 5));
    for (clusters, filter, told) in [
        (Some(&same), within(of(1)), by_map),
        (Some(&own), within(of(5)), by_map),
        (Some(&own), inside(within(of(5))), by_map),
        (Some(&own), within(of(1)), "OtherClusters"),
        (Some(&other), within(of(5)), "OtherClusters"),
        (Some(&other), inside(inside(within(of(5)))), "OtherClusters"),
        (Some(&other), filtered(Condition::HasVector("v".into())), by_map),
        (None, within(of(5)), "OtherClusters"),
        (Some(&same), within(ClusteringName::Current), "OtherClusters"),
        (Some(&same), filtered(Condition::InClustersOf(SortedSet::new(vec![PointId::Num(1)]))), "OtherClusters"),
    ] {
        assert_eq!(kind_with(clusters, 3, &plain, &SearchQuery { filter, ..sent(&plain) }), told);
    }
    let mut exact = query(Width::Usual, true);
    exact.filter = within(of(5));
    assert_eq!(kind_with(Some(&other), 3, &exact, &sent(&exact)), "OtherClusters");
    assert_eq!(kind_with(Some(&own), 3, &exact, &sent(&exact)), "all: Exact");
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
    assert_eq!(route.more(false, 2.5, false), [2, 1], "not where all are too far");
    route.asked.push(2);
    assert_eq!(route.more(false, 2.5, false), [1], "nobody is asked twice");
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

#[test]
fn hard_queries_get_a_wider_beam_where_much_is_wanted() {
    let widened = |why| Reason::Widened { why, theta: 0.9 };
    let all = |why| Reason::All { why };
    let hard = [widened(Widening::FarQuery), all(AllBecause::FarQuery), all(AllBecause::HighRecall)];
    for reason in hard {
        assert_eq!(beam(Aim::Recall(0.99), reason, 100), Some(400));
        assert_eq!(beam(Aim::Recall(0.99), reason, usize::MAX), Some(EF_MAX));
        assert_eq!(beam(Aim::Recall(0.95), reason, 100), Some(400));
        for goal in [Aim::Recall(0.9), Aim::Theta(0.99), Aim::Shards(2), Aim::All] {
            assert_eq!(beam(goal, reason, 100), None);
        }
    }
    let others = [widened(Widening::FlatQuery), all(AllBecause::Filter), Reason::Mass { theta: 0.9 }];
    assert!(others.into_iter().all(|reason| beam(Aim::Recall(0.99), reason, 100).is_none()));
}
