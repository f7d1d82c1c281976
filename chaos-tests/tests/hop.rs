//! The hop between a coordinator and shard nodes over real HTTP: every operation answers over the wire what it answers
//! to a direct call, and raft groups live on it.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod hop {
    pub(super) mod nodes;
}

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vicinal_common::api::{
    ChangeMembers, CountRequest, DigestRequest, FoundGroup, MembersChange, RemoteNode, RetrieveRequest, ScrollOrder,
    ScrollRequest, SearchRequest, ShardApi, VectorSelector, WriteOp,
};
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::ids::{LogIndex, NodeId, ShardId};
use vicinal_common::point::PointId;

use hop::nodes::*;

const SHARD: ShardId = ShardId(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_answers_over_the_wire_as_directly() {
    let nodes = Nodes::start(2).await;
    let (direct, remote) = (&nodes.direct, &nodes.remote);
    for remote in remote {
        remote.create_replica(spec(SHARD)).await.unwrap();
        remote.create_replica(spec(SHARD)).await.unwrap();
    }
    let voters = nodes.members(&[0, 1]);
    remote[0].found_group(FoundGroup { shard: SHARD, voters: voters.clone() }).await.unwrap();
    let leader = nodes.leader(SHARD).await;
    let follower = 1 - leader;

    let ack = remote[leader].write(upsert(SHARD, 0..500)).await.unwrap();
    assert_eq!(ack.effect.affected, 500);
    let wrong = remote[follower].write(upsert(SHARD, 0..1)).await;
    let hint = Some(direct[leader].id());
    assert!(matches!(wrong, Err(Error::WrongLeader { hint: h, .. }) if h == hint), "{wrong:?}");
    let once = upsert(SHARD, 500..501);
    let first = remote[leader].write(once.clone()).await.unwrap();
    assert_eq!(remote[leader].write(once).await.unwrap(), first, "applied once");
    let by_filter = delete_by_filter(SHARD, r#"{"must":[{"key":"n","match":{"value":7}}]}"#);
    assert_eq!(remote[leader].write(by_filter).await.unwrap().effect.affected, 1);
    remote[leader].write(write_of(SHARD, WriteOp::Delete(vec![PointId::Num(8)]))).await.unwrap();
    for (op, effect) in changes() {
        assert_eq!(remote[leader].write(write_of(SHARD, op)).await.unwrap().effect, effect);
    }
    let last = remote[leader].write(write_of(SHARD, WriteOp::Delete(Vec::new()))).await.unwrap().index;

    let filter = Filter::parse(&serde_json::json!({"must": [{"key": "n", "range": {"gte": 5, "lt": 20}}]})).unwrap();
    let filter = Some(Arc::new(filter));
    for node in 0..2 {
        // The follower answers once it has applied the floor.
        let context = || self::hop::nodes::context(&[(SHARD, last), (ShardId(99), LogIndex(0))]);
        let queries: Vec<_> = (0..20).map(|n| nearest(n as f32, 5, filter.clone().filter(|_| n % 2 == 0))).collect();
        let search = SearchRequest { context: context(), queries: Arc::new(queries) };
        let over = remote[node].search(search.clone()).await;
        assert_same(&over, &direct[node].search(search).await);
        assert_eq!(over[0].result.as_ref().unwrap()[9][0].id, PointId::Num(9));
        assert_eq!(over[1].result, Err(Error::NoSuchShard(ShardId(99))));

        let ids = Arc::new((0..30).map(PointId::Num).collect());
        let retrieve = RetrieveRequest { context: context(), ids, parts: everything() };
        let over = remote[node].retrieve(retrieve.clone()).await;
        assert_same(&over, &direct[node].retrieve(retrieve).await);
        assert_eq!(over[0].result.as_ref().unwrap().len(), 28);
        assert_eq!(over[0].result.as_ref().unwrap()[0].vectors[""].dense().unwrap().len(), DIM);

        let mut parts = everything();
        parts.vectors = VectorSelector::Named(vec![String::new()]);
        let scroll = ScrollRequest {
            context: context(),
            order: ScrollOrder::Id { from: Some(PointId::Num(6)) },
            limit: 4,
            filter: filter.clone(),
            parts,
        };
        let over = remote[node].scroll(scroll.clone()).await;
        assert_same(&over, &direct[node].scroll(scroll).await);
        assert_eq!(
            over[0].result.as_ref().unwrap().iter().map(|p| p.id).collect::<Vec<_>>(),
            [6, 9, 10, 11].map(PointId::Num)
        );

        let count = CountRequest { context: context(), filter: filter.clone() };
        let over = remote[node].count(count.clone()).await;
        assert_same(&over, &direct[node].count(count).await);
        assert_eq!(over[0].result, Ok(13));

        let digest = DigestRequest { context: context() };
        assert_same(&remote[node].digest(digest.clone()).await, &direct[node].digest(digest).await);

        let (over, here) = (remote[node].status().await.unwrap(), direct[node].status().await.unwrap());
        assert_eq!(over.node, here.node);
        assert_eq!(over.replicas[0].voters, voters);
    }

    let alone = ChangeMembers {
        shard: SHARD,
        voters: nodes.members(&[leader]),
        learners: BTreeMap::new(),
        filled: BTreeSet::new(),
    };
    let wrong = remote[follower].change_members(alone.clone()).await;
    assert!(matches!(wrong, Err(Error::WrongLeader { .. })), "{wrong:?}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while remote[leader].change_members(alone.clone()).await != Ok(MembersChange::Done) {
        assert!(Instant::now() < deadline, "the follower was not let go");
        sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..2 {
        remote[follower].drop_replica(SHARD).await.unwrap();
    }
    assert!(remote[follower].status().await.unwrap().replicas.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_write_and_a_large_page_fit() {
    let nodes = Nodes::start(1).await;
    let remote = &nodes.remote[0];
    remote.create_replica(spec(SHARD)).await.unwrap();
    remote.found_group(FoundGroup { shard: SHARD, voters: nodes.members(&[0]) }).await.unwrap();
    nodes.leader(SHARD).await;
    let mut last = LogIndex(0);
    for part in 0..6u64 {
        // Seven payloads of a megabyte: nearly the largest command there is.
        let points = (0..7).map(|n| heavy_point(part * 7 + n, 1 << 20)).collect();
        last = remote.write(write_of(SHARD, WriteOp::Upsert(Arc::new(points)))).await.unwrap().index;
    }
    let context = context(&[(SHARD, last)]);
    let scroll =
        ScrollRequest { context, order: ScrollOrder::Id { from: None }, limit: 100, filter: None, parts: everything() };
    let page = remote.scroll(scroll).await.remove(0).result.unwrap();
    assert_eq!(page.len(), 42);
    assert!(page.iter().all(|point| point.payload.as_bytes().len() > 1 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_was_given_to_another_node_is_noticed() {
    let mut nodes = Nodes::start(1).await;
    let stranger = RemoteNode::new(NodeId(12345), nodes.direct[0].address().clone(), nodes.transport.clone());
    let refused = stranger.create_replica(spec(SHARD)).await;
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("meant for node 12345")), "{refused:?}");
    assert!(nodes.remote[0].status().await.unwrap().replicas.is_empty(), "nothing was begun");
    let answers = stranger.count(CountRequest { context: context(&[(SHARD, LogIndex(0))]), filter: None }).await;
    assert!(matches!(answers[0].result, Err(Error::Unavailable(_))));

    nodes.stop(0).await;
    // A kept connection that breaks under a request leaves open whether it was carried out, which is an answer of its
    // own. It goes to nobody twice: once those are used up, nothing can have been carried out.
    let mut away = nodes.remote[0].status().await;
    for _ in 0..4 {
        let Err(Error::Unavailable(why)) = &away else { panic!("{away:?}") };
        if !why.contains("which it may have carried out") {
            break;
        }
        away = nodes.remote[0].status().await;
    }
    assert!(matches!(&away, Err(Error::Unavailable(why)) if why.contains("cannot be reached")), "{away:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_kept_on_the_other_side() {
    let nodes = Nodes::start(1).await;
    let remote = &nodes.remote[0];
    remote.create_replica(spec(SHARD)).await.unwrap();
    remote.found_group(FoundGroup { shard: SHARD, voters: nodes.members(&[0]) }).await.unwrap();
    nodes.leader(SHARD).await;
    // A floor that is never reached: the node gives up by itself and says so.
    let mut context = context(&[(SHARD, LogIndex(1_000_000))]);
    let began = Instant::now();
    context.deadline = began + Duration::from_millis(300);
    let answer = remote.count(CountRequest { context, filter: None }).await.remove(0).result;
    assert!(matches!(&answer, Err(Error::Timeout(_))), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// Not a test: prints what one hop costs. `cargo test --release -p vicinal-chaos-tests --test hop -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_the_hop_costs() {
    let nodes = Nodes::start(1).await;
    let (direct, remote) = (&nodes.direct[0], &nodes.remote[0]);
    remote.create_replica(spec(SHARD)).await.unwrap();
    remote.found_group(FoundGroup { shard: SHARD, voters: nodes.members(&[0]) }).await.unwrap();
    nodes.leader(SHARD).await;
    remote.write(upsert(SHARD, 0..100)).await.unwrap();
    let mut costs = BTreeMap::new();
    for round in 0..2 {
        for (name, api) in [("direct", direct.as_ref() as &dyn ShardApi), ("over HTTP", remote as &dyn ShardApi)] {
            let mut micros: Vec<u128> = Vec::new();
            for n in 0..5_000 {
                let queries = Arc::new(vec![nearest(n as f32 % 100.0, 10, None)]);
                let request = SearchRequest { context: context(&[(SHARD, LogIndex(0))]), queries };
                let began = Instant::now();
                let answers = api.search(request).await;
                micros.push(began.elapsed().as_micros());
                assert!(answers[0].result.is_ok());
            }
            micros.sort_unstable();
            costs.insert((round, name), (micros[2_500], micros[4_950]));
        }
    }
    for ((round, name), (median, late)) in costs {
        eprintln!("round {round}, a search {name}: median {median} us, 99th percentile {late} us");
    }
}
