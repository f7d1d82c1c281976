//! How points are spread over the shards of a collection, as the client says it.

use std::fmt::Display;

use serde::Deserialize;
use vicinal_common::collection::{CollectionSchema, VectorKind};
use vicinal_common::ids::MapVersion;
use vicinal_common::limits::{REPLICATION_MAX, SEARCH_SHARDS_MAX, SHARDS_PER_COLLECTION_MAX};
use vicinal_common::point::UNNAMED;
use vicinal_routing::centroids_wanted;

use super::super::answer::Failure;
use super::collection::{check_write_factor, in_range, invalid};
use super::settings::{none, unsupported};
use crate::meta::{ClusterRouting, ClusterSettings, Collection, Routing, RoutingChange};

/// Fewest search shards: with one every search would ask all.
const SEARCH_SHARDS_MIN: u32 = 2;
/// Copies of border points and recall of searches where nothing is said of them.
const COPIES: f64 = 0.2;
const RECALL_TARGET: f64 = 0.95;
/// The first map is trained from so many points per search shard on, where nothing is said of it ...
const POINTS_PER_SHARD: u64 = 25_000;
/// ... and not before there are so many for each centroid.
const POINTS_PER_CENTROID: u64 = 64;

/// What a collection says of routing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutingBody {
    method: String,
    vector: Option<String>,
    search_shards: Option<u32>,
    copies: Option<f64>,
    recall_target: Option<f64>,
    from_points: Option<u64>,
    balance: Option<bool>,
}

/// The ways there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Hash,
    Replicate,
    Cluster,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Hash => "hash",
            Method::Replicate => "replicate",
            Method::Cluster => "cluster",
        }
    }
}

/// How many shards and replicas there shall be.
pub(super) struct Layout {
    pub(super) routing: Routing,
    /// Shards, when the client chose, or has no choice.
    pub(super) shard_number: Option<u32>,
    /// Replicas per shard, 1 where there is one on each node.
    pub(super) replication_factor: u32,
    /// Replicas a write waits for.
    pub(super) write_consistency_factor: u32,
}

/// Shards and replicas as the client says them.
pub(super) struct Numbers {
    pub(super) shard_number: Option<u32>,
    pub(super) replication_factor: Option<u32>,
    pub(super) write_consistency_factor: Option<u32>,
}

impl RoutingBody {
    /// The method. Values that have a meaning are in their bounds, others are not there.
    fn check(&self) -> Result<Method, Failure> {
        let method = match self.method.as_str() {
            "hash" => Method::Hash,
            "replicate" => Method::Replicate,
            "cluster" => Method::Cluster,
            other => return Err(invalid("routing.method", format!("`{other}`"), "hash, replicate or cluster")),
        };
        if method != Method::Cluster {
            let why = format!("with `routing.method` {} it has no meaning", method.name());
            none("routing.vector", self.vector.as_ref(), &why)?;
            none("routing.search_shards", self.search_shards, &why)?;
            none("routing.copies", self.copies, &why)?;
            none("routing.recall_target", self.recall_target, &why)?;
            none("routing.from_points", self.from_points, &why)?;
            none("routing.balance", self.balance, &why)?;
            return Ok(method);
        }
        within("search_shards", self.search_shards, SEARCH_SHARDS_MIN, SEARCH_SHARDS_MAX)?;
        within("copies", self.copies, 0.0, 1.0)?;
        within("recall_target", self.recall_target, 0.5, 0.999)?;
        within("from_points", self.from_points, 1, u64::MAX)?;
        Ok(method)
    }

    /// All that is to be known for routing by cluster, of a collection with so many home shards.
    fn settings(self, schema: &CollectionSchema, home_shards: u32) -> Result<ClusterSettings, Failure> {
        let vector = routed_vector(self.vector, schema)?;
        let chosen = home_shards.clamp(SEARCH_SHARDS_MIN, SEARCH_SHARDS_MAX);
        let search_shards = self.search_shards.unwrap_or(chosen);
        let from_points = self.from_points.unwrap_or_else(|| {
            let centroids = centroids_wanted(search_shards) as u64;
            (POINTS_PER_SHARD * u64::from(search_shards)).max(POINTS_PER_CENTROID * centroids)
        });
        Ok(ClusterSettings {
            vector,
            search_shards,
            copies: self.copies.unwrap_or(COPIES) as f32,
            recall_target: self.recall_target.unwrap_or(RECALL_TARGET) as f32,
            from_points,
            balance: self.balance.unwrap_or(true),
        })
    }

    /// What of it changes a collection.
    pub(super) fn into_change(self, collection: &Collection) -> Result<Option<RoutingChange>, Failure> {
        let method = self.check()?;
        match (method, &collection.routing) {
            (Method::Hash, Routing::Hash) | (Method::Replicate, Routing::Replicate) => Ok(None),
            (Method::Hash, Routing::Cluster(_)) => Ok(Some(RoutingChange::Hash)),
            (Method::Cluster, Routing::Hash) => {
                let home_shards = u32::try_from(collection.shards.len()).unwrap_or(u32::MAX);
                Ok(Some(RoutingChange::Cluster(self.settings(&collection.schema, home_shards)?)))
            }
            (Method::Cluster, Routing::Cluster(known)) => {
                if let Some(vector) = self.vector.filter(|vector| *vector != known.vector) {
                    let why =
                        format!("vector `{}` is routed; switch to `hash` and back to have another one", known.vector);
                    return Err(unsupported(&format!("routing.vector: {vector}"), &why));
                }
                let change = RoutingChange::Settings {
                    search_shards: self.search_shards,
                    copies: self.copies.map(|copies| copies as f32),
                    recall_target: self.recall_target.map(|target| target as f32),
                    from_points: self.from_points,
                    balance: self.balance,
                };
                Ok(Some(change))
            }
            (Method::Replicate, Routing::Hash | Routing::Cluster(_))
            | (Method::Hash | Method::Cluster, Routing::Replicate) => {
                let why =
                    format!("the collection has `{}`, and its points stay where they are", collection.routing.name());
                Err(unsupported(&format!("routing.method: {}", method.name()), &why))
            }
        }
    }
}

fn within<T: PartialOrd + Display + Copy>(field: &str, value: Option<T>, least: T, most: T) -> Result<(), Failure> {
    match value {
        // Written so that what is no number is outside.
        Some(value) if !(value >= least && value <= most) => {
            Err(invalid(format!("routing.{field}"), value, &format!("from {least} to {most}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// The routed vector: the one that is named, or the only one that can be meant.
fn routed_vector(named: Option<String>, schema: &CollectionSchema) -> Result<String, Failure> {
    let field = "routing.vector";
    if let Some(name) = named {
        return match schema.vectors.get(&name).map(|vector| vector.kind) {
            Some(VectorKind::Dense) => Ok(name),
            Some(VectorKind::Multi | VectorKind::Sparse { .. }) => {
                Err(invalid(field, format!("`{name}`"), "a dense vector, neither a multivector nor a sparse one"))
            }
            None => Err(invalid(field, format!("`{name}`"), "the name of a vector of the collection")),
        };
    }
    let dense = schema.vectors.iter().filter(|(_, vector)| vector.kind == VectorKind::Dense);
    let names: Vec<&String> = dense.map(|(name, _)| name).collect();
    match names.as_slice() {
        [] => Err(invalid("routing.method", "cluster", "hash or replicate: the collection has no dense vector")),
        [only] => Ok((*only).clone()),
        several if several.iter().any(|name| name.as_str() == UNNAMED) => Ok(UNNAMED.to_owned()),
        several => {
            let bound = format!("the name of one of the {} dense vectors", several.len());
            Err(invalid(field, "null", &bound))
        }
    }
}

/// Checks the numbers of shards and replicas against the routing.
pub(super) fn layout(
    routing: Option<RoutingBody>,
    numbers: &Numbers,
    schema: &CollectionSchema,
    default_shards: u32,
) -> Result<Layout, Failure> {
    let method = routing.as_ref().map_or(Ok(Method::Hash), RoutingBody::check)?;
    let Numbers { shard_number, replication_factor, write_consistency_factor } = *numbers;
    if let Some(shards) = shard_number {
        in_range("shard_number", shards, SHARDS_PER_COLLECTION_MAX)?;
    }
    let write = write_consistency_factor.unwrap_or(1);
    let replication_factor = match method {
        Method::Hash | Method::Cluster => replication_factor.unwrap_or(1),
        Method::Replicate => {
            if let Some(shards) = shard_number.filter(|shards| *shards != 1) {
                return Err(invalid("shard_number", shards, "1 or left out: `routing.method` replicate has one shard"));
            }
            check_replicated("", replication_factor, write_consistency_factor)?;
            1
        }
    };
    in_range("replication_factor", replication_factor, REPLICATION_MAX)?;
    check_write_factor("write_consistency_factor", write, replication_factor)?;
    let shard_number = if method == Method::Replicate { Some(1) } else { shard_number };
    let routing = match (method, routing) {
        (Method::Cluster, Some(body)) => {
            let settings = body.settings(schema, shard_number.unwrap_or(default_shards))?;
            Routing::Cluster(Box::new(ClusterRouting::new(settings, MapVersion(0))))
        }
        (Method::Replicate, _) => Routing::Replicate,
        (Method::Hash | Method::Cluster, _) => Routing::Hash,
    };
    Ok(Layout { routing, shard_number, replication_factor, write_consistency_factor: write })
}

/// Refuses numbers of replicas for a collection that has one on each node.
pub(super) fn check_replicated(prefix: &str, replicas: Option<u32>, write: Option<u32>) -> Result<(), Failure> {
    let why = "with `routing.method` replicate each node has a replica";
    none(&format!("{prefix}replication_factor"), replicas, why)?;
    match write {
        None | Some(1) => Ok(()),
        Some(write) => {
            let bound = "1 or left out: with `routing.method` replicate a write waits for a majority of the replicas that \
                         vote, whose number follows that of the nodes";
            Err(invalid(format!("{prefix}write_consistency_factor"), write, bound))
        }
    }
}
