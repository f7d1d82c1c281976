//! For tests of the reconciler: nodes that keep lists of replicas, fail now and then, and share a model of their
//! shards.

mod groups;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vicinal_common::api::*;
use vicinal_common::clock::SystemClock;
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, LogIndex, MapDigest, NodeId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::publish::ShardRole;
use vicinal_common::rng::SeededRng;
use vicinal_common::transport::{Address, LocalTransport};
use vicinal_common::tuning::GraphPlacement;
use vicinal_routing::CentroidMap;

use super::Reconciler;
use crate::members::Members;
use crate::meta::{Catalog, CatalogOptions, CreateCollection, DiskStore, Founding, Registration, Routing, StrictMode};
pub(super) use groups::Groups;

/// A node that keeps a list of replicas. Every `fail_every`-th call fails.
#[derive(Default)]
pub(super) struct ListNode {
    pub(super) node: u64,
    pub(super) away: AtomicBool,
    pub(super) fail_every: usize,
    pub(super) calls: AtomicUsize,
    pub(super) replicas: Mutex<BTreeMap<ShardId, (CollectionId, Option<usize>)>>,
    /// It creates no replicas of search shards.
    pub(super) refuses_copies: AtomicBool,
    /// The newest revision that each was told.
    pub(super) tunings: Mutex<BTreeMap<ShardId, u64>>,
    /// Maps that it has.
    pub(super) maps: Mutex<BTreeMap<MapDigest, (CollectionId, Bytes)>>,
    /// What all nodes share of their shards.
    pub(super) groups: Arc<Groups>,
    /// Members that any node was asked for.
    pub(super) changes: Changes,
}

pub(super) type Changes = Arc<Mutex<Vec<ChangeMembers>>>;

impl ListNode {
    fn answer(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let failing = self.fail_every > 0 && call.is_multiple_of(self.fail_every);
        if failing || self.groups.interrupts() || self.away.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("down".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl ShardApi for ListNode {
    async fn create_replica(&self, spec: ReplicaSpec) -> Result<()> {
        self.answer()?;
        if spec.role == ShardRole::Search && self.refuses_copies.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("down".into()));
        }
        self.groups.create(&spec);
        self.replicas.lock().entry(spec.shard).or_insert((spec.collection, None));
        Ok(())
    }

    async fn found_group(&self, request: FoundGroup) -> Result<()> {
        self.answer()?;
        assert!(request.voters.contains_key(&NodeId(self.node)));
        let mut replicas = self.replicas.lock();
        replicas.get_mut(&request.shard).expect("founded after it was created").1 = Some(request.voters.len());
        self.groups.found(request.shard, NodeId(self.node));
        Ok(())
    }

    async fn drop_replica(&self, shard: ShardId) -> Result<()> {
        self.answer()?;
        self.replicas.lock().remove(&shard);
        Ok(())
    }

    async fn change_members(&self, request: ChangeMembers) -> Result<MembersChange> {
        self.answer()?;
        if !self.groups.is_founded(request.shard) {
            return Err(Error::Unavailable("the group has no leader".into()));
        }
        let behind = request.filled.iter().find(|node| node.0 == SLOWLY_FILLED);
        let asked_before = self.changes.lock().iter().filter(|before| **before == request).count() as u64;
        self.changes.lock().push(request.clone());
        Ok(match behind {
            Some(_) if asked_before < 3 => MembersChange::CatchingUp { entries: 300 - asked_before },
            _ => MembersChange::Done,
        })
    }

    async fn tune(&self, request: Tune) -> Result<()> {
        self.answer()?;
        self.tunings.lock().insert(request.shard, request.tuning.revision);
        self.groups.tune(NodeId(self.node), request.shard, &request.tuning);
        Ok(())
    }

    async fn facet(&self, _: FacetRequest) -> Vec<ShardAnswer<Vec<FacetCount>>> {
        Vec::new()
    }

    async fn frequencies(&self, _: FrequencyRequest) -> Vec<ShardAnswer<Frequencies>> {
        Vec::new()
    }

    async fn cluster_stats(&self, _: ClusterStatsRequest) -> Vec<ShardAnswer<ClusterStats>> {
        Vec::new()
    }

    async fn digest(&self, _: DigestRequest) -> Vec<ShardAnswer<ShardDigest>> {
        Vec::new()
    }

    async fn put_map(&self, request: PutMap) -> Result<()> {
        self.answer()?;
        assert_eq!(MapDigest::of(&request.bytes), request.digest);
        self.maps.lock().insert(request.digest, (request.collection, request.bytes));
        Ok(())
    }

    async fn get_map(&self, digest: MapDigest) -> Result<Bytes> {
        self.answer()?;
        let maps = self.maps.lock();
        maps.get(&digest).map(|(_, bytes)| bytes.clone()).ok_or_else(|| Error::NotFound("no such map".into()))
    }

    async fn keep_maps(&self, request: KeepMaps) -> Result<()> {
        self.answer()?;
        let is_newer = |bytes: &Bytes| version_of(bytes) > request.as_of.0;
        self.maps.lock().retain(|digest, (collection, bytes)| {
            *collection != request.collection || request.digests.contains(digest) || is_newer(bytes)
        });
        Ok(())
    }

    async fn status(&self) -> Result<NodeStatus> {
        self.answer()?;
        let replicas = self.replicas.lock();
        let replicas = replicas.iter().map(|(shard, (collection, founded))| {
            let known = ReplicaStatus {
                leader: founded.map(|_| NodeId(self.node)),
                tuning: self.tunings.lock().get(shard).copied().unwrap_or(0),
                ..ReplicaStatus::unknown(*shard, *collection)
            };
            self.groups.status(NodeId(self.node), known)
        });
        let (replicas, maps) = (replicas.collect(), self.maps.lock().keys().copied().collect());
        Ok(NodeStatus { node: NodeId(self.node), replicas, read_only: None, maps })
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteAck> {
        self.answer()?;
        self.groups.write(NodeId(self.node), request)
    }

    async fn search(&self, _: SearchRequest) -> Vec<ShardAnswer<Vec<Vec<ShardHit>>>> {
        Vec::new()
    }

    async fn retrieve(&self, _: RetrieveRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        Vec::new()
    }

    async fn scroll(&self, request: ScrollRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        let failed = self.answer();
        let answer = |shard| match &failed {
            Ok(()) => self.groups.scroll(shard, &request),
            Err(error) => ShardAnswer { shard, applied: LogIndex(0), result: Err(error.clone()) },
        };
        request.context.shards.iter().map(|(shard, _)| answer(*shard)).collect()
    }

    async fn count(&self, request: CountRequest) -> Vec<ShardAnswer<u64>> {
        let failed = self.answer();
        let answer = |shard| match &failed {
            Ok(()) => self.groups.count(NodeId(self.node), shard, &request.context),
            Err(error) => ShardAnswer { shard, applied: LogIndex(0), result: Err(error.clone()) },
        };
        request.context.shards.iter().map(|(shard, _)| answer(*shard)).collect()
    }
}

/// A node that is not filled at once.
pub(super) const SLOWLY_FILLED: u64 = 4;

pub(super) struct World {
    pub(super) catalog: Catalog,
    pub(super) directory: NodeDirectory,
    pub(super) nodes: Vec<Arc<ListNode>>,
    pub(super) changes: Changes,
    pub(super) members: Arc<Members>,
    pub(super) groups: Arc<Groups>,
    pub(super) stop: CancellationToken,
}

pub(super) async fn world(count: u64, fail_every: usize) -> World {
    world_with(count, fail_every, Members::local()).await
}

pub(super) async fn world_with(count: u64, fail_every: usize, members: Members) -> World {
    let store = DiskStore::open(Arc::new(FaultyDisk::new(1)), Path::new("/meta")).unwrap();
    let options = CatalogOptions {
        name: "a".into(),
        address: Address("local:a".into()),
        store: Box::new(store),
        transport: Arc::new(LocalTransport::default()),
        rng: Arc::new(SeededRng::from_os()),
        clock: Arc::new(SystemClock),
        cluster: None,
    };
    let catalog = Catalog::open(options, Founding::IfNew).await.unwrap();
    let (directory, stop, members) = (NodeDirectory::default(), CancellationToken::new(), Arc::new(members));
    let (nodes, changes, groups) = (Vec::new(), Changes::default(), Arc::default());
    let mut world = World { catalog, directory, nodes, changes, members, groups, stop };
    for node in 1..=count {
        world.join(node, &format!("n{node}"), fail_every).await;
    }
    world.reconcile(&world.stop);
    world
}

impl World {
    /// One more reconciler, until it is stopped.
    pub(super) fn reconcile(&self, stop: &CancellationToken) {
        let World { catalog, directory, members, .. } = self;
        tokio::spawn(Reconciler::new(catalog.clone(), directory.clone(), members.clone()).run(stop.clone()));
    }

    pub(super) async fn join(&mut self, node: u64, name: &str, fail_every: usize) {
        self.join_as(ListNode { node, fail_every, ..ListNode::default() }, name).await;
    }

    pub(super) async fn join_as(&mut self, api: ListNode, name: &str) -> Arc<ListNode> {
        let node = api.node;
        let api = Arc::new(ListNode { changes: self.changes.clone(), groups: self.groups.clone(), ..api });
        self.directory.insert(NodeId(node), api.clone());
        let registration = Registration { name: name.into(), address: Address(format!("local:{node}")), zone: None };
        self.catalog.register_node(NodeId(node), registration, within(5_000)).await.unwrap();
        self.nodes.push(api.clone());
        api
    }

    /// Waits until a replicated collection is on these nodes, so many of them voters.
    pub(super) async fn is_on(&self, name: &str, voters: usize, nodes: &[u64]) {
        let until = within(20_000);
        loop {
            let shard = self.catalog.state().resolve(name).unwrap().shards[0].clone();
            let mut on: Vec<u64> = shard.readers().map(|node| node.0).collect();
            on.sort_unstable();
            if on == nodes && shard.replicas.len() == voters {
                return;
            }
            assert!(Instant::now() < until, "{voters} voters on {nodes:?} are wanted: {shard:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(super) fn within(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

pub(super) fn wanted(name: &str, shard_number: u32, replication_factor: u32) -> CreateCollection {
    let vector = VectorSchema::dense(4, Metric::Dot);
    CreateCollection {
        name: name.into(),
        schema: CollectionSchema {
            vectors: BTreeMap::from([(String::new(), vector)]),
            hnsw: HnswConfig::default(),
            indexing_threshold_kib: 1,
        },
        routing: Routing::Hash,
        shard_number,
        replication_factor,
        write_consistency_factor: 1,
        config_json: "{}".into(),
        strict: StrictMode::default(),
        graphs: GraphPlacement::default(),
    }
}

/// Version of a map by its bytes.
pub(super) fn version_of(bytes: &[u8]) -> u64 {
    CentroidMap::decode(bytes).unwrap().parts().version
}
