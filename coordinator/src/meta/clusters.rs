//! Clusterings of collections: what the metadata keep of them, and the commands that change it. Pure, like all of apply.
//! docs/adr/0020-clusters-as-objects.md.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, MapVersion};
use vicinal_common::publish::MapRef;

use super::apply::refuse;
use super::command::{MetaCommand, MetaReply};
use super::state::{Collection, CollectionState, MetaState, OperationKind, Routing};

/// The clusters of a collection: the centroids of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clustering {
    /// The map; it has one shard, which stands for nothing.
    pub map: MapRef,
    /// When it was trained, in Unix milliseconds.
    pub trained_ms: u64,
    /// Points that it was trained on.
    pub points: u64,
}

/// A clustering that is to be trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusteringWish {
    /// Name of the vector, a dense one.
    pub vector: String,
    /// Clusters wanted.
    pub count: u32,
    /// Since when, in Unix milliseconds: tells it from other wishes.
    pub since_ms: u64,
}

impl Collection {
    /// The map whose centroids are its clusters: that of its own clustering, else the one that queries are routed by.
    pub fn clusters(&self) -> Option<&MapRef> {
        let routed = || Some(&self.routing.cluster()?.serving.as_ref()?.map);
        self.clustering.as_ref().map(|own| &own.map).or_else(routed)
    }

    /// Tells replicas by which map points are assigned to clusters, when that has changed.
    pub(super) fn tell_clusters(&mut self) {
        let map = self.clusters().cloned();
        if self.tuning.clustering != map {
            self.tuning.clustering = map;
            self.tuning.revision += 1;
        }
    }
}

impl MetaState {
    /// The version that the next clustering of a collection has to have: they are counted together with the maps of its
    /// routing, so that what sweeps the ones takes none of the others for older than it is.
    pub fn clustering_to_come(&self, collection: &Collection) -> MapVersion {
        match collection.routing.cluster() {
            Some(cluster) => cluster.map_to_come(),
            None => MapVersion(self.newest_map.0 + 1),
        }
    }

    fn clustered(&mut self, id: CollectionId) -> Result<&mut Collection> {
        let found = self.collections.get_mut(&id).filter(|found| found.state != CollectionState::Deleting);
        found.map(Arc::make_mut).ok_or_else(|| Error::NotFound(format!("Collection {id} was deleted")))
    }

    pub(super) fn train_clusters(&mut self, id: CollectionId, wish: &ClusteringWish) -> MetaReply {
        match self.clustered(id) {
            Ok(collection) if collection.clustering_wanted.as_ref() == Some(wish) => return MetaReply::Done,
            Ok(collection) if collection.clustering_wanted.is_some() => {
                return refuse(Error::Conflict("clusters are being trained already: delete them to begin anew".into()));
            }
            Ok(collection) => collection.clustering_wanted = Some(wish.clone()),
            Err(error) => return refuse(error),
        }
        self.begin_operation(OperationKind::TrainClusters, id, wish.since_ms, 1);
        MetaReply::Done
    }

    pub(super) fn serve_clusters(
        &mut self,
        id: CollectionId,
        wish: &ClusteringWish,
        trained: &Clustering,
    ) -> MetaReply {
        let to_come = match self.collections.get(&id) {
            Some(found) => self.clustering_to_come(found),
            None => return refuse(Error::NotFound(format!("Collection {id} was deleted"))),
        };
        let version = trained.map.version;
        let collection = match self.clustered(id) {
            Ok(collection) => collection,
            Err(error) => return refuse(error),
        };
        if collection.clustering.as_ref() == Some(trained) {
            return MetaReply::Done;
        }
        if collection.clustering_wanted.as_ref() != Some(wish) {
            return refuse(Error::Conflict("these clusters are not wanted any more".into()));
        }
        if version != to_come {
            return refuse(Error::Conflict(format!("clusters of version {version}: the next one is {to_come}")));
        }
        if let Routing::Cluster(cluster) = &mut collection.routing {
            // The map that is being trained has the version that would be taken.
            if cluster.is_training {
                return refuse(Error::Conflict("a map of the routing is being trained: wait for it".into()));
            }
            cluster.last_version = version;
        }
        collection.clustering = Some(trained.clone());
        collection.clustering_wanted = None;
        collection.tell_clusters();
        self.newest_map = self.newest_map.max(version);
        self.end_clustering(id);
        MetaReply::Done
    }

    pub(super) fn drop_clusters(&mut self, id: CollectionId) -> MetaReply {
        let collection = match self.clustered(id) {
            Ok(collection) => collection,
            Err(error) => return refuse(error),
        };
        collection.clustering = None;
        collection.clustering_wanted = None;
        collection.tell_clusters();
        self.end_clustering(id);
        MetaReply::Done
    }

    /// After a command that may have changed which map queries are routed by.
    pub(super) fn tell_clusters(&mut self, id: CollectionId) {
        let is_told = |found: &Collection| found.tuning.clustering.as_ref() == found.clusters();
        if let Some(found) = self.collections.get_mut(&id).filter(|found| !is_told(found)) {
            Arc::make_mut(found).tell_clusters();
        }
    }

    fn end_clustering(&mut self, id: CollectionId) {
        let is_it = |kind: OperationKind| kind == OperationKind::TrainClusters;
        self.operations.retain(|_, operation| operation.collection != id || !is_it(operation.kind));
    }
}

impl MetaCommand {
    /// The collection whose routing it may change.
    pub(super) fn routed(&self) -> Option<CollectionId> {
        match self {
            MetaCommand::ServeMap { collection, .. }
            | MetaCommand::EndMap { collection, .. }
            | MetaCommand::ServeHomes { collection, .. }
            | MetaCommand::ChangeCollection { collection, .. } => Some(*collection),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
