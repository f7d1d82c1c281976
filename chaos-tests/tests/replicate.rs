//! A collection with a replica on each node, over real processes: a voter is killed under load, and a node that comes gets
//! its copy by itself, while clients write, read back what they wrote, and search.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::time::Duration;

use vicinal_chaos_tests::check::{self, Report};
use vicinal_chaos_tests::cluster::{Cluster, ClusterOptions, ReplicaView};
use vicinal_chaos_tests::workload::{Load, LoadOptions};

const COLLECTION: &str = "replicate";
/// Enough that the shard seals: a node that comes is filled with files, not from the log alone.
const BASE: u64 = 1_500;
const SETTLE: Duration = Duration::from_secs(40);
/// How long the load runs before a node is killed, and after the last change.
const CALM: Duration = Duration::from_secs(3);

/// How many replicas have each role, all of them active but those on nodes that are `away`.
fn is_spread(replicas: &[ReplicaView], nodes: usize, voters: usize, away: &[&str]) -> bool {
    let is_there = |replica: &&ReplicaView| !away.contains(&replica.node.as_str());
    let count = |role: &str| replicas.iter().filter(is_there).filter(|replica| replica.role == role).count();
    let active = replicas.iter().filter(is_there).all(|replica| replica.state == "active");
    let learners = replicas.len() - voters;
    active
        && replicas.len() == nodes
        && count("leader") == 1
        && count("follower") + away.len() == voters - 1
        && count("learner") == learners
}

async fn wait_spread(cluster: &Cluster, nodes: usize, voters: usize, away: &[&str]) -> Vec<ReplicaView> {
    let what = format!("{voters} voters among {nodes} replicas");
    let ask = async |cluster: &Cluster| cluster.replicas(COLLECTION).await;
    cluster.wait_until(&what, SETTLE, ask, |replicas| is_spread(replicas, nodes, voters, away)).await.unwrap()
}

/// Reads that the node of that name has answered.
async fn reads(cluster: &Cluster, name: &str) -> u64 {
    let node = cluster.nodes().find(|member| member.options.name == name).unwrap();
    let page = node.rest().get("/metrics").await.body;
    let is_read = |line: &&str| {
        line.starts_with("vicinal_hop_requests_total{")
            && line.contains("side=\"server\"")
            && (line.contains("operation=\"shard/search\"") || line.contains("operation=\"shard/retrieve\""))
    };
    let number = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
    page.as_str().unwrap().lines().filter(is_read).map(number).sum::<f64>() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_has_a_copy_that_is_read_and_new_nodes_get_theirs_by_themselves() {
    let mut cluster = Cluster::start(ClusterOptions { coordinators: 3, nodes: 4 }).await.unwrap();
    let site = cluster.create_replicated(COLLECTION).await.unwrap();
    let base = Load::base(&site, BASE).await.unwrap();
    let replicas = wait_spread(&cluster, 4, 3, &[]).await;
    let seed = rand::random::<u32>().into();
    let load = Load::start(&site, LoadOptions::new(seed), &base);
    tokio::time::sleep(CALM).await;

    // The leader, or another voter: the load meets both over time.
    let role = if seed % 2 == 0 { "leader" } else { "follower" };
    let killed = replicas.iter().find(|replica| replica.role == role).unwrap().node.clone();
    println!("{killed} is killed, a {role}");
    cluster.member(&killed).unwrap().kill().unwrap();
    tokio::time::sleep(CALM).await;
    // With a fifth node there are two more to vote; the one that is away keeps them from nothing.
    cluster.add_node("n5").await.unwrap();
    let grown = wait_spread(&cluster, 5, 5, &[&killed]).await;
    println!("n5 has its copy: {grown:?}");
    cluster.restart(&killed).await.unwrap();
    cluster.add_node("n6").await.unwrap();
    let replicas = wait_spread(&cluster, 6, 5, &[]).await;
    // The disk of the one without a vote is lost: under its name it is filled again, as any new node.
    let learner = replicas.iter().find(|replica| replica.role == "learner").unwrap().node.clone();
    let member = cluster.member(&learner).unwrap();
    member.kill().unwrap();
    member.wipe().unwrap();
    cluster.restart(&learner).await.unwrap();
    wait_spread(&cluster, 6, 5, &[]).await;
    println!("{learner} is back with nothing, and filled");
    tokio::time::sleep(CALM).await;
    load.stop().await.unwrap();

    for name in ["n1", "n2", "n3", "n4", "n5", "n6"] {
        let reads = reads(&cluster, name).await;
        println!("{name} answered {reads} reads");
        assert!(reads > 0, "{name} answered no read");
    }
    let digests = cluster.settled_digests(COLLECTION, 1, 6, SETTLE).await.unwrap();
    let held = Cluster::read_all(&cluster.rest(), COLLECTION).await.unwrap();
    let records = site.history.records();
    let mut report = Report::default();
    check::durability(&records, &held, &mut report);
    check::session(&records, &mut report);
    check::search(&records, &mut report);
    check::converge(&digests, 6, held.len(), &mut report);
    println!("{report}");
    report.expect_pass();
    assert!(digests[0].replicas.iter().all(|replica| replica.points == held.len() as u64), "{digests:?}");
}
