//! The state machine for tests: commands one after the other, each tried twice.

use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::ids::{CollectionId, NodeId, RequestId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::ring::TokenTable;
use vicinal_common::transport::Address;
use vicinal_common::tuning::GraphPlacement;

use super::command::{CreateCommand, MetaCommand, MetaReply, MetaRequest};
use super::state::{Collection, MetaState, Registration, Routing, Shard, StrictMode};

/// A collection with these shards, of one unnamed vector.
pub(super) fn create_command(id: CollectionId, name: &str, shards: Vec<Shard>, routing: Routing) -> CreateCommand {
    let ids: Vec<ShardId> = shards.iter().map(|shard| shard.id).collect();
    CreateCommand {
        id,
        name: name.into(),
        schema: CollectionSchema {
            vectors: [(String::new(), VectorSchema::dense(4, Metric::Dot))].into(),
            hnsw: HnswConfig::default(),
            indexing_threshold_kib: 1,
        },
        shards,
        tokens: TokenTable::propose(&ids).unwrap(),
        routing,
        replication_factor: 1,
        write_consistency_factor: 1,
        config_json: "{}".into(),
        strict: StrictMode::default(),
        graphs: GraphPlacement::default(),
        now_ms: 5,
    }
}

/// A state with one collection.
pub(super) struct Machine {
    pub(super) state: MetaState,
    next: u128,
}

impl Machine {
    /// Nodes, numbered from 1, and a collection that is served.
    pub(super) fn serving(nodes: &[&str], create: CreateCommand) -> Machine {
        let mut machine = Machine { state: MetaState::default(), next: 0 };
        for (node, name) in (1..).map(NodeId).zip(nodes) {
            let address = Address(format!("local:{name}"));
            let registration = Registration { name: (*name).into(), address, zone: None };
            machine.done(MetaCommand::RegisterNode { node, registration, now_ms: 1 });
        }
        let collection = create.id;
        machine.done(MetaCommand::CreateCollection(Box::new(create)));
        machine.done(MetaCommand::ActivateCollection { collection });
        machine
    }

    pub(super) fn run(&mut self, command: MetaCommand) -> MetaReply {
        self.next += 1;
        self.state.apply(&MetaRequest { request: RequestId(self.next), command })
    }

    /// The state without what only says which requests there were.
    fn agreed(&self) -> MetaState {
        MetaState { replies: Default::default(), ..self.state.clone() }
    }

    /// A command that takes effect, and that changes nothing the second time.
    pub(super) fn done(&mut self, command: MetaCommand) {
        assert_eq!(self.run(command.clone()), MetaReply::Done, "{command:?}");
        let once = self.agreed();
        assert_eq!(self.run(command.clone()), MetaReply::Done, "again: {command:?}");
        assert_eq!(once, self.agreed(), "{command:?}");
    }

    /// A command that is refused with these words and changes nothing.
    pub(super) fn refused(&mut self, command: MetaCommand, words: &str) {
        let before = self.agreed();
        match self.run(command.clone()) {
            MetaReply::Refused(error) => assert!(error.to_string().contains(words), "{command:?}: {error}"),
            other => panic!("{command:?}: {other:?}"),
        }
        assert_eq!(before, self.agreed());
    }

    /// The collection.
    pub(super) fn collection(&self) -> &Collection {
        self.state.collections.values().next().unwrap()
    }
}
