//! The handle of one raft group on the node's log.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use vicinal_common::disk::DiskFile;
use vicinal_common::ids::ShardId;

use super::error::LogError;
use super::format::{self, Kind, RECORD_HEADER_BYTES, Record};
use super::index::Slot;
use super::state::{Done, Found, Op};
use super::{APPEND_BYTES_MAX, Bounds, Handle, LogEntry, STATE_BYTES_MAX};

/// The log of one raft group, cheap to clone. Changes take effect in the order of the calls and can be read at once;
/// they are durable when their callback says so. After a callback with an error, what it stood for and everything
/// submitted later is undone, in memory too: [`GroupLog::bounds`] tells what is left.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) handle: Arc<Handle>,
    pub(super) group: ShardId,
}

impl GroupLog {
    /// The shard whose raft group this is.
    pub fn shard(&self) -> ShardId {
        self.group
    }

    /// Appends entries, which must follow each other and the last one of the log. At most 128 MiB in one call. `done`
    /// is called after the sync. May block for a moment while the queue of the node is full.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) {
        let records = entries.into_iter().map(|entry| self.record(Kind::Entry, entry.index, entry.bytes)).collect();
        self.submit(records, APPEND_BYTES_MAX, Some(done));
    }

    /// Saves a small state (at most 64 KiB) under a key; the last one per key counts. `done` is called after the sync.
    pub fn save_state(&self, key: u8, bytes: Bytes, done: Done) {
        self.submit(vec![self.record(Kind::State, u64::from(key), bytes)], STATE_BYTES_MAX, Some(done));
    }

    /// The last state saved under a key, whether it is durable yet or not.
    pub fn load_state(&self, key: u8) -> Result<Option<Bytes>, LogError> {
        Ok(self.handle.shared.state.lock().view(self.group)?.states.get(&key).cloned())
    }

    /// Drops the entries with a larger index; all with `None`. Durable before anything that is appended later.
    pub fn truncate_after(&self, index: Option<u64>) -> Result<(), LogError> {
        let from = index.map_or(0, |index| index.saturating_add(1));
        self.submit_quietly(self.record(Kind::Truncate, from, Bytes::new()))
    }

    /// Drops the entries up to `index` (inclusive) and keeps `marker` (at most 64 KiB), by which the caller knows the
    /// last one. Entries may end before `index`: the log then goes on after it. Durable with the next sync; a purge
    /// below an earlier one does nothing.
    pub fn purge_to(&self, index: u64, marker: Bytes) -> Result<(), LogError> {
        self.submit_quietly(self.record(Kind::Purge, index, marker))
    }

    /// Forgets the group: entries, states and purge. Durable with the next sync. Other handles of it fail from now on;
    /// [`super::ShardLog::group`] begins it anew.
    pub fn remove(&self) -> Result<(), LogError> {
        self.submit_quietly(self.record(Kind::Remove, 0, Bytes::new()))
    }

    /// Reads entries of `range`, in order, as many as exist and fit in `max_bytes` together, but at least one if any
    /// exists. Indexes that were purged or are not yet there are left out. Blocks on the disk for old entries.
    pub fn read(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<LogEntry>, LogError> {
        let found = self.handle.shared.state.lock().find(self.group, range, max_bytes)?;
        found
            .into_iter()
            .map(|entry| match entry {
                Found::Memory(index, bytes) => Ok(LogEntry { index, bytes }),
                Found::File(index, slot, file) => self.read_file(index, slot, &*file),
            })
            .collect()
    }

    /// What entries there are and what was purged.
    pub fn bounds(&self) -> Result<Bounds, LogError> {
        let state = self.handle.shared.state.lock();
        let span = &state.view(self.group)?.span;
        Ok(Bounds { first: span.first, next: span.next, purged: span.purged.clone() })
    }

    /// Bytes of the live entries.
    pub fn bytes(&self) -> Result<u64, LogError> {
        Ok(self.handle.shared.state.lock().view(self.group)?.bytes)
    }

    fn record(&self, kind: Kind, index: u64, bytes: Bytes) -> Record {
        Record { kind, group: self.group, index, bytes }
    }

    fn submit(&self, records: Vec<Record>, bytes_max: u64, done: Option<Done>) {
        let op = Op { records, done };
        let refused = if op.bytes() > bytes_max {
            Err((LogError::Misuse(format!("{} bytes are more than the {bytes_max} of one change", op.bytes())), op))
        } else {
            self.handle.shared.submit(self.group, op)
        };
        if let Err((e, Op { done: Some(done), .. })) = refused {
            done(Err(e));
        }
    }

    fn submit_quietly(&self, record: Record) -> Result<(), LogError> {
        let op = Op { records: vec![record], done: None };
        if op.bytes() > STATE_BYTES_MAX {
            return Err(LogError::Misuse(format!("{} bytes are too many for a marker", op.bytes())));
        }
        self.handle.shared.submit(self.group, op).map_err(|(e, _)| e)
    }

    /// Reads an entry where it lies and makes sure that it is the one.
    fn read_file(&self, index: u64, slot: Slot, file: &dyn DiskFile) -> Result<LogEntry, LogError> {
        let place = |what: &str| {
            let name = format::file_name(u64::from(slot.file));
            format!("shard log {name} at offset {}: entry {index} of shard {}: {what}", slot.offset, self.group)
        };
        let mut bytes = vec![0; RECORD_HEADER_BYTES + slot.len as usize];
        file.read_at(slot.offset, &mut bytes).map_err(|e| LogError::Io(place(&e.to_string())))?;
        let (record, _) = format::read_record(&bytes).map_err(|what| LogError::Corrupt(place(&what)))?;
        if (record.kind, record.group, record.index) != (Kind::Entry, self.group, index) {
            return Err(LogError::Corrupt(place("another record stands there")));
        }
        Ok(LogEntry { index, bytes: Bytes::from(bytes).slice(RECORD_HEADER_BYTES..) })
    }
}
