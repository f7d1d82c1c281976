//! Queries that were asked lately, by which the next map of a collection is calibrated beside its stored points.
//!
//! Of each collection that is routed by cluster a bounded choice: all queries until it is full, then one of sixteen, each in the
//! place of any other. So it follows the traffic: what was asked 32,768 queries ago is forgotten by two of three. In memory
//! only, of this coordinator only: it ends with the process and is shown to nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use vicinal_common::ids::CollectionId;

use crate::meta::MetaState;

/// Most queries kept of a collection, and their bytes.
const QUERIES_MAX: usize = 2_048;
const BYTES_MAX: usize = 8 << 20;
/// Most bytes of all collections. Those that find no room keep none.
const ALL_BYTES_MAX: usize = 64 << 20;
/// Once there is no room left one of so many queries is taken.
const SAMPLED: u64 = 16;

/// The queries of all collections. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    logs: Arc<RwLock<BTreeMap<CollectionId, Arc<Log>>>>,
}

/// The queries of a collection by one of its vectors.
#[derive(Debug)]
struct Log {
    vector: String,
    dim: usize,
    most: usize,
    seen: AtomicU64,
    /// Row-major.
    queries: Mutex<Vec<f32>>,
}

impl Log {
    fn new(vector: &str, dim: usize) -> Log {
        let most = (BYTES_MAX / (dim.max(1) * size_of::<f32>())).clamp(1, QUERIES_MAX);
        let (vector, queries) = (vector.to_owned(), Mutex::default());
        Log { vector, dim, most, seen: AtomicU64::new(0), queries }
    }

    fn bytes(&self) -> usize {
        self.most * self.dim * size_of::<f32>()
    }

    fn note(&self, query: &[f32]) {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        if seen >= self.most as u64 && !seen.is_multiple_of(SAMPLED) {
            return;
        }
        // A search does not wait for another one: then it is not noted.
        let Some(mut queries) = self.queries.try_lock() else { return };
        if queries.len() < self.most * self.dim {
            queries.extend_from_slice(query);
            return;
        }
        // The finalizer of SplitMix64 scatters a counter evenly, and the same way in each run.
        let mut z = seen.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let place = ((z ^ (z >> 31)) % self.most as u64) as usize * self.dim;
        queries[place..place + self.dim].copy_from_slice(query);
    }
}

impl Asked {
    /// Notes a prepared query by a vector of a collection; another vector than before, or one of another length, begins
    /// anew.
    pub(crate) fn note(&self, collection: CollectionId, vector: &str, query: &[f32]) {
        let fits = |log: &&Arc<Log>| log.vector == vector && log.dim == query.len();
        if let Some(log) = self.logs.read().get(&collection).filter(fits) {
            return log.note(query);
        }
        let mut logs = self.logs.write();
        let held: usize = logs.iter().filter(|(id, _)| **id != collection).map(|(_, log)| log.bytes()).sum();
        let log = Log::new(vector, query.len());
        if query.is_empty() || held + log.bytes() > ALL_BYTES_MAX {
            logs.remove(&collection);
            return;
        }
        log.note(query);
        logs.insert(collection, Arc::new(log));
    }

    /// What was noted by a vector of this length: row-major.
    pub(crate) fn of(&self, collection: CollectionId, vector: &str, dim: usize) -> Vec<f32> {
        let log = self.logs.read().get(&collection).cloned();
        let log = log.filter(|log| log.vector == vector && log.dim == dim);
        log.map(|log| log.queries.lock().clone()).unwrap_or_default()
    }

    /// Forgets collections that are gone or not routed by cluster any more.
    pub(crate) fn retain(&self, state: &MetaState) {
        let is_routed =
            |id: &CollectionId| state.collections.get(id).is_some_and(|found| found.routing.cluster().is_some());
        self.logs.write().retain(|id, _| is_routed(id));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const C: CollectionId = of_number(7);

    const fn of_number(number: u128) -> CollectionId {
        CollectionId(Uuid::from_u128(number))
    }

    #[test]
    fn the_log_is_bounded_and_follows_what_is_asked() {
        let asked = Asked::default();
        let value = |count: usize, value: f32| (0..count).for_each(|_| asked.note(C, "v", &[value, 0.0]));
        value(QUERIES_MAX, 1.0);
        let of = |wanted: f32| asked.of(C, "v", 2).chunks_exact(2).filter(|query| query[0] == wanted).count();
        assert_eq!((of(1.0), of(2.0)), (QUERIES_MAX, 0));
        value(16, 2.0);
        assert_eq!(of(2.0), 1, "one of sixteen");
        value(QUERIES_MAX * 16 - 16, 2.0);
        // As many were taken as there are places: one in e places is left.
        let left = of(1.0) as f64 / QUERIES_MAX as f64;
        assert!((0.3..0.44).contains(&left), "{left}");
        assert_eq!(of(1.0) + of(2.0), QUERIES_MAX);
        value(QUERIES_MAX * 16 * 9, 2.0);
        assert!(of(1.0) <= 3);
    }

    #[test]
    fn another_vector_begins_anew_and_long_ones_share_the_memory() {
        let asked = Asked::default();
        asked.note(C, "v", &[1.0, 2.0]);
        asked.note(C, "w", &[3.0]);
        assert_eq!((asked.of(C, "v", 2).len(), asked.of(C, "w", 1)), (0, vec![3.0]));
        assert_eq!(asked.of(C, "w", 2).len(), 0);
        // 8 MiB each: eight of them have room, beside nothing else.
        let long = vec![1.0; 4_096];
        asked.note(C, "w", &[]);
        (0..20).for_each(|number| asked.note(of_number(100 + number), "v", &long));
        let kept = (0..20).filter(|number| !asked.of(of_number(100 + number), "v", 4_096).is_empty()).count();
        assert_eq!(kept, 8);
        asked.retain(&MetaState::default());
        assert!(asked.of(of_number(100), "v", 4_096).is_empty());
    }
}
