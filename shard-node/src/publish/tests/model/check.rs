//! What has to hold: the invariant of the feed and the rule of acknowledgements after each step, clean search shards at
//! rest.

use std::collections::BTreeMap;
use std::time::Duration;

use vicinal_common::ids::ShardId;
use vicinal_common::publish::{Filled, Target};

use super::super::parts::{Row, SHARDS, number, places};
use super::World;

impl World {
    /// Whether the search shards have this version of a point, or a newer one, in all places of it by the maps that
    /// promise so.
    fn is_there(&self, id: u64, version: u64, value: Option<u8>, target: &Target) -> bool {
        let shards = value.map(|value| places(target.map.version.0, value)).unwrap_or_default();
        shards.iter().all(|shard| self.search[shard].rows.get(&id).is_some_and(|held| *held >= version))
    }

    pub(super) fn check(&self) {
        // The invariant of the feed.
        for target in &self.feed.targets {
            for (id, (version, value)) in &self.view().0 {
                let is_published = target.since.0 < *version && *version <= self.feed.published.0;
                let is_filled = *version <= target.since.0
                    && match target.filled {
                        Filled::Done => true,
                        Filled::Below(below) => below.is_some_and(|below| *id < number(below)),
                    };
                if is_published || is_filled {
                    assert!(
                        self.is_there(*id, *version, *value, target),
                        "{id} at {version} by {:?}",
                        target.map.version
                    );
                }
            }
        }
        // What was acknowledged is found, or what has replaced it is.
        for (id, index) in &self.acked {
            let newer: Vec<_> = self.history[id].iter().filter(|(version, _)| version >= index).collect();
            let is_found = |target: &Target| {
                newer.iter().any(|(version, row)| match row {
                    Some(value) => *version <= target.since.0 || self.is_there(*id, *version, *value, target),
                    None => true,
                })
            };
            for target in &self.feed.targets {
                assert!(is_found(target), "{id}, acknowledged at {index}, by {:?}", target.map.version);
            }
        }
    }

    pub(super) fn check_end(&mut self) {
        self.rest();
        self.now += Duration::from_secs(20);
        self.settle();
        self.check();
        for shard in (0..SHARDS).map(ShardId) {
            let belongs = |(_, value): &Row| {
                let by =
                    |target: &Target| value.is_some_and(|value| places(target.map.version.0, value).contains(&shard));
                self.feed.targets.iter().any(by)
            };
            let view = self.view();
            let rows: BTreeMap<u64, u64> =
                view.0.iter().filter(|(_, row)| belongs(row)).map(|(id, row)| (*id, row.0)).collect();
            let held = &self.search[&shard].rows;
            match self.is_tidy {
                true => assert_eq!(held, &rows, "shard {shard}"),
                false => assert!(rows.iter().all(|(id, version)| held.get(id) == Some(version)), "shard {shard}"),
            }
        }
    }
}
