//! What the cluster says of itself: who leads, where replicas are, what they hold.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::Cluster;
use crate::check::{ReplicaDigest, ShardDigests};
use crate::op::Seen;
use crate::{content, rest::Rest};

const POLL: Duration = Duration::from_millis(100);
/// Points of one page when all are read.
const PAGE: usize = 1_000;

/// One replica as a coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Number of the shard.
    pub shard: u64,
    /// `home`, or `search` for shards that hold copies.
    pub part: String,
    /// Name of the node.
    pub node: String,
    /// `leader`, `follower`, `learner`.
    pub role: String,
    /// Term of its leader.
    pub term: u64,
    /// `active` when it serves.
    pub state: String,
    /// Segment files it consists of.
    pub segments: u64,
}

/// The metadata group as a coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaView {
    /// Name of the leading coordinator.
    pub leader: Option<String>,
    /// All members with their roles.
    pub coordinators: Vec<(String, String)>,
    /// Shard nodes: name and generated identity.
    pub nodes: Vec<(String, String)>,
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Cluster {
    /// All replicas of a collection.
    pub async fn replicas(&self, collection: &str) -> anyhow::Result<Vec<ReplicaView>> {
        let result = self.ask(&format!("/collections/{collection}/cluster")).await?;
        let view = |replica: &Value| ReplicaView {
            shard: replica["shard"].as_u64().unwrap_or(u64::MAX),
            part: text(&replica["part"]),
            node: text(&replica["node"]),
            role: text(&replica["role"]),
            term: replica["term"].as_u64().unwrap_or(0),
            state: text(&replica["state"]),
            segments: replica["segments"].as_u64().unwrap_or(0),
        };
        Ok(array(&result["replicas"]).map(view).collect())
    }

    /// The coordinators.
    pub async fn meta(&self) -> anyhow::Result<MetaView> {
        let result = self.ask("/cluster").await?;
        let coordinators: Vec<(String, String)> =
            array(&result["coordinators"]).map(|member| (text(&member["id"]), text(&member["role"]))).collect();
        let leader = coordinators.iter().find(|(_, role)| role == "leader").map(|(name, _)| name.clone());
        let nodes = array(&result["nodes"]).map(|node| (text(&node["id"]), text(&node["node"]))).collect();
        Ok(MetaView { leader, coordinators, nodes })
    }

    /// Asks again and again until the answer is what is waited for.
    pub async fn wait_until<T: std::fmt::Debug>(
        &self,
        what: &str,
        within: Duration,
        mut ask: impl AsyncFnMut(&Cluster) -> anyhow::Result<T>,
        is_right: impl Fn(&T) -> bool,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            let got = ask(self).await;
            match got {
                Ok(value) if is_right(&value) => return Ok(value),
                got if started.elapsed() > within => anyhow::bail!("{what}: not within {within:?}, last: {got:?}"),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Digests of all replicas.
    pub async fn digests(&self, collection: &str) -> anyhow::Result<Vec<ShardDigests>> {
        let result = self.ask(&format!("/collections/{collection}/replicas/digest")).await?;
        let replica = |replica: &Value| ReplicaDigest {
            node: text(&replica["node"]),
            applied: replica["applied"].as_u64().unwrap_or(0),
            points: replica["points"].as_u64().unwrap_or(0),
            digest: replica["digest"].as_str().map(str::to_owned).ok_or_else(|| text(&replica["error"])),
        };
        let shard = |shard: &Value| ShardDigests {
            shard: shard["shard"].as_u64().unwrap_or(u64::MAX),
            replicas: array(&shard["replicas"]).map(replica).collect(),
        };
        Ok(array(&result["shards"]).map(shard).collect())
    }

    /// Waits until all replicas of all shards say the same; whatever they say at the end of the time is returned.
    pub async fn settled_digests(
        &self,
        collection: &str,
        shards: usize,
        replicas: usize,
        within: Duration,
    ) -> anyhow::Result<Vec<ShardDigests>> {
        let settled = |digests: &Vec<ShardDigests>| {
            digests.len() == shards && digests.iter().all(|shard| shard.is_settled(replicas))
        };
        let waited =
            self.wait_until("digests", within, async |cluster| cluster.digests(collection).await, settled).await;
        match waited {
            Ok(digests) => Ok(digests),
            Err(error) => self.digests(collection).await.with_context(|| format!("{error:#}")),
        }
    }

    /// Reads all points of a collection in linearizable pages, through one coordinator.
    pub async fn read_all(rest: &Rest, collection: &str) -> anyhow::Result<Vec<Seen>> {
        let (mut points, mut offset) = (Vec::new(), Value::Null);
        loop {
            let mut body = serde_json::json!({
                "limit": PAGE, "with_payload": true, "with_vector": true, "allow_partial": false,
            });
            if !offset.is_null() {
                body["offset"] = offset;
            }
            let path = format!("/collections/{collection}/points/scroll?consistency=majority");
            let answer = rest.call(reqwest::Method::POST, &path, &body).await?;
            anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
            points.extend(content::found(&answer).points);
            offset = answer.body["result"]["next_page_offset"].clone();
            if offset.is_null() {
                return Ok(points);
            }
        }
    }
}
