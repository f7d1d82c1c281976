//! What a shard's raft log carries and answers: the type configuration of the shard groups.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vicinal_common::api::Effect;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;
use vicinal_common::raft::RaftNode;

use crate::shard::{Applied, LogMark, LoggedWrite};

openraft::declare_raft_types!(
    /// The raft groups of shards.
    pub(super) ShardRaft:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = RaftNode,
);

pub(super) type Entry = openraft::type_config::alias::EntryOf<ShardRaft>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<ShardRaft>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<ShardRaft>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<ShardRaft>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<ShardRaft>;
pub(super) type Membership = openraft::Membership<u64, RaftNode>;

/// A write on its way through the log. Cheap to clone: raft keeps several copies of an entry at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Command(pub(super) Arc<LoggedWrite>);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {} part {}", self.0.request, self.0.part)
    }
}

impl Command {
    /// About how many bytes the write holds in memory; exact sizes do not matter to those who ask.
    pub(super) fn weight(&self) -> usize {
        // Evaluated over all points of the shard: always counts as a large piece of work.
        self.0.op.bytes() + if self.0.op.scans() { BIG_WEIGHT } else { 0 }
    }
}

/// From this weight on, applying a batch leaves the async threads.
pub(super) const BIG_WEIGHT: usize = 256 * 1024;

/// What applying an entry answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply {
    /// Log index of the first application, should this be a retry.
    pub(super) index: LogIndex,
    /// What it did, or why the write was refused when it was applied.
    pub(super) outcome: Result<Effect>,
}

impl From<Applied> for Reply {
    fn from(applied: Applied) -> Reply {
        Reply { index: applied.index, outcome: applied.outcome }
    }
}

/// First byte of everything encoded here: a later layout gets another one.
const VERSION: u8 = 2;

/// Encodes with the version byte in front.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    postcard::to_extend(value, vec![VERSION])
        .map(Bytes::from)
        .map_err(|e| Error::Internal(format!("encode a raft record: {e}")))
}

/// Decodes what [`encode`] wrote. `Corrupt` for anything else: the bytes passed a checksum, so they were written so.
pub(super) fn decode<T: for<'a> Deserialize<'a>>(what: &str, bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|e| Error::Corrupt(format!("{what} in the shard log: {e}")))
        }
        Some((&version, _)) => Err(Error::Corrupt(format!(
            "{what} in the shard log has format version {version}, this program reads version {VERSION}: it was \
             written by another version of it"
        ))),
        None => Err(Error::Corrupt(format!("{what} in the shard log is empty"))),
    }
}

/// The engine's view of a raft position.
pub(super) fn mark_of(id: &LogId) -> Result<LogMark> {
    Ok(LogMark { index: LogIndex(id.index), encoded: encode(id)? })
}

/// The raft position of an engine's mark.
pub(super) fn log_id_of(mark: &LogMark) -> Result<LogId> {
    let id: LogId = decode("log position", &mark.encoded)?;
    if id.index != mark.index.0 {
        let (stored, expected) = (id.index, mark.index);
        return Err(Error::Corrupt(format!("a log position says {stored} where {expected} was expected")));
    }
    Ok(id)
}
