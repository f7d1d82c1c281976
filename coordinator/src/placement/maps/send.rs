//! Calls to the leader of a shard, wherever it is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vicinal_common::api::{
    CountRequest, PointParts, ReadContext, ScrollOrder, ScrollRequest, ShardAnswer, ShardApi, StoredPoint,
    VectorSelector, WriteOp, WriteRequest,
};
use vicinal_common::consistency::Consistency;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Condition, Filter};
use vicinal_common::ids::{Epoch, LogIndex, MapVersion, NodeId, ShardId};

use super::super::reconcile::Reconciler;
use crate::meta::{Collection, Shard};

/// Most calls for one purpose; then the whole attempt is begun anew, later.
const ROUNDS_MAX: usize = 12;
/// Pause before the next call when a shard seems to have no leader.
const PAUSE: Duration = Duration::from_millis(50);
/// Time that a node is given to answer.
const TIME: Duration = Duration::from_secs(8);

impl Reconciler {
    /// Has the leader of a shard do something, or whichever replica does it.
    async fn at_leader<T, F: Future<Output = Result<T>>>(
        &self,
        shard: &Shard,
        call: impl Fn(Arc<dyn ShardApi>) -> F,
    ) -> Result<T> {
        let replicas: Vec<NodeId> = shard.readers().collect();
        let mut candidates = replicas.iter().copied().cycle();
        let mut node = self.leader_of(shard).map(|(node, _)| node);
        let mut ended = Error::Unavailable(format!("shard {} has no replica", shard.id));
        let mut failures = 0;
        for _ in 0..ROUNDS_MAX {
            let Some(to) = node.take().or_else(|| candidates.next()) else { break };
            ended = match self.call(to, &call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match &ended {
                Error::WrongLeader { hint, .. } => node = hint.filter(|hint| *hint != to && shard.is_on(*hint)),
                // Every replica is asked once.
                _ if failures >= replicas.len() => break,
                _ => failures += 1,
            }
            sleep(PAUSE).await;
        }
        Err(ended)
    }

    /// Writes what can be written any number of times.
    pub(super) async fn write(&self, collection: &Collection, shard: &Shard, op: WriteOp) -> Result<()> {
        let written = self.at_leader(shard, |api| {
            let request = WriteRequest {
                request: self.catalog.rng().request_id(),
                part: 0,
                collection: collection.id,
                epoch: collection.epoch_of(shard.id),
                shard: shard.id,
                op: op.clone(),
                deadline: Instant::now() + TIME,
            };
            async move { api.write(request).await }
        });
        written.await.map(|_| ())
    }

    /// How far a search shard is that has all that was acknowledged: to be read by the map of this version.
    pub(super) async fn floor(&self, collection: &Collection, shard: &Shard, map: MapVersion) -> Result<LogIndex> {
        let counted = self.at_leader(shard, |api| {
            let context = ReadContext {
                collection: collection.id,
                epoch: Epoch(map.0),
                shards: vec![(shard.id, LogIndex(0))],
                consistency: Consistency::Linearizable,
                deadline: Instant::now() + TIME,
            };
            async move { only(api.count(CountRequest { context, filter: None }).await, shard.id) }
        });
        counted.await.map(|(applied, _)| applied)
    }

    /// A random choice of so many points of a home shard that have a vector, with it.
    pub(super) async fn sampled(
        &self,
        collection: &Collection,
        shard: &Shard,
        vector: &str,
        seed: u64,
        limit: usize,
    ) -> Result<Vec<StoredPoint>> {
        let filter = Filter { must: vec![Condition::HasVector(vector.to_owned())], ..Filter::default() };
        let filter = Arc::new(filter);
        let scrolled = self.at_leader(shard, |api| {
            let context = ReadContext {
                collection: collection.id,
                epoch: collection.epoch,
                shards: vec![(shard.id, LogIndex(0))],
                consistency: Consistency::ReadYourWrites,
                deadline: Instant::now() + TIME,
            };
            let request = ScrollRequest {
                context,
                order: ScrollOrder::Random { seed },
                limit,
                filter: Some(filter.clone()),
                parts: PointParts { payload: false, vectors: VectorSelector::Named(vec![vector.to_owned()]) },
            };
            async move { only(api.scroll(request).await, shard.id) }
        });
        scrolled.await.map(|(_, points)| points)
    }
}

/// The answer of the shard that was asked.
fn only<T>(answers: Vec<ShardAnswer<T>>, shard: ShardId) -> Result<(LogIndex, T)> {
    let answer = answers.into_iter().find(|answer| answer.shard == shard);
    let answer = answer.ok_or_else(|| Error::Unavailable(format!("no answer for shard {shard}")))?;
    Ok((answer.applied, answer.result?))
}
