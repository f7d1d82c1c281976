//! The state machine against a simpler model, and the words clients know.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vicinal_common::ids::{ClusterId, NodeId, RequestId, ShardId};
use vicinal_common::payload_index::FieldType;
use vicinal_common::transport::Address;

use super::super::change::CollectionChange;
use super::super::machine::create_command;
use super::super::state::{Registration, StrictMode};
use super::*;

fn collection_id(number: u128) -> CollectionId {
    CollectionId(uuid::Uuid::from_u128(number))
}

fn create(id: u128, name: &str, first_shard: u64, shards: u64) -> CreateCommand {
    let shards = (first_shard..first_shard + shards).map(ShardId);
    let shards = shards.map(|id| Shard { id, replicas: vec![NodeId(1)], learners: Vec::new() });
    create_command(collection_id(id), name, shards.collect(), Routing::Hash)
}

/// A state with a number for the next request.
struct Machine {
    state: MetaState,
    next: u128,
}

impl Machine {
    fn new() -> Machine {
        let mut machine = Machine { state: MetaState::default(), next: 0 };
        let node = MetaCommand::RegisterNode {
            node: NodeId(1),
            registration: Registration { name: "one".into(), address: Address("local:one".into()), zone: None },
            now_ms: 1,
        };
        assert_eq!(machine.run(node), MetaReply::Done);
        machine
    }

    fn run(&mut self, command: MetaCommand) -> MetaReply {
        self.next += 1;
        self.state.apply(&MetaRequest { request: RequestId(self.next), command })
    }

    fn create(&mut self, id: u128, name: &str) -> MetaReply {
        let create = create(id, name, self.state.next_shard, 1);
        self.run(MetaCommand::CreateCollection(Box::new(create)))
    }

    fn alias(&mut self, alias: &str, collection: &str) -> MetaReply {
        self.run(MetaCommand::UpdateAliases(vec![AliasChange::Create {
            alias: alias.into(),
            collection: collection.into(),
        }]))
    }
}

fn text(reply: &MetaReply) -> (u16, String) {
    match reply {
        MetaReply::Refused(error) => (error.http_status(), error.to_string()),
        MetaReply::Done | MetaReply::ShardIdsTaken { .. } => panic!("not refused: {reply:?}"),
    }
}

#[test]
fn life_of_a_collection() {
    let mut machine = Machine::new();
    assert_eq!(machine.create(1, "a"), MetaReply::Done);
    assert_eq!(machine.state.resolve("a").unwrap_err().http_status(), 503);
    assert_eq!(machine.state.active().count(), 0);
    assert_eq!(machine.state.operations.len(), 1);
    let id = collection_id(1);
    assert_eq!(machine.run(MetaCommand::ActivateCollection { collection: id }), MetaReply::Done);
    assert!(machine.state.operations.is_empty());
    assert_eq!(machine.alias("short", "a"), MetaReply::Done);
    assert_eq!(machine.state.resolve("short").unwrap().id, id);
    assert_eq!(machine.state.aliases_of("a").collect::<Vec<_>>(), ["short"]);
    assert_eq!(machine.run(MetaCommand::BeginDelete { collection: id, now_ms: 9 }), MetaReply::Done);
    for name in ["a", "short"] {
        let error = machine.state.resolve(name).unwrap_err();
        assert_eq!(error.to_string(), format!("Not found: Collection `{name}` doesn't exist!"));
    }
    // The name is free at once, the replicas still count.
    assert_eq!(machine.create(2, "a"), MetaReply::Done);
    assert_eq!(machine.state.replicas_per_node()[&NodeId(1)], 2);
    assert_eq!(text(&machine.run(MetaCommand::ActivateCollection { collection: id })).0, 404);
    assert_eq!(machine.run(MetaCommand::FinishDelete { collection: id }), MetaReply::Done);
    assert_eq!(machine.run(MetaCommand::FinishDelete { collection: id }), MetaReply::Done);
    assert_eq!(text(&machine.run(MetaCommand::FinishDelete { collection: collection_id(2) })).0, 409);
    assert_eq!(machine.state.collections.len(), 1);
}

#[test]
fn clients_know_these_words() {
    let mut machine = Machine::new();
    machine.create(1, "a");
    assert_eq!(text(&machine.create(2, "a")), (409, "Wrong input: Collection `a` already exists!".into()));
    machine.alias("b", "a");
    let (status, words) = text(&machine.create(3, "b"));
    assert_eq!(status, 400);
    assert!(words.contains("Alias with the same name already exists"), "{words}");
    assert_eq!(text(&machine.alias("c", "x")), (404, "Not found: Collection `x` doesn't exist!".into()));
    assert_eq!(text(&machine.alias("a", "a")), (409, "Wrong input: Collection `a` already exists!".into()));
    let rename = AliasChange::Rename { from: "x".into(), to: "y".into() };
    let delete = AliasChange::Delete { alias: "b".into() };
    let refused = machine.run(MetaCommand::UpdateAliases(vec![delete.clone(), rename]));
    assert_eq!(text(&refused).0, 404);
    assert!(machine.state.aliases.contains_key("b"), "all or nothing");
    assert_eq!(machine.run(MetaCommand::UpdateAliases(vec![delete.clone()])), MetaReply::Done);
    assert_eq!(machine.run(MetaCommand::UpdateAliases(vec![delete])), MetaReply::Done);
}

#[test]
fn shard_ids_are_never_used_twice() {
    let mut machine = Machine::new();
    let first = create(1, "a", 0, 4);
    assert_eq!(machine.run(MetaCommand::CreateCollection(Box::new(first.clone()))), MetaReply::Done);
    let late = create(2, "b", 2, 2);
    let reply = machine.run(MetaCommand::CreateCollection(Box::new(late)));
    assert_eq!(reply, MetaReply::ShardIdsTaken { next_shard: 4 });
    // The same collection again: it took effect before.
    assert_eq!(machine.run(MetaCommand::CreateCollection(Box::new(first))), MetaReply::Done);
    let mut unknown = create(3, "c", 4, 1);
    unknown.shards[0].replicas = vec![NodeId(9)];
    assert_eq!(text(&machine.run(MetaCommand::CreateCollection(Box::new(unknown)))).0, 400);
}

#[test]
fn same_request_is_applied_once() {
    let mut machine = Machine::new();
    machine.create(1, "a");
    machine.alias("x", "a");
    let rename = MetaCommand::UpdateAliases(vec![AliasChange::Rename { from: "x".into(), to: "y".into() }]);
    let request = MetaRequest { request: RequestId(u128::MAX), command: rename };
    assert_eq!(machine.state.apply(&request), MetaReply::Done);
    assert_eq!(machine.state.apply(&request), MetaReply::Done);
    for _ in 0..2 * REPLIES_MAX {
        machine.run(MetaCommand::FoundCluster { cluster: ClusterId(uuid::Uuid::from_u128(1)) });
    }
    assert_eq!(machine.state.replies.len(), REPLIES_MAX);
    assert_eq!(text(&machine.state.apply(&request)).0, 404, "forgotten by now");
}

/// What a client can tell: which names and aliases lead where.
#[derive(Default, Debug)]
struct Model {
    names: BTreeMap<String, u128>,
    aliases: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Step {
    Create(String),
    Activate(u128),
    Delete(String),
    Finish(u128),
    Aliases(Vec<AliasChange>),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(String::from);
    let change = prop_oneof![
        (name(), name()).prop_map(|(alias, collection)| AliasChange::Create { alias, collection }),
        name().prop_map(|alias| AliasChange::Delete { alias }),
        (name(), name()).prop_map(|(from, to)| AliasChange::Rename { from, to }),
    ];
    prop_oneof![
        3 => name().prop_map(Step::Create),
        2 => (0_u128..20).prop_map(Step::Activate),
        2 => name().prop_map(Step::Delete),
        2 => (0_u128..20).prop_map(Step::Finish),
        4 => prop::collection::vec(change, 1..4).prop_map(Step::Aliases),
    ]
}

impl Model {
    /// Carries out alias changes; `false` (and no change) when one is not possible.
    fn aliases(&mut self, changes: &[AliasChange]) -> bool {
        let before = self.aliases.clone();
        let possible = changes.iter().all(|change| match change {
            AliasChange::Create { alias, collection } => {
                self.aliases.insert(alias.clone(), collection.clone());
                self.names.contains_key(collection) && !self.names.contains_key(alias)
            }
            AliasChange::Delete { alias } => {
                self.aliases.remove(alias);
                true
            }
            AliasChange::Rename { from, to } => {
                let target = self.aliases.remove(from);
                target.map(|target| self.aliases.insert(to.clone(), target)).is_some() && !self.names.contains_key(to)
            }
        });
        if !possible {
            self.aliases = before;
        }
        possible
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let (mut machine, mut model) = (Machine::new(), Model::default());
        for (number, step) in (0_u128..).zip(steps) {
            let before = machine.state.clone();
            match step {
                Step::Create(name) => {
                    let free = !model.names.contains_key(&name) && !model.aliases.contains_key(&name);
                    let reply = machine.create(number, &name);
                    prop_assert_eq!(reply == MetaReply::Done, free);
                    if free {
                        model.names.insert(name, number);
                    }
                }
                Step::Activate(id) => {
                    machine.run(MetaCommand::ActivateCollection { collection: collection_id(id) });
                }
                Step::Delete(name) => {
                    let id = machine.state.names.get(&name).copied().unwrap_or(collection_id(1_000));
                    prop_assert_eq!(machine.run(MetaCommand::BeginDelete { collection: id, now_ms: 0 }), MetaReply::Done);
                    model.names.remove(&name);
                    model.aliases.retain(|_, target| *target != name);
                }
                Step::Finish(id) => {
                    let live = model.names.values().any(|live| *live == id);
                    let reply = machine.run(MetaCommand::FinishDelete { collection: collection_id(id) });
                    prop_assert_eq!(reply == MetaReply::Done, !live);
                }
                Step::Aliases(changes) => {
                    let possible = model.aliases(&changes);
                    let reply = machine.run(MetaCommand::UpdateAliases(changes));
                    prop_assert_eq!(reply == MetaReply::Done, possible);
                    if !possible {
                        prop_assert_eq!(&machine.state.aliases, &before.aliases);
                    }
                }
            }
            let state = &machine.state;
            let names: BTreeMap<String, CollectionId> =
                model.names.iter().map(|(name, id)| (name.clone(), collection_id(*id))).collect();
            prop_assert_eq!(&state.names, &names);
            prop_assert_eq!(&state.aliases, &model.aliases);
            check_invariants(state);
            let copy: MetaState = postcard::from_bytes(&postcard::to_stdvec(state).unwrap()).unwrap();
            prop_assert_eq!(&copy, state);
        }
    }
}

fn check_invariants(state: &MetaState) {
    let mut shards = BTreeSet::new();
    for collection in state.collections.values() {
        for shard in collection.shard_ids() {
            assert!(shard.0 < state.next_shard && shards.insert(shard), "shard {shard} is used twice");
        }
        let named = state.names.get(&collection.name) == Some(&collection.id);
        assert_eq!(named, collection.state != CollectionState::Deleting);
        let operations = state.operations.values().filter(|operation| operation.collection == collection.id).count();
        assert_eq!(operations, usize::from(collection.state != CollectionState::Active));
    }
    for (alias, target) in &state.aliases {
        assert!(state.names.contains_key(target) && !state.names.contains_key(alias), "{alias} -> {target}");
    }
}

#[test]
fn payload_indexes_change_one_by_one_and_count_revisions() {
    let mut machine = Machine::new();
    machine.create(1, "a");
    let collection = collection_id(1);
    let create =
        |field: &str, of: FieldType| MetaCommand::CreateIndex { collection, field: field.into(), index: of.into() };
    let drop = |field: &str| MetaCommand::DropIndex { collection, field: field.into() };
    for (command, revision) in [
        (create("x", FieldType::Keyword), 1),
        (create("x", FieldType::Keyword), 1),
        (create("x", FieldType::Geo), 2),
        (drop("y"), 2),
        (create("y", FieldType::Bool), 3),
        (drop("x"), 4),
    ] {
        assert_eq!(machine.run(command.clone()), MetaReply::Done);
        assert_eq!(machine.state.collections[&collection].tuning.revision, revision, "{command:?}");
    }
    for n in 1..PAYLOAD_INDEXES_MAX {
        assert_eq!(machine.run(create(&format!("f{n}"), FieldType::Bool)), MetaReply::Done);
    }
    assert_eq!(text(&machine.run(create("more", FieldType::Bool))).0, 400);
    assert_eq!(machine.run(create("y", FieldType::Integer)), MetaReply::Done);
    let indexes = &machine.state.collections[&collection].tuning.payload_indexes;
    assert_eq!((indexes.len(), indexes["y"].of()), (PAYLOAD_INDEXES_MAX, FieldType::Integer));
    machine.run(MetaCommand::BeginDelete { collection, now_ms: 9 });
    assert_eq!(text(&machine.run(create("z", FieldType::Bool))).0, 404);
}

#[test]
fn graphs_are_placed_when_created_and_when_changed() {
    use vicinal_common::tuning::GraphPlacementChange;
    let mut machine = Machine::new();
    machine.create(1, "a");
    let on_disk = GraphPlacement { on_disk: true, ..GraphPlacement::default() };
    let second = CreateCommand { graphs: on_disk.clone(), ..create(2, "b", machine.state.next_shard, 1) };
    assert_eq!(machine.run(MetaCommand::CreateCollection(Box::new(second))), MetaReply::Done);
    let tuning = |machine: &Machine, id| machine.state.collections[&collection_id(id)].tuning.clone();
    // New replicas follow revision 0: they must hear of anything else.
    assert_eq!(tuning(&machine, 1), Tuning::default());
    assert_eq!(tuning(&machine, 2), Tuning { revision: 1, graphs: on_disk, ..Tuning::default() });

    let collection = collection_id(2);
    let change = |on_disk, own| {
        let graphs = GraphPlacementChange { on_disk, vectors: [(String::new(), own)].into() };
        let change = Box::new(CollectionChange { graphs, ..CollectionChange::default() });
        MetaCommand::ChangeCollection { collection, change }
    };
    for (command, revision, is_on_disk) in [
        (change(Some(true), None), 1, true),
        (change(None, Some(false)), 2, false),
        (change(Some(false), Some(false)), 3, false),
        (change(None, Some(true)), 4, true),
        (change(None, None), 5, false),
    ] {
        assert_eq!(machine.run(command.clone()), MetaReply::Done);
        let found = tuning(&machine, 2);
        assert_eq!((found.revision, found.graphs.is_on_disk("")), (revision, is_on_disk), "{command:?}");
    }
    machine.run(MetaCommand::BeginDelete { collection, now_ms: 9 });
    assert_eq!(text(&machine.run(change(Some(true), None))).0, 404);
}

#[test]
fn a_change_of_a_collection_is_whole_and_counts_no_revision_by_itself() {
    let mut machine = Machine::new();
    machine.create(1, "a");
    let collection = collection_id(1);
    let change = |change: CollectionChange| MetaCommand::ChangeCollection { collection, change: Box::new(change) };
    let strict = StrictMode { enabled: Some(true), max_payload_index_count: Some(1), ..StrictMode::default() };
    let good = CollectionChange {
        strict: Some(strict),
        write_consistency_factor: Some(1),
        config_json: Some("{\"params\":{\"on_disk_payload\":true}}".into()),
        metadata_json: Some("{\"a\":1}".into()),
        ..CollectionChange::default()
    };
    assert_eq!(machine.run(change(good)), MetaReply::Done);
    let found = machine.state.collections[&collection].clone();
    assert_eq!(found.config_json, "{\"metadata\":{\"a\":1},\"params\":{\"on_disk_payload\":true}}");
    assert_eq!((found.strict.enabled, found.tuning.revision), (Some(true), 0));

    let index =
        |field: &str| MetaCommand::CreateIndex { collection, field: field.into(), index: FieldType::Bool.into() };
    assert_eq!(machine.run(index("x")), MetaReply::Done);
    assert_eq!(machine.run(index("x")), MetaReply::Done, "it is there already");
    assert_eq!(text(&machine.run(index("y"))).0, 400, "strict mode allows one");

    let before = machine.state.collections[&collection].clone();
    let too_large = CollectionChange {
        strict: Some(StrictMode { enabled: Some(false), ..StrictMode::default() }),
        metadata_json: Some(format!("{{\"b\":\"{}\"}}", "x".repeat(20_000))),
        ..CollectionChange::default()
    };
    assert_eq!(text(&machine.run(change(too_large))).0, 400);
    assert_eq!(machine.state.collections[&collection], before);
    machine.run(MetaCommand::BeginDelete { collection, now_ms: 9 });
    assert_eq!(text(&machine.run(change(CollectionChange::default()))).0, 404);
}
