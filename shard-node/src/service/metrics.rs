//! What `GET /metrics` shows of a node and its replicas, looked up when somebody asks.

use async_trait::async_trait;
use vicinal_common::api::{BuildStatus, ReplicaRole, ReplicaStatus};
use vicinal_common::telemetry::{Page, Source, names};

use crate::node::ShardNode;

#[async_trait]
impl Source for ShardNode {
    async fn collect(&self, page: &mut Page) {
        let node = self.name();
        page.set(&names::NODE_INFO, &[node, &self.id().to_string()], 1.0);
        let log = self.log_stats();
        page.set(&names::LOG_FILES, &[node], log.files as f64);
        page.set(&names::LOG_BYTES, &[node], log.bytes as f64);
        page.set(&names::LOG_QUEUED_BYTES, &[node], log.queued_bytes as f64);
        page.set(&names::LOG_STOPPED, &[node], flag(log.poisoned.is_some()));
        // It fails only while the process ends.
        let Ok(status) = self.node_status().await else { return };
        page.set(&names::NODE_WRITABLE, &[node], flag(status.read_only.is_none()));
        for replica in &status.replicas {
            show(page, node, replica);
        }
    }
}

fn show(page: &mut Page, node: &str, replica: &ReplicaStatus) {
    let (collection, shard) = (replica.collection.to_string(), replica.shard.to_string());
    let labels = [node, &collection, &shard];
    page.set(&names::SHARD_POINTS, &labels, replica.points as f64);
    page.count(&names::SHARD_SEARCHES, &labels, replica.searches);
    page.set(&names::SHARD_INDEXED, &labels, replica.indexed_vectors as f64);
    page.set(&names::SHARD_SEGMENTS, &labels, replica.segments as f64);
    page.set(&names::SHARD_FRESH, &labels, replica.fresh_rows as f64);
    page.set(&names::SHARD_DISK_BYTES, &labels, replica.disk_bytes as f64);
    page.set(&names::SHARD_OPTIMIZING, &labels, flag(replica.optimizing));
    let build = |of: fn(&BuildStatus) -> f64| replica.builds.iter().map(of).fold(0.0, |sum, x| sum + x);
    page.set(&names::SHARD_BUILD_ROWS, &labels, build(|build| build.rows as f64));
    page.set(&names::SHARD_BUILD_ROWS_DONE, &labels, build(|build| build.rows_done as f64));
    page.set(&names::SHARD_BUILD_ETA, &labels, build(|build| build.eta_seconds().unwrap_or(0.0)));
    page.set(&names::SHARD_SERVING, &labels, flag(replica.failed.is_none()));
    if !replica.publish.targets.is_empty() {
        page.set(&names::PUBLISH_BEHIND, &labels, replica.publish.behind as f64);
    }
    page.set(&names::RAFT_TERM, &labels, replica.term as f64);
    page.set(&names::RAFT_LAST_LOG, &labels, replica.last_log.0 as f64);
    page.set(&names::RAFT_APPLIED, &labels, replica.applied.0 as f64);
    let role = match replica.role {
        ReplicaRole::Leader => "leader",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Learner => "learner",
        ReplicaRole::Down => "down",
    };
    page.set(&names::RAFT_ROLE, &[node, &collection, &shard, role], 1.0);
    for (follower, matched) in &replica.matched {
        let lag = replica.last_log.0.saturating_sub(matched.0);
        page.set(&names::RAFT_LAG, &[node, &collection, &shard, &follower.to_string()], lag as f64);
    }
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

#[cfg(test)]
mod tests {
    use vicinal_common::telemetry::Registry;

    use super::*;
    use crate::node::fixture::{Cluster, until, upsert};

    #[tokio::test(flavor = "multi_thread")]
    async fn replicas_are_shown_with_their_groups() {
        let cluster = Cluster::start(2).await;
        cluster.make_shard(7).await;
        cluster.write(upsert(7, 0..5)).await.unwrap();
        let registry = Registry::default();
        let nodes: [&dyn Source; 2] = [cluster.node(0).as_ref(), cluster.node(1).as_ref()];
        let count = |text: &str, family: &str, rest: &str| {
            text.lines().filter(|line| line.starts_with(family) && line.ends_with(rest)).count()
        };
        until("both replicas are shown to hold the points", async || {
            let text = registry.render(&nodes).await;
            count(&text, "vicinal_shard_points{", "shard=\"7\"} 5") == 2
                && count(&text, "vicinal_raft_follower_lag_entries{", " 0") == 1
        })
        .await;
        let text = registry.render(&nodes).await;
        assert_eq!(count(&text, "vicinal_raft_role{", "role=\"leader\",shard=\"7\"} 1"), 1, "{text}");
        assert_eq!(count(&text, "vicinal_raft_role{", "role=\"follower\",shard=\"7\"} 1"), 1, "{text}");
        assert_eq!(count(&text, "vicinal_node_info{", " 1"), 2, "{text}");
        assert_eq!(count(&text, "vicinal_shard_serving{", " 1"), 2, "{text}");
        // Other tests of this process write too.
        assert_eq!(count(&text, "vicinal_log_sync_duration_seconds_count", ""), 1, "{text}");
        assert_eq!(count(&text, "vicinal_shard_write_duration_seconds_count", " 0"), 0, "{text}");
    }
}
