//! Three coordinators and three shard nodes, four shards on each node: clients write and search while one process after
//! the other is killed with -9 or stopped. Everything that was acknowledged is there afterwards, on every replica; nobody
//! read anything older than its own writes; no answer was short without saying so.
//!
//! `CHAOS_MINUTES=10` makes it long, `TEST_SEED` repeats the faults of a run, `CHAOS_HISTORY=dir` keeps history and logs.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use vicinal_chaos_tests::check::{self, Fault, FaultKind, Report};
use vicinal_chaos_tests::cluster::{Cluster, ClusterOptions, CollectionOptions};
use vicinal_chaos_tests::history::{longest_gap, record_dir, tally, write_json_lines};
use vicinal_chaos_tests::nemesis::{Nemesis, Schedule};
use vicinal_chaos_tests::op::{Operation, Outcome, Record, Seen, Version};
use vicinal_chaos_tests::workload::{Load, LoadOptions};
use vicinal_chaos_tests::{Client, Route};

const COLLECTION: &str = "chaos";
const SHARDS: usize = 4;
const REPLICAS: usize = 3;
/// Points that are everywhere before the first fault.
const BASE: u64 = 400;
const RUN: Duration = Duration::from_secs(60);
/// Faults of the shortest run: one of each kind.
const FAULTS_MIN: usize = 4;
/// Time after the last fault in which the clients go on.
const CALM: Duration = Duration::from_secs(5);
/// Longest time until all replicas hold the same once nobody writes.
const SETTLE: Duration = Duration::from_secs(60);
/// Longest time without an acknowledged write around a fault, in microseconds.
const GAP_MAX: u64 = 5_000_000;

/// Two clusters at once are more than two cores carry.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_processes_are_killed_and_paused() {
    let _turn = TURN.lock().await;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let run = number("CHAOS_MINUTES").map_or(RUN, |minutes| Duration::from_secs(60 * minutes));
    let seed = number("TEST_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    println!("repeat with TEST_SEED={seed}");

    let mut cluster = Cluster::start(ClusterOptions { coordinators: 3, nodes: 3 }).await.unwrap();
    let site = cluster.create(COLLECTION, CollectionOptions { shards: SHARDS, replicas: REPLICAS }).await.unwrap();
    let base = Load::base(&site, BASE).await.unwrap();
    let quiet = cluster.settled_digests(COLLECTION, SHARDS, REPLICAS, SETTLE).await.unwrap();
    assert!(quiet.iter().all(|shard| shard.is_settled(REPLICAS)), "{quiet:?}");

    let load = Load::start(&site, LoadOptions::new(seed), &base);
    let (began, mut nemesis) = (Instant::now(), Nemesis::new(COLLECTION, site.history.clone()));
    for step in Schedule::draw(seed) {
        if nemesis.faults.len() >= FAULTS_MIN && began.elapsed() + step.quiet + step.away + CALM > run {
            break;
        }
        let fault = nemesis.strike(&mut cluster, step).await.unwrap();
        println!("{fault}");
    }
    tokio::time::sleep(run.saturating_sub(began.elapsed()).max(CALM)).await;
    load.stop().await.unwrap();
    let lasted = began.elapsed();

    // Healed: every process runs. What it says now counts.
    cluster.ready().await.unwrap();
    let digests = cluster.settled_digests(COLLECTION, SHARDS, REPLICAS, SETTLE).await.unwrap();
    let held = Cluster::read_all(&cluster.rest(), COLLECTION).await.unwrap();
    let records = site.history.records();
    if let Some(dir) = record_dir() {
        write_json_lines(&records, &dir.join(format!("cluster-{seed}.jsonl"))).unwrap();
    }

    let mut report = Report::default();
    report.figure("seconds", lasted.as_secs());
    check::durability(&records, &held, &mut report);
    check::session(&records, &mut report);
    check::search(&records, &mut report);
    check::converge(&digests, REPLICAS, held.len(), &mut report);
    let rounds = nemesis.faults.len() / FAULTS_MIN;
    let kinds =
        [FaultKind::KillNode, FaultKind::KillShardLeader, FaultKind::KillCoordinatorLeader, FaultKind::PauseReplica];
    check::coverage(&records, &nemesis.faults, &kinds.map(|kind| (kind, rounds)), &mut report);
    let segments: u64 = cluster.replicas(COLLECTION).await.unwrap().iter().map(|replica| replica.segments).sum();
    report.figure("segment files at the end", segments);
    if segments == 0 {
        report.doubt("nothing was ever sealed: this tested the log only");
    }
    figures(&records, &held, &mut report);
    gaps(&records, &nemesis.faults, &mut report);
    println!("{report}");
    report.expect_pass();
}

/// Whether the checkers see: a point is deleted behind the back of the history, by a cluster that does nothing wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_vanishes_is_seen_by_every_checker() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(ClusterOptions { coordinators: 1, nodes: 1 }).await.unwrap();
    let site = cluster.create(COLLECTION, CollectionOptions { shards: 1, replicas: 1 }).await.unwrap();
    Load::base(&site, 20).await.unwrap();
    let serial = site.serials(1);
    let vanishing = Version { id: serial, serial };
    let mut client = Client::new(&site, 0);
    assert!(client.write(vec![vanishing]).await);
    let whole = Cluster::read_all(&cluster.rest(), COLLECTION).await.unwrap();
    let search = Operation::Search { near: vanishing, must_find: true, limit: 3, at_least: 3 };
    assert!(client.search(search.clone(), None).await && client.read_one(vanishing.id, Route::Home).await);
    let violations = |held: &[Seen]| {
        let mut report = Report::default();
        let records = site.history.records();
        check::durability(&records, held, &mut report);
        check::session(&records, &mut report);
        check::search(&records, &mut report);
        report.violations.into_iter().map(|violation| violation.promise).collect::<Vec<_>>()
    };
    assert!(violations(&whole).is_empty(), "{:?}", violations(&whole));

    let body = serde_json::json!({"points": [vanishing.id]});
    cluster.rest().post(&format!("/collections/{COLLECTION}/points/delete?wait=true"), body).await.result();
    assert!(client.search(search, None).await && client.read_one(vanishing.id, Route::Home).await);
    let held = Cluster::read_all(&cluster.rest(), COLLECTION).await.unwrap();
    assert_eq!(
        violations(&held),
        ["an acknowledged write is never lost", "you read your writes", "no answer is silently short"]
    );
}

/// Counts for the table of guarantees.
fn figures(records: &[Record], held: &[Seen], report: &mut Report) {
    let show = |chosen: fn(&Operation) -> bool| {
        let tally = tally(records, chosen);
        format!("{} answered, {} refused, {} unknown", tally.ok, tally.failed, tally.unknown)
    };
    report.figure("writes", show(|operation| matches!(operation, Operation::Write(_))));
    report.figure("reads", show(|operation| matches!(operation, Operation::Read(_))));
    report.figure("searches", show(|operation| matches!(operation, Operation::Search { .. })));
    let (there, absent) = check::unknown_fates(records, held);
    report.figure("points of unknown writes", format!("{there} are there, {absent} are not"));
    let mut reasons = BTreeMap::<String, usize>::new();
    for record in records {
        if let Outcome::Fail(why) | Outcome::Unknown(why) = &record.outcome {
            *reasons.entry(why.chars().take(160).collect()).or_default() += 1;
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (why, n) in reasons.into_iter().take(12) {
        report.figure("not answered", format!("{n} x {why}"));
    }
}

/// How long no batch, which has points of every shard, was acknowledged around each fault.
fn gaps(records: &[Record], faults: &[Fault], report: &mut Report) {
    let batch = |record: &Record| record.is_acknowledged() && record.written().len() > 1;
    let mut longest = BTreeMap::<FaultKind, u64>::new();
    for fault in faults {
        let until = fault.cured + CALM.as_micros() as u64;
        let gap = longest_gap(records, fault.began, until, batch);
        let of_kind = longest.entry(fault.kind).or_default();
        *of_kind = gap.max(*of_kind);
        if gap > GAP_MAX {
            report
                .violation("writes go on without one process", format!("none for {:.1} s: {fault}", gap as f64 / 1e6));
        }
    }
    for (kind, gap) in longest {
        report.figure(
            &format!("longest time without an acknowledged batch around {kind:?}"),
            format!("{} ms", gap / 1_000),
        );
    }
}
