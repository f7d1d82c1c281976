//! The pure parts against a home shard, search shards and leaders that are as simple as can be: whatever is lost,
//! repeated or late, what was acknowledged is found, and all ends in its places.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use vicinal_common::api::WriteOp;
use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, MapDigest, MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Copies, Copy, Feed, FeedChange, Filled, MapRef, Target};

use super::super::limits::Limits;
use super::super::plan::{Chart, Charts, Dead, Page, look, read_page};
use super::super::round::Standing;
use super::super::session::Session;
use super::super::waiters::Waiters;
use super::parts::{Map, SHARDS, Search, View, number};

const IDS: u64 = 8;
/// Small enough that a few rows fill them.
const LIMITS: Limits = Limits {
    message_bytes: 700,
    fill_bytes_alone: 500,
    fill_bytes_beside: 300,
    queue_bytes: 1_200,
    queue_bytes_in_trouble: 500,
    round_rows: 4,
    round_bytes: 900,
};
const PAGE_BYTES: usize = 500;

/// A leader of the home shard.
struct Leader {
    session: Session,
    waiters: Waiters<u64>,
    /// Read, and not sent yet.
    page: Option<Page>,
    /// Proposed, and not applied yet.
    mark: Option<FeedChange>,
    under_way: BTreeMap<ShardId, Copies>,
    deaths_seen: u64,
    complete_after: u64,
}

/// The entry, and what it made of a point: `None` where it was deleted.
type Version = (u64, Option<Option<u8>>);

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Upsert(Vec<(u64, Option<u8>)>),
    Delete(u64),
    Front,
    Back,
    /// A page for filling is read.
    Page,
    /// It is sent.
    Paged,
    Send(u64),
    /// A message arrives, and its answer too, or not.
    Arrive(u64, bool),
    /// Away, or there again.
    Turn(u64),
    /// Something that was sent before arrives once more.
    Again(usize),
    NewLeader,
    LoseDeaths,
    /// A mark is proposed.
    Mark,
    /// It is applied.
    Marked,
    /// Filling, and marks of it, are faster than all else.
    Hurry,
    Begin,
    End,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let value = || prop_oneof![9 => (0..12u8).prop_map(Some), 1 => Just(None)];
    prop_oneof![
        8 => prop::collection::vec((0..IDS, value()), 1..4).prop_map(Step::Upsert),
        2 => (0..IDS).prop_map(Step::Delete),
        8 => Just(Step::Front),
        4 => Just(Step::Back),
        3 => Just(Step::Page),
        3 => Just(Step::Paged),
        8 => (0..SHARDS).prop_map(Step::Send),
        8 => (0..SHARDS, prop::bool::weighted(0.9)).prop_map(|(shard, ok)| Step::Arrive(shard, ok)),
        1 => (0..SHARDS).prop_map(Step::Turn),
        1 => any::<usize>().prop_map(Step::Again),
        1 => Just(Step::NewLeader),
        1 => Just(Step::LoseDeaths),
        3 => Just(Step::Mark),
        3 => Just(Step::Marked),
        3 => Just(Step::Hurry),
        3 => Just(Step::Begin),
        2 => Just(Step::End),
        3 => (0..5u64).prop_map(Step::Wait),
    ]
}

struct World {
    /// By log index.
    views: Vec<View>,
    /// What each entry wrote.
    wrote: BTreeMap<u64, BTreeSet<u64>>,
    /// All versions of each id.
    history: BTreeMap<u64, Vec<Version>>,
    /// Those that no round has seen: the entry, and the row.
    died: Vec<(u64, Dead)>,
    feed: Feed,
    search: BTreeMap<ShardId, Search>,
    leader: Leader,
    sent: Vec<(ShardId, Copies)>,
    /// The newest acknowledged write of each id.
    acked: BTreeMap<u64, u64>,
    now: Instant,
    /// Whether all copies are accounted for, so that none may be left over.
    is_tidy: bool,
}

impl World {
    fn new() -> World {
        let mut world = World {
            views: vec![View::default()],
            wrote: BTreeMap::new(),
            history: BTreeMap::new(),
            died: Vec::new(),
            feed: Feed::default(),
            search: (0..SHARDS).map(|shard| (ShardId(shard), Search::default())).collect(),
            leader: leader(&Feed::default(), 0),
            sent: Vec::new(),
            acked: BTreeMap::new(),
            now: Instant::now(),
            is_tidy: true,
        };
        for id in 0..IDS {
            world.upsert(&[(id, Some(id as u8 * 5 % 12))]);
        }
        world.begin();
        world.lead();
        world
    }

    fn applied(&self) -> u64 {
        self.views.len() as u64 - 1
    }

    fn view(&self) -> View {
        self.views.last().cloned().unwrap_or_default()
    }

    /// Adds an entry that makes each of these rows anew, or none.
    fn entry(&mut self, rows: &[(u64, Option<Option<u8>>)]) -> u64 {
        let index = self.applied() + 1;
        let mut view = self.view();
        for (id, row) in rows {
            if let Some((version, value)) = view.0.remove(id) {
                let vector = value.map(|value| vec![f32::from(value)]);
                self.died.push((index, Dead { id: PointId::Num(*id), version: LogIndex(version), vector }));
            }
            if let Some(value) = row {
                view.0.insert(*id, (index, *value));
                self.wrote.entry(index).or_default().insert(*id);
            }
            self.history.entry(*id).or_default().push((index, *row));
        }
        self.views.push(view);
        index
    }

    fn upsert(&mut self, rows: &[(u64, Option<u8>)]) -> u64 {
        let rows: Vec<_> = rows.iter().map(|(id, value)| (*id, Some(*value))).collect();
        self.entry(&rows)
    }

    fn change(&mut self, change: &FeedChange) {
        let index = self.entry(&[]);
        self.feed.change(LogIndex(index), change);
    }

    fn begin(&mut self) {
        if self.feed.targets.len() < 2 {
            let version = MapVersion(self.feed.newest.0 + 1);
            let shards = (0..SHARDS).map(ShardId).collect();
            let map = MapRef { version, vector: "v".into(), digest: MapDigest(1), bytes: 1, shards };
            self.change(&FeedChange::Begin(map));
        }
    }

    /// The old map ends once the new one is filled.
    fn end(&mut self) {
        let [old, new] = self.feed.targets.as_slice() else { return };
        let version = old.map.version;
        let filled = self.leader.session.fill.of(new.map.version).0.max(new.filled);
        if filled == Filled::Done && self.leader.session.rounds.published() >= new.since {
            self.is_tidy = false;
            self.change(&FeedChange::End { version });
        }
    }

    fn lead(&mut self) {
        let applied = self.applied();
        let under_way = std::mem::take(&mut self.leader.under_way);
        self.sent.extend(under_way);
        self.leader = leader(&self.feed, applied);
        self.died.clear();
    }

    fn charts(&self) -> Charts {
        let chart = |target: &Target| Chart { target: target.clone(), map: Arc::new(Map(target.map.version.0)) };
        Charts::new(self.feed.targets.iter().map(chart).collect()).unwrap()
    }

    /// The session follows the feed, as it does before anything is looked at.
    fn follow(&mut self) -> Charts {
        let charts = self.charts();
        self.leader.session.set_targets(&self.feed, &charts);
        charts
    }

    fn round(&mut self, is_front: bool) -> bool {
        let charts = self.follow();
        let applied = LogIndex(self.applied());
        let rounds = &self.leader.session.rounds;
        let Some(window) = (if is_front { rounds.front(applied) } else { rounds.back() }) else { return false };
        let dead: Vec<Dead> = self.died.drain(..).map(|(_, dead)| dead).collect();
        let is_blind = self.leader.complete_after > self.leader.deaths_seen;
        self.leader.deaths_seen = applied.0;
        let seen = look(&self.view(), applied, &window, &charts, &dead, is_blind).unwrap();
        self.leader.session.take_in(&window, seen, self.now);
        self.release();
        true
    }

    fn page(&mut self) -> bool {
        let charts = self.follow();
        let session = &self.leader.session;
        let Some((map, from)) = session.fill.next().filter(|_| self.leader.page.is_none()) else { return false };
        let published = session.rounds.published();
        self.leader.page = Some(read_page(&self.view(), &charts, map, from, published, PAGE_BYTES).unwrap());
        true
    }

    /// Rounds, and changes of the feed, may have come between.
    fn paged(&mut self) -> bool {
        let Some(page) = self.leader.page.take() else { return false };
        // What is said to be gone already, before its copy, is left to the sweep.
        let seen = &self.views[self.leader.deaths_seen as usize].0;
        let is_live =
            |copy: &Copy| seen.get(&number(copy.point.id)).is_some_and(|(version, _)| *version == copy.version.0);
        self.is_tidy &= page.copies.iter().all(|(copy, _)| is_live(copy));
        let session = &mut self.leader.session;
        session.fill.send(page, &mut session.rounds);
        session.fill.settle(&session.rounds);
        true
    }

    fn mark(&mut self) {
        if let Some(WriteOp::Feed(change)) = self.leader.session.mark(&self.feed) {
            self.leader.mark.get_or_insert(change);
        }
    }

    fn marked(&mut self) {
        if let Some(change) = self.leader.mark.take() {
            self.change(&change);
        }
    }

    fn send(&mut self, shard: ShardId) -> bool {
        let Some(copies) = self.leader.session.rounds.take(shard, self.now) else { return false };
        self.leader.under_way.insert(shard, copies);
        true
    }

    fn arrive(&mut self, shard: ShardId, is_answered: bool) -> bool {
        let Some(copies) = self.leader.under_way.get(&shard).cloned() else { return false };
        let Some(search) = self.search.get_mut(&shard) else { return false };
        if search.is_away {
            self.leader.session.failed(shard, Error::Unavailable("away".into()), None);
            return false;
        }
        let index = search.apply(&copies);
        self.sent.push((shard, copies));
        if is_answered {
            self.leader.under_way.remove(&shard);
            self.leader.session.done(shard, index);
            self.release();
        }
        true
    }

    fn release(&mut self) {
        for (index, copies) in self.leader.waiters.release(&self.leader.session.rounds) {
            for id in self.wrote.get(&index).into_iter().flatten() {
                let acked = self.acked.entry(*id).or_default();
                *acked = (*acked).max(index);
            }
            for (shard, at) in copies {
                assert!(at.0 <= self.search[&shard].log && at.0 > 0);
            }
        }
    }

    fn wait(&mut self, index: u64) {
        if self.feed.targets.first().is_some_and(|target| target.since.0 < index) {
            self.leader.waiters.add(LogIndex(index), index);
            self.release();
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Upsert(rows) => {
                let index = self.upsert(rows);
                self.wait(index);
            }
            Step::Delete(id) => drop(self.entry(&[(*id, None)])),
            Step::Front => drop(self.round(true)),
            Step::Back => drop(self.round(false)),
            Step::Page => drop(self.page()),
            Step::Paged => drop(self.paged()),
            Step::Send(shard) => drop(self.send(ShardId(*shard))),
            Step::Arrive(shard, is_answered) => drop(self.arrive(ShardId(*shard), *is_answered)),
            Step::Turn(shard) => {
                if let Some(search) = self.search.get_mut(&ShardId(*shard)) {
                    search.is_away = !search.is_away;
                }
            }
            Step::Again(which) => {
                if !self.sent.is_empty() {
                    let (shard, copies) = self.sent[which % self.sent.len()].clone();
                    self.is_tidy = false;
                    self.search.get_mut(&shard).unwrap().apply(&copies);
                }
            }
            Step::NewLeader => {
                self.is_tidy = false;
                self.lead();
            }
            Step::LoseDeaths => {
                self.is_tidy = false;
                if let Some((index, _)) = self.died.drain(..).next_back() {
                    self.leader.complete_after = index;
                }
            }
            Step::Mark => self.mark(),
            Step::Marked => self.marked(),
            Step::Hurry => {
                while self.page() | self.paged() {}
                self.mark();
                self.marked();
            }
            Step::Begin => self.begin(),
            Step::End => self.end(),
            Step::Wait(back) => self.wait(self.applied().saturating_sub(*back)),
        }
        self.now += Duration::from_millis(700);
    }

    /// All works again.
    fn settle(&mut self) {
        self.search.values_mut().for_each(|search| search.is_away = false);
        for _ in 0..10_000 {
            let mut is_busy = self.round(true) | self.round(false);
            is_busy |= self.page() | self.paged();
            for shard in (0..SHARDS).map(ShardId) {
                is_busy |= self.send(shard) | self.arrive(shard, true);
            }
            self.check();
            if !is_busy {
                break;
            }
        }
        let applied = LogIndex(self.applied());
        assert_eq!((self.leader.session.rounds.published(), self.leader.session.rounds.unpublished()), (applied, 0));
        assert_eq!(self.leader.session.rounds.bytes(), 0);
        assert!(self.leader.waiters.drain().is_empty());
        assert!(
            self.feed.targets.iter().all(|target| self.leader.session.fill.of(target.map.version).0 == Filled::Done)
        );
        assert!(matches!(self.leader.session.rounds.standing(applied), Standing::Done(_)));
    }

    /// All works again, and the log says so.
    fn rest(&mut self) {
        self.settle();
        self.mark();
        self.marked();
        self.settle();
    }
}

fn leader(feed: &Feed, applied: u64) -> Leader {
    Leader {
        session: Session::new(feed, LIMITS),
        waiters: Waiters::default(),
        page: None,
        mark: None,
        under_way: BTreeMap::new(),
        deaths_seen: feed.published.0,
        complete_after: applied,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_acknowledged_is_found_whatever_happens(
        steps in prop::collection::vec(step(), 1..200),
        is_calm in any::<bool>(),
        is_filled in any::<bool>(),
    ) {
        let mut world = World::new();
        if is_filled {
            world.rest();
        }
        let is_mess = |step: &Step| matches!(step, Step::Again(_) | Step::NewLeader | Step::LoseDeaths | Step::End);
        for step in steps.iter().filter(|step| !is_calm || !is_mess(step)) {
            world.run(step);
            world.check();
        }
        world.check_end();
    }
}
