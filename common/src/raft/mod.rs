//! What both kinds of raft group share, the metadata group of the coordinators and the shard groups of the nodes: who a
//! member is, the timers, and the network over [`crate::transport::Transport`].
//!
//! A group is known by its route prefix, such as `raft/meta` or `raft/shard/17`; a call is the prefix, a slash and one
//! of the [`call`] names. `openraft` appears here, in the shard nodes' `raft` module and in the coordinators' `meta`
//! module only.

mod config;
mod network;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use config::{metadata_config, shard_config};
pub use network::{CallError, GroupConfig, Link, Network, NetworkFactory, SnapshotSender};
pub use serve::serve;
pub use wire::{call, decode_answer, decode_request, encode_answer, encode_request};

use crate::transport::Address;

/// A member of a raft group, as its membership entry names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftNode {
    /// The operator's name for the process.
    pub name: String,
    /// Where it can be reached.
    pub address: Address,
}

impl fmt::Display for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}
