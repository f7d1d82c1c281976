//! Several nodes: replication, failover, snapshots, retries, deadlines, floors.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vicinal_common::api::{
    CountRequest, FoundGroup, PointParts, ReplicaSpec, RetrieveRequest, SearchQuery, SearchRequest, ShardApi, WriteOp,
};
use vicinal_common::consistency::Consistency;
use vicinal_common::disk::Fault;
use vicinal_common::error::Error;
use vicinal_common::ids::{Epoch, LogIndex, MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Copies, Copy, MapRange, ShardRole};

use crate::node::fixture::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_converge_and_reads_wait_for_their_floor() {
    let cluster = Cluster::start(3).await;
    cluster.make_shard(1).await;
    let mut last = LogIndex(0);
    for i in 0..20 {
        last = cluster.write(upsert(1, i * 5..i * 5 + 5)).await.unwrap().index;
        // No pause: the floor makes each replica wait for the write.
        for node in 0..3 {
            assert_eq!(count(cluster.node(node), 1, last).await, Ok(i * 5 + 5));
        }
    }
    let mut late = context(1, LogIndex(last.0 + 1), Consistency::ReadYourWrites);
    late.deadline = Instant::now() + Duration::from_millis(100);
    let answer = cluster.node(1).count(CountRequest { context: late, filter: None }).await.remove(0);
    assert!(matches!(answer.result, Err(Error::Timeout(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_answer_every_query_of_every_shard() {
    let cluster = Cluster::start(1).await;
    cluster.make_shard(1).await;
    cluster.make_shard(2).await;
    cluster.write(upsert(1, 0..50)).await.unwrap();
    cluster.write(upsert(2, 50..100)).await.unwrap();
    let mut context = context(1, LogIndex(0), Consistency::Linearizable);
    context.shards = vec![(ShardId(2), LogIndex(0)), (ShardId(9), LogIndex(0)), (ShardId(1), LogIndex(0))];
    let queries = Arc::new((0..30).map(|i| nearest(i as f32, 2)).collect::<Vec<_>>());
    let answers = cluster.node(0).search(SearchRequest { context, queries }).await;
    assert_eq!(answers.iter().map(|a| a.shard.0).collect::<Vec<_>>(), [2, 9, 1]);
    assert!(matches!(answers[1].result, Err(Error::NoSuchShard(ShardId(9)))));
    let hits = answers[2].result.as_ref().unwrap();
    assert_eq!(hits.len(), 30);
    for (i, hits) in hits.iter().enumerate() {
        assert_eq!(hits[0].id, PointId::Num(i as u64));
        assert_eq!(hits.len(), 2);
    }
    assert!(answers[0].result.as_ref().unwrap().iter().all(|hits| hits[0].id == PointId::Num(50)));
    let status = cluster.node(0).status().await.unwrap();
    assert!(status.replicas.iter().all(|replica| replica.searches == 30), "they are counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_reads_run_where_they_arrive_and_others_wait_for_a_thread() {
    let cluster = Cluster::start(1).await;
    cluster.make_shard(1).await;
    let floor = cluster.write(upsert(1, 0..50)).await.unwrap().index;
    let node = cluster.node(0);
    let search = async |exact: bool, patience: u64| {
        let mut context = context(1, floor, Consistency::ReadYourWrites);
        context.deadline = Instant::now() + Duration::from_millis(patience);
        let queries = Arc::new(vec![SearchQuery { exact, ..nearest(7.0, 2) }]);
        node.search(SearchRequest { context, queries }).await.remove(0).result.map(|hits| hits[0][0].id)
    };
    let look_up = async |patience: u64| {
        let mut context = context(1, floor, Consistency::ReadYourWrites);
        context.deadline = Instant::now() + Duration::from_millis(patience);
        let (ids, parts) = (Arc::new(vec![PointId::Num(7)]), PointParts::default());
        node.retrieve(RetrieveRequest { context, ids, parts }).await.remove(0).result.map(|points| points[0].id)
    };
    let group = node.group(ShardId(1)).unwrap();
    let is_known = || {
        let paces = group.shard().paces();
        let expected = [paces.search.expected(2), paces.retrieve.expected(1)];
        expected.iter().all(|expected| expected.is_some_and(|expected| expected < Duration::from_micros(100)))
    };
    // Bounded; one read that the machine held up keeps the pace slow for a while.
    for _ in 0..10_000 {
        // Reads that come one on the other go to the threads.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(search(false, 10_000).await, Ok(PointId::Num(7)));
        assert_eq!(look_up(10_000).await, Ok(PointId::Num(7)));
        if is_known() {
            break;
        }
    }
    assert!(is_known());
    // Now no thread is free.
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let hold = Arc::new(parking_lot::Mutex::new(hold));
    let pool = node.env.search.clone();
    let far = Instant::now() + Duration::from_secs(60);
    let busy: Vec<_> = (0..pool.threads())
        .map(|_| {
            let (pool, hold) = (pool.clone(), hold.clone());
            tokio::spawn(async move { pool.run(far, move || Ok(hold.lock().recv().is_ok())).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(search(true, 200).await, Err(Error::Timeout(_))), "its cost is not known");
    assert_eq!(search(false, 10_000).await, Ok(PointId::Num(7)));
    assert_eq!(look_up(10_000).await, Ok(PointId::Num(7)));
    for _ in 0..1_000 {
        node.env.search.is_calm();
    }
    assert!(matches!(search(false, 200).await, Err(Error::Timeout(_))), "in a rush it waits for a thread");
    for _ in &busy {
        release.send(()).unwrap();
    }
    for job in busy {
        assert!(job.await.unwrap().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leads_when_the_leader_goes_and_a_retry_is_applied_once() {
    let mut cluster = Cluster::start(3).await;
    cluster.make_shard(1).await;
    let request = upsert(1, 0..10);
    let first = cluster.write(request.clone()).await.unwrap();
    for orderly in [true, false] {
        let old = cluster.leader(1).await.unwrap();
        let follower = (old + 1) % 3;
        let wrong = cluster.node(follower).write(upsert(1, 0..1)).await;
        let leader = cluster.node(old).id();
        assert!(matches!(wrong, Err(Error::WrongLeader { hint, .. }) if hint == Some(leader)), "{wrong:?}");
        match orderly {
            true => cluster.stop(old).await,
            false => cluster.crash(old).await,
        }
        let again = cluster.write(request.clone()).await.unwrap();
        assert_eq!((again.index, again.effect.affected), (first.index, first.effect.affected), "applied once");
        assert!(again.term >= first.term);
        let more = cluster.write(upsert(1, 10..20)).await.unwrap();
        assert!(more.index > first.index);
        cluster.restart(old).await;
        for node in 0..3 {
            assert_eq!(count(cluster.node(node), 1, more.index).await, Ok(20));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linearizable_reads_are_the_leaders() {
    let mut cluster = Cluster::start(3).await;
    cluster.make_shard(1).await;
    cluster.write(upsert(1, 0..10)).await.unwrap();
    let leader = cluster.leader(1).await.unwrap();
    let read = |context| CountRequest { context, filter: None };
    let strong = || context(1, LogIndex(0), Consistency::Linearizable);
    assert_eq!(cluster.node(leader).count(read(strong())).await.remove(0).result, Ok(10));
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let answer = cluster.node(other).count(read(strong())).await.remove(0).result;
    assert!(matches!(answer, Err(Error::WrongLeader { hint: Some(_), .. })), "{answer:?}");
    // Without a majority nobody answers such a read, however sure it is of itself.
    cluster.crash(other).await;
    cluster.crash(third).await;
    let mut context = strong();
    context.deadline = Instant::now() + Duration::from_secs(3);
    let answer = cluster.node(leader).count(read(context)).await.remove(0).result;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(count(cluster.node(leader), 1, LogIndex(0)).await, Ok(10), "a read of any replica goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_missed_purged_entries_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |options| options.group.keep_bytes_max = 0).await;
    cluster.make_shard(1).await;
    cluster.write(upsert(1, 0..10)).await.unwrap();
    let down = (cluster.leader(1).await.unwrap() + 1) % 3;
    cluster.crash(down).await;
    let mut last = LogIndex(0);
    for i in 1..30 {
        last = cluster.write(upsert(1, i * 100..i * 100 + 100)).await.unwrap().index;
    }
    let leader = cluster.leader(1).await.unwrap();
    for i in (0..3).filter(|i| *i != down) {
        let group = cluster.node(i).group(ShardId(1)).unwrap();
        let shard = group.shard().clone();
        tokio::task::spawn_blocking(move || shard.flush_blocking()).await.unwrap().unwrap();
        until("the purge", async || group.log().bounds().unwrap().first > last.0).await;
    }
    cluster.restart(down).await;
    until("the snapshot", async || count(cluster.node(down), 1, last).await == Ok(2_910)).await;
    assert_eq!(ids(cluster.node(down), 1, last, 0..10).await, (0..10).collect::<Vec<_>>());
    let next = cluster.write(upsert(1, 5_000..5_010)).await.unwrap();
    assert_eq!(count(cluster.node(down), 1, next.index).await, Ok(2_920));
    // The installed state is durable.
    cluster.crash(down).await;
    cluster.disks[down].reboot();
    cluster.restart(down).await;
    assert_eq!(count(cluster.node(down), 1, next.index).await, Ok(2_920));
    assert!(cluster.leader(1).await.is_some_and(|now| now == leader || now != down));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leads_when_the_leaders_shard_fails_and_its_reads_go_on() {
    let mut cluster = Cluster::start(3).await;
    cluster.make_shard(1).await;
    let ack = cluster.write(upsert(1, 0..10)).await.unwrap();
    // The committed position is saved a second later: no sync of the log may meet the fault.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let broken = cluster.leader(1).await.unwrap();
    let shard = cluster.node(broken).group(ShardId(1)).unwrap().shard().clone();
    cluster.disks[broken].inject(Fault::SyncError { syncs: cluster.disks[broken].syncs() }).unwrap();
    tokio::task::spawn_blocking(move || shard.flush_blocking()).await.unwrap().unwrap_err();
    until("another leader", async || cluster.leader(1).await.is_some_and(|now| now != broken)).await;
    until("a write", async || {
        let Some(leader) = cluster.leader(1).await else { return false };
        let mut request = upsert(1, 10..20);
        request.deadline = Instant::now() + Duration::from_secs(2);
        cluster.node(leader).write(request).await.is_ok()
    })
    .await;
    assert_eq!(count(cluster.node(broken), 1, ack.index).await, Ok(10), "what it holds can be read");
    let status = cluster.node(broken).status().await.unwrap();
    assert!(status.replicas[0].failed.as_ref().unwrap().contains("cannot seal"), "{status:?}");
    cluster.crash(broken).await;
    cluster.restart(broken).await;
    until("it catches up", async || count(cluster.node(broken), 1, LogIndex(0)).await == Ok(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_leaves_time_to_ask_another() {
    let cluster = Cluster::start(3).await;
    cluster.make_shard(1).await;
    let ack = cluster.write(upsert(1, 0..10)).await.unwrap();
    let began = Instant::now();
    let answer = count(cluster.node(1), 1, LogIndex(ack.index.0 + 1_000)).await;
    assert!(matches!(answer, Err(Error::Timeout(_))), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "the deadline is 20 s away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_and_routing_are_honoured() {
    let mut cluster = Cluster::start(3).await;
    cluster.make_shard(1).await;
    cluster.write(upsert(1, 0..10)).await.unwrap();
    let leader = cluster.leader(1).await.unwrap();
    let mut stale = upsert(1, 0..1);
    stale.epoch = Epoch(0);
    assert!(matches!(cluster.node(leader).write(stale).await, Err(Error::WrongEpoch { .. })));
    for i in (0..3).filter(|i| *i != leader) {
        cluster.crash(i).await;
    }
    let mut request = upsert(1, 10..20);
    let began = Instant::now();
    request.deadline = began + Duration::from_millis(300);
    let late = cluster.node(leader).write(request).await;
    assert!(matches!(late, Err(Error::Timeout(_) | Error::WrongLeader { .. })), "{late:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_shards_answer_by_the_maps_they_know() {
    let cluster = Cluster::start(3).await;
    let voters = cluster.nodes.iter().flatten().map(|node| (node.id(), node.address().clone())).collect();
    for node in cluster.nodes.iter().flatten() {
        node.create_replica(ReplicaSpec { role: ShardRole::Search, ..spec(1) }).await.unwrap();
    }
    cluster.node(0).found_group(FoundGroup { shard: ShardId(1), voters }).await.unwrap();
    until("a first leader", async || cluster.leader(1).await.is_some()).await;

    let search = async |node: usize, map: u64, floor: LogIndex| {
        let mut context = context(1, floor, Consistency::ReadYourWrites);
        context.epoch = Epoch(map);
        let queries = Arc::new(vec![nearest(5.0, 1)]);
        let answer = cluster.node(node).search(SearchRequest { context, queries }).await.remove(0);
        answer.result.map(|hits| hits[0].iter().map(|hit| (hit.id, hit.version)).collect::<Vec<_>>())
    };
    let raise = async |oldest: u64, newest: u64| {
        let (oldest, newest) = (MapVersion(oldest), MapVersion(newest));
        let mut request = write_of(1, WriteOp::Maps(MapRange { oldest, newest }));
        request.epoch = Epoch(99);
        cluster.write(request).await.unwrap().index
    };
    let wrong = |asked: u64, current: u64| {
        Err(Error::WrongEpoch { shard: ShardId(1), asked: Epoch(asked), current: Epoch(current) })
    };
    assert_eq!(search(0, 7, LogIndex(0)).await, wrong(7, 0));
    raise(7, 8).await;
    let points = vec![Copy { version: LogIndex(4_000), point: point(5) }];
    let copies = Arc::new(Copies { points, ..Copies::default() });
    let floor = cluster.write(write_of(1, WriteOp::Copies(copies.clone()))).await.unwrap().index;
    let hit = vec![(PointId::Num(5), LogIndex(4_000))];
    for node in 0..3 {
        assert_eq!(search(node, 7, floor).await, Ok(hit.clone()), "the version is that of the home shard");
        assert_eq!(search(node, 6, floor).await, wrong(6, 7));
    }
    // The floor makes each replica wait for a map that it may not know yet, and for the end of one.
    let floor = raise(8, 9).await;
    for node in 0..3 {
        assert_eq!(search(node, 9, floor).await, Ok(hit.clone()));
        assert_eq!(search(node, 7, floor).await, wrong(7, 8));
        assert_eq!(search(node, 10, floor).await, wrong(10, 9));
    }
    let again = cluster.write(write_of(1, WriteOp::Copies(copies))).await.unwrap();
    assert_eq!(again.effect.affected, 0);
    let refused = cluster.write(upsert(1, 0..1)).await;
    assert!(matches!(refused, Err(Error::BadInput(_))), "{refused:?}");
}
