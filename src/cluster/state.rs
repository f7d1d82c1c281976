//! The state of a cluster as its REST API tells it, and what is wrong with it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Answer of `GET /cluster`, as far as it is shown.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cluster {
    /// Its identity.
    pub(super) cluster: Option<String>,
    /// The coordinator that answered, by its raft identity.
    pub(super) peer_id: u64,
    /// All coordinators.
    pub(super) coordinators: Vec<Coordinator>,
    /// All shard nodes.
    pub(super) nodes: Vec<Node>,
}

/// A coordinator.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Coordinator {
    /// Its name.
    pub(super) id: String,
    /// Its raft identity.
    pub(super) node: u64,
    pub(super) uri: String,
    pub(super) role: String,
    pub(super) reason: Option<String>,
}

/// A shard node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    /// Its name.
    pub(super) id: String,
    pub(super) uri: String,
    pub(super) zone: Option<String>,
    pub(super) state: String,
    pub(super) last_heartbeat_seconds: Option<f64>,
    /// Replicas placed on it.
    pub(super) shards: Option<u64>,
    /// Shards it leads.
    pub(super) leaders: Option<u64>,
    /// Why it takes no writes.
    pub(super) read_only: Option<String>,
    /// Why it is not up.
    pub(super) reason: Option<String>,
}

/// Answer of `GET /collections/{c}/cluster`, as far as it is shown.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Placement {
    /// Its replicas, in order of their shards.
    pub(super) replicas: Vec<Replica>,
}

/// A replica.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Replica {
    pub(super) shard: u64,
    /// The node's name.
    pub(super) node: String,
    pub(super) role: String,
    pub(super) term: Option<u64>,
    pub(super) applied: Option<u64>,
    pub(super) lag: Option<u64>,
    pub(super) points: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) state: String,
    pub(super) reason: Option<String>,
}

/// Everything together.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) cluster: Cluster,
    /// By name: the placement, or why it could not be had.
    pub(super) collections: BTreeMap<String, Result<Placement, String>>,
}

impl Coordinator {
    /// Whether it takes part.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.role.as_str(), "leader" | "follower" | "learner")
    }
}

impl Placement {
    /// Shards that nobody leads.
    pub(super) fn without_leader(&self) -> Vec<u64> {
        let mut shards: Vec<u64> = self.replicas.iter().map(|replica| replica.shard).collect();
        shards.dedup();
        shards.retain(|shard| !self.replicas.iter().any(|replica| replica.shard == *shard && replica.role == "leader"));
        shards
    }
}

impl Picture {
    /// All replicas with the collection they belong to.
    pub(super) fn replicas(&self) -> impl Iterator<Item = (&str, &Replica)> + '_ {
        let known = self.collections.iter().filter_map(|(name, placement)| Some((name, placement.as_ref().ok()?)));
        known.flat_map(|(name, placement)| placement.replicas.iter().map(move |replica| (name.as_str(), replica)))
    }

    /// What is wrong, the worst first; nothing when the cluster is healthy.
    pub(super) fn problems(&self) -> Vec<String> {
        let because = |reason: &Option<String>| reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let mut problems = Vec::new();
        let coordinators = &self.cluster.coordinators;
        if !coordinators.iter().any(|one| one.role == "leader") {
            problems.push("the coordinators have no leader: metadata cannot change".to_owned());
        }
        for (name, placement) in &self.collections {
            match placement {
                Err(error) => problems.push(format!("collection {name}: {error}")),
                Ok(placement) => problems.extend(
                    placement
                        .without_leader()
                        .into_iter()
                        .map(|shard| format!("collection {name}: shard {shard} has no leader, it takes no writes")),
                ),
            }
        }
        for one in coordinators.iter().filter(|one| !one.is_up()) {
            problems.push(format!("coordinator {} is {}{}", one.id, one.role, because(&one.reason)));
        }
        for node in &self.cluster.nodes {
            if node.state != "up" {
                problems.push(format!("node {} is {}{}", node.id, node.state, because(&node.reason)));
            }
            if let Some(reason) = &node.read_only {
                problems.push(format!("node {} takes no writes: {reason}", node.id));
            }
        }
        // A node that is down explains its replicas.
        let is_explained = |replica: &Replica| replica.state == "unreachable";
        for (name, replica) in self.replicas().filter(|(_, one)| one.state != "active" && !is_explained(one)) {
            let state = replica.state.replace('_', " ");
            let place = format!("collection {name}: replica of shard {} on {}", replica.shard, replica.node);
            problems.push(format!("{place} is {state}{}", because(&replica.reason)));
        }
        let explained = self.replicas().filter(|(_, one)| is_explained(one)).count();
        if explained > 0 && problems.is_empty() {
            problems.push(format!("{explained} replicas are unreachable"));
        }
        problems
    }

    /// The first line: how many of everything are as they should be.
    pub(super) fn verdict(&self) -> String {
        let coordinators = &self.cluster.coordinators;
        let nodes = &self.cluster.nodes;
        let health = if self.problems().is_empty() { "healthy" } else { "degraded" };
        format!(
            "{health}: {} of {} coordinators, {} of {} nodes, {} of {} replicas active",
            coordinators.iter().filter(|one| one.is_up()).count(),
            coordinators.len(),
            nodes.iter().filter(|node| node.state == "up").count(),
            nodes.len(),
            self.replicas().filter(|(_, replica)| replica.state == "active").count(),
            self.replicas().count(),
        )
    }
}
