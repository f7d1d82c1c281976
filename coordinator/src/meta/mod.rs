//! The cluster's metadata: which nodes, collections, shards and aliases there are. One raft group of the coordinators
//! keeps it; every coordinator holds the whole state in memory.
//!
//! `state`, `command` and `apply` are pure: no clock, no disk, no runtime. The rest is the shell around them.

mod apply;
mod catalog;
mod change;
mod clusters;
mod collections;
mod command;
mod disk_store;
mod greet;
mod identity;
mod learners;
#[cfg(test)]
mod machine;
mod maps;
mod membership;
mod network;
mod nodes;
mod opening;
mod quorum;
mod raft;
mod raft_log;
mod routing;
mod sled_store;
mod state;
mod store;
mod strict;
mod writer;

#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod store_tests;

pub use catalog::{Catalog, GroupStatus};
pub use change::CollectionChange;
pub(crate) use change::{check_metadata_size, is_single};
pub use clusters::{Clustering, ClusteringWish};
pub use collections::CreateCollection;
pub use command::{AliasChange, BeginMap, CreateCommand, MetaCommand, MetaReply, MetaRequest};
pub use disk_store::DiskStore;
pub use identity::Founding;
pub use maps::MAP_STEPS;
pub use network::META_PREFIX;
pub(crate) use nodes::replaced;
pub use opening::{CatalogOptions, Loaded};
pub use routing::{ClusterRouting, ClusterSettings, Measured, RoutingChange, ServedMap, Trained, Verdict};
pub use sled_store::SledStore;
pub use state::{
    ALIASES_MAX, COLLECTIONS_MAX, Collection, CollectionState, MetaState, NodeInfo, Operation, OperationId,
    OperationKind, REPLIES_MAX, Registration, Routing, Shard, StrictMode,
};
pub use store::{Change, MetaStore, Record, Stored};
pub use strict::{MultivectorLimits, SparseLimits};
