//! What coordinators ask of a node: [`ShardApi`] on the node's own replicas.

mod metrics;
mod pool;
mod read;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tracing::Instrument;
use vicinal_common::api::{
    ChangeMembers, ClusterStats, ClusterStatsRequest, CountRequest, DigestRequest, FacetCount, FacetRequest,
    FoundGroup, Frequencies, FrequencyRequest, KeepMaps, MembersChange, NodeStatus, PutMap, ReplicaSpec,
    RetrieveRequest, ScrollRequest, SearchRequest, ShardAnswer, ShardApi, ShardDigest, ShardHit, StoredPoint, Tune,
    WriteAck, WriteRequest,
};
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::{CollectionId, Epoch, MapDigest, ShardId};
use vicinal_common::telemetry;

pub use pool::{JobTimes, SearchPool};

use crate::node::ShardNode;
use crate::publish;
use crate::raft::Group;
use crate::shard::{LoggedWrite, View};

/// The request must mean this collection and be routed by the token table, or the map, that the shard knows. Apply
/// checks writes again. Reads are checked twice: before they wait for a view, without one, and on that which they are
/// answered from.
fn check_routing(group: &Group, collection: CollectionId, epoch: Epoch, read: Option<&View>) -> Result<()> {
    let spec = group.shard().spec();
    if spec.collection != collection {
        return Err(Error::NoSuchShard(spec.shard));
    }
    group.shard().check_epoch(epoch, read)
}

#[async_trait]
impl ShardApi for ShardNode {
    async fn create_replica(&self, spec: ReplicaSpec) -> Result<()> {
        self.create(spec).await
    }

    async fn found_group(&self, request: FoundGroup) -> Result<()> {
        self.check_open()?;
        self.group(request.shard)?.found(&request.voters).await
    }

    async fn change_members(&self, request: ChangeMembers) -> Result<MembersChange> {
        self.check_open()?;
        self.group(request.shard)?.change_members(&request).await
    }

    async fn drop_replica(&self, shard: ShardId) -> Result<()> {
        self.drop_shard(shard).await
    }

    async fn tune(&self, request: Tune) -> Result<()> {
        self.check_open()?;
        let shard = self.group(request.shard)?.shard().clone();
        if shard.spec().collection != request.collection {
            return Err(Error::NoSuchShard(request.shard));
        }
        // Waits for the disk, and perhaps for a segment being sealed.
        exec::blocking(move || shard.tune(&request.tuning)).await?
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteAck> {
        self.check_open()?;
        let group = self.group(request.shard)?;
        check_routing(&group, request.collection, request.epoch, None)?;
        self.room.admit(request.op.bytes() as u64)?;
        group.admit()?;
        let is_awaited = publish::is_awaited(&request.op);
        if let Some(publisher) = group.publisher().filter(|_| is_awaited) {
            publisher.admit(request.shard)?;
        }
        let write = LoggedWrite {
            request: request.request,
            part: request.part,
            collection: request.collection,
            epoch: request.epoch,
            op: request.op,
        };
        let started = Instant::now();
        let span = telemetry::shard_write_span(request.shard.0, request.part);
        let mut written = group.write(write, request.deadline).instrument(span.clone()).await;
        if let Ok(ack) = &written {
            span.record("log_index", ack.index.0);
            telemetry::instruments().write.acknowledged(started.elapsed());
        }
        if let (Ok(ack), Some(publisher)) = (&written, group.publisher()) {
            let acknowledged = publisher.acknowledge(&group, ack.clone(), is_awaited, request.deadline);
            written = acknowledged.instrument(span.clone()).await;
        }
        if written.is_err() {
            telemetry::failed(&span);
        }
        written
    }

    async fn search(&self, request: SearchRequest) -> Vec<ShardAnswer<Vec<Vec<ShardHit>>>> {
        read::search(self, request).await
    }

    async fn retrieve(&self, request: RetrieveRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        read::retrieve(self, request).await
    }

    async fn scroll(&self, request: ScrollRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        let ScrollRequest { context, order, limit, filter, parts } = request;
        read::each_shard(self, &context, move |view, patience| {
            view.page(&order, limit, filter.as_deref(), &parts, patience)
        })
        .await
    }

    async fn count(&self, request: CountRequest) -> Vec<ShardAnswer<u64>> {
        let CountRequest { context, filter } = request;
        read::each_shard(self, &context, move |view, patience| {
            view.know_clusters(filter.as_deref(), patience)?;
            view.count(filter.as_deref())
        })
        .await
    }

    async fn facet(&self, request: FacetRequest) -> Vec<ShardAnswer<Vec<FacetCount>>> {
        let FacetRequest { context, key, filter } = request;
        read::each_shard(self, &context, move |view, patience| view.facet(&key, filter.as_deref(), patience)).await
    }

    async fn frequencies(&self, request: FrequencyRequest) -> Vec<ShardAnswer<Frequencies>> {
        let FrequencyRequest { context, vector_name, indices, filter } = request;
        read::each_shard(self, &context, move |view, patience| {
            view.frequencies(&vector_name, &indices, filter.as_deref(), patience)
        })
        .await
    }

    async fn cluster_stats(&self, request: ClusterStatsRequest) -> Vec<ShardAnswer<ClusterStats>> {
        let ClusterStatsRequest { context, map } = request;
        read::each_shard(self, &context, move |view, patience| view.cluster_stats(map, patience)).await
    }

    async fn digest(&self, request: DigestRequest) -> Vec<ShardAnswer<ShardDigest>> {
        read::each_shard(self, &request.context, |view, _| view.digest()).await
    }

    async fn put_map(&self, request: PutMap) -> Result<()> {
        self.check_open()?;
        self.room.admit(request.bytes.len() as u64)?;
        let (maps, collection) = (self.maps().clone(), request.collection);
        exec::blocking(move || maps.put(&request)).await??;
        // Those may be waiting for it that assign rows to clusters.
        self.look_for_work(collection);
        Ok(())
    }

    async fn get_map(&self, digest: MapDigest) -> Result<Bytes> {
        self.check_open()?;
        let maps = self.maps().clone();
        exec::blocking(move || maps.get(digest)).await?
    }

    async fn keep_maps(&self, request: KeepMaps) -> Result<()> {
        self.check_open()?;
        let maps = self.maps().clone();
        exec::blocking(move || maps.keep(&request)).await?
    }

    async fn status(&self) -> Result<NodeStatus> {
        self.check_open()?;
        self.node_status().await
    }
}
