//! One node: restarts, drops, limits, crashes.

use std::collections::BTreeMap;

use vicinal_common::api::{FoundGroup, ShardApi, WriteOp};
use vicinal_common::disk::Fault;
use vicinal_common::error::Error;
use vicinal_common::ids::{ClusterId, CollectionId, LogIndex, ShardId};
use vicinal_common::limits::GROUPS_PER_NODE_MAX;
use vicinal_common::point::PointId;

use super::fixture::*;
use super::maps::tests::{keep_of, put_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart() {
    let mut cluster = Cluster::start(1).await;
    cluster.make_shard(1).await;
    cluster.make_shard(2).await;
    let id = cluster.node(0).id();
    let first = cluster.write(upsert(1, 0..100)).await.unwrap();
    assert_eq!(first.effect.affected, 100);
    let deleted = cluster.write(write_of(1, WriteOp::Delete((0..10).map(PointId::Num).collect()))).await.unwrap();
    assert_eq!(deleted.effect.affected, 10);
    assert!(deleted.index > first.index);
    let other = cluster.write(upsert(2, 500..510)).await.unwrap();
    for round in 0..3 {
        match round {
            0 => cluster.stop(0).await,
            _ => cluster.crash(0).await,
        }
        if round == 2 {
            // Only what was synced survives this.
            cluster.disks[0].reboot();
        }
        cluster.restart(0).await;
        let node = cluster.node(0);
        assert_eq!(node.id(), id, "the identity is kept");
        assert_eq!(count(node, 1, deleted.index).await, Ok(90));
        assert_eq!(ids(node, 1, deleted.index, 0..20).await, (10..20).collect::<Vec<_>>());
        assert_eq!(count(node, 2, other.index).await, Ok(10));
        // Written again after each restart, so that later rounds replay several terms.
        cluster.write(upsert(1, 10..20)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_shard_needs_no_log_to_restart() {
    let mut cluster = Cluster::start(1).await;
    cluster.make_shard(1).await;
    let ack = cluster.write(upsert(1, 0..500)).await.unwrap();
    let group = cluster.node(0).group(ShardId(1)).unwrap();
    let shard = group.shard().clone();
    tokio::task::spawn_blocking(move || shard.flush_blocking()).await.unwrap().unwrap();
    until("the purge", async || group.log().bounds().unwrap().first > ack.index.0).await;
    drop(group);
    cluster.crash(0).await;
    cluster.disks[0].reboot();
    cluster.restart(0).await;
    assert_eq!(count(cluster.node(0), 1, ack.index).await, Ok(500));
    let next = cluster.write(upsert(1, 500..501)).await.unwrap();
    assert!(next.index > ack.index);
    assert_eq!(count(cluster.node(0), 1, next.index).await, Ok(501));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_created_and_dropped_once() {
    let mut cluster = Cluster::start(1).await;
    cluster.make_shard(1).await;
    cluster.make_shard(2).await;
    cluster.write(upsert(1, 0..10)).await.unwrap();
    let node = cluster.node(0).clone();
    node.create_replica(spec(1)).await.unwrap();
    let voters = BTreeMap::from([(node.id(), node.address().clone())]);
    node.found_group(FoundGroup { shard: ShardId(1), voters }).await.unwrap();
    let mut foreign = spec(1);
    foreign.collection = CollectionId(uuid::Uuid::from_u128(8));
    assert!(matches!(node.create_replica(foreign).await, Err(Error::Conflict(_))));

    node.drop_replica(ShardId(1)).await.unwrap();
    node.drop_replica(ShardId(1)).await.unwrap();
    node.drop_replica(ShardId(77)).await.unwrap();
    assert_eq!(cluster.write(upsert(1, 0..1)).await, Err(Error::NoSuchShard(ShardId(1))));
    assert_eq!(node.status().await.unwrap().replicas.len(), 1);
    drop(node);
    for _ in 0..2 {
        cluster.crash(0).await;
        cluster.disks[0].reboot();
        cluster.restart(0).await;
        assert_eq!(cluster.node(0).status().await.unwrap().replicas.len(), 1);
    }
    // A replica made anew under an old number begins empty.
    cluster.node(0).drop_replica(ShardId(2)).await.unwrap();
    cluster.make_shard(2).await;
    let ack = cluster.write(upsert(2, 0..3)).await.unwrap();
    cluster.crash(0).await;
    cluster.restart(0).await;
    assert_eq!(count(cluster.node(0), 2, ack.index).await, Ok(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_caller_stops_waiting_is_carried_out() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(0);
    let replicas = async || node.status().await.unwrap().replicas.len();
    for shard in 1..5 {
        let mut creating = node.create_replica(spec(shard));
        // Begun, and perhaps done already: on a fast disk it takes no longer than the poll.
        let _ = futures::poll!(creating.as_mut());
        drop(creating);
        until("the replica", async || replicas().await == 1).await;
        cluster.make_shard(shard).await;
        assert_eq!(cluster.write(upsert(shard, 0..10)).await.unwrap().effect.affected, 10);
        let mut dropping = node.drop_replica(ShardId(shard));
        let _ = futures::poll!(dropping.as_mut());
        drop(dropping);
        until("the drop", async || replicas().await == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_no_more_groups_than_its_limit() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(0);
    for shard in 0..GROUPS_PER_NODE_MAX as u64 {
        node.create_replica(spec(shard)).await.unwrap();
    }
    let refused = node.create_replica(spec(1_000)).await;
    assert!(matches!(refused, Err(Error::Unavailable(words)) if words.contains("most one node takes")));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_to_its_cluster() {
    let mut cluster = Cluster::start(1).await;
    let (one, two) = (ClusterId(uuid::Uuid::from_u128(1)), ClusterId(uuid::Uuid::from_u128(2)));
    cluster.node(0).join_cluster(one).unwrap();
    cluster.stop(0).await;
    cluster.restart(0).await;
    assert_eq!(cluster.node(0).cluster(), Some(one));
    cluster.node(0).join_cluster(one).unwrap();
    assert!(matches!(cluster.node(0).join_cluster(two), Err(Error::Conflict(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_the_node_read_only_until_there_is_room() {
    let cluster = Cluster::start(1).await;
    cluster.make_shard(1).await;
    let ack = cluster.write(upsert(1, 0..10)).await.unwrap();
    cluster.disks[0].inject(Fault::Full { bytes: 512 << 10 }).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let refused = cluster.write(upsert(1, 10..20)).await;
    assert!(matches!(&refused, Err(Error::Unavailable(words)) if words.contains("disk is full")), "{refused:?}");
    let status = cluster.node(0).status().await.unwrap();
    assert!(status.read_only.unwrap().contains("disk is full"));
    assert_eq!(count(cluster.node(0), 1, ack.index).await, Ok(10), "reads go on");
    cluster.disks[0].lift_full();
    until("writes again", async || cluster.write(upsert(1, 10..20)).await.is_ok()).await;
    assert_eq!(count(cluster.node(0), 1, LogIndex(0)).await, Ok(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_runs_full_in_spite_of_the_reserve_loses_nothing_acknowledged() {
    let mut cluster = Cluster::start_with(1, |options| options.disk_reserve_bytes = 1).await;
    cluster.make_shard(1).await;
    let mut acked = Vec::new();
    let ack = cluster.write(upsert(1, 0..10)).await.unwrap();
    acked.extend(0..10);
    cluster.disks[0].inject(Fault::Full { bytes: 24 << 10 }).unwrap();
    let mut failed = false;
    for i in 1..400 {
        match cluster.write(upsert(1, i * 10..i * 10 + 10)).await {
            Ok(_) => acked.extend(i * 10..i * 10 + 10),
            Err(_) => {
                failed = true;
                break;
            }
        }
    }
    assert!(failed, "the disk was large enough");
    cluster.disks[0].lift_full();
    until("writes again", async || cluster.write(upsert(1, 10_000..10_001)).await.is_ok()).await;
    acked.push(10_000);
    let last = cluster.write(upsert(1, 10_001..10_002)).await.unwrap();
    assert!(last.index > ack.index);
    for round in 0..2 {
        let found = ids(cluster.node(0), 1, last.index, 0..20_000).await;
        assert!(acked.iter().all(|id| found.contains(id)), "round {round}: an acknowledged point is missing");
        cluster.crash(0).await;
        cluster.disks[0].reboot();
        cluster.restart(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_replica_and_a_restart_finds_what_was_acknowledged() {
    let mut cluster = Cluster::start(1).await;
    cluster.make_shard(1).await;
    let ack = cluster.write(upsert(1, 0..10)).await.unwrap();
    let syncs = cluster.disks[0].syncs();
    cluster.disks[0].inject(Fault::SyncError { syncs }).unwrap();
    let refused = cluster.write(upsert(1, 10..20)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    until("the reason", async || cluster.node(0).status().await.unwrap().replicas[0].failed.is_some()).await;
    let words = cluster.node(0).status().await.unwrap().replicas[0].failed.clone().unwrap();
    assert!(words.contains("restart the node"), "{words}");
    cluster.crash(0).await;
    cluster.disks[0].reboot();
    cluster.restart(0).await;
    assert!(count(cluster.node(0), 1, ack.index).await.unwrap() >= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_maps_and_tells_which() {
    let mut cluster = Cluster::start(1).await;
    let [one, two] = [1, 2].map(|version| put_of(1, version));
    cluster.node(0).put_map(one.clone()).await.unwrap();
    cluster.node(0).put_map(two.clone()).await.unwrap();
    cluster.node(0).keep_maps(keep_of(1, 2, &[&two])).await.unwrap();
    cluster.crash(0).await;
    cluster.disks[0].reboot();
    cluster.restart(0).await;
    let node = cluster.node(0);
    assert_eq!(node.status().await.unwrap().maps, [two.digest]);
    assert_eq!(node.get_map(two.digest).await.unwrap(), two.bytes);
    assert!(matches!(node.get_map(one.digest).await, Err(Error::NotFound(_))));
    assert!(node.maps().open(two.digest).is_ok());
}
