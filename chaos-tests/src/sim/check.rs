//! What must hold once every fault is healed: all replicas of a shard are the same, and every acknowledged write is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use vicinal_common::api::{DigestRequest, ReadContext, RemoteNode, ShardApi, ShardDigest};
use vicinal_common::consistency::Consistency;
use vicinal_common::ids::{LogIndex, NodeId, ShardId};
use vicinal_coordinator::meta::{Collection, MetaState};

use super::client::{COLLECTION, Client, Work};
use super::network::SimTransport;
use super::site::Site;

/// Longest time the replicas may take to become the same.
const CONVERGENCE: Duration = Duration::from_secs(60);
/// Longest time of one question.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Tries to read a point, before it counts as unavailable.
const TRIES: usize = 20;
/// Points read at a time.
const READS_AT_ONCE: usize = 16;

/// Looks at the whole cluster from a machine of its own.
pub(super) struct Checker {
    pub(super) site: Arc<Site>,
    /// The coordinators' machines.
    pub(super) coordinators: Vec<Arc<Site>>,
    pub(super) client: Client,
    /// Nodes, when each must have a replica of each shard.
    pub(super) nodes: Option<usize>,
    /// Whether points have copies in search shards.
    pub(super) is_clustered: bool,
    pub(super) work: Arc<Work>,
}

impl Checker {
    /// Checks everything; notes what is wrong as violations.
    pub(super) async fn run(self) {
        if self.is_clustered
            && let Err(what) = self.want_map().await
        {
            self.work.model.violated(what);
        }
        let converged = self.converge().await;
        match converged {
            Ok(replicas) => self.site.trace.note_here(format_args!("{replicas} replicas are the same")),
            Err(what) => self.work.model.violated(what),
        }
        self.check_points().await;
        if self.is_clustered {
            match self.check_copies().await {
                Ok(copies) => self.site.trace.note_here(format_args!("{copies} copies are in their places")),
                Err(what) => self.work.model.violated(what),
            }
            for checked in [self.check_reads().await, self.check_clusters().await] {
                checked.unwrap_or_else(|what| self.work.model.violated(what));
            }
        }
        // Reading may have finished what was still under way; the replicas must be the same for good.
        if let Err(what) = self.converge().await {
            self.work.model.violated(what);
        }
    }

    async fn converge(&self) -> Result<usize, String> {
        let deadline = Instant::now() + CONVERGENCE;
        loop {
            let different = match self.digests().await {
                Ok(digests) => match difference(&digests) {
                    None => return Ok(digests.values().map(BTreeMap::len).sum()),
                    Some(difference) => difference,
                },
                Err(what) => what,
            };
            if Instant::now() >= deadline {
                return Err(format!("replicas do not agree {CONVERGENCE:?} after all is healed: {different}"));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    fn state(&self) -> Option<Arc<MetaState>> {
        // The one that knows most.
        let states =
            self.coordinators.iter().filter_map(|site| Some(site.coordinator.lock().upgrade()?.catalog.state()));
        states.max_by_key(|state| (state.nodes.len(), state.collections.len()))
    }

    /// The metadata, and the collection as it stands there.
    pub(super) fn collection(&self) -> Result<(Arc<MetaState>, Arc<Collection>), String> {
        let state = self.state().ok_or("no coordinator is ready")?;
        let collection = state.resolve(COLLECTION).map_err(|e| e.to_string())?.clone();
        Ok((state, collection))
    }

    /// The way to a node.
    pub(super) fn node(&self, state: &MetaState, node: NodeId) -> Result<RemoteNode, String> {
        let address = &state.nodes.get(&node).ok_or_else(|| format!("node {node} is not known"))?.address;
        let transport = Arc::new(SimTransport { site: self.site.clone() });
        Ok(RemoteNode::new(node, address.clone(), transport))
    }

    /// The digest of every replica, by shard.
    async fn digests(&self) -> Result<BTreeMap<ShardId, BTreeMap<NodeId, (LogIndex, ShardDigest)>>, String> {
        let (state, collection) = self.collection()?;
        let mut digests = BTreeMap::new();
        for shard in collection.all_shards() {
            let readers = shard.readers().count();
            if let Some(nodes) = self.nodes.filter(|nodes| *nodes != readers) {
                return Err(format!("shard {} has a replica on {readers} of {nodes} nodes", shard.id));
            }
            let asked = shard.readers().map(|node| self.digest(&state, &collection, shard.id, node));
            let answers = join_all(asked).await.into_iter().collect::<Result<BTreeMap<_, _>, String>>()?;
            digests.insert(shard.id, answers);
        }
        Ok(digests)
    }

    async fn digest(
        &self,
        state: &MetaState,
        collection: &Collection,
        shard: ShardId,
        node: NodeId,
    ) -> Result<(NodeId, (LogIndex, ShardDigest)), String> {
        let context = ReadContext {
            collection: collection.id,
            epoch: collection.epoch_of(shard),
            shards: vec![(shard, LogIndex(0))],
            consistency: Consistency::ReadYourWrites,
            deadline: Instant::now() + PATIENCE,
        };
        let answer =
            self.node(state, node)?.digest(DigestRequest { context }).await.pop().ok_or("a node gave no answer")?;
        let digest = answer.result.map_err(|e| format!("shard {shard} on node {node}: {e}"))?;
        Ok((node, (answer.applied, digest)))
    }

    /// Reads every point that was ever written, from leaders that have confirmed that they lead.
    async fn check_points(&self) {
        let points: Vec<_> = self.work.model.points().into_iter().collect();
        for some in points.chunks(READS_AT_ONCE) {
            let reads = some.iter().map(|(id, known)| async move {
                for _ in 0..TRIES {
                    if let Some(found) = self.client.read(*id, "?consistency=majority&timeout=2").await {
                        if !known.allows(found) {
                            self.work.model.violated(format!("in the end point {id} holds {found:?}, but {known:?}"));
                        }
                        return;
                    }
                    sleep(Duration::from_millis(250)).await;
                }
                self.work.model.violated(format!("point {id} cannot be read although all is healed"));
            });
            join_all(reads).await;
        }
    }
}

/// The first shard whose replicas are not the same.
fn difference(digests: &BTreeMap<ShardId, BTreeMap<NodeId, (LogIndex, ShardDigest)>>) -> Option<String> {
    let is_different = |replicas: &BTreeMap<NodeId, (LogIndex, ShardDigest)>| {
        let mut all = replicas.values();
        let first = all.next();
        all.any(|other| Some(other) != first)
    };
    let (shard, replicas) = digests.iter().find(|(_, replicas)| is_different(replicas))?;
    Some(format!("shard {shard}: {replicas:?}"))
}
