//! Search shards are made even when somebody asks for it and by themselves, whatever fails meanwhile and whoever leads.

use std::sync::Arc;

use vicinal_common::collection::VectorSchema;
use vicinal_common::metric::Metric;
use vicinal_routing::{CentroidMap, Placer, Spread};

use super::*;
use crate::meta::OperationKind;

const BASE: u64 = 800;
const MORE: u64 = 700;
/// What is left on the points that cells are moved by is less; some are held out.
const UNEVEN: f64 = 1.15;

/// Places on a grid, of which two in a corner have got more points.
fn vectors(more: u64) -> Vec<(u64, Vec<f32>)> {
    let noise = |id: u64, salt: u64| ((id.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 7) % 1_000) as f32 / 250.0;
    let vector = |id: u64| {
        let place = if id < BASE { id % 36 } else { id % 2 };
        let (x, y) = ((place % 6) as f32, (place / 6) as f32);
        (id, vec![x * 4.0 + noise(id, 1), y * 4.0 + noise(id, 2 << 9), noise(id, 3 << 10), 0.0])
    };
    (0..BASE + more).map(vector).collect()
}

fn create(balance: bool) -> CreateCollection {
    let mut create = clustered(3, BASE);
    if let Routing::Cluster(cluster) = &mut create.routing {
        cluster.balance = balance;
    }
    create.schema.vectors = [(String::new(), VectorSchema::dense(4, Metric::Euclid))].into();
    create
}

impl World {
    async fn on_a_grid(&self, balance: bool) -> CollectionId {
        self.catalog.create_collection(create(balance), |_| true, within(60_000)).await.unwrap();
        let id = self.catalog.state().resolve("c").unwrap().id;
        self.grow(id, 0);
        id
    }

    /// Fills the home shards with all points of the grid, and more at two places.
    fn grow(&self, id: CollectionId, more: u64) {
        let collection = self.catalog.state().collections[&id].clone();
        for (part, shard) in (0..).zip(collection.shard_ids()) {
            self.groups.fill(shard, vectors(more).into_iter().filter(|(id, _)| id / 2 % 2 == part).collect());
        }
    }

    /// The fullest search shard by the mean, by the map that is served.
    fn imbalance(&self, id: CollectionId, more: u64) -> f64 {
        let cluster = self.cluster(id);
        let digest = cluster.serving.unwrap().map.digest;
        let bytes = self.nodes[0].maps.lock()[&digest].1.clone();
        let placer = Placer::new(Arc::new(CentroidMap::decode(&bytes).unwrap()));
        let values: Vec<f32> = vectors(more).into_iter().flat_map(|(_, vector)| vector).collect();
        Spread::of(&placer, &values).imbalance()
    }

    async fn balance(&self, id: CollectionId, version: u64) {
        self.catalog.balance_map(id, MapVersion(version), within(60_000)).await.unwrap();
    }

    async fn calm(&self, id: CollectionId) {
        self.until(id, "not calm", |of| of.routing.cluster().is_some_and(|of| of.under_way().is_none())).await;
    }

    /// First map, made even, nothing more to gain, one taken back.
    async fn even_life(&self) {
        let id = self.on_a_grid(false).await;
        self.served(id, 1).await;
        let (trained, shards) = (self.cluster(id).trained, self.cluster(id).shards);
        assert!(trained.is_some_and(|found| found.points == BASE && found.fan_out > 0.3 && found.fan_out <= 1.0));
        self.grow(id, MORE);
        let before = self.imbalance(id, MORE);
        assert!(before > 1.2, "{before}");
        self.balance(id, 2).await;
        self.served(id, 2).await;
        self.check(id);
        let after = self.imbalance(id, MORE);
        assert!(after < UNEVEN, "{after} from {before}");
        assert_eq!((self.cluster(id).trained, self.cluster(id).shards), (trained, shards));

        // Too few points to tell anything by.
        self.groups.fill(ShardId(0), Vec::new());
        self.groups.fill(ShardId(1), vectors(0)[..20].to_vec());
        self.balance(id, 3).await;
        self.calm(id).await;
        assert_eq!(self.cluster(id).last_version, MapVersion(2), "there was nothing to gain");
        assert!(self.catalog.state().operations.is_empty());

        self.grow(id, 0);
        self.groups.stuck.store(true, Ordering::SeqCst);
        self.balance(id, 3).await;
        self.until(id, "not begun", |of| of.routing.cluster().is_some_and(|of| of.next.is_some())).await;
        let kinds: Vec<_> = self.catalog.state().operations.values().map(|operation| operation.kind).collect();
        assert_eq!(kinds, [OperationKind::BalanceMap]);
        self.catalog.abort_map(id, MapVersion(3), within(60_000)).await.unwrap();
        self.served(id, 2).await;
        self.check(id);
        self.stop.cancel();
        self.catalog.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_move_until_shards_are_even() {
    let world = world(3, 0).await;
    world.even_life().await;
    println!("{} calls", world.groups.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_reconcilers_at_once_balance_over_failing_nodes() {
    let world = world(3, 7).await;
    world.reconcile(&world.stop);
    world.even_life().await;
}

/// Some calls of a life after its first map, about.
fn calls() -> impl Iterator<Item = usize> {
    (50..170).step_by(8)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_balancing_fails_once_and_is_made_again() {
    stream::iter(calls())
        .for_each_concurrent(AT_ONCE / 4, |call| {
            interrupted(call, false, async |world: &World| world.even_life().await)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_balancing_comes_to_the_same_end() {
    stream::iter(calls())
        .for_each_concurrent(AT_ONCE / 4, |call| interrupted(call, true, async |world: &World| world.even_life().await))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uneven_shards_are_balanced_without_being_asked() {
    let world = world(3, 0).await;
    let id = world.on_a_grid(false).await;
    world.served(id, 1).await;
    world.grow(id, MORE);
    world.until(id, "not looked at", |of| of.routing.cluster().is_some_and(|of| of.measured.is_some())).await;
    let measured = world.cluster(id).measured.unwrap();
    assert!(measured.imbalance > 1.2 && measured.points == BASE + MORE, "{measured:?}");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(world.cluster(id).under_way(), None, "it is switched off");

    let on = RoutingChange::Settings {
        search_shards: None,
        copies: None,
        recall_target: None,
        from_points: None,
        balance: Some(true),
    };
    world.change(id, on).await;
    world
        .until(id, "not balanced", |of| of.routing.cluster().is_some_and(|of| of.served() > Some(MapVersion(1))))
        .await;
    world.calm(id).await;
    world.check(id);
    let after = world.imbalance(id, MORE);
    assert!(after < UNEVEN, "{after}");
    // And not again.
    let served = world.cluster(id).served();
    sleep(Duration::from_secs(13)).await;
    assert_eq!((world.cluster(id).served(), world.cluster(id).under_way()), (served, None));
    world.stop.cancel();
    world.catalog.shutdown().await;
}
