//! Searches of a collection that is routed by cluster: whom they ask, what they wait for, what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vicinal_common::api::{PointParts, Tune, VectorSelector};
use vicinal_common::consistency::Consistency;
use vicinal_common::ids::{LogIndex, MapVersion, NodeId, RequestId, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Copies, Copy, MapRange, MapRef};
use vicinal_common::tuning::Tuning;

use super::tests::{ids, near};
use super::*;
use crate::meta::{Clustering, Collection};
use crate::model::{ClusterModel, ModelCluster, ModelShard, nodes};
use crate::session::Session;
use crate::shards::ShardAccess;
use crate::write::{WriteSpec, upsert};

fn spec(session: &Session, millis: u64) -> ReadSpec<'_> {
    let deadline = Instant::now() + Duration::from_millis(millis);
    ReadSpec { consistency: Consistency::ReadYourWrites, deadline, session }
}

pub(super) async fn write(
    cluster: &ClusterModel,
    request: u128,
    points: Vec<vicinal_common::point::Point>,
    session: &Session,
) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let spec = WriteSpec { request: RequestId(request), deadline, session };
    upsert(&cluster.base.access, &cluster.base.lookup(), spec, points).await.unwrap();
}

/// Points 0..60 at their ids, in three home shards and four search shards.
pub(super) async fn filled(replicas: u64) -> ClusterModel {
    let cluster = ClusterModel::new(3, 4, replicas).with_map();
    write(&cluster, 1, ModelCluster::points(60), &Session::default()).await;
    cluster
}

pub(super) async fn ask(cluster: &ClusterModel, query: Query) -> vicinal_common::error::Result<Answer> {
    let session = Session::default();
    let answers = run(&cluster.base.access, &cluster.base.lookup(), spec(&session, 400), &[query]).await?;
    Ok(answers.into_iter().next().unwrap())
}

fn routed(answer: &Answer) -> (usize, String) {
    let routed = answer.coverage.routed.as_ref().unwrap();
    (routed.asked, serde_json::to_string(&routed.reason).unwrap())
}

fn asked(cluster: &ClusterModel) -> Vec<(u64, usize)> {
    let mut searches = std::mem::take(&mut cluster.base.model.lock().searches);
    searches.sort_unstable();
    searches.into_iter().map(|(shard, queries)| (shard.0, queries)).collect()
}

#[tokio::test]
async fn a_search_asks_the_shards_that_the_map_names() {
    let cluster = filled(1).await;
    let answer = ask(&cluster, near(2.2, 3)).await.unwrap();
    assert_eq!(ids(&answer), [2, 3, 1]);
    assert_eq!(asked(&cluster), [(100, 1)]);
    assert_eq!((answer.coverage.shards_asked, answer.coverage.shards_answered), (1, 1));
    assert!(routed(&answer).1.contains("mass"), "{:?}", routed(&answer));
    for (width, shards) in [(Width::Shards(2), 2), (Width::All, 4), (Width::Recall(1.0), 4), (Width::Homes, 0)] {
        let answer = ask(&cluster, Query { width, ..near(2.2, 3) }).await.unwrap();
        assert_eq!((ids(&answer), routed(&answer).0), (vec![2, 3, 1], shards), "{width:?}");
    }
    let exact = ask(&cluster, Query { exact: true, ..near(2.2, 3) }).await.unwrap();
    assert_eq!(routed(&exact), (4, r#"{"kind":"all","why":"exact"}"#.into()));
    // The next map is calibrated by what was asked, whoever answered; a stored point is no answer to itself.
    let example = Query { source: Source::Point(PointId::Num(2)), ..near(0.0, 3) };
    ask(&cluster, example).await.unwrap();
    let noted = cluster.base.access.asked.of(cluster.base.collection.id, "", 2);
    assert_eq!(noted, [2.2, 0.0].repeat(6));
}

#[tokio::test]
async fn a_second_wave_finds_what_is_beyond_the_border() {
    let cluster = filled(1).await;
    // Its shard holds about fifteen points.
    let answer = ask(&cluster, near(2.0, 25)).await.unwrap();
    assert_eq!(ids(&answer).len(), 25);
    assert_eq!(ids(&answer)[24], 24);
    assert!(answer.coverage.routed.as_ref().unwrap().second_wave > 0);
    let few = ask(&cluster, Query { width: Width::Shards(1), ..near(2.0, 25) }).await.unwrap();
    assert!(ids(&few).len() < 25, "no more are asked than the client says");
    let filter: vicinal_common::filter::Filter =
        serde_json::from_str(r#"{"must": [{"key": "n", "range": {"gte": 50}}]}"#).unwrap();
    let filtered = Query { width: Width::Shards(1), filter: Some(Arc::new(filter)), ..near(2.0, 3) };
    assert_eq!(ids(&ask(&cluster, filtered).await.unwrap()), [50, 51, 52], "a filter may leave nothing there");
}

#[tokio::test]
async fn clusters_are_asked_of_shards_that_know_them() {
    let mut cluster = filled(1).await;
    let (map, node) = (cluster.served().map, cluster.base.access.nodes.get(NodeId(1)).unwrap());
    let tuning = Tuning { revision: 1, clustering: Some(map.clone()), ..Tuning::default() };
    let collection = Collection::clone(&cluster.base.collection);
    for shard in collection.all_shards().map(|shard| shard.id) {
        node.tune(Tune { shard, collection: collection.id, tuning: tuning.clone() }).await.unwrap();
    }
    // Cell 8 is around 32.
    let filtered = |occur: &str| {
        let condition = serde_json::json!({"in_clusters": {"map": map.digest.to_string(), "clusters": [8]}});
        let filter = serde_json::from_value(serde_json::json!({occur: [condition]})).unwrap();
        Query { filter: Some(Arc::new(filter)), ..near(32.2, 2) }
    };
    let inside = ask(&cluster, filtered("must")).await.unwrap();
    assert_eq!((ids(&inside), routed(&inside).0), (vec![32, 33], 4));
    let outside = ask(&cluster, filtered("must_not")).await.unwrap();
    assert!(ids(&outside).iter().all(|id| !(31..=33).contains(id)) && ids(&outside).len() == 2, "{outside:?}");
    // Home shards know all vectors.
    let other = MapRef { vector: "w".into(), shards: Vec::new(), ..map.clone() };
    let clustering = Some(Clustering { map: other, trained_ms: 1, points: 60 });
    cluster.base.collection = Arc::new(Collection { clustering, ..collection });
    let at_homes = ask(&cluster, filtered("must")).await.unwrap();
    assert_eq!(routed(&at_homes), (0, r#"{"kind":"homes","why":"other_clusters"}"#.into()));
    assert_eq!(ids(&at_homes), [32, 33]);
}

#[tokio::test]
async fn each_shard_is_sent_the_queries_that_want_it() {
    let cluster = filled(1).await;
    let queries = [near(2.0, 2), near(30.0, 2), near(2.5, 2), Query { exact: true, ..near(58.0, 2) }];
    let session = Session::default();
    let answers = run(&cluster.base.access, &cluster.base.lookup(), spec(&session, 400), &queries).await.unwrap();
    let found: Vec<Vec<u64>> = answers.iter().map(ids).collect();
    assert_eq!(found, [vec![2, 1], vec![30, 29], vec![2, 3], vec![58, 57]]);
    let asked = asked(&cluster);
    assert_eq!(asked.first(), Some(&(100, 3)));
    assert!(asked.contains(&(102, 1)) && asked.contains(&(103, 1)), "{asked:?}");
}

#[tokio::test]
async fn without_the_map_all_search_shards_are_asked_and_nothing_is_waited_for() {
    let cluster = ClusterModel::new(3, 4, 1);
    write(&cluster, 1, ModelCluster::points(60), &Session::default()).await;
    let answer = ask(&cluster, near(2.2, 3)).await.unwrap();
    assert_eq!(routed(&answer), (4, r#"{"kind":"all","why":"map_not_loaded"}"#.into()));
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if routed(&ask(&cluster, near(2.2, 3)).await.unwrap()).0 == 1 {
            return;
        }
    }
    panic!("the map was not read");
}

#[tokio::test]
async fn nothing_is_asked_of_search_shards_before_a_map_is_served() {
    let mut cluster = filled(1).await;
    cluster.base.collection = cluster.changed(|routing| routing.serving = None);
    let began = Instant::now();
    let answer = ask(&cluster, near(2.2, 3)).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(90), "acks by the map to come are nothing to wait for");
    assert_eq!((ids(&answer), routed(&answer).1), (vec![2, 3, 1], r#"{"kind":"homes","why":"no_map"}"#.into()));
}

#[tokio::test]
async fn an_older_map_is_not_routed_by_after_an_ack_by_a_newer_one() {
    let cluster = filled(1).await;
    let (access, session) = (&cluster.base.access, Session::default());
    access.note_map(cluster.base.collection.id, MapVersion(4));
    let answer = ask(&cluster, near(2.2, 3)).await.unwrap();
    assert_eq!(routed(&answer), (0, r#"{"kind":"homes","why":"newer_map"}"#.into()));
    assert_eq!(ids(&answer), [2, 3, 1]);
    // Metadata that come in time are waited for.
    let newer = cluster.changed(|routing| routing.serving.as_mut().unwrap().map.version = MapVersion(4));
    for shard in cluster.search_shards() {
        let mut model = cluster.base.model.lock();
        model.shards.get_mut(&shard).unwrap().maps = MapRange { oldest: MapVersion(4), newest: MapVersion(4) };
    }
    let looks = parking_lot::Mutex::new(0);
    let lookup = || {
        *looks.lock() += 1;
        Ok(if *looks.lock() > 3 { newer.clone() } else { cluster.base.collection.clone() })
    };
    let answers = run(access, &lookup, spec(&session, 400), &[near(2.2, 3)]).await.unwrap();
    assert_eq!((ids(&answers[0]), routed(&answers[0]).0), (vec![2, 3, 1], 1));
    // The token says so to other coordinators.
    let session = Session::parse(&session.token().unwrap()).unwrap();
    let other = ShardAccess::new(nodes(&cluster.base.model));
    let answers = run(&other, &cluster.base.lookup(), spec(&session, 400), &[near(2.2, 3)]).await.unwrap();
    assert_eq!(routed(&answers[0]).1, r#"{"kind":"homes","why":"newer_map"}"#);
}

#[tokio::test]
async fn search_shards_that_know_the_map_no_more_are_asked_by_the_next_or_not_at_all() {
    let cluster = filled(1).await;
    for shard in cluster.search_shards() {
        let mut model = cluster.base.model.lock();
        model.shards.get_mut(&shard).unwrap().maps = MapRange { oldest: MapVersion(4), newest: MapVersion(4) };
    }
    let newer = cluster.changed(|routing| routing.serving.as_mut().unwrap().map.version = MapVersion(4));
    let looks = parking_lot::Mutex::new(0);
    let lookup = || {
        *looks.lock() += 1;
        Ok(if *looks.lock() > 2 { newer.clone() } else { cluster.base.collection.clone() })
    };
    let session = Session::default();
    let answers = run(&cluster.base.access, &lookup, spec(&session, 400), &[near(2.2, 3)]).await.unwrap();
    assert_eq!((ids(&answers[0]), routed(&answers[0]).0), (vec![2, 3, 1], 1));
    let answer = ask(&cluster, near(2.2, 3)).await.unwrap();
    assert_eq!((ids(&answer), routed(&answer).1), (vec![2, 3, 1], r#"{"kind":"homes","why":"refused"}"#.into()));
}

#[tokio::test]
async fn a_shard_that_is_away_is_named_whichever_kind_it_is() {
    let mut cluster = filled(1).await;
    // One search shard alone on a node, and one home shard.
    cluster.base.collection = cluster.changed(|routing| {
        for shard in &mut routing.shards {
            shard.replicas = vec![NodeId(if shard.id == ShardId(100) { 1 } else { 2 })];
        }
    });
    for shard in cluster.search_shards() {
        let leader = NodeId(if shard == ShardId(100) { 1 } else { 2 });
        cluster.base.model.lock().shards.get_mut(&shard).unwrap().leader = Some(leader);
    }
    cluster.base.model.lock().dead.insert(NodeId(1));
    let answer = ask(&cluster, Query { width: Width::All, ..near(30.0, 60) }).await.unwrap();
    let missing: Vec<u64> = answer.coverage.missing.iter().map(|missing| missing.shard.0).collect();
    assert_eq!(missing, [100, 0], "a search shard, and the home shard that could not confirm");
    assert_eq!((answer.coverage.shards_asked, answer.coverage.shards_answered), (5, 3));
    assert!(answer.hits.iter().all(|hit| cluster.base.collection.tokens.shard_of(hit.id) != ShardId(0)));
    assert!(answer.hits.len() > 20);
    let strict = Query { allow_partial: false, width: Width::All, ..near(30.0, 60) };
    assert_eq!(ask(&cluster, strict).await.unwrap_err().http_status(), 503);
    // All that was found is of home shards that do not answer: no empty list.
    cluster.base.model.lock().dead.extend([NodeId(3)]);
    let id = (20..60).find(|id| cluster.base.shard_of(*id) != ShardId(1)).unwrap();
    let alone = Query { score_threshold: Some(0.1), width: Width::All, ..near(id as f32, 1) };
    assert_eq!(ask(&cluster, alone).await.unwrap_err().http_status(), 503);
}

#[tokio::test]
async fn a_write_is_found_by_its_writer_through_any_coordinator() {
    let cluster = filled(3).await;
    let session = Session::default();
    // Replicas that do not lead miss the last entries.
    for node in 1..=3 {
        cluster.base.model.lock().behind.insert(NodeId(node), 1);
    }
    write(&cluster, 2, vec![ModelCluster::point(7, 50.25)], &session).await;
    let moved = cluster.base.shard_of(7);
    assert!(session.floor(moved).is_some() && session.floor(ShardId(103)).is_some());
    assert_eq!(session.map_floor(), MapVersion(3));
    for shown in [session.token(), None] {
        let other = ShardAccess::new(nodes(&cluster.base.model));
        let session = shown.map_or_else(Session::default, |token| Session::parse(&token).unwrap());
        let parts = PointParts { payload: true, vectors: VectorSelector::None };
        let query = Query { parts, ..near(50.25, 1) };
        let answers = run(&other, &cluster.base.lookup(), spec(&session, 2_000), &[query]).await.unwrap();
        assert_eq!(ids(&answers[0]), [7]);
        let old = run(&other, &cluster.base.lookup(), spec(&session, 2_000), &[near(7.0, 2)]).await.unwrap();
        assert_eq!(ids(&old[0]), [6, 8], "not where it was");
    }
}

#[tokio::test]
async fn floors_of_the_map_hold_whoever_asks() {
    let mut cluster = filled(3).await;
    let floor = LogIndex(cluster.base.model.lock().shards[&ShardId(100)].log);
    cluster.base.collection = cluster.changed(|routing| routing.serving.as_mut().unwrap().floors = vec![floor; 4]);
    // This coordinator knows an older floor, which a replica that lags satisfies.
    let access = ShardAccess::new(nodes(&cluster.base.model));
    access.note_ack(ShardId(100), LogIndex(0));
    for node in [2, 3] {
        cluster.base.model.lock().behind.insert(NodeId(node), 100);
    }
    cluster.base.model.lock().shards.get_mut(&ShardId(100)).unwrap().leader = Some(NodeId(1));
    for _ in 0..6 {
        let session = Session::default();
        let exact = Query { width: Width::All, ..near(2.0, 2) };
        let answers = run(&access, &cluster.base.lookup(), spec(&session, 2_000), &[exact]).await.unwrap();
        assert_eq!(ids(&answers[0]), [2, 1]);
    }
}

#[tokio::test]
async fn much_that_is_old_takes_more_rounds_and_at_last_home_shards() {
    for (old, kind) in [(5, "exact"), (20, "exact"), (35, "exact"), (500, "not_exact")] {
        let cluster = filled(1).await;
        let copy = |id| Copy { version: LogIndex(1), point: ModelCluster::point(id, 2.4) };
        let copies = Copies { points: (1_000..1_000 + old).map(copy).collect(), ..Copies::default() };
        cluster.base.model.lock().shards.get_mut(&ShardId(100)).unwrap().take_copies(&copies);
        let answer = ask(&cluster, Query { exact: true, ..near(2.4, 2) }).await.unwrap();
        assert_eq!(ids(&answer), [2, 3], "{old}");
        assert!(routed(&answer).1.contains(&format!("\"{kind}\"")), "{old}: {:?}", routed(&answer));
        let parts = PointParts { payload: true, vectors: VectorSelector::None };
        let answer = ask(&cluster, Query { parts, ..near(2.4, 2) }).await.unwrap();
        assert!(old > 100 || ids(&answer) == [2, 3], "{old}");
    }
}

#[tokio::test]
async fn what_changes_between_the_phases_is_shown_as_home_has_it() {
    for payload in [false, true] {
        let cluster = filled(1).await;
        let homes = [5, 6, 7].map(|id| cluster.base.shard_of(id));
        let mut is_first = true;
        cluster.base.model.lock().before_retrieve = Some(Box::new(move |shards| {
            if !std::mem::take(&mut is_first) {
                return;
            }
            shards.get_mut(&homes[1]).unwrap().points.remove(&PointId::Num(6));
            for (id, home, x) in [(5, homes[0], 5.4), (7, homes[2], 7.0)] {
                let home = shards.get_mut(&home).unwrap();
                home.log += 1;
                home.points.insert(PointId::Num(id), (LogIndex(home.log), ModelCluster::point(id, x)));
            }
        }));
        let parts = PointParts { payload, vectors: VectorSelector::None };
        let answer = ask(&cluster, Query { parts, allow_partial: false, ..near(5.3, 3) }).await.unwrap();
        assert_eq!(ids(&answer), [5, 4, 7], "one has moved, one is gone, one was written again");
        assert!((answer.hits[0].score - 0.1).abs() < 1e-5);
        assert!(answer.hits.iter().all(|hit| hit.point.is_some() == payload));
    }
}

#[tokio::test]
async fn a_winner_that_keeps_changing_is_left_out_and_nothing_else() {
    let cluster = filled(1).await;
    let home = cluster.base.shard_of(5);
    let change = move |shards: &mut BTreeMap<ShardId, ModelShard>| {
        let home = shards.get_mut(&home).unwrap();
        home.log += 1;
        home.points.get_mut(&PointId::Num(5)).unwrap().0 = LogIndex(home.log);
    };
    cluster.base.model.lock().before_retrieve = Some(Box::new(change));
    let parts = PointParts { payload: true, vectors: VectorSelector::None };
    let query = Query { parts, ..near(5.0, 2) };
    let answer = ask(&cluster, query.clone()).await.unwrap();
    assert_eq!(ids(&answer), [5, 4], "what was fetched is what was scored then");
    assert!(answer.hits.iter().all(|hit| hit.point.as_ref().unwrap().version == hit.version));
    cluster.base.model.lock().before_search = Some(Box::new(change));
    assert_eq!(ids(&ask(&cluster, query).await.unwrap()), [4, 6]);
    assert_eq!(ids(&ask(&cluster, near(5.0, 2)).await.unwrap()), [5, 4], "home has said where it is");
}

#[tokio::test]
async fn trees_groups_and_matrices_work_as_on_any_collection() {
    let cluster = filled(1).await;
    let routing = crate::meta::Routing::Hash;
    let by_hash = Arc::new(Collection { routing, ..(*cluster.base.collection).clone() });
    let lookups: [&(dyn Fn() -> vicinal_common::error::Result<Arc<Collection>> + Send + Sync); 2] =
        [&|| Ok(cluster.base.collection.clone()), &|| Ok(by_hash.clone())];
    let tree = |query: Query, prefetch: Vec<QueryTree>| QueryTree { query, prefetch, lookup_from: None };
    // Eight neighbours are in one search shard: only then are they those of a collection by hash.
    let leaf = |x: f32| tree(near(x, 8), Vec::new());
    let rrf = Fusion::Rrf { k: RRF_K_DEFAULT, weights: None };
    let parts = PointParts { payload: true, vectors: VectorSelector::All };
    let mmr =
        Source::Mmr { target: Example::Point(PointId::Num(9)), mmr: Mmr { diversity: 0.5, candidates: Some(20) } };
    let trees = [
        tree(Query { source: Source::Fusion(rrf), parts: parts.clone(), ..near(0.0, 6) }, vec![leaf(8.2), leaf(9.7)]),
        tree(near(20.0, 3), vec![leaf(18.0), leaf(40.0)]),
        tree(Query { source: mmr, parts, ..near(0.0, 5) }, Vec::new()),
        tree(Query { source: Source::All, ..near(0.0, 5) }, Vec::new()),
    ];
    let mut answers = Vec::new();
    for lookup in lookups {
        let session = Session::default();
        let found = run_trees(&cluster.base.access, lookup, spec(&session, 2_000), &trees).await.unwrap();
        let hits: Vec<Vec<Hit>> = found.into_iter().map(|answer| answer.hits).collect();
        let groups = GroupSpec { by: vicinal_common::filter::KeyPath::parse("n").unwrap(), limit: 4, size: 2 };
        let grouped = run_groups(&cluster.base.access, lookup, spec(&session, 2_000), &leaf(33.0), &groups).await;
        let request = MatrixRequest { using: String::new(), filter: None, sample: 60, limit: 2, allow_partial: false };
        let matrix = matrix(&cluster.base.access, lookup, spec(&session, 2_000), &request).await.unwrap().0;
        answers.push((hits, format!("{:?}", grouped.unwrap().groups), matrix));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn where_there_are_no_search_shards_all_are_asked_however_widely_a_client_wants_to() {
    let cluster = ModelCluster::new(2, 1);
    let session = Session::default();
    let write =
        WriteSpec { request: RequestId(1), deadline: Instant::now() + Duration::from_secs(5), session: &session };
    upsert(&cluster.access, &cluster.lookup(), write, ModelCluster::points(40)).await.unwrap();
    let hits = async |width| {
        let query = Query { width, ..near(1.0, 5) };
        let above = QueryTree { query: near(1.0, 5), prefetch: Vec::new(), lookup_from: None };
        let tree = QueryTree { prefetch: vec![QueryTree { query, ..above.clone() }], ..above };
        let answers = run_trees(&cluster.access, &cluster.lookup(), spec(&session, 400), &[tree]).await.unwrap();
        assert!(answers[0].coverage.routed.is_none());
        answers[0].hits.clone()
    };
    let usual = hits(Width::Usual).await;
    assert_eq!(usual.len(), 5);
    for width in [Width::Recall(0.9), Width::Shards(1), Width::All, Width::Homes] {
        assert_eq!(hits(width).await, usual, "{width:?}");
    }
}
