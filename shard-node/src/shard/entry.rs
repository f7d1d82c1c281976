//! What the shard is given to apply: entries of its raft log, and what became of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vicinal_common::api::{Effect, WriteOp};
use vicinal_common::error::Error;
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, RequestId};

/// A position in the raft log: its index for ordering, its whole identity as the raft side encoded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// Log index.
    pub index: LogIndex,
    /// Raft's log id, opaque here.
    pub encoded: Bytes,
}

/// A client's write as the raft log holds it (postcard).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedWrite {
    /// Identity of the client's write.
    pub request: RequestId,
    /// Part of the client's write within this shard: `(request, part)` is applied at most once.
    pub part: u32,
    /// The collection the write is meant for.
    pub collection: CollectionId,
    /// The token table it was routed by.
    pub epoch: Epoch,
    /// What to do.
    pub op: WriteOp,
}

/// What an entry asks of the shard.
#[derive(Clone, Debug)]
pub enum EntryPayload {
    /// Nothing: only the position moves.
    Blank,
    /// A new membership of the raft group, opaque here.
    Membership(Bytes),
    /// A client's write.
    Write(LoggedWrite),
}

/// One committed entry.
#[derive(Clone, Debug)]
pub struct ApplyEntry {
    /// Where it stands in the log.
    pub mark: LogMark,
    /// What it asks.
    pub payload: EntryPayload,
}

/// What the write did, or why it was refused. Equal on every replica.
pub type ApplyOutcome = Result<Effect, Error>;

/// What became of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Log index of the entry, or of its first application when it was a retry.
    pub index: LogIndex,
    /// Its outcome. Nothing for blank and membership entries.
    pub outcome: ApplyOutcome,
}
