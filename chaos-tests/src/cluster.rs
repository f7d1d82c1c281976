//! A cluster of real processes on the loopback interface. Every process has a fixed address and a directory of its own,
//! and can be killed, paused, wiped and started again. All are killed when the cluster is dropped.

mod member;
mod view;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Site;
use crate::content::DIM;
use crate::history::record_dir;
use crate::process::data_dir;
use crate::rest::Rest;

pub use member::{Member, MemberOptions, Role, free_port};
pub use view::{MetaView, ReplicaView};

/// Longest wait until a started process is ready.
const READY_WAIT: Duration = Duration::from_secs(40);

/// Small enough that a short run seals and merges segments, builds graphs, cuts logs and sends snapshots to whoever was
/// away.
const SEAL_BYTES: &str = "65536";
/// Vectors in KiB from which a segment has a graph.
const INDEXING_THRESHOLD: u64 = 32;

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// Coordinators: 1, 3 or 5.
    pub coordinators: usize,
    /// Shard nodes.
    pub nodes: usize,
}

/// A collection under test.
#[derive(Clone, Copy, Debug)]
pub struct CollectionOptions {
    /// Shards.
    pub shards: usize,
    /// Replicas of each.
    pub replicas: usize,
}

/// A running cluster.
pub struct Cluster {
    dir: TempDir,
    members: Vec<Member>,
}

fn names(letter: char, n: usize) -> Vec<String> {
    (1..=n).map(|number| format!("{letter}{number}")).collect()
}

impl Cluster {
    /// Starts coordinators c1, c2, ... and shard nodes n1, n2, ... and waits until all are ready. Each coordinator knows
    /// the addresses of the others, and c1 founds the cluster when none of them has one: so each of them can come back
    /// with nothing, and be taken in.
    pub async fn start(options: ClusterOptions) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster { dir: data_dir(), members: Vec::new() };
        let dir = cluster.dir.path().to_owned();
        let coordinators: Vec<MemberOptions> = names('c', options.coordinators)
            .iter()
            .map(|name| MemberOptions::new(Role::Coordinator, name, &dir))
            .collect();
        let urls: Vec<String> = coordinators.iter().map(MemberOptions::url).collect();
        for (place, mut member) in coordinators.into_iter().enumerate() {
            let others: Vec<&str> =
                urls.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, url)| url.as_str()).collect();
            if place == 0 {
                member.args.push("--bootstrap".to_owned());
            }
            if !others.is_empty() {
                member = member.arg("--join", &others.join(","));
            }
            cluster.members.push(Member::start(member)?);
        }
        for name in names('n', options.nodes) {
            let member = cluster.node_options(&name);
            cluster.members.push(Member::start(member)?);
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// How a shard node of that name is started, with an address and a directory that are not used yet.
    pub fn node_options(&self, name: &str) -> MemberOptions {
        let urls: Vec<String> = self.coordinators().map(|member| member.options.url()).collect();
        let options = MemberOptions::new(Role::ShardNode, name, self.dir.path());
        options.arg("--coordinators", &urls.join(",")).arg("--seal-bytes", SEAL_BYTES)
    }

    /// Starts one shard node more and waits until it is ready.
    pub async fn add_node(&mut self, name: &str) -> anyhow::Result<()> {
        let mut member = Member::start(self.node_options(name))?;
        let ready = member.ready(READY_WAIT).await;
        self.members.push(member);
        ready
    }

    /// Waits until every running process is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        for member in self.members.iter_mut().filter(|member| member.is_running()) {
            member.ready(READY_WAIT).await?;
        }
        Ok(())
    }

    /// The member of that name.
    pub fn member(&mut self, name: &str) -> anyhow::Result<&mut Member> {
        self.members.iter_mut().find(|member| member.options.name == name).with_context(|| format!("who is {name}?"))
    }

    /// All coordinators.
    pub fn coordinators(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.options.role == Role::Coordinator)
    }

    /// All shard nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.options.role == Role::ShardNode)
    }

    /// Starts a member again and waits until it is ready.
    pub async fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self.member(name)?;
        member.restart()?;
        member.ready(READY_WAIT).await
    }

    /// A client of a coordinator that runs, the last one first: tests kill others more often.
    ///
    /// # Panics
    /// When none runs.
    pub fn rest(&self) -> Rest {
        let running = self.coordinators().filter(|member| member.is_running()).last();
        running.expect("a coordinator runs").rest()
    }

    /// Clients of all coordinators that run.
    pub fn rests(&self) -> Vec<Rest> {
        self.coordinators().filter(|member| member.is_running()).map(Member::rest).collect()
    }

    /// Creates a collection that the workloads understand, and what its clients share.
    pub async fn create(&self, collection: &str, options: CollectionOptions) -> anyhow::Result<Arc<Site>> {
        self.create_with(collection, json!({"shard_number": options.shards, "replication_factor": options.replicas}))
            .await
    }

    /// As [`Cluster::create`], with a replica on each node.
    pub async fn create_replicated(&self, collection: &str) -> anyhow::Result<Arc<Site>> {
        self.create_with(collection, json!({"routing": {"method": "replicate"}})).await
    }

    /// As [`Cluster::create`], with all that the body that creates a collection may say of its layout.
    pub async fn create_with(&self, collection: &str, mut body: Value) -> anyhow::Result<Arc<Site>> {
        body["vectors"] = json!({"size": DIM, "distance": "Euclid"});
        body["optimizers_config"] = json!({"indexing_threshold": INDEXING_THRESHOLD});
        let answer = self.rest().call(reqwest::Method::PUT, &format!("/collections/{collection}"), &body).await?;
        anyhow::ensure!(answer.status == 200, "the collection was not created: {}", answer.body);
        // The coordinator that was asked knows it; the others hear of it a moment later.
        self.wait_until(
            "all coordinators know the collection",
            READY_WAIT,
            async |cluster| {
                for rest in cluster.rests() {
                    let answer =
                        rest.call(reqwest::Method::GET, &format!("/collections/{collection}"), &Value::Null).await?;
                    anyhow::ensure!(answer.body["result"]["status"] == "green", "{}: {}", rest.url(), answer.body);
                }
                Ok(())
            },
            |()| true,
        )
        .await?;
        let coordinators = self.coordinators().map(|member| (member.options.name.clone(), member.options.url()));
        Ok(Site::new(collection, coordinators.collect()))
    }

    /// The `result` of a GET at the first running coordinator that has one.
    pub async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let mut told = Vec::new();
        for rest in self.rests().into_iter().rev() {
            match rest.call(reqwest::Method::GET, path, &Value::Null).await {
                Ok(mut answer) if answer.status == 200 => return Ok(answer.body["result"].take()),
                Ok(answer) => told.push(format!("{}: {}", answer.status, answer.body)),
                Err(error) => told.push(format!("{error:#}")),
            }
        }
        anyhow::bail!("no coordinator answers GET {path}: {told:?}")
    }

    fn write_logs(&self) {
        let Some(dir) = record_dir() else { return };
        let cluster = self.dir.path().file_name().unwrap_or_default().to_string_lossy();
        for member in &self.members {
            let name = format!("{}-{}.log", cluster.trim_start_matches('.'), member.options.name);
            if let Err(error) = std::fs::write(dir.join(&name), member.log().join("\n")) {
                eprintln!("{name} could not be written: {error}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.is_running()) {
            // One that is stopped by a signal is killed all the same; one that has ended cannot be.
            let _ = member.kill();
        }
        self.write_logs();
        if std::thread::panicking() {
            for member in &self.members {
                eprintln!("--- last log lines of {} ---\n{}", member.options.name, member.log_tail());
            }
        }
    }
}
