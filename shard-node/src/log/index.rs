//! What the files hold: for each group its entries' places, its states and its last purge. The flusher and the replay
//! feed it the same records in the same order, so both end in the same state.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use vicinal_common::ids::ShardId;

use super::format::{Kind, Record, read_u64};
use super::span::Span;

/// Where the record of an entry starts, and how many bytes the entry has. 16 bytes: there is one for every live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) file: u32,
}

/// The durable part of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupIndex {
    pub(super) span: Span,
    pub(super) states: BTreeMap<u8, Bytes>,
    /// Sum of the lengths of the live entries.
    pub(super) bytes: u64,
    /// Entries below this index lie in files that were deleted, which is right only while replaying: a later record
    /// must drop them.
    missing_below: u64,
    /// Places of the entries from `max(span.first, missing_below)` to `span.next`.
    slots: VecDeque<Slot>,
}

impl GroupIndex {
    /// Index of the entry of the first slot.
    fn slots_first(&self) -> u64 {
        self.span.next - self.slots.len() as u64
    }

    pub(super) fn slot(&self, index: u64) -> Option<Slot> {
        let at = index.checked_sub(self.slots_first())?;
        self.slots.get(usize::try_from(at).ok()?).copied()
    }

    /// Drops the slots of the entries that `span` had in `old` and no longer has.
    fn drop_slots(&mut self, old: &Span, old_slots_first: u64) {
        let slots = self.slots.len() as u64;
        let cut = old.next.saturating_sub(self.span.next.max(old_slots_first)).min(slots);
        let purged = self.span.first.saturating_sub(old_slots_first).min(slots - cut);
        let tail = self.slots.drain((slots - cut) as usize..).map(|slot| u64::from(slot.len)).sum::<u64>();
        let head = self.slots.drain(..purged as usize).map(|slot| u64::from(slot.len)).sum::<u64>();
        self.bytes -= tail + head;
        if self.slots.capacity() > 1024 && self.slots.capacity() / 4 > self.slots.len() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// Applies a record (not `Remove`, not `Bounds`). The error says which rule it breaks.
    fn apply(&mut self, record: &Record, slot: Slot) -> Result<(), String> {
        let (old, old_slots_first) = (self.span.clone(), self.slots_first());
        match record.kind {
            Kind::Entry => {
                self.span.append(record.index)?;
                self.slots.push_back(slot);
                self.bytes += u64::from(slot.len);
            }
            Kind::State => {
                let key = u8::try_from(record.index).map_err(|_| format!("there is no state {}", record.index))?;
                self.states.insert(key, record.bytes.clone());
            }
            Kind::Truncate => {
                self.span.truncate(record.index);
                self.drop_slots(&old, old_slots_first);
            }
            Kind::Purge => {
                self.span.purge(record.index, &record.bytes);
                self.drop_slots(&old, old_slots_first);
            }
            Kind::Remove | Kind::Bounds => return Err(format!("a {:?} record is none of one group", record.kind)),
        }
        self.missing_below = if self.span.is_empty() { 0 } else { self.missing_below.min(self.span.next) };
        Ok(())
    }
}

/// The durable part of all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) groups: BTreeMap<ShardId, GroupIndex>,
}

impl Index {
    /// Applies a record of a commit batch that lies at `slot`. The error says which rule it breaks.
    pub(super) fn apply(&mut self, record: &Record, slot: Slot) -> Result<(), String> {
        if record.kind == Kind::Remove {
            self.groups.remove(&record.group);
            return Ok(());
        }
        self.groups
            .entry(record.group)
            .or_default()
            .apply(record, slot)
            .map_err(|what| format!("shard {}: {what}", record.group))
    }

    /// What a new file must repeat so that the older ones can be deleted.
    pub(super) fn checkpoint(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (&group, index) in &self.groups {
            let mut push = |kind, index, bytes| records.push(Record { kind, group, index, bytes });
            if let Some((purged, marker)) = &index.span.purged {
                push(Kind::Purge, *purged, marker.clone());
            }
            for (key, bytes) in &index.states {
                push(Kind::State, u64::from(*key), bytes.clone());
            }
            push(Kind::Bounds, index.span.first, Bytes::copy_from_slice(&index.span.next.to_le_bytes()));
        }
        records
    }

    /// Takes over the checkpoint of the oldest file. Its entries lie in files that are gone.
    pub(super) fn begin(&mut self, checkpoint: &[Record]) -> Result<(), String> {
        for record in checkpoint {
            let index = self.groups.entry(record.group).or_default();
            if record.kind == Kind::Bounds {
                let next = read_u64(&record.bytes).filter(|next| *next >= record.index);
                index.span.first = record.index;
                index.span.next = next.ok_or("a checkpoint has impossible bounds")?;
                index.missing_below = if index.span.is_empty() { 0 } else { index.span.next };
            } else if matches!(record.kind, Kind::Purge | Kind::State) {
                index.apply(record, Slot { offset: 0, len: 0, file: 0 })?;
            } else {
                return Err(format!("a checkpoint has a {:?} record", record.kind));
            }
        }
        Ok(())
    }

    /// After the replay: a group whose live entries are not all there, and the first that is not.
    pub(super) fn find_missing(&self) -> Option<(ShardId, u64)> {
        self.groups
            .iter()
            .find(|(_, index)| index.span.first < index.missing_below)
            .map(|(group, index)| (*group, index.span.first))
    }

    /// Groups that have live entries in this file, which must be the oldest. Places only grow along a group's entries,
    /// so its first entry tells.
    pub(super) fn groups_in_oldest(&self, file: u32) -> Vec<ShardId> {
        let holds = |index: &GroupIndex| index.slots.front().is_some_and(|slot| slot.file <= file);
        self.groups.iter().filter(|(_, index)| holds(index)).map(|(group, _)| *group).collect()
    }
}
