//! The calls of a scatter to nodes: what is sent, what is under way, what is waited for.

use vicinal_common::api::ReadContext;
use vicinal_common::consistency::Consistency;
use vicinal_common::ids::{NodeId, ShardId};

use crate::shard_client::Ticket;

/// A call to send.
pub(super) struct Call {
    pub(super) attempt: u64,
    pub(super) node: NodeId,
    pub(super) context: ReadContext,
    /// Whether it repeats one that is under way and slow.
    pub(super) is_hedge: bool,
}

/// Why a call is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    First,
    /// Another one failed or is late.
    Retry,
    /// Another one is slower than usual.
    Hedge,
}

/// A call under way.
pub(super) struct Attempt {
    pub(super) node: NodeId,
    pub(super) shards: Vec<ShardId>,
    pub(super) reason: Reason,
    pub(super) consistency: Consistency,
    pub(super) ticket: Ticket,
    pub(super) is_overdue: bool,
}

/// What a scatter waits for beside answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// An attempt is slower than usual.
    Hedge(u64),
    /// An attempt is late.
    Overdue(u64),
    /// A shard is asked again.
    Again(ShardId),
}
