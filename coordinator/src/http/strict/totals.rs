//! How full a collection is, as far as this coordinator knows: what its shards said last, looked up anew when that is old or
//! when a limit may have been reached since.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use vicinal_common::collection::{CollectionSchema, VectorSchema};
use vicinal_common::ids::CollectionId;
use vicinal_common::vector::Datatype;

use super::super::answer::Failure;
use super::super::info;
use super::refused;
use crate::meta::{COLLECTIONS_MAX, Collection, StrictMode};
use crate::shards::ShardAccess;
use crate::write::Update;

/// What shards said is used for so long, while no limit is near.
const OLD_AFTER: Duration = Duration::from_secs(1);
/// Shards are not asked more often than this.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// Points of one collection.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// When shards were asked.
    at: Instant,
    /// What they said.
    points: u64,
    /// Points in writes since then, of which some may have been there before.
    written: u64,
}

/// Points of the collections that have a limit.
#[derive(Default)]
pub(in super::super) struct Totals {
    known: Mutex<HashMap<CollectionId, Known>>,
}

/// The points from which on a limit refuses more, and what is then said.
struct Limit {
    points: u64,
    text: String,
}

/// Limits of the size of a collection that a change of points counts for.
fn limits(strict: &StrictMode, schema: &CollectionSchema, update: &Update) -> Vec<Limit> {
    let (adds_points, adds_vectors) = match update {
        Update::Upsert { .. } => (true, true),
        Update::UpdateVectors { .. } => (false, true),
        Update::Delete(_) | Update::Edit { .. } => (false, false),
    };
    let mut limits = Vec::new();
    if let Some(most) = strict.max_points_count.filter(|_| adds_points) {
        limits.push(Limit { points: most, text: format!("Max points count limit of {most} reached!") });
    }
    let row_bytes: u64 = schema.vectors.values().map(vector_bytes).sum();
    if let Some(most) = strict.max_collection_vector_size_bytes.filter(|_| adds_vectors && row_bytes > 0) {
        let mib = most as f64 / f64::from(1 << 20);
        let text = format!("Max vector storage size limit of {mib}MB reached!");
        limits.push(Limit { points: most.div_ceil(row_bytes), text });
    }
    limits
}

/// Bytes of one vector: of sparse ones, and of more than one vector of a multivector, nothing is known.
fn vector_bytes(vector: &VectorSchema) -> u64 {
    let value = match vector.datatype {
        Datatype::Float32 => 4,
        Datatype::Float16 => 2,
        Datatype::Uint8 => 1,
    };
    vector.dim as u64 * value
}

fn points_in(update: &Update) -> u64 {
    match update {
        Update::Upsert { points, .. } => points.len() as u64,
        Update::UpdateVectors { .. } | Update::Delete(_) | Update::Edit { .. } => 0,
    }
}

impl Totals {
    /// Refuses a change of points when the collection has reached a limit of its size already.
    pub(super) async fn check(
        &self,
        access: &ShardAccess,
        collection: &Collection,
        update: &Update,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let Some(strict) = collection.strict.enforced() else { return Ok(()) };
        let limits = limits(strict, &collection.schema, update);
        let Some(lowest) = limits.iter().map(|limit| limit.points).min() else { return Ok(()) };
        let points = match self.recent(collection.id, lowest, points_in(update)) {
            Some(points) => points,
            None => {
                let replicas = info::survey(access, collection, deadline).await;
                let points = replicas.values().map(|replica| replica.points).sum();
                self.note(collection.id, points, points_in(update));
                points
            }
        };
        match limits.into_iter().find(|limit| points >= limit.points) {
            Some(limit) => Err(refused(limit.text)),
            None => Ok(()),
        }
    }

    /// The points that are known; `None` when shards must be asked. Counts those of the write that asks.
    fn recent(&self, id: CollectionId, limit: u64, writing: u64) -> Option<u64> {
        let now = Instant::now();
        let mut known = self.known.lock();
        let known = known.get_mut(&id)?;
        let age = now.saturating_duration_since(known.at);
        let is_near = known.points < limit && known.points.saturating_add(known.written) >= limit;
        let is_over = known.points >= limit;
        if age >= OLD_AFTER || ((is_near || is_over) && age >= ASK_PAUSE) {
            // Whoever comes while they are asked goes by what is known.
            known.at = now;
            return None;
        }
        known.written = known.written.saturating_add(writing);
        Some(known.points)
    }

    fn note(&self, id: CollectionId, points: u64, writing: u64) {
        let mut known = self.known.lock();
        if known.len() >= 2 * COLLECTIONS_MAX {
            // What is still in use is asked for again.
            known.clear();
        }
        known.insert(id, Known { at: Instant::now(), points, written: writing });
    }
}
