//! openraft's log storage over a [`MetaStore`]: the whole log is held in memory (snapshots keep it short), and every
//! change is written through.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use parking_lot::Mutex;

use super::raft::MetaTypes;
use super::store::{Change, Record, Stored, decode, encode};
use super::writer::Writer;

type Entry = EntryOf<MetaTypes>;
type LogId = LogIdOf<MetaTypes>;
type Vote = VoteOf<MetaTypes>;

/// The log, the vote and what is known to be committed. Clones share it.
#[derive(Clone)]
pub(super) struct LogStore {
    held: Arc<Mutex<Held>>,
    writer: Arc<Writer>,
}

#[derive(Default)]
struct Held {
    log: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl LogStore {
    /// The log as it was stored.
    pub(super) fn open(stored: &Stored, writer: Arc<Writer>) -> io::Result<LogStore> {
        let record = |record: Record| stored.records.get(&record);
        let mut held = Held {
            log: BTreeMap::new(),
            vote: record(Record::Vote).map(|bytes| decode("the vote", bytes)).transpose()?,
            committed: record(Record::Committed).map(|bytes| decode("the commit mark", bytes)).transpose()?,
            purged: record(Record::Purged).map(|bytes| decode("the purge mark", bytes)).transpose()?,
        };
        // A purge writes its mark first; entries it did not come to remove are not part of the log.
        let first = held.purged.map_or(0, |id: LogId| id.index + 1);
        for (expected, (index, bytes)) in (first..).zip(stored.log.range(first..)) {
            if *index != expected {
                let text = format!("entry {expected} of the metadata log is missing");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            held.log.insert(*index, decode(&format!("entry {index} of the metadata log"), bytes)?);
        }
        Ok(LogStore { held: Arc::new(Mutex::new(held)), writer })
    }
}

impl RaftLogReader<MetaTypes> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.held.lock().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.held.lock().vote)
    }
}

impl RaftLogStorage<MetaTypes> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<MetaTypes>, io::Error> {
        let held = self.held.lock();
        let last = held.log.last_key_value().map(|(_, entry)| entry.log_id());
        Ok(LogState { last_purged_log_id: held.purged, last_log_id: last.or(held.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.writer.write(vec![Change::Set(Record::Vote, encode(vote)?)]).await?;
        self.held.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.held.lock().committed = committed;
        if let Some(committed) = committed {
            // Not waited for: an older mark only means that a restart has to hear from the group before it is current.
            let change = Change::Set(Record::Committed, encode(&committed)?);
            self.writer.submit(vec![change], |_| {}).await?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.held.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<MetaTypes>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        {
            let mut held = self.held.lock();
            for entry in entries {
                let index = entry.log_id().index;
                changes.push(Change::Put { index, entry: encode(&entry)? });
                held.log.insert(index, entry);
            }
        }
        self.writer.submit(changes, move |result| callback.io_completed(result)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first = last.map_or(0, |id| id.index + 1);
        self.held.lock().log.split_off(&first);
        self.writer.write(vec![Change::TruncateFrom(first)]).await
    }

    async fn purge(&mut self, through: LogId) -> Result<(), io::Error> {
        {
            let mut held = self.held.lock();
            held.log = held.log.split_off(&(through.index + 1));
            held.purged = Some(through);
        }
        // The mark comes first: see `open`.
        let mark = Change::Set(Record::Purged, encode(&through)?);
        self.writer.write(vec![mark, Change::PurgeThrough(through.index)]).await
    }
}
