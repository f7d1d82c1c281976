//! The owner of a node's replicas: opens what is on the disk, creates and drops replicas, keeps the shared log short,
//! and hands raft's calls to the right group.

#[cfg(test)]
pub(crate) mod fixture;
mod identity;
mod maps;
mod open;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use vicinal_common::api::{NodeDirectory, NodeStatus, ReplicaSpec, ReplicaStatus};
use vicinal_common::clock::Clock;
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::{ClusterId, CollectionId, NodeId, ShardId};
use vicinal_common::limits::GROUPS_PER_NODE_MAX;
use vicinal_common::publish::ShardRole;
use vicinal_common::rng::Rng;
use vicinal_common::transport::{Address, Handler, Transport};

use self::identity::Identity;
pub use self::maps::{MapStore, OpenMap};
use self::replicas::ReplicaDirs;
use crate::log::{GroupLog, LogOptions, LogStats, ShardLog};
use crate::publish::{Around, SweepOptions};
use crate::raft::{Group, GroupOptions, GroupParts, ROUTE_PREFIX};
use crate::room::DiskRoom;
use crate::service::SearchPool;
use crate::shard::{Builder, Shard, ShardEnv, ShardOptions};

/// Name of the shared log's directory.
const LOG_DIR: &str = "log";
/// Name of the directory of replicas.
const SHARDS_DIR: &str = "shards";
/// Name of the directory of maps.
const MAPS_DIR: &str = "maps";
/// Longest time the groups may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of a shard node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The operator's name for the node.
    pub name: String,
    /// Writes are refused while less than this is free on the disk of `data_dir`, in bytes. Must leave room for the log
    /// and for merges that are under way.
    pub disk_reserve_bytes: u64,
    /// Once the shared log is longer than this, the shards that hold its oldest file are asked to flush, in bytes.
    pub log_bytes_max: u64,
    /// The shared log.
    pub log: LogOptions,
    /// Each raft group.
    pub group: GroupOptions,
    /// Each shard.
    pub shard: ShardOptions,
    /// How search shards are swept.
    pub sweep: SweepOptions,
}

impl NodeOptions {
    /// The defaults for a node of this name with data in this directory.
    pub fn new(data_dir: impl Into<PathBuf>, name: impl Into<String>) -> NodeOptions {
        NodeOptions {
            data_dir: data_dir.into(),
            name: name.into(),
            disk_reserve_bytes: 128 << 20,
            log_bytes_max: 512 << 20,
            log: LogOptions::default(),
            group: GroupOptions::default(),
            shard: ShardOptions::default(),
            sweep: SweepOptions::default(),
        }
    }
}

/// What a shard node is given by its process.
#[derive(Clone)]
pub struct NodeEnv {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Identities.
    pub rng: Arc<dyn Rng>,
    /// The way to other processes.
    pub transport: Arc<dyn Transport>,
    /// Where other processes reach this node.
    pub address: Address,
    /// The way to all shard nodes, this one included: home shards send copies to search shards.
    pub peers: NodeDirectory,
    /// Threads for reads, shared by the nodes of a process.
    pub search: Arc<SearchPool>,
    /// Threads for background work, shared by the nodes of a process.
    pub builder: Arc<Builder>,
}

/// One replica as the node knows it.
#[derive(Clone)]
enum Replica {
    Open(Arc<Group>),
    /// Its data cannot be opened; in words for the operator. The others serve on.
    Broken(String),
}

/// A shard node.
pub struct ShardNode {
    pub(crate) env: NodeEnv,
    options: NodeOptions,
    identity: Mutex<Identity>,
    node: NodeId,
    log: ShardLog,
    dirs: ReplicaDirs,
    maps: Arc<MapStore>,
    pub(crate) room: Arc<DiskRoom>,
    replicas: RwLock<BTreeMap<ShardId, Replica>>,
    /// Serialises creating and dropping replicas.
    changing: tokio::sync::Mutex<()>,
    closing: AtomicBool,
    stop: CancellationToken,
    this: Weak<ShardNode>,
}

impl ShardNode {
    /// The raft identity, persisted with the data.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// The operator's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Where it is reached.
    pub fn address(&self) -> &Address {
        &self.env.address
    }

    /// The cluster its data belongs to, once it has joined one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.identity.lock().cluster
    }

    /// Notes durably that the node belongs to a cluster. `Conflict` when its data belongs to another one.
    pub fn join_cluster(&self, cluster: ClusterId) -> Result<()> {
        let mut identity = self.identity.lock();
        match identity.cluster {
            Some(own) if own == cluster => Ok(()),
            Some(own) => Err(Error::Conflict(format!(
                "the data of shard node {:?} belongs to cluster {own}, it cannot join cluster {cluster}",
                identity.name
            ))),
            None => {
                let joined = Identity { cluster: Some(cluster), ..identity.clone() };
                joined.save(self.env.disk.as_ref(), &self.options.data_dir)?;
                *identity = joined;
                Ok(())
            }
        }
    }

    /// `Unavailable` once the node is shutting down.
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.closing.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::Unavailable("the node is shutting down".into())),
        }
    }

    /// The maps of routing by cluster on this node.
    pub(crate) fn maps(&self) -> &Arc<MapStore> {
        &self.maps
    }

    /// The group of a replica.
    pub(crate) fn group(&self, shard: ShardId) -> Result<Arc<Group>> {
        match self.replicas.read().get(&shard) {
            Some(Replica::Open(group)) => Ok(group.clone()),
            Some(Replica::Broken(words)) => Err(Error::Corrupt(format!("shard {shard} on this node: {words}"))),
            None => Err(Error::NoSuchShard(shard)),
        }
    }

    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        let open = |replica: &Replica| match replica {
            Replica::Open(group) => Some(group.clone()),
            Replica::Broken(_) => None,
        };
        self.replicas.read().values().filter_map(open).collect()
    }

    fn start_group(&self, shard: Arc<Shard>, log: GroupLog) -> Arc<Group> {
        let is_home = shard.role() == ShardRole::Home;
        let group = Group::start(GroupParts {
            node: self.node,
            shard,
            log,
            disk: self.env.disk.clone(),
            transport: self.env.transport.clone(),
            rng: self.env.rng.clone(),
            room: self.room.clone(),
            options: self.options.group.clone(),
        });
        if is_home {
            group.start_publisher(Around {
                group: group.clone(),
                node: self.node,
                peers: self.env.peers.clone(),
                maps: self.maps.clone(),
                rng: self.env.rng.clone(),
            });
        }
        group
    }

    fn shard_env(&self) -> ShardEnv {
        ShardEnv {
            disk: self.env.disk.clone(),
            builder: self.env.builder.clone(),
            maps: self.maps.clone(),
            options: self.options.shard.clone(),
        }
    }

    /// Has the shards of a collection look for background work.
    pub(crate) fn look_for_work(&self, collection: CollectionId) {
        let of_it = self.groups().into_iter().filter(|group| group.shard().spec().collection == collection);
        of_it.for_each(|group| group.shard().look_for_work());
    }

    /// Makes sure that the replica exists. Its shard is durable before its raft group starts, so a crash leaves either
    /// nothing that counts or a replica that the next start opens.
    pub(crate) async fn create(&self, spec: ReplicaSpec) -> Result<()> {
        let id = spec.shard;
        self.to_the_end(move |node| async move { node.create_now(spec).await }).await?;
        // Not before it is known to others: a replica that waits for room must not hold up changes or the shutdown.
        if let Ok(group) = self.group(id) {
            group.started().await;
        }
        Ok(())
    }

    /// Removes the replica and its data. From the marker on, a crash is finished by the next start.
    pub(crate) async fn drop_shard(&self, id: ShardId) -> Result<()> {
        self.to_the_end(move |node| async move { node.drop_now(id).await }).await
    }

    /// Runs a change of the replicas to its end even if the caller stops waiting. Cut off in the middle it would leave
    /// files being written, or a group running, that nobody knows of, beside those of the next attempt.
    async fn to_the_end<F>(&self, work: impl FnOnce(Arc<ShardNode>) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let node = self.this.upgrade().ok_or_else(|| Error::Unavailable("the node is shutting down".into()))?;
        let ended = tokio::spawn(work(node)).await;
        ended.unwrap_or_else(|e| Err(Error::Internal(format!("a change of the replicas ended early: {e}"))))
    }

    async fn create_now(&self, spec: ReplicaSpec) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.check_open()?;
        let id = spec.shard;
        let existing = self.replicas.read().get(&id).cloned();
        match existing {
            Some(Replica::Open(group)) if group.shard().spec().collection == spec.collection => return Ok(()),
            Some(Replica::Open(_)) => {
                return Err(Error::Conflict(format!("shard {id} exists on this node for another collection")));
            }
            Some(Replica::Broken(words)) => return Err(Error::Corrupt(format!("shard {id} on this node: {words}"))),
            None => {}
        }
        if self.replicas.read().len() >= GROUPS_PER_NODE_MAX {
            let name = self.name();
            return Err(Error::Unavailable(format!(
                "shard node {name:?} carries {GROUPS_PER_NODE_MAX} replicas, which is the most one node takes: add a \
                 node, or use fewer shards"
            )));
        }
        self.room.check()?;
        let dirs = self.dirs.clone();
        if on_blocking(move || dirs.is_dropped(id)).await? {
            // The old files and log must be gone for good before anything says that the replica exists again.
            self.forget(id).await?;
            sync_log(&self.log.group(id)).await?;
        }
        let log = self.log.group(id);
        let (dirs, env) = (self.dirs.clone(), self.shard_env());
        let shard = on_blocking(move || {
            dirs.clear_dropped(id)?;
            Shard::create(&env, &dirs.path(id), &spec)
        })
        .await?;
        let group = self.start_group(shard, log);
        self.replicas.write().insert(id, Replica::Open(group));
        Ok(())
    }

    async fn drop_now(&self, id: ShardId) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.check_open()?;
        let Some(replica) = self.replicas.read().get(&id).cloned() else {
            // Perhaps an earlier try failed on the way.
            let dirs = self.dirs.clone();
            return match on_blocking(move || dirs.is_dropped(id)).await? {
                true => self.forget(id).await,
                false => Ok(()),
            };
        };
        let dirs = self.dirs.clone();
        on_blocking(move || dirs.mark_dropped(id)).await?;
        self.replicas.write().remove(&id);
        if let Replica::Open(group) = replica {
            group.stop().await;
            on_blocking(move || {
                group.shard().close();
                Ok(())
            })
            .await?;
        }
        self.forget(id).await
    }

    /// Removes the log and the files of a replica that is marked as dropped and does not run.
    async fn forget(&self, id: ShardId) -> Result<()> {
        self.log.group(id).remove()?;
        let dirs = self.dirs.clone();
        on_blocking(move || dirs.remove(id)).await
    }

    /// Sizes of the shared log.
    pub(crate) fn log_stats(&self) -> LogStats {
        self.log.stats()
    }

    /// State of the node and its replicas.
    pub(crate) async fn node_status(&self) -> Result<NodeStatus> {
        let replicas = self.replicas.read().clone();
        let status = |(id, replica): (&ShardId, &Replica)| match replica {
            Replica::Open(group) => group.status(),
            Replica::Broken(words) => ReplicaStatus {
                failed: Some(words.clone()),
                ..ReplicaStatus::unknown(*id, CollectionId(uuid::Uuid::nil()))
            },
        };
        let (node, room, maps) = (self.node, self.room.clone(), self.maps.digests());
        // Statistics take locks of every shard and ask the file system: not on an async thread.
        on_blocking(move || {
            let read_only = room.check().err().map(|e| match e {
                Error::Unavailable(words) => words,
                other => other.to_string(),
            });
            Ok(NodeStatus { node, replicas: replicas.iter().map(status).collect(), read_only, maps })
        })
        .await
    }

    /// Stops taking requests, hands the lead of replicated shards to other nodes, stops the groups and closes the
    /// shards. What was acknowledged is on the disk already. Takes at most about 12 seconds.
    pub async fn shutdown(&self) {
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.stop.cancel();
        // The directory holds the node itself: without this neither would ever be dropped.
        self.env.peers.remove(self.node);
        let _changing = self.changing.lock().await;
        let groups = self.groups();
        join_all(groups.iter().map(|group| group.hand_over())).await;
        let stopped = join_all(groups.iter().map(|group| group.stop()));
        if tokio::time::timeout(STOP_TIMEOUT, stopped).await.is_err() {
            tracing::warn!(node = %self.node, "some raft groups did not stop in time");
        }
        self.replicas.write().clear();
        let closed = on_blocking(move || {
            groups.iter().for_each(|group| group.shard().close());
            Ok(())
        });
        if let Err(e) = closed.await {
            tracing::warn!(node = %self.node, error = %e, "closing the shards");
        }
    }
}

impl Drop for ShardNode {
    /// A node that is dropped without a shutdown leaves nothing running; what was acknowledged is on the disk.
    fn drop(&mut self) {
        self.stop.cancel();
        self.groups().iter().for_each(|group| group.cancel());
    }
}

#[async_trait]
impl Handler for ShardNode {
    async fn handle(&self, route: &str, body: Bytes) -> Option<Bytes> {
        let (shard, name) = route.strip_prefix(ROUTE_PREFIX)?.split_once('/')?;
        let group = self.group(ShardId(shard.parse().ok()?)).ok()?;
        group.handle(name, &body).await
    }
}

/// Runs disk work off the async threads.
async fn on_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    exec::blocking(work).await?
}

/// Returns once everything submitted to the log before is durable.
async fn sync_log(log: &GroupLog) -> Result<()> {
    /// Key of a saved state that says nothing.
    const BARRIER: u8 = 0;
    let (done, durable) = tokio::sync::oneshot::channel();
    let tell = move |result| {
        // The waiting side may have been dropped.
        let _ = done.send(result);
    };
    log.save_state(BARRIER, Bytes::new(), Box::new(tell));
    durable.await.map_err(|_| Error::Unavailable("the shard log was closed".into()))?.map_err(Error::from)
}
