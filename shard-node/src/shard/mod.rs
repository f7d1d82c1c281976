//! One replica of a shard: the fresh part, the segments, and the position in the log up to which they hold everything.
//!
//! Locks, in the order they are taken: `optimizer` (one merge or build at a time), `opening` (one graph opened again at a
//! time), `commit` (the durable state), `writer` (the newest state), and `deaths`. Readers take none: they load the
//! published [`View`].

mod background;
mod builder;
mod clusters;
mod commit;
mod compact;
mod copies;
mod deaths;
mod edit;
mod entry;
mod environment;
mod facet;
mod feed;
mod files;
mod flush;
mod goal;
mod matching;
mod ordered;
mod pace;
mod patience;
mod payload;
mod recover;
mod requests;
mod search;
mod select;
mod snapshot;
#[cfg(test)]
mod tests;
mod tuning;
mod view;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use vicinal_common::api::{BuildStatus, PayloadStatus, ReplicaSpec};
use vicinal_common::error::{Error, Result};

pub use builder::{Builder, BuilderOptions};
pub use deaths::{Deaths, Died};
pub use entry::{Applied, ApplyEntry, ApplyOutcome, EntryPayload, LogMark, LoggedWrite};
pub use environment::{Background, MapSource, ShardEnv, ShardOptions};
pub use pace::{Pace, Paces};
pub use patience::Patience;
pub use snapshot::{ShardSnapshot, SnapshotFile};
pub use view::View;

use self::commit::Committed;
use self::compact::RunningBuild;
use self::deaths::DeathLog;
use self::view::LiveSegment;
use self::write::Writer;
use crate::optimizer::{Action, Policy, wants_index};
use crate::segment::{Layout, Run, StoredFile};

/// A replica of a shard.
pub struct Shard {
    env: ShardEnv,
    dir: PathBuf,
    spec: ReplicaSpec,
    spec_digest: u32,
    layout: Arc<Layout>,
    /// As if all graphs were wanted.
    policy: Policy,
    /// The newest state. Replaced only while `writer` is locked.
    view: ArcSwap<View>,
    writer: Mutex<Writer>,
    /// Which rows died lately; `None` while nobody watches. Switched, and added to, only while `writer` is locked.
    deaths: Mutex<Option<DeathLog>>,
    commit: Mutex<Committed>,
    optimizer: Mutex<()>,
    opening: Mutex<()>,
    /// The vector index that is being built: one at a time.
    build: Mutex<Option<RunningBuild>>,
    /// The position of `commit`, readable while a flush holds that lock.
    durable: Mutex<Option<LogMark>>,
    listeners: Mutex<Vec<Arc<DurableListener>>>,
    health: Mutex<Health>,
    next_file: AtomicU64,
    flush_requested: AtomicBool,
    flush_scheduled: AtomicBool,
    /// A check whether writing has paused is under way.
    idle_scheduled: AtomicBool,
    optimizer_scheduled: AtomicBool,
    opening_scheduled: AtomicBool,
    closed: AtomicBool,
    paces: Paces,
    this: Weak<Shard>,
}

/// Called with each new durable position, on the thread that made it durable. Must not wait for the shard.
pub type DurableListener = Box<dyn Fn(LogMark) + Send + Sync>;

/// Why writes are refused, in plain words.
#[derive(Clone, Debug, Default)]
struct Health {
    /// Until there is room on the disk.
    read_only: Option<String>,
    /// For good.
    failed: Option<String>,
}

/// State of a shard for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStats {
    /// Live points.
    pub points: u64,
    /// Vectors in segments that have an index, or are scanned by design: small ones, and all where no index is wanted.
    pub indexed_vectors: u64,
    /// Vectors in segments that are to get an index and have none yet.
    pub waiting_vectors: u64,
    /// Immutable segments.
    pub segments: u64,
    /// Rows not yet in a segment.
    pub fresh_rows: u64,
    /// Bytes of segment and index files.
    pub disk_bytes: u64,
    /// Revision of the tuning that it follows.
    pub tuning: u64,
    /// Payload indexes.
    pub payload: PayloadStatus,
    /// Whether background work is under way or due.
    pub optimizing: bool,
    /// Vector indexes that are being built.
    pub builds: Vec<BuildStatus>,
    /// Why writes are refused until there is room on the disk, in plain words.
    pub read_only: Option<String>,
    /// Why the replica refuses writes for good, in plain words.
    pub failed: Option<String>,
}

impl Shard {
    /// What it was created from.
    pub fn spec(&self) -> &ReplicaSpec {
        &self.spec
    }

    /// How long its reads have taken lately.
    pub fn paces(&self) -> &Paces {
        &self.paces
    }

    /// The last applied position; after opening, the durable one. `None`: nothing was ever applied.
    pub fn applied(&self) -> Option<LogMark> {
        self.writer.lock().mark.clone()
    }

    /// The last applied membership and where it stands in the log.
    pub fn membership(&self) -> Option<(LogMark, Bytes)> {
        self.writer.lock().membership.clone()
    }

    /// The newest state. It stays as it is; take a new one for newer data.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Whether a write may be proposed. `Overloaded` while sealing is behind; `Unavailable` when the disk is full or
    /// the replica has failed.
    pub fn admit(&self) -> Result<()> {
        self.check_failed()?;
        if let Some(reason) = &self.health.lock().read_only {
            return Err(Error::Unavailable(reason.clone()));
        }
        let (bytes, limit) = (self.view.load().fresh_bytes(), self.env.options.fresh_bytes_max);
        if bytes > limit {
            let shard = self.spec.shard;
            return Err(Error::Overloaded(format!(
                "shard {shard} holds {bytes} bytes that are not sealed yet, the limit is {limit}: write more slowly"
            )));
        }
        Ok(())
    }

    /// The newest durable position: the log is not needed up to here.
    pub fn durable(&self) -> Option<LogMark> {
        self.durable.lock().clone()
    }

    /// Registers a listener for durable positions.
    pub fn on_durable(&self, listener: DurableListener) {
        self.listeners.lock().push(Arc::new(listener));
    }

    /// Numbers for people.
    pub fn stats(&self) -> ShardStats {
        let view = self.view.load_full();
        let health = self.health.lock().clone();
        let files = || view.segments.iter().flat_map(LiveSegment::files).map(StoredFile::info);
        let policy = self.policy(&view.wanted);
        let vectors = view.segments.iter().map(|segment| self.count_vectors(segment, &policy));
        let (indexed_vectors, waiting_vectors) = vectors.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        ShardStats {
            points: view.live,
            indexed_vectors,
            waiting_vectors,
            segments: view.segments.len() as u64,
            fresh_rows: view.fresh.iter().map(|fresh| u64::from(fresh.run.rows() - fresh.dead.count())).sum(),
            disk_bytes: files().map(|info| info.bytes).sum(),
            tuning: view.wanted.tuning.revision,
            payload: view.payload_stats(),
            builds: self.build.lock().iter().map(|build| build.status(&self.layout)).collect(),
            optimizing: health.failed.is_none() && self.is_optimizing(),
            read_only: health.read_only,
            failed: health.failed,
        }
    }

    fn is_optimizing(&self) -> bool {
        let scheduled = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        // A flush under way holds the lock, and work is under way then.
        let Some(committed) = self.commit.try_lock() else { return true };
        scheduled(&self.flush_scheduled)
            || scheduled(&self.idle_scheduled)
            || scheduled(&self.optimizer_scheduled)
            || scheduled(&self.opening_scheduled)
            || self.is_misplaced(&committed)
            || !matches!(self.next_action(&committed), Action::Nothing)
    }

    /// Live vectors of a segment: those that have an index or need none, and those that wait for one.
    fn count_vectors(&self, live: &LiveSegment, policy: &Policy) -> (u64, u64) {
        let (mut indexed, mut waiting) = (0, 0);
        for (ordinal, vector) in self.layout.vectors.iter().enumerate() {
            let present = live.segment.vectors(ordinal).present;
            let bytes = present.count() * vector.dim as u64 * 4;
            let words = present.words().iter().enumerate();
            let vectors: u64 = words.map(|(word, rows)| u64::from((rows & !live.dead.word(word)).count_ones())).sum();
            match live.indexes[ordinal].is_none() && wants_index(policy, ordinal, bytes) {
                true => waiting += vectors,
                false => indexed += vectors,
            }
        }
        (indexed, waiting)
    }

    /// Why the replica refuses writes for good, in plain words.
    pub fn failure(&self) -> Option<String> {
        self.health.lock().failed.clone()
    }

    fn check_failed(&self) -> Result<()> {
        self.failure().map_or(Ok(()), |reason| Err(Error::Unavailable(reason)))
    }

    /// Refuses writes for good. The first reason stays.
    fn fail(&self, reason: String) {
        let mut health = self.health.lock();
        if health.failed.is_none() {
            tracing::error!(shard = %self.spec.shard, %reason, "the replica has failed and refuses writes");
            health.failed = Some(format!("shard {} has failed: {reason}", self.spec.shard));
        }
    }

    fn set_read_only(&self, reason: Option<String>) {
        self.health.lock().read_only = reason;
    }

    fn tell_durable(&self, mark: &LogMark) {
        let listeners = self.listeners.lock().clone();
        for listener in listeners {
            listener(mark.clone());
        }
    }
}
