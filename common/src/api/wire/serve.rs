//! The receiving side: a request's frame in, the frame of what a [`ShardApi`] answers out.

use std::future::Future;

use bytes::Bytes;
use futures::FutureExt;

use super::{DropReplica, GetMap, Operation, Request, Status, decode_request, encode_answer};
use crate::api::{
    ChangeMembers, ClusterStatsRequest, CountRequest, DigestRequest, FacetRequest, FoundGroup, FrequencyRequest,
    KeepMaps, PutMap, ReplicaSpec, RetrieveRequest, ScrollRequest, SearchRequest, ShardApi, Tune, WriteRequest,
};
use crate::error::Result;
use crate::ids::NodeId;

/// Has `api`, which is node `node`, carry out the request in `frame`. What cannot be read, is meant for another node or
/// has no time left is refused without being begun.
pub async fn serve(api: &dyn ShardApi, node: NodeId, operation: Operation, frame: &Bytes) -> Bytes {
    match operation {
        Operation::CreateReplica => answer(node, frame, |request: ReplicaSpec| api.create_replica(request)).await,
        Operation::FoundGroup => answer(node, frame, |request: FoundGroup| api.found_group(request)).await,
        Operation::ChangeMembers => answer(node, frame, |request: ChangeMembers| api.change_members(request)).await,
        Operation::DropReplica => answer(node, frame, |request: DropReplica| api.drop_replica(request.0)).await,
        Operation::Write => answer(node, frame, |request: WriteRequest| api.write(request)).await,
        Operation::Search => answer(node, frame, |request: SearchRequest| api.search(request).map(Ok)).await,
        Operation::Retrieve => answer(node, frame, |request: RetrieveRequest| api.retrieve(request).map(Ok)).await,
        Operation::Scroll => answer(node, frame, |request: ScrollRequest| api.scroll(request).map(Ok)).await,
        Operation::Count => answer(node, frame, |request: CountRequest| api.count(request).map(Ok)).await,
        Operation::Digest => answer(node, frame, |request: DigestRequest| api.digest(request).map(Ok)).await,
        Operation::Tune => answer(node, frame, |request: Tune| api.tune(request)).await,
        Operation::Facet => answer(node, frame, |request: FacetRequest| api.facet(request).map(Ok)).await,
        Operation::Frequencies => {
            answer(node, frame, |request: FrequencyRequest| api.frequencies(request).map(Ok)).await
        }
        Operation::ClusterStats => {
            answer(node, frame, |request: ClusterStatsRequest| api.cluster_stats(request).map(Ok)).await
        }
        Operation::PutMap => answer(node, frame, |request: PutMap| api.put_map(request)).await,
        Operation::GetMap => answer(node, frame, |request: GetMap| api.get_map(request.0)).await,
        Operation::KeepMaps => answer(node, frame, |request: KeepMaps| api.keep_maps(request)).await,
        Operation::Status => answer(node, frame, |_: Status| api.status()).await,
    }
}

async fn answer<R: Request, F: Future<Output = Result<R::Answer>>>(
    node: NodeId,
    frame: &Bytes,
    carry_out: impl FnOnce(R) -> F,
) -> Bytes {
    let answer = match decode_request::<R>(node, frame) {
        Ok(request) => carry_out(request).await,
        Err(refusal) => Err(refusal),
    };
    encode_answer::<R>(&answer)
}
