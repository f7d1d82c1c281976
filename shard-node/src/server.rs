//! The node's side of the wire: what other processes send to it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use vicinal_common::api::wire::{self, Operation};
use vicinal_common::transport::Handler;

use crate::node::ShardNode;

/// Answers everything that may be sent to a shard node: the shard API of coordinators, and raft calls of other nodes.
#[derive(Clone)]
pub struct NodeHandler {
    node: Arc<ShardNode>,
}

impl NodeHandler {
    /// The handler of this node.
    pub fn new(node: Arc<ShardNode>) -> NodeHandler {
        NodeHandler { node }
    }
}

#[async_trait]
impl Handler for NodeHandler {
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes> {
        match Operation::from_route(route) {
            Some(operation) => Some(wire::serve(self.node.as_ref(), self.node.id(), operation, &body).await),
            None => self.node.handle(route, body).await,
        }
    }
}
