//! The cluster's metadata: which nodes, collections, shards and aliases there are. One raft group of the coordinators
//! keeps it; every coordinator holds the whole state in memory.
//!
//! `state`, `command` and `apply` are pure: no clock, no disk, no runtime. The rest is the shell around them.

mod apply;
mod command;
mod state;

pub use command::{AliasChange, CreateCommand, MetaCommand, MetaReply, MetaRequest};
pub use state::{
    COLLECTIONS_MAX, Collection, CollectionState, MetaState, NodeInfo, Operation, OperationId, OperationKind,
    REPLIES_MAX, Shard,
};
