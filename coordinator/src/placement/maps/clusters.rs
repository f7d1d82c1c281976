//! Trains the clusters that collections want: docs/adr/0020-clusters-as-objects.md. Every step can be repeated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use vicinal_common::collection::VectorSchema;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::{CollectionId, MapDigest};
use vicinal_common::limits::MAP_BYTES_MAX;
use vicinal_common::publish::MapRef;
use vicinal_routing::{CentroidMap, ClusterOptions, learn_clusters};

use super::super::reconcile::{PAUSE_FIRST, Reconciler};
use super::super::tuning::announce_tuning;
use super::train::{Drawn, threads};
use crate::meta::{Clustering, ClusteringWish, Collection, CollectionState, MetaCommand, Shard};

/// Points of the sample for each cluster: enough for a mean.
const POINTS_PER_CLUSTER: usize = 64;
/// Longest pause before clusters are trained again that could not be.
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// How often a map gets another version because one of another collection, or of the routing, took its own.
const VERSIONS_MAX: usize = 10;

/// Whether a collection wants clusters to be trained.
pub(in super::super) fn wants_clusters(collection: &Collection) -> bool {
    collection.state == CollectionState::Active && collection.clustering_wanted.is_some()
}

impl Reconciler {
    /// Trains what a collection wants until it is there, not wanted any more, or another coordinator leads.
    pub(in super::super) async fn cluster(self, id: CollectionId) {
        let (mut pause, mut told) = (PAUSE_FIRST, String::new());
        while self.catalog.is_leader() {
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&id).filter(|found| wants_clusters(found)) else { return };
            let Some(wish) = collection.clustering_wanted.clone() else { return };
            let attempt = tokio::select! {
                attempt = self.train_clusters(collection, &wish) => attempt,
                () = self.until_unwanted(id, &wish) => Ok(()),
            };
            let Err(error) = attempt else {
                // It is served, or taken back: whichever was noticed first, replicas are told.
                self.after_clusters(id).await;
                continue;
            };
            let text = error.to_string();
            if text != told {
                tracing::warn!("training the clusters of collection `{}` has to wait: {text}", collection.name);
                told = text;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// Tells replicas what they shall assign by, and has nodes remove the map before.
    async fn after_clusters(&self, id: CollectionId) {
        let state = self.catalog.state();
        let Some(collection) = state.collections.get(&id) else { return };
        announce_tuning(&self.nodes, collection).await;
        let nodes = collection.all_shards().flat_map(Shard::readers).collect();
        self.keep_maps(&state, collection, nodes).await;
        if let Some(own) = &collection.clustering {
            tracing::info!("collection `{}` has clusters of version {}", collection.name, own.map.version);
        }
    }

    /// Waits until something else is wanted.
    async fn until_unwanted(&self, id: CollectionId, wish: &ClusteringWish) {
        let mut changed = self.catalog.changed();
        loop {
            // Marked as seen before the state is read: a change in between wakes the wait below.
            changed.borrow_and_update();
            let state = self.catalog.state();
            let now = state.collections.get(&id).and_then(|found| found.clustering_wanted.as_ref());
            if now != Some(wish) || changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn train_clusters(&self, collection: &Arc<Collection>, wish: &ClusteringWish) -> Result<()> {
        // One at a time: it takes memory and processors.
        let turn = self.trainings.acquire().await.map_err(|_| Error::Unavailable("it is stopping".into()))?;
        let Some(schema) = collection.schema.vectors.get(&wish.vector).cloned() else {
            return Err(Error::Internal(format!("the collection has no vector `{}`", wish.vector)));
        };
        let seed = self.catalog.rng().next_u64();
        let sample = self.cluster_sample(collection, wish, &schema, seed).await?;
        let points = sample.len();
        let (dim, metric) = (schema.dim, schema.metric);
        let options = ClusterOptions { version: 1, count: wish.count as usize, seed, threads: threads() };
        let work = move || {
            let values: Vec<f32> = sample.into_iter().flat_map(|(_, _, vector)| vector).collect();
            let learned = exec::in_background("train clusters", || learn_clusters(&values, dim, metric, options));
            let learned = learned.map_err(|error| Error::Unavailable(format!("no thread to train on: {error}")))?;
            learned.map_err(|error| Error::Internal(format!("clusters were not trained: {error}")))
        };
        let mut map = exec::blocking(work).await??;
        drop(turn);
        for _ in 0..VERSIONS_MAX {
            let state = self.catalog.state();
            // The newest: training has taken its time.
            let Some(collection) = state.collections.get(&collection.id) else { return Ok(()) };
            let version = state.clustering_to_come(collection);
            let bytes;
            (map, bytes) = encoded(map, version.0).await?;
            let of = MapRef {
                version,
                vector: wish.vector.clone(),
                digest: MapDigest::of(&bytes),
                bytes: bytes.len() as u64,
                shards: Vec::new(),
            };
            self.store(collection, &[], of.digest, &bytes).await?;
            let trained = Clustering { map: of, trained_ms: self.catalog.now_ms(), points: points as u64 };
            let id = collection.id;
            let serve = MetaCommand::ServeClusters { collection: id, wish: wish.clone(), trained };
            let served = self.change(serve).await;
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&id) else { return Ok(()) };
            match served {
                Ok(()) => return Ok(()),
                Err(error) if state.clustering_to_come(collection) == version => return Err(error),
                Err(_) => {}
            }
        }
        Err(Error::Unavailable("other maps took the version each time".into()))
    }

    /// Points to train on.
    async fn cluster_sample(
        &self,
        collection: &Collection,
        wish: &ClusteringWish,
        schema: &VectorSchema,
        seed: u64,
    ) -> Result<Vec<Drawn>> {
        let wanted = wish.count as usize * POINTS_PER_CLUSTER;
        let sample = self.sample(collection, (&wish.vector, schema.dim), wanted, seed).await?;
        if sample.is_empty() {
            return Err(Error::Unavailable(format!("none of its points has the vector `{}`", wish.vector)));
        }
        Ok(sample)
    }
}

/// The map with its version, and its bytes.
async fn encoded(map: CentroidMap, version: u64) -> Result<(CentroidMap, Bytes)> {
    let work = move || {
        let mut parts = map.into_parts();
        parts.version = version;
        let map = CentroidMap::new(parts).map_err(|error| Error::Internal(format!("clusters make no map: {error}")))?;
        let bytes = Bytes::from(map.encode());
        Ok::<_, Error>((map, bytes))
    };
    let (map, bytes) = exec::blocking(work).await??;
    if bytes.len() > MAP_BYTES_MAX {
        let text = format!("clusters of version {version} have {} bytes, the limit is {MAP_BYTES_MAX}", bytes.len());
        return Err(Error::Internal(text));
    }
    Ok((map, bytes))
}
