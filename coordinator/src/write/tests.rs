//! Writes over a model cluster: leaders that move, answers that are lost, shards that fail, tables that change.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use vicinal_common::collection::VectorSchema;
use vicinal_common::error::Error;
use vicinal_common::ids::{Epoch, LogIndex, NodeId, RequestId, ShardId};
use vicinal_common::limits::COMMAND_BYTES_MAX;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED, Vectors};
use vicinal_common::ring::TokenTable;

use super::*;
use crate::meta::Collection;
use crate::model::{ClusterModel, ModelCluster};

fn spec(request: u128) -> WriteSpec<'static> {
    let deadline = Instant::now() + Duration::from_secs(5);
    WriteSpec { request: RequestId(request), deadline, session: Box::leak(Box::default()) }
}

fn total(cluster: &ModelCluster) -> usize {
    cluster.model.lock().shards.values().map(|shard| shard.points.len()).sum()
}

#[tokio::test]
async fn points_reach_their_shards_and_floors_rise() {
    let cluster = ModelCluster::new(4, 1);
    let lookup = cluster.lookup();
    let written = upsert(&cluster.access, &lookup, spec(1), ModelCluster::points(100)).await.unwrap();
    assert_eq!(written, Written { index: LogIndex(1), affected: 100, missing: None });
    for (id, shard) in &cluster.model.lock().shards {
        assert!(shard.points.keys().all(|point| cluster.collection.tokens.shard_of(*point) == *id));
        assert_eq!(cluster.access.floor(*id), Some(LogIndex(1)));
    }
    let ids = (0..50).map(PointId::Num).collect();
    assert_eq!(delete(&cluster.access, &lookup, spec(2), ids).await.unwrap().affected, 50);
    assert_eq!(total(&cluster), 50);
}

#[tokio::test]
async fn the_leader_is_found_by_its_hint_and_remembered() {
    let cluster = ModelCluster::new(1, 3);
    cluster.model.lock().shards.get_mut(&ShardId(0)).unwrap().leader = Some(NodeId(3));
    upsert(&cluster.access, &cluster.lookup(), spec(1), ModelCluster::points(1)).await.unwrap();
    assert_eq!(cluster.access.leader(ShardId(0)), Some(NodeId(3)));
    assert_eq!(cluster.model.lock().calls, 2);
    upsert(&cluster.access, &cluster.lookup(), spec(2), ModelCluster::points(1)).await.unwrap();
    assert_eq!(cluster.model.lock().calls, 3);
}

#[tokio::test]
async fn an_election_is_waited_out() {
    let cluster = ModelCluster::new(1, 3);
    cluster.model.lock().shards.get_mut(&ShardId(0)).unwrap().leader = None;
    let model = cluster.model.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        model.lock().shards.get_mut(&ShardId(0)).unwrap().leader = Some(NodeId(2));
    });
    upsert(&cluster.access, &cluster.lookup(), spec(1), ModelCluster::points(1)).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_dies_or_is_paused_costs_less_than_three_seconds() {
    for paused in [false, true] {
        let cluster = ModelCluster::new(1, 3);
        upsert(&cluster.access, &cluster.lookup(), spec(1), ModelCluster::points(1)).await.unwrap();
        assert_eq!(cluster.access.leader(ShardId(0)), Some(NodeId(1)));
        let faulty = |model: &mut crate::model::Model| {
            if paused { &mut model.hanging } else { &mut model.dead }.insert(NodeId(1))
        };
        faulty(&mut cluster.model.lock());
        let model = cluster.model.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1_400)).await;
            let mut model = model.lock();
            let shard = model.shards.get_mut(&ShardId(0)).unwrap();
            (shard.leader, shard.term) = (Some(NodeId(2)), 2);
        });
        let began = Instant::now();
        upsert(&cluster.access, &cluster.lookup(), spec(2), ModelCluster::points(2)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        // The leader that was paused goes on with what it was asked: the shard has taken it already.
        cluster.model.lock().hanging.clear();
        let began = Instant::now();
        upsert(&cluster.access, &cluster.lookup(), spec(3), ModelCluster::points(3)).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(200), "the new leader is known");
        assert_eq!(cluster.model.lock().shards[&ShardId(0)].log, 3);
    }
}

#[tokio::test]
async fn a_slow_leader_is_not_asked_twice() {
    let cluster = ModelCluster::new(1, 3);
    cluster.model.lock().slow.insert(NodeId(1), Duration::from_millis(1_800));
    upsert(&cluster.access, &cluster.lookup(), spec(1), ModelCluster::points(1)).await.unwrap();
    let model = cluster.model.lock();
    assert_eq!((model.shards[&ShardId(0)].log, model.writes.get(&NodeId(1))), (1, Some(&1)));
    assert_eq!(cluster.access.leader(ShardId(0)), Some(NodeId(1)));
}

#[tokio::test]
async fn a_damaged_replica_does_not_end_a_write_that_others_can_take() {
    let cluster = ModelCluster::new(1, 3);
    cluster.model.lock().damaged.insert(NodeId(1));
    cluster.model.lock().shards.get_mut(&ShardId(0)).unwrap().leader = Some(NodeId(2));
    upsert(&cluster.access, &cluster.lookup(), spec(1), ModelCluster::points(1)).await.unwrap();
    assert_eq!(cluster.access.leader(ShardId(0)), Some(NodeId(2)));

    let alone = ModelCluster::new(1, 1);
    alone.model.lock().damaged.insert(NodeId(1));
    let began = Instant::now();
    let error = upsert(&alone.access, &alone.lookup(), spec(1), ModelCluster::points(1)).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "there is nobody else to ask");
}

#[tokio::test]
async fn a_lost_answer_does_not_apply_a_write_twice() {
    let cluster = ModelCluster::new(2, 1);
    cluster.model.lock().lose_answers.insert(ShardId(0), 2);
    upsert(&cluster.access, &cluster.lookup(), spec(1), ModelCluster::points(20)).await.unwrap();
    assert_eq!(cluster.model.lock().shards[&ShardId(0)].log, 1);
}

#[tokio::test]
async fn a_partial_failure_names_the_shard_and_can_be_repeated() {
    let cluster = ModelCluster::new(3, 1);
    let full = Error::Overloaded("the disk is busy".into());
    cluster.model.lock().refuse_writes.insert(ShardId(1), full);
    let short = WriteSpec { deadline: Instant::now() + Duration::from_millis(100), ..spec(1) };
    let error = upsert(&cluster.access, &cluster.lookup(), short, ModelCluster::points(60)).await.unwrap_err();
    assert_eq!(error.http_status(), 429);
    let text = error.to_string();
    assert!(text.contains("1 of 3 shards") && text.contains("shard 1: Too many requests: the disk is busy"), "{text}");
    assert!(text.contains("repeating the same request is safe"), "{text}");
    cluster.model.lock().refuse_writes.clear();
    upsert(&cluster.access, &cluster.lookup(), spec(2), ModelCluster::points(60)).await.unwrap();
    assert_eq!(total(&cluster), 60);
}

#[tokio::test]
async fn the_worst_failure_decides_the_status() {
    let cluster = ModelCluster::new(3, 1);
    cluster.model.lock().refuse_writes.insert(ShardId(1), Error::Internal("a defect".into()));
    cluster.model.lock().hanging.insert(NodeId(3));
    let short = WriteSpec { deadline: Instant::now() + Duration::from_millis(100), ..spec(1) };
    let error = upsert(&cluster.access, &cluster.lookup(), short, ModelCluster::points(60)).await.unwrap_err();
    assert_eq!(error.http_status(), 500);
    assert!(error.to_string().contains("2 of 3 shards"), "{error}");
}

#[tokio::test]
async fn a_write_is_cut_anew_when_the_token_table_changes() {
    let cluster = ModelCluster::new(2, 1);
    // The shards have moved on to a table in which shard 0 owns everything.
    let newer = Arc::new(Collection {
        epoch: Epoch(2),
        tokens: TokenTable::propose(&[ShardId(0)]).unwrap(),
        ..(*cluster.collection).clone()
    });
    for shard in cluster.model.lock().shards.values_mut() {
        shard.epoch = Epoch(2);
    }
    let asked = parking_lot::Mutex::new(0);
    let lookup = || {
        *asked.lock() += 1;
        Ok(if *asked.lock() > 1 { newer.clone() } else { cluster.collection.clone() })
    };
    let written = upsert(&cluster.access, &lookup, spec(1), ModelCluster::points(40)).await.unwrap();
    assert_eq!(written.affected, 40);
    assert_eq!(cluster.model.lock().shards[&ShardId(0)].points.len(), 40);
}

#[tokio::test]
async fn an_ack_raises_the_floors_of_search_shards_and_of_the_map() {
    let cluster = ClusterModel::new(2, 4, 1);
    let (access, write) = (&cluster.base.access, spec(1));
    upsert(access, &cluster.base.lookup(), write, vec![ModelCluster::point(1, 2.5)]).await.unwrap();
    let held = |shard: &ShardId| cluster.base.model.lock().shards[shard].points.contains_key(&PointId::Num(1));
    for shard in cluster.search_shards() {
        let floor = held(&shard).then_some(LogIndex(1));
        assert_eq!((access.floor(shard), write.session.floor(shard)), (floor, floor));
    }
    assert!(cluster.search_shards().iter().any(held));
    let map = cluster.publish.map();
    assert_eq!((access.map_floor(cluster.base.collection.id), write.session.map_floor()), (map, map));
    // A retry is told the same.
    upsert(access, &cluster.base.lookup(), write, vec![ModelCluster::point(1, 2.5)]).await.unwrap();
    assert_eq!(access.floor(ShardId(100)), Some(LogIndex(1)));
}

#[tokio::test]
async fn copies_that_are_missing_are_told_at_once_and_blamed_on_nobody() {
    let cluster = ClusterModel::new(1, 4, 3);
    let text = "stored, but search shard 101 has not taken its copy yet";
    cluster.base.model.lock().refuse_writes.insert(ShardId(0), Error::Timeout(text.into()));
    for request in 1..6 {
        let began = Instant::now();
        let (access, lookup) = (&cluster.base.access, cluster.base.lookup());
        let error = upsert(access, &lookup, spec(request), ModelCluster::points(1)).await.unwrap_err();
        assert!(error.http_status() == 408 && error.to_string().contains(text), "{error}");
        assert!(began.elapsed() < Duration::from_secs(1), "nobody else is asked");
    }
    assert_eq!(cluster.base.model.lock().calls, 5);
    assert_eq!(cluster.base.access.health.counters().breaker_openings(), 0);
}

fn heavy(id: u64, payload_bytes: usize) -> Point {
    let fields = serde_json::json!({"x": "y".repeat(payload_bytes)}).as_object().unwrap().clone();
    Point { payload: Payload::from_fields(&fields).unwrap(), ..ModelCluster::point(id, 0.0) }
}

#[test]
fn large_batches_are_cut_below_the_limit() {
    let tokens = TokenTable::propose(&[ShardId(0)]).unwrap();
    let points: Vec<Point> = (0..10).map(|id| heavy(id, 2 << 20)).collect();
    let parts = cut_points(&tokens, points).unwrap().remove(&ShardId(0)).unwrap();
    assert!(parts.len() >= 3);
    for part in &parts {
        let op = vicinal_common::api::WriteOp::Upsert(Arc::new(part.clone()));
        assert!(postcard::to_stdvec(&op).unwrap().len() <= COMMAND_BYTES_MAX);
    }
    let wide = (0..3).map(|name| (name.to_string(), vec![0.5; COMMAND_BYTES_MAX / 8].into()));
    let point = Point { vectors: wide.collect::<Vectors>(), ..ModelCluster::point(1, 0.0) };
    assert_eq!(cut_points(&tokens, vec![point]).unwrap_err().http_status(), 400);
}

proptest! {
    #[test]
    fn the_last_of_each_id_goes_to_its_shard(ids in proptest::collection::vec((0u64..20, -9.0f32..9.0), 0..60)) {
        let shards: Vec<ShardId> = (0..4).map(ShardId).collect();
        let tokens = TokenTable::propose(&shards).unwrap();
        let points = ids.iter().map(|(id, x)| ModelCluster::point(*id, *x)).collect();
        let mut cut: Vec<(u64, f32)> = Vec::new();
        for (shard, parts) in cut_points(&tokens, points).unwrap() {
            for point in parts.into_iter().flatten() {
                prop_assert_eq!(tokens.shard_of(point.id), shard);
                let PointId::Num(id) = point.id else { unreachable!() };
                cut.push((id, point.vectors[UNNAMED].dense().unwrap()[0]));
            }
        }
        let model: std::collections::BTreeMap<u64, f32> = ids.into_iter().collect();
        cut.sort_by_key(|(id, _)| *id);
        prop_assert_eq!(cut, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn checking_accepts_finite_vectors_of_the_right_length_only(
        values in proptest::collection::vec(any::<f32>(), 0..5),
        dim in 1usize..5,
    ) {
        let schema = VectorSchema::dense(dim, Metric::Dot);
        let fine = values.len() == dim && values.iter().all(|value| value.is_finite());
        prop_assert_eq!(check_vector(values.clone().into(), &schema).is_ok(), fine);
    }
}
