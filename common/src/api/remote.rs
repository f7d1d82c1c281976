//! A shard node in another process: [`ShardApi`] over a [`Transport`].

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::api::wire::{DropReplica, GetMap, Operation, Request, Status, decode_answer, encode_request};
use crate::api::{
    ChangeMembers, ClusterStats, ClusterStatsRequest, CountRequest, DigestRequest, FacetCount, FacetRequest,
    FoundGroup, Frequencies, FrequencyRequest, KeepMaps, MembersChange, NodeStatus, PutMap, ReadContext, ReplicaSpec,
    RetrieveRequest, ScrollRequest, SearchRequest, ShardAnswer, ShardApi, ShardDigest, ShardHit, StoredPoint, Tune,
    WriteAck, WriteRequest,
};
use crate::error::{Error, Result};
use crate::ids::{LogIndex, MapDigest, NodeId, ShardId};
use crate::transport::{Address, Transport, TransportError};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

/// Time a control request may take. Creating and dropping replicas wait for the disk.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after the deadline an answer may still arrive: the node keeps the deadline itself, and what it says then
/// (which shards did answer) is worth more than silence.
const GRACE: Duration = Duration::from_millis(200);

/// A shard node behind an address. Requests name the node they are meant for: another process that was given the
/// address refuses them.
pub struct RemoteNode {
    node: NodeId,
    address: Address,
    transport: Arc<dyn Transport>,
}

impl RemoteNode {
    /// The node `node`, reached at `address` through `transport`.
    pub fn new(node: NodeId, address: Address, transport: Arc<dyn Transport>) -> RemoteNode {
        RemoteNode { node, address, transport }
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        &self.address
    }

    async fn call<R: Request>(&self, request: &R) -> Result<R::Answer> {
        let deadline = request.deadline().unwrap_or_else(|| Instant::now() + CONTROL_TIMEOUT);
        let within = deadline.saturating_duration_since(Instant::now());
        if within.is_zero() {
            return Err(Error::Timeout(format!("no time was left to ask node {}", self.node)));
        }
        let frame = encode_request(self.node, within, request)?;
        let answer = self.transport.call(&self.address, R::OPERATION.route(), frame, within + GRACE).await;
        decode_answer::<R>(&answer.map_err(|error| self.failure(R::OPERATION, error, deadline))?)
    }

    /// What the caller should make of a call without an answer. Whoever asks again does so safely (writes carry their
    /// request id), so a broken connection is no reason to stop before the deadline.
    fn failure(&self, operation: Operation, error: TransportError, deadline: Instant) -> Error {
        let node = self.node;
        match error {
            TransportError::Unreachable(..) => Error::Unavailable(format!("node {node} cannot be reached ({error})")),
            TransportError::Unknown(..) if Instant::now() >= deadline => {
                Error::Timeout(format!("node {node} did not answer in time ({error})"))
            }
            TransportError::Unknown(..) => Error::Unavailable(format!(
                "the connection to node {node} broke during a {operation} request, which it may have carried out \
                 ({error})"
            )),
        }
    }

    /// A read: without an answer of the node each shard asked is answered with the reason.
    async fn read<T, R: Request<Answer = Vec<ShardAnswer<T>>>>(
        &self,
        request: &R,
        context: &ReadContext,
    ) -> Vec<ShardAnswer<T>> {
        self.call(request).await.unwrap_or_else(|error| {
            let missing = |&(shard, _): &(ShardId, LogIndex)| {
                let result = Err(error.clone());
                ShardAnswer { shard, applied: LogIndex(0), result }
            };
            context.shards.iter().map(missing).collect()
        })
    }
}

#[async_trait]
impl ShardApi for RemoteNode {
    async fn create_replica(&self, spec: ReplicaSpec) -> Result<()> {
        self.call(&spec).await
    }

    async fn found_group(&self, request: FoundGroup) -> Result<()> {
        self.call(&request).await
    }

    async fn change_members(&self, request: ChangeMembers) -> Result<MembersChange> {
        self.call(&request).await
    }

    async fn drop_replica(&self, shard: ShardId) -> Result<()> {
        self.call(&DropReplica(shard)).await
    }

    async fn tune(&self, request: Tune) -> Result<()> {
        self.call(&request).await
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteAck> {
        self.call(&request).await
    }

    async fn search(&self, request: SearchRequest) -> Vec<ShardAnswer<Vec<Vec<ShardHit>>>> {
        self.read(&request, &request.context).await
    }

    async fn retrieve(&self, request: RetrieveRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        self.read(&request, &request.context).await
    }

    async fn scroll(&self, request: ScrollRequest) -> Vec<ShardAnswer<Vec<StoredPoint>>> {
        self.read(&request, &request.context).await
    }

    async fn count(&self, request: CountRequest) -> Vec<ShardAnswer<u64>> {
        self.read(&request, &request.context).await
    }

    async fn facet(&self, request: FacetRequest) -> Vec<ShardAnswer<Vec<FacetCount>>> {
        self.read(&request, &request.context).await
    }

    async fn frequencies(&self, request: FrequencyRequest) -> Vec<ShardAnswer<Frequencies>> {
        self.read(&request, &request.context).await
    }

    async fn cluster_stats(&self, request: ClusterStatsRequest) -> Vec<ShardAnswer<ClusterStats>> {
        self.read(&request, &request.context).await
    }

    async fn digest(&self, request: DigestRequest) -> Vec<ShardAnswer<ShardDigest>> {
        self.read(&request, &request.context).await
    }

    async fn put_map(&self, request: PutMap) -> Result<()> {
        self.call(&request).await
    }

    async fn get_map(&self, digest: MapDigest) -> Result<Bytes> {
        self.call(&GetMap(digest)).await
    }

    async fn keep_maps(&self, request: KeepMaps) -> Result<()> {
        self.call(&request).await
    }

    async fn status(&self) -> Result<NodeStatus> {
        self.call(&Status).await
    }
}
