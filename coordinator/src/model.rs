//! A model of shard nodes for tests: points in maps, exact searches, and faults on demand.

mod cluster;
mod clusters;
mod node;
mod search;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use vicinal_common::api::{NodeDirectory, WriteAck};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, MapDigest, NodeId, RequestId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED, Vectors};
use vicinal_common::publish::{MapRange, ShardRole};
use vicinal_common::ring::TokenTable;
use vicinal_common::tuning::{GraphPlacement, Tuning};

pub(crate) use cluster::{ClusterModel, Publish};

use crate::meta::{Collection, CollectionState, Routing, Shard, StrictMode};
use crate::shards::ShardAccess;

/// One shard; all nodes see the same one, as if replication took no time, unless a replica is made to lag.
#[derive(Clone, Default)]
pub(crate) struct ModelShard {
    pub(crate) collection: Option<CollectionId>,
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: u64,
    pub(crate) epoch: Epoch,
    pub(crate) points: BTreeMap<PointId, (LogIndex, Point)>,
    pub(crate) log: u64,
    pub(crate) role: ShardRole,
    /// Of a search shard: the maps it knows.
    pub(crate) maps: MapRange,
    /// Of a search shard: the log index at which it took a copy.
    pub(crate) arrived: BTreeMap<PointId, u64>,
    /// Of a home shard: how many of its last entries it does not say yet that they are in their places.
    pub(crate) unpublished: u64,
    /// Answers by request: a repeated one is applied once.
    pub(crate) seen: HashMap<(RequestId, u32), WriteAck>,
    metrics: BTreeMap<String, Metric>,
    tuning: Tuning,
    assigning: Option<clusters::Assigning>,
}

impl ModelShard {
    /// Where it was told that open graphs are.
    pub(crate) fn graphs(&self) -> &GraphPlacement {
        &self.tuning.graphs
    }
}

/// Changes shards at a chosen moment.
pub(crate) type Hook = Box<dyn FnMut(&mut BTreeMap<ShardId, ModelShard>) + Send>;

/// All shards of a model cluster, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) shards: BTreeMap<ShardId, ModelShard>,
    /// Nodes that answer `Unavailable`.
    pub(crate) dead: HashSet<NodeId>,
    /// Nodes that answer writes with `Corrupt`.
    pub(crate) damaged: HashSet<NodeId>,
    /// Nodes that are paused: they answer what they were asked when they go on.
    pub(crate) hanging: HashSet<NodeId>,
    /// How long nodes take for every answer.
    pub(crate) slow: HashMap<NodeId, Duration>,
    /// Log entries that a node has not applied yet, in every shard it does not lead.
    pub(crate) behind: HashMap<NodeId, u64>,
    /// Nodes that answer everything with `Overloaded`.
    pub(crate) overloaded: HashSet<NodeId>,
    /// Nodes that answer everything but how frequent dimensions are.
    pub(crate) no_frequencies: HashSet<NodeId>,
    /// Writes that reached a node.
    pub(crate) writes: BTreeMap<NodeId, u64>,
    /// Reads answered, by node.
    pub(crate) reads: BTreeMap<NodeId, u64>,
    /// What every write to a shard is refused with.
    pub(crate) refuse_writes: HashMap<ShardId, Error>,
    /// Writes that are applied but whose answer is lost, per shard.
    pub(crate) lose_answers: HashMap<ShardId, u32>,
    /// Runs before each retrieve: changes points between the phases of a search.
    pub(crate) before_retrieve: Option<Hook>,
    /// Runs before each search.
    pub(crate) before_search: Option<Hook>,
    /// How many queries each search of a shard brought.
    pub(crate) searches: Vec<(ShardId, usize)>,
    /// The maps that nodes have.
    pub(crate) maps: BTreeMap<NodeId, HashMap<MapDigest, Bytes>>,
    /// By what home shards publish.
    pub(crate) publish: Option<Arc<Publish>>,
    /// Calls to nodes.
    pub(crate) calls: u64,
}

/// One node of the model.
pub(crate) struct ModelNode {
    id: NodeId,
    model: Arc<Mutex<Model>>,
}

/// A model cluster with one collection.
pub(crate) struct ModelCluster {
    pub(crate) model: Arc<Mutex<Model>>,
    pub(crate) access: ShardAccess,
    pub(crate) collection: Arc<Collection>,
}

impl ModelCluster {
    /// `shards` shards of `replicas` replicas on 3 nodes; shard `i` is led by its first replica, node `i % 3 + 1`.
    pub(crate) fn new(shards: u64, replicas: u64) -> ModelCluster {
        let vector = VectorSchema::dense(2, Metric::Euclid);
        let schema = CollectionSchema {
            vectors: BTreeMap::from([(UNNAMED.to_owned(), vector)]),
            hnsw: HnswConfig::default(),
            indexing_threshold_kib: 0,
        };
        let id = CollectionId(uuid::Uuid::from_u128(7));
        let placed = (0..shards).map(|shard| Shard {
            id: ShardId(shard),
            replicas: (0..replicas).map(|replica| NodeId((shard + replica) % 3 + 1)).collect(),
            learners: Vec::new(),
        });
        let placed: Vec<Shard> = placed.collect();
        let ids: Vec<ShardId> = placed.iter().map(|shard| shard.id).collect();
        let model = Arc::new(Mutex::new(Model::default()));
        for shard in &placed {
            let made = ModelShard {
                collection: Some(id),
                leader: Some(shard.replicas[0]),
                epoch: Epoch(1),
                metrics: BTreeMap::from([(UNNAMED.to_owned(), Metric::Euclid)]),
                ..ModelShard::default()
            };
            model.lock().shards.insert(shard.id, made);
        }
        let access = ShardAccess::new(nodes(&model));
        let collection = Collection {
            id,
            name: "c".into(),
            schema,
            state: CollectionState::Active,
            epoch: Epoch(1),
            tokens: TokenTable::propose(&ids).unwrap(),
            shards: placed,
            routing: Routing::Hash,
            replication_factor: replicas as u32,
            write_consistency_factor: 1,
            config_json: "{}".into(),
            tuning: Tuning::default(),
            strict: StrictMode::default(),
            clustering: None,
            clustering_wanted: None,
            created_ms: 0,
        };
        ModelCluster { model, access, collection: Arc::new(collection) }
    }

    /// Points 0..count at `[id, 0]`, with the payload `{"n": id}`.
    pub(crate) fn points(count: u64) -> Vec<Point> {
        (0..count).map(|id| ModelCluster::point(id, id as f32)).collect()
    }

    pub(crate) fn point(id: u64, x: f32) -> Point {
        let fields = serde_json::json!({"n": id}).as_object().unwrap().clone();
        Point {
            id: PointId::Num(id),
            vectors: Vectors::from([(UNNAMED.to_owned(), vec![x, 0.0].into())]),
            payload: Payload::from_fields(&fields).unwrap(),
        }
    }

    pub(crate) fn shard_of(&self, id: u64) -> ShardId {
        self.collection.tokens.shard_of(PointId::Num(id))
    }

    pub(crate) fn lookup(&self) -> impl Fn() -> Result<Arc<Collection>> + Send + Sync + '_ {
        || Ok(self.collection.clone())
    }
}

/// Three nodes of one model.
pub(crate) fn nodes(model: &Arc<Mutex<Model>>) -> NodeDirectory {
    let nodes = NodeDirectory::default();
    for id in (1..=3).map(NodeId) {
        nodes.insert(id, Arc::new(ModelNode { id, model: model.clone() }));
    }
    nodes
}

fn matches(filter: Option<&Filter>, point: &Point) -> bool {
    let has = |name: &str| point.vectors.contains_key(name);
    filter.is_none_or(|filter| filter.matches(point.id, &point.payload.fields().unwrap(), &has))
}
