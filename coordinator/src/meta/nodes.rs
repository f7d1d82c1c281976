//! Applies what concerns shard nodes: coming, being replaced, being forgotten. Pure, like all of apply.

use std::sync::Arc;

use vicinal_common::error::Error;
use vicinal_common::ids::{CollectionId, NodeId, ShardId};

use super::apply::refuse;
use super::command::MetaReply;
use super::state::{MetaState, NodeInfo, Registration};

impl MetaState {
    pub(super) fn register(&mut self, node: NodeId, registration: &Registration, now_ms: u64) -> MetaReply {
        let Registration { name, address, zone } = registration.clone();
        if let Some(known) = self.nodes.get_mut(&node) {
            if let Some(successor) = known.replaced_by {
                return refuse(replaced(&name, node, successor));
            }
            if known.name != name {
                let text = format!("node {node} is called `{}`, it cannot become `{name}`", known.name);
                return refuse(Error::Conflict(text));
            }
            (known.address, known.zone) = (address, zone);
            return MetaReply::Done;
        }
        if let Some((old, _)) = self.node_named(&name)
            && let Some(old) = self.nodes.get_mut(&old)
        {
            old.replaced_by = Some(node);
        }
        self.nodes.insert(node, NodeInfo { name, address, zone, registered_ms: now_ms, replaced_by: None });
        MetaReply::Done
    }

    pub(super) fn replace_replica(
        &mut self,
        collection: CollectionId,
        shard: ShardId,
        from: NodeId,
        to: NodeId,
    ) -> MetaReply {
        if !self.nodes.contains_key(&to) {
            return refuse(Error::BadInput(format!("node {to} is not registered")));
        }
        let (found, mut known) = match self.with_shard(collection, shard) {
            Ok(found) => found,
            Err(error) => return refuse(error),
        };
        if !known.is_on(from) {
            // Done before, by a command whose answer was lost.
            return MetaReply::Done;
        }
        if known.replicas.contains(&from) && known.replicas.contains(&to) {
            return refuse(Error::Conflict(format!("node {to} holds a replica of shard {shard} already")));
        }
        let is_voter_already = known.replicas.contains(&to);
        known.learners.retain(|node| *node != to);
        let members = known.replicas.iter_mut().chain(&mut known.learners);
        for member in members.filter(|member| **member == from) {
            *member = to;
        }
        if is_voter_already {
            known.learners.retain(|node| *node != to);
        }
        let found = Arc::make_mut(found);
        found.put_shard(known);
        found.tell_shards();
        MetaReply::Done
    }

    pub(super) fn forget_node(&mut self, node: NodeId) -> MetaReply {
        match self.nodes.get(&node) {
            None => return MetaReply::Done,
            Some(info) if info.replaced_by.is_none() => {
                return refuse(Error::Conflict(format!("node {node} (`{}`) is not replaced", info.name)));
            }
            Some(_) => {}
        }
        let mut shards = self.collections.values().flat_map(|collection| collection.all_shards());
        if let Some(shard) = shards.find(|shard| shard.is_on(node)) {
            return refuse(Error::Conflict(format!("node {node} still holds a replica of shard {}", shard.id)));
        }
        // Nodes it had replaced itself now have the one that replaced it.
        let successor = self.nodes.remove(&node).and_then(|info| info.replaced_by);
        for info in self.nodes.values_mut().filter(|info| info.replaced_by == Some(node)) {
            info.replaced_by = successor;
        }
        MetaReply::Done
    }
}

/// What a node is told whose place was taken.
pub(crate) fn replaced(name: &str, node: NodeId, successor: NodeId) -> Error {
    Error::Conflict(format!(
        "shard node `{name}` with identity {node} was replaced by one with identity {successor} while its data was away: \
         start it with an empty data directory or under another name"
    ))
}

#[cfg(test)]
mod tests {
    use vicinal_common::transport::Address;

    use super::*;

    fn registration(name: &str, at: &str) -> Registration {
        Registration { name: name.into(), address: Address(at.into()), zone: None }
    }

    fn done(state: &mut MetaState, node: u64, name: &str, at: &str) {
        assert_eq!(state.register(NodeId(node), &registration(name, at), node), MetaReply::Done);
    }

    #[test]
    fn a_new_identity_under_an_old_name_replaces_it() {
        let mut state = MetaState::default();
        done(&mut state, 1, "n1", "a");
        done(&mut state, 2, "n2", "b");
        done(&mut state, 1, "n1", "c");
        assert_eq!(state.nodes[&NodeId(1)].address, Address("c".into()));
        assert_eq!(state.nodes[&NodeId(1)].registered_ms, 1, "when it first came");
        done(&mut state, 3, "n1", "c");
        done(&mut state, 4, "n1", "c");
        assert_eq!(state.successor(NodeId(1)), NodeId(4));
        assert_eq!(state.successor(NodeId(2)), NodeId(2));
        assert_eq!(state.node_named("n1").map(|(node, _)| node), Some(NodeId(4)));
        let again = state.register(NodeId(1), &registration("n1", "a"), 9);
        assert!(
            matches!(&again, MetaReply::Refused(Error::Conflict(text)) if text.contains("was replaced")),
            "{again:?}"
        );
        let renamed = state.register(NodeId(2), &registration("n9", "b"), 9);
        assert!(matches!(renamed, MetaReply::Refused(Error::Conflict(_))));
    }

    #[test]
    fn only_replaced_nodes_are_forgotten_and_chains_stay_whole() {
        let mut state = MetaState::default();
        for (node, name) in [(1, "n1"), (2, "n1"), (3, "n1"), (4, "n2")] {
            done(&mut state, node, name, "a");
        }
        assert!(matches!(state.forget_node(NodeId(4)), MetaReply::Refused(_)));
        assert_eq!(state.forget_node(NodeId(2)), MetaReply::Done);
        assert_eq!(state.forget_node(NodeId(2)), MetaReply::Done);
        assert_eq!(state.successor(NodeId(1)), NodeId(3));
    }
}
