//! The two ends of a snapshot transfer on the raft network.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};
use vicinal_common::raft::{CallError, Link, SnapshotSender, decode_request, encode_answer};
use vicinal_common::rng::Rng;

use super::command::{ShardRaft, SnapshotMeta, Vote};
use super::group::Raft;
use super::machine::{Snapshot, on_blocking_thread};
use super::snapshot::{Begin, Chunk, Chunks, Progress, Receiver, SnapshotData};
use crate::shard::ShardSnapshot;

const BEGIN: &str = "snapshot/begin";
const CHUNK: &str = "snapshot/chunk";
const FINISH: &str = "snapshot/finish";

/// Time one step of a transfer may take. A `begin` may have to wait for an installation.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often in a row a transfer is taken up again without getting any further.
const RESUMES_MAX: u32 = 5;
/// Pause before it is taken up again; doubled each time that it got no further.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// Completes a transfer: everything raft wants to know of the snapshot.
#[derive(Clone, Serialize, Deserialize)]
struct Finish {
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    manifest: Bytes,
}

/// Sends a shard's snapshot as files.
#[derive(Clone)]
pub(super) struct FileSender {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) rng: Arc<dyn Rng>,
}

impl SnapshotSender<ShardRaft> for FileSender {
    type Data = SnapshotData;

    async fn send(
        &self,
        link: &Link,
        vote: Vote,
        snapshot: Snapshot,
        within: Duration,
    ) -> Result<SnapshotResponse<ShardRaft>, CallError> {
        let SnapshotData::Local(local) = snapshot.snapshot else {
            return Err(CallError::Unreachable("a received snapshot is installed, never sent on".into()));
        };
        let finish = Finish { transfer: 0, vote, meta: snapshot.meta, manifest: local.manifest.clone() };
        tracing::info!(
            to = link.target(), files = local.files.len(), position = ?finish.meta.last_log_id, "sending a snapshot"
        );
        let mut furthest = Progress::default();
        let mut resumes = 0;
        // Ends: each round gets further than all before it, or is counted.
        loop {
            let mut at = Progress::default();
            let error = match self.attempt(link, local.clone(), &finish, within, &mut at).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if at > furthest {
                (furthest, resumes) = (at, 0);
            }
            // A receiver that answers knows best why it cannot go on; only a connection is worth another try.
            if resumes == RESUMES_MAX || matches!(error, CallError::Remote { .. }) {
                return Err(error);
            }
            tokio::time::sleep(RESUME_PAUSE * 2u32.pow(resumes)).await;
            resumes += 1;
            tracing::info!(to = link.target(), error = %error, ?at, "taking up a snapshot transfer again");
        }
    }
}

impl FileSender {
    /// Sends what the receiver still misses. `at` is how far it got, whatever comes of it.
    async fn attempt(
        &self,
        link: &Link,
        snapshot: Arc<ShardSnapshot>,
        finish: &Finish,
        within: Duration,
        at: &mut Progress,
    ) -> Result<SnapshotResponse<ShardRaft>, CallError> {
        let here = |error: Error| CallError::Unreachable(error.to_string());
        let transfer = self.rng.next_u64();
        let mut chunks = Chunks::new(self.disk.clone(), snapshot, transfer);
        *at = link.call(BEGIN, &chunks.begin(), STEP_TIMEOUT).await?;
        chunks.seek(*at).map_err(here)?;
        loop {
            let read = on_blocking_thread(move || {
                let chunk = chunks.next()?;
                Ok((chunks, chunk))
            });
            let (rest, chunk) = read.await.map_err(here)?;
            chunks = rest;
            let Some(chunk) = chunk else { break };
            link.call::<()>(CHUNK, &chunk, STEP_TIMEOUT).await?;
            *at = Progress { file: chunk.file, offset: chunk.offset + chunk.bytes.len() as u64 };
        }
        link.call(FINISH, &Finish { transfer, ..finish.clone() }, within).await
    }
}

/// Answers the calls of a transfer; `None` when `name` is not one of them.
pub(super) async fn serve_transfer(receiver: &Receiver, raft: &Raft, name: &str, body: &[u8]) -> Option<Bytes> {
    let member = *raft.node_id();
    Some(match name {
        BEGIN => answer(async { receiver.begin(request::<Begin>(member, body)?).await }.await),
        CHUNK => answer(async { receiver.chunk(request::<Chunk>(member, body)?).await }.await),
        FINISH => answer(async { install(receiver, raft, request::<Finish>(member, body)?).await }.await),
        _ => return None,
    })
}

fn request<T: DeserializeOwned>(member: u64, body: &[u8]) -> Result<T> {
    decode_request(member, body).map_err(Error::BadInput)
}

fn answer<T: Serialize>(result: Result<T>) -> Bytes {
    encode_answer(result.map_err(|e| e.to_string()))
}

async fn install(receiver: &Receiver, raft: &Raft, finish: Finish) -> Result<SnapshotResponse<ShardRaft>> {
    let snapshot = receiver.finish(finish.transfer, finish.manifest).await?;
    let snapshot = Snapshot { meta: finish.meta, snapshot };
    let installed = raft.install_full_snapshot(finish.vote, snapshot).await;
    installed.map_err(|e| Error::Unavailable(format!("install a snapshot: {e}")))
}
