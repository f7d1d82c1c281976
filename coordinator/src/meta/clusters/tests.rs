//! Clusterings come, take each other's place and go, beside maps of routing.

use vicinal_common::ids::{MapDigest, NodeId, ShardId};

use super::super::machine::{Machine, create_command};
use super::*;
use crate::meta::{BeginMap, ClusterRouting, ClusterSettings, Shard};

fn id() -> CollectionId {
    CollectionId(uuid::Uuid::from_u128(7))
}

fn machine(routing: Routing) -> Machine {
    Machine::serving(&["one"], create_command(id(), "c", vec![shard(0)], routing))
}

fn routed() -> Machine {
    let settings = ClusterSettings {
        vector: String::new(),
        search_shards: 1,
        copies: 0.2,
        recall_target: 0.9,
        from_points: 1_000,
        balance: true,
    };
    machine(Routing::Cluster(Box::new(ClusterRouting::new(settings, MapVersion(0)))))
}

impl Machine {
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
    let mut machine = machine(Routing::Hash);
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
    let mut machine = routed();
    machine.done(train(1));
    machine.done(MetaCommand::TrainMap { collection: id(), now_ms: 6 });
    // The routing's map that is being trained has that version already.
    machine.refused(serve(1, 1), "being trained");
    let begin = BeginMap { collection: id(), map: map(1, vec![ShardId(1)]), new_shards: vec![shard(1)], trained: None };
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
