//! A shard node process, composed of its parts over injected seams: the program and the simulation run the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use vicinal_common::api::{NodeDirectory, RemoteNode, ShardApi};
use vicinal_common::cluster::{self, Heard, Heartbeat, call};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::NodeId;
use vicinal_common::transport::{Address, Transport};

use crate::node::{NodeEnv, NodeOptions, ShardNode};

/// How often every coordinator hears from this node.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Longest wait for a coordinator's answer. The first one may have to note this node in the metadata.
const ANSWER: Duration = Duration::from_secs(3);
/// How often a node that waits for its coordinators says so.
const REMIND: Duration = Duration::from_secs(15);
/// Longest time the word of leaving may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The node's own settings.
    pub node: NodeOptions,
    /// Coordinators to report to; the others are learned from them.
    pub coordinators: Vec<Address>,
    /// Where the node stands.
    pub zone: Option<String>,
}

/// Where a node is in joining its cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Membership {
    /// No coordinator has taken it in yet.
    Waiting,
    /// It is part of its cluster.
    Joined,
    /// It is not, and will not be: in words.
    Refused(Error),
}

/// A running shard node.
pub struct NodeProcess {
    node: Arc<ShardNode>,
    reporter: Arc<Reporter>,
    membership: watch::Receiver<Membership>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl NodeProcess {
    /// Opens the node and begins to report to the coordinators. The caller makes [`crate::server::NodeHandler`] of
    /// [`NodeProcess::node`] reachable at the node's address.
    pub async fn start(options: ProcessOptions, env: NodeEnv) -> Result<NodeProcess> {
        let ProcessOptions { node, coordinators, zone } = options;
        let (transport, peers) = (env.transport.clone(), Peers::new(env.peers.clone()));
        let node = ShardNode::open(node, env).await?;
        peers.directory.insert(node.id(), node.clone());
        let stop = CancellationToken::new();
        let (tell, membership) = watch::channel(Membership::Waiting);
        let known = Mutex::new(coordinators.iter().cloned().collect());
        let reporter =
            Arc::new(Reporter { node: node.clone(), transport, zone, membership: tell, coordinators: known, peers });
        let task = tokio::spawn(report(reporter.clone(), coordinators, stop.clone()));
        Ok(NodeProcess { node, reporter, membership, task, stop })
    }

    /// The node.
    pub fn node(&self) -> &Arc<ShardNode> {
        &self.node
    }

    /// Where it is in joining its cluster, now and later.
    pub fn membership(&self) -> watch::Receiver<Membership> {
        self.membership.clone()
    }

    /// Says goodbye, gives the leads to other replicas, closes everything. What was acknowledged is on the disk already.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("reporting to the coordinators ended badly: {error}");
        }
        let _ = timeout(FAREWELL, self.reporter.leave()).await;
        self.node.shutdown().await;
    }
}

/// Whether the node is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    Yes,
}

/// The other shard nodes, as coordinators tell of them.
struct Peers {
    directory: NodeDirectory,
    addresses: Mutex<BTreeMap<NodeId, Address>>,
}

impl Peers {
    fn new(directory: NodeDirectory) -> Peers {
        Peers { directory, addresses: Mutex::default() }
    }

    /// Takes in what a coordinator knows. One that is behind the others may bring back a node that is gone: nobody is hurt by
    /// asking it in vain.
    fn learn(&self, own: NodeId, told: BTreeMap<NodeId, Address>, transport: &Arc<dyn Transport>) {
        let mut known = self.addresses.lock();
        if *known == told {
            return;
        }
        for node in known.keys().filter(|node| **node != own && !told.contains_key(node)) {
            self.directory.remove(*node);
        }
        for (node, address) in told.iter().filter(|(node, _)| **node != own) {
            if known.get(node) != Some(address) {
                let way = RemoteNode::new(*node, address.clone(), transport.clone());
                self.directory.insert(*node, Arc::new(way));
            }
        }
        *known = told;
    }
}

struct Reporter {
    node: Arc<ShardNode>,
    transport: Arc<dyn Transport>,
    zone: Option<String>,
    membership: watch::Sender<Membership>,
    /// All coordinators known, those configured and those learned of.
    coordinators: Mutex<BTreeSet<Address>>,
    peers: Peers,
}

impl Reporter {
    async fn heartbeat(&self, leaving: Leaving) -> Result<Heartbeat> {
        Ok(Heartbeat {
            node: self.node.id(),
            name: self.node.name().to_owned(),
            address: self.node.address().clone(),
            zone: self.zone.clone(),
            cluster: self.node.cluster(),
            leaving: leaving == Leaving::Yes,
            status: self.node.status().await?,
        })
    }

    /// One sign of life to one coordinator.
    async fn send(&self, to: &Address, beat: &Heartbeat) -> Result<Heard> {
        cluster::send(&*self.transport, to, call::HEARTBEAT, beat, ANSWER).await
    }

    /// Says goodbye to every coordinator.
    async fn leave(&self) {
        let Ok(beat) = self.heartbeat(Leaving::Yes).await else { return };
        let coordinators = self.coordinators.lock().clone();
        // Without an answer the coordinators find out by themselves.
        join_all(coordinators.iter().map(|to| self.send(to, &beat))).await;
    }

    fn take_in(&self, from: &Address, heard: Heard, configured: &[Address]) -> Result<()> {
        self.node.join_cluster(heard.cluster)?;
        let all = heard.coordinators.into_iter().chain(configured.iter().cloned());
        *self.coordinators.lock() = all.collect();
        self.peers.learn(self.node.id(), heard.nodes, &self.transport);
        let is_new = self.membership.send_if_modified(|membership| match membership {
            Membership::Waiting => {
                *membership = Membership::Joined;
                true
            }
            Membership::Joined | Membership::Refused(_) => false,
        });
        if is_new {
            tracing::info!("shard node `{}` is part of cluster {} (by {from})", self.node.name(), heard.cluster);
        }
        Ok(())
    }

    /// What to make of a failure. A node that was never taken in and is not wanted has nothing to do here; one that serves
    /// goes on, whatever one coordinator says.
    fn complain(&self, from: &Address, error: Error, told: &mut BTreeMap<Address, (String, Instant)>) {
        let is_waiting = *self.membership.borrow() == Membership::Waiting;
        if let (true, Error::Conflict(_) | Error::BadInput(_)) = (is_waiting, &error) {
            self.membership.send_replace(Membership::Refused(error));
            return;
        }
        let text = error.to_string();
        let is_news = told.get(from).is_none_or(|(last, at)| *last != text && at.elapsed() >= HEARTBEAT * 4)
            || told.get(from).is_some_and(|(_, at)| at.elapsed() >= REMIND);
        if is_news {
            match is_waiting {
                true => tracing::info!("waiting to be taken in by {from}: {text}"),
                false => tracing::warn!("coordinator {from} does not hear this node: {text}"),
            }
            told.insert(from.clone(), (text, Instant::now()));
        }
    }
}

/// Sends signs of life until told to stop. A coordinator that is slow to answer gets its next one after its answer.
async fn report(reporter: Arc<Reporter>, configured: Vec<Address>, stop: CancellationToken) {
    let mut tick = interval(HEARTBEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_flight = BTreeSet::new();
    let mut calls = JoinSet::new();
    let mut told = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = calls.join_next() => {
                let Ok((from, result)) = ended else { continue };
                in_flight.remove(&from);
                let taken = match result {
                    Ok(heard) => reporter.take_in(&from, heard, &configured),
                    Err(error) => Err(error),
                };
                match taken {
                    Ok(()) => {
                        told.remove(&from);
                    }
                    Err(error) => reporter.complain(&from, error, &mut told),
                }
            }
            _ = tick.tick() => {
                // A node that is shutting down has nothing more to say.
                let Ok(beat) = reporter.heartbeat(Leaving::No).await else { continue };
                let beat = Arc::new(beat);
                let coordinators = reporter.coordinators.lock().clone();
                told.retain(|from, _| coordinators.contains(from));
                for to in coordinators {
                    if !in_flight.insert(to.clone()) {
                        continue;
                    }
                    let (reporter, beat) = (reporter.clone(), beat.clone());
                    calls.spawn(async move {
                        let result = reporter.send(&to, &beat).await;
                        (to, result)
                    });
                }
            }
        }
    }
}
