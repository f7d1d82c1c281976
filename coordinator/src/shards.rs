//! What this coordinator has learned about shards: who leads each, how far its writes have been acknowledged, and which
//! replicas refused of late.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::{Instant, timeout};
use vicinal_common::api::NodeDirectory;
use vicinal_common::error::Result;
use vicinal_common::ids::{CollectionId, LogIndex, MapVersion, NodeId, ShardId};

use crate::asked::Asked;
use crate::maps::Maps;
use crate::meta::{Collection, MetaState, ServedMap};
use crate::query::{HedgeBudget, Repairs};
use crate::shard_client::{Ended, Health};
use vicinal_routing::Router;

/// How long a replica that refused is asked after the others.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// Log entries that a replica may be behind the one furthest along before it is asked after the others. Reads are not older for
/// it: they wait.
const LAG_MAX: u64 = 10_000;
/// How long a probe waits for an answer.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The way to shards: the nodes, and what answers have taught about their shards. Leaders are hints, never truth: a shard
/// that is asked in vain says where to go.
#[derive(Default)]
pub struct ShardAccess {
    /// The nodes that can be reached.
    pub nodes: NodeDirectory,
    /// What is known of each node.
    pub health: Arc<Health>,
    pub(crate) hedges: HedgeBudget,
    pub(crate) maps: Maps,
    pub(crate) repairs: Repairs,
    pub(crate) asked: Asked,
    leaders: RwLock<BTreeMap<ShardId, Lead>>,
    floors: RwLock<BTreeMap<ShardId, LogIndex>>,
    map_floors: RwLock<BTreeMap<CollectionId, MapVersion>>,
    refusals: RwLock<BTreeMap<(ShardId, NodeId), Instant>>,
    heard: RwLock<Heard>,
}

/// How far replicas are, by the signs of life of their nodes.
#[derive(Debug, Default)]
struct Heard {
    /// What anybody has applied of the shard.
    most: BTreeMap<ShardId, LogIndex>,
    /// Replicas that were far behind that; mostly none.
    behind: BTreeSet<(ShardId, NodeId)>,
}

/// Who leads, and the highest term heard of.
#[derive(Clone, Copy, Debug, Default)]
struct Lead {
    node: Option<NodeId>,
    term: u64,
}

impl ShardAccess {
    /// Nothing learned yet.
    pub fn new(nodes: NodeDirectory) -> ShardAccess {
        ShardAccess { nodes, ..ShardAccess::default() }
    }

    /// The node last seen leading the shard.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.leaders.read().get(&shard)?.node
    }

    /// Notes who leads the shard, from an answer that only a leader gives.
    pub fn note_leader(&self, shard: ShardId, node: NodeId) {
        if self.leader(shard) != Some(node) {
            self.leaders.write().entry(shard).or_default().node = Some(node);
        }
    }

    /// Notes who leads the shard in a term. What is older than what is known is ignored.
    pub fn note_leader_at(&self, shard: ShardId, node: NodeId, term: u64) {
        let known = self.leaders.read().get(&shard).copied().unwrap_or_default();
        if term < known.term || (known.node, known.term) == (Some(node), term) {
            return;
        }
        let mut leaders = self.leaders.write();
        let lead = leaders.entry(shard).or_default();
        if term >= lead.term {
            *lead = Lead { node: Some(node), term };
        }
    }

    /// Forgets that `node` leads the shard; another leader noted meanwhile stays.
    pub fn forget_leader(&self, shard: ShardId, node: NodeId) {
        if self.leader(shard) != Some(node) {
            return;
        }
        if let Some(lead) = self.leaders.write().get_mut(&shard).filter(|lead| lead.node == Some(node)) {
            lead.node = None;
        }
    }

    /// The highest log index of the shard acknowledged to a client through this coordinator, or seen by a read through
    /// it: what a read must have seen. `None` until the first one, which after a restart says nothing of writes
    /// acknowledged before it.
    pub fn floor(&self, shard: ShardId) -> Option<LogIndex> {
        self.floors.read().get(&shard).copied()
    }

    /// Notes an acknowledged write. Floors only rise.
    pub fn note_ack(&self, shard: ShardId, index: LogIndex) {
        if self.floor(shard).is_some_and(|floor| floor >= index) {
            return;
        }
        let mut floors = self.floors.write();
        let floor = floors.entry(shard).or_default();
        *floor = (*floor).max(index);
    }

    /// Notes what a linearizable read has seen: all that was acknowledged before it, by whomever, is at or below it. So
    /// it serves as a first floor, too.
    pub fn note_linearizable(&self, shard: ShardId, applied: LogIndex) {
        self.note_ack(shard, applied);
    }

    /// Notes what another read has seen: later reads see nothing older. It is no first floor, because a replica may be
    /// behind writes that this coordinator acknowledged before it was restarted.
    pub fn note_read(&self, shard: ShardId, applied: LogIndex) {
        if self.floor(shard).is_some() {
            self.note_ack(shard, applied);
        }
    }

    /// The newest map of which this coordinator knows that a write was acknowledged by no older one: by older ones, not
    /// all shards that hold copies of its points need be found.
    pub(crate) fn map_floor(&self, collection: CollectionId) -> MapVersion {
        self.map_floors.read().get(&collection).copied().unwrap_or_default()
    }

    /// Notes the oldest map by which an acknowledged write was published. Floors only rise.
    pub(crate) fn note_map(&self, collection: CollectionId, map: MapVersion) {
        if self.map_floor(collection) < map {
            let mut floors = self.map_floors.write();
            let floor = floors.entry(collection).or_default();
            *floor = (*floor).max(map);
        }
    }

    /// What routes searches by the map that is served, once it is here.
    pub(crate) fn router(&self, collection: &Collection, served: &ServedMap) -> Option<Arc<Router>> {
        self.maps.router(&self.nodes, collection, &served.map)
    }

    /// Reads the maps that the metadata name.
    pub(crate) fn follow_maps(&self, state: &MetaState) {
        self.maps.follow(&self.nodes, state);
    }

    /// Notes that a node's replica of the shard did not serve a read, for a reason of its own.
    pub fn note_refusal(&self, shard: ShardId, node: NodeId, now: Instant) {
        self.refusals.write().insert((shard, node), now);
    }

    /// Whether a node's replica of the shard refused just now.
    pub fn has_refused(&self, shard: ShardId, node: NodeId, now: Instant) -> bool {
        let at = self.refusals.read().get(&(shard, node)).copied();
        at.is_some_and(|at| now.saturating_duration_since(at) < REFUSAL_PAUSE)
    }

    /// Notes how far a node's replica of the shard is, from a sign of life.
    pub fn note_applied(&self, shard: ShardId, node: NodeId, applied: LogIndex) {
        let floor = self.floor(shard).unwrap_or_default();
        let mut heard = self.heard.write();
        let most = heard.most.entry(shard).or_default();
        *most = (*most).max(applied).max(floor);
        let lag = most.0 - applied.0;
        match lag > LAG_MAX {
            true => heard.behind.insert((shard, node)),
            false => heard.behind.remove(&(shard, node)),
        };
    }

    /// Whether a node's replica of the shard was far behind when it was last heard of: a read would wait for it.
    pub fn is_behind(&self, shard: ShardId, node: NodeId) -> bool {
        self.heard.read().behind.contains(&(shard, node))
    }

    /// Asks nodes that failed for a sign of life, where that is due, without waiting for it: no client's request is spent
    /// on finding out.
    pub(crate) fn probe(&self, nodes: impl Iterator<Item = NodeId>, now: Instant) {
        for node in nodes {
            let Some(ticket) = self.health.begin_probe(node, now) else { continue };
            let Some(api) = self.nodes.get(node) else { continue };
            // Ends by itself; one per node at a time.
            tokio::spawn(async move {
                let how = match timeout(PROBE_TIME, api.status()).await {
                    Ok(Ok(_)) => Ended::Answered,
                    Ok(Err(_)) | Err(_) => Ended::Failed,
                };
                ticket.end(how, Instant::now());
            });
        }
    }

    /// Forgets shards and nodes that no longer exist, which bounds the tables by what exists.
    pub fn retain(&self, state: &MetaState) {
        let known: HashSet<ShardId> =
            state.collections.values().flat_map(|collection| collection.all_shards()).map(|shard| shard.id).collect();
        self.leaders.write().retain(|shard, _| known.contains(shard));
        self.floors.write().retain(|shard, _| known.contains(shard));
        self.map_floors.write().retain(|collection, _| state.collections.contains_key(collection));
        self.refusals.write().retain(|(shard, _), _| known.contains(shard));
        self.asked.retain(state);
        let mut heard = self.heard.write();
        heard.most.retain(|shard, _| known.contains(shard));
        heard.behind.retain(|(shard, node)| known.contains(shard) && state.nodes.contains_key(node));
        drop(heard);
        self.health.retain(|node| state.nodes.contains_key(&node) || self.nodes.get(node).is_some());
    }
}

/// A collection as it stood in one state of the metadata; stays valid while the metadata moves on.
pub type CollectionRef = Arc<Collection>;

/// Finds the collection of a request again: its shards or their epoch may have changed since it was routed.
pub type Lookup<'a> = &'a (dyn Fn() -> Result<CollectionRef> + Send + Sync);

#[cfg(test)]
mod tests {
    use super::*;

    const S: ShardId = ShardId(1);

    #[test]
    fn leaders_of_older_terms_are_ignored() {
        let access = ShardAccess::default();
        access.note_leader_at(S, NodeId(1), 5);
        access.note_leader_at(S, NodeId(2), 4);
        assert_eq!(access.leader(S), Some(NodeId(1)));
        access.note_leader_at(S, NodeId(2), 6);
        assert_eq!(access.leader(S), Some(NodeId(2)));
        access.forget_leader(S, NodeId(1));
        assert_eq!(access.leader(S), Some(NodeId(2)));
        access.forget_leader(S, NodeId(2));
        access.note_leader_at(S, NodeId(1), 5);
        assert_eq!(access.leader(S), None, "the term outlives the leader");
        access.note_leader(S, NodeId(3));
        assert_eq!(access.leader(S), Some(NodeId(3)));
    }

    #[test]
    fn only_what_the_leader_says_is_a_first_floor() {
        let access = ShardAccess::default();
        access.note_read(S, LogIndex(7));
        assert_eq!(access.floor(S), None);
        access.note_linearizable(S, LogIndex(5));
        access.note_read(S, LogIndex(7));
        access.note_ack(S, LogIndex(6));
        assert_eq!(access.floor(S), Some(LogIndex(7)));
    }

    #[test]
    fn a_replica_far_behind_is_known_until_it_has_caught_up() {
        let access = ShardAccess::default();
        let (one, two) = (NodeId(1), NodeId(2));
        access.note_applied(S, two, LogIndex(5));
        access.note_applied(S, one, LogIndex(LAG_MAX + 5));
        access.note_applied(S, two, LogIndex(5));
        assert!(!access.is_behind(S, two), "it may be that far behind");
        access.note_applied(S, one, LogIndex(LAG_MAX + 6));
        access.note_applied(S, two, LogIndex(5));
        assert!(access.is_behind(S, two) && !access.is_behind(S, one));
        access.note_applied(S, two, LogIndex(7));
        assert!(!access.is_behind(S, two));
        // What was acknowledged counts as well, before anybody has said so.
        access.note_ack(S, LogIndex(3 * LAG_MAX));
        access.note_applied(S, one, LogIndex(LAG_MAX + 6));
        assert!(access.is_behind(S, one));
        access.retain(&MetaState::default());
        assert!(!access.is_behind(S, one));
    }

    #[test]
    fn a_refusal_is_remembered_for_a_while() {
        let (access, now) = (ShardAccess::default(), Instant::now());
        access.note_refusal(S, NodeId(1), now);
        assert!(access.has_refused(S, NodeId(1), now));
        assert!(!access.has_refused(S, NodeId(2), now));
        assert!(!access.has_refused(S, NodeId(1), now + REFUSAL_PAUSE));
    }
}
