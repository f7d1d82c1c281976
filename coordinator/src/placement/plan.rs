//! Which nodes hold the replicas of new shards. A pure function of the load.

use std::collections::BTreeMap;

use vicinal_common::api::ReplicaSpec;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{NodeId, ShardId};
use vicinal_common::limits::{GROUPS_PER_NODE_MAX, REPLICATION_MAX};
use vicinal_common::publish::ShardRole;

use crate::meta::{Collection, MetaState};

/// What a node carries, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Replicas it has.
    pub replicas: usize,
    /// Its zone; nodes without one count as standing apart from all others.
    pub zone: Option<String>,
}

/// The nodes that may be chosen, with what they carry: those that are known, not replaced, and `is_connected`.
pub fn load(state: &MetaState, is_connected: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, Load> {
    let held = state.replicas_per_node().into_iter().filter(|(node, _)| is_connected(*node));
    let load = held.filter_map(|(node, replicas)| {
        let info = state.nodes.get(&node).filter(|info| info.replaced_by.is_none())?;
        Some((node, Load { replicas, zone: info.zone.clone() }))
    });
    load.collect()
}

/// Chooses nodes for `shards` new shards with `replication` replicas each. `load` names every node that may be chosen.
/// The nodes of a shard are distinct, stand in as many zones as there are, and are otherwise the least loaded ones; the
/// first is the one that founds the group and most likely leads it, so the first places are spread evenly too.
///
/// `BadInput` when there are too few nodes, or when they cannot carry so many groups.
pub fn place(load: &BTreeMap<NodeId, Load>, shards: u32, replication: u32) -> Result<Vec<Vec<NodeId>>> {
    let wanted = replication as usize;
    if wanted == 0 || shards == 0 {
        return Err(Error::BadInput("shard_number and replication_factor must be at least 1".into()));
    }
    if load.len() < wanted {
        let nodes = load.len();
        return Err(Error::BadInput(format!(
            "replication_factor {wanted} needs at least {wanted} shard nodes, the cluster has {nodes}"
        )));
    }
    let mut load = load.clone();
    let mut firsts: BTreeMap<NodeId, usize> = BTreeMap::new();
    let first_places = |firsts: &BTreeMap<NodeId, usize>, node: &NodeId| firsts.get(node).copied().unwrap_or(0);
    let mut placed = Vec::new();
    for _ in 0..shards {
        let mut chosen: Vec<NodeId> = Vec::with_capacity(wanted);
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        while chosen.len() < wanted {
            let crowd = |of: &Load| of.zone.as_deref().and_then(|zone| zones.get(zone)).copied().unwrap_or(0);
            let free = load.iter().filter(|(node, _)| !chosen.contains(node));
            let best = free.min_by_key(|(node, of)| (crowd(of), of.replicas, first_places(&firsts, node), **node));
            let (node, of) = best.ok_or_else(|| Error::Internal("placement ran out of nodes".into()))?;
            if of.replicas >= GROUPS_PER_NODE_MAX {
                return Err(Error::BadInput(format!(
                    "{shards} shards with {wanted} replicas each do not fit: a shard node carries at most \
                     {GROUPS_PER_NODE_MAX} replicas; use fewer shards, delete collections or add nodes"
                )));
            }
            if let Some(zone) = of.zone.as_deref() {
                *zones.entry(zone).or_default() += 1;
            }
            chosen.push(*node);
        }
        // The node that is first for the fewest shards so far becomes first; ties go to the smaller load, then the id.
        let replicas = |node: &NodeId| load.get(node).map(|of| of.replicas);
        chosen.sort_by_key(|node| (first_places(&firsts, node), replicas(node), *node));
        for node in &chosen {
            if let Some(of) = load.get_mut(node) {
                of.replicas += 1;
            }
        }
        *firsts.entry(chosen[0]).or_default() += 1;
        placed.push(chosen);
    }
    Ok(placed)
}

/// What a replica of one of the collection's shards is created from. Search shards have nothing but the routed vector.
pub(super) fn replica_spec(collection: &Collection, shard: ShardId) -> ReplicaSpec {
    let (mut schema, mut role) = (collection.schema.clone(), ShardRole::Home);
    if let Some(cluster) = collection.routing.cluster().filter(|_| !collection.is_home(shard)) {
        schema.vectors.retain(|name, _| *name == cluster.vector);
        role = ShardRole::Search;
    }
    ReplicaSpec { shard, collection: collection.id, schema, epoch: collection.epoch, role }
}

/// How many of `nodes` replicas of one shard vote: all while there are up to three, then as many as survive the same
/// losses with the fewest syncs. With two a write waits for both: it is safer with one of them lost, not more available.
pub fn voters_wanted(nodes: usize) -> u32 {
    match nodes {
        0 => 0,
        1 => 1,
        2 => 2,
        3 | 4 => 3,
        _ => REPLICATION_MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn nodes(loads: &[usize]) -> BTreeMap<NodeId, Load> {
        (1..).map(NodeId).zip(loads.iter().map(|replicas| Load { replicas: *replicas, zone: None })).collect()
    }

    #[test]
    fn replicas_of_a_shard_stand_in_different_zones() {
        let mut load = nodes(&[0, 0, 0, 9, 0, 0]);
        for (node, zone) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c"), (6, "c")] {
            load.get_mut(&NodeId(node)).unwrap().zone = Some(zone.into());
        }
        let zone_of = |node: &NodeId| load[node].zone.clone();
        for replicas in place(&load, 8, 3).unwrap() {
            assert_eq!(replicas.iter().map(zone_of).collect::<BTreeSet<_>>().len(), 3, "{replicas:?}");
        }
        // More replicas than zones: every zone is used before one is used twice.
        for replicas in place(&load, 8, 5).unwrap() {
            let b = replicas.iter().filter(|node| zone_of(node).as_deref() == Some("b")).count();
            assert_eq!(b, 1, "{replicas:?}");
        }
    }

    #[test]
    fn too_few_nodes_names_both_numbers() {
        let error = place(&nodes(&[0, 0]), 1, 3).unwrap_err();
        assert_eq!(error.http_status(), 400);
        let text = error.to_string();
        assert!(text.contains("replication_factor 3") && text.contains("the cluster has 2"), "{text}");
        assert!(place(&nodes(&[0]), 0, 1).is_err());
        assert!(place(&nodes(&[0]), 1, 0).is_err());
    }

    #[test]
    fn voters_are_few_and_odd_where_they_can_be() {
        assert_eq!((0..8).map(voters_wanted).collect::<Vec<_>>(), [0, 1, 2, 3, 3, 5, 5, 5]);
        assert_eq!(voters_wanted(1_000), REPLICATION_MAX);
    }

    #[test]
    fn full_nodes_are_refused() {
        assert!(place(&nodes(&[0]), GROUPS_PER_NODE_MAX as u32, 1).is_ok());
        assert!(place(&nodes(&[1]), GROUPS_PER_NODE_MAX as u32, 1).is_err());
    }

    #[test]
    fn first_places_are_spread() {
        let placed = place(&nodes(&[0, 0, 0]), 6, 3).unwrap();
        for node in 1..=3 {
            assert_eq!(placed.iter().filter(|replicas| replicas[0] == NodeId(node)).count(), 2);
        }
    }

    proptest! {
        #[test]
        fn distinct_and_even(loads in prop::collection::vec(0_usize..20, 1..9), shards in 1_u32..12, replication in 1_u32..6) {
            let before = nodes(&loads);
            let Ok(placed) = place(&before, shards, replication) else {
                prop_assert!(loads.len() < replication as usize);
                return Ok(());
            };
            prop_assert_eq!(placed.len(), shards as usize);
            let mut after = before.clone();
            for replicas in &placed {
                prop_assert_eq!(replicas.len(), replication as usize);
                prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), replicas.len());
                for node in replicas {
                    after.get_mut(node).expect("only known nodes are chosen").replicas += 1;
                }
            }
            // Whoever got replicas is at most one above every node that could have taken one of them instead.
            let least = after.values().map(|of| of.replicas).min().unwrap_or(0);
            for (node, of) in &after {
                let (load, taken) = (of.replicas, of.replicas - before[node].replicas);
                prop_assert!(taken == 0 || load <= least + 1 || taken == shards as usize || replication > 1);
            }
        }
    }
}
