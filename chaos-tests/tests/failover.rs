//! How long a shard without its leader refuses writes, and that reads do not notice.
//!
//! `FAILOVER_KILLS=30` measures more often.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use vicinal_chaos_tests::check::{self, Report};
use vicinal_chaos_tests::cluster::{Cluster, ClusterOptions, CollectionOptions, ReplicaView};
use vicinal_chaos_tests::op::{Operation, Record, Version};
use vicinal_chaos_tests::workload::Load;
use vicinal_chaos_tests::{Client, Route, Site};

const COLLECTION: &str = "failover";
const SHARDS: usize = 4;
const REPLICAS: usize = 3;
const BASE: u64 = 400;
const KILLS: usize = 5;
const WRITE_EVERY: Duration = Duration::from_millis(40);
/// So many points have one in every shard, all but certainly.
const BATCH: u64 = 40;
/// Nothing takes longer than this, on a machine that runs other tests at the same time.
const RESUME_MAX: Duration = Duration::from_secs(5);
/// What is promised for 99 of 100 times.
const RESUME_P99: Duration = Duration::from_secs(3);
/// From so many kills on a percentile means something.
const KILLS_FOR_P99: usize = 30;
const SETTLE: Duration = Duration::from_secs(40);
/// Readers and the time between two reads of one.
const READERS: usize = 4;
const READ_EVERY: Duration = Duration::from_millis(15);
/// How long the node is there, is away, and is back again.
const PHASES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(7), Duration::from_secs(3)];

/// Two clusters at once are more than two cores carry.
static TURN: Mutex<()> = Mutex::const_new(());

async fn start() -> (MutexGuard<'static, ()>, Cluster, Arc<Site>, Vec<Version>) {
    let turn = TURN.lock().await;
    let cluster = Cluster::start(ClusterOptions { coordinators: 3, nodes: 3 }).await.unwrap();
    let site = cluster.create(COLLECTION, CollectionOptions { shards: SHARDS, replicas: REPLICAS }).await.unwrap();
    let base = Load::base(&site, BASE).await.unwrap();
    cluster.settled_digests(COLLECTION, SHARDS, REPLICAS, SETTLE).await.unwrap();
    (turn, cluster, site, base)
}

/// A node that leads a shard, once all replicas serve.
async fn leading_node(cluster: &Cluster) -> String {
    let ask = async |cluster: &Cluster| cluster.replicas(COLLECTION).await;
    let serves = |replicas: &Vec<ReplicaView>| {
        let leads = replicas.iter().filter(|replica| replica.role == "leader").count();
        leads == SHARDS && replicas.len() == SHARDS * REPLICAS && replicas.iter().all(|r| r.state == "active")
    };
    let replicas = cluster.wait_until("all replicas serve", SETTLE, ask, serves).await.unwrap();
    let leaders: Vec<_> = replicas.iter().filter(|replica| replica.role == "leader").collect();
    leaders[rand::rng().random_range(0..leaders.len())].node.clone()
}

/// Writes one batch after the other until told to stop.
fn write_on(site: &Arc<Site>, home: usize, is_told_to_stop: &Arc<AtomicBool>, pause: Duration) -> JoinHandle<()> {
    let (site, stop, mut client) = (site.clone(), is_told_to_stop.clone(), Client::new(site, home));
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let first = site.serials(BATCH);
            client.write((first..first + BATCH).map(|serial| Version { id: serial, serial }).collect()).await;
            sleep(pause).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_resume_soon_after_a_leader_is_lost() {
    let kills = std::env::var("FAILOVER_KILLS").map_or(KILLS, |text| text.parse().expect("a whole number"));
    let (_turn, mut cluster, site, _) = start().await;
    let mut resumed = Vec::new();
    for kill in 0..kills {
        let node = leading_node(&cluster).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3).map(|home| write_on(&site, home, &stop, WRITE_EVERY)).collect();
        sleep(Duration::from_millis(300)).await;
        let (seen, killed) = (site.history.len(), site.history.now());
        cluster.member(&node).unwrap().kill().unwrap();
        let took = first_batch_after(&site, killed, seen).await;
        println!("kill {kill} of {node}: writes resumed after {} ms", took.as_millis());
        resumed.push(took);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            timeout(RESUME_MAX, writer).await.unwrap().unwrap();
        }
        cluster.restart(&node).await.unwrap();
    }
    resumed.sort_unstable();
    let millis = |share: f64| resumed[((resumed.len() - 1) as f64 * share).ceil() as usize].as_millis();
    println!(
        "{kills} leaders killed: writes resumed after p50 {} ms, p99 {} ms, at most {} ms",
        millis(0.5),
        millis(0.99),
        millis(1.0)
    );
    assert!(resumed.iter().all(|took| *took < RESUME_MAX), "{resumed:?}");
    assert!(kills < KILLS_FOR_P99 || millis(0.99) < RESUME_P99.as_millis(), "{resumed:?}");
    check_all(&cluster, &site).await;
}

/// Waits for the acknowledgement of a batch that was sent after an instant; the first `seen` operations are older.
async fn first_batch_after(site: &Site, instant: u64, mut seen: usize) -> Duration {
    let waiting = Instant::now();
    loop {
        let records = site.history.records_from(seen);
        seen += records.len();
        let is_after = |record: &&Record| record.is_acknowledged() && record.start > instant;
        if let Some(record) = records.iter().filter(is_after).min_by_key(|record| record.end) {
            return Duration::from_micros(record.end - instant);
        }
        assert!(waiting.elapsed() < RESUME_MAX, "no write for {RESUME_MAX:?} after the loss of one node");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn check_all(cluster: &Cluster, site: &Site) {
    let digests = cluster.settled_digests(COLLECTION, SHARDS, REPLICAS, SETTLE).await.unwrap();
    let held = Cluster::read_all(&cluster.rest(), COLLECTION).await.unwrap();
    let mut report = Report::default();
    check::durability(&site.history.records(), &held, &mut report);
    check::converge(&digests, REPLICAS, held.len(), &mut report);
    report.expect_pass();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_notice_the_loss_of_one_node() {
    let (_turn, mut cluster, site, base) = start().await;
    let node = leading_node(&cluster).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS).map(|home| read_on(&site, home, &base, &stop)).collect();
    let writer = write_on(&site, 0, &stop, Duration::from_millis(100));
    sleep(PHASES[0]).await;
    let killed = site.history.now();
    cluster.member(&node).unwrap().kill().unwrap();
    sleep(PHASES[1]).await;
    let restarted = site.history.now();
    cluster.restart(&node).await.unwrap();
    sleep(PHASES[2]).await;
    stop.store(true, Ordering::Relaxed);
    for task in readers.into_iter().chain([writer]) {
        timeout(RESUME_MAX, task).await.unwrap().unwrap();
    }

    let records = site.history.records();
    let reads: Vec<&Record> = records.iter().filter(|record| record.written().is_empty()).collect();
    let is_whole = |record: &&&Record| record.found().is_some_and(|found| found.coverage.is_some_and(|c| c.is_full()));
    let not_whole: Vec<_> = reads.iter().filter(|record| !is_whole(record)).take(5).collect();
    let mut report = Report::default();
    check::search(&records, &mut report);
    let away: Vec<_> = reads.iter().filter(|record| record.start > killed && record.start < restarted).collect();
    let mut took: Vec<u64> = away.iter().map(|record| record.end - record.start).collect();
    took.sort_unstable();
    let whole = reads.iter().filter(is_whole).count();
    println!(
        "{} reads, {} of them while {node} was away, {} without an answer from every shard; while it was away p50 {} us, \
         p99 {} us, at most {} us",
        reads.len(),
        away.len(),
        reads.len() - whole,
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took[took.len() - 1]
    );
    assert!(away.len() > 500, "only {} reads: this was no load", away.len());
    assert!(not_whole.is_empty(), "{not_whole:#?}");
    report.expect_pass();
    check_all(&cluster, &site).await;
}

/// Searches and reads by id until told to stop, all at the level that clients use by default.
fn read_on(site: &Arc<Site>, home: usize, base: &[Version], stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (mut client, base, stop) = (Client::new(site, home), base.to_vec(), stop.clone());
    tokio::spawn(async move {
        let mut turn = home;
        while !stop.load(Ordering::Relaxed) {
            turn += 7;
            let near = base[turn % base.len()];
            match turn % 3 {
                0 => client.read_one(near.id, Route::Home).await,
                1 => {
                    client.read(base.iter().skip(turn % base.len()).take(8).map(|v| v.id).collect(), Route::Home).await
                }
                _ => {
                    let search = Operation::Search { near, must_find: true, limit: 10, at_least: 10 };
                    client.search(search, None).await
                }
            };
            sleep(READ_EVERY).await;
        }
    })
}
