//! Points by id from the shards they belong to, one request per node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tracing::Instrument;
use vicinal_common::api::{PointParts, RetrieveRequest, StoredPoint};
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::telemetry;

use super::gather::Coverage;
use super::scatter::{Effort, ReadSpec, Targets, scatter_to};
use crate::meta::Collection;
use crate::shard_client::WorkKind;
use crate::shards::ShardAccess;

/// What was found.
pub(super) struct Fetched {
    /// The points that exist, by id; the newest version where two shards hold one.
    pub(super) points: HashMap<PointId, StoredPoint>,
    /// The shards asked; a point of a missing one is unknown, not absent.
    pub(super) coverage: Coverage,
    /// Whether a shard refused because of an old token table.
    pub(super) is_stale: bool,
}

/// Looks points up. Ids may repeat.
pub(super) async fn fetch(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    ids: &[PointId],
    parts: &PointParts,
) -> Fetched {
    fetch_since(access, collection, spec, ids, parts, &HashMap::new()).await
}

/// The same from replicas that have applied at least these log indices.
pub(super) async fn fetch_since(
    access: &ShardAccess,
    collection: &Collection,
    spec: ReadSpec<'_>,
    ids: &[PointId],
    parts: &PointParts,
    floors: &HashMap<ShardId, LogIndex>,
) -> Fetched {
    let mut by_shard: HashMap<ShardId, Vec<PointId>> = HashMap::new();
    for id in ids {
        by_shard.entry(collection.tokens.shard_of(*id)).or_default().push(*id);
    }
    let shards: Vec<ShardId> = by_shard.keys().copied().collect();
    let effort = Effort { kind: WorkKind::Retrieve, units: ids.len().div_ceil(shards.len().max(1)) };
    let floors: Vec<LogIndex> = match floors.is_empty() {
        true => Vec::new(),
        false => shards.iter().map(|shard| floors.get(shard).copied().unwrap_or_default()).collect(),
    };
    let targets = Targets { floors: &floors, ..Targets::homes(collection, &shards) };
    let found = scatter_to(access, collection, spec, effort, targets, |api, context| {
        let of_node = context.shards.iter().filter_map(|(shard, _)| by_shard.get(shard));
        let mut ids: Vec<PointId> = of_node.flatten().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let request = RetrieveRequest { context, ids: Arc::new(ids), parts: parts.clone() };
        async move { api.retrieve(request).await }
    });
    let gathered = found.instrument(telemetry::fetch_span(ids.len())).await;
    let is_stale = gathered.is_stale();
    let mut points: HashMap<PointId, StoredPoint> = HashMap::with_capacity(ids.len());
    for point in gathered.answers.into_iter().flat_map(|(_, points)| points) {
        match points.entry(point.id) {
            Entry::Vacant(slot) => {
                slot.insert(point);
            }
            Entry::Occupied(mut slot) => {
                if slot.get().version < point.version {
                    slot.insert(point);
                }
            }
        }
    }
    Fetched { points, coverage: gathered.coverage, is_stale }
}
