//! How points are spread over the shards of a collection, as the client says it.

use serde::Deserialize;
use vicinal_common::limits::{REPLICATION_MAX, SHARDS_PER_COLLECTION_MAX};

use super::super::answer::Failure;
use super::collection::{check_write_factor, in_range, invalid};
use super::settings::{none, unsupported};
use crate::meta::Routing;

/// What a collection says of routing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutingBody {
    method: String,
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

impl RoutingBody {
    fn check(self) -> Result<Routing, Failure> {
        match self.method.as_str() {
            "hash" => Ok(Routing::Hash),
            "replicate" => Ok(Routing::Replicate),
            "cluster" => Err(unsupported("routing.method: cluster", "it is not available yet, use hash or replicate")),
            other => Err(invalid("routing.method", format!("`{other}`"), "hash or replicate")),
        }
    }

    /// Refuses another method than the one that a collection has.
    pub(super) fn check_same(self, routing: &Routing) -> Result<(), Failure> {
        let method = self.check()?;
        if method.name() == routing.name() {
            return Ok(());
        }
        let why = format!("the collection has `{}`, and its points stay where they are", routing.name());
        Err(unsupported(&format!("routing.method: {}", method.name()), &why))
    }
}

/// Checks the numbers of shards and replicas against the routing.
pub(super) fn layout(
    routing: Option<RoutingBody>,
    shard_number: Option<u32>,
    replication_factor: Option<u32>,
    write_consistency_factor: Option<u32>,
) -> Result<Layout, Failure> {
    let routing = routing.map(RoutingBody::check).transpose()?.unwrap_or_default();
    if let Some(shards) = shard_number {
        in_range("shard_number", shards, SHARDS_PER_COLLECTION_MAX)?;
    }
    let write = write_consistency_factor.unwrap_or(1);
    let replication_factor = match routing {
        Routing::Hash | Routing::Cluster(_) => replication_factor.unwrap_or(1),
        Routing::Replicate => {
            if let Some(shards) = shard_number.filter(|shards| *shards != 1) {
                return Err(invalid("shard_number", shards, "1 or left out: `routing.method` replicate has one shard"));
            }
            check_replicated("", replication_factor, write_consistency_factor)?;
            1
        }
    };
    in_range("replication_factor", replication_factor, REPLICATION_MAX)?;
    check_write_factor("write_consistency_factor", write, replication_factor)?;
    let shard_number = if routing == Routing::Replicate { Some(1) } else { shard_number };
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
