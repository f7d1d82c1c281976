//! Shard nodes for tests: some nodes on disks in memory, joined by a transport within the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;
use vicinal_common::api::{
    CountRequest, FoundGroup, NodeDirectory, PointParts, ReadContext, ReplicaSpec, RetrieveRequest, SearchQuery,
    ShardApi, WriteAck, WriteOp, WriteRequest,
};
use vicinal_common::clock::SystemClock;
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::consistency::Consistency;
use vicinal_common::disk::FaultyDisk;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, RequestId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED};
use vicinal_common::publish::ShardRole;
use vicinal_common::rng::SeededRng;
use vicinal_common::transport::{Address, LocalTransport};

use super::{NodeEnv, NodeOptions, ShardNode};
use crate::service::SearchPool;
use crate::shard::{Builder, BuilderOptions};

pub(crate) const COLLECTION: CollectionId = CollectionId(Uuid::from_u128(7));
pub(crate) const EPOCH: Epoch = Epoch(1);
pub(crate) const DIM: usize = 4;

static REQUESTS: AtomicU64 = AtomicU64::new(1);

pub(crate) fn request_id() -> RequestId {
    RequestId(u128::from(REQUESTS.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) fn spec(shard: u64) -> ReplicaSpec {
    let vector = VectorSchema::dense(DIM, Metric::Euclid);
    let schema = CollectionSchema {
        vectors: BTreeMap::from([(UNNAMED.to_owned(), vector)]),
        hnsw: HnswConfig::default(),
        indexing_threshold_kib: CollectionSchema::INDEXING_THRESHOLD_KIB,
    };
    ReplicaSpec { shard: ShardId(shard), collection: COLLECTION, schema, epoch: EPOCH, role: ShardRole::Home }
}

/// Point `id`, whose vector is `id` in every place.
pub(crate) fn point(id: u64) -> Point {
    let vectors = BTreeMap::from([(UNNAMED.to_owned(), vec![id as f32; DIM].into())]);
    Point { id: PointId::Num(id), vectors, payload: Payload::EMPTY }
}

pub(crate) fn upsert(shard: u64, ids: impl Iterator<Item = u64>) -> WriteRequest {
    write_of(shard, WriteOp::Upsert(Arc::new(ids.map(point).collect())))
}

pub(crate) fn write_of(shard: u64, op: WriteOp) -> WriteRequest {
    let (shard, request, deadline) = (ShardId(shard), request_id(), soon());
    WriteRequest { request, part: 0, collection: COLLECTION, epoch: EPOCH, shard, op, deadline }
}

pub(crate) fn context(shard: u64, floor: LogIndex, consistency: Consistency) -> ReadContext {
    let shards = vec![(ShardId(shard), floor)];
    ReadContext { collection: COLLECTION, epoch: EPOCH, shards, consistency, deadline: soon() }
}

pub(crate) fn nearest(value: f32, k: usize) -> SearchQuery {
    SearchQuery {
        vector_name: UNNAMED.to_owned(),
        goal: vec![value; DIM].into(),
        k,
        filter: None,
        distance_max: None,
        ef: None,
        exact: false,
    }
}

/// Points of one shard on one node.
pub(crate) async fn count(node: &ShardNode, shard: u64, floor: LogIndex) -> Result<u64> {
    let context = context(shard, floor, Consistency::ReadYourWrites);
    node.count(CountRequest { context, filter: None }).await.remove(0).result
}

/// Which of `ids` a shard on one node has.
pub(crate) async fn ids(node: &ShardNode, shard: u64, floor: LogIndex, ids: std::ops::Range<u64>) -> Vec<u64> {
    let context = context(shard, floor, Consistency::ReadYourWrites);
    let ids = Arc::new(ids.map(PointId::Num).collect());
    let found = node.retrieve(RetrieveRequest { context, ids, parts: PointParts::default() }).await.remove(0);
    let number = |id| match id {
        PointId::Num(number) => number,
        PointId::Uuid(_) => panic!("no such id was written"),
    };
    found.result.unwrap().into_iter().map(|point| number(point.id)).collect()
}

/// Waits until `done`, for a while.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = soon();
    while !done().await {
        assert!(Instant::now() < deadline, "{what} did not happen");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Nodes of one process, each on a disk of its own.
pub(crate) struct Cluster {
    pub(crate) transport: LocalTransport,
    pub(crate) disks: Vec<FaultyDisk>,
    pub(crate) nodes: Vec<Option<Arc<ShardNode>>>,
    env: Vec<NodeEnv>,
    options: Vec<NodeOptions>,
}

impl Cluster {
    pub(crate) async fn start(nodes: usize) -> Cluster {
        Cluster::start_with(nodes, |_| ()).await
    }

    pub(crate) async fn start_with(nodes: usize, tweak: impl Fn(&mut NodeOptions)) -> Cluster {
        let transport = LocalTransport::default();
        let search = SearchPool::start(2, 1_000).unwrap();
        let builder = Builder::start(BuilderOptions::default()).unwrap();
        let mut cluster =
            Cluster { transport, disks: Vec::new(), nodes: Vec::new(), env: Vec::new(), options: Vec::new() };
        for i in 0..nodes {
            let disk = FaultyDisk::new(i as u64);
            let mut options = NodeOptions::new("/data", format!("node-{i}"));
            options.disk_reserve_bytes = 1 << 20;
            tweak(&mut options);
            cluster.env.push(NodeEnv {
                disk: Arc::new(disk.clone()),
                clock: Arc::new(SystemClock),
                rng: Arc::new(SeededRng::from_seed(i as u64)),
                transport: Arc::new(cluster.transport.clone()),
                address: Address(format!("local:node-{i}")),
                peers: NodeDirectory::default(),
                search: search.clone(),
                builder: builder.clone(),
            });
            cluster.options.push(options);
            cluster.disks.push(disk);
            cluster.nodes.push(None);
            cluster.restart(i).await;
        }
        cluster
    }

    /// Opens a node, after [`Cluster::stop`] or [`Cluster::crash`].
    pub(crate) async fn restart(&mut self, i: usize) {
        let node = ShardNode::open(self.options[i].clone(), self.env[i].clone()).await.unwrap();
        self.transport.register(node.address().clone(), node.clone());
        self.nodes[i] = Some(node);
    }

    /// Shuts a node down in good order.
    pub(crate) async fn stop(&mut self, i: usize) {
        let node = self.nodes[i].take().unwrap();
        node.shutdown().await;
        self.transport.unregister(node.address());
    }

    /// Cuts a node off and ends it without a word to the others.
    pub(crate) async fn crash(&mut self, i: usize) {
        let node = self.nodes[i].take().unwrap();
        self.transport.unregister(node.address());
        for group in node.groups() {
            group.stop().await;
            group.shard().close();
        }
        node.stop.cancel();
    }

    pub(crate) fn node(&self, i: usize) -> &Arc<ShardNode> {
        self.nodes[i].as_ref().unwrap()
    }

    /// Makes a shard with a replica on every node, founded by the first.
    pub(crate) async fn make_shard(&self, shard: u64) {
        let voters = self.nodes.iter().flatten().map(|node| (node.id(), node.address().clone())).collect();
        for node in self.nodes.iter().flatten() {
            node.create_replica(spec(shard)).await.unwrap();
        }
        self.node(0).found_group(FoundGroup { shard: ShardId(shard), voters }).await.unwrap();
        until("a first leader", async || self.leader(shard).await.is_some()).await;
    }

    /// Makes a shard on some nodes, founded by the first of them.
    pub(crate) async fn make_on(&self, spec: ReplicaSpec, nodes: std::ops::Range<usize>) {
        let shard = spec.shard;
        let voters = nodes.clone().map(|i| (self.node(i).id(), self.node(i).address().clone())).collect();
        for i in nodes.clone() {
            self.node(i).create_replica(spec.clone()).await.unwrap();
        }
        self.node(nodes.start).found_group(FoundGroup { shard, voters }).await.unwrap();
        until("a first leader", async || self.leader(shard.0).await.is_some()).await;
    }

    /// Lets the nodes that run know each other, and nobody else.
    pub(crate) fn introduce(&self) {
        for env in &self.env {
            env.peers.clear();
            for node in self.nodes.iter().flatten() {
                env.peers.insert(node.id(), node.clone());
            }
        }
    }

    /// The node that leads a shard, as it says itself.
    pub(crate) async fn leader(&self, shard: u64) -> Option<usize> {
        for (i, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let status = node.status().await.unwrap();
            let replica = status.replicas.iter().find(|replica| replica.shard == ShardId(shard));
            if replica.is_some_and(|replica| replica.leader == Some(node.id())) {
                return Some(i);
            }
        }
        None
    }

    /// Writes as a coordinator does: asks some node, follows hints, goes on until the deadline.
    pub(crate) async fn write(&self, request: WriteRequest) -> Result<WriteAck> {
        let mut at = self.nodes.iter().position(Option::is_some).unwrap();
        loop {
            match self.node(at).write(request.clone()).await {
                Err(Error::WrongLeader { hint, .. }) if Instant::now() < request.deadline => {
                    let hinted = |node: &Option<Arc<ShardNode>>| node.as_ref().map(|node| node.id()) == hint;
                    let next = self.nodes.iter().position(|node| node.is_some() && hinted(node));
                    let other = (1..=self.nodes.len()).map(|n| (at + n) % self.nodes.len());
                    at = next.or(other.into_iter().find(|i| self.nodes[*i].is_some())).unwrap();
                    sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }
}
