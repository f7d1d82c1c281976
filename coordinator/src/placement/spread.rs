//! Gives each node its replica of the collections that are replicated to all: new nodes get one as learners, one after the
//! other, and learners get votes as long as there are too few.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::sleep;
use vicinal_common::api::MembersChange;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, NodeId};
use vicinal_common::limits::GROUPS_PER_NODE_MAX;

use super::plan::voters_wanted;
use super::reconcile::Reconciler;
use super::replace::{address, done};
use crate::members::Liveness;
use crate::meta::{Collection, CollectionState, MetaCommand, MetaState, NodeInfo, Routing, Shard};

/// Pause before a step that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a node that is still being filled is waited for, about ten seconds each, before others have their turn.
const TURNS_MAX: usize = 360;

/// What is done next for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A node gets its replica.
    Add(NodeId),
    /// Learners get votes.
    Promote(Vec<NodeId>),
}

impl Reconciler {
    /// Whether something is to be done for a collection that is replicated to all nodes.
    pub(super) fn needs_spread(&self, state: &MetaState, collection: &Collection) -> bool {
        self.next_spread(state, collection, &BTreeSet::new()).is_some()
    }

    fn next_spread<'a>(
        &self,
        state: &MetaState,
        collection: &'a Collection,
        failed: &BTreeSet<NodeId>,
    ) -> Option<(&'a Shard, Step)> {
        if collection.routing != Routing::Replicate || collection.state != CollectionState::Active {
            return None;
        }
        collection.shards.iter().find_map(|shard| Some((shard, self.next_step(state, shard, failed)?)))
    }

    /// Votes come before new members: they are what protects the data.
    fn next_step(&self, state: &MetaState, shard: &Shard, failed: &BTreeSet<NodeId>) -> Option<Step> {
        let leader = self.leader_of(shard).map(|(_, status)| status);
        let votes = |node: &&NodeId| leader.as_ref().is_some_and(|status| status.voters.contains_key(node));
        let voting: Vec<NodeId> = shard.learners.iter().filter(votes).copied().collect();
        if !voting.is_empty() {
            // Agreed on by the group, and not noted yet.
            return Some(Step::Promote(voting));
        }
        let zone = |node: NodeId| state.nodes.get(&node).and_then(|info| info.zone.as_deref());
        let promoted = promotions(shard, |node| self.is_usable(state, node), zone);
        if !promoted.is_empty() {
            return Some(Step::Promote(promoted));
        }
        let is_new = |node: &NodeId| !shard.is_on(*node) && !failed.contains(node) && self.is_usable(state, *node);
        let mut new: Vec<NodeId> = state.nodes.keys().copied().filter(is_new).collect();
        if new.is_empty() {
            return None;
        }
        let held = state.replicas_per_node();
        new.retain(|node| held.get(node).is_none_or(|replicas| *replicas < GROUPS_PER_NODE_MAX));
        // One that is being filled already goes on: another one would take its place in the group.
        let is_joining = |node: &NodeId| leader.as_ref().is_some_and(|status| status.learners.contains_key(node));
        new.into_iter().min_by_key(|node| (!is_joining(node), *node)).map(Step::Add)
    }

    /// Whether the node is there and has room on its disk.
    fn is_usable(&self, state: &MetaState, node: NodeId) -> bool {
        let is_current = |info: &NodeInfo| info.replaced_by.is_none();
        state.nodes.get(&node).is_some_and(is_current)
            && self.members.liveness(node) == Liveness::Up
            && self.members.seen(node).is_none_or(|seen| seen.status.read_only.is_none())
    }

    /// Works on one collection until all nodes that are there have their replica, or another coordinator leads. Moves go
    /// first.
    pub(super) async fn spread(self, id: CollectionId) {
        let mut told = String::new();
        let mut failed = BTreeSet::new();
        let mut turns: BTreeMap<NodeId, usize> = BTreeMap::new();
        while self.catalog.is_leader() {
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&id).cloned() else { return };
            if self.needs_move(&state, &collection) {
                return;
            }
            let Some((shard, step)) = self.next_spread(&state, &collection, &failed) else {
                if failed.is_empty() {
                    return;
                }
                // All others have had their turn.
                failed.clear();
                sleep(PAUSE).await;
                continue;
            };
            let ended = match &step {
                Step::Add(node) => self.add(&state, &collection, shard, *node).await,
                Step::Promote(nodes) => {
                    self.promote(&state, &collection, shard, nodes).await.map(|()| MembersChange::Done)
                }
            };
            let text = match (ended, step) {
                (Ok(MembersChange::Done), _) => continue,
                (Ok(MembersChange::CatchingUp { entries }), Step::Add(node)) => {
                    let turns = turns.entry(node).or_default();
                    *turns += 1;
                    if *turns >= TURNS_MAX {
                        *turns = 0;
                        failed.insert(node);
                    }
                    tracing::info!("the replica of shard {} on node {node} misses {entries} log entries", shard.id);
                    continue;
                }
                (Ok(MembersChange::CatchingUp { entries }), Step::Promote(_)) => {
                    format!("{entries} log entries missing")
                }
                (Err(error), Step::Add(node)) => {
                    failed.insert(node);
                    error.to_string()
                }
                (Err(error), Step::Promote(_)) => {
                    sleep(PAUSE).await;
                    error.to_string()
                }
            };
            if text != told {
                tracing::warn!("replicating collection `{}` to all nodes has to wait: {text}", collection.name);
                told = text;
            }
        }
    }

    async fn add(
        &self,
        state: &MetaState,
        collection: &Collection,
        shard: &Shard,
        node: NodeId,
    ) -> Result<MembersChange> {
        self.create_member(collection, shard, node).await?;
        let mut group = self.group(state, shard)?;
        if group.voters.contains_key(&node) {
            return Err(Error::Internal(format!("node {node} votes in shard {}, and no metadata says so", shard.id)));
        }
        group.learners.extend([address(state, node)?]);
        let change = self.change_members(shard, &group, &BTreeSet::from([node])).await?;
        if change == MembersChange::Done {
            self.change(MetaCommand::AddLearner { collection: collection.id, shard: shard.id, node }).await?;
            tracing::info!("collection `{}` has a replica on node {node} too", collection.name);
        }
        Ok(change)
    }

    async fn promote(&self, state: &MetaState, collection: &Collection, shard: &Shard, nodes: &[NodeId]) -> Result<()> {
        let mut group = self.group(state, shard)?;
        for node in nodes {
            group.learners.remove(node);
            group.voters.extend([address(state, *node)?]);
        }
        done(self.change_members(shard, &group, &BTreeSet::new()).await?, shard)?;
        for node in nodes {
            self.change(MetaCommand::PromoteLearner { collection: collection.id, shard: shard.id, node: *node })
                .await?;
            tracing::info!("the replica of collection `{}` on node {node} votes now", collection.name);
        }
        Ok(())
    }
}

/// Learners that get votes, together: as many as there shall be, by the nodes that are there, and from zones with the fewest
/// voters. None while only some of them could: an even number of voters survives no more than the odd one below.
fn promotions<'a>(
    shard: &Shard,
    is_up: impl Fn(NodeId) -> bool,
    zone: impl Fn(NodeId) -> Option<&'a str>,
) -> Vec<NodeId> {
    let mut free: Vec<NodeId> = shard.learners.iter().copied().filter(|node| is_up(*node)).collect();
    let wanted = voters_wanted(shard.replicas.len() + free.len()) as usize;
    let mut voters = shard.replicas.clone();
    while voters.len() < wanted {
        let crowd = |node: &NodeId| {
            let own = zone(*node);
            if own.is_none() { 0 } else { voters.iter().filter(|voter| zone(**voter) == own).count() }
        };
        let Some(best) = free.iter().copied().min_by_key(|node| (crowd(node), *node)) else { break };
        free.retain(|node| *node != best);
        voters.push(best);
    }
    voters.split_off(shard.replicas.len())
}

#[cfg(test)]
mod tests {
    use vicinal_common::ids::ShardId;

    use super::*;

    fn promoted(voters: u64, learners: &[u64], away: &[u64], zones: &[(u64, &'static str)]) -> Vec<u64> {
        let shard = Shard {
            id: ShardId(1),
            replicas: (1..=voters).map(NodeId).collect(),
            learners: learners.iter().copied().map(NodeId).collect(),
        };
        let zone = |node: NodeId| zones.iter().find(|(of, _)| *of == node.0).map(|(_, zone)| *zone);
        promotions(&shard, |node| !away.contains(&node.0), zone).into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn votes_are_given_as_nodes_come() {
        assert_eq!(promoted(1, &[], &[], &[]), [0; 0]);
        assert_eq!(promoted(1, &[2], &[], &[]), [2]);
        assert_eq!(promoted(1, &[3, 2], &[], &[]), [2, 3]);
        assert_eq!(promoted(1, &[2, 3], &[2], &[]), [3]);
        assert_eq!(promoted(2, &[3], &[], &[]), [3]);
        assert_eq!(promoted(3, &[4], &[], &[]), [0; 0], "four voters survive no more than three");
        assert_eq!(promoted(3, &[4, 5], &[5], &[]), [0; 0], "nor do four while the fifth is away");
        assert_eq!(promoted(3, &[4, 5, 6], &[5], &[]), [4, 6]);
        assert_eq!(promoted(4, &[5], &[], &[]), [5]);
        assert_eq!(promoted(5, &[6, 7], &[], &[]), [0; 0]);
    }

    #[test]
    fn votes_go_to_zones_without_one() {
        let zones = [(1, "a"), (2, "a"), (3, "b"), (4, "c")];
        assert_eq!(promoted(1, &[2, 3], &[], &zones), [3, 2]);
        assert_eq!(promoted(2, &[3, 4], &[3], &zones), [4]);
    }
}
