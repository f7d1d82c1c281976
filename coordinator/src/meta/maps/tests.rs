//! Each command twice, out of order, and for nothing that is there.

use proptest::prelude::*;
use vicinal_common::ids::{MapDigest, NodeId};
use vicinal_common::publish::MapRef;

use super::super::change::CollectionChange;
use super::super::command::MetaCommand;
use super::super::machine::{Machine, create_command};
use super::super::routing::{ClusterSettings, Trained, Verdict};
use super::*;

const HOMES: u64 = 2;

fn id() -> CollectionId {
    CollectionId(uuid::Uuid::from_u128(1))
}

fn settings() -> ClusterSettings {
    ClusterSettings {
        vector: String::new(),
        search_shards: 3,
        copies: 0.2,
        recall_target: 0.9,
        from_points: 1_000,
        balance: true,
    }
}

fn shard(id: u64) -> Shard {
    Shard { id: ShardId(id), replicas: vec![NodeId(id % 2 + 1)], learners: Vec::new() }
}

/// A state with one collection, routed by cluster.
fn machine() -> Machine {
    let routing = Routing::Cluster(Box::new(ClusterRouting::new(settings(), MapVersion(0))));
    let homes = (0..HOMES).map(shard).collect();
    Machine::serving(&["one", "two"], create_command(id(), "c", homes, routing))
}

impl Machine {
    fn cluster(&self) -> &ClusterRouting {
        self.collection().routing.cluster().unwrap()
    }

    /// The next map over so many new shards.
    fn begin(&self, version: u64, shards: u64) -> MetaCommand {
        let first = self.state.next_shard;
        MetaCommand::BeginMap(Box::new(begin(version, (first..first + shards).map(shard).collect())))
    }

    fn change(&mut self, routing: RoutingChange) -> MetaReply {
        let change = CollectionChange { routing: Some(routing), ..CollectionChange::default() };
        self.run(MetaCommand::ChangeCollection { collection: id(), change: Box::new(change) })
    }

    fn operations(&self) -> Vec<OperationKind> {
        self.state.operations.values().map(|operation| operation.kind).collect()
    }
}

fn begin(version: u64, new_shards: Vec<Shard>) -> BeginMap {
    let map = MapRef {
        version: MapVersion(version),
        vector: String::new(),
        digest: MapDigest(u128::from(version)),
        bytes: 100,
        shards: new_shards.iter().map(|shard| shard.id).collect(),
    };
    BeginMap { collection: id(), map, new_shards, trained: None }
}

fn train() -> MetaCommand {
    MetaCommand::TrainMap { collection: id(), now_ms: 7 }
}

fn serve(version: u64, shards: usize) -> MetaCommand {
    let floors = vec![LogIndex(5); shards];
    MetaCommand::ServeMap { collection: id(), version: MapVersion(version), floors }
}

fn end(version: u64) -> MetaCommand {
    MetaCommand::EndMap { collection: id(), version: MapVersion(version) }
}

fn abort(version: u64) -> MetaCommand {
    MetaCommand::AbortMap { collection: id(), version: MapVersion(version), now_ms: 8 }
}

fn index_homes() -> MetaCommand {
    MetaCommand::IndexHomes { collection: id(), now_ms: 9 }
}

fn homes() -> MetaCommand {
    MetaCommand::ServeHomes { collection: id(), now_ms: 9 }
}

#[test]
fn first_map_second_map_and_back_to_hash() {
    let mut machine = machine();
    assert!(machine.collection().tuning.search_shards.is_empty());
    assert_eq!(machine.cluster().trains_from(), Some(1_000));
    machine.done(train());
    assert_eq!(machine.operations(), [OperationKind::ChangeMap]);
    let first = machine.begin(1, 3);
    machine.done(first.clone());
    assert_eq!((machine.cluster().shards.len(), machine.state.next_shard), (3, HOMES + 3));
    let tuning = &machine.collection().tuning;
    assert_eq!(tuning.search_shards, (2..5).map(|id| (ShardId(id), vec![NodeId(id % 2 + 1)])).collect());
    assert_eq!(tuning.revision, 1);
    let known: Vec<u64> = machine.collection().all_shards().map(|shard| shard.id.0).collect();
    assert_eq!(known, [0, 1, 2, 3, 4]);
    assert_eq!(machine.state.replicas_per_node(), [(NodeId(1), 3), (NodeId(2), 2)].into());
    assert_eq!(machine.collection().epoch_of(ShardId(2)).0, 1);
    assert!(machine.collection().tuning.unindexed.is_empty(), "home shards answer still");
    machine.done(serve(1, 3));
    assert_eq!(machine.collection().tuning.unindexed, [String::new()].into());
    machine.done(index_homes());
    assert!(machine.operations().is_empty() && machine.cluster().ending.is_none(), "there was none before");

    machine.done(train());
    let second = machine.begin(2, 2);
    machine.done(second);
    assert_eq!(machine.run(first), MetaReply::Done, "it took effect before");
    machine.done(serve(2, 2));
    assert_eq!((machine.cluster().ending, machine.cluster().was_served), (Some(MapVersion(1)), true));
    machine.done(end(1));
    assert_eq!(machine.cluster().shards.iter().map(|shard| shard.id.0).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(machine.collection().tuning.search_shards.len(), 2);
    assert!(machine.operations().is_empty());

    assert!(!machine.collection().tuning.unindexed.is_empty());
    let revision = machine.collection().tuning.revision;
    assert_eq!(machine.change(RoutingChange::Hash), MetaReply::Done);
    assert!(machine.cluster().is_leaving);
    assert!(machine.collection().tuning.unindexed.is_empty(), "graphs are built before home shards answer");
    assert_eq!(machine.collection().tuning.revision, revision + 1);
    machine.refused(train(), "switched back to `hash`");
    machine.done(index_homes());
    machine.done(index_homes());
    let begun = machine.state.operations.clone();
    assert_eq!(machine.operations(), [OperationKind::ServeHomes]);
    machine.done(homes());
    assert_eq!(machine.state.operations, begun, "it goes on");
    assert_eq!(machine.cluster().shards.len(), 2, "they are published to until the map has ended");
    machine.done(end(2));
    assert_eq!(machine.collection().routing, Routing::Hash);
    assert!(machine.collection().tuning.search_shards.is_empty() && machine.operations().is_empty());
    machine.refused(train(), "not routed by cluster");

    // Versions go on from where they were.
    assert_eq!(machine.change(RoutingChange::Cluster(settings())), MetaReply::Done);
    machine.done(train());
    let reused = machine.begin(1, 2);
    machine.refused(reused, "does not follow map 2");
    let third = machine.begin(3, 2);
    machine.done(third);
}

#[test]
fn a_map_is_taken_back_before_it_is_served() {
    let mut machine = machine();
    machine.done(abort(1));
    machine.refused(abort(2), "there is no map 2");
    machine.done(train());
    machine.done(abort(1));
    assert!(machine.operations().is_empty() && !machine.cluster().is_training);
    assert_eq!(machine.cluster().trains_from(), None, "not before somebody asks");
    let late = machine.begin(1, 2);
    machine.refused(late, "not wanted any more");
    machine.done(train());
    let first = machine.begin(1, 2);
    machine.done(first);
    machine.done(abort(1));
    assert_eq!((machine.cluster().ending, machine.cluster().was_served), (Some(MapVersion(1)), false));
    assert_eq!(machine.operations(), [OperationKind::AbortMap]);
    machine.refused(serve(1, 2), "not the one that is being filled");
    machine.refused(train(), "given up");
    machine.done(end(1));
    assert!(machine.cluster().shards.is_empty());
    machine.done(train());
    let second = machine.begin(2, 2);
    machine.done(second);
    machine.done(serve(2, 2));
    machine.refused(abort(2), "served already");
    // Of a later one: the one that is served stays, with its shards.
    machine.done(train());
    let third = machine.begin(3, 4);
    machine.done(third);
    machine.done(abort(3));
    machine.refused(homes(), "given up");
    machine.done(end(3));
    assert_eq!((machine.cluster().served(), machine.cluster().shards.len()), (Some(MapVersion(2)), 2));
    machine.done(homes());
    machine.done(end(2));
    assert!(!machine.cluster().is_leaving, "nobody said that it shall be hash");
}

#[test]
fn what_does_not_fit_is_refused_with_words() {
    let mut machine = machine();
    let early = machine.begin(1, 2);
    machine.refused(early, "not wanted any more");
    machine.done(train());
    let with = |change: &dyn Fn(&mut BeginMap)| {
        let mut begin = begin(1, vec![shard(2), shard(3)]);
        change(&mut begin);
        MetaCommand::BeginMap(Box::new(begin))
    };
    machine.refused(with(&|begin| begin.map.version = MapVersion(2)), "does not follow map 0");
    machine.refused(with(&|begin| begin.map.vector = "other".into()), "places `other`");
    machine.refused(with(&|begin| begin.map.shards.clear()), "0 search shards");
    machine.refused(with(&|begin| begin.map.shards.push(ShardId(3))), "different");
    machine.refused(with(&|begin| begin.map.shards.push(ShardId(0))), "names shard 0");
    machine.refused(with(&|begin| begin.map.shards.truncate(1)), "does not name its new shard 3");
    machine.refused(with(&|begin| begin.new_shards.reverse()), "must ascend");
    machine.refused(with(&|begin| begin.new_shards[0].replicas = vec![NodeId(9)]), "node 9 is not registered");
    let taken = machine.run(with(&|begin| {
        begin.new_shards[0].id = ShardId(1);
        begin.map.shards[0] = ShardId(1);
    }));
    assert_eq!(taken, MetaReply::ShardIdsTaken { next_shard: HOMES });
    machine.refused(serve(1, 2), "not the one that is being filled");
    machine.done(with(&|_| ()));
    machine.refused(with(&|begin| begin.map.digest = MapDigest(9)), "not wanted any more");
    machine.refused(serve(1, 3), "has 2 shards, not 3");
    machine.refused(end(1), "is not ending");
    machine.refused(end(7), "is not ending");
    machine.done(MetaCommand::ReplaceReplica { collection: id(), shard: ShardId(2), from: NodeId(1), to: NodeId(2) });
    assert_eq!(machine.collection().tuning.search_shards[&ShardId(2)], [NodeId(2)]);
    assert_eq!(machine.collection().tuning.revision, 2);

    machine.run(MetaCommand::BeginDelete { collection: id(), now_ms: 9 });
    assert_eq!(machine.state.operations.values().map(|of| of.steps_total).collect::<Vec<_>>(), [HOMES as u32 + 2]);
    for command in [train(), with(&|_| ()), serve(1, 2), end(1), abort(1), homes()] {
        machine.refused(command, "was deleted");
    }
}

#[test]
fn settings_change_and_methods_that_changed_meanwhile_are_refused() {
    let mut machine = machine();
    let change = RoutingChange::Settings {
        search_shards: Some(7),
        copies: None,
        recall_target: Some(0.99),
        from_points: None,
        balance: None,
    };
    assert_eq!(machine.change(change.clone()), MetaReply::Done);
    let cluster = machine.cluster();
    assert_eq!((cluster.search_shards, cluster.copies, cluster.recall_target), (7, 0.2, 0.99));
    assert!(matches!(machine.change(RoutingChange::Cluster(settings())), MetaReply::Refused(Error::Conflict(_))));
    assert_eq!(machine.change(RoutingChange::Hash), MetaReply::Done);
    assert_eq!(machine.collection().routing, Routing::Hash, "nothing was trained yet");
    assert_eq!(machine.change(RoutingChange::Hash), MetaReply::Done);
    assert!(matches!(machine.change(change), MetaReply::Refused(Error::Conflict(_))));
}

fn balance(version: u64) -> MetaCommand {
    MetaCommand::BalanceMap { collection: id(), version: MapVersion(version), now_ms: 8 }
}

#[test]
fn balance_is_wanted_once_for_each_version() {
    let mut machine = machine();
    let refused = |reply| matches!(reply, MetaReply::Refused(Error::Conflict(_)));
    assert!(refused(machine.run(balance(1))), "no map is served");
    machine.done(train());
    let trained = Some(Trained { points: 900, recall: 0.9, fan_out: 0.5 });
    let shards: Vec<Shard> = (HOMES..HOMES + 3).map(shard).collect();
    machine.done(MetaCommand::BeginMap(Box::new(BeginMap { trained, ..begin(1, shards.clone()) })));
    assert!(refused(machine.run(balance(2))) && machine.cluster().trained.is_none());
    machine.done(serve(1, 3));
    assert_eq!((machine.cluster().trained, machine.cluster().next_trained), (trained, None));
    assert_eq!(machine.run(balance(1)), MetaReply::Done, "it is there");
    assert!(!machine.cluster().is_balancing && refused(machine.run(balance(3))));

    let measured = Measured {
        map: MapVersion(1),
        at_ms: 5,
        points: 1_000,
        imbalance: 1.3,
        load_imbalance: None,
        oversized: 0.0,
        fan_out: 0.6,
        verdict: Verdict::Adjust,
    };
    let note =
        |map| MetaCommand::NoteBalance { collection: id(), measured: Measured { map: MapVersion(map), ..measured } };
    machine.done(note(1));
    machine.done(note(7));
    assert_eq!(machine.cluster().measured, Some(measured), "of another map it says nothing");
    machine.done(balance(2));
    machine.done(balance(2));
    assert_eq!(machine.operations(), [OperationKind::BalanceMap]);
    assert_eq!(machine.cluster().under_way(), Some("search shards are being balanced"));
    assert!(refused(machine.run(train())), "it would be another map");
    machine.done(abort(2));
    assert!(machine.operations().is_empty() && !machine.cluster().is_balancing && !machine.cluster().is_held);

    machine.done(balance(2));
    let map = MapRef { version: MapVersion(2), ..begin(2, shards).map };
    machine.done(MetaCommand::BeginMap(Box::new(BeginMap { collection: id(), map, new_shards: Vec::new(), trained })));
    machine.done(balance(2));
    machine.done(serve(2, 3));
    assert_eq!((machine.cluster().measured, machine.cluster().trained), (None, trained));
    machine.done(end(1));
    machine.done(homes());
    assert_eq!(machine.cluster().trained, None);
}

#[derive(Clone, Debug)]
enum Step {
    Train,
    Balance(u64),
    Begin(u64, u64),
    Serve(u64),
    End(u64),
    Abort(u64),
    Homes,
    IndexHomes,
    Hash,
    Cluster,
}

fn step() -> impl Strategy<Value = Step> {
    let near = || 0_u64..3;
    prop_oneof![
        3 => Just(Step::Train),
        2 => near().prop_map(Step::Balance),
        4 => (near(), 1_u64..4).prop_map(|(version, shards)| Step::Begin(version, shards)),
        4 => near().prop_map(Step::Serve),
        3 => near().prop_map(Step::End),
        1 => near().prop_map(Step::Abort),
        1 => Just(Step::Homes),
        1 => Just(Step::IndexHomes),
        1 => Just(Step::Hash),
        1 => Just(Step::Cluster),
    ]
}

proptest! {
    #[test]
    fn one_change_at_a_time_whatever_comes(steps in prop::collection::vec(step(), 1..80)) {
        let mut machine = machine();
        let mut newest = 0;
        for step in steps {
            let near = |back: u64| (newest + 1_u64).saturating_sub(back);
            match step {
                Step::Train => drop(machine.run(train())),
                Step::Balance(back) => drop(machine.run(balance(near(back)))),
                Step::Begin(back, shards) => {
                    let begin = machine.begin(near(back), shards);
                    if machine.run(begin.clone()) == MetaReply::Done && machine.cluster().last_version.0 > newest {
                        newest += 1;
                        prop_assert_eq!(machine.cluster().last_version.0, newest, "one that was used already");
                    }
                }
                Step::Serve(back) => {
                    let shards = machine.collection().routing.cluster().and_then(|cluster| cluster.next.as_ref());
                    let shards = shards.map_or(0, |map| map.shards.len());
                    machine.run(serve(near(back), shards));
                }
                Step::End(back) => drop(machine.run(end(near(back)))),
                Step::Abort(back) => drop(machine.run(abort(near(back)))),
                Step::Homes => drop(machine.run(homes())),
                Step::IndexHomes => drop(machine.run(index_homes())),
                Step::Hash => drop(machine.change(RoutingChange::Hash)),
                Step::Cluster => drop(machine.change(RoutingChange::Cluster(settings()))),
            }
            let collection = machine.collection();
            let told = collection.tuning.search_shards.len() as u64;
            prop_assert_eq!(told + HOMES, collection.all_shards().count() as u64);
            prop_assert_eq!(machine.state.newest_map.0, newest);
            let answer = collection.routing.cluster().is_some_and(|of| of.serving.is_some() && !of.is_leaving);
            prop_assert_eq!(collection.tuning.unindexed.len(), usize::from(answer));
            let Some(cluster) = collection.routing.cluster() else {
                prop_assert!(machine.operations().is_empty() && collection.tuning.search_shards.is_empty());
                continue;
            };
            prop_assert!(cluster.next.is_none() || cluster.ending.is_none());
            let used = cluster.serving.iter().map(|served| &served.map).chain(&cluster.next);
            let used: BTreeSet<ShardId> = used.flat_map(|map| map.shards.iter().copied()).collect();
            let there: BTreeSet<ShardId> = cluster.shards.iter().map(|shard| shard.id).collect();
            prop_assert!(used.is_subset(&there) && there.iter().all(|shard| shard.0 < machine.state.next_shard));
            prop_assert!(cluster.ending.is_some() || used == there, "{used:?} {there:?}");
            let is_back = cluster.is_leaving && machine.operations() == [OperationKind::ServeHomes];
            prop_assert_eq!(machine.operations().len(), usize::from(
                cluster.is_training || cluster.next.is_some() || cluster.ending.is_some() || is_back));
            let trains = match cluster.is_balancing {
                true => "search shards are being balanced",
                false => "a new map is being trained",
            };
            prop_assert!(!cluster.is_training || cluster.under_way() == Some(trains));
            prop_assert!(!cluster.is_balancing || (cluster.is_training && cluster.serving.is_some()));
            prop_assert!(cluster.next_trained.is_none() || cluster.next.is_some());
        }
    }
}
