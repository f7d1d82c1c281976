//! Faults of processes: `kill -9` with a restart, and a pause.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::sleep;

use super::schedule::Step;
use crate::check::{Fault, FaultKind};
use crate::cluster::{Cluster, Member, ReplicaView};
use crate::history::History;

/// How long a cluster may take to name a leader.
const LEADER_WAIT: Duration = Duration::from_secs(20);

/// Does the faults, one after the other.
pub struct Nemesis {
    collection: String,
    history: Arc<History>,
    /// What was done so far.
    pub faults: Vec<Fault>,
}

impl Nemesis {
    /// Faults around a collection, timed by its history.
    pub fn new(collection: &str, history: Arc<History>) -> Nemesis {
        Nemesis { collection: collection.to_owned(), history, faults: Vec::new() }
    }

    /// Does one fault and cures it. An error means that the cluster did not come back: the run is over.
    pub async fn strike(&mut self, cluster: &mut Cluster, step: Step) -> anyhow::Result<Fault> {
        sleep(step.quiet).await;
        let (target, led) = self.target(cluster, step).await.with_context(|| format!("a target for {step:?}"))?;
        let began = self.history.now();
        let done = match step.kind {
            FaultKind::PauseReplica => pause(cluster.member(&target)?, step.away).await,
            FaultKind::KillNode | FaultKind::KillShardLeader | FaultKind::KillCoordinatorLeader => {
                let killed = cluster.member(&target)?.kill()?;
                sleep(step.away).await;
                let is_away = !is_answering(cluster.member(&target)?).await;
                cluster.restart(&target).await.with_context(|| format!("{target} after {:?}", step.kind))?;
                ensure_away(is_away, &killed)
            }
        };
        let cured = self.history.now();
        let evidence = done.map(|text| format!("{text}{led}")).map_err(|error| format!("{error:#}"));
        let fault = Fault { kind: step.kind, target, began, cured, evidence };
        self.faults.push(fault.clone());
        Ok(fault)
    }

    /// Whom the step hits, and what is to be said of it.
    async fn target(&self, cluster: &Cluster, step: Step) -> anyhow::Result<(String, String)> {
        let choose = |n: usize| usize::try_from(step.choice % n.max(1) as u64).unwrap_or(0);
        match step.kind {
            FaultKind::KillNode => {
                let nodes: Vec<&Member> = cluster.nodes().collect();
                Ok((nodes[choose(nodes.len())].options.name.clone(), String::new()))
            }
            FaultKind::KillShardLeader => {
                let replicas = self.replicas(cluster).await?;
                let leaders: Vec<_> = replicas.iter().filter(|replica| replica.role == "leader").collect();
                let chosen = leaders[choose(leaders.len())];
                Ok((chosen.node.clone(), format!(", it led shard {} in term {}", chosen.shard, chosen.term)))
            }
            FaultKind::KillCoordinatorLeader => {
                let meta = cluster.wait_until(
                    "a leading coordinator",
                    LEADER_WAIT,
                    async |cluster| cluster.meta().await,
                    |meta| meta.leader.is_some(),
                );
                let leader = meta.await?.leader.context("it was waited for")?;
                Ok((leader, ", it led the metadata".to_owned()))
            }
            FaultKind::PauseReplica => {
                let replicas = self.replicas(cluster).await?;
                let chosen = &replicas[choose(replicas.len())];
                Ok((chosen.node.clone(), format!(", a {} of shard {}", chosen.role, chosen.shard)))
            }
        }
    }

    async fn replicas(&self, cluster: &Cluster) -> anyhow::Result<Vec<ReplicaView>> {
        let ask = async |cluster: &Cluster| cluster.replicas(&self.collection).await;
        let has_leader = |replicas: &Vec<ReplicaView>| replicas.iter().any(|replica| replica.role == "leader");
        cluster.wait_until("a leader of a shard", LEADER_WAIT, ask, has_leader).await
    }
}

fn ensure_away(is_away: bool, killed: &str) -> anyhow::Result<String> {
    ensure!(is_away, "{killed}, but its address still answers");
    Ok(killed.to_owned())
}

async fn is_answering(member: &Member) -> bool {
    member.rest().call(reqwest::Method::GET, "/livez", &().into()).await.is_ok()
}

/// Stops a process and lets it go on.
async fn pause(member: &mut Member, away: Duration) -> anyhow::Result<String> {
    let process = member.process()?;
    process.signal("STOP")?;
    sleep(Duration::from_millis(50)).await;
    let was_stopped = process.is_stopped();
    sleep(away).await;
    let stayed_stopped = process.is_stopped();
    // Before anything else: whatever was seen, it must go on.
    process.signal("CONT")?;
    ensure!(was_stopped && stayed_stopped, "the system does not show it as stopped");
    sleep(Duration::from_millis(50)).await;
    ensure!(process.ended().is_none() && !process.is_stopped(), "it did not go on after the pause");
    Ok(format!("pid {} stood still for {away:?}", process.pid()))
}
