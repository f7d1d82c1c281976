//! What the metadata group says to its members beyond raft's own calls: snapshots, and proposals sent on to the leader.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::SnapshotResponse;
use openraft::type_config::alias::VoteOf;
use serde::{Deserialize, Serialize};
use vicinal_common::raft::{CallError, Link, SnapshotSender, call, decode_request, encode_answer, serve};
use vicinal_common::transport::Handler;

use super::command::{MetaReply, MetaRequest};
use super::raft::{MetaRaft, MetaTypes, Snapshot, SnapshotMeta};

/// Route prefix of the metadata group.
pub const META_PREFIX: &str = "raft/meta";
/// Name of the call that proposes at the leader.
pub(super) const PROPOSE: &str = "propose";

/// Name of the call that asks the leader how far the metadata is agreed on.
pub(super) const READ_INDEX: &str = "read-index";

/// Sends a snapshot as one message: the state is small.
#[derive(Clone)]
pub(super) struct WholeSnapshot;

impl SnapshotSender<MetaTypes> for WholeSnapshot {
    type Data = Bytes;

    async fn send(
        &self,
        link: &Link,
        vote: VoteOf<MetaTypes>,
        snapshot: Snapshot,
        within: Duration,
    ) -> Result<SnapshotResponse<MetaTypes>, CallError> {
        link.call(call::SNAPSHOT, &(vote, snapshot.meta, snapshot.snapshot), within).await
    }
}

/// What proposing at one member came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Proposed {
    /// Applied, at this log index.
    Applied {
        /// The reply.
        reply: MetaReply,
        /// Index of the entry.
        index: u64,
    },
    /// This member does not lead; try the one named, or any again after a pause. The proposal may still be applied.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<u64>,
    },
}

/// Proposes at this member.
pub(super) async fn propose_here(raft: &MetaRaft, request: MetaRequest) -> Result<Proposed, String> {
    match raft.client_write(request).await {
        Ok(written) => Ok(Proposed::Applied { reply: written.data, index: written.log_id.index }),
        Err(RaftError::APIError(
            ClientWriteError::ForwardToLeader(forward) | ClientWriteError::LogEntryDiscarded(forward),
        )) => Ok(Proposed::NotLeader { leader: forward.leader_id }),
        Err(error) => Err(error.to_string()),
    }
}

/// Index of the last entry that was agreed on when this was asked, confirmed with a majority. Only the leader knows.
pub(super) async fn read_index_here(raft: &MetaRaft) -> Result<u64, String> {
    let confirmed = raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map_err(|error| error.to_string())?;
    Ok(confirmed.index())
}

/// Answers the routes of the metadata group.
pub(super) struct MetaHandler {
    pub(super) raft: MetaRaft,
}

#[async_trait]
impl Handler for MetaHandler {
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes> {
        let name = route.strip_prefix(META_PREFIX)?.strip_prefix('/')?;
        let member = *self.raft.node_id();
        match name {
            call::SNAPSHOT => {
                let answer = match decode_request::<(VoteOf<MetaTypes>, SnapshotMeta, Bytes)>(member, &body) {
                    Ok((vote, meta, snapshot)) => {
                        let snapshot = Snapshot { meta, snapshot };
                        self.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string())
                    }
                    Err(error) => Err(error),
                };
                Some(encode_answer(answer))
            }
            PROPOSE => {
                let answer = match decode_request(member, &body) {
                    Ok(request) => propose_here(&self.raft, request).await,
                    Err(error) => Err(error),
                };
                Some(encode_answer(answer))
            }
            READ_INDEX => {
                let answer = match decode_request::<()>(member, &body) {
                    Ok(()) => read_index_here(&self.raft).await,
                    Err(error) => Err(error),
                };
                Some(encode_answer(answer))
            }
            _ => serve(&self.raft, name, &body).await,
        }
    }
}

/// The handler as others hold it.
pub(super) fn handler(raft: MetaRaft) -> Arc<dyn Handler> {
    Arc::new(MetaHandler { raft })
}
