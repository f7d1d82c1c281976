//! Starting a node: identity, log, interrupted drops, then every replica in parallel.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::ShardId;

use super::identity::Identity;
use super::maps::MapStore;
use super::replicas::ReplicaDirs;
use super::{LOG_DIR, MAPS_DIR, NodeEnv, NodeOptions, Replica, SHARDS_DIR, ShardNode, on_blocking};
use crate::log::{Recovery, ShardLog};
use crate::publish::sweep;
use crate::room::DiskRoom;
use crate::shard::Shard;

/// How often the length of the shared log is looked at.
const LOG_WATCH: Duration = Duration::from_secs(5);

impl ShardNode {
    /// Opens the node's data, or begins it, and starts a raft group for each replica. Returns once each has replayed
    /// its log or has failed; a replica that fails is reported by `status` and does not keep the others from serving.
    /// Errors: `BadInput` and `Corrupt` tell the operator what is wrong with the directory.
    pub async fn open(options: NodeOptions, env: NodeEnv) -> Result<Arc<ShardNode>> {
        let (node, broken) = on_blocking(move || open_blocking(options, env)).await?;
        node.open_replicas(broken).await?;
        tokio::spawn(watch_log(Arc::downgrade(&node), node.stop.clone()));
        tokio::spawn(sweep::run(Arc::downgrade(&node), node.options.sweep.clone(), node.stop.clone()));
        Ok(node)
    }

    /// Opens every replica that has a directory and starts its group.
    async fn open_replicas(self: &Arc<Self>, mut replicas: BTreeMap<ShardId, Replica>) -> Result<()> {
        let dirs = self.dirs.clone();
        let ids = on_blocking(move || Ok(dirs.scan()?.shards)).await?;
        let open = ids.into_iter().map(|id| {
            let node = self.clone();
            async move { (id, on_blocking(move || node.open_replica(id)).await) }
        });
        for (id, result) in join_all(open).await {
            match result {
                Ok(Some(shard)) => {
                    let group = self.start_group(shard, self.log.group(id));
                    replicas.insert(id, Replica::Open(group));
                }
                Ok(None) => {}
                Err(e) => {
                    tracing::error!(shard = %id, error = %e, "the replica cannot be opened");
                    replicas.insert(id, Replica::Broken(e.to_string()));
                }
            }
        }
        *self.replicas.write() = replicas;
        let groups = self.groups();
        join_all(groups.iter().map(|group| group.started())).await;
        Ok(())
    }

    /// Opens a replica's shard. `None`: its creation was interrupted before it counted; what there was is removed.
    fn open_replica(&self, id: ShardId) -> Result<Option<Arc<Shard>>> {
        let path = self.dirs.path(id);
        match Shard::open(&self.shard_env(), &path) {
            Ok(shard) if shard.spec().shard == id => Ok(Some(shard)),
            Ok(shard) => {
                let found = shard.spec().shard;
                Err(Error::Corrupt(format!("{} holds the data of shard {found}", path.display())))
            }
            Err(Error::NotFound(_)) if self.log.group(id).bounds()?.next == 0 => {
                self.dirs.remove(id)?;
                Ok(None)
            }
            Err(Error::NotFound(words)) => Err(Error::Corrupt(format!(
                "the shard log has entries of this shard, but its directory holds no data ({words})"
            ))),
            Err(e) => Err(e),
        }
    }
}

/// All that blocks before replicas are opened. Also returns the replicas that are known to be damaged.
fn open_blocking(options: NodeOptions, env: NodeEnv) -> Result<(Arc<ShardNode>, BTreeMap<ShardId, Replica>)> {
    let disk = env.disk.clone();
    let dir = options.data_dir.clone();
    disk.create_dir_all(&dir).map_err(|e| Error::Internal(format!("create {}: {e}", dir.display())))?;
    let identity = Identity::load_or_create(disk.as_ref(), &dir, &options.name, env.rng.as_ref(), env.clock.as_ref())?;
    let (log, recovery) = ShardLog::open(disk.clone(), &dir.join(LOG_DIR), options.log.clone())?;
    for note in &recovery.notes {
        tracing::warn!(note, "the shard log was recovered");
    }
    let dirs = ReplicaDirs { disk: disk.clone(), root: dir.join(SHARDS_DIR) };
    let broken = reconcile(&dirs, &log, &recovery)?;
    let maps = Arc::new(MapStore::start(disk.clone(), dir.join(MAPS_DIR))?);
    let node = Arc::new_cyclic(|this| ShardNode {
        node: identity.node,
        room: Arc::new(DiskRoom::new(disk, dir, options.disk_reserve_bytes)),
        env,
        options,
        identity: Mutex::new(identity),
        log,
        dirs,
        maps,
        replicas: RwLock::default(),
        changing: tokio::sync::Mutex::new(()),
        closing: false.into(),
        stop: CancellationToken::new(),
        this: this.clone(),
    });
    Ok((node, broken))
}

/// Makes directories and log agree. A replica with a log but without a directory has lost its data.
fn reconcile(dirs: &ReplicaDirs, log: &ShardLog, recovery: &Recovery) -> Result<BTreeMap<ShardId, Replica>> {
    let found = dirs.scan()?;
    let mut broken = BTreeMap::new();
    for (id, bounds) in &recovery.groups {
        if found.dropped.contains(id) {
            // The marker stays until the log has forgotten the group for good, which the next start sees.
            log.group(*id).remove()?;
        } else if !found.shards.contains(id) && bounds.next > 0 {
            let words = format!("the shard log has entries of this shard, but {} is missing", dirs.path(*id).display());
            tracing::error!(shard = %id, "{words}");
            broken.insert(*id, Replica::Broken(words));
        }
    }
    let in_log = |id: &ShardId| recovery.groups.iter().any(|(group, _)| group == id);
    for id in found.dropped.iter().filter(|id| !in_log(id)) {
        dirs.clear_dropped(*id)?;
    }
    Ok(broken)
}

/// Asks the shards that hold the oldest log file to flush while the log is too long.
async fn watch_log(node: Weak<ShardNode>, stop: CancellationToken) {
    let mut tick = interval(LOG_WATCH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(node) = node.upgrade() else { return };
        let stats = node.log.stats();
        if stats.bytes <= node.options.log_bytes_max {
            continue;
        }
        for shard in stats.oldest_file_shards {
            if let Ok(group) = node.group(shard) {
                group.press();
            }
        }
    }
}
