//! Room on the disk: writes are refused before it runs out, because a log that cannot be appended to stops its group.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};

/// How long an answer of the file system is good for.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Bytes admitted after which the file system is asked again at once.
const FRESH_FOR_BYTES: u64 = 4 * 1024 * 1024;

/// Watches the free space of a node's data directory.
pub struct DiskRoom {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reserve_bytes: u64,
    known: Mutex<Option<Known>>,
}

/// The last answer and what was admitted on it.
struct Known {
    at: Instant,
    admitted: u64,
    verdict: Result<(), String>,
}

impl DiskRoom {
    /// Free space of less than `reserve_bytes` counts as full. What is left serves the log, seals and merges that are
    /// under way.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, reserve_bytes: u64) -> DiskRoom {
        DiskRoom { disk, dir, reserve_bytes, known: Mutex::new(None) }
    }

    /// Whether there is room for about `bytes` more. `Unavailable` with words for the operator when there is not; heals
    /// by itself.
    pub fn admit(&self, bytes: u64) -> Result<()> {
        let mut known = self.known.lock();
        let now = Instant::now();
        let usable =
            known.take().filter(|k| now.duration_since(k.at) < FRESH_FOR && k.admitted + bytes < FRESH_FOR_BYTES);
        let current = known.insert(usable.unwrap_or_else(|| Known { at: now, admitted: 0, verdict: self.ask() }));
        current.admitted += bytes;
        current.verdict.clone().map_err(Error::Unavailable)
    }

    /// Whether there is room at the moment.
    pub fn check(&self) -> Result<()> {
        self.admit(0)
    }

    fn ask(&self) -> Result<(), String> {
        const MIB: u64 = 1024 * 1024;
        match self.disk.free_bytes(&self.dir) {
            Ok(free) if free >= self.reserve_bytes => Ok(()),
            Ok(free) => {
                let (free, needed) = (free / MIB, self.reserve_bytes.div_ceil(MIB));
                Err(format!(
                    "the disk is full: {free} MiB free, {needed} MiB needed. Reads go on; free some space and writes \
                     succeed again"
                ))
            }
            Err(e) => Err(format!("the free space of {} cannot be read: {e}", self.dir.display())),
        }
    }
}
