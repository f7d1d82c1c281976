//! Collections come and go over nodes that fail now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vicinal_common::api::*;
use vicinal_common::ids::NodeId;
use vicinal_common::payload_index::FieldType;
use vicinal_common::transport::Address;

use super::world::{ListNode, SLOWLY_FILLED, World, wanted, within, world, world_with};
use crate::members::Members;
use crate::meta::{CreateCollection, Registration, Routing};

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_created_and_dropped() {
    let World { catalog, nodes, stop, .. } = world(3, 0).await;
    let begun = Instant::now();
    catalog.create_collection(wanted("a", 4, 2), |_| true, within(5_000)).await.unwrap();
    println!("created in {:?}", begun.elapsed());
    let collection = catalog.state().resolve("a").unwrap().clone();
    assert_eq!(collection.shards.len(), 4);
    let held: usize = nodes.iter().map(|node| node.replicas.lock().len()).sum();
    let founded = nodes.iter().flat_map(|node| node.replicas.lock().values().copied().collect::<Vec<_>>());
    assert_eq!(held, 8);
    assert_eq!(founded.filter_map(|(_, voters)| voters).collect::<Vec<_>>(), [2; 4]);

    let again = catalog.create_collection(wanted("a", 1, 1), |_| true, within(5_000)).await.unwrap_err();
    assert_eq!(again.http_status(), 409);
    let too_many = catalog.create_collection(wanted("b", 1, 4), |_| true, within(5_000)).await.unwrap_err();
    assert_eq!(too_many.http_status(), 400);

    assert!(catalog.delete_collection("a", within(5_000)).await.unwrap());
    assert!(!catalog.delete_collection("a", within(5_000)).await.unwrap());
    assert!(nodes.iter().all(|node| node.replicas.lock().is_empty()));
    assert!(catalog.state().collections.is_empty());
    stop.cancel();
    catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_over_failing_nodes() {
    let World { catalog, nodes, stop, .. } = world(3, 5).await;
    let creations = (0..6).map(|number| {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            catalog.create_collection(wanted(&format!("c{number}"), 2, 3), |_| true, within(30_000)).await.unwrap();
        })
    });
    for creation in creations.collect::<Vec<_>>() {
        creation.await.unwrap();
    }
    assert_eq!(catalog.state().active().count(), 6);
    assert!(nodes.iter().all(|node| node.replicas.lock().len() == 12));
    for number in 0..6 {
        assert!(catalog.delete_collection(&format!("c{number}"), within(30_000)).await.unwrap());
    }
    assert!(catalog.state().names.is_empty());
    stop.cancel();
    catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_away_delays_but_loses_nothing() {
    let World { catalog, nodes, stop, .. } = world(2, 0).await;
    nodes[1].away.store(true, Ordering::SeqCst);
    let late = catalog.create_collection(wanted("a", 1, 2), |_| true, within(400)).await.unwrap_err();
    assert_eq!(late.http_status(), 408, "{late}");
    assert_eq!(catalog.state().resolve("a").unwrap_err().http_status(), 503);
    assert!(catalog.state().operations.values().any(|operation| operation.steps_done == 1));
    nodes[1].away.store(false, Ordering::SeqCst);
    let deadline = within(10_000);
    while catalog.state().resolve("a").is_err() {
        assert!(Instant::now() < deadline, "never served");
        sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_of_a_lost_node_do_not_keep_others_from_their_turn() {
    let World { catalog, nodes, stop, .. } = world(2, 0).await;
    for number in 0..20 {
        catalog.create_collection(wanted(&format!("c{number}"), 1, 2), |_| true, within(5_000)).await.unwrap();
    }
    nodes[1].away.store(true, Ordering::SeqCst);
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    let deletions = names.iter().map(|name| catalog.delete_collection(name, within(2_000)));
    assert!(futures::future::join_all(deletions).await.into_iter().all(|deleted| deleted == Ok(true)));
    // Of two equally loaded nodes the first in order is chosen, which is the one that is there.
    catalog.create_collection(wanted("new", 1, 1), |_| true, within(5_000)).await.unwrap();
    stop.cancel();
    catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_collections_go_to_nodes_that_are_there() {
    let World { catalog, stop, .. } = world(2, 0).await;
    catalog.create_collection(wanted("a", 4, 1), |_| true, within(5_000)).await.unwrap();
    let lost = NodeId(3);
    let registration = Registration { name: "lost".into(), address: Address("local:3".into()), zone: None };
    catalog.register_node(lost, registration, within(5_000)).await.unwrap();
    catalog.create_collection(wanted("b", 2, 2), move |node| node != lost, within(5_000)).await.unwrap();
    let too_many = catalog.create_collection(wanted("c", 1, 3), move |node| node != lost, within(5_000)).await;
    assert_eq!(too_many.unwrap_err().http_status(), 400);
    stop.cancel();
    catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_with_an_old_revision_is_answered_with_the_newest() {
    let World { catalog, nodes, members, stop, .. } = world_with(3, 5, Members::new()).await;
    catalog.create_collection(wanted("c", 2, 3), |_| true, within(20_000)).await.unwrap();
    let id = catalog.state().resolve("c").unwrap().id;
    for (field, of) in [("a", FieldType::Keyword), ("b", FieldType::Geo)] {
        catalog.create_index(id, field.into(), of.into(), within(5_000)).await.unwrap();
    }
    let is_told = |node: &ListNode| {
        let told = node.tunings.lock();
        told.len() == 2 && told.values().all(|revision| *revision == 2)
    };
    let until = within(20_000);
    while !nodes.iter().all(|node| is_told(node)) {
        assert!(
            Instant::now() < until,
            "{:?}",
            nodes.iter().map(|node| node.tunings.lock().clone()).collect::<Vec<_>>()
        );
        for node in &nodes {
            // Some of the calls fail; the next sign of life shows it.
            if let Ok(status) = node.status().await {
                members.heard(NodeId(node.node), status, false);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
}

fn replicated(name: &str) -> CreateCollection {
    CreateCollection { routing: Routing::Replicate, ..wanted(name, 1, 1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_that_comes_gets_its_replica_of_a_replicated_collection() {
    let mut world = world(1, 0).await;
    world.catalog.create_collection(replicated("a"), |_| true, within(5_000)).await.unwrap();
    world.is_on("a", 1, &[1]).await;
    for (node, voters) in [(2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (7, 5)] {
        world.join(node, &format!("n{node}"), 0).await;
        world.is_on("a", voters, &(1..=node).collect::<Vec<_>>()).await;
    }
    for change in world.changes.lock().iter() {
        assert!([1, 2, 3, 5].contains(&change.voters.len()), "{change:?}");
        assert!(change.filled.iter().all(|node| change.learners.contains_key(node)), "{change:?}");
    }
    let slow = world.changes.lock().iter().filter(|change| change.filled.contains(&NodeId(SLOWLY_FILLED))).count();
    assert_eq!(slow, 4, "it was waited for");

    // A learner's node and a voter's come back with nothing.
    for (node, name) in [(16, "n6"), (11, "n1")] {
        world.join(node, name, 0).await;
    }
    world.is_on("a", 5, &[2, 3, 4, 5, 7, 11, 16]).await;
    let last = world.changes.lock().last().cloned().unwrap();
    assert_eq!((last.voters.len(), last.learners.keys().any(|node| *node == NodeId(7))), (5, true), "{last:?}");
    let until = within(5_000);
    while world.catalog.state().nodes.len() > 7 {
        assert!(Instant::now() < until, "the replaced nodes are not forgotten");
        sleep(Duration::from_millis(10)).await;
    }
    let shard = world.catalog.state().resolve("a").unwrap().shards[0].id;
    let there = |node: &&Arc<ListNode>| node.replicas.lock().contains_key(&shard);
    assert_eq!(world.nodes.iter().filter(there).count(), 9, "each of them has had one");
    assert!(world.catalog.delete_collection("a", within(5_000)).await.unwrap());
    let left: Vec<u64> = world.nodes.iter().filter(there).map(|node| node.node).collect();
    assert!(left.iter().all(|node| [1, 6].contains(node)), "only the two that were replaced are not asked: {left:?}");
    world.stop.cancel();
    world.catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_keeps_no_other_from_its_replica() {
    let mut world = world(3, 4).await;
    world.catalog.create_collection(replicated("a"), |_| true, within(20_000)).await.unwrap();
    world.is_on("a", 3, &[1, 2, 3]).await;
    let away = world.join_as(ListNode { node: 4, away: true.into(), ..ListNode::default() }, "n4").await;
    world.join(5, "n5", 4).await;
    world.is_on("a", 3, &[1, 2, 3, 5]).await;
    away.away.store(false, Ordering::SeqCst);
    world.is_on("a", 5, &[1, 2, 3, 4, 5]).await;
    world.catalog.create_collection(replicated("b"), |node| node != NodeId(1), within(20_000)).await.unwrap();
    world.is_on("b", 5, &[1, 2, 3, 4, 5]).await;
    world.stop.cancel();
    world.catalog.shutdown().await;
}
