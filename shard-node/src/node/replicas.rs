//! The replicas on a node's disk: one directory each under `shards/`. A marker file beside the directory says that the
//! replica is being dropped, so that a crash in the middle is finished by the next start.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vicinal_common::disk::{Disk, TEMPORARY_SUFFIX, replace_file};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::ShardId;

const DROPPED: &str = ".dropped";

/// The directory of replicas.
#[derive(Clone)]
pub(super) struct ReplicaDirs {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) root: PathBuf,
}

/// What a start finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) shards: BTreeSet<ShardId>,
    /// Replicas with a drop marker. Their directories are gone.
    pub(super) dropped: BTreeSet<ShardId>,
}

impl ReplicaDirs {
    /// Makes the directory and finishes interrupted drops.
    pub(super) fn scan(&self) -> Result<Found> {
        self.disk.create_dir_all(&self.root).map_err(|e| self.error("create", &self.root, e))?;
        let names = self.disk.list(&self.root).map_err(|e| self.error("list", &self.root, e))?;
        let mut found = Found::default();
        for name in names {
            if name.ends_with(TEMPORARY_SUFFIX) {
                let path = self.root.join(&name);
                self.disk.remove(&path).map_err(|e| self.error("remove", &path, e))?;
            } else if let Some(shard) = name.strip_suffix(DROPPED).and_then(parse) {
                found.dropped.insert(shard);
            } else if let Some(shard) = parse(&name) {
                found.shards.insert(shard);
            } else {
                tracing::warn!(name, dir = %self.root.display(), "not a replica, left alone");
            }
        }
        for shard in &found.dropped {
            self.remove(*shard)?;
            found.shards.remove(shard);
        }
        Ok(found)
    }

    /// The directory of a replica.
    pub(super) fn path(&self, shard: ShardId) -> PathBuf {
        self.root.join(shard.to_string())
    }

    /// Decides durably that the replica is dropped.
    pub(super) fn mark_dropped(&self, shard: ShardId) -> Result<()> {
        let marker = self.marker(shard);
        replace_file(self.disk.as_ref(), &marker, &[]).map_err(|e| self.error("write", &marker, e))
    }

    /// Takes the decision back, durably: the replica is about to be made anew.
    pub(super) fn clear_dropped(&self, shard: ShardId) -> Result<()> {
        let marker = self.marker(shard);
        if self.disk.exists(&marker).map_err(|e| self.error("look for", &marker, e))? {
            self.disk.remove(&marker).map_err(|e| self.error("remove", &marker, e))?;
            self.disk.sync_dir(&self.root).map_err(|e| self.error("sync", &self.root, e))?;
        }
        Ok(())
    }

    /// Whether the replica was dropped and not made anew.
    pub(super) fn is_dropped(&self, shard: ShardId) -> Result<bool> {
        let marker = self.marker(shard);
        self.disk.exists(&marker).map_err(|e| self.error("look for", &marker, e))
    }

    /// Removes the replica's files.
    pub(super) fn remove(&self, shard: ShardId) -> Result<()> {
        let path = self.path(shard);
        self.disk.remove_dir_all(&path).map_err(|e| self.error("remove", &path, e))?;
        self.disk.sync_dir(&self.root).map_err(|e| self.error("sync", &self.root, e))
    }

    fn marker(&self, shard: ShardId) -> PathBuf {
        self.root.join(format!("{shard}{DROPPED}"))
    }

    fn error(&self, what: &str, path: &Path, e: io::Error) -> Error {
        Error::Internal(format!("{what} {}: {e}", path.display()))
    }
}

fn parse(name: &str) -> Option<ShardId> {
    let number: u64 = name.parse().ok()?;
    // Only the one spelling: `007` is not ours.
    (number.to_string() == name).then_some(ShardId(number))
}

#[cfg(test)]
mod tests {
    use vicinal_common::disk::RealDisk;

    use super::*;

    #[test]
    fn an_interrupted_drop_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ReplicaDirs { disk: Arc::new(RealDisk), root: dir.path().join("shards") };
        assert_eq!(dirs.scan().unwrap(), Found::default());
        for name in ["7", "8", "007", "x"] {
            std::fs::create_dir(dirs.root.join(name)).unwrap();
        }
        dirs.mark_dropped(ShardId(7)).unwrap();
        let found = dirs.scan().unwrap();
        assert_eq!(found.shards, BTreeSet::from([ShardId(8)]));
        assert_eq!(found.dropped, BTreeSet::from([ShardId(7)]));
        assert!(!dirs.path(ShardId(7)).exists());
        assert!(dirs.is_dropped(ShardId(7)).unwrap());
        dirs.clear_dropped(ShardId(7)).unwrap();
        assert!(!dirs.is_dropped(ShardId(7)).unwrap());
    }
}
