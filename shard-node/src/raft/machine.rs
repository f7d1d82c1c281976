//! Raft's state machine of one group: the shard.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload as RaftEntryPayload, OptionalSend};
use tokio::sync::watch;
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::LogIndex;

use super::command::{
    BIG_WEIGHT, Entry, LogId, Membership, Reply, ShardRaft, SnapshotMeta, StoredMembership, decode, encode, log_id_of,
    mark_of,
};
use super::fault::Fault;
use super::snapshot::{CHUNK_BYTES, SnapshotData};
use crate::shard::{ApplyEntry, EntryPayload, Shard, ShardSnapshot};

/// Most entries given to the shard at once: one new view is published per batch.
const BATCH_ENTRIES_MAX: usize = 256;
/// Most weight given to the shard at once, in bytes (one entry may exceed it).
const BATCH_WEIGHT_MAX: usize = 8 * 1024 * 1024;

pub(super) type Snapshot = openraft::type_config::alias::SnapshotOf<ShardRaft, SnapshotData>;

/// The shard as raft sees it.
pub(super) struct Machine {
    pub(super) shard: Arc<Shard>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) fault: Arc<Fault>,
    /// Refuse an entry that does not follow the last one. Off only for the raft library's own test suite, whose entries
    /// have gaps.
    pub(super) refuse_gaps: bool,
    /// Told after every batch, once its view is published.
    pub(super) applied: watch::Sender<Option<LogIndex>>,
}

/// Entries on their way into the shard, with those who wait for them.
#[derive(Default)]
struct Batch {
    entries: Vec<ApplyEntry>,
    waiting: Vec<Option<ApplyResponder<ShardRaft>>>,
    weight: usize,
}

impl Batch {
    fn push(&mut self, entry: Entry, responder: Option<ApplyResponder<ShardRaft>>) -> Result<()> {
        let mark = mark_of(&entry.log_id)?;
        let payload = match entry.payload {
            RaftEntryPayload::Blank => EntryPayload::Blank,
            RaftEntryPayload::Membership(membership) => EntryPayload::Membership(encode(&membership)?),
            RaftEntryPayload::Normal(command) => {
                self.weight += command.weight();
                // Points are shared, so a copy is cheap when the log still holds the entry.
                EntryPayload::Write(Arc::unwrap_or_clone(command.0))
            }
        };
        self.entries.push(ApplyEntry { mark, payload });
        self.waiting.push(responder);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES_MAX || self.weight >= BATCH_WEIGHT_MAX
    }
}

impl Machine {
    fn note(&self, error: Error) -> io::Error {
        self.fault.note(&error);
        io::Error::other(error)
    }

    async fn apply_batch(&self, batch: Batch) -> Result<()> {
        let Some(last) = batch.entries.last().map(|entry| entry.mark.index) else { return Ok(()) };
        let (shard, entries) = (self.shard.clone(), batch.entries);
        let applied = match batch.weight < BIG_WEIGHT {
            true => shard.apply(entries)?,
            false => on_blocking_thread(move || shard.apply(entries)).await?,
        };
        if applied.len() != batch.waiting.len() {
            let (got, expected) = (applied.len(), batch.waiting.len());
            return Err(Error::Internal(format!("the shard answered {got} of {expected} entries")));
        }
        self.applied.send_replace(Some(last));
        for (responder, applied) in batch.waiting.into_iter().zip(applied) {
            if let Some(responder) = responder {
                responder.send(Reply::from(applied));
            }
        }
        Ok(())
    }
}

/// Runs CPU- or disk-bound work off the async threads.
pub(super) async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    exec::blocking(work).await?
}

fn stored_membership(shard: &Shard) -> Result<StoredMembership> {
    match shard.membership() {
        Some((mark, bytes)) => {
            let membership: Membership = decode("membership", &bytes)?;
            Ok(StoredMembership::new(Some(log_id_of(&mark)?), membership))
        }
        None => Ok(StoredMembership::default()),
    }
}

fn applied_state(shard: &Shard) -> Result<(Option<LogId>, StoredMembership)> {
    let applied = shard.applied().map(|mark| log_id_of(&mark)).transpose()?;
    Ok((applied, stored_membership(shard)?))
}

fn snapshot_of(snapshot: ShardSnapshot) -> Result<Snapshot> {
    let last_membership = match &snapshot.membership {
        Some((mark, bytes)) => StoredMembership::new(Some(log_id_of(mark)?), decode("membership", bytes)?),
        None => StoredMembership::default(),
    };
    let meta = SnapshotMeta { last_log_id: Some(log_id_of(&snapshot.mark)?), last_membership };
    Ok(Snapshot { meta, snapshot: SnapshotData::Local(Arc::new(snapshot)) })
}

impl RaftStateMachine<ShardRaft> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        applied_state(&self.shard).map_err(|e| self.note(e))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<ShardRaft>>> + Unpin + OptionalSend,
    {
        // Asked again after its end, which an unready look ahead cannot tell from a pause.
        let mut entries = entries.fuse();
        let mut last = self.shard.applied().map(|mark| mark.index.0);
        while let Some(first) = entries.next().await {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(item) = next {
                let (entry, responder) = item?;
                let index = entry.log_id.index;
                if let Some(last) = last.replace(index).filter(|last| self.refuse_gaps && last + 1 != index) {
                    let words = format!("log entry {index} was to be applied after {last}");
                    return Err(self.note(Error::Corrupt(words)));
                }
                batch.push(entry, responder).map_err(|e| self.note(e))?;
                if batch.is_full() {
                    break;
                }
                // What is ready joins the batch; nobody waits for more to come.
                next = entries.next().now_or_never().flatten();
            }
            self.apply_batch(batch).await.map_err(|e| self.note(e))?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { shard: self.shard.clone(), fault: self.fault.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let (shard, disk) = (self.shard.clone(), self.disk.clone());
        let installed = on_blocking_thread(move || match snapshot {
            SnapshotData::Local(snapshot) => {
                copy_files(disk.as_ref(), &snapshot, &shard.begin_install()?)?;
                shard.finish_install(&snapshot.manifest)
            }
            // `incoming` keeps the directory to this transfer until the shard has taken the files.
            SnapshotData::Received { manifest, incoming } => {
                let result = shard.finish_install(&manifest);
                drop(incoming);
                result
            }
        });
        installed.await.map_err(|e| self.note(e))?;
        let (applied, _) = applied_state(&self.shard).map_err(|e| self.note(e))?;
        if applied != meta.last_log_id {
            let error = format!("a snapshot of {:?} led to {applied:?}", meta.last_log_id);
            return Err(self.note(Error::Corrupt(error)));
        }
        self.applied.send_replace(applied.map(|id| LogIndex(id.index)));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if self.shard.durable().is_none() {
            return Ok(None);
        }
        let shard = self.shard.clone();
        let snapshot = on_blocking_thread(move || snapshot_of(shard.snapshot()?)).await;
        snapshot.map(Some).map_err(|e| self.note(e))
    }
}

/// Pins the shard's newest durable manifest. Nothing is copied: a snapshot is the segment files that are there anyway.
pub(super) struct SnapshotBuilder {
    shard: Arc<Shard>,
    fault: Arc<Fault>,
}

impl RaftSnapshotBuilder<ShardRaft> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let shard = self.shard.clone();
        let snapshot = on_blocking_thread(move || {
            if shard.durable().is_none() {
                shard.flush_blocking()?;
            }
            snapshot_of(shard.snapshot()?)
        });
        snapshot.await.map_err(|e| {
            self.fault.note(&e);
            io::Error::other(e)
        })
    }
}

/// Copies a snapshot's files into `to`, durably.
fn copy_files(disk: &dyn Disk, snapshot: &ShardSnapshot, to: &Path) -> Result<()> {
    let copy = |from: &Path, to: &Path| -> io::Result<()> {
        let bytes = disk.map(from)?;
        let file = disk.create(to)?;
        for (i, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            file.write_at(i as u64 * CHUNK_BYTES as u64, chunk)?;
        }
        file.sync()
    };
    for file in &snapshot.files {
        copy(&file.path, &to.join(&file.name))
            .map_err(|e| Error::Internal(format!("copy {}: {e}", file.path.display())))?;
    }
    disk.sync_dir(to).map_err(|e| Error::Internal(format!("sync {}: {e}", to.display())))
}
