//! The raft log of one shard on the node's shared log: entries, vote, committed position.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use vicinal_common::error::Error;
use vicinal_common::limits::APPEND_BYTES_MAX;

use super::command::{Entry, LogId, ShardRaft, Vote, decode, encode};
use super::fault::Fault;
use crate::log::{GroupLog, LogEntry, LogError};

/// Key of the vote among the group's saved states.
const VOTE: u8 = 1;
/// Key of the committed position.
const COMMITTED: u8 = 2;

/// Bytes of one append to the shared log; raft may hand over more at once.
const APPEND_CALL_BYTES: usize = 16 * 1024 * 1024;

/// Raft's log, vote and committed position of one group.
#[derive(Clone)]
pub(super) struct LogStore {
    log: GroupLog,
    fault: Arc<Fault>,
    /// Committed position that is newer than the stored one. Stored with the next append or by the next
    /// [`LogStore::save_pending`]: a sync of its own for each commit would double the syncs of every write.
    pending: Arc<Mutex<Option<LogId>>>,
}

impl LogStore {
    pub(super) fn new(log: GroupLog, fault: Arc<Fault>) -> LogStore {
        LogStore { log, fault, pending: Arc::new(Mutex::new(None)) }
    }

    /// Hands a newer committed position to the log without waiting for its sync.
    pub(super) fn save_pending(&self) {
        let newest = self.pending.lock().take();
        if let Some(id) = newest {
            self.save_committed_bytes(&id);
        }
    }

    fn save_committed_bytes(&self, id: &LogId) {
        // Losing this record costs a slower start, nothing else: a failure is not worth stopping for.
        match encode(id) {
            Ok(bytes) => self.log.save_state(COMMITTED, bytes, Box::new(|_| ())),
            Err(e) => tracing::warn!(error = %e, "cannot encode the committed position"),
        }
    }

    /// Entries of `start..end`, at most about `max_bytes` but at least one if there is any.
    fn read(&self, start: u64, end: u64, max_bytes: u64) -> io::Result<Vec<Entry>> {
        let entries = self.log.read(start..end, max_bytes).map_err(|e| self.note_log(e))?;
        entries.iter().map(|e| decode_entry(e).map_err(|e| self.note(e))).collect()
    }

    /// Remembers why raft is about to stop, and turns it into what raft understands.
    fn note(&self, error: Error) -> io::Error {
        self.fault.note(&error);
        io::Error::other(error)
    }

    fn note_log(&self, error: LogError) -> io::Error {
        self.fault.note_log(&error);
        io::Error::other(error)
    }

    fn last_log_id(&self) -> io::Result<Option<LogId>> {
        let bounds = self.log.bounds().map_err(|e| self.note_log(e))?;
        match bounds.last() {
            Some(last) => Ok(self.read(last, last + 1, 1)?.pop().map(|entry| entry.log_id)),
            None => self.purged(),
        }
    }

    fn purged(&self) -> io::Result<Option<LogId>> {
        let bounds = self.log.bounds().map_err(|e| self.note_log(e))?;
        let marker = bounds.purged.map(|(_, marker)| decode("purge position", &marker));
        marker.transpose().map_err(|e| self.note(e))
    }
}

fn decode_entry(stored: &LogEntry) -> Result<Entry, Error> {
    let entry: Entry = decode("entry", &stored.bytes)?;
    if entry.log_id.index != stored.index {
        let (says, at) = (entry.log_id.index, stored.index);
        return Err(Error::Corrupt(format!("the entry stored at log index {at} says it is {says}")));
    }
    Ok(entry)
}

/// What [`LogStore::entries_stream`] has read and not yet given out.
struct Reading {
    store: LogStore,
    next: u64,
    end: u64,
    /// Something was read.
    begun: bool,
    ready: std::vec::IntoIter<Entry>,
}

impl Reading {
    /// The next entry; reads about [`APPEND_BYTES_MAX`] at a time, so that a long replay needs little memory.
    fn step(&mut self) -> Option<io::Result<Entry>> {
        if let Some(entry) = self.ready.next() {
            return Some(Ok(entry));
        }
        if self.next >= self.end {
            return None;
        }
        match self.store.read(self.next, self.end, APPEND_BYTES_MAX) {
            Ok(entries) => {
                // The log may end before the range, or begin within it; a hole in between is damage.
                let first = entries.first()?.log_id.index;
                if self.begun && first != self.next {
                    let error = Error::Corrupt(format!("log entry {} is missing", self.next));
                    self.next = self.end;
                    return Some(Err(self.store.note(error)));
                }
                self.begun = true;
                self.next = first + entries.len() as u64;
                self.ready = entries.into_iter();
                self.ready.next().map(Ok)
            }
            Err(e) => {
                self.next = self.end;
                Some(Err(e))
            }
        }
    }
}

fn bounds_of(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&at) => at + 1,
        Bound::Excluded(&at) => at,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<ShardRaft> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds_of(&range);
        self.read(start, end, u64::MAX)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds_of(&range);
        let reading = Reading { store: self.clone(), next: start, end, begun: false, ready: Vec::new().into_iter() };
        futures::stream::unfold(reading, |mut reading| async move { reading.step().map(|item| (item, reading)) })
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end, APPEND_BYTES_MAX)?;
        // Entries behind a gap must never reach a follower; raft takes nothing as a heartbeat.
        let begins_right = entries.first().is_some_and(|first| first.log_id.index == start);
        Ok(if begins_right { entries } else { Vec::new() })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let stored = self.log.load_state(VOTE).map_err(|e| self.note_log(e))?;
        stored.map(|bytes| decode("vote", &bytes)).transpose().map_err(|e| self.note(e))
    }
}

impl RaftLogStorage<ShardRaft> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<ShardRaft>> {
        Ok(LogState { last_purged_log_id: self.purged()?, last_log_id: self.last_log_id()? })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = encode(vote).map_err(|e| self.note(e))?;
        let (done, durable) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| {
            // Raft may have stopped waiting: then nobody acts on the vote.
            let _ = done.send(result);
        });
        self.log.save_state(VOTE, bytes, done);
        match durable.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(self.note_log(e)),
            Err(_) => Err(self.note(Error::Internal("the shard log was closed while a vote was saved".into()))),
        }
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        *self.pending.lock() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let pending = *self.pending.lock();
        let stored = self.log.load_state(COMMITTED).map_err(|e| self.note_log(e))?;
        let stored = stored.map(|bytes| decode("committed position", &bytes)).transpose().map_err(|e| self.note(e))?;
        // Entries whose append failed may have been committed by others and noted here: what is not in this log is
        // not replayed from it.
        let last = self.last_log_id()?;
        Ok(pending.max(stored).min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<ShardRaft>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let stored = LogEntry { index: entry.log_id.index, bytes: encode(&entry).map_err(|e| self.note(e))? };
            if bytes + stored.bytes.len() > APPEND_CALL_BYTES && !encoded.is_empty() {
                // When a part fails, the log refuses the later ones too: the last part's callback speaks for all.
                self.log.append(std::mem::take(&mut encoded), Box::new(|_| ()));
                bytes = 0;
            }
            bytes += stored.bytes.len();
            encoded.push(stored);
        }
        self.save_pending();
        let fault = self.fault.clone();
        let done = move |result: Result<(), LogError>| {
            callback.io_completed(result.map_err(|e| {
                fault.note_log(&e);
                io::Error::other(e)
            }));
        };
        self.log.append(encoded, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last_log_id.map(|id| id.index)).map_err(|e| self.note_log(e))
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let marker = encode(&log_id).map_err(|e| self.note(e))?;
        self.log.purge_to(log_id.index, marker).map_err(|e| self.note_log(e))
    }
}
