//! The byte-level seam beneath the raft network and the remote shard API: what carries a request to another process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

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

/// Sends requests.
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

/// Carries requests between the parts of one process.
#[derive(Clone, Default)]
pub struct LocalTransport {
    handlers: Arc<RwLock<BTreeMap<Address, Arc<dyn Handler>>>>,
}

impl LocalTransport {
    /// Makes `handler` reachable at `address`, replacing what was there.
    pub fn register(&self, address: Address, handler: Arc<dyn Handler>) {
        self.handlers.write().insert(address, handler);
    }

    /// Makes `address` unreachable.
    pub fn unregister(&self, address: &Address) {
        self.handlers.write().remove(address);
    }
}

#[async_trait]
impl Transport for LocalTransport {
    async fn call(&self, to: &Address, route: &str, body: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let handler = self.handlers.read().get(to).cloned();
        let Some(handler) = handler else {
            return Err(TransportError::Unreachable(to.clone(), "not part of this process".into()));
        };
        match tokio::time::timeout(timeout, handler.handle(route, body)).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(TransportError::Unreachable(to.clone(), format!("no route {route}"))),
            Err(_) => Err(TransportError::Unknown(to.clone(), format!("no answer within {timeout:?}"))),
        }
    }
}
