//! What other processes ask of a coordinator: who it is, to be taken in, signs of life, raft's calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use vicinal_common::api::ReplicaRole;
use vicinal_common::cluster::{self, Greeting, Heard, Heartbeat, Join, Joined, call};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::NodeId;
use vicinal_common::raft::RaftNode;
use vicinal_common::transport::{Handler, Transport};

use crate::members::{DOWN_AFTER, Liveness, Members};
use crate::meta::{Catalog, META_PREFIX, MetaState, Registration, replaced};
use crate::shards::ShardAccess;

/// Longest time a coordinator may take to say who it is.
pub(super) const GREET: Duration = Duration::from_secs(1);
/// Longest time of noting a node in the metadata; it asks again.
const REGISTER: Duration = Duration::from_secs(2);

/// A coordinator as other processes meet it, from the moment it listens.
pub struct Edge {
    name: String,
    transport: Arc<dyn Transport>,
    /// It began without data: until there is a catalog it looks for a cluster.
    is_new: AtomicBool,
    catalog: OnceLock<(Catalog, Arc<dyn Handler>)>,
    shards: OnceLock<Arc<ShardAccess>>,
    members: Arc<Members>,
}

impl Edge {
    /// The edge of the coordinator of this name, which has not read its data yet.
    pub fn new(name: &str, transport: Arc<dyn Transport>) -> Arc<Edge> {
        Arc::new(Edge {
            name: name.to_owned(),
            transport,
            is_new: AtomicBool::new(false),
            catalog: OnceLock::new(),
            shards: OnceLock::new(),
            members: Arc::new(Members::new()),
        })
    }

    /// Which shard nodes are alive.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Says that this coordinator has no data, until its catalog is open.
    pub(super) fn is_new(&self) {
        self.is_new.store(true, Ordering::Release);
    }

    /// Takes part in the metadata group from now on.
    pub(super) fn open(&self, catalog: &Catalog) {
        // Set once: a process has one catalog.
        let _ = self.catalog.set((catalog.clone(), catalog.handler()));
    }

    /// Takes signs of life from now on.
    pub(super) fn serve(&self, shards: &Arc<ShardAccess>) {
        let _ = self.shards.set(shards.clone());
    }

    fn catalog(&self) -> Result<&Catalog> {
        let name = &self.name;
        let starting = || Error::Unavailable(format!("coordinator `{name}` is starting"));
        self.catalog.get().map(|(catalog, _)| catalog).ok_or_else(starting)
    }

    fn greeting(&self) -> Result<Greeting> {
        let name = self.name.clone();
        if self.catalog.get().is_none() && self.is_new.load(Ordering::Acquire) {
            return Ok(Greeting { name, node: None, cluster: None, leader: None, members: BTreeMap::new() });
        }
        let catalog = self.catalog()?;
        let group = catalog.group();
        let cluster = catalog.state().cluster;
        Ok(Greeting { name, node: Some(group.node), cluster, leader: group.leader, members: group.members })
    }

    async fn join(&self, join: Join) -> Result<Joined> {
        let catalog = self.catalog()?;
        if catalog.is_leader() {
            for (node, info) in catalog.group().members {
                if info.name == join.info.name && node != join.node && self.is_alive(node, &info).await {
                    return Err(Error::Conflict(format!(
                        "there is a coordinator `{}` in the cluster already, it answers at {}: choose another --id",
                        info.name, info.address
                    )));
                }
            }
        }
        catalog.take_in(join).await
    }

    async fn is_alive(&self, node: NodeId, info: &RaftNode) -> bool {
        let greeting = cluster::greet(&*self.transport, &info.address, GREET).await;
        greeting.is_ok_and(|greeting| greeting.node == Some(node))
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<Heard> {
        let catalog = self.catalog()?;
        let starting = || Error::Unavailable(format!("coordinator `{}` does not belong to a cluster yet", self.name));
        let shards = self.shards.get().ok_or_else(starting)?;
        let state = catalog.state();
        let cluster = state.cluster.ok_or_else(starting)?;
        if let Some(own) = beat.cluster.filter(|own| *own != cluster) {
            return Err(Error::Conflict(format!(
                "the data of shard node `{}` belongs to cluster {own}, this is cluster {cluster}: start it with its own \
                 cluster's coordinators, or with an empty data directory",
                beat.name
            )));
        }
        let registration =
            Registration { name: beat.name.clone(), address: beat.address.clone(), zone: beat.zone.clone() };
        if state.nodes.get(&beat.node).is_none_or(|info| info.replaced_by.is_some() || !info.is_as(&registration)) {
            self.check_name(&state, &beat)?;
            catalog.register_node(beat.node, registration, Instant::now() + REGISTER).await?;
        }
        for replica in &beat.status.replicas {
            if replica.role == ReplicaRole::Leader {
                shards.note_leader_at(replica.shard, beat.node, replica.term);
            }
            shards.note_applied(replica.shard, beat.node, replica.applied);
        }
        shards.health.heard(beat.node, Instant::now());
        if beat.leaving {
            shards.health.left(beat.node);
        }
        self.members.heard(beat.node, beat.status, beat.leaving);
        let coordinators = catalog.group().members.into_values().map(|info| info.address).collect();
        let live = state.nodes.iter().filter(|(_, info)| info.replaced_by.is_none());
        let nodes = live.map(|(node, info)| (*node, info.address.clone())).collect();
        Ok(Heard { cluster, coordinators, nodes })
    }

    /// A name may be taken over from a node that is gone for good: one that nobody has heard of for a while.
    fn check_name(&self, state: &MetaState, beat: &Heartbeat) -> Result<()> {
        if let Some(info) = state.nodes.get(&beat.node) {
            return match info.replaced_by {
                Some(successor) => Err(replaced(&info.name, beat.node, successor)),
                None => Ok(()),
            };
        }
        let name = &beat.name;
        let Some((old, info)) = state.node_named(name) else { return Ok(()) };
        match self.members.liveness(old) {
            Liveness::Down => Ok(()),
            Liveness::Up if info.address != beat.address => Err(Error::Conflict(format!(
                "there is a shard node `{name}` in the cluster already, it answers at {}: choose another --id",
                info.address
            ))),
            // At the same address: the new process has taken the old one's place, which will be silent soon.
            Liveness::Up | Liveness::Suspect | Liveness::Leaving | Liveness::Unknown => {
                Err(Error::Unavailable(format!(
                    "shard node `{name}` was heard of lately under another identity; its name is free when it has been \
                     silent for {} s",
                    DOWN_AFTER.as_secs()
                )))
            }
        }
    }
}

/// Decodes, answers, encodes.
async fn answered<M: DeserializeOwned, A: Serialize>(
    body: &[u8],
    answer: impl AsyncFnOnce(M) -> Result<A>,
) -> Option<Bytes> {
    let answer = match cluster::decode::<M>(body) {
        Ok(message) => answer(message).await,
        Err(error) => Err(error),
    };
    match cluster::encode(&answer) {
        Ok(bytes) => Some(bytes),
        Err(error) => cluster::encode(&Err::<A, _>(error)).ok(),
    }
}

#[async_trait]
impl Handler for Edge {
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes> {
        if route.starts_with(META_PREFIX) {
            let (_, handler) = self.catalog.get()?;
            return handler.handle(route, body).await;
        }
        match route.strip_prefix(cluster::PREFIX)? {
            call::GREET => answered(&body, async |()| self.greeting()).await,
            call::JOIN => answered(&body, async |join| self.join(join).await).await,
            call::HEARTBEAT => answered(&body, async |beat| self.heartbeat(beat).await).await,
            _ => None,
        }
    }
}
