//! The shard log: one write-ahead log per node, shared by the raft groups of its shards, so that one sync serves many
//! groups. It stores bytes by (shard, index) and knows nothing of raft. The format is described in docs/formats/log.md,
//! the reasons in docs/adr/0002-shard-log.md.
//!
//! How a change travels: a handle ([`GroupLog`]) puts it into the queue, where it can be read at once; the flusher
//! thread takes what has queued up, writes it as one batch, syncs, notes where each entry lies, and calls back. A batch
//! is written only when the one before it is durable: that is why damage before the last batch is never a torn write.

mod error;
mod flusher;
mod format;
mod group;
mod index;
mod recover;
mod span;
mod state;
mod view;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec::{Signal, Worker};
use vicinal_common::ids::ShardId;

pub use error::LogError;
pub use group::GroupLog;
pub use state::Done;

use flusher::Shared;
use state::State;
use view::View;

/// Bound of one append call, entries and record headers together.
pub const APPEND_BYTES_MAX: u64 = 128 << 20;
/// Bound of one saved state or purge marker with its record header.
pub const STATE_BYTES_MAX: u64 = 64 << 10;

// A batch is one append at least, or several changes of `batch_bytes` together.
const _: () = assert!(APPEND_BYTES_MAX <= format::PAYLOAD_BYTES_MAX as u64);

/// Sizes, all in bytes.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A file that has reached this length gets no more batches. 64 MiB.
    pub file_bytes: u64,
    /// Entries kept in memory for reading, over all groups; those not yet written come on top. 8 MiB.
    pub cache_bytes: u64,
    /// What one group commit writes at most (a single change may be larger). 8 MiB, at most 64 MiB.
    pub batch_bytes: u64,
    /// Appends wait while this much is queued or being written. 64 MiB.
    pub queue_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { file_bytes: 64 << 20, cache_bytes: 8 << 20, batch_bytes: 8 << 20, queue_bytes_max: 64 << 20 }
    }
}

/// One entry: its raft log index and the caller's encoding of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Raft log index.
    pub index: u64,
    /// Opaque.
    pub bytes: Bytes,
}

/// Which entries a group has: `first..next`, none if both are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Index of the first entry, if there is one.
    pub first: u64,
    /// Index the next entry must have (any, if nothing was ever appended or purged).
    pub next: u64,
    /// Index of the last purge, and its marker.
    pub purged: Option<(u64, Bytes)>,
}

impl Bounds {
    /// Index of the last entry.
    pub fn last(&self) -> Option<u64> {
        (self.first < self.next).then(|| self.next - 1)
    }
}

/// What opening a log found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Every group with its bounds, in order of id.
    pub groups: Vec<(ShardId, Bounds)>,
    /// What was unusual and what was done about it, in plain words for the operator. Empty after a clean stop.
    pub notes: Vec<String>,
}

/// Size of the log, and what keeps it from shrinking.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Files on the disk.
    pub files: usize,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes of the entries that are still needed.
    pub live_bytes: u64,
    /// Bytes of changes that are not yet durable.
    pub queued_bytes: u64,
    /// Shards whose entries keep the oldest file from being deleted: flush these first. Empty while there is one file.
    pub oldest_file_shards: Vec<ShardId>,
    /// Why the log has stopped for good, if it has.
    pub poisoned: Option<String>,
}

/// Ends the flusher when the last handle goes.
struct Handle {
    shared: Arc<Shared>,
    flusher: Worker,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify();
        // A panic of the flusher was reported when it stopped the log.
        let _ = self.flusher.join();
    }
}

/// The log of a node, cheap to clone. When the last handle (of the log or of a group) is dropped, what is queued is
/// written and the thread ends. One directory must be open only once.
#[derive(Clone)]
pub struct ShardLog(Arc<Handle>);

impl ShardLog {
    /// Opens the log in `dir`, or begins one, and reads everything back. Fails with [`Error::Corrupt`], naming file and
    /// offset, when stored data that may have been acknowledged is damaged or missing.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<(ShardLog, Recovery)> {
        let options = LogOptions { batch_bytes: options.batch_bytes.min(64 << 20), ..options };
        let replay = recover::replay(disk, dir)?;
        let views = replay.index.groups.iter().map(|(group, index)| (*group, View::of(Some(index))));
        let state = State { views: views.collect(), index: replay.index, files: replay.files, ..State::default() };
        let groups = state.views.iter().map(|(group, view)| {
            let span = view.span.clone();
            (*group, Bounds { first: span.first, next: span.next, purged: span.purged })
        });
        let recovery = Recovery { groups: groups.collect(), notes: replay.notes };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Arc::new(Signal::default()),
            room: Condvar::new(),
            options,
            flusher: OnceLock::new(),
        });
        let flusher = flusher::start(shared.clone(), replay.writer)
            .map_err(|e| Error::Internal(format!("the thread of the shard log cannot start: {e}")))?;
        Ok((ShardLog(Arc::new(Handle { shared, flusher })), recovery))
    }

    /// The log of one raft group, which begins empty if there is none.
    pub fn group(&self, group: ShardId) -> GroupLog {
        let mut state = self.0.shared.state.lock();
        state.views.entry(group).or_default().removed = false;
        GroupLog { handle: self.0.clone(), group }
    }

    /// Sizes, and which shards to flush so that old files can be deleted.
    pub fn stats(&self) -> LogStats {
        let state = self.0.shared.state.lock();
        let oldest = state.files.keys().next().copied().filter(|_| state.files.len() > 1);
        LogStats {
            files: state.files.len(),
            bytes: state.files.values().map(|file| file.bytes).sum(),
            live_bytes: state.index.groups.values().map(|group| group.bytes).sum(),
            queued_bytes: state.queued_bytes,
            oldest_file_shards: oldest.map(|file| state.index.groups_in_oldest(file)).unwrap_or_default(),
            poisoned: state.poisoned.clone(),
        }
    }
}
