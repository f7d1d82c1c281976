//! Copies that searches trip over: removed, when that is certain, and not too soon.

use std::time::Duration;

use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, NodeId, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Copies, Copy};

use super::cluster_tests::{ask, filled, write};
use super::repair::{COPIES_MAX, GRACE};
use super::tests::{ids, near};
use crate::model::{ClusterModel, ModelCluster};
use crate::session::Session;

/// Whether search shard 100 holds a copy of a point, and of which version.
fn copy(cluster: &ClusterModel, id: u64) -> Option<u64> {
    let model = cluster.base.model.lock();
    model.shards[&ShardId(100)].points.get(&PointId::Num(id)).map(|(version, _)| version.0)
}

#[tokio::test]
async fn what_a_search_trips_over_is_gone_afterwards() {
    let cluster = filled(1).await;
    let stale = |id, version, x| Copy { version: LogIndex(version), point: ModelCluster::point(id, x) };
    // A point that was deleted, and one that has moved to another search shard.
    let points = vec![stale(1_000, 1, 2.4), stale(50, 1, 2.3)];
    let newer = vec![ModelCluster::point(50, 50.0)];
    write(&cluster, 2, newer, &Session::default()).await;
    let copies = Copies { points, ..Copies::default() };
    cluster.base.model.lock().shards.get_mut(&ShardId(100)).unwrap().take_copies(&copies);
    assert_eq!((copy(&cluster, 1_000), copy(&cluster, 50)), (Some(1), Some(1)));

    let access = &cluster.base.access;
    for _ in 0..3 {
        assert_eq!(ids(&ask(&cluster, near(2.4, 2)).await.unwrap()), [2, 3]);
    }
    let expected = [(ShardId(100), PointId::Num(50), LogIndex(1)), (ShardId(100), PointId::Num(1_000), LogIndex(1))];
    assert_eq!(access.repairs.waiting(), expected.into(), "each once");
    access.repairs.step(&access.nodes, GRACE / 2).await;
    assert_eq!(copy(&cluster, 50), Some(1), "a search that is under way may need it");
    access.repairs.step(&access.nodes, GRACE).await;
    assert_eq!((copy(&cluster, 1_000), copy(&cluster, 50)), (None, None));
    assert!(access.repairs.waiting().is_empty());
    assert_eq!(ids(&ask(&cluster, near(2.4, 2)).await.unwrap()), [2, 3]);
    assert!(access.repairs.waiting().is_empty(), "there is nothing left to trip over");
}

#[tokio::test]
async fn a_task_repairs_by_itself() {
    tokio::time::pause();
    let cluster = filled(1).await;
    let copies = Copies {
        points: vec![Copy { version: LogIndex(1), point: ModelCluster::point(1_000, 2.4) }],
        ..Copies::default()
    };
    for _ in 0..2 {
        cluster.base.model.lock().shards.get_mut(&ShardId(100)).unwrap().take_copies(&copies);
        assert_eq!(ids(&ask(&cluster, near(2.4, 2)).await.unwrap()), [2, 3]);
        tokio::time::sleep(GRACE + Duration::from_secs(5)).await;
        assert_eq!(copy(&cluster, 1_000), None);
    }
}

#[tokio::test]
async fn repairs_are_bounded_and_what_fails_is_forgotten() {
    let cluster = filled(1).await;
    let access = &cluster.base.access;
    let suspects = |from: u64| -> Vec<_> {
        (from..from + 3_000).map(|id| (ShardId(100), PointId::Num(1_000 + id), LogIndex(1))).collect()
    };
    access.repairs.take_in(&access.nodes, &cluster.base.collection, &suspects(0));
    access.repairs.take_in(&access.nodes, &cluster.base.collection, &suspects(2_000));
    access.repairs.take_in(&access.nodes, &cluster.base.collection, &suspects(9_000));
    assert_eq!(access.repairs.waiting().len(), COPIES_MAX);
    // Home shards that are away prove nothing.
    cluster.base.model.lock().dead.extend([1, 2, 3].map(NodeId));
    for _ in 0..20 {
        access.repairs.step(&access.nodes, Duration::ZERO).await;
    }
    assert!(access.repairs.waiting().is_empty());
    cluster.base.model.lock().dead.clear();
    access.repairs.take_in(&access.nodes, &cluster.base.collection, &suspects(0)[..5]);
    access.repairs.step(&access.nodes, Duration::ZERO).await;
    cluster.base.model.lock().refuse_writes.insert(ShardId(100), Error::Overloaded("later".into()));
    access.repairs.step(&access.nodes, GRACE).await;
    assert!(access.repairs.waiting().is_empty(), "the next search finds them again");
}
