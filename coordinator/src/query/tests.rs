//! Searches and reads over a model cluster: gaps, time-outs, failover, changes between the phases.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use vicinal_common::api::{PointParts, ScrollOrder, VectorSelector};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Error;
use vicinal_common::ids::{Epoch, LogIndex, NodeId, RequestId};
use vicinal_common::metric::Metric;
use vicinal_common::point::PointId;
use vicinal_common::vector::{SparseVector, Vector};

use super::*;
use crate::model::{ModelCluster, ModelShard};
use crate::session::Session;
use crate::shard_client::WorkKind;
use crate::write::{WriteSpec, upsert};

fn spec(millis: u64) -> ReadSpec<'static> {
    let deadline = Instant::now() + Duration::from_millis(millis);
    ReadSpec { consistency: Consistency::ReadYourWrites, deadline, session: Box::leak(Box::default()) }
}

pub(super) fn near(x: f32, limit: usize) -> Query {
    Query {
        source: Source::Vector(vec![x, 0.0].into()),
        using: String::new(),
        filter: None,
        score_threshold: None,
        limit,
        offset: 0,
        ef: None,
        exact: false,
        oversampling: None,
        idf_corpus: None,
        parts: PointParts::default(),
        width: Width::default(),
        allow_partial: true,
    }
}

pub(super) fn ids(answer: &Answer) -> Vec<u64> {
    let number = |hit: &Hit| match hit.id {
        PointId::Num(number) => number,
        PointId::Uuid(_) => panic!("no such point"),
    };
    answer.hits.iter().map(number).collect()
}

async fn filled(shards: u64, replicas: u64, count: u64) -> ModelCluster {
    let cluster = ModelCluster::new(shards, replicas);
    let session = Session::default();
    let write =
        WriteSpec { request: RequestId(1), deadline: Instant::now() + Duration::from_secs(5), session: &session };
    upsert(&cluster.access, &cluster.lookup(), write, ModelCluster::points(count)).await.unwrap();
    cluster
}

async fn search(cluster: &ModelCluster, query: Query) -> vicinal_common::error::Result<Answer> {
    let answers = run(&cluster.access, &cluster.lookup(), spec(300), &[query]).await?;
    Ok(answers.into_iter().next().unwrap())
}

#[tokio::test]
async fn the_best_of_all_shards_come_first_with_offset_and_threshold() {
    let cluster = filled(4, 1, 50).await;
    let answer = search(&cluster, Query { offset: 1, ..near(10.2, 3) }).await.unwrap();
    assert_eq!(ids(&answer), [11, 9, 12]);
    assert!((answer.hits[0].score - 0.8).abs() < 1e-5);
    assert_eq!(answer.coverage, Coverage { shards_asked: 4, shards_answered: 4, ..Coverage::default() });
    let answer = search(&cluster, Query { score_threshold: Some(1.0), ..near(10.0, 10) }).await.unwrap();
    assert_eq!(ids(&answer), [10, 9, 11]);
}

#[tokio::test]
async fn a_point_as_query_is_left_out_and_a_missing_one_is_not_found() {
    let cluster = filled(4, 1, 50).await;
    let answer = search(&cluster, Query { source: Source::Point(PointId::Num(10)), ..near(0.0, 2) }).await.unwrap();
    assert_eq!(ids(&answer), [9, 11]);
    let error = search(&cluster, Query { source: Source::Point(PointId::Num(99)), ..near(0.0, 2) }).await.unwrap_err();
    assert_eq!(error, Error::NotFound("No point with id 99 found".into()));
    cluster.model.lock().dead.extend([1, 2, 3].map(NodeId));
    let error = search(&cluster, Query { source: Source::Point(PointId::Num(10)), ..near(0.0, 2) }).await.unwrap_err();
    assert_eq!(error.http_status(), 503, "a point of a missing shard is not absent: {error}");
}

#[tokio::test]
async fn no_query_lists_points_by_id() {
    let cluster = filled(4, 1, 20).await;
    let parts = PointParts { payload: true, vectors: VectorSelector::None };
    let answer = search(&cluster, Query { source: Source::All, offset: 3, parts, ..near(0.0, 2) }).await.unwrap();
    assert_eq!(ids(&answer), [3, 4]);
    assert!(answer.hits.iter().all(|hit| hit.score == 1.0 && hit.point.is_some()));
}

#[tokio::test]
async fn a_dead_shard_is_a_gap_that_is_named_and_an_error_when_not_allowed() {
    let cluster = filled(3, 1, 30).await;
    cluster.model.lock().dead.insert(NodeId(2));
    let answer = search(&cluster, near(0.0, 30)).await.unwrap();
    assert_eq!(answer.coverage.shards_answered, 2);
    assert_eq!(answer.coverage.missing[0].shard.0, 1);
    assert!(answer.hits.iter().all(|hit| cluster.collection.tokens.shard_of(hit.id).0 != 1));
    let error = search(&cluster, Query { allow_partial: false, ..near(0.0, 30) }).await.unwrap_err();
    assert!(error.http_status() == 503 && error.to_string().contains("shard 1: "), "{error}");
}

#[tokio::test]
async fn a_slow_shard_costs_the_deadline_and_no_more() {
    let cluster = filled(3, 1, 30).await;
    cluster.model.lock().hanging.insert(NodeId(3));
    let started = Instant::now();
    let answer = search(&cluster, near(0.0, 5)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(answer.coverage.missing[0].reason.http_status(), 408);
    cluster.model.lock().hanging.extend([1, 2].map(NodeId));
    let error = search(&cluster, near(0.0, 5)).await.unwrap_err();
    assert_eq!(error.http_status(), 503, "a timeout is never an empty success");
}

#[tokio::test]
async fn another_replica_answers_for_a_dead_one() {
    let cluster = filled(3, 2, 30).await;
    cluster.model.lock().dead.insert(NodeId(2));
    let answer = search(&cluster, Query { allow_partial: false, ..near(4.0, 3) }).await.unwrap();
    assert_eq!(ids(&answer), [4, 3, 5]);
}

#[tokio::test]
async fn a_winner_that_changes_before_it_is_fetched_is_searched_again() {
    let cluster = filled(2, 1, 20).await;
    let shard = cluster.shard_of(5);
    let mut changes = 0;
    cluster.model.lock().before_retrieve = Some(Box::new(move |shards| {
        changes += 1;
        if changes == 1 {
            move_away(shards.get_mut(&shard).unwrap(), 5);
        }
    }));
    let parts = PointParts { payload: true, vectors: VectorSelector::All };
    let answer = search(&cluster, Query { parts, ..near(5.0, 2) }).await.unwrap();
    assert_eq!(ids(&answer), [4, 6], "point 5 is far away now, and the answer has two hits all the same");
    assert!(answer.hits.iter().all(|hit| hit.point.as_ref().unwrap().version == hit.version));
}

#[tokio::test]
async fn a_winner_that_keeps_changing_is_left_out() {
    let cluster = filled(2, 1, 20).await;
    let shard = cluster.shard_of(5);
    cluster.model.lock().before_retrieve = Some(Box::new(move |shards| {
        let shard = shards.get_mut(&shard).unwrap();
        shard.log += 1;
        shard.points.get_mut(&PointId::Num(5)).unwrap().0 = LogIndex(shard.log);
    }));
    let parts = PointParts { payload: true, vectors: VectorSelector::None };
    let answer = search(&cluster, Query { parts, ..near(5.0, 2) }).await.unwrap();
    assert_eq!(ids(&answer).len(), 1);
    assert!(!ids(&answer).contains(&5));
}

fn move_away(shard: &mut ModelShard, id: u64) {
    shard.log += 1;
    shard.points.insert(PointId::Num(id), (LogIndex(shard.log), ModelCluster::point(id, 1000.0)));
}

#[tokio::test]
async fn a_read_follows_a_new_token_table() {
    let cluster = filled(3, 1, 30).await;
    for shard in cluster.model.lock().shards.values_mut() {
        shard.epoch = Epoch(2);
    }
    let newer = Arc::new(crate::meta::Collection { epoch: Epoch(2), ..(*cluster.collection).clone() });
    let asked = parking_lot::Mutex::new(0);
    let lookup = || {
        *asked.lock() += 1;
        Ok(if *asked.lock() > 2 { newer.clone() } else { cluster.collection.clone() })
    };
    let (count, coverage) = count(&cluster.access, &lookup, spec(2000), None).await.unwrap();
    assert_eq!((count, coverage.is_complete()), (30, true));
}

#[tokio::test]
async fn metadata_that_stays_behind_is_an_error_and_never_an_empty_answer() {
    let cluster = filled(2, 1, 30).await;
    for shard in cluster.model.lock().shards.values_mut() {
        shard.epoch = Epoch(2);
    }
    for source in [Source::Point(PointId::Num(1)), Source::Vector(vec![1.0, 0.0].into()), Source::All] {
        let error = search(&cluster, Query { source, ..near(0.0, 2) }).await.unwrap_err();
        assert_eq!(error.http_status(), 503, "{error}");
    }
}

#[tokio::test]
async fn wrong_vectors_are_refused_in_the_clients_words() {
    let cluster = filled(2, 1, 5).await;
    for (source, using, text) in [
        (vec![1.0], "", "Wrong input: Vector dimension error: expected dim: 2, got 1"),
        (vec![1.0, 2.0], "other", "Wrong input: Not existing vector name error: other"),
        (vec![1.0, f32::INFINITY], "", "Wrong input: vector value at position 1 is not a finite 32-bit number"),
    ] {
        let query = Query { source: Source::Vector(source.into()), using: using.into(), ..near(0.0, 1) };
        assert_eq!(search(&cluster, query).await.unwrap_err().to_string(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn scrolling_visits_every_point_once_in_order(count in 0u64..60, limit in 1usize..20, shards in 1u64..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = if count > 0 { filled(shards, 1, count).await } else { ModelCluster::new(shards, 1) };
            let mut seen = Vec::new();
            let mut from = None;
            loop {
                let request = PageRequest { order: ScrollOrder::Id { from }, limit, filter: None, parts: PointParts::default() };
                let page = scroll(&cluster.access, &cluster.lookup(), spec(2000), &request).await.unwrap();
                assert!(page.points.len() <= limit);
                seen.extend(page.points.iter().map(|point| point.id));
                match page.next {
                    Some(next) => from = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, (0..count).map(PointId::Num).collect::<Vec<_>>());
        });
    }
}

#[tokio::test]
async fn without_a_known_floor_only_the_leader_of_a_replicated_shard_may_answer() {
    for (replicas, first) in [(1, Consistency::ReadYourWrites), (3, Consistency::Linearizable)] {
        let cluster = ModelCluster::new(1, replicas);
        let asked = || async {
            let seen = std::sync::Mutex::new(Vec::new());
            let ask = |_, context: vicinal_common::api::ReadContext| {
                seen.lock().unwrap().push(context.consistency);
                async { Vec::<vicinal_common::api::ShardAnswer<u64>>::new() }
            };
            super::scatter::scatter(
                &cluster.access,
                &cluster.collection,
                spec(300),
                Effort { kind: WorkKind::Count, units: 1 },
                &[cluster.collection.shards[0].id],
                ask,
            )
            .await;
            seen.into_inner().unwrap()[0]
        };
        assert_eq!(asked().await, first);
        let session = Session::default();
        let write =
            WriteSpec { request: RequestId(1), deadline: Instant::now() + Duration::from_secs(5), session: &session };
        upsert(&cluster.access, &cluster.lookup(), write, ModelCluster::points(3)).await.unwrap();
        assert_eq!(asked().await, Consistency::ReadYourWrites);
    }
}

#[tokio::test]
async fn a_power_of_judgements_below_0_is_refused() {
    let cluster = filled(2, 1, 5).await;
    let example = |id| Example::Point(PointId::Num(id));
    let feedback = |power| {
        let judged = vec![(example(2), 1.0), (example(3), 0.0)];
        Query { source: Source::Feedback { target: example(1), judged, factors: [1.0, power, 1.0] }, ..near(0.0, 1) }
    };
    let error = search(&cluster, feedback(-1.0)).await.unwrap_err();
    assert_eq!(error.http_status(), 422);
    assert!(error.to_string().contains("[query.relevance_feedback.strategy.naive.b: value -1 invalid"), "{error}");
    assert!(search(&cluster, feedback(0.0)).await.is_ok());
}

/// A cluster of points with sparse vectors that are weighed by how rare their dimensions are.
fn weighed(shards: u64) -> ModelCluster {
    let mut cluster = ModelCluster::new(shards, 1);
    let mut collection = (*cluster.collection).clone();
    collection.schema.vectors.insert(String::new(), vicinal_common::collection::VectorSchema::sparse(true));
    for id in 0..30 {
        let shard = cluster.shard_of(id);
        let mut point = ModelCluster::point(id, 0.0);
        point.vectors.insert(String::new(), sparse([1, 2 + id as u32]));
        let mut model = cluster.model.lock();
        let shard = model.shards.get_mut(&shard).unwrap();
        shard.log += 1;
        shard.points.insert(PointId::Num(id), (LogIndex(shard.log), point));
    }
    cluster.collection = Arc::new(collection);
    cluster
}

fn sparse(indices: [u32; 2]) -> Vector {
    Vector::Sparse(SparseVector { indices: indices.into(), values: vec![1.0; 2] })
}

#[tokio::test]
async fn a_shard_that_does_not_say_how_rare_dimensions_are_is_missing_in_the_answer() {
    let cluster = weighed(3);
    let rare = || Query { source: Source::Vector(sparse([1, 9])), ..near(0.0, 3) };
    assert!(search(&cluster, rare()).await.unwrap().coverage.is_complete());
    cluster.model.lock().no_frequencies.insert(NodeId(2));
    let listed = Query { source: Source::All, ..near(0.0, 3) };
    let answers = run(&cluster.access, &cluster.lookup(), spec(300), &[rare(), listed]).await.unwrap();
    assert_eq!(answers[0].coverage.shards_answered, 2);
    assert_eq!(answers[0].coverage.missing[0].shard.0, 1);
    assert!(answers[1].coverage.is_complete(), "it is nothing to the other query");
    let error = search(&cluster, Query { allow_partial: false, ..rare() }).await.unwrap_err();
    assert_eq!(error.http_status(), 503);
}

#[tokio::test]
async fn a_shard_with_a_newer_table_is_missing_in_weighed_answers_too() {
    let cluster = weighed(3);
    cluster.model.lock().shards.values_mut().next().unwrap().epoch = Epoch(2);
    let rare = || Query { source: Source::Vector(sparse([1, 9])), ..near(0.0, 3) };
    let answer = search(&cluster, rare()).await.unwrap();
    assert_eq!((answer.coverage.shards_answered, answer.hits.len()), (2, 3));
    let error = search(&cluster, Query { allow_partial: false, ..rare() }).await.unwrap_err();
    assert_eq!(error.http_status(), 503);
}

#[tokio::test]
async fn too_many_examples_are_refused_before_they_are_sent() {
    let mut cluster = filled(2, 1, 5).await;
    let mut collection = (*cluster.collection).clone();
    let dim = 4_096;
    collection.schema.vectors.get_mut("").unwrap().dim = dim;
    for shard in cluster.model.lock().shards.values_mut() {
        for (_, point) in shard.points.values_mut() {
            point.vectors.insert(String::new(), vec![1.0; dim].into());
        }
    }
    cluster.collection = Arc::new(collection);
    let example = (Example::Point(PointId::Num(1)), 1.0);
    let source = Source::SumScores { positive: vec![example; 1_000], negative: Vec::new() };
    let queries = vec![Query { source, ..near(0.0, 1) }; 5];
    let error = run(&cluster.access, &cluster.lookup(), spec(2_000), &queries).await.unwrap_err();
    assert!(error.http_status() == 422 && error.to_string().contains("16777216"), "{error}");
}

#[test]
fn the_beam_holds_as_many_candidates_as_are_asked_for() {
    let beam = |ef: Option<usize>, oversampling: Option<f64>| {
        let query = Query { ef, oversampling, offset: 2, ..near(1.0, 8) };
        query.search(Metric::Dot, vec![1.0, 0.0].into(), 100).ef
    };
    assert_eq!(beam(None, None), None);
    assert_eq!(beam(Some(50), None), Some(50));
    assert_eq!(beam(None, Some(2.0)), Some(100), "what the graph was built with");
    assert_eq!(beam(None, Some(12.5)), Some(125));
    assert_eq!(beam(Some(20), Some(3.0)), Some(30));
    assert_eq!(beam(Some(500), Some(3.0)), Some(500));
}
