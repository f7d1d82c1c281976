//! What is known while this replica leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use vicinal_common::api::WriteOp;
use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, MapVersion, ShardId};
use vicinal_common::publish::{Feed, FeedChange};

use super::fill::Fill;
use super::limits::Limits;
use super::plan::Charts;
use super::round::{Rounds, Seen, Window};

/// Names a lane: one that ended, and is slow to, must not be taken for the one that came after it.
#[derive(Clone)]
pub(super) struct LaneKey {
    /// The search shard.
    pub(super) shard: ShardId,
    /// Wakes it. Also what tells it from others.
    pub(super) signal: Arc<Notify>,
}

/// The state of one session: from becoming leader until that is over.
pub(super) struct Session {
    /// How far publishing is.
    pub(super) rounds: Rounds,
    /// How far filling is.
    pub(super) fill: Fill,
    /// The oldest map in force.
    pub(super) oldest: MapVersion,
    lanes: BTreeMap<ShardId, LaneKey>,
    /// Search shards whose leaders only others reach, and since when.
    cuts: BTreeMap<ShardId, Instant>,
    /// The newest row that was looked at.
    newest_row: LogIndex,
}

impl Session {
    /// Begins at the mark that the feed has.
    pub(super) fn new(feed: &Feed, limits: Limits) -> Session {
        Session {
            rounds: Rounds::new(feed.published, limits),
            fill: Fill::default(),
            oldest: MapVersion::default(),
            lanes: BTreeMap::new(),
            cuts: BTreeMap::new(),
            newest_row: LogIndex::default(),
        }
    }

    /// These maps are in force. Returns lanes that are to be started; the others' end is for them to notice.
    pub(super) fn set_targets(&mut self, feed: &Feed, charts: &Charts) -> Vec<LaneKey> {
        let shards = charts.shards();
        self.rounds.set_lanes(&shards);
        self.fill.set_targets(&feed.targets, &mut self.rounds);
        self.oldest = feed.targets.first().map(|target| target.map.version).unwrap_or_default();
        self.cuts.retain(|shard, _| shards.contains(shard));
        self.lanes.retain(|shard, lane| {
            let stays = shards.contains(shard);
            if !stays {
                lane.signal.notify_one();
            }
            stays
        });
        let new: Vec<LaneKey> = shards
            .into_iter()
            .filter(|shard| !self.lanes.contains_key(shard))
            .map(|shard| LaneKey { shard, signal: Arc::new(Notify::new()) })
            .collect();
        self.lanes.extend(new.iter().map(|lane| (lane.shard, lane.clone())));
        new
    }

    /// Whether a lane is one of this session.
    pub(super) fn has(&self, lane: &LaneKey) -> bool {
        self.lanes.get(&lane.shard).is_some_and(|own| Arc::ptr_eq(&own.signal, &lane.signal))
    }

    /// Takes in a round.
    pub(super) fn take_in(&mut self, window: &Window, seen: Seen, now: Instant) {
        self.newest_row = seen.rows.last().map_or(self.newest_row, |row| self.newest_row.max(row.version));
        self.rounds.take_in(window, seen, now);
        self.signal();
    }

    /// Wakes the lanes that have something to send.
    pub(super) fn signal(&self) {
        for (shard, _) in self.rounds.lanes().filter(|(_, queue)| queue.is_waiting()) {
            if let Some(lane) = self.lanes.get(&shard) {
                lane.signal.notify_one();
            }
        }
    }

    /// A search shard has committed its message. Returns whether that makes work for the task.
    pub(super) fn done(&mut self, shard: ShardId, index: LogIndex) -> bool {
        self.cuts.remove(&shard);
        self.rounds.done(shard, index);
        let is_page_there = self.fill.settle(&self.rounds);
        is_page_there || self.rounds.back().is_some()
    }

    /// A search shard has not taken its message yet.
    pub(super) fn failed(&mut self, shard: ShardId, error: Error, cut_since: Option<Instant>) {
        self.rounds.failed(shard, error);
        match cut_since {
            Some(since) => self.cuts.insert(shard, since),
            None => self.cuts.remove(&shard),
        };
    }

    /// Whether a search shard's leader is, for so long, out of reach only from here.
    pub(super) fn is_cut_off(&self, longest: Duration) -> bool {
        self.cuts.values().any(|since| since.elapsed() >= longest)
    }

    /// The mark to write, if the log's is behind by something that a new leader would do again.
    pub(super) fn mark(&self, feed: &Feed) -> Option<WriteOp> {
        let published = self.rounds.published();
        let is_old = feed.published < published.min(self.newest_row);
        let is_filled_further = feed.targets.iter().any(|target| target.filled < self.fill.of(target.map.version).0);
        (is_old || is_filled_further).then(|| WriteOp::Feed(FeedChange::Mark { published, filled: self.fill.marks() }))
    }
}
