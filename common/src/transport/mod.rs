//! The byte-level seam beneath the raft network and the remote shard API: what carries a request to another process.

pub mod http;
mod local;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use local::LocalTransport;

/// Where a process can be reached: a URL over the wire, `local:<name>` within one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address(pub String);

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The request was certainly not carried out: nobody took it.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(Address, String),
    /// It is not known whether the request was carried out.
    #[error("no answer from {0}: {1}")]
    Unknown(Address, String),
}

/// Sends requests. All of them can be repeated safely (a lost answer is asked for again), so a transport may deliver one
/// twice.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends `body` to `route` of the process at `to` and waits for its answer for at most `timeout`.
    async fn call(&self, to: &Address, route: &str, body: Bytes, timeout: Duration) -> Result<Bytes, TransportError>;
}

/// Answers requests. Errors of the application travel inside the answer.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers `body`, sent to `route`; `None` when there is no such route.
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes>;
}
