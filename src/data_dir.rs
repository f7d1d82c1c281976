//! The data directory of a process: its layout, and the lock that keeps a second process away.
//!
//! `vicinal.lock`; `coordinator/` (metadata) of a coordinator; `node/` of a shard node. `vicinal dev` has `coordinator/` and
//! `nodes/n1/`, `nodes/n2/`, ... (one per shard node).

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::NODES_MAX;

/// Shard nodes of a new data directory when the user names no number.
const NODES_AT_FIRST: usize = 3;

/// An open data directory. Nobody else can open it while this lives, also not after a crash of another process: the
/// system drops the lock of a process that has gone.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens it, making what is missing.
    pub(crate) fn open(root: &Path) -> anyhow::Result<DataDir> {
        let shown = root.display();
        fs::create_dir_all(root).with_context(|| format!("cannot make the data directory {shown}"))?;
        let lock = root.join("vicinal.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock);
        let lock = lock.with_context(|| format!("cannot write in the data directory {shown}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { root: root.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "the data directory {shown} is in use by another vicinal process; stop that one first, or choose \
                 another directory with --data-dir"
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock the data directory {shown}"))
            }
        }
    }

    /// Where the coordinator keeps its metadata.
    pub(crate) fn coordinator(&self) -> PathBuf {
        self.root.join("coordinator")
    }

    /// Where the one shard node of a process keeps its replicas.
    pub(crate) fn sole_node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Where a shard node of `vicinal dev` keeps its replicas.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    /// Names of the nodes to run: all that have data here, and new ones up to `wanted`. Fewer than have data are
    /// refused, because the shards on the others would be out of reach.
    pub(crate) fn node_names(&self, wanted: Option<usize>) -> anyhow::Result<Vec<String>> {
        let on_disk = (1..=NODES_MAX).rev().find(|n| self.node(&name(*n)).exists()).unwrap_or(0);
        let run = wanted.unwrap_or_else(|| on_disk.max(NODES_AT_FIRST));
        if run < on_disk {
            bail!(
                "the data directory {} holds {on_disk} shard nodes, --nodes says {run}: the shards on the others \
                 would be out of reach. Start with --nodes {on_disk}, or choose another directory with --data-dir",
                self.root.display()
            );
        }
        Ok((1..=run).map(name).collect())
    }
}

fn name(number: usize) -> String {
    format!("n{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_until_the_first_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let text = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(text.contains("in use by another vicinal process"), "{text}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn nodes_with_data_are_never_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.node_names(None).unwrap(), ["n1", "n2", "n3"]);
        assert_eq!(data.node_names(Some(1)).unwrap(), ["n1"]);
        for number in 1..=5 {
            fs::create_dir_all(data.node(&name(number))).unwrap();
        }
        assert_eq!(data.node_names(None).unwrap().len(), 5);
        assert_eq!(data.node_names(Some(6)).unwrap().len(), 6);
        let text = data.node_names(Some(4)).unwrap_err().to_string();
        assert!(text.contains("holds 5 shard nodes") && text.contains("--nodes 5"), "{text}");
    }
}
