//! Routing by cluster as shards and coordinators speak of it: maps, what home shards publish by them, and which maps search
//! shards know. docs/designs/routing-by-cluster.md has the protocol.

use serde::{Deserialize, Serialize};

use crate::ids::{LogIndex, MapDigest, MapVersion, ShardId};
use crate::point::{Point, PointId};

mod gone;

pub use gone::{AtHome, CopyVersion, Judged, gone, has_newer};

/// Which part of a collection a shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ShardRole {
    /// Holds the points whose ids belong to it: the truth.
    #[default]
    Home,
    /// Holds copies of the points whose vectors a map places in it: to be searched.
    Search,
}

/// Names a map: centroids, and the search shard of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRef {
    /// Its version: grows with each map of a collection, never used twice.
    pub version: MapVersion,
    /// Name of the vector that it places: home shards have to know which one they publish.
    pub vector: String,
    /// Of its bytes.
    pub digest: MapDigest,
    /// Length of its bytes.
    pub bytes: u64,
    /// Which search shard each position in the map stands for.
    pub shards: Vec<ShardId>,
}

/// The maps by which a search shard may be searched. Both ends only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRange {
    /// The oldest.
    pub oldest: MapVersion,
    /// The newest: copies by it may be coming in.
    pub newest: MapVersion,
}

impl MapRange {
    /// Whether searches by this map are answered.
    pub fn contains(&self, version: MapVersion) -> bool {
        self.oldest <= version && version <= self.newest
    }

    /// The same after hearing of another range.
    #[must_use]
    pub fn raised(self, other: MapRange) -> MapRange {
        MapRange { oldest: self.oldest.max(other.oldest), newest: self.newest.max(other.newest) }
    }
}

/// What a home shard publishes, and how far it is. Part of its state: any leader goes on from here.
///
/// Invariant: for each target `t`, every live row that has the routed vector is in all its places by `t` if
/// `t.since < version <= published`, or if `version <= t.since` and `t.filled` is beyond its id. Both marks may be older than
/// the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// The maps in force, versions ascending: none, one, or two while a new one is being filled or the old one ends.
    pub targets: Vec<Target>,
    /// Rows up to this version are published.
    pub published: LogIndex,
    /// The newest map that ever began or ended: neither it nor an older one begins again.
    pub newest: MapVersion,
}

/// A map by which a home shard publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The map.
    pub map: MapRef,
    /// Position in the log at which publishing by it began: newer rows are published as they are written, older ones have to
    /// be filled in.
    pub since: LogIndex,
    /// How far filling is.
    pub filled: Filled,
}

/// How far older rows are published by a map, in order of their ids: the further, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Filled {
    /// Those with smaller ids; `None`: no row yet.
    Below(Option<PointId>),
    /// All.
    Done,
}

/// A change of a [`Feed`]. Each can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedChange {
    /// Publishes by this map, too. One as old as a map that was there before changes nothing.
    Begin(MapRef),
    /// Moves marks; none moves back.
    Mark {
        /// See [`Feed::published`].
        published: LogIndex,
        /// How far filling is, by map.
        filled: Vec<(MapVersion, Filled)>,
    },
    /// Publishes by this map no more.
    End {
        /// The map.
        version: MapVersion,
    },
}

impl Feed {
    /// What the entry at `index` of the shard's log makes of it. Each change can come again, and late.
    pub fn change(&mut self, index: LogIndex, change: &FeedChange) {
        match change {
            FeedChange::Begin(map) if map.version <= self.newest => {}
            FeedChange::Begin(map) => {
                if self.targets.is_empty() {
                    // Nothing was published before: all older rows are for filling.
                    self.published = index;
                }
                self.newest = map.version;
                self.targets.push(Target { map: map.clone(), since: index, filled: Filled::Below(None) });
            }
            // A mark of maps that have ended says nothing.
            FeedChange::Mark { .. } if self.targets.is_empty() => {}
            FeedChange::Mark { published, filled } => {
                // Nothing is published before it is applied. Without this bound a wrong mark would cover rows of a map
                // that begins later.
                self.published = self.published.max((*published).min(index));
                for target in &mut self.targets {
                    let own = filled.iter().filter(|(version, _)| *version == target.map.version);
                    target.filled = own.fold(target.filled, |filled, (_, new)| filled.max(*new));
                }
            }
            FeedChange::End { version } => {
                // One that ended before it began, because its beginning is late, must not begin after all.
                self.newest = self.newest.max(*version);
                self.targets.retain(|target| target.map.version != *version);
            }
        }
    }

    /// The target of a map.
    pub fn target(&self, version: MapVersion) -> Option<&Target> {
        self.targets.iter().find(|target| target.map.version == version)
    }
}

/// What a home shard sends to a search shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Copies {
    /// Points for it, each taken only if it holds no version of the id that is as new.
    pub points: Vec<Copy>,
    /// Versions that are live no more: exactly these are removed.
    pub gone: Vec<(PointId, LogIndex)>,
    /// What a map does not place there.
    pub misplaced: Option<Misplaced>,
}

/// A point as a home shard has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    /// The version its home shard gave it.
    pub version: LogIndex,
    /// The routed vector and the payload.
    pub point: Point,
}

/// Copies in a shard where the map does not say. Removed only while that map is the only one in force there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misplaced {
    /// The map.
    pub map: MapVersion,
    /// The copies.
    pub pairs: Vec<(PointId, LogIndex)>,
}

/// How far a home shard is with a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The map.
    pub version: MapVersion,
    /// Whether every live row is in its places by this map, those excepted that are not acknowledged yet.
    pub is_filled: bool,
    /// Rows looked at of those that have to be filled in; counted since this leader began.
    pub rows_filled: u64,
}

/// How far a replica is with routing by cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishStatus {
    /// Of a home shard that publishes: its maps. Only the leader knows how far they are filled.
    pub targets: Vec<TargetStatus>,
    /// Of a home shard that publishes: log entries applied and not published yet, as its leader sees it.
    pub behind: u64,
    /// Of a home shard that publishes: [`Feed::published`] as this replica knows it.
    pub published: LogIndex,
    /// Of a search shard: the maps it knows.
    pub maps: MapRange,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(version: u64) -> MapRef {
        MapRef {
            version: MapVersion(version),
            vector: String::new(),
            digest: MapDigest(version.into()),
            bytes: 9,
            shards: vec![ShardId(version)],
        }
    }

    fn any_filled() -> impl Strategy<Value = Filled> {
        prop_oneof![
            Just(Filled::Done),
            Just(Filled::Below(None)),
            (0u64..9).prop_map(|id| Filled::Below(Some(PointId::Num(id)))),
        ]
    }

    fn any_change() -> impl Strategy<Value = FeedChange> {
        let filled = prop::collection::vec((0u64..5, any_filled()), 0..3);
        let mark = (0u64..40, filled).prop_map(|(published, filled)| FeedChange::Mark {
            published: LogIndex(published),
            filled: filled.into_iter().map(|(version, filled)| (MapVersion(version), filled)).collect(),
        });
        prop_oneof![
            (0u64..5).prop_map(|version| FeedChange::Begin(map(version))),
            (0u64..5).prop_map(|version| FeedChange::End { version: MapVersion(version) }),
            mark,
        ]
    }

    /// The entries `(index, version)` that began a map: none with that or a newer one came before.
    fn begun(log: &[FeedChange]) -> Vec<(usize, MapVersion)> {
        let version = |change: &FeedChange| match change {
            FeedChange::Begin(map) => map.version,
            FeedChange::End { version } => *version,
            FeedChange::Mark { .. } => MapVersion(0),
        };
        let is_first = |at: &usize| {
            let own = version(&log[*at]);
            own > MapVersion(0) && log[..*at].iter().all(|earlier| version(earlier) < own)
        };
        let begins = (0..log.len()).filter(|at| matches!(log[*at], FeedChange::Begin(_))).filter(is_first);
        begins.map(|at| (at, version(&log[at]))).collect()
    }

    proptest! {
        #[test]
        fn changes_in_any_order_equal_the_definition(log in prop::collection::vec(any_change(), 0..30)) {
            let mut feed = Feed::default();
            let mut published = LogIndex(0);
            for (at, change) in log.iter().enumerate() {
                feed.change(LogIndex(at as u64), change);
                prop_assert!(feed.published >= published, "it moved back");
                published = feed.published;
                let in_force: Vec<(usize, MapVersion)> = begun(&log[..=at]).into_iter().filter(|(from, own)| {
                    !log[*from..=at].contains(&FeedChange::End { version: *own })
                }).collect();
                let found: Vec<_> = feed.targets.iter().map(|t| (t.since.0 as usize, t.map.version)).collect();
                prop_assert_eq!(found, in_force);
                prop_assert!(feed.targets.is_sorted_by(|a, b| a.map.version < b.map.version));
                for target in &feed.targets {
                    let marks = log[target.since.0 as usize..=at].iter().filter_map(|change| match change {
                        FeedChange::Mark { filled, .. } => Some(filled),
                        FeedChange::Begin(_) | FeedChange::End { .. } => None,
                    });
                    let own = marks.flatten().filter(|(version, _)| *version == target.map.version);
                    let furthest = own.map(|(_, filled)| *filled).max();
                    prop_assert_eq!(target.filled, furthest.unwrap_or(Filled::Below(None)));
                    prop_assert!(target.since.0 <= at as u64 && feed.published.0 <= at as u64);
                }
            }
        }

        #[test]
        fn a_change_that_comes_again_changes_nothing(log in prop::collection::vec(any_change(), 1..20)) {
            let mut feed = Feed::default();
            for (at, change) in log.iter().enumerate() {
                feed.change(LogIndex(100 + at as u64), change);
                let before = feed.clone();
                // Marks do not name more than has been applied, so the later position is none the wiser.
                feed.change(LogIndex(100 + at as u64), change);
                prop_assert_eq!(&feed, &before);
            }
            // All of it once more, later: no map begins that had ended.
            let (newest, versions) = (feed.newest, feed.targets.iter().map(|t| t.map.version).collect::<Vec<_>>());
            for change in log.iter().filter(|change| !matches!(change, FeedChange::End { .. })) {
                feed.change(LogIndex(500), change);
            }
            prop_assert_eq!(feed.newest, newest);
            prop_assert_eq!(feed.targets.iter().map(|t| t.map.version).collect::<Vec<_>>(), versions);
        }
    }

    #[test]
    fn a_map_that_ended_before_it_began_does_not_begin() {
        let mut feed = Feed::default();
        feed.change(LogIndex(3), &FeedChange::Begin(map(1)));
        feed.change(
            LogIndex(4),
            &FeedChange::Mark { published: LogIndex(3), filled: vec![(MapVersion(1), Filled::Done)] },
        );
        feed.change(LogIndex(5), &FeedChange::End { version: MapVersion(2) });
        feed.change(LogIndex(6), &FeedChange::Begin(map(2)));
        assert!(feed.target(MapVersion(2)).is_none());
        assert_eq!(feed.target(MapVersion(1)).map(|target| target.filled), Some(Filled::Done));
        feed.change(LogIndex(7), &FeedChange::End { version: MapVersion(1) });
        // Nothing is published: this mark is of a time that is over.
        feed.change(LogIndex(8), &FeedChange::Mark { published: LogIndex(7), filled: Vec::new() });
        feed.change(LogIndex(9), &FeedChange::Begin(map(3)));
        let target = Target { map: map(3), since: LogIndex(9), filled: Filled::Below(None) };
        let expected = Feed { targets: vec![target], published: LogIndex(9), newest: MapVersion(3) };
        assert_eq!(feed, expected);
    }
}
