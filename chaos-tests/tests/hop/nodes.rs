//! Shard nodes on disks in memory, each behind a real HTTP server on loopback.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use vicinal_common::api::{
    Effect, LoggedFilter, NodeDirectory, PointEdit, PointParts, PointVectors, ReadContext, RemoteNode, ReplicaSpec,
    SearchQuery, Selection, ShardAnswer, ShardApi, UpdateMode, VectorSelector, WriteOp, WriteRequest,
};
use vicinal_common::clock::SystemClock;
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::consistency::Consistency;
use vicinal_common::disk::FaultyDisk;
use vicinal_common::filter::{EVALUATOR_VERSION, Filter};
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, NodeId, RequestId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED};
use vicinal_common::publish::ShardRole;
use vicinal_common::rng::SeededRng;
use vicinal_common::transport::http::{HttpTransport, internal_router};
use vicinal_common::transport::{Address, Transport};
use vicinal_shard_node::node::{NodeEnv, NodeOptions, ShardNode};
use vicinal_shard_node::server::NodeHandler;
use vicinal_shard_node::service::SearchPool;
use vicinal_shard_node::shard::{Builder, BuilderOptions};

pub(crate) const DIM: usize = 16;

const COLLECTION: CollectionId = CollectionId(Uuid::from_u128(7));
const EPOCH: Epoch = Epoch(1);

static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// Nodes, each reachable directly and over the wire.
pub(crate) struct Nodes {
    pub(crate) direct: Vec<Arc<ShardNode>>,
    pub(crate) remote: Vec<RemoteNode>,
    pub(crate) transport: Arc<dyn Transport>,
    servers: Vec<JoinHandle<()>>,
}

impl Nodes {
    pub(crate) async fn start(count: u64) -> Nodes {
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new().unwrap());
        let search = SearchPool::start(2, 1_000).unwrap();
        let builder = Builder::start(BuilderOptions::default()).unwrap();
        let mut nodes = Nodes { direct: Vec::new(), remote: Vec::new(), transport, servers: Vec::new() };
        for n in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address(format!("http://{}", listener.local_addr().unwrap()));
            let env = NodeEnv {
                disk: Arc::new(FaultyDisk::new(n)),
                clock: Arc::new(SystemClock),
                rng: Arc::new(SeededRng::from_seed(n)),
                transport: nodes.transport.clone(),
                address: address.clone(),
                peers: NodeDirectory::default(),
                search: search.clone(),
                builder: builder.clone(),
            };
            let mut options = NodeOptions::new("/data", format!("node-{n}"));
            options.disk_reserve_bytes = 1 << 20;
            let node = ShardNode::open(options, env).await.unwrap();
            let router = internal_router(Arc::new(NodeHandler::new(node.clone())));
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
            nodes.servers.push(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
            nodes.remote.push(RemoteNode::new(node.id(), address, nodes.transport.clone()));
            nodes.direct.push(node);
        }
        nodes
    }

    /// Ends a node's server; connections that are open stay until they are used again.
    pub(crate) async fn stop(&mut self, node: usize) {
        self.servers[node].abort();
        self.direct[node].shutdown().await;
        // A fresh transport knows no connection to it.
        let transport: Arc<dyn Transport> = Arc::new(HttpTransport::new().unwrap());
        let (id, address) = (self.direct[node].id(), self.direct[node].address().clone());
        self.remote[node] = RemoteNode::new(id, address, transport);
    }

    pub(crate) fn members(&self, which: &[usize]) -> BTreeMap<NodeId, Address> {
        which.iter().map(|n| (self.direct[*n].id(), self.direct[*n].address().clone())).collect()
    }

    /// Who leads, as the nodes say over the wire.
    pub(crate) async fn leader(&self, shard: ShardId) -> usize {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for (n, remote) in self.remote.iter().enumerate() {
                let status = remote.status().await.unwrap();
                let replica = status.replicas.iter().find(|replica| replica.shard == shard);
                if replica.is_some_and(|replica| replica.leader == Some(status.node)) {
                    return n;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn spec(shard: ShardId) -> ReplicaSpec {
    let vector = VectorSchema::dense(DIM, Metric::Euclid);
    let schema = CollectionSchema {
        vectors: BTreeMap::from([(UNNAMED.to_owned(), vector)]),
        hnsw: HnswConfig::default(),
        indexing_threshold_kib: CollectionSchema::INDEXING_THRESHOLD_KIB,
    };
    ReplicaSpec { shard, collection: COLLECTION, schema, epoch: EPOCH, role: ShardRole::Home }
}

fn payload(json: serde_json::Value) -> Payload {
    Payload::from_fields(json.as_object().unwrap()).unwrap()
}

/// Point `id`: its vector is `id` in every place, and so is its payload's `n`.
fn point(id: u64) -> Point {
    let vectors = BTreeMap::from([(UNNAMED.to_owned(), vec![id as f32; DIM].into())]);
    Point { id: PointId::Num(id), vectors, payload: payload(serde_json::json!({ "n": id })) }
}

pub(crate) fn heavy_point(id: u64, bytes: usize) -> Point {
    Point { payload: payload(serde_json::json!({ "n": id, "text": "x".repeat(bytes) })), ..point(id) }
}

pub(crate) fn upsert(shard: ShardId, ids: std::ops::Range<u64>) -> WriteRequest {
    write_of(shard, WriteOp::Upsert(Arc::new(ids.map(point).collect())))
}

pub(crate) fn delete_by_filter(shard: ShardId, json: &str) -> WriteRequest {
    write_of(shard, WriteOp::DeleteByFilter(LoggedFilter { evaluator: EVALUATOR_VERSION, json: json.into() }))
}

/// Changes of points that are there, and what they answer when point 7 is not.
pub(crate) fn changes() -> [(WriteOp, Effect); 3] {
    let ids = Selection::Ids([3, 7, 9].map(PointId::Num).into());
    let edit = PointEdit::SetPayload { payload: payload(serde_json::json!({"m": 1})), key: Some("a.b".into()) };
    let vectors = [9, 11].map(|id| PointVectors { id: PointId::Num(id), vectors: point(id).vectors });
    let filter = Filter::parse(&serde_json::json!({"must_not": {"key": "n", "match": {"value": 11}}})).unwrap();
    let filter = Some(LoggedFilter::new(&filter).unwrap());
    let (points, mode) = (Arc::new(vec![point(9), point(501)]), UpdateMode::InsertOnly);
    [
        (WriteOp::Edit { points: ids, edit }, Effect { missing: Some(PointId::Num(7)), ..Effect::of(2) }),
        (WriteOp::UpdateVectors { points: Arc::new(vectors.into()), filter: filter.clone() }, Effect::of(1)),
        (WriteOp::ConditionalUpsert { points, mode, filter }, Effect::of(1)),
    ]
}

pub(crate) fn write_of(shard: ShardId, op: WriteOp) -> WriteRequest {
    let request = RequestId(u128::from(REQUESTS.fetch_add(1, Ordering::Relaxed)));
    WriteRequest { request, part: 0, collection: COLLECTION, epoch: EPOCH, shard, op, deadline: soon() }
}

pub(crate) fn context(shards: &[(ShardId, LogIndex)]) -> ReadContext {
    let consistency = Consistency::ReadYourWrites;
    ReadContext { collection: COLLECTION, epoch: EPOCH, shards: shards.to_vec(), consistency, deadline: soon() }
}

pub(crate) fn nearest(value: f32, k: usize, filter: Option<Arc<Filter>>) -> SearchQuery {
    SearchQuery {
        vector_name: UNNAMED.to_owned(),
        goal: vec![value; DIM].into(),
        k,
        filter,
        distance_max: None,
        ef: None,
        exact: false,
    }
}

pub(crate) fn everything() -> PointParts {
    PointParts { payload: true, vectors: VectorSelector::All }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// The same answers, whatever is in them.
pub(crate) fn assert_same<T: Debug>(over_the_wire: &[ShardAnswer<T>], direct: &[ShardAnswer<T>]) {
    assert_eq!(format!("{over_the_wire:?}"), format!("{direct:?}"));
}
