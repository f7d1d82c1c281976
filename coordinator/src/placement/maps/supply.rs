//! Maps on nodes: puts them where they are missing, and has those removed that nobody needs any more.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use vicinal_common::api::{KeepMaps, NodeStatus, PutMap};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, MapDigest, MapVersion, NodeId};

use super::super::reconcile::Reconciler;
use super::plan;
use crate::meta::{Collection, CollectionState, MetaState, Shard};

/// Pause before nodes that could not be supplied are tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// A map that a node has not, and should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Lacking {
    node: NodeId,
    collection: CollectionId,
    digest: MapDigest,
}

/// What a node lacks.
fn lacking(state: &MetaState, status: &NodeStatus) -> Vec<Lacking> {
    let node = status.node;
    let mut lacking = Vec::new();
    for collection in state.collections.values().filter(|found| found.state == CollectionState::Active) {
        if collection.all_shards().any(|shard| shard.is_on(node)) {
            let missing =
                plan::all_maps(collection).map(|map| map.digest).filter(|digest| !status.maps.contains(digest));
            lacking.extend(missing.map(|digest| Lacking { node, collection: collection.id, digest }));
        }
    }
    lacking
}

impl Reconciler {
    /// What nodes lack by their last signs of life.
    pub(in super::super) fn lacking(&self, state: &MetaState) -> Vec<Lacking> {
        let seen = self.nodes.ids().into_iter().filter_map(|node| self.members.seen(node));
        seen.flat_map(|seen| lacking(state, &seen.status)).collect()
    }

    /// Supplies nodes. Those that are not reached show again with their next signs of life.
    pub(in super::super) async fn supply(self, lacking: Vec<Lacking>) {
        self.supply_each(lacking).await;
        // What was supplied shows in the next sign of life; a node that cannot take a map is not sent it all the time.
        sleep(PAUSE).await;
    }

    async fn supply_each(&self, lacking: Vec<Lacking>) {
        let mut known: Option<(MapDigest, Bytes)> = None;
        for Lacking { node, collection, digest } in lacking {
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&collection) else { continue };
            let bytes = match &known {
                Some((of, bytes)) if *of == digest => Ok(bytes.clone()),
                Some(_) | None => self.fetch_map(collection, digest).await,
            };
            let supplied = match bytes {
                Ok(bytes) => {
                    known = Some((digest, bytes.clone()));
                    self.put(collection.id, node, digest, bytes).await
                }
                Err(error) => Err(error),
            };
            match supplied {
                Ok(()) => tracing::info!("node {node} got a map of collection `{}`", collection.name),
                Err(error) => tracing::debug!(%node, %digest, %error, "a node has not got its map yet"),
            }
        }
    }

    /// Supplies those nodes of a collection that say that they lack a map.
    pub(super) async fn supply_now(&self, state: &MetaState, collection: &Collection, statuses: &[NodeStatus]) {
        let all = statuses.iter().flat_map(|status| lacking(state, status));
        self.supply_each(all.filter(|lacking| lacking.collection == collection.id).collect()).await;
    }

    /// The bytes of a map, from whichever node of the collection has them.
    pub(super) async fn fetch_map(&self, collection: &Collection, digest: MapDigest) -> Result<Bytes> {
        let mut ended = Error::NotFound(format!("no node has the map {digest}"));
        let nodes: BTreeSet<NodeId> = collection.all_shards().flat_map(Shard::readers).collect();
        for node in nodes {
            match self.call(node, |api| async move { api.get_map(digest).await }).await {
                Ok(bytes) if MapDigest::of(&bytes) == digest => return Ok(bytes),
                Ok(_) => ended = Error::Corrupt(format!("node {node} has other bytes than those of map {digest}")),
                Err(error) => ended = error,
            }
        }
        Err(ended)
    }

    pub(super) async fn put(
        &self,
        collection: CollectionId,
        node: NodeId,
        digest: MapDigest,
        bytes: Bytes,
    ) -> Result<()> {
        self.call(node, |api| async move { api.put_map(PutMap { collection, digest, bytes }).await }).await
    }

    /// Supplies a node, and has it remove what it has beside the maps that there are.
    pub(in super::super) async fn sweep_maps(&self, state: &MetaState, status: &NodeStatus) {
        self.supply_each(lacking(state, status)).await;
        let maps =
            |collection: &Collection| -> Vec<MapDigest> { plan::all_maps(collection).map(|map| map.digest).collect() };
        let used: BTreeSet<MapDigest> = state.collections.values().flat_map(|collection| maps(collection)).collect();
        if status.maps.iter().all(|digest| used.contains(digest)) {
            return;
        }
        // Of which collection the others were only the node knows. One that is being trained is younger than all there
        // are.
        let here = status.replicas.iter().map(|replica| replica.collection);
        for id in here.collect::<BTreeSet<CollectionId>>() {
            if let Some(collection) = state.collections.get(&id) {
                self.keep_maps(state, collection, [status.node].into()).await;
            }
        }
    }

    /// Has nodes remove the maps of a collection that nobody needs any more.
    pub(super) async fn keep_maps(&self, state: &MetaState, collection: &Collection, nodes: BTreeSet<NodeId>) {
        let Some(digests) = plan::kept(collection) else { return };
        let as_of = collection.routing.cluster().map_or(state.newest_map, |cluster| cluster.last_version);
        self.tell_kept(collection.id, as_of, &digests, nodes).await;
    }

    /// Has nodes remove all maps of a collection that is deleted.
    pub(in super::super) async fn forget_maps(&self, collection: &Collection) {
        let is_routed = collection.routing.cluster().is_some_and(|cluster| cluster.last_version > MapVersion(0));
        if is_routed || collection.clustering.is_some() {
            let nodes = collection.all_shards().flat_map(Shard::readers).collect();
            self.tell_kept(collection.id, MapVersion(u64::MAX), &[], nodes).await;
        }
    }

    async fn tell_kept(
        &self,
        collection: CollectionId,
        as_of: MapVersion,
        digests: &[MapDigest],
        nodes: BTreeSet<NodeId>,
    ) {
        for node in nodes {
            let request = KeepMaps { collection, as_of, digests: digests.to_vec() };
            let kept = self.call(node, |api| async move { api.keep_maps(request).await }).await;
            if let Err(error) = kept {
                tracing::debug!(%node, %error, "maps that nobody needs stay on a node until the next sweep");
            }
        }
    }
}
