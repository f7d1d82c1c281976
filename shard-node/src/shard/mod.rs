//! One replica of a shard: the fresh part, the segments, and the position in the log up to which they hold everything.

mod builder;
mod entry;
mod environment;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use vicinal_common::api::{NearestQuery, PointParts, ReplicaSpec, ShardHit, StoredPoint};
use vicinal_common::error::Result;
use vicinal_common::filter::Filter;
use vicinal_common::ids::LogIndex;
use vicinal_common::point::PointId;

pub use builder::{Builder, BuilderOptions};
pub use entry::{Applied, ApplyEntry, ApplyOutcome, EntryPayload, LogMark, LoggedWrite};
pub use environment::{Background, ShardEnv, ShardOptions};

/// A replica of a shard.
pub struct Shard {}

/// An immutable, consistent state of a shard.
pub struct View {}

/// Called with each new durable position.
pub type DurableListener = Box<dyn Fn(LogMark) + Send + Sync>;

/// State of a shard for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Live points.
    pub points: u64,
    /// Vectors in segments that have an index or are small enough to be scanned by design.
    pub indexed_vectors: u64,
    /// Immutable segments.
    pub segments: u64,
    /// Rows not yet in a segment.
    pub fresh_rows: u64,
    /// Bytes of segment and index files.
    pub disk_bytes: u64,
    /// Whether background work is under way or due.
    pub optimizing: bool,
    /// Why writes are refused until there is room, in plain words.
    pub read_only: Option<String>,
    /// Why the replica refuses writes for good, in plain words.
    pub failed: Option<String>,
}

/// A durable state that stays on disk while this lives.
pub struct ShardSnapshot {
    /// Its position.
    pub mark: LogMark,
    /// The membership at that position.
    pub membership: Option<(LogMark, Bytes)>,
    /// The manifest: what `finish_install` takes.
    pub manifest: Bytes,
    /// The files the manifest names.
    pub files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Name in the shard's directory, and in the directory of `begin_install`.
    pub name: String,
    /// Where it is now.
    pub path: PathBuf,
    /// Length in bytes.
    pub bytes: u64,
    /// CRC32 of the whole file.
    pub crc: u32,
}

#[allow(unused_variables, clippy::todo)]
impl Shard {
    /// Creates the shard in `dir`, durably; opens it when it exists already. `Conflict` when `dir` holds another shard.
    pub fn create(env: &ShardEnv, dir: &Path, spec: &ReplicaSpec) -> Result<Arc<Shard>> {
        todo!()
    }
    /// Opens an existing shard. `NotFound` when there is none in `dir`, `Corrupt` when its files are damaged.
    pub fn open(env: &ShardEnv, dir: &Path) -> Result<Arc<Shard>> {
        todo!()
    }
    /// What it was created from.
    pub fn spec(&self) -> &ReplicaSpec {
        todo!()
    }
    /// The last applied position; after `open` the durable one. `None`: nothing was ever applied.
    pub fn applied(&self) -> Option<LogMark> {
        todo!()
    }
    /// The last applied membership and where it stands in the log.
    pub fn membership(&self) -> Option<(LogMark, Bytes)> {
        todo!()
    }
    /// Applies entries in log order and publishes one new view for all of them.
    pub fn apply(&self, entries: Vec<ApplyEntry>) -> Result<Vec<Applied>> {
        todo!()
    }
    /// The newest state.
    pub fn view(&self) -> Arc<View> {
        todo!()
    }
    /// Whether a write may be proposed.
    pub fn admit(&self) -> Result<()> {
        todo!()
    }
    /// The newest durable position.
    pub fn durable(&self) -> Option<LogMark> {
        todo!()
    }
    /// Registers a listener.
    pub fn on_durable(&self, listener: DurableListener) {
        todo!()
    }
    /// Asks for the fresh part to be sealed soon.
    pub fn request_flush(&self) {
        todo!()
    }
    /// Seals the fresh part and commits the position now.
    pub fn flush_blocking(&self) -> Result<()> {
        todo!()
    }
    /// Pins the durable state.
    pub fn snapshot(&self) -> Result<ShardSnapshot> {
        todo!()
    }
    /// An empty directory to put the files of a snapshot into.
    pub fn begin_install(&self) -> Result<PathBuf> {
        todo!()
    }
    /// Replaces the whole state by the snapshot in the directory of `begin_install`.
    pub fn finish_install(&self, manifest: &[u8]) -> Result<()> {
        todo!()
    }
    /// Numbers for people.
    pub fn stats(&self) -> ShardStats {
        todo!()
    }
    /// Does one piece of background work; false when there is none.
    pub fn maintain_once(&self) -> Result<bool> {
        todo!()
    }
    /// Stops background work.
    pub fn close(&self) {
        todo!()
    }
}

#[allow(unused_variables, clippy::todo)]
impl View {
    /// The position it holds everything up to.
    pub fn applied(&self) -> LogIndex {
        todo!()
    }
    /// Nearest neighbours.
    pub fn search(&self, query: &NearestQuery) -> Result<Vec<ShardHit>> {
        todo!()
    }
    /// Points by id, in the order of `ids`.
    pub fn retrieve(&self, ids: &[PointId], parts: &PointParts) -> Result<Vec<StoredPoint>> {
        todo!()
    }
    /// Points in id order.
    pub fn scroll(
        &self,
        from: Option<PointId>,
        limit: usize,
        filter: Option<&Filter>,
        parts: &PointParts,
    ) -> Result<Vec<StoredPoint>> {
        todo!()
    }
    /// Number of matching points.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        todo!()
    }
}
