//! The metadata group as a group: founding, restart, other members, loss of the leader.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vicinal_common::clock::SystemClock;
use vicinal_common::cluster::{Join, Joined};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::error::Error;
use vicinal_common::ids::{ClusterId, NodeId};
use vicinal_common::raft::RaftNode;
use vicinal_common::rng::{Rng, SeededRng};
use vicinal_common::transport::{Address, LocalTransport};

use super::*;

fn address(name: &str) -> Address {
    Address(format!("local:{name}"))
}

fn options(name: &str, store: Box<dyn MetaStore>, transport: &LocalTransport) -> CatalogOptions {
    CatalogOptions {
        name: name.into(),
        address: address(name),
        store,
        transport: Arc::new(transport.clone()),
        rng: Arc::new(SeededRng::from_os()),
        clock: Arc::new(SystemClock),
        cluster: None,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn register(catalog: &Catalog, number: u64) -> Result<(), Error> {
    let name = format!("node-{number}");
    let registration = Registration { name: name.clone(), address: address(&name), zone: None };
    catalog.register_node(NodeId(number), registration, soon()).await
}

async fn open(name: &str, founding: Founding, transport: &LocalTransport) -> (Catalog, FaultyDisk) {
    let disk = FaultyDisk::new(1);
    let store = DiskStore::open(Arc::new(disk.clone()), Path::new("/meta")).unwrap();
    let catalog = Catalog::open(options(name, Box::new(store), transport), founding).await.unwrap();
    transport.register(address(name), catalog.handler());
    (catalog, disk)
}

async fn take_in(leader: &Catalog, name: &str, member: &Catalog) {
    let info = RaftNode { name: name.into(), address: address(name) };
    let joined = leader.take_in(Join { node: member.node(), info }).await.unwrap();
    assert!(matches!(joined, Joined::Member { cluster } if Some(cluster) == leader.state().cluster));
}

async fn settle(leader: &Catalog, voters: usize) {
    let began = Instant::now();
    while leader.group().voters.len() != voters {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", leader.group());
        leader.settle_voters().await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_has_no_vote_and_a_wiped_one_comes_back_under_its_name() {
    let transport = LocalTransport::default();
    let (a, _) = open("a", Founding::IfNew, &transport).await;
    let (b, _) = open("b", Founding::Never, &transport).await;
    take_in(&a, "b", &b).await;
    register(&a, 1).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    assert!(!a.settle_voters().await.unwrap());
    assert_eq!((a.group().voters.len(), a.group().members.len()), (1, 2));
    register(&b, 2).await.unwrap();
    let (c, _) = open("c", Founding::Never, &transport).await;
    take_in(&a, "c", &c).await;
    settle(&a, 3).await;
    assert!(matches!(
        c.take_in(Join { node: NodeId(9), info: RaftNode::default() }).await,
        Ok(Joined::NotLeader { .. })
    ));

    transport.unregister(&address("b"));
    b.shutdown().await;
    let (again, _) = open("b", Founding::Never, &transport).await;
    take_in(&a, "b", &again).await;
    let began = Instant::now();
    while !a.group().voters.contains(&again.node()) {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", a.group());
        a.settle_voters().await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    let group = a.group();
    assert_eq!((group.voters.len(), group.members.len()), (3, 3), "{group:?}");
    assert!(!group.members.contains_key(&b.node()));
    register(&again, 3).await.unwrap();
    for catalog in [a, c, again] {
        catalog.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sole_coordinator_starts_again_with_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let transport = LocalTransport::default();
    let start = async |name: &str, cluster: Option<ClusterId>| {
        let store = Box::new(SledStore::open(dir.path()).unwrap());
        Catalog::open(CatalogOptions { cluster, ..options(name, store, &transport) }, Founding::IfNew).await
    };
    let catalog = start("a", None).await.unwrap();
    let cluster = catalog.state().cluster.expect("a founder names the cluster before it returns");
    for number in 1..30 {
        register(&catalog, number).await.unwrap();
    }
    let (state, node) = (catalog.state(), catalog.node());
    catalog.shutdown().await;
    drop(catalog);

    for _ in 0..3 {
        let again = start("a", Some(cluster)).await.unwrap();
        assert_eq!(again.state(), state);
        assert_eq!(again.node(), node);
        again.shutdown().await;
    }
    let other = Some(ClusterId(SeededRng::from_os().uuid()));
    let refused = start("a", other).await.err().expect("another cluster's data");
    assert!(refused.to_string().contains("belongs to cluster"), "{refused}");
    let refused = start("b", None).await.err().expect("another coordinator's data");
    assert!(refused.to_string().contains("belongs to coordinator `a`"), "{refused}");
    let again = start("a", None).await.unwrap();
    register(&again, 77).await.unwrap();
    again.shutdown().await;
    assert!(register(&again, 78).await.is_err(), "a stopped coordinator refuses changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn founder_that_lost_power_is_back_with_all_it_confirmed() {
    let transport = LocalTransport::default();
    let (catalog, disk) = open("a", Founding::IfNew, &transport).await;
    for number in 1..1_200 {
        register(&catalog, number).await.unwrap();
    }
    disk.reboot();
    assert!(register(&catalog, 5_000).await.is_err(), "its files are dead");
    catalog.shutdown().await;
    let store = DiskStore::open(Arc::new(disk), Path::new("/meta")).unwrap();
    let again = Catalog::open(options("a", Box::new(store), &transport), Founding::IfNew).await.unwrap();
    let state = again.state();
    assert!((1..1_200).all(|number| state.nodes.contains_key(&NodeId(number))));
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinator_that_nobody_took_in_says_so() {
    let (catalog, _) = open("a", Founding::Never, &LocalTransport::default()).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = catalog.update_aliases(vec![], deadline).await.unwrap_err();
    assert!(error.to_string().contains("no leader"), "{error}");
    catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_member_leads_when_the_leader_is_lost() {
    let transport = LocalTransport::default();
    let (a, _) = open("a", Founding::IfNew, &transport).await;
    // Enough entries for a snapshot and a purge: the others start from the snapshot.
    for number in 1..1_500 {
        register(&a, number).await.unwrap();
    }
    let (b, _) = open("b", Founding::Never, &transport).await;
    let (c, _) = open("c", Founding::Never, &transport).await;
    for (name, member) in [("b", &b), ("c", &c)] {
        take_in(&a, name, member).await;
    }
    settle(&a, 3).await;

    // A follower sends proposals on to the leader, and sees what it changed.
    register(&b, 2_000).await.unwrap();
    assert!(b.state().nodes.contains_key(&NodeId(2_000)));
    // Another follower may not have heard of it yet; having asked the leader it has.
    for number in 2_100..2_120 {
        register(&b, number).await.unwrap();
        c.catch_up(soon()).await.unwrap();
        assert!(c.state().nodes.contains_key(&NodeId(number)));
    }

    transport.unregister(&address("a"));
    a.shutdown().await;
    let lost = Instant::now();
    register(&b, 2_001).await.unwrap();
    register(&c, 2_002).await.unwrap();
    println!("changed again after {:?}", lost.elapsed());
    assert!(b.is_leader() || c.is_leader());
    while b.state() != c.state() {
        assert!(lost.elapsed() < Duration::from_secs(20), "states stay different");
        sleep(Duration::from_millis(10)).await;
    }
    let state = b.state();
    assert!((1..1_500).chain(2_000..2_003).all(|number| state.nodes.contains_key(&NodeId(number))));
    assert_eq!(state.cluster, a.state().cluster);

    // With the majority lost nothing is confirmed.
    transport.unregister(&address("c"));
    c.shutdown().await;
    let deadline = Instant::now() + Duration::from_millis(1_500);
    let error = b.update_aliases(vec![], deadline).await.unwrap_err();
    assert_eq!(error.http_status(), 408, "{error}");
    b.shutdown().await;
}
