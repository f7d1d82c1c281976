//! What the shard nodes say of themselves at this moment, all asked at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};
use vicinal_common::api::{NodeStatus, ReplicaRole};
use vicinal_common::ids::NodeId;

use crate::Coordinator;
use crate::meta::{MetaState, NodeInfo};

/// Longest wait for one node: what has not answered by then is shown as unreachable.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// One look at the shard nodes.
pub(in crate::http) struct Survey {
    /// The metadata it goes by.
    pub(in crate::http) state: Arc<MetaState>,
    /// The registered nodes.
    pub(in crate::http) nodes: BTreeMap<NodeId, SeenNode>,
}

/// A registered node and its answer.
pub(in crate::http) struct SeenNode {
    /// What the metadata knows of it.
    pub(in crate::http) info: NodeInfo,
    /// Its own words, or why there are none.
    pub(in crate::http) status: Result<NodeStatus, String>,
}

impl Survey {
    /// Asks every registered node, until `deadline` at most.
    pub(in crate::http) async fn take(coordinator: &Coordinator, deadline: Instant) -> Survey {
        let state = coordinator.catalog.state();
        let deadline = deadline.min(Instant::now() + ANSWER_TIME_MAX);
        let asked = state.nodes.iter().map(|(node, info)| async move {
            let status = match coordinator.shards.nodes.get(*node) {
                None => Err("this coordinator has not heard of it since it started".to_owned()),
                Some(api) => match timeout_at(deadline, api.status()).await {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err("it does not answer".to_owned()),
                },
            };
            (*node, SeenNode { info: info.clone(), status })
        });
        let nodes = join_all(asked).await.into_iter().collect();
        Survey { state, nodes }
    }

    /// What people call a node; its identity when the metadata has forgotten it.
    pub(in crate::http) fn name(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| node.to_string(), |seen| seen.info.name.clone())
    }
}

impl SeenNode {
    /// Shards it leads, as far as it knows.
    pub(in crate::http) fn leaders(&self) -> Option<usize> {
        let status = self.status.as_ref().ok()?;
        Some(status.replicas.iter().filter(|replica| replica.role == ReplicaRole::Leader).count())
    }
}
