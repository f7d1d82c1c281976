//! The two ends of a snapshot transfer on the raft network.

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
use super::snapshot::{Begin, Chunk, Chunks, Receiver, SnapshotData};

const BEGIN: &str = "snapshot/begin";
const CHUNK: &str = "snapshot/chunk";
const FINISH: &str = "snapshot/finish";

/// Time one step of a transfer may take. A `begin` may have to wait for an installation.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a chunk is sent before the transfer starts over.
const CHUNK_TRIES: usize = 3;

/// Completes a transfer: everything raft wants to know of the snapshot.
#[derive(Serialize, Deserialize)]
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
        let manifest = local.manifest.clone();
        let mut chunks = Chunks::new(self.disk.clone(), local, self.rng.next_u64());
        let transfer = chunks.transfer;
        let (files, last) = (chunks.begin(), snapshot.meta.last_log_id);
        tracing::info!(to = link.target(), files = files.files.len(), position = ?last, "sending a snapshot");
        link.call::<()>(BEGIN, &files, STEP_TIMEOUT).await?;
        loop {
            let read = on_blocking_thread(move || {
                let chunk = chunks.next()?;
                Ok((chunks, chunk))
            });
            let (rest, chunk) = read.await.map_err(|e| CallError::Unreachable(e.to_string()))?;
            chunks = rest;
            match chunk {
                Some(chunk) => send_chunk(link, &chunk).await?,
                None => break,
            }
        }
        link.call(FINISH, &Finish { transfer, vote, meta: snapshot.meta, manifest }, within).await
    }
}

/// Sends a chunk, again if its answer is lost: the receiver knows those it has.
async fn send_chunk(link: &Link, chunk: &Chunk) -> Result<(), CallError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match link.call::<()>(CHUNK, chunk, STEP_TIMEOUT).await {
            Err(CallError::Unknown(_)) if tries < CHUNK_TRIES => continue,
            result => return result,
        }
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
