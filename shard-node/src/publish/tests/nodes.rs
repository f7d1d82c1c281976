//! Real nodes: a home shard, two search shards, a map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vicinal_common::api::{LoggedFilter, PointEdit, PutMap, ReplicaSpec, Selection, ShardApi, Tune, WriteAck, WriteOp};
use vicinal_common::error::Error;
use vicinal_common::filter::EVALUATOR_VERSION;
use vicinal_common::ids::{LogIndex, MapDigest, MapVersion, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED};
use vicinal_common::publish::{FeedChange, Filled, MapRef, PublishStatus, ShardRole};
use vicinal_common::tuning::Tuning;
use vicinal_common::vector::Vector;
use vicinal_index::Rows;
use vicinal_routing::{Placer, TrainOptions, train};

use crate::node::fixture::*;
use crate::shard::View;

const HOME: u64 = 1;
const SEARCH: [u64; 2] = [11, 12];

/// Numbers that look random.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| next()).collect()
}

/// Nodes, and the map that they place by.
struct World {
    cluster: Cluster,
    put: PutMap,
    map: MapRef,
    placer: Placer,
}

impl World {
    /// The home shard on the first `homes` nodes, the first search shard on the first node, the second on the last.
    async fn start(nodes: usize, homes: usize) -> World {
        let cluster = Cluster::start(nodes).await;
        cluster.introduce();
        cluster.make_on(spec(HOME), 0..homes).await;
        for (shard, node) in [(SEARCH[0], 0), (SEARCH[1], nodes - 1)] {
            cluster.make_on(ReplicaSpec { role: ShardRole::Search, ..spec(shard) }, node..node + 1).await;
        }
        let (put, map, placer) = map(1);
        let world = World { cluster, put, map, placer };
        world.tune(homes).await;
        world
    }

    async fn tune(&self, homes: usize) {
        let node = |i: usize| self.cluster.node(i).id();
        let last = self.cluster.nodes.len() - 1;
        let search_shards = [(ShardId(SEARCH[0]), vec![node(0)]), (ShardId(SEARCH[1]), vec![node(last)])];
        let tuning = Tuning { revision: 1, search_shards: BTreeMap::from(search_shards), ..Tuning::default() };
        for i in 0..homes {
            let tune = Tune { shard: ShardId(HOME), collection: COLLECTION, tuning: tuning.clone() };
            self.cluster.node(i).tune(tune).await.unwrap();
        }
    }

    /// Publishing begins. The map is on the last node only: the others have to fetch it.
    async fn begin(&self) {
        self.cluster.nodes.iter().flatten().next_back().unwrap().put_map(self.put.clone()).await.unwrap();
        self.home(WriteOp::Feed(FeedChange::Begin(self.map.clone()))).await;
    }

    async fn home(&self, op: WriteOp) -> WriteAck {
        self.cluster.write(write_of(HOME, op)).await.unwrap()
    }

    /// A view of a shard on the first node that leads it.
    async fn view(&self, shard: u64) -> Arc<View> {
        let leader = self.cluster.leader(shard).await.unwrap();
        self.cluster.node(leader).group(ShardId(shard)).unwrap().shard().view()
    }

    async fn status(&self) -> PublishStatus {
        let leader = self.cluster.leader(HOME).await.unwrap();
        let status = self.cluster.node(leader).status().await.unwrap();
        status.replicas.into_iter().find(|replica| replica.shard == ShardId(HOME)).unwrap().publish
    }

    fn places(&self, vector: &[f32]) -> BTreeSet<u64> {
        let places = self.placer.place(vector);
        [Some(places.home), places.copy].into_iter().flatten().map(|place| SEARCH[place as usize]).collect()
    }

    /// What each search shard should hold: versions by ids.
    async fn expected(&self) -> BTreeMap<u64, BTreeMap<PointId, LogIndex>> {
        let home = self.view(HOME).await;
        let mut expected: BTreeMap<u64, BTreeMap<PointId, LogIndex>> =
            SEARCH.iter().map(|shard| (*shard, BTreeMap::new())).collect();
        for (version, id) in home.newer_than(LogIndex(0)) {
            let copy = home.copy_of(id, UNNAMED).unwrap().unwrap();
            let Some(Vector::Dense(vector)) = copy.point.vectors.get(UNNAMED) else { continue };
            for shard in self.places(vector) {
                expected.get_mut(&shard).unwrap().insert(id, version);
            }
        }
        expected
    }

    async fn held(&self, shard: u64) -> BTreeMap<PointId, LogIndex> {
        let rows = self.view(shard).await.newer_than(LogIndex(0));
        rows.into_iter().map(|(version, id)| (id, version)).collect()
    }

    /// Every point is in its places, in its newest version.
    async fn check(&self) {
        for (shard, rows) in self.expected().await {
            let held = self.held(shard).await;
            let missing: Vec<_> = rows.iter().filter(|(id, version)| held.get(id) != Some(version)).collect();
            assert!(missing.is_empty(), "search shard {shard} lacks {missing:?}");
        }
    }

    /// And nothing else is there.
    async fn is_exact(&self) -> bool {
        for (shard, rows) in self.expected().await {
            if self.held(shard).await != rows {
                return false;
            }
        }
        true
    }

    /// An id whose vector is only in this search shard.
    fn id_in(&self, shard: u64) -> u64 {
        (0..).find(|id| self.places(&vector(*id)) == BTreeSet::from([shard])).unwrap()
    }
}

fn map(seed: u64) -> (PutMap, MapRef, Placer) {
    let sample = values(600 * DIM, 99);
    let trained = train(Rows { data: &sample, dim: DIM }, Metric::Euclid, TrainOptions::new(2, seed)).unwrap();
    let bytes: bytes::Bytes = trained.encode().into();
    let digest = MapDigest::of(&bytes);
    let shards = SEARCH.map(ShardId).to_vec();
    let map = MapRef { version: MapVersion(seed), vector: UNNAMED.into(), digest, bytes: bytes.len() as u64, shards };
    (PutMap { collection: COLLECTION, digest, bytes }, map, Placer::new(Arc::new(trained)))
}

fn vector(id: u64) -> Vec<f32> {
    values(DIM, id.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn points(ids: impl IntoIterator<Item = u64>) -> WriteOp {
    let point = |id| {
        let vectors = BTreeMap::from([(UNNAMED.to_owned(), vector(id).into())]);
        Point { id: PointId::Num(id), vectors, payload: Payload::EMPTY }
    };
    WriteOp::Upsert(Arc::new(ids.into_iter().map(point).collect()))
}

fn all_edited() -> WriteOp {
    let filter = LoggedFilter { evaluator: EVALUATOR_VERSION, json: "{}".into() };
    let fields = serde_json::json!({ "seen": true });
    let payload = Payload::from_fields(fields.as_object().unwrap()).unwrap();
    WriteOp::Edit {
        points: Selection::Matching { filter, from: None },
        edit: PointEdit::SetPayload { payload, key: None },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_are_in_their_places() {
    let world = World::start(2, 1).await;
    let before = world.home(points([7])).await;
    assert_eq!((before.copies.len(), before.map), (0, MapVersion(0)), "nothing is published yet");
    world.begin().await;
    let ack = world.home(points(100..160)).await;
    world.check_acked(100..160, &ack).await;
    assert_eq!(ack.copies.iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(), SEARCH);
    for (shard, index) in &ack.copies {
        assert!(world.view(shard.0).await.applied() >= *index);
    }
    // Others, again, and changed by a filter.
    for i in 0..20 {
        let ack = world.home(points(i * 5..i * 5 + 9)).await;
        assert_eq!(ack.map, MapVersion(1));
        world.check_acked(i * 5..i * 5 + 9, &ack).await;
    }
    let ack = world.home(all_edited()).await;
    assert!(ack.effect.affected > 100);
    world.check().await;
    let one = world.id_in(SEARCH[0]);
    let ack = world.home(points([one])).await;
    assert_eq!(ack.copies.iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(), [SEARCH[0]]);
    // Deleting waits for nobody, and the copies go soon.
    let ack = world.home(WriteOp::Delete((100..150).map(PointId::Num).collect())).await;
    assert_eq!((ack.copies.len(), ack.map), (0, MapVersion(1)));
    until("copies of deleted points are gone", async || world.is_exact().await).await;
    // Publishing ends.
    world.home(WriteOp::Feed(FeedChange::End { version: MapVersion(1) })).await;
    let ack = world.home(points([1_000])).await;
    assert_eq!((ack.copies.len(), ack.map), (0, MapVersion(0)));
    let is_idle = |status: PublishStatus| status.targets.is_empty() && status.behind == 0;
    until("the publisher is idle", async || is_idle(world.status().await)).await;
}

impl World {
    async fn check_acked(&self, ids: std::ops::Range<u64>, ack: &WriteAck) {
        for id in ids {
            for shard in self.places(&vector(id)) {
                assert_eq!(self.held(shard).await.get(&PointId::Num(id)), Some(&ack.index));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_points_are_filled_in_while_others_are_written() {
    let world = World::start(2, 1).await;
    for i in 0..20 {
        world.home(points(i * 40..i * 40 + 40)).await;
    }
    world.begin().await;
    for i in 0..10 {
        world.home(points(i * 70..i * 70 + 3)).await;
    }
    until("it is filled", async || world.status().await.targets.iter().all(|target| target.is_filled)).await;
    assert!(world.is_exact().await);
    let status = world.status().await;
    assert_eq!(status.targets[0].rows_filled, 800);
    until("the log says so", async || {
        let view = world.view(HOME).await;
        view.feed().targets[0].filled == Filled::Done && view.feed().published > LogIndex(21)
    })
    .await;
    // The mark itself is nothing to mark.
    let applied = world.view(HOME).await.applied();
    sleep(Duration::from_millis(2_500)).await;
    assert_eq!(world.view(HOME).await.applied(), applied);
    assert_eq!(world.status().await.behind, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_shard_that_is_away_holds_up_only_its_own() {
    let mut world = World::start(2, 1).await;
    world.begin().await;
    world.home(points(0..20)).await;
    let (here, away) = (world.id_in(SEARCH[0]), world.id_in(SEARCH[1]));
    world.cluster.crash(1).await;
    world.cluster.introduce();
    let began = Instant::now();
    let refused = world.cluster.write(write_of(HOME, points([away]))).await;
    let Err(Error::Timeout(words)) = refused else { panic!("{refused:?}") };
    assert!(words.contains("stored, but search shard 12 has not taken its copy yet"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut hasty = write_of(HOME, points([away]));
    hasty.deadline = Instant::now() + Duration::from_millis(400);
    assert!(matches!(world.cluster.write(hasty).await, Err(Error::Timeout(_))));
    for _ in 0..5 {
        let ack = world.home(points([here])).await;
        assert_eq!(ack.copies.len(), 1);
    }
    assert!(world.status().await.behind > 0);
    // Its home shard begins anew meanwhile, and must not take for published what is not.
    world.cluster.crash(0).await;
    world.cluster.restart(0).await;
    world.cluster.introduce();
    let retried = write_of(HOME, points([away + 1_000_000]));
    assert!(world.cluster.write(retried.clone()).await.is_err());
    world.cluster.restart(1).await;
    world.cluster.introduce();
    let ack = world.cluster.write(retried).await.unwrap();
    assert!(!ack.copies.is_empty());
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on() {
    let mut world = World::start(3, 3).await;
    world.begin().await;
    world.home(points(0..50)).await;
    for round in 0..2 {
        // The first search shard is on the first node, so that stays.
        let leader = world.cluster.leader(HOME).await.unwrap();
        let group = world.cluster.node(leader).group(ShardId(HOME)).unwrap();
        group.hand_over().await;
        until("another one leads", async || {
            let now = world.cluster.leader(HOME).await;
            now.is_some() && now != Some(leader)
        })
        .await;
        let request = write_of(HOME, points(round * 100..round * 100 + 70));
        let ack = world.cluster.write(request.clone()).await.unwrap();
        world.check_acked(round * 100..round * 100 + 70, &ack).await;
        // The same request again is answered alike.
        let again = world.cluster.write(request).await.unwrap();
        assert_eq!(again.index, ack.index);
        world.check().await;
    }
    world.cluster.stop(1).await;
    world.cluster.introduce();
    until("a leader", async || world.cluster.leader(HOME).await.is_some()).await;
    world.home(points(40..90)).await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_map_nothing_is_acknowledged() {
    let world = World::start(2, 1).await;
    world.home(WriteOp::Feed(FeedChange::Begin(world.map.clone()))).await;
    let mut hasty = write_of(HOME, points(0..5));
    hasty.deadline = Instant::now() + Duration::from_millis(400);
    let refused = world.cluster.write(hasty).await;
    let Err(Error::Timeout(words)) = refused else { panic!("{refused:?}") };
    assert!(words.contains("not published yet") && words.contains("is on no node that is known here"), "{words}");
    world.cluster.node(1).put_map(world.put.clone()).await.unwrap();
    let ack = world.home(points(0..5)).await;
    assert_eq!(ack.map, MapVersion(1));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_are_told_when_another_one_leads() {
    let mut world = World::start(3, 3).await;
    world.begin().await;
    world.home(points(0..5)).await;
    let away = world.id_in(SEARCH[1]);
    world.cluster.crash(2).await;
    world.cluster.introduce();
    until("a leader", async || world.cluster.leader(HOME).await.is_some()).await;
    let leader = world.cluster.leader(HOME).await.unwrap();
    let node = world.cluster.node(leader).clone();
    let request = write_of(HOME, points([away]));
    let waiting = tokio::spawn({
        let (node, request) = (node.clone(), request.clone());
        async move { (node.write(request).await, Instant::now()) }
    });
    sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    node.group(ShardId(HOME)).unwrap().hand_over().await;
    let (answer, at) = waiting.await.unwrap();
    assert!(matches!(answer, Err(Error::WrongLeader { .. })), "{answer:?}");
    assert!(at < began + Duration::from_secs(2));
    // It is stored: the next leader acknowledges the same request, once the search shard is back.
    world.cluster.restart(2).await;
    world.cluster.introduce();
    let ack = world.cluster.write(request).await.unwrap();
    assert_eq!(ack.effect.affected, 1);
    world.check_acked(away..away + 1, &ack).await;
}
