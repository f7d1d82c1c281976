//! Who belongs to a cluster: a node that lost its disk comes back under its name and is refilled, strangers and doubles are
//! refused, and coordinators can be lost and replaced.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;
use vicinal_chaos_tests::check::{self, Report};
use vicinal_chaos_tests::cluster::{Cluster, ClusterOptions, CollectionOptions, Member, MetaView};
use vicinal_chaos_tests::op::Version;
use vicinal_chaos_tests::workload::Load;
use vicinal_chaos_tests::{Client, Exited, Route, Site};

const COLLECTION: &str = "members";
const SHARDS: usize = 2;
/// Enough that shards seal: whoever was away gets a snapshot, as the log does not go back that far.
const BASE: u64 = 2_000;
const ATTEMPTS_LOST_MAX: usize = 10;
const SETTLE: Duration = Duration::from_secs(60);

/// Two clusters at once are more than two cores carry.
static TURN: Mutex<()> = Mutex::const_new(());

async fn filled(options: ClusterOptions) -> (Cluster, Arc<Site>, Vec<Version>) {
    let cluster = Cluster::start(options).await.unwrap();
    let site = cluster.create(COLLECTION, CollectionOptions { shards: SHARDS, replicas: options.nodes }).await.unwrap();
    let base = Load::base(&site, BASE).await.unwrap();
    (cluster, site, base)
}

/// Writes until so many points are acknowledged. A leader may have been lost a moment ago: some attempts may fail.
async fn write(site: &Arc<Site>, n: usize) {
    let mut client = Client::new(site, 0);
    let mut acknowledged = 0;
    for _ in 0..n + ATTEMPTS_LOST_MAX {
        let serial = site.serials(1);
        acknowledged += usize::from(client.write(vec![Version { id: serial, serial }]).await);
        if acknowledged == n {
            return;
        }
    }
    panic!("{acknowledged} of {n} writes were acknowledged: {:?}", site.history.records().pop());
}

/// All replicas hold the same, and all that was acknowledged.
async fn expect_whole(cluster: &Cluster, site: &Site, replicas: usize) {
    let digests = cluster.settled_digests(COLLECTION, SHARDS, replicas, SETTLE).await.unwrap();
    let held = Cluster::read_all(&cluster.rest(), COLLECTION).await.unwrap();
    let mut report = Report::default();
    check::durability(&site.history.records(), &held, &mut report);
    check::converge(&digests, replicas, held.len(), &mut report);
    report.expect_pass();
}

async fn node_identity(cluster: &Cluster, name: &str) -> String {
    let meta = cluster.meta().await.unwrap();
    let node = meta.nodes.iter().find(|(node, _)| node == name);
    node.unwrap_or_else(|| panic!("{name} is not among {:?}", meta.nodes)).1.clone()
}

/// A process that was not wanted: it ended by itself, with an error, and said why.
fn expect_refused(exited: &Exited, says: &[&str]) {
    let log = exited.log_text();
    assert!(!exited.status.success(), "it ended with success:\n{log}");
    for word in says {
        assert!(log.contains(word), "the log does not name `{word}`:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_comes_back_under_its_name_and_is_refilled() {
    let _turn = TURN.lock().await;
    let (mut cluster, site, _) = filled(ClusterOptions { coordinators: 3, nodes: 3 }).await;
    let before = node_identity(&cluster, "n3").await;
    let member = cluster.member("n3").unwrap();
    member.kill().unwrap();
    member.wipe().unwrap();
    // Written while it is away: it must come to know of this too.
    write(&site, 50).await;
    cluster.restart("n3").await.unwrap();
    let replaced = async |cluster: &Cluster| Ok(node_identity(cluster, "n3").await);
    let after = cluster.wait_until("n3 has a new identity", SETTLE, replaced, |now| *now != before).await.unwrap();
    assert_ne!(before, after);
    expect_whole(&cluster, &site, 3).await;
    // And it is good for something: with another one gone, it is one of the majority.
    cluster.member("n1").unwrap().kill().unwrap();
    write(&site, 10).await;
    cluster.restart("n1").await.unwrap();
    expect_whole(&cluster, &site, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused() {
    let _turn = TURN.lock().await;
    // Only one of them has a node of the name: it is not for its name that it is refused.
    let mut theirs = Cluster::start(ClusterOptions { coordinators: 1, nodes: 2 }).await.unwrap();
    let ours = Cluster::start(ClusterOptions { coordinators: 1, nodes: 1 }).await.unwrap();
    let id = async |cluster: &Cluster| cluster.ask("/cluster").await.unwrap()["cluster"].as_str().unwrap().to_owned();
    let (their_id, our_id) = (id(&theirs).await, id(&ours).await);
    assert_ne!(their_id, our_id);

    let node = theirs.member("n2").unwrap();
    node.stop().unwrap();
    let mut stranger = ours.node_options("n2");
    stranger.data_dir = node.options.data_dir.clone();
    let exited = Member::start(stranger).unwrap().wait().unwrap();
    expect_refused(&exited, &[&their_id, &our_id]);
    // Nothing happened to it or to the cluster that refused it.
    theirs.restart("n2").await.unwrap();
    assert_eq!(ours.meta().await.unwrap().nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_under_a_name_that_lives_is_refused() {
    let _turn = TURN.lock().await;
    let (cluster, site, _) = filled(ClusterOptions { coordinators: 1, nodes: 1 }).await;
    let before = node_identity(&cluster, "n1").await;
    let mut double = cluster.node_options("n1");
    double.data_dir.set_file_name("double");
    let exited = Member::start(double).unwrap().wait().unwrap();
    expect_refused(&exited, &["n1"]);
    assert_eq!(node_identity(&cluster, "n1").await, before);
    expect_whole(&cluster, &site, 1).await;
}

async fn put(cluster: &Cluster, name: &str) -> Vec<u16> {
    let body = json!({"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 1});
    let mut statuses = Vec::new();
    for (number, rest) in cluster.rests().into_iter().enumerate() {
        statuses.push(rest.put(&format!("/collections/{name}-{number}"), body.clone()).await.status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn five_coordinators_survive_two_losses_and_the_founder_is_replaced() {
    let _turn = TURN.lock().await;
    let (mut cluster, site, base) = filled(ClusterOptions { coordinators: 5, nodes: 1 }).await;
    let voters = |meta: &MetaView| {
        let votes = meta.coordinators.iter().filter(|(_, role)| role == "leader" || role == "follower").count();
        meta.leader.is_some() && votes == 5
    };
    let ask = async |cluster: &Cluster| cluster.meta().await;
    let meta = cluster.wait_until("five voters", SETTLE, ask, voters).await.unwrap();
    let leader = meta.leader.unwrap();

    // The leader and one more; when the founder does not lead, it is the other one.
    let other = if leader == "c1" { "c2" } else { "c1" };
    for name in [leader.as_str(), other] {
        cluster.member(name).unwrap().kill().unwrap();
    }
    let led = |meta: &MetaView| meta.leader.as_ref().is_some_and(|name| *name != leader);
    cluster.wait_until("another leader", SETTLE, ask, led).await.unwrap();
    assert_eq!(put(&cluster, "with-two-lost").await, [200; 3], "any coordinator takes metadata writes");
    let mut client = Client::new(&site, 2);
    write(&site, 10).await;
    // It may begin at one that is gone; it goes on elsewhere.
    let answered = base.iter().take(20).map(|version| version.id);
    let mut n = 0;
    for id in answered {
        n += usize::from(client.read_one(id, Route::Home).await);
    }
    assert!(n >= 18, "only {n} of 20 reads were answered: {:?}", site.history.records().pop());

    // The founder comes back with nothing, and the other one with its data.
    let founder = cluster.member("c1").unwrap();
    founder.wipe().unwrap();
    cluster.restart("c1").await.unwrap();
    cluster.restart(if leader == "c1" { other } else { &leader }).await.unwrap();
    cluster.wait_until("five voters again", SETTLE, ask, voters).await.unwrap();
    let all = |coordinators: &Vec<Value>| coordinators.windows(2).all(|pair| pair[0] == pair[1]);
    let listed = async |cluster: &Cluster| {
        let mut lists = Vec::new();
        for rest in cluster.rests() {
            lists.push(rest.get("/collections").await.result());
        }
        Ok(lists)
    };
    let lists = cluster.wait_until("all know the same collections", SETTLE, listed, all).await.unwrap();
    assert_eq!(lists.len(), 5);
    assert_eq!(put(&cluster, "with-all-back").await, [200; 5]);
    expect_whole(&cluster, &site, 1).await;
}
