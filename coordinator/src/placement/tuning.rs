//! Tells replicas what their collection wants beside its points, and waits until payload indexes are built.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout};
use vicinal_common::api::{NodeDirectory, ReplicaStatus, Tune};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, NodeId, ShardId};

use super::reconcile::{Reconciler, all_replicas};
use crate::meta::{Collection, CollectionState, MetaState, Shard};

/// Longest time of one call to a node.
const CALL: Duration = Duration::from_secs(5);
/// Calls under way at a time.
const CALLS_AT_ONCE: usize = 16;
/// Pause between two questions whether indexes are built: first and longest.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// A replica that knows an older revision than the metadata has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outdated {
    node: NodeId,
    shard: ShardId,
    collection: CollectionId,
}

/// Those of a node's replicas that know an older revision.
pub(super) fn outdated(state: &MetaState, node: NodeId, replicas: &[ReplicaStatus]) -> Vec<Outdated> {
    let is_old = |replica: &&ReplicaStatus| {
        let collection = state.collections.get(&replica.collection);
        replica.failed.is_none()
            && collection.is_some_and(|collection| {
                collection.state != CollectionState::Deleting && collection.tuning.revision > replica.tuning
            })
    };
    let outdated = |replica: &ReplicaStatus| Outdated { node, shard: replica.shard, collection: replica.collection };
    replicas.iter().filter(is_old).map(outdated).collect()
}

impl Reconciler {
    /// Replicas whose last sign of life shows an older revision.
    pub(super) fn outdated(&self, state: &MetaState) -> Vec<Outdated> {
        let seen = self.nodes.ids().into_iter().filter_map(|node| Some((node, self.members.seen(node)?)));
        seen.flat_map(|(node, seen)| outdated(state, node, &seen.status.replicas)).collect()
    }

    /// Sends them the newest one. One that cannot be reached shows again with its next sign of life.
    pub(super) async fn send_tuning(self, outdated: Vec<Outdated>) {
        let calls = outdated.into_iter().map(|Outdated { node, shard, collection }| {
            let (nodes, state) = (&self.nodes, self.catalog.state());
            async move {
                let Some(collection) = state.collections.get(&collection) else { return };
                if let Err(error) = send(nodes, collection, shard, node).await {
                    tracing::debug!(%shard, %node, %error, "a replica was not told what it shall have yet");
                }
            }
        });
        stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect::<()>().await;
    }
}

async fn send(nodes: &NodeDirectory, collection: &Collection, shard: ShardId, node: NodeId) -> Result<()> {
    let Some(api) = nodes.get(node) else {
        return Err(Error::Unavailable(format!("shard node {node} is not connected")));
    };
    let tuning = collection.tuning.clone();
    let sent = timeout(CALL, api.tune(Tune { shard, collection: collection.id, tuning }));
    sent.await.unwrap_or_else(|_| Err(Error::Timeout(format!("node {node} did not answer within {CALL:?}"))))
}

/// Sends what the collection wants to all its replicas. Those that are not reached are told by the reconciler.
pub async fn announce_tuning(nodes: &NodeDirectory, collection: &Collection) {
    let calls: Vec<_> = all_replicas(collection)
        .into_iter()
        .map(|(shard, node)| async move {
            if let Err(error) = send(nodes, collection, shard, node).await {
                tracing::debug!(%shard, %node, %error, "a replica was not told what it shall have yet");
            }
        })
        .collect();
    stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect::<()>().await;
}

/// Waits until every replica that answers, and one of each shard, has built the collection's indexes. `false` when that
/// is not so at the deadline.
pub async fn wait_for_indexes(nodes: &NodeDirectory, collection: &Collection, deadline: Instant) -> bool {
    let holders: BTreeSet<NodeId> = collection.all_shards().flat_map(Shard::readers).collect();
    let revision = collection.tuning.revision;
    let mut pause = PAUSE_FIRST;
    loop {
        let asked = holders.iter().map(|node| async move {
            let api = nodes.get(*node)?;
            timeout(CALL.min(deadline.saturating_duration_since(Instant::now())), api.status()).await.ok()?.ok()
        });
        let mut missing: BTreeSet<ShardId> = collection.all_shards().map(|shard| shard.id).collect();
        let mut is_building = false;
        for replica in join_all(asked).await.into_iter().flatten().flat_map(|status| status.replicas) {
            // A replica that does not serve builds its indexes once it does.
            if replica.collection != collection.id || replica.failed.is_some() {
                continue;
            }
            match replica.tuning >= revision && replica.payload.missing == 0 {
                true => drop(missing.remove(&replica.shard)),
                false => is_building = true,
            }
        }
        if missing.is_empty() && !is_building {
            return true;
        }
        if Instant::now() + pause >= deadline {
            return false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}
