//! What callers see of a group: everything submitted, whether it is durable yet or not, and the recent entries in
//! memory. An entry that is not in a file yet is always among the recent ones.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::format::{Kind, Record};
use super::index::GroupIndex;
use super::span::Span;

/// One group as submitted.
#[derive(Default)]
pub(super) struct View {
    pub(super) span: Span,
    pub(super) states: BTreeMap<u8, Bytes>,
    /// The group was removed and not begun anew.
    pub(super) removed: bool,
    /// Sum of the lengths of the live entries.
    pub(super) bytes: u64,
    /// The last entries: `recent[i]` is entry `span.next - recent.len() + i`.
    recent: VecDeque<Bytes>,
    recent_bytes: u64,
    /// Truncations and removals that were submitted and are not durable. While there are any, the durable index may
    /// hold other entries under the same indexes.
    pub(super) cuts_pending: u32,
}

impl View {
    /// The view of a group of which nothing is pending.
    pub(super) fn of(index: Option<&GroupIndex>) -> View {
        match index {
            Some(index) => {
                View { span: index.span.clone(), states: index.states.clone(), bytes: index.bytes, ..View::default() }
            }
            None => View::default(),
        }
    }

    fn recent_first(&self) -> u64 {
        self.span.next - self.recent.len() as u64
    }

    /// An entry that is in memory.
    pub(super) fn recent(&self, index: u64) -> Option<&Bytes> {
        let at = index.checked_sub(self.recent_first())?;
        self.recent.get(usize::try_from(at).ok()?)
    }

    /// Applies a submitted record. `durable` is this group's index, for the lengths of entries no longer in memory.
    pub(super) fn apply(&mut self, record: &Record, durable: Option<&GroupIndex>) -> Result<(), String> {
        let old = self.span.clone();
        match record.kind {
            Kind::Entry => {
                self.span.append(record.index)?;
                let len = record.bytes.len() as u64;
                self.recent.push_back(record.bytes.clone());
                self.recent_bytes += len;
                self.bytes += len;
            }
            Kind::State => {
                let key = u8::try_from(record.index).map_err(|_| format!("there is no state {}", record.index))?;
                self.states.insert(key, record.bytes.clone());
            }
            Kind::Truncate => {
                let mut span = old.clone();
                span.truncate(record.index);
                self.shrink_to(span, durable);
                self.cuts_pending += 1;
            }
            Kind::Purge => {
                let mut span = old.clone();
                span.purge(record.index, &record.bytes);
                self.shrink_to(span, durable);
            }
            Kind::Remove => {
                *self = View { removed: true, cuts_pending: self.cuts_pending + 1, ..View::default() };
            }
            Kind::Bounds => return Err("bounds are no change".into()),
        }
        Ok(())
    }

    /// Drops the entries that are not in `span`.
    fn shrink_to(&mut self, span: Span, durable: Option<&GroupIndex>) {
        let old = self.span.clone();
        let purged = old.first..span.first.min(old.next);
        let cut = span.next.max(old.first)..old.next;
        for index in purged.chain(cut).filter(|index| old.contains(*index)) {
            let in_file = || durable.and_then(|durable| durable.slot(index)).map_or(0, |slot| u64::from(slot.len));
            self.bytes -= self.recent(index).map_or_else(in_file, |bytes| bytes.len() as u64);
        }
        let recent_first = self.recent_first();
        let kept_back = span.next.clamp(recent_first, old.next.max(recent_first)) - recent_first;
        self.recent.truncate(kept_back as usize);
        let dropped = span.first.saturating_sub(recent_first).min(self.recent.len() as u64);
        self.recent.drain(..dropped as usize);
        self.recent_bytes = self.recent.iter().map(|bytes| bytes.len() as u64).sum();
        self.span = span;
    }

    /// Called when a record of this group has become durable.
    pub(super) fn durable_now(&mut self, record: &Record) {
        if matches!(record.kind, Kind::Truncate | Kind::Remove) {
            self.cuts_pending -= 1;
        }
    }

    /// Bytes of the entries in memory.
    pub(super) fn recent_bytes(&self) -> u64 {
        self.recent_bytes
    }

    /// Whether the oldest entry in memory could be read from a file instead.
    pub(super) fn is_evictable(&self, durable: Option<&GroupIndex>) -> bool {
        let in_file = |durable: &GroupIndex| durable.slot(self.recent_first()).is_some();
        self.cuts_pending == 0 && !self.recent.is_empty() && durable.is_some_and(in_file)
    }

    /// Forgets up to `bytes` of the oldest entries in memory (at least one) that can be read from a file.
    pub(super) fn evict(&mut self, bytes: u64, durable: Option<&GroupIndex>) -> u64 {
        let mut evicted = 0;
        while evicted < bytes && self.is_evictable(durable) {
            let len = self.recent.pop_front().map_or(0, |bytes| bytes.len() as u64);
            self.recent_bytes -= len;
            evicted += len;
        }
        evicted
    }
}
