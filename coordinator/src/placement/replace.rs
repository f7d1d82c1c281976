//! Moves the replicas of a node whose data is gone to the node that came under its name, and tells groups the new
//! addresses of their members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use vicinal_common::api::{ChangeMembers, MembersChange, ReplicaRole, ReplicaSpec, ReplicaStatus};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, NodeId};
use vicinal_common::transport::Address;

use super::reconcile::Reconciler;
use crate::members::Liveness;
use crate::meta::{Collection, CollectionState, MetaCommand, MetaState, Shard};

/// Pause before a shard that could not be moved is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause while a new replica catches up.
const CATCHING_UP: Duration = Duration::from_millis(100);
/// About how long a change in a group takes to show in what its leader says of itself.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// How often one attempt asks whether a new replica has caught up. Then the collection's other shards have their turn, so
/// that a large one does not keep them waiting.
const ROUNDS_MAX: usize = 100;

impl Reconciler {
    /// Whether a replica of the collection is on a replaced node, or a group knows an old address of a member.
    pub(super) fn needs_move(&self, state: &MetaState, collection: &Collection) -> bool {
        collection.shards.iter().any(|shard| {
            let is_replaced = |node: &NodeId| state.successor(*node) != *node;
            shard.replicas.iter().any(is_replaced) || self.has_old_address(state, shard)
        })
    }

    /// Whether the shard's leader reaches a member by another address than the one it registered with.
    fn has_old_address(&self, state: &MetaState, shard: &Shard) -> bool {
        let Some((_, voters)) = self.leader_of(shard) else { return false };
        let registered = |node: &NodeId| state.nodes.get(node).map(|info| &info.address);
        voters.iter().any(|(node, address)| registered(node).is_some_and(|registered| registered != address))
    }

    /// The node that leads the shard and the members it knows, from its last sign of life.
    fn leader_of(&self, shard: &Shard) -> Option<(NodeId, BTreeMap<NodeId, Address>)> {
        let led =
            shard.replicas.iter().filter(|node| self.members.liveness(**node) == Liveness::Up).filter_map(|node| {
                let seen = self.members.seen(*node)?;
                let leads = |of: &&ReplicaStatus| of.shard == shard.id && of.role == ReplicaRole::Leader;
                let leading = seen.status.replicas.iter().find(leads)?;
                Some((leading.term, *node, leading.voters.clone()))
            });
        // Two may believe that they lead for a moment; the later term is right.
        let (_, node, voters) = led.max_by_key(|(term, node, _)| (*term, *node))?;
        Some((node, voters))
    }

    /// Works on one collection until none of its replicas has to move, or another coordinator leads.
    pub(super) async fn move_replicas(self, id: CollectionId) {
        let mut told = String::new();
        while self.catalog.is_leader() {
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&id).cloned() else { return };
            if collection.state != CollectionState::Active || !self.needs_move(&state, &collection) {
                return;
            }
            let mut failure = None;
            for shard in &collection.shards {
                if let Err(error) = self.move_shard(&state, &collection, shard).await {
                    failure.get_or_insert(error);
                }
            }
            let Some(error) = failure else {
                // A leader's new view of its group arrives with its next sign of life: until then it would be asked again.
                sleep(SIGN_OF_LIFE).await;
                continue;
            };
            let text = error.to_string();
            if text != told {
                tracing::warn!("moving replicas of collection `{}` has to wait: {text}", collection.name);
                told = text;
            }
            sleep(PAUSE).await;
        }
    }

    /// One shard: every step can be repeated, and what is left to do is read from the group and the metadata.
    async fn move_shard(&self, state: &MetaState, collection: &Arc<Collection>, shard: &Shard) -> Result<()> {
        let moves: Vec<(NodeId, NodeId)> =
            shard.replicas.iter().map(|node| (*node, state.successor(*node))).filter(|(from, to)| from != to).collect();
        if moves.is_empty() && !self.has_old_address(state, shard) {
            return Ok(());
        }
        for (from, to) in &moves {
            let name = state.nodes.get(to).map_or_else(|| to.to_string(), |info| info.name.clone());
            tracing::info!("shard {} gets a new replica on node `{name}` ({to}) in place of {from}", shard.id);
            let (schema, epoch) = (collection.schema.clone(), collection.epoch);
            let spec = ReplicaSpec { shard: shard.id, collection: collection.id, schema, epoch };
            self.call(*to, |api| async move { api.create_replica(spec).await }).await?;
        }
        let address = |node: NodeId| {
            let info = state.nodes.get(&node).ok_or_else(|| Error::Internal(format!("node {node} is not registered")));
            Ok((node, info?.address.clone()))
        };
        let voters = shard.replicas.iter().map(|node| address(state.successor(*node)));
        self.change_members(shard, voters.collect::<Result<BTreeMap<NodeId, Address>>>()?).await?;
        for (from, to) in moves {
            let command = MetaCommand::ReplaceReplica { collection: collection.id, shard: shard.id, from, to };
            self.change(command).await?;
            tracing::info!("shard {} has its new replica on node {to}", shard.id);
        }
        Ok(())
    }

    /// Has the shard's leader, wherever it is, make `voters` the members.
    async fn change_members(&self, shard: &Shard, voters: BTreeMap<NodeId, Address>) -> Result<()> {
        let candidates: Vec<NodeId> = shard.replicas.clone();
        let mut node = self.leader_of(shard).map(|(node, _)| node);
        let mut failure = Error::Unavailable(format!("shard {} has no leader at the moment", shard.id));
        for round in 0..ROUNDS_MAX {
            let to = node.take().unwrap_or(candidates[round % candidates.len()]);
            let request = ChangeMembers { shard: shard.id, voters: voters.clone() };
            match self.call(to, |api| async move { api.change_members(request).await }).await {
                Ok(MembersChange::Done) => return Ok(()),
                Ok(MembersChange::CatchingUp { entries }) => {
                    failure = Error::Unavailable(format!(
                        "the new replica of shard {} still misses {entries} log entries",
                        shard.id
                    ));
                    node = Some(to);
                    sleep(CATCHING_UP).await;
                }
                Err(Error::WrongLeader { hint, .. }) => {
                    node = hint.filter(|hint| *hint != to);
                    sleep(CATCHING_UP).await;
                }
                Err(error) => {
                    failure = error;
                    // Every replica is asked once before the attempt is given up.
                    if round >= candidates.len() {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    /// Replaced nodes that hold nothing any more.
    pub(super) fn forgettable(state: &MetaState) -> Vec<NodeId> {
        let held = state.replicas_per_node();
        let is_empty = |node: &NodeId| held.get(node).is_none_or(|replicas| *replicas == 0);
        let replaced = state.nodes.iter().filter(|(_, info)| info.replaced_by.is_some());
        replaced.map(|(node, _)| *node).filter(is_empty).collect()
    }

    /// Forgets them.
    pub(super) async fn forget(self, nodes: Vec<NodeId>) {
        for node in nodes {
            match self.change(MetaCommand::ForgetNode { node }).await {
                Ok(()) => tracing::info!("the identity {node}, which another one has replaced, is forgotten"),
                Err(error) => tracing::debug!(%error, "a replaced node is not forgotten yet"),
            }
        }
    }
}
