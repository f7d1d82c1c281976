//! The rules by which writes are acknowledged and marks are written, one by one: each is the smallest case in which
//! nothing but that rule keeps a point from being lost to searches.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use vicinal_common::api::WriteOp;
use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, MapDigest, MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Feed, FeedChange, MapRef};

use super::super::limits::Limits;
use super::super::plan::{Chart, Charts, Dead, look};
use super::super::round::{Standing, Window};
use super::super::session::Session;
use super::parts::{Map, SHARDS, Search, View, places};

/// A value that the map places in the third search shard only, and one that it places in the fourth only.
const IN_2: u8 = 1;
const IN_3: u8 = 2;

/// A home shard whose leader publishes by one map.
struct Home {
    view: View,
    applied: LogIndex,
    died: Vec<Dead>,
    feed: Feed,
    session: Session,
    search: BTreeMap<ShardId, Search>,
}

impl Home {
    fn start(limits: Limits) -> Home {
        assert_eq!((places(1, IN_2), places(1, IN_3)), (vec![ShardId(2)], vec![ShardId(3)]));
        let shards: Vec<ShardId> = (0..SHARDS).map(ShardId).collect();
        let map = MapRef {
            version: MapVersion(1),
            vector: "v".into(),
            digest: MapDigest(1),
            bytes: 1,
            shards: shards.clone(),
        };
        let mut feed = Feed::default();
        feed.change(LogIndex(1), &FeedChange::Begin(map));
        let mut home = Home {
            view: View::default(),
            applied: LogIndex(1),
            died: Vec::new(),
            session: Session::new(&feed, limits),
            feed,
            search: shards.into_iter().map(|shard| (shard, Search::default())).collect(),
        };
        home.lead(limits);
        home
    }

    fn charts(&self) -> Charts {
        let chart = |target: &_| Chart { target: Clone::clone(target), map: Arc::new(Map(1)) };
        Charts::new(self.feed.targets.iter().map(chart).collect()).unwrap()
    }

    /// Another replica leads.
    fn lead(&mut self, limits: Limits) {
        self.session = Session::new(&self.feed, limits);
        let charts = self.charts();
        self.session.set_targets(&self.feed, &charts);
        self.died.clear();
    }

    fn write(&mut self, id: u64, value: u8) -> LogIndex {
        self.applied.0 += 1;
        if let Some((version, old)) = self.view.0.insert(id, (self.applied.0, Some(value))) {
            let vector = old.map(|old| vec![f32::from(old)]);
            self.died.push(Dead { id: PointId::Num(id), version: LogIndex(version), vector });
        }
        self.applied
    }

    fn round(&mut self, window: Option<Window>) {
        let window = window.expect("there is something to look at");
        let died = std::mem::take(&mut self.died);
        let seen = look(&self.view, self.applied, &window, &self.charts(), &died, false).unwrap();
        self.session.take_in(&window, seen, Instant::now());
    }

    fn front(&mut self) {
        self.round(self.session.rounds.front(self.applied));
    }

    /// What waits for these search shards gets there. Returns the versions of the copies.
    fn deliver(&mut self, shards: &[u64]) -> Vec<u64> {
        let mut versions = Vec::new();
        for shard in shards.iter().copied().map(ShardId) {
            while let Some(copies) = self.session.rounds.take(shard, Instant::now()) {
                versions.extend(copies.points.iter().map(|copy| copy.version.0));
                let index = self.search.get_mut(&shard).unwrap().apply(&copies);
                self.session.done(shard, index);
            }
        }
        versions
    }

    /// Whom a write waits for; `None`: it is acknowledged.
    fn waits_for(&self, index: LogIndex) -> Option<ShardId> {
        match self.session.rounds.standing(index) {
            Standing::Waits(shard) => Some(shard.expect("it was looked at")),
            Standing::Done(_) => None,
        }
    }

    /// The mark that is due.
    fn mark(&self) -> Option<LogIndex> {
        self.session.mark(&self.feed).map(|op| match op {
            WriteOp::Feed(FeedChange::Mark { published, .. }) => published,
            op => panic!("{op:?}"),
        })
    }
}

#[test]
fn a_write_that_was_replaced_within_a_round_waits_for_what_replaced_it() {
    let mut home = Home::start(Limits::default());
    let (first, second) = (home.write(7, IN_2), home.write(7, IN_3));
    home.front();
    assert!(home.deliver(&[0, 1, 2]).is_empty());
    // Acknowledged now, it could be found nowhere: its own row is in no search shard, what replaced it is not there yet.
    assert_eq!((home.waits_for(first), home.waits_for(second)), (Some(ShardId(3)), Some(ShardId(3))));
    assert_eq!(home.deliver(&[3]), [second.0]);
    assert_eq!((home.waits_for(first), home.waits_for(second)), (None, None));
}

#[test]
fn so_does_one_that_was_replaced_before_its_search_shard_took_it() {
    // Nothing is kept for a search shard that is away.
    let mut home = Home::start(Limits { queue_bytes_in_trouble: 0, ..Limits::default() });
    let first = home.write(7, IN_2);
    home.session.failed(ShardId(2), Error::Unavailable("away".into()), None);
    home.front();
    let second = home.write(7, IN_3);
    home.front();
    assert!(home.deliver(&[0, 1, 2]).is_empty());
    home.round(home.session.rounds.back());
    assert!(home.deliver(&[2]).is_empty(), "its row is no more");
    assert_eq!((home.waits_for(first), home.session.rounds.published()), (Some(ShardId(3)), LogIndex(1)));
    assert_eq!(home.deliver(&[3]), [second.0]);
    assert_eq!((home.waits_for(first), home.session.rounds.published()), (None, second));
}

#[test]
fn a_mark_says_what_all_search_shards_have_and_a_new_leader_sends_the_rest() {
    let mut home = Home::start(Limits::default());
    let (first, second) = (home.write(1, IN_2), home.write(2, IN_3));
    home.front();
    home.deliver(&[0, 1, 3]);
    assert_eq!(home.mark(), None, "the oldest row is on its way");
    home.deliver(&[2]);
    assert_eq!(home.mark(), Some(second));
    let (third, fourth) = (home.write(3, IN_3), home.write(4, IN_2));
    home.front();
    assert_eq!(home.mark(), Some(second), "looked at, but not there");
    home.deliver(&[3]);
    assert_eq!(home.mark(), Some(third), "the newest row is on its way");
    assert_eq!((first, home.waits_for(fourth)), (LogIndex(2), Some(ShardId(2))));

    home.applied.0 += 1;
    let mark = FeedChange::Mark { published: third, filled: Vec::new() };
    home.feed.change(home.applied, &mark);
    home.lead(Limits::default());
    assert_eq!((home.session.rounds.published(), home.mark()), (third, None));
    home.front();
    home.deliver(&[0, 1, 3]);
    assert_eq!(home.waits_for(fourth), Some(ShardId(2)));
    assert_eq!(home.deliver(&[2]), [fourth.0]);
    assert_eq!((home.waits_for(fourth), home.mark()), (None, Some(home.applied)));
}
