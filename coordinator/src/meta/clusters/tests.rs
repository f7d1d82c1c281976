//! Clusterings come, take each other's place and go, beside maps of routing.

use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::ids::{MapDigest, NodeId, RequestId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::ring::TokenTable;
use vicinal_common::transport::Address;
use vicinal_common::tuning::GraphPlacement;

use super::*;
use crate::meta::{
    BeginMap, ClusterRouting, ClusterSettings, CreateCommand, MetaRequest, Registration, Shard, StrictMode,
};

fn id() -> CollectionId {
    CollectionId(uuid::Uuid::from_u128(7))
}

struct Machine {
    state: MetaState,
    next: u128,
}

impl Machine {
    fn new(routing: Routing) -> Machine {
        let mut machine = Machine { state: MetaState::default(), next: 0 };
        let registration = Registration { name: "one".into(), address: Address("local:one".into()), zone: None };
        machine.done(MetaCommand::RegisterNode { node: NodeId(1), registration, now_ms: 1 });
        let create = CreateCommand {
            id: id(),
            name: "c".into(),
            schema: CollectionSchema {
                vectors: [(String::new(), VectorSchema::dense(4, Metric::Dot))].into(),
                hnsw: HnswConfig::default(),
                indexing_threshold_kib: 1,
            },
            shards: vec![shard(0)],
            tokens: TokenTable::propose(&[ShardId(0)]).unwrap(),
            routing,
            replication_factor: 1,
            write_consistency_factor: 1,
            config_json: "{}".into(),
            strict: StrictMode::default(),
            graphs: GraphPlacement::default(),
            now_ms: 5,
        };
        machine.done(MetaCommand::CreateCollection(Box::new(create)));
        machine.done(MetaCommand::ActivateCollection { collection: id() });
        machine
    }

    fn routed() -> Machine {
        let settings = ClusterSettings {
            vector: String::new(),
            search_shards: 1,
            copies: 0.2,
            recall_target: 0.9,
            from_points: 1_000,
        };
        Machine::new(Routing::Cluster(Box::new(ClusterRouting::new(settings, MapVersion(0)))))
    }

    fn run(&mut self, command: MetaCommand) -> MetaReply {
        self.next += 1;
        self.state.apply(&MetaRequest { request: RequestId(self.next), command })
    }

    /// A command that takes effect, and that changes nothing the second time.
    fn done(&mut self, command: MetaCommand) {
        assert_eq!(self.run(command.clone()), MetaReply::Done, "{command:?}");
        let once = MetaState { replies: Default::default(), ..self.state.clone() };
        assert_eq!(self.run(command.clone()), MetaReply::Done, "again: {command:?}");
        assert_eq!(once, MetaState { replies: Default::default(), ..self.state.clone() }, "{command:?}");
    }

    fn refused(&mut self, command: MetaCommand, words: &str) {
        let before = MetaState { replies: Default::default(), ..self.state.clone() };
        match self.run(command.clone()) {
            MetaReply::Refused(error) => assert!(error.to_string().contains(words), "{command:?}: {error}"),
            other => panic!("{command:?}: {other:?}"),
        }
        assert_eq!(before, MetaState { replies: Default::default(), ..self.state.clone() });
    }

    fn collection(&self) -> &Collection {
        &self.state.collections[&id()]
    }

    fn told(&self) -> Option<MapVersion> {
        let told = self.collection().tuning.clustering.as_ref();
        assert_eq!(told, self.collection().clusters());
        told.map(|map| map.version)
    }

    fn to_come(&self) -> u64 {
        self.state.clustering_to_come(self.collection()).0
    }
}

fn shard(id: u64) -> Shard {
    Shard { id: ShardId(id), replicas: vec![NodeId(1)], learners: Vec::new() }
}

fn wish(since_ms: u64) -> ClusteringWish {
    ClusteringWish { vector: String::new(), count: 10, since_ms }
}

fn map(version: u64, shards: Vec<ShardId>) -> MapRef {
    let digest = MapDigest(version.into());
    MapRef { version: MapVersion(version), vector: String::new(), digest, bytes: 1, shards }
}

fn train(since_ms: u64) -> MetaCommand {
    MetaCommand::TrainClusters { collection: id(), wish: wish(since_ms) }
}

fn serve(since_ms: u64, version: u64) -> MetaCommand {
    let trained = Clustering { map: map(version, Vec::new()), trained_ms: 9, points: 640 };
    MetaCommand::ServeClusters { collection: id(), wish: wish(since_ms), trained }
}

#[test]
fn the_old_clustering_serves_until_the_new_one_is_there() {
    let mut machine = Machine::new(Routing::Hash);
    machine.refused(serve(1, 1), "not wanted");
    machine.done(train(1));
    assert_eq!((machine.told(), machine.state.operations.len()), (None, 1));
    machine.refused(train(2), "trained already");
    machine.refused(serve(2, 1), "not wanted");
    machine.refused(serve(1, 2), "the next one is 1");
    machine.done(serve(1, 1));
    let revision = machine.collection().tuning.revision;
    assert_eq!((machine.told(), machine.state.operations.len()), (Some(MapVersion(1)), 0));
    machine.done(train(2));
    assert_eq!(machine.told(), Some(MapVersion(1)));
    machine.done(serve(2, 2));
    assert_eq!(machine.told(), Some(MapVersion(2)));
    assert!(machine.collection().tuning.revision > revision);
    machine.done(train(3));
    let drop = MetaCommand::DropClusters { collection: id() };
    machine.done(drop.clone());
    assert_eq!((machine.told(), machine.state.operations.len()), (None, 0));
    machine.refused(serve(3, 3), "not wanted");
    assert_eq!(machine.to_come(), 3, "no version comes again");
    let gone = CollectionId(uuid::Uuid::from_u128(8));
    machine.refused(MetaCommand::TrainClusters { collection: gone, wish: wish(1) }, "deleted");
}

#[test]
fn a_map_of_the_routing_stands_in_and_shares_the_counter() {
    let mut machine = Machine::routed();
    machine.done(train(1));
    machine.done(MetaCommand::TrainMap { collection: id(), now_ms: 6 });
    // The routing's map that is being trained has that version already.
    machine.refused(serve(1, 1), "being trained");
    let begin = BeginMap { collection: id(), map: map(1, vec![ShardId(1)]), new_shards: vec![shard(1)] };
    machine.done(MetaCommand::BeginMap(Box::new(begin)));
    assert_eq!(machine.told(), None, "not before it is served");
    let floors = vec![vicinal_common::ids::LogIndex(3)];
    machine.done(MetaCommand::ServeMap { collection: id(), version: MapVersion(1), floors });
    assert_eq!(machine.told(), Some(MapVersion(1)));
    machine.refused(serve(1, 1), "the next one is 2");
    machine.done(serve(1, 2));
    assert_eq!(machine.told(), Some(MapVersion(2)), "its own goes before that of the routing");
    assert_eq!(machine.to_come(), 3);
    machine.done(MetaCommand::DropClusters { collection: id() });
    assert_eq!(machine.told(), Some(MapVersion(1)));
    machine.done(MetaCommand::ServeHomes { collection: id(), now_ms: 7 });
    assert_eq!(machine.told(), None);
}
