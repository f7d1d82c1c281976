//! Search shards with garbage of all kinds, over real nodes; and the bookkeeping of passes.

use vicinal_common::api::{FoundGroup, PutMap, ReplicaSpec, ShardApi, Tune};
use vicinal_common::ids::{LogIndex, MapDigest, NodeId};
use vicinal_common::metric::Metric;
use vicinal_common::point::UNNAMED;
use vicinal_common::publish::{Copy, FeedChange, MapRef};
use vicinal_common::tuning::Tuning;
use vicinal_routing::{CentroidMap, D1Quantiles, Flatness, MapParts, ThetaTable};

use super::*;
use crate::node::fixture::*;

const HOMES: [u64; 2] = [1, 2];
const SEARCH: u64 = 3;
/// Named in the map only.
const OTHER_SEARCH: u64 = 4;

/// Vectors near 0 belong to shard 3, those near 100 to shard 4.
fn map() -> (MapRef, PutMap) {
    let parts = MapParts {
        version: 1,
        metric: Metric::Euclid,
        dim: DIM,
        shards: 2,
        centroids: [0.0, 100.0].iter().flat_map(|x| [*x; DIM]).collect(),
        radius: vec![50.0; 2],
        weight: vec![1.0; 2],
        shard_of: vec![0, 1],
        tau: 0.1,
        copy_ratio: 0.0,
        thetas: ThetaTable::default(),
        d1: D1Quantiles::default(),
        flatness: Flatness::default(),
    };
    let bytes: bytes::Bytes = CentroidMap::new(parts).unwrap().encode().into();
    let digest = MapDigest::of(&bytes);
    let shards = vec![ShardId(SEARCH), ShardId(OTHER_SEARCH)];
    let vector = UNNAMED.to_owned();
    let map = MapRef { version: MapVersion(1), digest, bytes: bytes.len() as u64, shards, vector };
    (map, PutMap { collection: COLLECTION, digest, bytes })
}

/// Two nodes that know each other, home shards and a search shard with a replica on each.
async fn start() -> Cluster {
    let cluster = Cluster::start_with(2, |options| {
        options.sweep = SweepOptions {
            page_bytes: 512,
            pause: Duration::from_millis(10),
            grace: Duration::from_millis(50),
            again: Duration::from_millis(100),
            again_soon: Duration::from_millis(50),
        };
    })
    .await;
    cluster.introduce();
    for shard in HOMES {
        cluster.make_shard(shard).await;
    }
    let voters = cluster.nodes.iter().flatten().map(|node| (node.id(), node.address().clone())).collect();
    for node in cluster.nodes.iter().flatten() {
        node.create_replica(ReplicaSpec { role: ShardRole::Search, ..spec(SEARCH) }).await.unwrap();
    }
    cluster.node(1).found_group(FoundGroup { shard: ShardId(SEARCH), voters }).await.unwrap();
    until("a first leader", async || cluster.leader(SEARCH).await.is_some()).await;
    cluster
}

/// Tells the search shard its home shards.
async fn tune(cluster: &Cluster, revision: u64, homes: &[u64], map: &MapRef) {
    let nodes: Vec<NodeId> = cluster.nodes.iter().flatten().map(|node| node.id()).collect();
    let home_shards = homes.iter().map(|shard| (ShardId(*shard), nodes.clone())).collect();
    let tuning = Tuning { revision, home_shards, epoch: EPOCH, map: Some(map.clone()), ..Tuning::default() };
    for node in cluster.nodes.iter().flatten() {
        let tuning = tuning.clone();
        node.tune(Tune { shard: ShardId(SEARCH), collection: COLLECTION, tuning }).await.unwrap();
    }
}

fn copy(id: u64, version: LogIndex) -> Copy {
    Copy { version, point: point(id) }
}

/// Waits until the search shard holds these of the ids below 200, on both nodes.
async fn until_held(cluster: &Cluster, what: &str, held: &[u64]) {
    until(what, async || {
        let mut all = true;
        for node in cluster.nodes.iter().flatten() {
            all &= ids(node, SEARCH, LogIndex(0), 0..200).await == held;
        }
        all
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_of_all_kinds_goes_and_nothing_else() {
    let cluster = start().await;
    let (map, put) = map();
    for node in cluster.nodes.iter().flatten() {
        node.put_map(put.clone()).await.unwrap();
    }
    // Even ids live in the first home shard, odd ones in the second.
    let even = cluster.write(upsert(1, (0..20).step_by(2).chain([90]))).await.unwrap().index;
    let odd = cluster.write(upsert(2, (1..20).step_by(2))).await.unwrap().index;
    cluster.write(write_of(1, WriteOp::Delete(vec![PointId::Num(8)]))).await.unwrap();
    cluster.write(upsert(1, [4].into_iter())).await.unwrap();
    for shard in HOMES {
        cluster.write(write_of(shard, WriteOp::Feed(FeedChange::Begin(map.clone())))).await.unwrap();
    }
    // Of point 6 there is a later version that is not published. No search shard takes it here, so the write may time out.
    let _ = cluster.write(upsert(1, [6].into_iter())).await;

    let maps = MapRange { oldest: map.version, newest: map.version };
    cluster.write(write_of(SEARCH, WriteOp::Maps(maps))).await.unwrap();
    let mut points: Vec<Copy> = (0..20).map(|id| copy(id, if id % 2 == 0 { even } else { odd })).collect();
    // Misplaced, and one that no home shard has heard of.
    points.extend([copy(90, even), copy(150, odd)]);
    let copies = Copies { points, ..Copies::default() };
    cluster.write(write_of(SEARCH, WriteOp::Copies(Arc::new(copies)))).await.unwrap();

    // While a home shard does not answer, only what is certain goes: misplaced, and replaced.
    tune(&cluster, 1, &[1, 2, 99], &map).await;
    // Point 150 is nearer to the other shard, too.
    let mut held: Vec<u64> = (0..20).filter(|id| *id != 4).collect();
    until_held(&cluster, "the removal of what is certain", &held).await;
    tune(&cluster, 2, &[1, 2], &map).await;
    held.retain(|id| *id != 8);
    until_held(&cluster, "the removal of what was deleted", &held).await;
    // A few passes later still.
    tokio::time::sleep(Duration::from_millis(500)).await;
    until_held(&cluster, "nothing more", &held).await;

    let mark = FeedChange::Mark { published: LogIndex(u64::MAX), filled: Vec::new() };
    cluster.write(write_of(1, WriteOp::Feed(mark))).await.unwrap();
    held.retain(|id| *id != 6);
    until_held(&cluster, "the removal of what was replaced and published", &held).await;

    // A new leader goes on.
    let orphan = Copies { points: vec![copy(33, odd)], ..Copies::default() };
    let leader = cluster.leader(SEARCH).await.unwrap();
    cluster.node(leader).group(ShardId(SEARCH)).unwrap().hand_over().await;
    cluster.write(write_of(SEARCH, WriteOp::Copies(Arc::new(orphan)))).await.unwrap();
    until_held(&cluster, "the removal by another leader", &held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_home_shards_or_with_two_maps_nothing_goes() {
    let cluster = start().await;
    let (map, put) = map();
    for node in cluster.nodes.iter().flatten() {
        node.put_map(put.clone()).await.unwrap();
    }
    let version = cluster.write(upsert(1, [90].into_iter())).await.unwrap().index;
    cluster.write(upsert(2, [1].into_iter())).await.unwrap();
    let copies = Copies { points: vec![copy(90, version), copy(7, version)], ..Copies::default() };
    cluster.write(write_of(SEARCH, WriteOp::Copies(Arc::new(copies)))).await.unwrap();
    let maps = MapRange { oldest: map.version, newest: MapVersion(2) };
    cluster.write(write_of(SEARCH, WriteOp::Maps(maps))).await.unwrap();
    tune(&cluster, 1, &[], &map).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    until_held(&cluster, "nothing", &[7, 90]).await;
    // Point 90 is misplaced by the older of two maps only, which proves nothing.
    tune(&cluster, 2, &HOMES, &map).await;
    until_held(&cluster, "the removal of what was deleted", &[90]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    until_held(&cluster, "nothing more", &[90]).await;
}

fn reason(term: u64, newest: u64) -> Reason {
    let maps = MapRange { oldest: MapVersion(1), newest: MapVersion(newest) };
    Reason { term, maps, served: MapVersion(1) }
}

#[test]
fn a_pass_begins_again_for_another_reason_and_after_a_rest() {
    let now = Instant::now();
    let mut progress = Progress::default();
    assert!(progress.is_due(reason(1, 1), now));
    let pass = progress.pass.as_mut().unwrap();
    pass.from = Some(PointId::Num(5));
    assert!(progress.is_due(reason(1, 1), now));
    assert_eq!(progress.pass.as_ref().unwrap().from, Some(PointId::Num(5)), "it goes on");
    assert!(progress.is_due(reason(1, 2), now));
    assert_eq!(progress.pass.as_ref().unwrap().from, None, "from the beginning");
    progress.pass = None;
    progress.rested = Some((reason(1, 2), now + Duration::from_secs(9)));
    assert!(!progress.is_due(reason(1, 2), now) && progress.pass.is_none());
    assert!(progress.is_due(reason(2, 2), now));
    progress.pass = None;
    assert!(progress.is_due(reason(1, 2), now + Duration::from_secs(9)));
}

#[test]
fn pairs_wait_for_their_time_and_fit_an_entry() {
    let now = Instant::now();
    let pairs =
        |count: usize| (0..count as u64).map(|id| (PointId::Num(id), LogIndex(1))).collect::<Vec<CopyVersion>>();
    let mut progress = Progress::default();
    progress.waiting.push_back((now, pairs(10)));
    progress.waiting.push_back((now, pairs(PAIRS_MAX)));
    progress.waiting.push_back((now + Duration::from_secs(1), pairs(3)));
    assert_eq!(progress.take_due(now).len(), PAIRS_MAX);
    assert_eq!(progress.take_due(now).len(), 10);
    assert!(progress.take_due(now).is_empty());
    assert_eq!(progress.waiting(), 3);
    assert_eq!(progress.take_due(now + Duration::from_secs(1)).len(), 3);
    assert_eq!((progress.waiting(), progress.waiting.len()), (0, 0));
}
