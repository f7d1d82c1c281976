//! Routing by cluster over real processes: a collection that is spread by hash is switched under load, which loses nothing
//! and fails no request; then processes are killed and stopped while maps are trained anew. Everything acknowledged is there
//! afterwards, found by its vector in search shards too; nobody was shown anything old, twice, or from nowhere.
//!
//! `CHAOS_MINUTES=10` makes it long, `TEST_SEED` repeats the faults of a run, `CHAOS_HISTORY=dir` keeps history and logs.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use vicinal_chaos_tests::Client;
use vicinal_chaos_tests::check::{self, Report, ShardDigests};
use vicinal_chaos_tests::cluster::{Cluster, ClusterOptions};
use vicinal_chaos_tests::history::{record_dir, write_json_lines};
use vicinal_chaos_tests::nemesis::{Nemesis, Schedule};
use vicinal_chaos_tests::op::{Operation, Outcome, Seen};
use vicinal_chaos_tests::workload::{Load, LoadOptions};

const COLLECTION: &str = "by-cluster";
const HOMES: usize = 2;
const SEARCH_SHARDS: usize = 4;
const REPLICAS: usize = 3;
const BASE: u64 = 1_200;
const RUN: Duration = Duration::from_secs(50);
/// Faults of the shortest run: one of each kind.
const FAULTS_MIN: usize = 4;
/// Time after the last fault in which the clients go on.
const CALM: Duration = Duration::from_secs(4);
/// Longest time until a map is served, and until all replicas hold the same once nobody writes.
const SETTLE: Duration = Duration::from_secs(60);
/// Points that are looked for by their vectors in the end.
const SAMPLE: usize = 300;

/// What the collection says of its routing.
async fn routing(cluster: &Cluster) -> anyhow::Result<Value> {
    let mut told = cluster.ask(&format!("/collections/{COLLECTION}")).await?;
    Ok(told["routing"].take())
}

fn version(of: &Value) -> u64 {
    of.as_u64().unwrap_or(0)
}

/// Waits until a map at least this new is served and nothing is being changed.
async fn wait_served(cluster: &Cluster, least: u64) -> Value {
    let is_calm = |of: &Value| of["next"].is_null() && of["ending"].is_null() && of["training"] == json!(false);
    let is_served = |of: &Value| version(&of["serving"]) >= least && is_calm(of);
    cluster.wait_until("a map is served", SETTLE, async |cluster| routing(cluster).await, is_served).await.unwrap()
}

/// Asks for another map; a change that is under way is as good.
#[allow(clippy::print_stdout, reason = "what became of it is for the one who reads the test's output")]
async fn train(cluster: &Cluster) {
    let path = format!("/collections/{COLLECTION}/routing/train");
    match cluster.rest().call(Method::POST, &path, &json!({})).await {
        Ok(answer) => println!("train another map: {} {}", answer.status, answer.body["status"]),
        Err(error) => println!("train another map: {error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_stale_while_maps_change_and_processes_die() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let run = number("CHAOS_MINUTES").map_or(RUN, |minutes| Duration::from_secs(60 * minutes));
    let seed = number("TEST_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    println!("repeat with TEST_SEED={seed}");
    let mut cluster = Cluster::start(ClusterOptions { coordinators: 3, nodes: 3 }).await.unwrap();
    let body = json!({"shard_number": HOMES, "replication_factor": REPLICAS});
    let site = cluster.create_with(COLLECTION, body).await.unwrap();
    let base = Load::base(&site, BASE).await.unwrap();
    let load = Load::start(&site, LoadOptions::new(seed), &base);
    tokio::time::sleep(CALM).await;

    let change =
        json!({"routing": {"method": "cluster", "search_shards": SEARCH_SHARDS, "copies": 0.3, "from_points": 1_000}});
    let answer = cluster.rest().call(Method::PATCH, &format!("/collections/{COLLECTION}"), &change).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let began = Instant::now();
    let served = wait_served(&cluster, 1).await;
    println!("switched in {:?}: {served}", began.elapsed());
    assert_eq!(served["searched_at"], "search shards");
    tokio::time::sleep(CALM).await;
    let failed: Vec<_> = site.history.records().into_iter().filter(|record| !record.is_ok()).collect();
    assert!(failed.is_empty(), "requests failed while nothing was wrong: {:?}", &failed[..failed.len().min(5)]);

    let (began, mut nemesis) = (Instant::now(), Nemesis::new(COLLECTION, site.history.clone()));
    for step in Schedule::draw(seed) {
        if nemesis.faults.len() >= FAULTS_MIN && began.elapsed() + step.quiet + step.away + CALM > run {
            break;
        }
        train(&cluster).await;
        let fault = nemesis.strike(&mut cluster, step).await.unwrap();
        println!("{fault}");
    }
    tokio::time::sleep(run.saturating_sub(began.elapsed()).max(CALM)).await;
    load.stop().await.unwrap();

    cluster.ready().await.unwrap();
    let served = wait_served(&cluster, 2).await;
    println!("at last: {served}");
    let shards = HOMES + SEARCH_SHARDS;
    let digests = cluster.settled_digests(COLLECTION, shards, REPLICAS, SETTLE).await.unwrap();
    let parts = cluster.replicas(COLLECTION).await.unwrap();
    let homes: BTreeSet<u64> = parts.iter().filter(|row| row.part == "home").map(|row| row.shard).collect();
    let (homes, copies): (Vec<ShardDigests>, Vec<ShardDigests>) =
        digests.into_iter().partition(|shard| homes.contains(&shard.shard));
    assert_eq!((homes.len(), copies.len()), (HOMES, SEARCH_SHARDS));
    assert!(copies.iter().all(|shard| shard.is_settled(REPLICAS)), "{copies:?}");
    let held = Cluster::read_all(&cluster.rest(), COLLECTION).await.unwrap();
    let sample = sample(&held, seed);
    let before = site.history.records().len();
    let mut client = Client::new(&site, 0);
    for seen in &sample {
        let search = Operation::Search { near: seen.version, must_find: true, limit: 3, at_least: 3 };
        client.search(search, None).await;
    }
    let narrow = found_narrowly(&cluster, &sample).await;
    let records = site.history.records();
    if let Some(dir) = record_dir() {
        write_json_lines(&records, &dir.join(format!("by-cluster-{seed}.jsonl"))).unwrap();
    }
    let answered = records[before..].iter().filter(|record| matches!(record.outcome, Outcome::Ok(_))).count();

    let mut report = Report::default();
    check::durability(&records, &held, &mut report);
    check::session(&records, &mut report);
    check::search(&records, &mut report);
    check::converge(&homes, REPLICAS, held.len(), &mut report);
    report.figure("maps served", version(&served["serving"]));
    report.figure("points looked for by their vectors in the end", format!("{answered} of {}", sample.len()));
    report.figure("of them found in one search shard", narrow);
    let there: u64 = copies.iter().filter_map(|shard| shard.replicas.first()).map(|replica| replica.points).sum();
    report.figure("points and copies in search shards", format!("{} and {there}", held.len()));
    println!("{report}");
    report.expect_pass();
    assert_eq!(answered, sample.len(), "all searches of a quiet cluster are answered");
    assert!(narrow * 2 >= sample.len(), "one shard of {SEARCH_SHARDS} finds {narrow} of {}", sample.len());
    assert!(there >= held.len() as u64, "each point has a copy");
}

/// Some of the points.
fn sample(held: &[Seen], seed: u64) -> Vec<Seen> {
    let step = (held.len() / SAMPLE).max(1);
    held.iter().skip(usize::try_from(seed).unwrap_or(0) % step).step_by(step).copied().collect()
}

/// How many of the points are found when one shard is asked.
async fn found_narrowly(cluster: &Cluster, points: &[Seen]) -> usize {
    let (rest, mut found) = (cluster.rest(), 0);
    for seen in points {
        let vector = vicinal_chaos_tests::content::vector(seen.version);
        let body = json!({"query": vector, "limit": 1, "params": {"nprobe_shards": 1}});
        let path = format!("/collections/{COLLECTION}/points/query");
        let answer = rest.call(Method::POST, &path, &body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        found += usize::from(answer.body["result"]["points"][0]["id"] == json!(seen.version.id));
    }
    found
}
