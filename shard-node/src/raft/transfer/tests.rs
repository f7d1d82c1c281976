//! Transfers that are cut, damaged, or meet a receiver that has forgotten them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use vicinal_common::api::{ShardDigest, WriteOp};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::payload::Payload;
use vicinal_common::point::Point;
use vicinal_common::transport::Handler;

use super::*;
use crate::node::ShardNode;
use crate::node::fixture::*;
use crate::shard::{Builder, BuilderOptions, Shard, ShardEnv, ShardOptions};

/// A point of about half a chunk.
fn heavy(id: u64) -> Point {
    let mut fields = serde_json::Map::new();
    fields.insert("text".into(), "x".repeat(500_000).into());
    Point { payload: Payload::from_fields(&fields).unwrap(), ..point(id) }
}

/// Writes `points` heavy points in several segments.
async fn fill(cluster: &Cluster, points: std::ops::Range<u64>) -> LogIndex {
    let mut last = LogIndex(0);
    for id in points {
        last = cluster.write(write_of(1, WriteOp::Upsert(Arc::new(vec![heavy(id)])))).await.unwrap().index;
        if id % 4 == 3 {
            flush(cluster.leader(1).await.map(|leader| cluster.node(leader)).unwrap()).await;
        }
    }
    last
}

async fn flush(node: &ShardNode) {
    let shard = node.group(ShardId(1)).unwrap().shard().clone();
    tokio::task::spawn_blocking(move || shard.flush_blocking()).await.unwrap().unwrap();
}

/// A shard with data, and an empty one that receives it.
struct Scene {
    cluster: Cluster,
    source: Arc<Shard>,
    target: Arc<Shard>,
    receiver: Receiver,
}

impl Scene {
    async fn start() -> Scene {
        let cluster = Cluster::start(1).await;
        cluster.make_shard(1).await;
        fill(&cluster, 0..16).await;
        flush(cluster.node(0)).await;
        let source = cluster.node(0).group(ShardId(1)).unwrap().shard().clone();
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(9));
        let builder = Builder::start(BuilderOptions::default()).unwrap();
        let env = ShardEnv { disk: disk.clone(), builder, maps: Arc::new(()), options: ShardOptions::default() };
        let target = Shard::create(&env, Path::new("/target"), &spec(1)).unwrap();
        let receiver = Receiver { shard: target.clone(), disk, incoming: Arc::default() };
        Scene { cluster, source, target, receiver }
    }

    fn snapshot(&self) -> Arc<ShardSnapshot> {
        Arc::new(self.source.snapshot().unwrap())
    }

    fn chunks(&self, snapshot: &Arc<ShardSnapshot>, transfer: u64) -> Chunks {
        Chunks::new(Arc::new(self.cluster.disks[0].clone()), snapshot.clone(), transfer)
    }

    /// Begins an attempt and stands where the receiver wants to go on.
    async fn begin(&self, snapshot: &Arc<ShardSnapshot>, transfer: u64) -> (Chunks, Progress) {
        let mut chunks = self.chunks(snapshot, transfer);
        let at = self.receiver.begin(chunks.begin()).await.unwrap();
        chunks.seek(at).unwrap();
        (chunks, at)
    }

    /// Sends all that is missing and installs it.
    async fn complete(&self, snapshot: &Arc<ShardSnapshot>, transfer: u64) {
        let (mut chunks, _) = self.begin(snapshot, transfer).await;
        while let Some(chunk) = chunks.next().unwrap() {
            self.receiver.chunk(chunk).await.unwrap();
        }
        self.install(snapshot, transfer).await;
    }

    async fn install(&self, snapshot: &Arc<ShardSnapshot>, transfer: u64) {
        let received = self.receiver.finish(transfer, snapshot.manifest.clone()).await.unwrap();
        let SnapshotData::Received { manifest, incoming } = received else { panic!("a received snapshot") };
        self.target.finish_install(&manifest).unwrap();
        drop(incoming);
        assert_eq!(digest(&self.target), digest(&self.source));
    }
}

fn digest(shard: &Shard) -> ShardDigest {
    shard.view().digest().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_is_cut_after_each_chunk_goes_on_and_installs() {
    let scene = Scene::start().await;
    let snapshot = scene.snapshot();
    let mut whole = scene.chunks(&snapshot, 0);
    let total = std::iter::from_fn(|| whole.next().unwrap()).count();
    assert!(total >= 8 && snapshot.files.len() >= 3, "{total} chunks of {} files", snapshot.files.len());
    let mut last = None;
    let mut attempt = 0;
    loop {
        attempt += 1;
        // The sender may have been started anew: nothing is kept of the attempt before.
        let (mut chunks, at) = scene.begin(&snapshot, attempt).await;
        assert!(last < Some(at), "{at:?} after {last:?}");
        last = Some(at);
        let Some(chunk) = chunks.next().unwrap() else { break };
        scene.receiver.chunk(chunk.clone()).await.unwrap();
        // A lost answer: the same chunk again changes nothing. One of an older attempt is not taken.
        scene.receiver.chunk(chunk.clone()).await.unwrap();
        let old = scene.receiver.chunk(Chunk { transfer: attempt - 1, ..chunk }).await;
        assert!(matches!(&old, Err(Error::Unavailable(why)) if why.contains("begin again")), "{old:?}");
    }
    assert_eq!(attempt, total as u64 + 1, "no chunk was sent twice");
    scene.install(&snapshot, attempt).await;
    // The answer to the installation was lost: nothing is sent again.
    let (mut chunks, _) = scene.begin(&snapshot, 99).await;
    assert!(chunks.next().unwrap().is_none());
    assert!(scene.receiver.finish(99, snapshot.manifest.clone()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_is_refused_and_the_right_one_goes_on() {
    let scene = Scene::start().await;
    let snapshot = scene.snapshot();
    let (mut chunks, _) = scene.begin(&snapshot, 1).await;
    scene.receiver.chunk(chunks.next().unwrap().unwrap()).await.unwrap();
    let good = chunks.next().unwrap().unwrap();
    let mut bytes = good.bytes.to_vec();
    bytes[1000] ^= 1;
    let damaged = Chunk { bytes: bytes.into(), ..good.clone() };
    let refused = scene.receiver.chunk(damaged.clone()).await;
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("on its way")), "{refused:?}");
    // Out of order is no harm either.
    let mut later = scene.chunks(&snapshot, 1);
    later.seek(Progress { file: 1, offset: 0 }).unwrap();
    assert!(matches!(scene.receiver.chunk(later.next().unwrap().unwrap()).await, Err(Error::BadInput(_))));
    let beyond = Chunk { offset: u64::MAX - 5, ..good.clone() };
    assert!(matches!(scene.receiver.chunk(beyond).await, Err(Error::BadInput(_))));
    scene.receiver.chunk(good).await.unwrap();
    scene.complete(&snapshot, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_damaged_at_its_sender_is_found_before_it_is_installed() {
    let scene = Scene::start().await;
    let snapshot = scene.snapshot();
    let (mut chunks, _) = scene.begin(&snapshot, 1).await;
    let mut refused = None;
    while refused.is_none() {
        let chunk = chunks.next().unwrap().unwrap();
        let mut bytes = chunk.bytes.to_vec();
        bytes[7] ^= 1;
        let crc = crc32fast::hash(&bytes);
        refused = scene.receiver.chunk(Chunk { bytes: bytes.into(), crc, ..chunk }).await.err();
    }
    assert!(matches!(&refused, Some(Error::Unavailable(why)) if why.contains("at its sender")), "{refused:?}");
    let (_, at) = scene.begin(&snapshot, 2).await;
    assert_eq!(at, Progress::default(), "it starts over");
    scene.complete(&snapshot, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_restarted_and_another_snapshot_start_over() {
    let mut scene = Scene::start().await;
    let first = scene.snapshot();
    let send_some = async |scene: &Scene, snapshot: &Arc<ShardSnapshot>, transfer| {
        let (mut chunks, at) = scene.begin(snapshot, transfer).await;
        assert_eq!(at, Progress::default());
        for _ in 0..5 {
            scene.receiver.chunk(chunks.next().unwrap().unwrap()).await.unwrap();
        }
        chunks
    };
    let mut chunks = send_some(&scene, &first, 1).await;
    // What it had in memory is gone; files of before are still there.
    scene.receiver.incoming = Arc::default();
    let lost = scene.receiver.chunk(chunks.next().unwrap().unwrap()).await;
    assert!(matches!(&lost, Err(Error::Unavailable(why)) if why.contains("begin again")), "{lost:?}");
    assert!(scene.receiver.finish(1, first.manifest.clone()).await.is_err());
    send_some(&scene, &first, 2).await;
    fill(&scene.cluster, 100..104).await;
    flush(scene.cluster.node(0)).await;
    let second = scene.snapshot();
    assert!(second.mark.index > first.mark.index);
    send_some(&scene, &second, 3).await;
    scene.complete(&second, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_makes_no_sense_is_not_followed() {
    let scene = Scene::start().await;
    let snapshot = scene.snapshot();
    let files = snapshot.files.len() as u32;
    for (file, offset) in [(0, u64::MAX), (files, 1), (files + 1, 0), (u32::MAX, 0)] {
        assert!(scene.chunks(&snapshot, 1).seek(Progress { file, offset }).is_err());
    }
}

/// A node whose connections break: of three chunks one arrives, one is lost, and of one the answer is lost.
struct Breaking {
    node: Arc<ShardNode>,
    chunks: AtomicUsize,
    taken: AtomicUsize,
    begun: AtomicUsize,
}

#[async_trait]
impl Handler for Breaking {
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes> {
        if route.ends_with(BEGIN) {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        if !route.ends_with(CHUNK) {
            return self.node.handle(route, body).await;
        }
        match self.chunks.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => {
                self.taken.fetch_add(1, Ordering::SeqCst);
                self.node.handle(route, body).await
            }
            1 => None,
            _ => {
                self.taken.fetch_add(1, Ordering::SeqCst);
                self.node.handle(route, body).await;
                None
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_catches_up_over_connections_that_break() {
    let mut cluster = Cluster::start_with(3, |options| options.group.keep_bytes_max = 0).await;
    cluster.make_shard(1).await;
    cluster.write(upsert(1, 1000..1010)).await.unwrap();
    let down = (cluster.leader(1).await.unwrap() + 1) % 3;
    cluster.crash(down).await;
    let last = fill(&cluster, 0..16).await;
    let mut largest = BTreeMap::new();
    for i in (0..3).filter(|i| *i != down) {
        flush(cluster.node(i)).await;
        let group = cluster.node(i).group(ShardId(1)).unwrap();
        until("the purge", async || group.log().bounds().unwrap().first > last.0).await;
        let snapshot = Arc::new(group.shard().snapshot().unwrap());
        let mut chunks = Chunks::new(Arc::new(cluster.disks[i].clone()), snapshot, 0);
        largest.insert(i, std::iter::from_fn(|| chunks.next().unwrap()).count());
    }
    cluster.restart(down).await;
    let breaking = Arc::new(Breaking {
        node: cluster.node(down).clone(),
        chunks: AtomicUsize::new(0),
        taken: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
    });
    cluster.transport.register(cluster.node(down).address().clone(), breaking.clone());
    until("the snapshot", async || count(cluster.node(down), 1, last).await == Ok(26)).await;
    let (chunks, taken) = (breaking.chunks.load(Ordering::SeqCst), breaking.taken.load(Ordering::SeqCst));
    assert!(breaking.begun.load(Ordering::SeqCst) > 3, "it broke several times: {chunks} chunks");
    assert!(largest.values().any(|all| taken <= all + 1), "{taken} chunks arrived of {largest:?}");
    let node = cluster.leader(1).await.unwrap();
    let digest_of = |i: usize| digest(cluster.node(i).group(ShardId(1)).unwrap().shard());
    assert_eq!(digest_of(down), digest_of(node));
}
