//! What the shard nodes say of themselves at this moment, all asked at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};
use vicinal_common::api::{NodeStatus, ReplicaRole};
use vicinal_common::error::Error;
use vicinal_common::ids::NodeId;

use crate::Coordinator;
use crate::members::Liveness;
use crate::meta::{MetaState, NodeInfo};

/// Longest wait for one node: what has not answered by then is shown as unreachable.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

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
    liveness: Liveness,
    /// How long ago its last sign of life was.
    pub(in crate::http) silent: Option<Duration>,
}

impl Survey {
    /// Asks every registered node that may be alive, until `deadline` at most.
    pub(in crate::http) async fn take(coordinator: &Coordinator, deadline: Instant) -> Survey {
        let state = coordinator.catalog.state();
        let deadline = deadline.min(Instant::now() + ANSWER_TIME_MAX);
        let asked = state.nodes.iter().map(|(node, info)| async move {
            let liveness = coordinator.members.liveness(*node);
            let silent = coordinator.members.seen(*node).map(|seen| seen.at.elapsed());
            let status = match (liveness, coordinator.shards.nodes.get(*node)) {
                (Liveness::Down, _) => Err(silence(silent)),
                (_, None) => Err("this coordinator knows no way to it yet".to_owned()),
                (_, Some(api)) => match timeout_at(deadline, api.status()).await {
                    Ok(answer) => answer.map_err(|error| brief(&error)),
                    Err(_) => Err("it does not answer".to_owned()),
                },
            };
            (*node, SeenNode { info: info.clone(), status, liveness, silent })
        });
        let nodes = join_all(asked).await.into_iter().collect();
        Survey { state, nodes }
    }

    /// What people call a node; its identity when the metadata has forgotten it.
    pub(in crate::http) fn name(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| node.to_string(), |seen| seen.info.name.clone())
    }
}

/// An error without what libraries add to it, for a cell of a table: the log has the whole.
pub(super) fn brief(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("Service unavailable: ").unwrap_or(&text);
    let ends = [" (", ": error sending request", ": no answer within"];
    let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    text[..end].to_owned()
}

fn silence(silent: Option<Duration>) -> String {
    match silent {
        Some(silent) => format!("it has given no sign of life for {} s", silent.as_secs()),
        None => "it has given no sign of life since this coordinator started".to_owned(),
    }
}

impl SeenNode {
    /// How it is, in a word.
    pub(in crate::http) fn state(&self) -> &'static str {
        match (self.liveness, &self.status) {
            _ if self.info.replaced_by.is_some() => "replaced",
            (Liveness::Down, _) => "down",
            (Liveness::Leaving, _) => "leaving",
            (Liveness::Suspect, _) | (Liveness::Up | Liveness::Unknown, Err(_)) => "suspect",
            (Liveness::Up | Liveness::Unknown, Ok(_)) => "up",
        }
    }

    /// Why it is not up, if it is not.
    pub(in crate::http) fn reason(&self) -> Option<String> {
        if self.info.replaced_by.is_some() {
            return Some("its data is gone; its replicas move to the node that took its name".to_owned());
        }
        if self.liveness == Liveness::Leaving {
            return Some("it has said that it is shutting down".to_owned());
        }
        self.status.as_ref().err().cloned()
    }

    /// Shards it leads, as far as it knows.
    pub(in crate::http) fn leaders(&self) -> Option<usize> {
        let status = self.status.as_ref().ok()?;
        Some(status.replicas.iter().filter(|replica| replica.role == ReplicaRole::Leader).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_into_a_table() {
        let long = "node 7 cannot be reached (error sending request for url (http://a/b): refused (os error 111))";
        assert_eq!(brief(&Error::Unavailable(long.into())), "node 7 cannot be reached");
        let long = "http://a:1 cannot be reached: error sending request for url (http://a:1/internal/cluster/greet)";
        assert_eq!(brief(&Error::Unavailable(long.into())), "http://a:1 cannot be reached");
        assert_eq!(brief(&Error::Unavailable("the node is stopping".into())), "the node is stopping");
    }
}
