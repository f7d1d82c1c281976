//! How full a collection is, as far as this coordinator knows: what its shards said last, looked up anew when that is old or
//! when a limit may have been reached since.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use vicinal_common::collection::{CollectionSchema, VectorSchema};
use vicinal_common::ids::{CollectionId, ShardId};
use vicinal_common::vector::Datatype;

use super::super::answer::Failure;
use super::super::info::{self, Patience};
use super::refused;
use crate::meta::{COLLECTIONS_MAX, Collection, StrictMode};
use crate::shards::ShardAccess;
use crate::write::Update;

/// What shards said is used for so long, while no limit is near.
const OLD_AFTER: Duration = Duration::from_secs(1);
/// Shards are not asked more often than this.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// A write waits for their answers no longer than this, and no longer than a part of the time that it has itself.
const SURVEY_TIME_MAX: Duration = Duration::from_millis(500);
/// The part.
const SURVEY_PART: u32 = 4;

/// Points of one collection.
#[derive(Debug)]
struct Known {
    /// When shards were asked.
    at: Instant,
    /// What each of them said last: one that is silent now is as full as it was.
    shards: BTreeMap<ShardId, u64>,
    /// The sum.
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
                let now = Instant::now();
                let time = SURVEY_TIME_MAX.min(deadline.saturating_duration_since(now) / SURVEY_PART);
                let replicas = info::survey(access, collection, Patience::EachShard, now + time).await;
                let full = replicas.into_iter().filter(|(_, replica)| info::serves(replica));
                self.note(collection, full.map(|(shard, replica)| (shard, replica.points)).collect(), points_in(update))
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

    /// Takes over what shards said; the points of all, those that said nothing included if they ever did.
    fn note(&self, collection: &Collection, said: BTreeMap<ShardId, u64>, writing: u64) -> u64 {
        let mut known = self.known.lock();
        if known.len() >= 2 * COLLECTIONS_MAX {
            // What is still in use is asked for again.
            known.clear();
        }
        let mut shards = known.remove(&collection.id).map(|known| known.shards).unwrap_or_default();
        shards.extend(said);
        shards.retain(|shard, _| collection.is_home(*shard));
        let points = shards.values().copied().fold(0, u64::saturating_add);
        known.insert(collection.id, Known { at: Instant::now(), shards, points, written: writing });
        points
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::api::UpdateMode;
    use vicinal_common::ids::{LogIndex, NodeId};
    use vicinal_common::point::PointId;

    use super::*;
    use crate::model::ModelCluster;

    /// Three shards of the replicas given, ten points in all; ten are the limit.
    fn full(replicas: u64) -> (ModelCluster, Collection) {
        let cluster = ModelCluster::new(3, replicas);
        for point in ModelCluster::points(10) {
            let PointId::Num(id) = point.id else { panic!("{} is no number", point.id) };
            let shard = cluster.shard_of(id);
            let mut model = cluster.model.lock();
            model.shards.get_mut(&shard).unwrap().points.insert(point.id, (LogIndex(1), point));
        }
        let strict = StrictMode { enabled: Some(true), max_points_count: Some(10), ..StrictMode::default() };
        let collection = Collection { strict, ..(*cluster.collection).clone() };
        (cluster, collection)
    }

    /// What a write of one point is told, and after how long.
    async fn check(totals: &Totals, cluster: &ModelCluster, collection: &Collection) -> (bool, Duration) {
        let update = Update::Upsert { points: ModelCluster::points(1), mode: UpdateMode::Upsert, filter: None };
        let began = Instant::now();
        let deadline = began + Duration::from_secs(20);
        let checked = totals.check(&cluster.access, collection, &update, deadline).await;
        (checked.is_err(), began.elapsed())
    }

    #[tokio::test]
    async fn a_node_that_hangs_keeps_no_write_waiting() {
        let (cluster, collection) = full(3);
        cluster.model.lock().hanging.insert(NodeId(2));
        let (is_refused, took) = check(&Totals::default(), &cluster, &collection).await;
        assert!(is_refused && took < SURVEY_TIME_MAX, "{took:?}");
    }

    #[tokio::test]
    async fn shards_that_say_nothing_are_as_full_as_they_were() {
        let (cluster, collection) = full(1);
        let totals = Totals::default();
        assert!(check(&totals, &cluster, &collection).await.0);
        let lost = cluster.shard_of(3);
        let shard = cluster.model.lock().shards.remove(&lost).unwrap();
        tokio::time::sleep(2 * ASK_PAUSE).await;
        assert!(check(&totals, &cluster, &collection).await.0, "a shard is missing");
        cluster.model.lock().hanging.extend([1, 2, 3].map(NodeId));
        tokio::time::sleep(2 * ASK_PAUSE).await;
        let (is_refused, took) = check(&totals, &cluster, &collection).await;
        assert!(is_refused && took < 2 * SURVEY_TIME_MAX, "all are silent: {took:?}");
        cluster.model.lock().hanging.clear();
        // It is there again, and empty.
        let mut empty = shard;
        empty.points.clear();
        cluster.model.lock().shards.insert(lost, empty);
        tokio::time::sleep(2 * ASK_PAUSE).await;
        assert!(!check(&totals, &cluster, &collection).await.0);
    }
}
