//! Requests between the parts of one process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use super::{Address, Handler, Transport, TransportError};

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
