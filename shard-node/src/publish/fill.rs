//! How far maps are filled with rows that are older than they are, as a leader knows it.

use std::collections::{BTreeMap, BTreeSet};

use vicinal_common::ids::{MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Filled, Target};

use super::plan::Page;
use super::round::Rounds;

/// The state of filling: one page of one map at a time.
#[derive(Debug, Default)]
pub(super) struct Fill {
    maps: BTreeMap<MapVersion, Progress>,
    under_way: Option<UnderWay>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    filled: Filled,
    rows: u64,
}

/// A page that is on its way to these search shards.
#[derive(Debug)]
struct UnderWay {
    map: MapVersion,
    filled: Filled,
    rows: u64,
    lanes: BTreeSet<ShardId>,
}

impl Fill {
    /// These maps are in force. What is known of them stays; others begin at their marks.
    pub(super) fn set_targets(&mut self, targets: &[Target], rounds: &mut Rounds) {
        self.maps.retain(|version, _| targets.iter().any(|target| target.map.version == *version));
        for target in targets {
            let own = self.maps.entry(target.map.version).or_insert(Progress { filled: target.filled, rows: 0 });
            own.filled = own.filled.max(target.filled);
        }
        if let Some(page) = self.under_way.take_if(|page| !self.maps.contains_key(&page.map)) {
            for shard in page.lanes {
                if let Some(queue) = rounds.lane(shard) {
                    queue.clear_fill();
                }
            }
        }
    }

    /// What is to be read next: a map and from where on. None while a page is under way.
    pub(super) fn next(&self) -> Option<(MapVersion, Option<PointId>)> {
        let below = |filled: Filled| match filled {
            Filled::Below(from) => Some(from),
            Filled::Done => None,
        };
        let mut open = self.maps.iter().filter_map(|(version, own)| Some((*version, below(own.filled)?)));
        open.next().filter(|_| self.under_way.is_none())
    }

    /// Sends a page.
    pub(super) fn send(&mut self, page: Page, rounds: &mut Rounds) {
        if !self.maps.contains_key(&page.map) {
            return;
        }
        let mut lanes = BTreeSet::new();
        for (copy, places) in page.copies {
            for shard in places {
                if let Some(queue) = rounds.lane(shard) {
                    queue.push_fill(copy.clone());
                    lanes.insert(shard);
                }
            }
        }
        self.under_way = Some(UnderWay { map: page.map, filled: page.filled, rows: page.rows, lanes });
    }

    /// Moves on when all search shards have the page. Returns whether it did.
    pub(super) fn settle(&mut self, rounds: &Rounds) -> bool {
        let waits =
            |page: &UnderWay| rounds.lanes().any(|(shard, queue)| page.lanes.contains(&shard) && queue.is_filling());
        let Some(page) = self.under_way.take_if(|page| !waits(page)) else { return false };
        if let Some(own) = self.maps.get_mut(&page.map) {
            own.filled = own.filled.max(page.filled);
            own.rows += page.rows;
        }
        true
    }

    /// How far a map is, and how many rows were looked at.
    pub(super) fn of(&self, map: MapVersion) -> (Filled, u64) {
        self.maps.get(&map).map_or((Filled::Below(None), 0), |own| (own.filled, own.rows))
    }

    /// What a mark says.
    pub(super) fn marks(&self) -> Vec<(MapVersion, Filled)> {
        self.maps.iter().map(|(version, own)| (*version, own.filled)).collect()
    }
}
