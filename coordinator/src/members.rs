//! Which shard nodes are alive, as this coordinator hears it from them. Never in metadata: every coordinator hears for
//! itself, and forgets when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;
use vicinal_common::api::NodeStatus;
use vicinal_common::ids::NodeId;

/// Without a sign of life for this long a node is suspect: asked last. Four missed signs.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(2);
/// Without a sign of life for this long a node counts as down: nothing new is placed on it, and another process may take
/// over its name.
pub const DOWN_AFTER: Duration = Duration::from_secs(4);

/// How a node is, as far as its signs of life tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Heard of lately, or part of this process.
    Up,
    /// Not heard of for a little while.
    Suspect,
    /// Not heard of for a while.
    Down,
    /// It said that it is shutting down.
    Leaving,
    /// Not heard of since this coordinator started, which is too short ago to say more.
    Unknown,
}

/// What a node said last.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Whether it said that it is shutting down.
    pub leaving: bool,
    /// How it was.
    pub status: Arc<NodeStatus>,
}

/// Signs of life by node.
pub struct Members {
    seen: RwLock<BTreeMap<NodeId, Seen>>,
    started: Instant,
    /// The nodes are part of this process: there are no signs of life, and no need of any.
    is_local: bool,
}

impl Members {
    /// Nobody heard of yet.
    pub fn new() -> Members {
        Members { seen: RwLock::default(), started: Instant::now(), is_local: false }
    }

    /// For nodes that live and die with this process.
    pub fn local() -> Members {
        Members { is_local: true, ..Members::new() }
    }

    /// Notes a sign of life.
    pub fn heard(&self, node: NodeId, status: NodeStatus, leaving: bool) {
        let seen = Seen { at: Instant::now(), leaving, status: Arc::new(status) };
        self.seen.write().insert(node, seen);
    }

    /// What `node` said last, if it said anything since this coordinator started.
    pub fn seen(&self, node: NodeId) -> Option<Seen> {
        self.seen.read().get(&node).cloned()
    }

    /// How `node` is.
    pub fn liveness(&self, node: NodeId) -> Liveness {
        self.liveness_at(node, Instant::now())
    }

    fn liveness_at(&self, node: NodeId, now: Instant) -> Liveness {
        if self.is_local {
            return Liveness::Up;
        }
        let seen = self.seen.read();
        let (silent, leaving) = match seen.get(&node) {
            Some(seen) => (now.saturating_duration_since(seen.at), seen.leaving),
            None if now.saturating_duration_since(self.started) < DOWN_AFTER => return Liveness::Unknown,
            None => (DOWN_AFTER, false),
        };
        match () {
            () if silent >= DOWN_AFTER => Liveness::Down,
            () if leaving => Liveness::Leaving,
            () if silent >= SUSPECT_AFTER => Liveness::Suspect,
            () => Liveness::Up,
        }
    }

    /// Whether something new may be placed on `node`.
    pub fn may_take_more(&self, node: NodeId) -> bool {
        match self.liveness(node) {
            Liveness::Up | Liveness::Suspect | Liveness::Unknown => true,
            Liveness::Down | Liveness::Leaving => false,
        }
    }

    /// Forgets nodes that are not `known`, which bounds the table by the number of nodes.
    pub fn retain(&self, known: impl Fn(NodeId) -> bool) {
        self.seen.write().retain(|node, _| known(*node));
    }
}

impl Default for Members {
    fn default() -> Members {
        Members::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_makes_a_node_suspect_and_then_down() {
        let members = Members::new();
        let status = |node| NodeStatus { node, replicas: Vec::new(), read_only: None, maps: Vec::new() };
        let (a, b) = (NodeId(1), NodeId(2));
        assert_eq!(members.liveness(a), Liveness::Unknown, "it may be heard of any moment");
        members.heard(a, status(a), false);
        let at = |node, after| members.liveness_at(node, Instant::now() + after);
        assert_eq!(at(a, Duration::ZERO), Liveness::Up);
        assert_eq!(at(a, SUSPECT_AFTER), Liveness::Suspect);
        assert_eq!((at(a, DOWN_AFTER), at(b, DOWN_AFTER)), (Liveness::Down, Liveness::Down));
        assert!(members.may_take_more(a));
        members.heard(a, status(a), true);
        assert_eq!(members.liveness(a), Liveness::Leaving);
        assert!(!members.may_take_more(a));
        assert_eq!(Members::local().liveness(b), Liveness::Up);
        members.retain(|_| false);
        assert!(members.seen(a).is_none());
    }
}
