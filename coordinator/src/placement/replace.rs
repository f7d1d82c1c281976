//! Moves the replicas of a node whose data is gone to the node that came under its name, and tells groups the new
//! addresses of their members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use vicinal_common::api::{ChangeMembers, MembersChange, ReplicaRole, ReplicaStatus};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, NodeId};
use vicinal_common::transport::Address;

use super::plan::replica_spec;
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

/// Who shall be in a shard's group, with their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) voters: BTreeMap<NodeId, Address>,
    pub(super) learners: BTreeMap<NodeId, Address>,
}

impl Reconciler {
    /// Whether a replica of the collection is on a replaced node, or a group knows an old address of a member.
    pub(super) fn needs_move(&self, state: &MetaState, collection: &Collection) -> bool {
        self.moving(collection).any(|shard| {
            let is_replaced = |node: &NodeId| state.successor(*node) != *node;
            shard.replicas.iter().any(is_replaced)
                || !self.moving_learners(state, shard).is_empty()
                || self.has_old_address(state, shard)
        })
    }

    /// Shards whose replicas are moved. Not those that no search asks yet and that have no leader: their groups may never
    /// have been founded, and whoever fills them founds them.
    fn moving<'a>(&self, collection: &'a Collection) -> impl Iterator<Item = &'a Shard> {
        let cluster = collection.routing.cluster();
        let served = cluster.and_then(|cluster| cluster.serving.as_ref()).map(|served| &served.map.shards);
        let is_in_use =
            move |shard: &Shard| collection.is_home(shard.id) || served.is_some_and(|of| of.contains(&shard.id));
        collection.all_shards().filter(move |shard| is_in_use(shard) || self.leader_of(shard).is_some())
    }

    /// Learners on replaced nodes, each with the node it moves to. While that is away nothing waits for it: the group does
    /// without a learner.
    fn moving_learners(&self, state: &MetaState, shard: &Shard) -> Vec<(NodeId, NodeId)> {
        let pairs = shard.learners.iter().map(|node| (*node, state.successor(*node)));
        pairs.filter(|(from, to)| from != to && self.members.liveness(*to) == Liveness::Up).collect()
    }

    /// Whether the shard's leader reaches a member by another address than the one it registered with.
    fn has_old_address(&self, state: &MetaState, shard: &Shard) -> bool {
        let Some((_, status)) = self.leader_of(shard) else { return false };
        let registered = |node: &NodeId| state.nodes.get(node).map(|info| &info.address);
        let mut members = status.voters.iter().chain(&status.learners);
        members.any(|(node, address)| registered(node).is_some_and(|registered| registered != address))
    }

    /// The node that leads the shard and what it said of it in its last sign of life.
    pub(super) fn leader_of(&self, shard: &Shard) -> Option<(NodeId, ReplicaStatus)> {
        let up = shard.readers().filter(|node| self.members.liveness(*node) == Liveness::Up);
        let led = up.filter_map(|node| {
            let seen = self.members.seen(node)?;
            let leads = |of: &&ReplicaStatus| of.shard == shard.id && of.role == ReplicaRole::Leader;
            Some((node, seen.status.replicas.iter().find(leads)?.clone()))
        });
        // Two may believe that they lead for a moment; the later term is right.
        led.max_by_key(|(node, status)| (status.term, *node))
    }

    /// The members as the metadata wants them, the successors of replaced voters among them. A learner that votes already,
    /// which the metadata was not told yet, keeps its vote. Learners on replaced nodes are left out: their data is gone.
    pub(super) fn group(&self, state: &MetaState, shard: &Shard) -> Result<Group> {
        let voting = self.leader_of(shard).map(|(_, status)| status.voters).unwrap_or_default();
        let (more, learners): (Vec<NodeId>, Vec<NodeId>) = shard
            .learners
            .iter()
            .copied()
            .filter(|node| state.successor(*node) == *node)
            .partition(|node| voting.contains_key(node));
        let voters: Vec<NodeId> = shard.replicas.iter().map(|node| state.successor(*node)).chain(more).collect();
        let learners = learners.into_iter().filter(|node| !voters.contains(node));
        let learners = learners.map(|node| address(state, node)).collect::<Result<_>>()?;
        let voters = voters.iter().map(|node| address(state, *node)).collect::<Result<_>>()?;
        Ok(Group { voters, learners })
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
            for shard in self.moving(&collection) {
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
        if !moves.is_empty() || self.has_old_address(state, shard) {
            for (from, to) in &moves {
                self.create_successor(state, collection, shard, *from, *to).await?;
            }
            let group = self.group(state, shard)?;
            done(self.change_members(shard, &group, &BTreeSet::new()).await?, shard)?;
            self.note_moves(collection, shard, moves).await?;
        }
        // After the voters, and apart from them: one of these that is not filled keeps none of those waiting.
        let moves = self.moving_learners(state, shard);
        if moves.is_empty() {
            return Ok(());
        }
        let mut group = self.group(state, shard)?;
        let mut filled = BTreeSet::new();
        for (from, to) in &moves {
            if !group.voters.contains_key(to) {
                self.create_successor(state, collection, shard, *from, *to).await?;
                group.learners.extend([address(state, *to)?]);
                filled.insert(*to);
            }
        }
        done(self.change_members(shard, &group, &filled).await?, shard)?;
        self.note_moves(collection, shard, moves).await
    }

    async fn create_successor(
        &self,
        state: &MetaState,
        collection: &Collection,
        shard: &Shard,
        from: NodeId,
        to: NodeId,
    ) -> Result<()> {
        let name = state.nodes.get(&to).map_or_else(|| to.to_string(), |info| info.name.clone());
        tracing::info!("shard {} gets a new replica on node `{name}` ({to}) in place of {from}", shard.id);
        self.create_member(collection, shard, to).await
    }

    /// Has a node make an empty replica, which the group's leader fills once it is a member.
    pub(super) async fn create_member(&self, collection: &Collection, shard: &Shard, node: NodeId) -> Result<()> {
        let spec = replica_spec(collection, shard.id);
        self.call(node, |api| async move { api.create_replica(spec).await }).await
    }

    /// Notes in the metadata where replicas are now.
    pub(super) async fn note_moves(
        &self,
        collection: &Collection,
        shard: &Shard,
        moves: Vec<(NodeId, NodeId)>,
    ) -> Result<()> {
        for (from, to) in moves {
            let command = MetaCommand::ReplaceReplica { collection: collection.id, shard: shard.id, from, to };
            self.change(command).await?;
            tracing::info!("shard {} has its new replica on node {to}", shard.id);
        }
        Ok(())
    }

    /// Has the shard's leader, wherever it is, make `group` the members; of its learners `filled` shall hold nearly all
    /// there is. When new members are not as far yet, after a while, that is the answer.
    pub(super) async fn change_members(
        &self,
        shard: &Shard,
        group: &Group,
        filled: &BTreeSet<NodeId>,
    ) -> Result<MembersChange> {
        let candidates: Vec<NodeId> = shard.readers().collect();
        let mut node = self.leader_of(shard).map(|(node, _)| node);
        let mut ended = Err(Error::Unavailable(format!("shard {} has no leader at the moment", shard.id)));
        let Group { voters, learners } = group.clone();
        let request = ChangeMembers { shard: shard.id, voters, learners, filled: filled.clone() };
        for round in 0..ROUNDS_MAX {
            let to = node.take().unwrap_or(candidates[round % candidates.len()]);
            let request = request.clone();
            match self.call(to, |api| async move { api.change_members(request).await }).await {
                Ok(MembersChange::Done) => return Ok(MembersChange::Done),
                Ok(MembersChange::CatchingUp { entries }) => {
                    ended = Ok(MembersChange::CatchingUp { entries });
                    node = Some(to);
                    sleep(CATCHING_UP).await;
                }
                Err(Error::WrongLeader { hint, .. }) => {
                    node = hint.filter(|hint| *hint != to);
                    sleep(CATCHING_UP).await;
                }
                Err(error) => {
                    ended = Err(error);
                    // Every replica is asked once before the attempt is given up.
                    if round >= candidates.len() {
                        break;
                    }
                }
            }
        }
        ended
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

/// A node with the address it registered with.
pub(super) fn address(state: &MetaState, node: NodeId) -> Result<(NodeId, Address)> {
    let info = state.nodes.get(&node).ok_or_else(|| Error::Internal(format!("node {node} is not registered")));
    Ok((node, info?.address.clone()))
}

/// An error when new members are not as far yet.
pub(super) fn done(change: MembersChange, shard: &Shard) -> Result<()> {
    match change {
        MembersChange::Done => Ok(()),
        MembersChange::CatchingUp { entries } => {
            Err(Error::Unavailable(format!("the new replica of shard {} still misses {entries} log entries", shard.id)))
        }
    }
}
