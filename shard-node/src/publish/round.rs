//! Rounds: what a leader has looked at, which search shards each write touched, and how far all of them are. No input
//! or output: it is told what was seen in a view and what search shards have committed.
//!
//! Each search shard has a queue that runs for itself: one that does not answer holds up only those who wait for it. It
//! stays behind, and once it takes something again a round begins where it left off.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::publish::{Copies, Copy};

use super::gone::Gone;
use super::limits::Limits;
use super::queue::Queue;

/// For so many log entries that are published it is remembered whom they touched, for those who ask late.
const REMEMBERED: u64 = 1_024;

/// What a round looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Rows with greater versions.
    pub(super) after: LogIndex,
    /// None with greater versions; `None`: to the end.
    pub(super) to: Option<LogIndex>,
    /// No more rows than this, but whole versions.
    pub(super) rows_max: usize,
    /// No more bytes of copies than this, but whole versions.
    pub(super) bytes_max: usize,
    /// Whose copies are wanted, each of rows with versions above its own mark.
    pub(super) lanes: BTreeMap<ShardId, LogIndex>,
}

/// A row that a round has seen.
#[derive(Clone, Debug)]
pub(super) struct SeenRow {
    /// Its version.
    pub(super) version: LogIndex,
    /// Its places by all maps in force.
    pub(super) places: Vec<ShardId>,
    /// The row, if one of the places wants it.
    pub(super) copy: Option<Copy>,
}

/// What a round has seen in one view.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Rows of the window, versions ascending: all up to `to`.
    pub(super) rows: Vec<SeenRow>,
    /// See `rows`.
    pub(super) to: LogIndex,
    /// What the view has applied.
    pub(super) applied: LogIndex,
    /// Versions that died since the last round's view, each with the version of its point that is live instead.
    pub(super) replaced: Vec<(LogIndex, LogIndex)>,
    /// Whether some that died may be missing.
    pub(super) is_blind: bool,
    /// Copies that are of no use any more.
    pub(super) gone: Vec<SeenGone>,
}

/// A copy that is of no use any more.
#[derive(Clone, Debug)]
pub(super) struct SeenGone {
    /// Where it is.
    pub(super) shard: ShardId,
    /// What it is.
    pub(super) gone: Gone,
    /// Whether what is live instead has its place there, too: once it is on its way there is nothing to be removed.
    pub(super) is_replaced: bool,
}

/// What is to be awaited before a write is acknowledged.
#[derive(Debug, Default)]
struct Touched {
    /// Where its rows are.
    lanes: Vec<ShardId>,
    /// Versions that replaced its rows before they were sent.
    successors: Vec<LogIndex>,
    rows: u64,
}

/// How a write stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits: for this search shard, or for being looked at.
    Waits(Option<ShardId>),
    /// All that it wrote, or what replaced that, is where these search shards hold it.
    Done(Vec<(ShardId, LogIndex)>),
}

/// How far a leader has published.
#[derive(Debug)]
pub(super) struct Rounds {
    limits: Limits,
    lanes: BTreeMap<ShardId, Queue>,
    /// Rows up to this version were looked at.
    head: LogIndex,
    /// Rows up to this version are in their places, or what replaced them is.
    published: LogIndex,
    touched: BTreeMap<LogIndex, Touched>,
    /// Of writes up to this one it is not known whom they touched: they wait for everybody.
    blind: LogIndex,
    /// Rows above `published` that were looked at.
    unpublished: u64,
}

impl Rounds {
    /// A leader that begins where another one has left a mark.
    pub(super) fn new(published: LogIndex, limits: Limits) -> Rounds {
        Rounds {
            limits,
            lanes: BTreeMap::new(),
            head: published,
            published,
            touched: BTreeMap::new(),
            blind: published,
            unpublished: 0,
        }
    }

    /// See the field.
    pub(super) fn head(&self) -> LogIndex {
        self.head
    }

    /// See the field.
    pub(super) fn published(&self) -> LogIndex {
        self.published
    }

    /// See the field.
    pub(super) fn unpublished(&self) -> u64 {
        self.unpublished
    }

    /// Bytes that wait for search shards.
    pub(super) fn bytes(&self) -> usize {
        self.lanes.values().map(Queue::bytes).sum()
    }

    /// The search shards.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (ShardId, &Queue)> {
        self.lanes.iter().map(|(shard, queue)| (*shard, queue))
    }

    /// The queue of a search shard.
    pub(super) fn lane(&mut self, shard: ShardId) -> Option<&mut Queue> {
        self.lanes.get_mut(&shard)
    }

    /// These are the search shards of the maps in force. A new one is sent rows that were not looked at yet, because
    /// its map is newer than the others; nobody waits any more for one that is gone.
    pub(super) fn set_lanes(&mut self, shards: &BTreeSet<ShardId>) {
        self.lanes.retain(|shard, _| shards.contains(shard));
        for shard in shards {
            self.lanes.entry(*shard).or_insert_with(|| Queue::new(self.head, self.limits));
        }
        self.settle();
    }

    /// What the next round shall look at, given what is applied: what is new, for all that are not behind.
    pub(super) fn front(&self, applied: LogIndex) -> Option<Window> {
        if self.head >= applied {
            return None;
        }
        let ready = self.lanes.iter().filter(|(_, queue)| queue.sent() >= self.head && queue.is_open());
        Some(self.to_see(self.head, None, ready.map(|(shard, queue)| (*shard, queue.sent())).collect()))
    }

    /// What a round shall look at for those that are behind and take something again.
    pub(super) fn back(&self) -> Option<Window> {
        let behind = self.lanes.iter().filter(|(_, queue)| queue.sent() < self.head && queue.is_open());
        let lanes: BTreeMap<ShardId, LogIndex> = behind.map(|(shard, queue)| (*shard, queue.sent())).collect();
        let after = lanes.values().copied().min()?;
        Some(self.to_see(after, Some(self.head), lanes))
    }

    fn to_see(&self, after: LogIndex, to: Option<LogIndex>, lanes: BTreeMap<ShardId, LogIndex>) -> Window {
        let Limits { round_rows: rows_max, round_bytes: bytes_max, .. } = self.limits;
        Window { after, to, rows_max, bytes_max, lanes }
    }

    /// Takes in what a round with this window has seen.
    pub(super) fn take_in(&mut self, window: &Window, seen: Seen, now: Instant) {
        if seen.is_blind {
            self.blind = self.blind.max(seen.applied);
        }
        for (version, successor) in seen.replaced {
            self.replaced(version, successor);
        }
        for row in seen.rows {
            if row.version > self.head {
                let touched = self.touched.entry(row.version).or_default();
                let new = row.places.iter().filter(|shard| !touched.lanes.contains(shard));
                let new: Vec<ShardId> = new.copied().collect();
                touched.lanes.extend(new);
                touched.rows += 1;
                self.unpublished += 1;
            }
            let Some(copy) = row.copy else { continue };
            for shard in row.places.iter().filter(|shard| window.lanes.contains_key(shard)) {
                if let Some(queue) = self.lanes.get_mut(shard).filter(|queue| queue.sent() < row.version)
                    && queue.takes(row.version)
                {
                    queue.push(copy.clone());
                }
            }
        }
        self.head = self.head.max(seen.to);
        for shard in window.lanes.keys() {
            if let Some(queue) = self.lanes.get_mut(shard) {
                queue.end_round(seen.to);
            }
        }
        for SeenGone { shard, gone, is_replaced } in seen.gone {
            let Some(queue) = self.lanes.get_mut(&shard) else { continue };
            if !is_replaced || Some(queue.sent()) < gone.successor {
                queue.push_gone(gone, now);
            }
        }
        self.settle();
    }

    /// Whoever waits for a row that was replaced before it was on its way waits for what replaced it: otherwise neither
    /// could be found.
    fn replaced(&mut self, version: LogIndex, successor: LogIndex) {
        if version <= self.published {
            return;
        }
        if version > self.head {
            self.touched.entry(version).or_default().successors.push(successor);
        } else if let Some(touched) = self.touched.get_mut(&version) {
            let is_sent = |shard: &ShardId| self.lanes.get(shard).is_none_or(|queue| queue.sent() >= version);
            if !touched.lanes.iter().all(is_sent) {
                touched.successors.push(successor);
            }
        }
    }

    /// The next message to a search shard; see [`Queue::take`].
    pub(super) fn take(&mut self, shard: ShardId, now: Instant) -> Option<Copies> {
        let published = self.published;
        self.lanes.get_mut(&shard)?.take(published, now)
    }

    /// A search shard has committed its message at this position of its log.
    pub(super) fn done(&mut self, shard: ShardId, index: LogIndex) {
        if let Some(queue) = self.lanes.get_mut(&shard) {
            queue.done(index);
            self.settle();
        }
    }

    /// A search shard has not taken its message yet.
    pub(super) fn failed(&mut self, shard: ShardId, error: Error) {
        if let Some(queue) = self.lanes.get_mut(&shard) {
            queue.failed(error);
        }
    }

    /// Why a search shard did not take its last message.
    pub(super) fn trouble(&self, shard: ShardId) -> Option<Error> {
        self.lanes.get(&shard).and_then(|queue| queue.trouble().cloned())
    }

    /// How the write at this position stands.
    pub(super) fn standing(&self, index: LogIndex) -> Standing {
        if index > self.head {
            return Standing::Waits(None);
        }
        if index <= self.blind || index.0 + REMEMBERED <= self.published.0 {
            return self.everybody(index);
        }
        let mut lanes = BTreeMap::new();
        let mut seen = BTreeSet::from([index]);
        let mut next = vec![index];
        while let Some(index) = next.pop() {
            let is_published = index <= self.published;
            if index > self.head {
                return Standing::Waits(None);
            }
            let Some(touched) = self.touched.get(&index) else { continue };
            for shard in &touched.lanes {
                let Some(queue) = self.lanes.get(shard) else { continue };
                match queue.index().filter(|_| is_published || queue.covered() >= index) {
                    Some(at) => lanes.insert(*shard, at),
                    None => return Standing::Waits(Some(*shard)),
                };
            }
            next.extend(touched.successors.iter().copied().filter(|successor| seen.insert(*successor)));
        }
        Standing::Done(lanes.into_iter().collect())
    }

    /// The same for a write of which it is not known whom it touched.
    fn everybody(&self, index: LogIndex) -> Standing {
        let to = if index <= self.blind { self.blind } else { index };
        let late = |queue: &Queue| queue.index().is_none() || (self.published < to && queue.covered() < to);
        if let Some((shard, _)) = self.lanes.iter().find(|(_, queue)| late(queue)) {
            return Standing::Waits(Some(*shard));
        }
        if self.published < to {
            return Standing::Waits(None);
        }
        let at = |(shard, queue): (&ShardId, &Queue)| queue.index().map(|index| (*shard, index));
        Standing::Done(self.lanes.iter().filter_map(at).collect())
    }

    /// Moves `published` up to the first write that waits.
    fn settle(&mut self) {
        let to = self.lanes.values().map(Queue::covered).fold(self.head, LogIndex::min);
        if to <= self.published {
            return;
        }
        let above = LogIndex(self.published.0 + 1);
        // Their rows are covered: what some of them still wait for is what replaced rows that were never sent.
        let mut chains = self.touched.range(above..=to).filter(|(_, touched)| !touched.successors.is_empty());
        let waits = chains.find(|(index, _)| !self.is_covered(**index, to));
        let to = waits.map_or(to, |(index, _)| LogIndex(index.0 - 1));
        if to <= self.published {
            return;
        }
        let rows: u64 = self.touched.range(above..=to).map(|(_, touched)| touched.rows).sum();
        self.unpublished -= rows;
        self.published = to;
        self.touched = self.touched.split_off(&LogIndex(to.0.saturating_sub(REMEMBERED)));
    }

    /// Whether everything that replaced rows of a write is committed where it belongs, all up to `to` being so.
    fn is_covered(&self, index: LogIndex, to: LogIndex) -> bool {
        let mut seen = BTreeSet::from([index]);
        let mut next = vec![index];
        while let Some(index) = next.pop() {
            let Some(touched) = self.touched.get(&index) else {
                if index > self.head {
                    return false;
                }
                continue;
            };
            let is_there = |shard: &ShardId| self.lanes.get(shard).is_none_or(|queue| queue.covered() >= index);
            if index > self.head || (index > to && !touched.lanes.iter().all(is_there)) {
                return false;
            }
            next.extend(touched.successors.iter().copied().filter(|successor| seen.insert(*successor)));
        }
        true
    }
}
