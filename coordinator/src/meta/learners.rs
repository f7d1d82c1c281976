//! Applies what concerns members without a vote, of collections that have a replica on each node. Pure, like all of apply.

use std::sync::Arc;

use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, NodeId, ShardId};
use vicinal_common::limits::REPLICATION_MAX;

use super::apply::refuse;
use super::command::MetaReply;
use super::state::{Collection, CollectionState, MetaState, Routing, Shard};

impl MetaState {
    /// A collection, and what is known of one of its shards, to be changed and put back.
    pub(super) fn with_shard(&mut self, id: CollectionId, shard: ShardId) -> Result<(&mut Arc<Collection>, Shard)> {
        let gone = || Error::NotFound(format!("shard {shard} of collection {id} does not exist any more"));
        let collection = self.collections.get_mut(&id).ok_or_else(gone)?;
        let known = collection.shard(shard).cloned().ok_or_else(gone)?;
        Ok((collection, known))
    }

    pub(super) fn add_learner(&mut self, id: CollectionId, shard: ShardId, node: NodeId) -> MetaReply {
        if !self.nodes.contains_key(&node) {
            return refuse(Error::BadInput(format!("node {node} is not registered")));
        }
        let (collection, mut known) = match self.with_shard(id, shard) {
            Ok(found) => found,
            Err(error) => return refuse(error),
        };
        // Nobody would drop a replica that comes to a collection while it is being deleted, but the sweep.
        if collection.state == CollectionState::Deleting {
            return refuse(Error::NotFound(format!("Collection {id} was deleted")));
        }
        if collection.routing != Routing::Replicate {
            let name = collection.routing.name();
            return refuse(Error::Conflict(format!("Collection {id} has no learners, its routing is `{name}`")));
        }
        if !known.is_on(node) {
            known.learners.push(node);
            Arc::make_mut(collection).put_shard(known);
        }
        MetaReply::Done
    }

    pub(super) fn promote_learner(&mut self, id: CollectionId, shard: ShardId, node: NodeId) -> MetaReply {
        let (collection, mut known) = match self.with_shard(id, shard) {
            Ok(found) => found,
            Err(error) => return refuse(error),
        };
        if known.replicas.contains(&node) {
            return MetaReply::Done;
        }
        if !known.learners.contains(&node) {
            return refuse(Error::Conflict(format!("node {node} is no learner of shard {shard}")));
        }
        if known.replicas.len() >= REPLICATION_MAX as usize {
            let text = format!("shard {shard} has {REPLICATION_MAX} voters, which is the most it can have");
            return refuse(Error::Conflict(text));
        }
        known.learners.retain(|learner| *learner != node);
        known.replicas.push(node);
        Arc::make_mut(collection).put_shard(known);
        MetaReply::Done
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::transport::Address;

    use super::super::machine::create_command;
    use super::super::state::{Registration, Shard};
    use super::super::{MetaCommand, MetaRequest};
    use super::*;

    const ID: CollectionId = CollectionId(uuid::Uuid::from_u128(1));
    const S: ShardId = ShardId(0);

    struct Machine {
        state: MetaState,
        next: u128,
    }

    impl Machine {
        /// Nodes 1 to 7, and a collection whose voters are nodes 1 to `voters`.
        fn new(routing: Routing, voters: u64) -> Machine {
            let mut machine = Machine { state: MetaState::default(), next: 0 };
            (1..=7).for_each(|node| machine.register(node, &format!("n{node}")));
            let create = machine.create(routing, &[voters]);
            assert_eq!(create, MetaReply::Done);
            machine
        }

        fn run(&mut self, command: MetaCommand) -> MetaReply {
            self.next += 1;
            let request = vicinal_common::ids::RequestId(self.next);
            self.state.apply(&MetaRequest { request, command })
        }

        fn register(&mut self, node: u64, name: &str) {
            let registration = Registration { name: name.into(), address: Address("a".into()), zone: None };
            let done = self.run(MetaCommand::RegisterNode { node: NodeId(node), registration, now_ms: node });
            assert_eq!(done, MetaReply::Done);
        }

        /// A shard for each number of voters.
        fn create(&mut self, routing: Routing, voters: &[u64]) -> MetaReply {
            let replicas = |voters: u64| (1..=voters).map(NodeId).collect();
            let ids: Vec<ShardId> = (self.state.next_shard..).map(ShardId).take(voters.len()).collect();
            let shard =
                |(id, voters): (&ShardId, &u64)| Shard { id: *id, replicas: replicas(*voters), learners: vec![] };
            let shards = ids.iter().zip(voters).map(shard).collect();
            let create = create_command(ID, "c", shards, routing);
            self.run(MetaCommand::CreateCollection(Box::new(create)))
        }

        fn add(&mut self, node: u64) -> MetaReply {
            self.run(MetaCommand::AddLearner { collection: ID, shard: S, node: NodeId(node) })
        }

        fn promote(&mut self, node: u64) -> MetaReply {
            self.run(MetaCommand::PromoteLearner { collection: ID, shard: S, node: NodeId(node) })
        }

        fn replace(&mut self, from: u64, to: u64) -> MetaReply {
            let (from, to) = (NodeId(from), NodeId(to));
            self.run(MetaCommand::ReplaceReplica { collection: ID, shard: S, from, to })
        }

        /// Voters and learners.
        fn members(&self) -> (Vec<u64>, Vec<u64>) {
            let shard = &self.state.collections[&ID].shards[0];
            let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
            (numbers(&shard.replicas), numbers(&shard.learners))
        }
    }

    fn is_refused(reply: &MetaReply, part: &str) {
        let MetaReply::Refused(error) = reply else { panic!("{reply:?}") };
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn learners_come_once_and_get_a_vote_once() {
        let mut machine = Machine::new(Routing::Replicate, 3);
        for node in [4, 4, 5, 1, 6] {
            assert_eq!(machine.add(node), MetaReply::Done);
        }
        assert_eq!(machine.members(), (vec![1, 2, 3], vec![4, 5, 6]), "voters stay voters");
        is_refused(&machine.add(9), "not registered");
        for node in [5, 5, 4] {
            assert_eq!(machine.promote(node), MetaReply::Done);
        }
        assert_eq!(machine.members(), (vec![1, 2, 3, 5, 4], vec![6]));
        is_refused(&machine.promote(6), "5 voters, which is the most");
        is_refused(&machine.promote(7), "no learner");
        assert_eq!(machine.state.replicas_per_node()[&NodeId(6)], 1, "a learner takes room like any replica");
    }

    #[test]
    fn only_replicated_collections_with_one_shard_have_learners() {
        is_refused(&Machine::new(Routing::Hash, 2).add(3), "routing is `hash`");
        let mut machine = Machine::new(Routing::Replicate, 1);
        machine.run(MetaCommand::BeginDelete { collection: ID, now_ms: 7 });
        is_refused(&machine.add(2), "was deleted");
        machine.run(MetaCommand::FinishDelete { collection: ID });
        is_refused(&machine.add(2), "does not exist any more");
        is_refused(&machine.promote(2), "does not exist any more");
        is_refused(&machine.create(Routing::Replicate, &[1, 1]), "one shard");
        assert_eq!(machine.create(Routing::Hash, &[1, 1]), MetaReply::Done);
    }

    #[test]
    fn a_replaced_learner_is_exchanged_and_its_node_forgotten() {
        let mut machine = Machine::new(Routing::Replicate, 3);
        for node in [4, 5] {
            machine.add(node);
        }
        machine.register(14, "n4");
        is_refused(&machine.run(MetaCommand::ForgetNode { node: NodeId(4) }), "still holds a replica");
        for _ in 0..2 {
            assert_eq!(machine.replace(4, 14), MetaReply::Done);
            assert_eq!(machine.members(), (vec![1, 2, 3], vec![14, 5]));
        }
        assert_eq!(machine.run(MetaCommand::ForgetNode { node: NodeId(4) }), MetaReply::Done);
        is_refused(&machine.replace(1, 2), "holds a replica of shard 0 already");
        // A learner takes the place of a voter, and a learner whose successor is a member already just goes.
        assert_eq!(machine.replace(1, 5), MetaReply::Done);
        assert_eq!(machine.members(), (vec![5, 2, 3], vec![14]));
        assert_eq!(machine.replace(14, 2), MetaReply::Done);
        assert_eq!(machine.members(), (vec![5, 2, 3], vec![]));
    }
}
