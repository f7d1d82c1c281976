//! What all handles and the flusher share, under one lock: the queue of submitted changes, the durable index and the
//! views built on it. Holds no file open for writing and does no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use vicinal_common::disk::DiskFile;
use vicinal_common::ids::ShardId;

use super::error::LogError;
use super::format::{Kind, RECORD_HEADER_BYTES, Record};
use super::index::{Index, Slot};
use super::view::View;

/// Called once with the fate of a change: `Ok` only after the sync. It runs on the log's thread (or at once on the
/// caller's, when the change is refused), so it must be short.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// One submitted change, kept whole: its records go into one batch.
pub(super) struct Op {
    pub(super) records: Vec<Record>,
    /// None for truncations, purges and removals. They cannot be refused for want of room: they wait for it.
    pub(super) done: Option<Done>,
}

impl Op {
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| (RECORD_HEADER_BYTES + record.bytes.len()) as u64).sum()
    }
}

/// A file of the log.
#[derive(Clone)]
pub(super) struct LogFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
}

/// Part of an answer to a read: what is in memory, or where to read it.
pub(super) enum Found {
    Memory(u64, Bytes),
    File(u64, Slot, Arc<dyn DiskFile>),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) views: BTreeMap<ShardId, View>,
    /// By sequence number; the last one is written to.
    pub(super) files: BTreeMap<u32, LogFile>,
    /// In the order of submission, over all groups.
    pub(super) queue: VecDeque<Op>,
    /// Bytes of the queue and of the batch that is being written.
    pub(super) queued_bytes: u64,
    /// The last batch met a full disk.
    pub(super) full: bool,
    pub(super) poisoned: Option<String>,
    pub(super) closing: bool,
}

impl State {
    pub(super) fn check_poison(&self) -> Result<(), LogError> {
        self.poisoned.clone().map_or(Ok(()), |what| Err(LogError::Poisoned(what)))
    }

    pub(super) fn view(&self, group: ShardId) -> Result<&View, LogError> {
        self.views.get(&group).filter(|view| !view.removed).ok_or(LogError::Removed(group))
    }

    /// Takes a change of one group into the queue and shows its effect at once, or does neither.
    pub(super) fn submit(&mut self, group: ShardId, op: Op) -> Result<(), (LogError, Op)> {
        match self.check(group, &op) {
            Ok(()) => {
                self.show(group, &op.records);
                self.queued_bytes += op.bytes();
                self.queue.push_back(op);
                Ok(())
            }
            Err(e) => Err((e, op)),
        }
    }

    fn check(&self, group: ShardId, op: &Op) -> Result<(), LogError> {
        self.check_poison()?;
        let mut span = self.view(group)?.span.clone();
        if op.records.iter().any(|record| record.kind == Kind::Purge && record.index == u64::MAX) {
            return Err(LogError::Misuse(format!("shard {group}: no entry can have the index {}", u64::MAX)));
        }
        for record in op.records.iter().filter(|record| record.kind == Kind::Entry) {
            span.append(record.index).map_err(|what| LogError::Misuse(format!("shard {group}: {what}")))?;
        }
        Ok(())
    }

    fn show(&mut self, group: ShardId, records: &[Record]) {
        let durable = self.index.groups.get(&group);
        let view = self.views.entry(group).or_default();
        for record in records {
            view.apply(record, durable).expect("the change was checked before");
        }
    }

    /// Takes the next changes off the queue: at least one, then more while they fit in `bytes`.
    pub(super) fn take_batch(&mut self, bytes: u64) -> Vec<Op> {
        let mut batch = Vec::new();
        let mut taken = 0;
        while let Some(op) = self.queue.front() {
            taken += op.bytes();
            if !batch.is_empty() && taken > bytes {
                break;
            }
            batch.extend(self.queue.pop_front());
        }
        batch
    }

    /// Whether all that waits can wait longer: nobody was promised an answer.
    pub(super) fn only_patient(&self) -> bool {
        self.queue.iter().all(|op| op.done.is_none())
    }

    /// Records that a batch is durable. Returns whom to tell. The error is a bug: the views had accepted every change.
    pub(super) fn commit(&mut self, batch: Vec<Op>, slots: &[Slot]) -> Result<Vec<Done>, String> {
        self.full = false;
        let mut places = slots.iter();
        let mut dones = Vec::new();
        for op in batch {
            self.queued_bytes -= op.bytes();
            for record in &op.records {
                let slot = places.next().ok_or("a record has no place")?;
                self.index.apply(record, *slot)?;
                if let Some(view) = self.views.get_mut(&record.group) {
                    view.durable_now(record);
                }
            }
            dones.extend(op.done);
        }
        self.views.retain(|_, view| !view.removed || view.cuts_pending > 0);
        Ok(dones)
    }

    /// Undoes everything that is not durable. Returns whom to tell. After a full disk the truncations, purges and
    /// removals among it stay in the queue and in force.
    pub(super) fn roll_back(&mut self, batch: Vec<Op>, keep: Keep) -> Vec<Done> {
        let mut dones = Vec::new();
        let mut kept: BTreeMap<ShardId, Vec<Record>> = BTreeMap::new();
        for op in batch.into_iter().chain(mem::take(&mut self.queue)) {
            match (op.done, keep) {
                (Some(done), _) => dones.push(done),
                (None, Keep::Patient) => {
                    op.records.into_iter().for_each(|record| fold(kept.entry(record.group).or_default(), record));
                }
                (None, Keep::Nothing) => {}
            }
        }
        for (group, view) in &mut self.views {
            let removed = view.removed;
            *view = View::of(self.index.groups.get(group));
            view.removed = removed;
        }
        self.queued_bytes = 0;
        for (group, records) in kept {
            let removed = self.views.get(&group).is_some_and(|view| view.removed);
            self.show(group, &records);
            self.views.entry(group).or_default().removed = removed;
            let op = Op { records, done: None };
            self.queued_bytes += op.bytes();
            self.queue.push_back(op);
        }
        dones
    }

    /// Keeps the entries in memory below `bytes_max`, as far as they can be read from files. The group with the most
    /// gives first.
    pub(super) fn evict(&mut self, bytes_max: u64) {
        loop {
            let bytes: u64 = self.views.values().map(View::recent_bytes).sum();
            let groups = &self.index.groups;
            let most = self
                .views
                .iter_mut()
                .filter(|(group, view)| view.is_evictable(groups.get(group)))
                .max_by_key(|(_, view)| view.recent_bytes());
            match most {
                Some((group, view)) if bytes > bytes_max => view.evict(bytes - bytes_max, groups.get(group)),
                _ => return,
            };
        }
    }

    /// Finds the entries of `range` that exist, until they are `bytes_max` together; the first one always.
    pub(super) fn find(
        &self,
        group: ShardId,
        range: std::ops::Range<u64>,
        bytes_max: u64,
    ) -> Result<Vec<Found>, LogError> {
        let view = self.view(group)?;
        let durable = self.index.groups.get(&group);
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in range.start.max(view.span.first)..range.end.min(view.span.next) {
            let (len, entry) = match view.recent(index) {
                Some(data) => (data.len() as u64, Found::Memory(index, data.clone())),
                None => {
                    let slot = durable.and_then(|durable| durable.slot(index));
                    let place = slot.and_then(|slot| Some((slot, self.files.get(&slot.file)?)));
                    let (slot, file) =
                        place.ok_or_else(|| LogError::Corrupt(format!("shard {group}: entry {index} has no place")))?;
                    (u64::from(slot.len), Found::File(index, slot, file.file.clone()))
                }
            };
            bytes += len;
            if !found.is_empty() && bytes > bytes_max {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }

    /// The oldest file, if nothing needs it any more.
    pub(super) fn deletable(&self) -> Option<u32> {
        let oldest = *self.files.keys().next()?;
        (self.files.len() > 1 && self.index.groups_in_oldest(oldest).is_empty()).then_some(oldest)
    }
}

/// What a roll-back leaves in the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Changes nobody waits for.
    Patient,
    /// Nothing: the log has stopped.
    Nothing,
}

/// Adds a truncation, purge or removal to those of its group, so that at most three are left however many come. The
/// order between a truncation and a purge makes no difference as long as nothing is appended in between.
fn fold(records: &mut Vec<Record>, record: Record) {
    if record.kind == Kind::Remove {
        records.clear();
    }
    match records.iter_mut().find(|earlier| earlier.kind == record.kind) {
        Some(earlier) if record.kind == Kind::Truncate => earlier.index = earlier.index.min(record.index),
        Some(earlier) if earlier.index > record.index => {}
        Some(earlier) => *earlier = record,
        None => records.push(record),
    }
}
