//! The maps that searches are routed by, read from shard nodes in the background. A search never waits for one: until
//! it is here, all search shards are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::{Instant, timeout};
use vicinal_common::api::{NodeDirectory, ShardApi};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{MapDigest, NodeId};
use vicinal_common::publish::MapRef;
use vicinal_routing::{CentroidMap, Router};

use crate::meta::{Collection, MetaState};
use crate::off_thread::off_thread;

/// How long one node may take to hand a map over: it is tens of megabytes at most.
const READ_TIME: Duration = Duration::from_secs(30);
/// How long nobody asks again for a map that no node gave.
const PAUSE: Duration = Duration::from_secs(1);

/// Maps by the digest of their bytes. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Maps {
    known: Arc<RwLock<BTreeMap<MapDigest, Known>>>,
}

/// What is known of a map.
enum Known {
    Loading,
    Loaded(Arc<Router>),
    /// No node gave it.
    Failed(Instant),
}

/// A map that is being read; dropped, it counts as failed, so that it is tried again.
struct Loading {
    maps: Maps,
    digest: MapDigest,
}

impl Maps {
    /// What routes by a map, if it is here. If not, it is read from now on.
    pub(crate) fn router(&self, nodes: &NodeDirectory, collection: &Collection, map: &MapRef) -> Option<Arc<Router>> {
        if let Some(Known::Loaded(router)) = self.known.read().get(&map.digest) {
            return Some(router.clone());
        }
        {
            let mut known = self.known.write();
            match known.get(&map.digest) {
                Some(Known::Loaded(router)) => return Some(router.clone()),
                Some(Known::Loading) => return None,
                Some(Known::Failed(at)) if at.elapsed() < PAUSE => return None,
                Some(Known::Failed(_)) | None => drop(known.insert(map.digest, Known::Loading)),
            }
        }
        let loading = Loading { maps: self.clone(), digest: map.digest };
        let holders: BTreeSet<NodeId> = collection.all_shards().flat_map(|shard| shard.readers()).collect();
        let holders = holders.into_iter().filter_map(|node| Some((node, nodes.get(node)?))).collect();
        // Ends by itself: each holder is asked once, for a bounded time.
        tokio::spawn(load(loading, map.clone(), holders));
        None
    }

    /// Reads the maps that the metadata name, and forgets all others.
    pub(crate) fn follow(&self, nodes: &NodeDirectory, state: &MetaState) {
        let mut named = BTreeSet::new();
        for collection in state.collections.values() {
            let Some(cluster) = collection.routing.cluster() else { continue };
            for map in cluster.serving.iter().map(|served| &served.map).chain(&cluster.next) {
                named.insert(map.digest);
                self.router(nodes, collection, map);
            }
        }
        self.known.write().retain(|digest, _| named.contains(digest));
    }

    /// Puts a map in its place, as if it had been read.
    #[cfg(test)]
    pub(crate) fn put(&self, digest: MapDigest, router: Arc<Router>) {
        self.known.write().insert(digest, Known::Loaded(router));
    }
}

impl Loading {
    fn done(&self, router: Router) {
        // One that nobody names any more was forgotten meanwhile.
        if let Some(known) = self.maps.known.write().get_mut(&self.digest) {
            *known = Known::Loaded(Arc::new(router));
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(known @ Known::Loading) = self.maps.known.write().get_mut(&self.digest) {
            *known = Known::Failed(Instant::now());
        }
    }
}

async fn load(loading: Loading, map: MapRef, holders: Vec<(NodeId, Arc<dyn ShardApi>)>) {
    for (node, api) in holders {
        match read(&map, &*api).await {
            Ok(router) => return loading.done(router),
            Err(error) => tracing::debug!("node {node} did not give map {}: {error}", map.digest),
        }
    }
    tracing::warn!("no node has given map {} yet: searches ask all search shards", map.digest);
}

/// Reads a map from one node and checks that it is the one that is meant.
async fn read(map: &MapRef, api: &dyn ShardApi) -> Result<Router> {
    let read = timeout(READ_TIME, api.get_map(map.digest)).await;
    let bytes = read.map_err(|_| Error::Timeout(format!("no map after {} seconds", READ_TIME.as_secs())))??;
    let (digest, length, shards) = (map.digest, map.bytes, map.shards.len());
    off_thread(move || {
        if bytes.len() as u64 != length || MapDigest::of(&bytes) != digest {
            return Err(Error::Corrupt(format!("{} bytes are not those of map {digest}", bytes.len())));
        }
        let decoded = CentroidMap::decode(&bytes).map_err(|error| Error::Corrupt(error.to_string()))?;
        if decoded.shards() as usize != shards {
            return Err(Error::Corrupt(format!("map {digest} is for {} shards, not {shards}", decoded.shards())));
        }
        Ok(Router::new(Arc::new(decoded)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use vicinal_common::ids::NodeId;

    use super::*;
    use crate::model::ClusterModel;

    async fn loaded(cluster: &ClusterModel) -> bool {
        let access = &cluster.base.access;
        let served = cluster.served();
        for _ in 0..200 {
            if access.router(&cluster.base.collection, &served).is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        false
    }

    #[tokio::test]
    async fn a_map_is_read_from_whichever_node_has_it() {
        let cluster = ClusterModel::new(3, 4, 1);
        cluster.base.model.lock().maps.clear();
        let served = cluster.served();
        assert!(cluster.base.access.router(&cluster.base.collection, &served).is_none());
        assert!(!loaded(&cluster).await, "nobody has it");
        cluster.give_map(NodeId(2));
        tokio::time::sleep(PAUSE).await;
        assert!(loaded(&cluster).await);
        cluster.base.access.maps.follow(&cluster.base.access.nodes, &MetaState::default());
        assert!(cluster.base.access.maps.known.read().is_empty(), "one that nothing names is forgotten");
    }

    #[tokio::test]
    async fn bytes_of_another_map_are_refused() {
        let cluster = ClusterModel::new(3, 4, 1);
        let digest = cluster.served().map.digest;
        for bytes in cluster.base.model.lock().maps.values_mut() {
            let mut wrong = bytes[&digest].to_vec();
            *wrong.last_mut().unwrap() ^= 1;
            bytes.insert(digest, wrong.into());
        }
        assert!(!loaded(&cluster).await);
    }

    #[tokio::test]
    async fn the_map_to_come_is_read_before_it_is_served() {
        let cluster = ClusterModel::new(3, 4, 1);
        let mut collection = (*cluster.base.collection).clone();
        if let crate::meta::Routing::Cluster(routing) = &mut collection.routing {
            routing.next = routing.serving.take().map(|served| served.map);
        }
        let mut state = MetaState::default();
        state.collections.insert(collection.id, Arc::new(collection));
        let access = &cluster.base.access;
        access.maps.follow(&access.nodes, &state);
        let digest = cluster.served().map.digest;
        for _ in 0..200 {
            if matches!(access.maps.known.read().get(&digest), Some(Known::Loaded(_))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("not read");
    }
}
