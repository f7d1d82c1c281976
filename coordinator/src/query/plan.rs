//! Which node answers for which shard. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use vicinal_common::ids::{NodeId, ShardId};

use crate::shard_client::{Standing, Tier};

/// A node is as good a choice as the cheapest while its cost is at most this fraction of that one's: one request fewer is
/// worth more. Less than two, so that an idle node is better than one that works on a request of ours.
const NEAR: (u64, u64) = (3, 2);

/// One request to one node, for all the shards it answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTask {
    /// The node.
    pub node: NodeId,
    /// Its shards, in the order they were given.
    pub shards: Vec<ShardId>,
}

/// A shard to be asked, and who may be asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The shard.
    pub shard: ShardId,
    /// Replicas that may be asked now, in the order of the metadata.
    pub candidates: Vec<Candidate>,
    /// The candidate to ask unless it is in trouble: the leader, when only that can answer.
    pub preferred: Option<NodeId>,
}

/// A replica that may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node that holds it.
    pub node: NodeId,
    /// How good a choice it is.
    pub standing: Standing,
}

/// Every shard given is in exactly one place: one task, or `without`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One per node, in order of the nodes.
    pub tasks: Vec<NodeTask>,
    /// Shards without a candidate.
    pub without: Vec<ShardId>,
}

/// Chooses a node for each shard: the preferred one unless others are in less trouble, else one of those in the best tier
/// whose cost is near the lowest, so that few nodes cover all shards. `turn` decides among equals, so that they take turns.
pub fn plan(wanted: &[Wanted], turn: u64) -> Plan {
    let mut plan = Plan::default();
    let mut chosen: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
    let mut open: Vec<(usize, Vec<Candidate>)> = Vec::new();
    for (place, shard) in wanted.iter().enumerate() {
        // When all are in trouble alike, as after a pause of this process, none is a better choice.
        let best = shard.candidates.iter().map(|candidate| candidate.standing.tier).min();
        let is_well = |tier: Tier| tier < Tier::Suspect || Some(tier) == best;
        let is_preferred = |c: &&Candidate| Some(c.node) == shard.preferred && is_well(c.standing.tier);
        let good = good_candidates(&shard.candidates);
        match shard.candidates.iter().find(is_preferred) {
            Some(candidate) => chosen.entry(candidate.node).or_default().push(place),
            None if good.is_empty() => plan.without.push(shard.shard),
            None => open.push((place, good)),
        }
    }
    // Greedy cover: the node that is good for most of the shards left; nodes that are asked anyway come first.
    while !open.is_empty() {
        let mut covers: BTreeMap<NodeId, usize> = BTreeMap::new();
        for candidate in open.iter().flat_map(|(_, good)| good) {
            *covers.entry(candidate.node).or_default() += 1;
        }
        let count = covers.len() as u64;
        let rank = |(place, (node, covered)): &(usize, (NodeId, usize))| {
            let order = (*place as u64 + count - turn % count) % count;
            (!chosen.contains_key(node), Reverse(*covered), order)
        };
        let Some((_, (node, _))) = covers.into_iter().enumerate().min_by_key(rank) else { break };
        let (taken, rest): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(_, good)| good.iter().any(|c| c.node == node));
        chosen.entry(node).or_default().extend(taken.into_iter().map(|(place, _)| place));
        open = rest;
    }
    for (node, mut places) in chosen {
        places.sort_unstable();
        let shards = places.into_iter().map(|place| wanted[place].shard).collect();
        plan.tasks.push(NodeTask { node, shards });
    }
    plan
}

/// The candidates of the best tier that are near the cheapest of it.
fn good_candidates(candidates: &[Candidate]) -> Vec<Candidate> {
    let Some(best) = candidates.iter().map(|candidate| candidate.standing).min() else { return Vec::new() };
    let near = best.cost.saturating_mul(NEAR.0) / NEAR.1;
    let is_good = |c: &&Candidate| c.standing.tier == best.tier && c.standing.cost <= near;
    candidates.iter().filter(is_good).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn any_tier() -> impl Strategy<Value = Tier> {
        prop_oneof![
            4 => Just(Tier::Fine),
            1 => Just(Tier::Busy),
            1 => Just(Tier::Suspect),
            1 => Just(Tier::HalfOpen),
            1 => Just(Tier::Open),
        ]
    }

    /// Shards over six nodes, each node with one standing.
    fn any_wanted() -> impl Strategy<Value = Vec<Wanted>> {
        let nodes = proptest::collection::vec((any_tier(), 1u64..1_000_000), 6);
        let shard = (proptest::collection::btree_set(0u64..6, 0..4), proptest::option::of(0u64..6));
        (nodes, proptest::collection::vec(shard, 0..12)).prop_map(|(nodes, shards)| {
            let candidate = |node: u64| {
                let (tier, cost) = nodes[node as usize];
                Candidate { node: NodeId(node), standing: Standing { tier, cost } }
            };
            let numbered = shards.into_iter().enumerate();
            numbered
                .map(|(id, (replicas, preferred))| Wanted {
                    shard: ShardId(id as u64),
                    candidates: replicas.into_iter().map(candidate).collect(),
                    preferred: preferred.map(NodeId),
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn every_shard_is_asked_once_of_a_good_replica(wanted in any_wanted(), turn: u64) {
            let plan = plan(&wanted, turn);
            let mut seen: Vec<ShardId> = plan.without.clone();
            let mut nodes = BTreeSet::new();
            for task in &plan.tasks {
                prop_assert!(nodes.insert(task.node), "one task per node");
                prop_assert!(!task.shards.is_empty() && task.shards.is_sorted());
                for id in &task.shards {
                    let shard = &wanted[id.0 as usize];
                    let chosen = shard.candidates.iter().find(|c| c.node == task.node).unwrap().standing;
                    let best = shard.candidates.iter().map(|c| c.standing).min().unwrap();
                    let preferred = shard.candidates.iter().find(|c| Some(c.node) == shard.preferred);
                    match preferred.filter(|c| c.standing.tier < Tier::Suspect || c.standing.tier == best.tier) {
                        Some(preferred) => prop_assert_eq!(task.node, preferred.node),
                        None => prop_assert!(chosen.tier == best.tier && chosen.cost <= best.cost * 3 / 2),
                    }
                    seen.push(*id);
                }
            }
            for id in &plan.without {
                prop_assert!(wanted[id.0 as usize].candidates.is_empty());
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, wanted.iter().map(|s| s.shard).collect::<Vec<_>>());
        }
    }

    fn everywhere(shards: u64, costs: [u64; 3]) -> Vec<Wanted> {
        let candidate = |node: usize| Candidate {
            node: NodeId(node as u64),
            standing: Standing { tier: Tier::Fine, cost: costs[node] },
        };
        let wanted =
            |shard| Wanted { shard: ShardId(shard), candidates: (0..3).map(candidate).collect(), preferred: None };
        (0..shards).map(wanted).collect()
    }

    #[test]
    fn one_node_that_holds_everything_is_asked_once_and_nodes_take_turns() {
        let asked: BTreeSet<NodeId> = (0..3)
            .map(|turn| {
                let plan = plan(&everywhere(8, [100, 110, 120]), turn);
                assert_eq!(plan.tasks.len(), 1);
                plan.tasks[0].node
            })
            .collect();
        assert_eq!(asked.len(), 3);
    }

    #[test]
    fn a_slow_or_busy_node_is_left_alone() {
        for turn in 0..3 {
            assert_ne!(plan(&everywhere(4, [100, 500, 120]), turn).tasks[0].node, NodeId(1));
        }
    }
}
