//! Reads of a cluster in which a node is dead, paused, slow, behind or overloaded.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use vicinal_common::api::{ReadContext, ShardAnswer};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Result;
use vicinal_common::ids::{NodeId, RequestId, ShardId};

use super::*;
use crate::meta::Routing;
use crate::model::{ModelCluster, nodes};
use crate::session::Session;
use crate::shards::ShardAccess;
use crate::write::{WriteSpec, upsert};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn spec(session: &Session, millis: u64) -> ReadSpec<'_> {
    ReadSpec { consistency: Consistency::ReadYourWrites, deadline: Instant::now() + ms(millis), session }
}

/// Points 0..count over three nodes with three replicas of each shard; the floors are known.
async fn filled(shards: u64, count: u64) -> ModelCluster {
    let cluster = ModelCluster::new(shards, 3);
    write(&cluster, 1, count, &Session::default()).await;
    cluster
}

async fn write(cluster: &ModelCluster, request: u128, count: u64, session: &Session) {
    let spec = WriteSpec { request: RequestId(request), deadline: Instant::now() + ms(5_000), session };
    upsert(&cluster.access, &cluster.lookup(), spec, ModelCluster::points(count)).await.unwrap();
}

/// Counts all points; an error when a shard is missing.
async fn count_all(access: &ShardAccess, cluster: &ModelCluster, spec: ReadSpec<'_>) -> Result<u64> {
    let (count, coverage) = count(access, &cluster.lookup(), spec, None).await?;
    coverage.check(false).map(|()| count)
}

async fn plain(cluster: &ModelCluster, millis: u64) -> Result<u64> {
    count_all(&cluster.access, cluster, spec(&Session::default(), millis)).await
}

async fn linearizable(cluster: &ModelCluster, millis: u64) -> Result<u64> {
    let session = Session::default();
    let spec = ReadSpec { consistency: Consistency::Linearizable, ..spec(&session, millis) };
    count_all(&cluster.access, cluster, spec).await
}

fn lead(cluster: &ModelCluster, leader: Option<u64>, term: u64) {
    for shard in cluster.model.lock().shards.values_mut() {
        (shard.leader, shard.term) = (leader.map(NodeId), term);
    }
}

fn elect_later(cluster: &ModelCluster, after: Duration, leader: u64) {
    let model = cluster.model.clone();
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        for shard in model.lock().shards.values_mut() {
            (shard.leader, shard.term) = (Some(NodeId(leader)), 2);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_paused_node_costs_a_few_reads_an_attempt_and_then_nothing() {
    let cluster = filled(3, 30).await;
    cluster.model.lock().hanging.insert(NodeId(2));
    let began = Instant::now();
    let mut slowest_of_the_last = Duration::ZERO;
    for read in 0..40 {
        let began = Instant::now();
        assert_eq!(plain(&cluster, 20_000).await, Ok(30));
        assert!(began.elapsed() < ms(3_000), "an attempt must not eat the deadline");
        if read >= 30 {
            slowest_of_the_last = slowest_of_the_last.max(began.elapsed());
        }
    }
    assert!(began.elapsed() < ms(8_000), "{:?}", began.elapsed());
    assert!(slowest_of_the_last < ms(90), "nobody waits for it any more: {slowest_of_the_last:?}");
    assert!(cluster.access.health.counters().hedges_sent() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_given_up_and_found_again_when_it_is_back() {
    let cluster = filled(3, 30).await;
    cluster.model.lock().dead.insert(NodeId(2));
    for _ in 0..40 {
        assert_eq!(plain(&cluster, 20_000).await, Ok(30));
    }
    let counters = cluster.access.health.counters();
    assert!(counters.retries() <= 6, "{:?}", counters.all());
    // With three failures in a row the breaker opens; a refusal spares the replica for a second before that.
    for _ in 0..2 {
        tokio::time::sleep(ms(1_050)).await;
        for _ in 0..5 {
            assert_eq!(plain(&cluster, 20_000).await, Ok(30));
        }
    }
    assert_eq!(counters.breaker_openings(), 1, "{:?}", counters.all());
    cluster.model.lock().dead.clear();
    tokio::time::sleep(ms(1_050)).await;
    assert_eq!(plain(&cluster, 20_000).await, Ok(30));
    // The probe answers while nobody waits for it.
    tokio::time::sleep(ms(50)).await;
    assert!(counters.probes() >= 1);
    cluster.model.lock().reads.clear();
    for _ in 0..20 {
        assert_eq!(plain(&cluster, 20_000).await, Ok(30));
    }
    let reads = cluster.model.lock().reads.clone();
    assert!(reads.contains_key(&NodeId(2)), "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_is_hedged_within_the_budget() {
    let cluster = filled(2, 10).await;
    for _ in 0..100 {
        plain(&cluster, 5_000).await.unwrap();
    }
    let counters = cluster.access.health.counters();
    let (sent, won) = (counters.hedges_sent(), counters.hedges_won());
    cluster.model.lock().slow.insert(NodeId(1), ms(400));
    let (mut reads, mut slow) = (0, 0);
    // A node that looked slow already is not asked at first: that fades.
    while counters.hedges_won() == won && reads < 1_000 {
        let began = Instant::now();
        plain(&cluster, 5_000).await.unwrap();
        slow += u32::from(began.elapsed() >= ms(400));
        reads += 1;
        tokio::time::sleep(ms(10)).await;
    }
    assert_eq!(slow, 0, "hedges, and then other choices, keep the reads fast");
    assert!(counters.hedges_won() > won, "after {reads} reads: {:?}", counters.all());
    assert!(counters.hedges_sent() - sent <= 10 + (100 + reads) / 20);
}

#[tokio::test(start_paused = true)]
async fn few_requests_and_nodes_take_turns() {
    let cluster = filled(6, 30).await;
    let before = cluster.model.lock().calls;
    for _ in 0..30 {
        plain(&cluster, 5_000).await.unwrap();
    }
    let calls = cluster.model.lock().calls - before;
    let reads = cluster.model.lock().reads.clone();
    assert!(calls <= 36, "one node answers for all six shards: {calls} calls");
    assert!(reads.len() == 3, "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn linearizable_reads_wait_for_an_election_and_are_never_hedged() {
    // The leader is gone without a trace; dead, while the others still point at it; paused.
    for fault in 0..3 {
        let cluster = filled(2, 10).await;
        assert_eq!(linearizable(&cluster, 5_000).await, Ok(10));
        lead(&cluster, if fault == 0 { None } else { Some(1) }, 1);
        match fault {
            1 => drop(cluster.model.lock().dead.insert(NodeId(1))),
            2 => drop(cluster.model.lock().hanging.insert(NodeId(1))),
            _ => {}
        }
        elect_later(&cluster, ms(900), 2);
        let began = Instant::now();
        assert_eq!(linearizable(&cluster, 10_000).await, Ok(10), "fault {fault}");
        assert!(began.elapsed() < ms(2_500), "fault {fault}: {:?}", began.elapsed());
        assert_eq!(cluster.access.health.counters().hedges_sent(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_finds_no_leader_is_named_before_the_deadline() {
    let cluster = filled(1, 5).await;
    lead(&cluster, None, 2);
    let began = Instant::now();
    let error = linearizable(&cluster, 60_000).await.unwrap_err();
    assert!(error.http_status() == 503 && error.to_string().contains("shard 0 has no leader"), "{error}");
    assert!((ms(4_000)..ms(8_000)).contains(&began.elapsed()));
    assert_eq!(plain(&cluster, 5_000).await, Ok(5), "a read with a floor needs none");
}

#[tokio::test(start_paused = true)]
async fn a_new_coordinator_asks_the_leader_once() {
    let cluster = filled(1, 10).await;
    let access = ShardAccess::new(nodes(&cluster.model));
    lead(&cluster, Some(3), 1);
    cluster.model.lock().behind.extend([(NodeId(1), 1), (NodeId(2), 1)]);
    let read = || async { count_all(&access, &cluster, spec(&Session::default(), 5_000)).await };
    assert_eq!(read().await, Ok(10), "only the leader knows of the write");
    assert_eq!(access.floor(ShardId(0)), cluster.access.floor(ShardId(0)));
    cluster.model.lock().behind.clear();
    lead(&cluster, None, 2);
    assert_eq!(read().await, Ok(10));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_as_good_as_a_leader() {
    let cluster = ModelCluster::new(2, 3);
    let session = Session::default();
    write(&cluster, 1, 10, &session).await;
    let token = session.token().unwrap();
    lead(&cluster, None, 2);
    // A coordinator that has just started, and nobody leads.
    let access = ShardAccess::new(nodes(&cluster.model));
    let shown = Session::parse(&token).unwrap();
    assert_eq!(count_all(&access, &cluster, spec(&shown, 3_000)).await, Ok(10));
    assert_eq!(shown.token(), Some(token.clone()));
    assert_eq!(access.floor(ShardId(0)), None, "a token is no reason to trust replicas for other clients");
    let without = count_all(&access, &cluster, spec(&Session::default(), 300)).await;
    assert_eq!(without.unwrap_err().http_status(), 503);
    // Replicas that are behind what the client has seen must catch up first.
    cluster.model.lock().behind.extend((1..=3).map(|node| (NodeId(node), 1)));
    let shown = Session::parse(&token).unwrap();
    assert!(count_all(&access, &cluster, spec(&shown, 300)).await.is_err());
    let other = ModelCluster::new(2, 3);
    let mut collection = (*other.collection).clone();
    collection.id = vicinal_common::ids::CollectionId(uuid::Uuid::from_u128(8));
    let shown = Session::parse(&token).unwrap();
    shown.enter(&collection);
    assert_eq!(shown.floor(ShardId(0)), None, "a token of another collection says nothing");
}

#[tokio::test(start_paused = true)]
async fn overload_leads_elsewhere_and_is_told_when_it_is_everywhere() {
    let cluster = filled(2, 10).await;
    cluster.model.lock().overloaded.extend([NodeId(1), NodeId(3)]);
    for _ in 0..10 {
        assert_eq!(plain(&cluster, 5_000).await, Ok(10));
    }
    cluster.model.lock().overloaded.insert(NodeId(2));
    let began = Instant::now();
    assert_eq!(plain(&cluster, 5_000).await.unwrap_err().http_status(), 429);
    assert!(began.elapsed() < ms(500), "nobody is pressed");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_still_counts_when_it_comes_first() {
    let cluster = filled(1, 10).await;
    cluster.model.lock().slow.extend([(NodeId(1), ms(1_500)), (NodeId(2), ms(1_500)), (NodeId(3), ms(9_000))]);
    let began = Instant::now();
    assert_eq!(plain(&cluster, 20_000).await, Ok(10));
    assert!(began.elapsed() < ms(3_000), "{:?}", began.elapsed());
}

/// The first replica of each shard votes, the others do not.
fn with_learners(mut cluster: ModelCluster) -> ModelCluster {
    let collection = std::sync::Arc::make_mut(&mut cluster.collection);
    collection.routing = Routing::Replicate;
    for shard in &mut collection.shards {
        shard.learners = shard.replicas.split_off(1);
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn learners_take_their_share_of_reads_unless_they_are_far_behind() {
    let cluster = with_learners(filled(1, 10).await);
    let reads_of = async |n: usize| {
        cluster.model.lock().reads.clear();
        for _ in 0..n {
            assert_eq!(plain(&cluster, 5_000).await, Ok(10));
        }
        cluster.model.lock().reads.clone()
    };
    let reads = reads_of(30).await;
    assert_eq!(reads.len(), 3, "{reads:?}");
    let shard = ShardId(0);
    cluster.access.note_applied(shard, NodeId(1), vicinal_common::ids::LogIndex(50_000));
    cluster.access.note_applied(shard, NodeId(2), vicinal_common::ids::LogIndex(1));
    let reads = reads_of(30).await;
    assert!(reads.len() == 2 && !reads.contains_key(&NodeId(2)), "{reads:?}");
    // Better than none.
    cluster.model.lock().dead.extend([NodeId(1), NodeId(3)]);
    assert_eq!(plain(&cluster, 5_000).await, Ok(10));
}

#[tokio::test(start_paused = true)]
async fn a_new_coordinator_trusts_no_learner_and_no_only_voter() {
    let cluster = with_learners(filled(1, 10).await);
    let access = ShardAccess::new(nodes(&cluster.model));
    cluster.model.lock().behind.extend([(NodeId(2), 1), (NodeId(3), 1)]);
    let count = count_all(&access, &cluster, spec(&Session::default(), 5_000)).await;
    assert_eq!(count, Ok(10), "only the voter knows of the write");
    assert_eq!(access.floor(ShardId(0)), cluster.access.floor(ShardId(0)));
    // The metadata is old: others have got votes, and another one leads.
    let mut cluster = cluster;
    for shard in &mut std::sync::Arc::make_mut(&mut cluster.collection).shards {
        shard.learners.clear();
    }
    lead(&cluster, Some(2), 2);
    cluster.model.lock().behind = [(NodeId(1), 1)].into();
    let access = ShardAccess::new(nodes(&cluster.model));
    let count = count_all(&access, &cluster, spec(&Session::default(), 300)).await;
    assert!(count.is_err(), "an answer would be too old: {count:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_the_metadata_takes_for_a_learner_is_written_to() {
    let cluster = with_learners(filled(1, 10).await);
    lead(&cluster, Some(3), 2);
    write(&cluster, 2, 20, &Session::default()).await;
    assert_eq!(plain(&cluster, 5_000).await, Ok(20));
}

/// What may be wrong with one node of three.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Dead,
    Paused,
    Slow,
    Behind,
    Overloaded,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn one_node_in_trouble_never_fails_a_read_or_hides_a_write(
        fault in proptest::sample::select(vec![Fault::Dead, Fault::Paused, Fault::Slow, Fault::Behind, Fault::Overloaded]),
        node in 1u64..4,
        shards in 1u64..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = filled(shards, 10).await;
            let node = NodeId(node);
            {
                let mut model = cluster.model.lock();
                match fault {
                    Fault::Dead => drop(model.dead.insert(node)),
                    Fault::Paused => drop(model.hanging.insert(node)),
                    Fault::Slow => drop(model.slow.insert(node, ms(700))),
                    Fault::Behind => drop(model.behind.insert(node, 1)),
                    Fault::Overloaded => drop(model.overloaded.insert(node)),
                }
                // Somebody else leads by now.
                for shard in model.shards.values_mut().filter(|shard| shard.leader == Some(node)) {
                    (shard.leader, shard.term) = (Some(NodeId(node.0 % 3 + 1)), 2);
                }
            }
            for count in 11..15 {
                write(&cluster, u128::from(count), count, &Session::default()).await;
                assert_eq!(plain(&cluster, 10_000).await, Ok(count));
            }
            assert_eq!(linearizable(&cluster, 10_000).await, Ok(14));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_some_shards_goes_on_elsewhere() {
    let cluster = filled(3, 30).await;
    let asked = std::sync::Mutex::new(Vec::new());
    let shards: Vec<ShardId> = cluster.collection.shard_ids().collect();
    let session = Session::default();
    let effort = Effort { kind: crate::shard_client::WorkKind::Count, units: 1 };
    let gathered =
        scatter(&cluster.access, &cluster.collection, spec(&session, 2_000), effort, &shards, |_, context| {
            let mut asked = asked.lock().unwrap();
            asked.push(context.shards.len());
            let context: ReadContext = context;
            let first = context.shards.first().copied();
            async move {
                let answer = |(shard, floor)| ShardAnswer { shard, applied: floor, result: Ok(1u64) };
                first.map(answer).into_iter().collect::<Vec<_>>()
            }
        });
    let gathered = gathered.await;
    assert!(gathered.coverage.is_complete(), "{:?}", gathered.coverage);
    assert_eq!(*asked.lock().unwrap(), [3, 2, 1]);
}
