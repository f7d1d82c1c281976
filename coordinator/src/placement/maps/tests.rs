//! Maps come, are replaced, are taken back and go, whatever fails meanwhile and whoever leads.

mod even;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use vicinal_common::ids::{CollectionId, MapVersion, NodeId, ShardId};

use super::super::world::{ListNode, World, version_of, wanted, within, world};
use crate::meta::{
    ClusterRouting, ClusterSettings, Collection, CollectionChange, CreateCollection, OperationKind, Routing,
    RoutingChange,
};

const POINTS: u64 = 80;
/// Worlds that live at a time.
const AT_ONCE: usize = 24;

fn clustered(search_shards: u32, from_points: u64) -> CreateCollection {
    let settings = ClusterSettings {
        vector: String::new(),
        search_shards,
        copies: 0.2,
        recall_target: 0.9,
        from_points,
        balance: true,
    };
    let routing = Routing::Cluster(Box::new(ClusterRouting::new(settings, MapVersion(0))));
    CreateCollection { routing, ..wanted("c", 2, 2) }
}

impl World {
    /// A collection with points in its home shards.
    async fn filled(&self, create: CreateCollection) -> CollectionId {
        self.catalog.create_collection(create, |_| true, within(60_000)).await.unwrap();
        let collection = self.catalog.state().resolve("c").unwrap().clone();
        for (part, shard) in (0..).zip(collection.shard_ids()) {
            let points = (0..POINTS).filter(|id| id % 2 == part);
            let vector = |id: u64| vec![(id % 4) as f32 * 10.0, id as f32 / 100.0, 0.0, 1.0];
            self.groups.fill(shard, points.map(|id| (id, vector(id))).collect());
        }
        collection.id
    }

    async fn until(&self, id: CollectionId, what: &str, is_so: impl Fn(&Collection) -> bool) {
        let until = within(120_000);
        loop {
            let state = self.catalog.state();
            let collection = &state.collections[&id];
            if is_so(collection) {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{what}: {:?} {:?}", collection.routing, state.operations);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a map is served and nothing else is to be done.
    async fn served(&self, id: CollectionId, version: u64) {
        let is_served = |collection: &Collection| {
            let cluster = collection.routing.cluster();
            cluster.is_some_and(|of| of.served() == Some(MapVersion(version)) && of.under_way().is_none())
        };
        self.until(id, "not served", is_served).await;
        assert!(self.catalog.state().operations.is_empty());
    }

    async fn change(&self, id: CollectionId, routing: RoutingChange) {
        let change = CollectionChange { routing: Some(routing), ..CollectionChange::default() };
        self.catalog.change_collection(id, change, within(60_000)).await.unwrap();
    }

    /// That the shards do as the metadata say.
    fn check(&self, id: CollectionId) {
        let state = self.catalog.state();
        let collection = &state.collections[&id];
        let cluster = collection.routing.cluster();
        let served: Vec<u64> = cluster.and_then(ClusterRouting::served).map(|version| version.0).into_iter().collect();
        for shard in collection.shard_ids() {
            assert_eq!(self.groups.published(shard), served);
        }
        let Some(served) = cluster.and_then(|cluster| cluster.serving.as_ref()) else { return };
        for (shard, floor) in served.map.shards.iter().zip(&served.floors) {
            assert!(floor.0 > 1 && floor.0 <= self.groups.log(*shard), "{floor:?}");
            assert!(self.groups.is_searched(*shard, served.map.version));
            assert!(!self.groups.is_searched(*shard, MapVersion(served.map.version.0 - 1)));
        }
        for node in &self.nodes {
            assert!(node.maps.lock().contains_key(&served.map.digest), "node {} has not the map", node.node);
        }
    }

    /// Waits until nodes hold nothing but what the collection needs.
    async fn is_clean(&self, id: CollectionId) {
        let until = within(60_000);
        loop {
            let state = self.catalog.state();
            let shards: BTreeSet<ShardId> = state.collections[&id].all_shards().map(|shard| shard.id).collect();
            let maps = state.collections[&id].routing.cluster().and_then(|of| of.serving.as_ref());
            let maps: Vec<_> = maps.map(|served| served.map.digest).into_iter().collect();
            let is_clean = self.nodes.iter().all(|node| {
                let (held, kept) = (node.replicas.lock(), node.maps.lock());
                held.keys().all(|shard| shards.contains(shard)) && kept.keys().all(|map| maps.contains(map))
            });
            if is_clean {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "replicas or maps are left over");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// First map, second map over more shards, one taken back, back to hash.
    async fn live(&self, is_clean: bool) {
        let id = self.filled(clustered(2, POINTS)).await;
        assert!(self.groups.unindexed().is_empty(), "not before a map is served");
        self.served(id, 1).await;
        self.check(id);
        if is_clean {
            self.without_graphs(id).await;
        }
        let first: Vec<ShardId> = self.cluster(id).shards.iter().map(|shard| shard.id).collect();
        let three = RoutingChange::Settings {
            search_shards: Some(3),
            copies: Some(0.0),
            recall_target: None,
            from_points: None,
            balance: None,
        };
        self.change(id, three).await;
        self.catalog.train_map(id, within(60_000)).await.unwrap();
        self.served(id, 2).await;
        self.check(id);
        let cluster = self.cluster(id);
        let second: Vec<ShardId> = cluster.shards.iter().map(|shard| shard.id).collect();
        assert!(second.len() == 3 && second.starts_with(&first), "what is there stays: {first:?} {second:?}");

        self.groups.stuck.store(true, Ordering::SeqCst);
        self.catalog.train_map(id, within(60_000)).await.unwrap();
        let is_filling = |of: &Collection| of.routing.cluster().is_some_and(|of| of.next.is_some());
        self.until(id, "not begun", is_filling).await;
        let refused = self.catalog.train_map(id, within(60_000)).await.unwrap_err();
        assert_eq!(refused.http_status(), 409);
        self.catalog.abort_map(id, MapVersion(3), within(60_000)).await.unwrap();
        self.served(id, 2).await;
        self.check(id);
        self.groups.stuck.store(false, Ordering::SeqCst);

        self.change(id, RoutingChange::Hash).await;
        self.until(id, "still by cluster", |of| of.routing == Routing::Hash).await;
        self.check(id);
        assert!(self.catalog.state().operations.is_empty());
        if is_clean {
            self.is_clean(id).await;
        }
        self.stop.cancel();
        self.catalog.shutdown().await;
    }

    /// Waits until no replica of a home shard has graphs.
    async fn without_graphs(&self, id: CollectionId) {
        let replicas = |of: &Collection| of.shards.iter().map(|shard| shard.replicas.len()).sum::<usize>();
        self.until(id, "graphs stay", |of| self.groups.unindexed().len() == replicas(of)).await;
    }

    fn cluster(&self, id: CollectionId) -> ClusterRouting {
        self.catalog.state().collections[&id].routing.cluster().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_come_are_replaced_are_taken_back_and_go() {
    let world = world(3, 0).await;
    world.live(true).await;
    println!("{} calls", world.groups.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_reconcilers_at_once_over_failing_nodes_come_to_the_same_end() {
    let world = world(3, 7).await;
    world.reconcile(&world.stop);
    world.live(false).await;
}

/// Runs a life in which one call fails, with all that is behind it when `is_end`.
async fn interrupted(call: usize, is_end: bool, life: impl AsyncFn(&World)) {
    let world = world(3, 0).await;
    let stop = if is_end { world.stop.clone() } else { CancellationToken::new() };
    world.groups.interrupt(call, stop.clone());
    // The next one that leads.
    let next = CancellationToken::new();
    let takes_over = async {
        stop.cancelled().await;
        if is_end {
            world.reconcile(&next);
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = life(&world) => {}
        () = takes_over => {}
    }
    next.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_fails_once_and_is_made_again() {
    stream::iter(CALLS)
        .for_each_concurrent(AT_ONCE, |call| interrupted(call, false, async |world: &World| world.live(false).await))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_at_any_call_comes_to_the_same_end() {
    stream::iter(CALLS)
        .for_each_concurrent(AT_ONCE, |call| interrupted(call, true, async |world: &World| world.live(false).await))
        .await;
}

/// Calls of a life, about.
const CALLS: std::ops::Range<usize> = 0..200;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_map_waits_for_points_and_is_not_begun_again_by_itself() {
    let world = world(3, 0).await;
    let id = world.filled(clustered(2, POINTS + 1)).await;
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(world.catalog.state().operations.len(), 0);
    world.groups.stuck.store(true, Ordering::SeqCst);
    let fewer = RoutingChange::Settings {
        search_shards: None,
        copies: None,
        recall_target: None,
        from_points: Some(POINTS),
        balance: None,
    };
    world.change(id, fewer).await;
    world.until(id, "not begun", |of| of.routing.cluster().is_some_and(|of| of.next.is_some())).await;
    world.until(id, "no progress", |_| world.catalog.state().operations.values().all(|of| of.steps_done >= 260)).await;
    world.catalog.abort_map(id, MapVersion(1), within(5_000)).await.unwrap();
    world.until(id, "not taken back", |of| of.routing.cluster().is_some_and(|of| of.under_way().is_none())).await;
    world.is_clean(id).await;
    sleep(Duration::from_millis(2_500)).await;
    assert!(world.catalog.state().operations.is_empty(), "somebody has to ask");
    world.groups.stuck.store(false, Ordering::SeqCst);
    world.catalog.train_map(id, within(5_000)).await.unwrap();
    world.served(id, 2).await;
    world.check(id);
    let bytes = world.nodes[0].maps.lock().values().next().unwrap().1.clone();
    assert_eq!(version_of(&bytes), 2);

    assert!(world.catalog.delete_collection("c", within(10_000)).await.unwrap());
    assert!(world.nodes.iter().all(|node| node.replicas.lock().is_empty() && node.maps.lock().is_empty()));
    world.stop.cancel();
    world.catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_to_hash_takes_back_what_is_being_filled_and_ends_what_is_served() {
    let world = world(3, 0).await;
    let id = world.filled(clustered(2, POINTS)).await;
    world.served(id, 1).await;
    world.groups.stuck.store(true, Ordering::SeqCst);
    world.catalog.train_map(id, within(5_000)).await.unwrap();
    world.until(id, "not begun", |of| of.routing.cluster().is_some_and(|of| of.next.is_some())).await;
    world.change(id, RoutingChange::Hash).await;
    world.until(id, "still by cluster", |of| of.routing == Routing::Hash).await;
    world.check(id);
    world.is_clean(id).await;
    // By cluster again: maps are numbered on, and old messages mean nothing.
    world.groups.stuck.store(false, Ordering::SeqCst);
    let settings = ClusterSettings {
        vector: String::new(),
        search_shards: 2,
        copies: 0.2,
        recall_target: 0.9,
        from_points: POINTS,
        balance: true,
    };
    world.change(id, RoutingChange::Cluster(settings)).await;
    world.served(id, 3).await;
    world.check(id);
    world.stop.cancel();
    world.catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_answer_again_once_those_that_are_up_have_graphs() {
    let world = world(3, 0).await;
    // Three replicas of each home shard, so that one may be away.
    let id = world.filled(CreateCollection { replication_factor: 3, ..clustered(2, POINTS) }).await;
    world.served(id, 1).await;
    world.without_graphs(id).await;
    world.groups.is_slow.store(true, Ordering::SeqCst);
    world.change(id, RoutingChange::Hash).await;
    world.until(id, "no operation", |_| world.catalog.state().operations.len() == 1).await;
    sleep(Duration::from_millis(1_000)).await;
    let state = world.catalog.state();
    let operation = state.operations.values().next().unwrap();
    assert_eq!((operation.kind, operation.steps_done), (OperationKind::ServeHomes, 0));
    assert_eq!(world.cluster(id).served(), Some(MapVersion(1)), "search shards answer until then");
    assert!(state.collections[&id].tuning.unindexed.is_empty());
    // One that leads no shard goes away and never builds.
    let leads = |node: &ListNode| world.groups.leads(NodeId(node.node));
    let away = world.nodes.iter().find(|node| !leads(node)).unwrap();
    away.away.store(true, Ordering::SeqCst);
    world.groups.away.lock().insert(NodeId(away.node));
    world.groups.is_slow.store(false, Ordering::SeqCst);
    world.until(id, "still by cluster", |of| of.routing == Routing::Hash).await;
    world.check(id);
    assert!(world.groups.unindexed().iter().all(|(_, node)| *node == NodeId(away.node)));
    assert!(world.catalog.state().operations.is_empty());
    world.stop.cancel();
    world.catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_map_is_supplied_while_another_is_filled() {
    let world = world(3, 0).await;
    let id = world.filled(clustered(2, POINTS)).await;
    world.served(id, 1).await;
    world.nodes[1].maps.lock().clear();
    world.groups.stuck.store(true, Ordering::SeqCst);
    world.catalog.train_map(id, within(5_000)).await.unwrap();
    world.until(id, "not begun", |of| of.routing.cluster().is_some_and(|of| of.next.is_some())).await;
    let until = within(20_000);
    while world.nodes[1].maps.lock().len() < 2 {
        assert!(tokio::time::Instant::now() < until, "the map that is served is missing");
        sleep(Duration::from_millis(20)).await;
    }
    // Nobody waits for a map whose collection goes.
    assert!(world.catalog.delete_collection("c", within(10_000)).await.unwrap());
    assert!(world.catalog.state().collections.is_empty());
    world.stop.cancel();
    world.catalog.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_replaced_before_search_shards_are_founded_does_not_hold_up_the_map() {
    let mut world = world(2, 0).await;
    let dying = ListNode { node: 3, refuses_copies: true.into(), ..ListNode::default() };
    let dying = world.join_as(dying, "n3").await;
    // All nodes have a replica of each shard.
    let create = CreateCollection { replication_factor: 3, ..clustered(2, POINTS) };
    let id = world.filled(create).await;
    world.until(id, "not begun", |of| of.routing.cluster().is_some_and(|of| of.next.is_some())).await;
    dying.away.store(true, Ordering::SeqCst);
    world.join(4, "n3", 0).await;
    world.served(id, 1).await;
    let collection = world.catalog.state().collections[&id].clone();
    let cluster = collection.routing.cluster().unwrap();
    assert!(cluster.shards.iter().all(|shard| shard.is_on(NodeId(4)) && !shard.is_on(NodeId(3))), "{cluster:?}");
    world.stop.cancel();
    world.catalog.shutdown().await;
}
