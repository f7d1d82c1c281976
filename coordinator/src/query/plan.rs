//! Which node answers for which shard. Pure.

use std::collections::{BTreeMap, HashSet};

use vicinal_common::ids::{NodeId, ShardId};

use crate::meta::Shard;

/// One request to one node, for all the shards it answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTask {
    /// The node.
    pub node: NodeId,
    /// Its shards, in the order they were given.
    pub shards: Vec<ShardId>,
}

/// Every shard given is in exactly one place: one task, or `without`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One per node, in order of the nodes.
    pub tasks: Vec<NodeTask>,
    /// Shards no node is left to ask for.
    pub without: Vec<ShardId>,
}

/// Chooses for each shard the preferred node if it holds a replica, else the first replica, leaving out nodes that were
/// tried for this shard and nodes that cannot be reached.
pub fn plan<'a>(
    shards: impl Iterator<Item = &'a Shard>,
    preferred: impl Fn(ShardId) -> Option<NodeId>,
    tried: &HashSet<(ShardId, NodeId)>,
    reachable: impl Fn(NodeId) -> bool,
) -> Plan {
    let mut tasks: BTreeMap<NodeId, Vec<ShardId>> = BTreeMap::new();
    let mut without = Vec::new();
    for shard in shards {
        let usable = |node: &NodeId| reachable(*node) && !tried.contains(&(shard.id, *node));
        let preferred = preferred(shard.id).filter(|node| shard.replicas.contains(node) && usable(node));
        match preferred.or_else(|| shard.replicas.iter().copied().find(|node| usable(node))) {
            Some(node) => tasks.entry(node).or_default().push(shard.id),
            None => without.push(shard.id),
        }
    }
    Plan { tasks: tasks.into_iter().map(|(node, shards)| NodeTask { node, shards }).collect(), without }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_shards() -> impl Strategy<Value = Vec<Shard>> {
        proptest::collection::vec(proptest::collection::btree_set(0u64..6, 0..4), 0..12).prop_map(|replicas| {
            let numbered = replicas.into_iter().enumerate();
            let shard = |(id, nodes): (usize, std::collections::BTreeSet<u64>)| Shard {
                id: ShardId(id as u64),
                replicas: nodes.into_iter().map(NodeId).collect(),
            };
            numbered.map(shard).collect()
        })
    }

    proptest! {
        #[test]
        fn every_shard_is_asked_once_where_it_lives_and_was_not_tried(
            shards in any_shards(),
            tried in proptest::collection::hash_set((0u64..12, 0u64..6), 0..20),
            down in proptest::collection::hash_set(0u64..6, 0..4),
            leader in proptest::option::of(0u64..6),
        ) {
            let tried: HashSet<_> = tried.into_iter().map(|(s, n)| (ShardId(s), NodeId(n))).collect();
            let up = |node: NodeId| !down.contains(&node.0);
            let plan = plan(shards.iter(), |_| leader.map(NodeId), &tried, up);
            let mut seen: Vec<ShardId> = plan.without.clone();
            let mut nodes = HashSet::new();
            for task in &plan.tasks {
                prop_assert!(nodes.insert(task.node), "one task per node");
                prop_assert!(!task.shards.is_empty());
                for id in &task.shards {
                    let shard = &shards[id.0 as usize];
                    prop_assert!(shard.replicas.contains(&task.node) && up(task.node));
                    prop_assert!(!tried.contains(&(*id, task.node)));
                    if let Some(leader) = leader.map(NodeId)
                        && shard.replicas.contains(&leader) && up(leader) && !tried.contains(&(*id, leader))
                    {
                        prop_assert_eq!(task.node, leader);
                    }
                    seen.push(*id);
                }
            }
            for id in &plan.without {
                let shard = &shards[id.0 as usize];
                prop_assert!(shard.replicas.iter().all(|n| !up(*n) || tried.contains(&(*id, *n))));
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, shards.iter().map(|s| s.id).collect::<Vec<_>>());
        }
    }
}
