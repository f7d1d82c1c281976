//! Clusters of a collection over all its shards: their map, what is in each, and the clusters of points.
//! docs/adr/0020-clusters-as-objects.md.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use vicinal_common::api::{ClusterStat, ClusterStats, ClusterStatsRequest, PointParts, VectorSelector};
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::filter::{ClusteringFacts, Filter};
use vicinal_common::ids::{MapDigest, NodeId};
use vicinal_common::point::PointId;
use vicinal_common::publish::MapRef;
use vicinal_common::vector::Vector;
use vicinal_routing::{CentroidMap, Placer};

use super::gather::Coverage;
use super::read::{everywhere, retrieve};
use super::scatter::{Effort, ReadSpec};
use crate::meta::{Collection, Shard};
use crate::shard_client::WorkKind;
use crate::shards::{Lookup, ShardAccess};

/// Maps kept in memory: those of the collections that were asked about last.
const MAPS_KEPT: usize = 4;

/// The maps of clusterings that were used lately.
#[derive(Default)]
pub struct ClusterMaps {
    newest_last: Mutex<VecDeque<(MapDigest, Arc<ClusterMap>)>>,
}

/// A map ready for use.
pub struct ClusterMap {
    /// What names it.
    pub of: MapRef,
    /// The centroids.
    pub map: Arc<CentroidMap>,
    placer: Placer,
}

impl ClusterMap {
    /// The cluster of a prepared vector of the map's dimension.
    pub fn cluster_of(&self, vector: &[f32]) -> u32 {
        self.placer.cell(vector).0
    }
}

impl ClusterMaps {
    fn known(&self, digest: MapDigest) -> Option<Arc<ClusterMap>> {
        let mut kept = self.newest_last.lock();
        let place = kept.iter().position(|(known, _)| *known == digest)?;
        let found = kept.remove(place)?;
        let map = found.1.clone();
        kept.push_back(found);
        Some(map)
    }

    /// The map of a collection's clusters. `NotFound` when it has none; `Unavailable` when no node gives it.
    pub async fn of(&self, access: &ShardAccess, collection: &Collection) -> Result<Arc<ClusterMap>> {
        let of = collection.clusters().cloned().ok_or_else(|| missing(collection))?;
        if let Some(known) = self.known(of.digest) {
            return Ok(known);
        }
        let bytes = read_map(access, collection, of.digest).await?;
        let opened = exec::blocking(move || {
            let map = CentroidMap::decode(&bytes).map_err(|e| Error::Corrupt(format!("map {}: {e}", of.digest)))?;
            let map = Arc::new(map);
            Ok::<_, Error>(Arc::new(ClusterMap { of, placer: Placer::new(map.clone()), map }))
        });
        let opened = opened.await??;
        let mut kept = self.newest_last.lock();
        kept.retain(|(known, _)| *known != opened.of.digest);
        kept.push_back((opened.of.digest, opened.clone()));
        while kept.len() > MAPS_KEPT {
            kept.pop_front();
        }
        Ok(opened)
    }
}

/// What is said of a collection without clusters.
pub fn missing(collection: &Collection) -> Error {
    let name = &collection.name;
    Error::NotFound(format!("Collection `{name}` has no clusters: `PUT /collections/{name}/clusters` trains some"))
}

/// The bytes of a map, from the first node of the collection that has it.
async fn read_map(access: &ShardAccess, collection: &Collection, digest: MapDigest) -> Result<Bytes> {
    let mut nodes: Vec<NodeId> = collection.all_shards().flat_map(Shard::readers).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut last = Error::Unavailable("no node of the collection is connected".into());
    for node in nodes {
        let Some(api) = access.nodes.get(node) else { continue };
        match api.get_map(digest).await {
            Ok(bytes) if MapDigest::of(&bytes) == digest => return Ok(bytes),
            Ok(_) => last = Error::Corrupt(format!("node {node} gave another map than {digest}")),
            Err(error) => last = error,
        }
    }
    Err(Error::Unavailable(format!("the clusters of collection `{}` cannot be read: {last}", collection.name)))
}

/// What is in each cluster over all shards, ascending by cluster; how far assigning is while it is under way.
pub async fn cluster_stats(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    map: MapDigest,
) -> Result<(ClusterStats, Coverage)> {
    let effort = Effort { kind: WorkKind::Count, units: 1 };
    let gathered = everywhere(access, lookup, spec, effort, |api, context| {
        let request = ClusterStatsRequest { context, map };
        async move { api.cluster_stats(request).await }
    })
    .await?;
    let mut all = ClusterStats::default();
    let mut clusters: BTreeMap<u32, ClusterStat> = BTreeMap::new();
    for (_, stats) in gathered.answers {
        all.assigned += stats.assigned;
        all.rows += stats.rows;
        for one in stats.clusters {
            clusters.entry(one.cluster).and_modify(|known| *known = known.and(one)).or_insert(one);
        }
    }
    if all.is_ready() {
        all.clusters = clusters.into_values().collect();
    }
    Ok((all, gathered.coverage))
}

/// The clusters of points; those that do not exist, or lack the vector, are left out.
pub async fn clusters_of_points(
    access: &ShardAccess,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    map: &Arc<ClusterMap>,
    ids: &[PointId],
) -> Result<HashMap<PointId, u32>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let parts = PointParts { payload: false, vectors: VectorSelector::Named(vec![map.of.vector.clone()]) };
    let (points, coverage) = retrieve(access, lookup, spec, ids, &parts).await?;
    coverage.check(false)?;
    let map = map.clone();
    exec::blocking(move || {
        let dim = map.map.parts().dim;
        let cluster = |vector: &Vector| match vector {
            Vector::Dense(vector) if vector.len() == dim => Some(map.cluster_of(vector)),
            Vector::Dense(_) | Vector::Sparse(_) | Vector::Multi(_) => None,
        };
        let found = points.into_iter();
        found.filter_map(|point| Some((point.id, cluster(point.vectors.get(&map.of.vector)?)?))).collect()
    })
    .await
}

/// Fixes the conditions on clusters in the filters of one request to the clustering that the collection has now. `NotFound`
/// when it has none.
pub async fn fix_clusters(
    access: &ShardAccess,
    maps: &ClusterMaps,
    lookup: Lookup<'_>,
    spec: ReadSpec<'_>,
    filters: Vec<&mut Filter>,
) -> Result<()> {
    let filters: Vec<&mut Filter> = filters.into_iter().filter(|filter| filter.names_clusters()).collect();
    if filters.is_empty() {
        return Ok(());
    }
    let map = maps.of(access, lookup()?.as_ref()).await?;
    let mut points: Vec<PointId> = filters.iter().flat_map(|filter| filter.cluster_points()).collect();
    points.sort_unstable();
    points.dedup();
    let clusters = clusters_of_points(access, lookup, spec, &map, &points).await?;
    let of_points = |id: PointId| clusters.get(&id).copied();
    let count = map.map.len();
    let facts = ClusteringFacts { version: map.of.version, map: map.of.digest, count, of_points: &of_points };
    filters.into_iter().try_for_each(|filter| filter.fix_clusters(&facts))
}
