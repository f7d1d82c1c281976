//! What must hold of the search shards of a collection once every fault is healed: each live point has its copies where the
//! map says, and after a while there is nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vicinal_common::api::{PointParts, ReadContext, ScrollOrder, ScrollRequest, ShardApi, StoredPoint, VectorSelector};
use vicinal_common::consistency::Consistency;
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::point::PointId;
use vicinal_coordinator::meta::{Collection, MetaState, ServedMap, Shard};
use vicinal_routing::{CentroidMap, Placer};

use super::check::{Checker, PATIENCE};

/// Longest time until a change of the map is through and what is not needed any more is gone.
const SETTLED: Duration = Duration::from_secs(90);
/// Most points of a shard.
const POINTS_MAX: usize = 100_000;

/// The versions in a shard, by point.
type Versions = BTreeMap<PointId, LogIndex>;

impl Checker {
    /// Waits until the copies are as they must be. How many there are.
    pub(super) async fn check_copies(&self) -> Result<usize, String> {
        let deadline = Instant::now() + SETTLED;
        loop {
            let wrong = match self.copies().await {
                Ok(copies) => return Ok(copies),
                Err(wrong) => wrong,
            };
            if Instant::now() >= deadline {
                return Err(format!("copies are not as they must be {SETTLED:?} after all is healed: {wrong}"));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn copies(&self) -> Result<usize, String> {
        let (state, collection) = self.collection()?;
        let cluster = collection.routing.cluster().ok_or("points have no copies")?;
        if cluster.next.is_some() || cluster.ending.is_some() {
            return Err(format!("a map is being changed: {:?}, {:?}", cluster.next, cluster.ending));
        }
        let served = cluster.serving.as_ref().ok_or("there is no map")?;
        let placer = self.placer(&state, &collection, served).await?;
        let mut wanted: BTreeMap<ShardId, Versions> = BTreeMap::new();
        // What the sweep must leave alone: who places by other instructions may see it in either shard.
        let mut allowed: BTreeMap<ShardId, Versions> = BTreeMap::new();
        for home in &collection.shards {
            for point in self.rows(&state, &collection, home, VectorSelector::All).await? {
                let vector = point.vectors.get(&cluster.vector).and_then(|vector| vector.dense());
                let Some(vector) = vector else { continue };
                let places = placer.place(vector);
                for place in [Some(places.home), places.copy].into_iter().flatten() {
                    let shard = served.map.shards.get(place as usize).ok_or("a place has no shard")?;
                    wanted.entry(*shard).or_default().insert(point.id, point.version);
                }
                for (place, shard) in (0..).zip(&served.map.shards) {
                    if !placer.is_surely_elsewhere(vector, place) {
                        allowed.entry(*shard).or_default().insert(point.id, point.version);
                    }
                }
            }
        }
        let mut copies = 0;
        for shard in &cluster.shards {
            let rows = self.rows(&state, &collection, shard, VectorSelector::None).await?;
            let held: Versions = rows.into_iter().map(|row| (row.id, row.version)).collect();
            let wanted = wanted.remove(&shard.id).unwrap_or_default();
            if let Some((id, version)) = wanted.iter().find(|(id, version)| held.get(id) != Some(version)) {
                let held = held.get(id);
                return Err(format!("point {id} has version {version}, its copy in shard {} is {held:?}", shard.id));
            }
            let allowed = allowed.remove(&shard.id).unwrap_or_default();
            if let Some((id, version)) = held.iter().find(|(id, version)| allowed.get(id) != Some(version)) {
                return Err(format!("shard {} still holds {id} at {version}, which does not belong there", shard.id));
            }
            copies += held.len();
        }
        match wanted.keys().next() {
            Some(shard) => Err(format!("the map names shard {shard}, which is not there")),
            None => Ok(copies),
        }
    }

    async fn placer(&self, state: &MetaState, collection: &Collection, served: &ServedMap) -> Result<Placer, String> {
        let mut why = "no node has the map".to_owned();
        for node in collection.shards.iter().flat_map(Shard::readers) {
            match self.node(state, node)?.get_map(served.map.digest).await {
                Ok(bytes) => {
                    let map = CentroidMap::decode(&bytes).map_err(|e| e.to_string())?;
                    return Ok(Placer::new(Arc::new(map)));
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    /// All rows of a shard, as its leader has them.
    async fn rows(
        &self,
        state: &MetaState,
        collection: &Collection,
        shard: &Shard,
        vectors: VectorSelector,
    ) -> Result<Vec<StoredPoint>, String> {
        let mut why = format!("shard {} has no replica", shard.id);
        for node in shard.readers() {
            let context = ReadContext {
                collection: collection.id,
                epoch: collection.epoch_of(shard.id),
                shards: vec![(shard.id, LogIndex(0))],
                consistency: Consistency::Linearizable,
                deadline: Instant::now() + PATIENCE,
            };
            let request = ScrollRequest {
                context,
                order: ScrollOrder::Id { from: None },
                limit: POINTS_MAX,
                filter: None,
                parts: PointParts { payload: false, vectors: vectors.clone() },
            };
            match self.node(state, node)?.scroll(request).await.pop().map(|answer| answer.result) {
                Some(Ok(rows)) => return Ok(rows),
                Some(Err(error)) => why = format!("shard {} on node {node}: {error}", shard.id),
                None => why = format!("node {node} gave no answer"),
            }
        }
        Err(why)
    }
}
