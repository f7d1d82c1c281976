//! Trains the clusters that collections want, and sees to it that their maps are where they have to be. On the coordinator
//! that leads the metadata group; every step can be repeated. docs/adr/0020-clusters-as-objects.md.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use vicinal_common::api::{KeepMaps, PointParts, PutMap, ScrollOrder, VectorSelector};
use vicinal_common::collection::VectorSchema;
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::filter::{Condition, Filter, Slice};
use vicinal_common::ids::{CollectionId, MapDigest, MapVersion, NodeId};
use vicinal_common::metric::Metric;
use vicinal_common::publish::MapRef;
use vicinal_common::vector::Vector;
use vicinal_index::Rows;
use vicinal_routing::{CentroidMap, D1Quantiles, KMeansOptions, MapParts, Placer, ThetaTable, cluster};

use super::reconcile::Reconciler;
use super::tuning::announce_tuning;
use crate::members::Seen;
use crate::meta::{
    Clustering, ClusteringWish, Collection, CollectionState, MetaCommand, MetaState, Routing, Shard,
};
use crate::query::{PageRequest, ReadSpec, scroll};
use crate::session::Session;
use crate::shards::ShardAccess;

/// Points of the sample for each cluster.
const SAMPLE_PER_CLUSTER: u64 = 64;
/// Bytes of vectors in a sample at most, and in what one read of it gets.
const SAMPLE_BYTES_MAX: u64 = 512 << 20;
const PAGE_BYTES: u64 = 16 << 20;
/// Longest time of one read of a sample, and of storing a map on one node.
const READ: Duration = Duration::from_secs(30);
const PUT: Duration = Duration::from_secs(60);
/// Nodes that get a map at a time.
const PUTS_AT_ONCE: usize = 4;
/// Pause after an attempt that failed: first and longest.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);

/// A node that lacks the map of a clustering which one of its replicas is told to assign by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lacking {
    node: NodeId,
    collection: CollectionId,
    map: MapDigest,
}

impl Reconciler {
    /// Trains what a collection wants until it is there, not wanted any more, or another coordinator leads.
    pub(super) async fn cluster(self, id: CollectionId) {
        let mut pause = PAUSE_FIRST;
        while self.catalog.is_leader() {
            let state = self.catalog.state();
            let found = state.collections.get(&id).filter(|found| found.state == CollectionState::Active);
            let Some(collection) = found.cloned() else { return };
            let Some(wish) = collection.clustering_wanted.clone() else { return };
            // Held for one attempt, so that one that fails keeps no other from its turn.
            let Ok(training) = self.trainings.acquire().await else { return };
            let attempt = self.train_clusters(&collection, &wish).await;
            drop(training);
            match attempt {
                Ok(()) => return,
                Err(error) => {
                    let name = &collection.name;
                    tracing::warn!(%error, "training the clusters of collection `{name}` failed and is tried again");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    async fn train_clusters(&self, collection: &Arc<Collection>, wish: &ClusteringWish) -> Result<()> {
        if is_routing_trained(collection) {
            return Err(Error::Conflict("a map of the routing is being trained, and has the version to come".into()));
        }
        let Some(schema) = collection.schema.vectors.get(&wish.vector).cloned() else {
            return Err(Error::Internal(format!("the collection has no vector {:?}", wish.vector)));
        };
        let sample = self.sample(collection, wish, &schema).await?;
        let points = (sample.len() / schema.dim.max(1)) as u64;
        let state = self.catalog.state();
        // The newest: the sample has taken its time.
        let collection = state.collections.get(&collection.id).unwrap_or(collection);
        let version = state.clustering_to_come(collection);
        let (metric, dim, count) = (schema.metric, schema.dim, wish.count as usize);
        let trained = exec::blocking(move || {
            let map = train(Rows { data: &sample, dim }, metric, count, version)?;
            Ok::<Bytes, Error>(Bytes::from(map.encode()))
        });
        let bytes = trained.await??;
        let map = MapRef {
            version,
            vector: wish.vector.clone(),
            digest: MapDigest::of(&bytes),
            bytes: bytes.len() as u64,
            shards: Vec::new(),
        };
        self.store(collection, map.digest, &bytes).await?;
        let digest = map.digest;
        let trained = Clustering { map, trained_ms: self.catalog.now_ms(), points };
        let serve = MetaCommand::ServeClusters { collection: collection.id, wish: wish.clone(), trained };
        self.change(serve).await?;
        let state = self.catalog.state();
        if let Some(collection) = state.collections.get(&collection.id) {
            announce_tuning(&self.nodes, collection).await;
            self.sweep_maps(collection, version).await;
            tracing::info!(map = %digest, points, "collection `{}` has clusters of version {version}", collection.name);
        }
        Ok(())
    }

    /// Vectors of points chosen at random, one after the other.
    async fn sample(
        &self,
        collection: &Arc<Collection>,
        wish: &ClusteringWish,
        schema: &VectorSchema,
    ) -> Result<Vec<f32>> {
        let point_bytes = (schema.dim * size_of::<f32>()) as u64;
        let points = (u64::from(wish.count) * SAMPLE_PER_CLUSTER).min(SAMPLE_BYTES_MAX / point_bytes.max(1)).max(1);
        let pages = (points * point_bytes).div_ceil(PAGE_BYTES).max(1);
        let (access, session) = (ShardAccess::new(self.nodes.clone()), Session::default());
        let id = collection.id;
        let lookup = || {
            let found = self.catalog.state().collections.get(&id).cloned();
            found.ok_or_else(|| Error::NotFound(format!("Collection {id} was deleted")))
        };
        let mut sample = Vec::new();
        for page in 0..pages {
            let mut filter = Filter::default();
            filter.must.push(Condition::HasVector(wish.vector.clone()));
            if pages > 1 {
                // Each page is a sample of another part of the ids, so no point comes twice.
                let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                filter.must.push(Condition::Slice(Slice { index: part(page), total: part(pages) }));
            }
            let request = PageRequest {
                order: ScrollOrder::Random { seed: wish.since_ms },
                limit: usize::try_from(points.div_ceil(pages)).unwrap_or(usize::MAX),
                filter: Some(Arc::new(filter)),
                parts: PointParts { payload: false, vectors: VectorSelector::Named(vec![wish.vector.clone()]) },
            };
            let deadline = Instant::now() + READ;
            let spec = ReadSpec { consistency: Consistency::ReadYourWrites, deadline, session: &session };
            let read = scroll(&access, &lookup, spec, &request).await?;
            read.coverage.check(false)?;
            for point in read.points {
                if let Some(Vector::Dense(vector)) = point.vectors.get(&wish.vector) {
                    sample.extend_from_slice(vector);
                }
            }
        }
        Ok(sample)
    }

    /// Stores a map on all nodes of a collection that answer. `Unavailable` unless these are a majority of each shard.
    async fn store(&self, collection: &Collection, digest: MapDigest, bytes: &Bytes) -> Result<()> {
        let nodes: BTreeSet<NodeId> = collection.all_shards().flat_map(Shard::readers).collect();
        let puts = nodes.into_iter().map(|node| async move {
            let put = PutMap { collection: collection.id, digest, bytes: bytes.clone() };
            (node, self.put(node, put).await)
        });
        let results: Vec<(NodeId, Result<()>)> = stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).collect().await;
        let held: BTreeSet<NodeId> = results.iter().filter(|(_, put)| put.is_ok()).map(|(node, _)| *node).collect();
        let is_short = |shard: &&Shard| {
            let count = shard.replicas.iter().filter(|node| held.contains(node)).count();
            count * 2 <= shard.replicas.len()
        };
        let Some(short) = collection.all_shards().find(is_short) else { return Ok(()) };
        let why = results.into_iter().find_map(|(_, put)| put.err());
        let why = why.map(|error| format!(": {error}")).unwrap_or_default();
        Err(Error::Unavailable(format!("the map is on no majority of shard {}{why}", short.id)))
    }

    async fn put(&self, node: NodeId, put: PutMap) -> Result<()> {
        let Some(api) = self.nodes.get(node) else {
            return Err(Error::Unavailable(format!("shard node {node} is not connected")));
        };
        let answer = tokio::time::timeout(PUT, api.put_map(put)).await;
        answer.unwrap_or_else(|_| Err(Error::Timeout(format!("node {node} did not store the map within {PUT:?}"))))
    }

    /// Has the nodes of a collection forget maps as old as `as_of` that nothing names. While a map of its routing ends they
    /// all stay: the next clustering, or the sweep of the routing, removes them.
    async fn sweep_maps(&self, collection: &Collection, as_of: MapVersion) {
        let Some(digests) = collection.maps_kept() else { return };
        let nodes: BTreeSet<NodeId> = collection.all_shards().flat_map(Shard::readers).collect();
        for node in nodes {
            let keep = KeepMaps { collection: collection.id, as_of, digests: digests.clone() };
            if let Err(error) = self.call(node, |api| async move { api.keep_maps(keep).await }).await {
                tracing::debug!(%node, %error, "maps that are not needed stay for now");
            }
        }
    }

    /// Nodes whose last sign of life shows that they lack the map of a clustering.
    pub(super) fn lacking_clusters(&self, state: &MetaState) -> Vec<Lacking> {
        let seen = |node: NodeId| self.members.seen(node);
        lacking(state, &seen)
    }

    /// Gives nodes the maps that they lack, from others that have them.
    pub(super) async fn spread_clusters(self, lacking: Vec<Lacking>) {
        let mut read: BTreeMap<MapDigest, Bytes> = BTreeMap::new();
        for Lacking { node, collection, map } in lacking {
            let state = self.catalog.state();
            let Some(found) = state.collections.get(&collection) else { continue };
            if !read.contains_key(&map) {
                // One after the other: a map may be large.
                read.clear();
                let holders: BTreeSet<NodeId> = found.all_shards().flat_map(Shard::readers).collect();
                for holder in holders.into_iter().filter(|holder| *holder != node) {
                    if let Ok(bytes) = self.call(holder, |api| async move { api.get_map(map).await }).await {
                        read.insert(map, bytes);
                        break;
                    }
                }
            }
            let Some(bytes) = read.get(&map).cloned() else { continue };
            if let Err(error) = self.put(node, PutMap { collection, digest: map, bytes }).await {
                tracing::debug!(%node, %error, "a node does not have the map of its clusters yet");
            }
        }
    }
}

/// Whether collections want clusters to be trained, and which.
pub(super) fn wants_clusters(collection: &Collection) -> bool {
    collection.state == CollectionState::Active && collection.clustering_wanted.is_some()
}

fn is_routing_trained(collection: &Collection) -> bool {
    match &collection.routing {
        Routing::Cluster(cluster) => cluster.is_training,
        Routing::Hash | Routing::Replicate => false,
    }
}

fn lacking(state: &MetaState, seen: &dyn Fn(NodeId) -> Option<Seen>) -> Vec<Lacking> {
    let active = state.collections.values().filter(|found| found.state == CollectionState::Active);
    let with_own = active.filter_map(|found| Some((found, found.clustering.as_ref()?.map.digest)));
    let mut lacking = Vec::new();
    for (collection, map) in with_own {
        let nodes: BTreeSet<NodeId> = collection.all_shards().flat_map(Shard::readers).collect();
        let lacks = |node: &NodeId| seen(*node).is_some_and(|seen| !seen.status.maps.contains(&map));
        lacking.extend(nodes.into_iter().filter(lacks).map(|node| Lacking { node, collection: collection.id, map }));
    }
    lacking
}

/// Clusters a sample of points that are prepared for the metric. The map keeps in `radius` the mean length of each cell's
/// points to their centroid: no search is bounded by it, and how far a cluster has drifted is told from that.
fn train(sample: Rows<'_>, metric: Metric, count: usize, version: MapVersion) -> Result<CentroidMap> {
    if sample.is_empty() {
        return Err(Error::Unavailable("no point has the vector: there is nothing to cluster".into()));
    }
    let clusters = cluster(sample, None, metric, KMeansOptions::new(count, version.0));
    let cells = clusters.weights.len();
    let parts = MapParts {
        version: version.0,
        metric,
        dim: sample.dim,
        shards: 1,
        centroids: clusters.centroids,
        radius: vec![0.0; cells],
        weight: clusters.weights.iter().map(|weight| *weight as f32).collect(),
        shard_of: vec![0; cells],
        // Nothing is routed by it.
        tau: 1.0,
        copy_ratio: 0.0,
        thetas: ThetaTable::default(),
        d1: D1Quantiles::default(),
    };
    let wrong = |error: vicinal_routing::RoutingError| Error::Internal(format!("clusters make no map: {error}"));
    let map = Arc::new(CentroidMap::new(parts).map_err(wrong)?);
    let placer = Placer::new(map.clone());
    let mut sums = vec![(0.0f64, 0u64); cells];
    for row in 0..sample.len() as u32 {
        let (cell, length) = placer.cell(sample.row(row));
        if let Some((sum, points)) = sums.get_mut(cell as usize) {
            *sum += f64::from(length);
            *points += 1;
        }
    }
    let mut parts = map.parts().clone();
    parts.radius = sums.into_iter().map(|(sum, points)| (sum / points.max(1) as f64) as f32).collect();
    CentroidMap::new(parts).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clustering_tells_how_far_points_are_from_their_centroids() {
        let data: Vec<f32> = (0..400).flat_map(|i| [(i % 4 * 100) as f32, (i / 4 % 3) as f32]).collect();
        let map = train(Rows { data: &data, dim: 2 }, Metric::Euclid, 4, MapVersion(9)).unwrap();
        assert_eq!((map.len(), map.parts().version, map.shards()), (4, 9, 1));
        // A third of the points at each of 0, 1 and 2 from a mean of about 1.
        assert!(map.parts().radius.iter().all(|spread| (0.6..0.72).contains(spread)), "{:?}", map.parts().radius);
        assert_eq!(map.parts().weight.iter().sum::<f32>(), 400.0);
        assert!(train(Rows { data: &[], dim: 2 }, Metric::Euclid, 4, MapVersion(9)).is_err());
    }
}
