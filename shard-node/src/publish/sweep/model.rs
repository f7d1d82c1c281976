//! The sweep against a model of everything around it: home shards that write and publish, search shards that apply late and
//! repeated messages, and maps that change. Whatever the order, what searches rely on stays, and at rest only that.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use vicinal_common::ids::{LogIndex, MapVersion};
use vicinal_common::point::PointId;
use vicinal_common::publish::{AtHome, CopyVersion, MapRange, gone};

const HOMES: usize = 2;
const SHARDS: usize = 3;
const IDS: u64 = 6;

/// One or two shards, which a map gives to the vector of a version of a point.
fn places(id: u64, version: u64, map: u64) -> BTreeSet<usize> {
    let mixed = (id * 31 + version * 17 + map * 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    [mixed as usize % SHARDS, (mixed >> 8) as usize % SHARDS].into_iter().collect()
}

#[derive(Clone, Default)]
struct HomeShard {
    applied: u64,
    live: BTreeMap<u64, u64>,
    /// Map, and where publishing by it began.
    targets: Vec<(u64, u64)>,
    filled: BTreeSet<u64>,
    published: u64,
    /// The mark in its state: may be older than the truth.
    mark: u64,
}

#[derive(Clone, Default)]
struct SearchShard {
    rows: BTreeMap<u64, u64>,
    maps: MapRange,
}

/// A message to a search shard, which may come at any time and again.
#[derive(Clone)]
enum Message {
    Copy(u64, u64),
    Gone(Vec<CopyVersion>),
    Misplaced(u64, Vec<CopyVersion>),
}

/// A page on its way: what homes answered so far.
struct Page {
    shard: usize,
    pairs: Vec<CopyVersion>,
    answers: Vec<Option<AtHome>>,
}

#[derive(Default)]
struct Model {
    homes: Vec<HomeShard>,
    shards: Vec<SearchShard>,
    /// Everything that was ever sent.
    mail: Vec<(usize, Message)>,
    page: Option<Page>,
    serving: u64,
    /// The map being filled and how many steps of its change are done.
    next: Option<(u64, usize)>,
    last: u64,
    /// Acknowledged and not deleted since: the newest version.
    acked: BTreeMap<u64, u64>,
}

impl Model {
    fn new() -> Model {
        Model {
            homes: vec![HomeShard::default(); HOMES],
            shards: vec![SearchShard::default(); SHARDS],
            ..Model::default()
        }
    }

    fn write(&mut self, id: u64, is_delete: bool) {
        let home = &mut self.homes[id as usize % HOMES];
        home.applied += 1;
        if is_delete {
            home.live.remove(&id);
            self.acked.remove(&id);
        } else {
            home.live.insert(id, home.applied);
        }
    }

    fn send(&mut self, shard: usize, message: Message) {
        deliver(&mut self.shards[shard], &message);
        self.mail.push((shard, message));
    }

    /// A round: rows since the last one go to their places by every map that began before them.
    fn publish(&mut self, home: usize) {
        let HomeShard { live, targets, published, applied, .. } = self.homes[home].clone();
        if targets.is_empty() {
            return;
        }
        for (id, version) in live.into_iter().filter(|(_, version)| *version > published) {
            for (map, _) in targets.iter().filter(|(_, since)| *since < version) {
                places(id, version, *map).into_iter().for_each(|at| self.send(at, Message::Copy(id, version)));
            }
        }
        self.homes[home].published = applied;
    }

    fn fill(&mut self, home: usize, map: u64) {
        let HomeShard { live, targets, filled, .. } = self.homes[home].clone();
        let Some((_, since)) = targets.iter().find(|(target, _)| *target == map).copied() else { return };
        for (id, version) in live.into_iter().filter(|(_, version)| *version <= since) {
            // Where an older map that is filled has put it, it is.
            let older = targets.iter().filter(|(target, _)| *target < map && filled.contains(target));
            let there: BTreeSet<usize> = older.flat_map(|(target, _)| places(id, version, *target)).collect();
            let missing: Vec<usize> = places(id, version, map).difference(&there).copied().collect();
            missing.into_iter().for_each(|at| self.send(at, Message::Copy(id, version)));
        }
        self.homes[home].filled.insert(map);
    }

    fn end(&mut self, home: usize, map: u64) {
        self.homes[home].targets.retain(|(target, _)| *target != map);
    }

    /// The next step of a change of maps, in the order of the design: each search shard, each home shard, fill, serve, each
    /// search shard, each home shard.
    fn change(&mut self) {
        let (map, done) = self.next.unwrap_or_else(|| {
            self.last += 1;
            (self.last, 0)
        });
        let raise = |shard: &mut SearchShard, oldest: u64| {
            let told = MapRange { oldest: MapVersion(oldest), newest: MapVersion(map) };
            shard.maps = shard.maps.raised(told);
        };
        let (told, begun) = (SHARDS, SHARDS + HOMES);
        let (filled, served) = (begun + HOMES, begun + HOMES + 1);
        let ends = served + SHARDS;
        if done < told {
            raise(&mut self.shards[done], if self.serving > 0 { self.serving } else { map });
        } else if done < begun {
            let home = &mut self.homes[done - told];
            home.applied += 1;
            if home.targets.is_empty() {
                home.published = home.applied;
            }
            home.targets.push((map, home.applied));
        } else if done < filled {
            self.publish(done - begun);
            self.fill(done - begun, map);
        } else if done < served {
            (self.next, self.serving) = (Some((map, done)), map);
            // A write under way at this moment replaces what the new map never saw: it will be found once it is published.
            self.acked.clear();
        } else if done < ends {
            raise(&mut self.shards[done - served], map);
        } else if done < ends + HOMES {
            let home = done - ends;
            self.homes[home].targets.retain(|(target, _)| *target == map);
        } else {
            self.next = None;
            return;
        }
        self.next = Some((map, done + 1));
    }

    /// Gives up a change that is not served.
    fn abort(&mut self) {
        if let Some((map, _)) = self.next.filter(|(map, _)| *map != self.serving) {
            (0..HOMES).for_each(|home| self.end(home, map));
            self.next = None;
        }
    }

    /// Reads a page, as long as it likes before homes are asked.
    fn read(&mut self, shard: usize) {
        let rows = self.shards[shard].rows.iter();
        let pairs: Vec<CopyVersion> = rows.map(|(id, version)| (PointId::Num(*id), LogIndex(*version))).collect();
        // As the node does: only while the served map is the only one.
        let MapRange { oldest, newest } = self.shards[shard].maps;
        if oldest == newest && newest.0 == self.serving {
            let is_misplaced = |(id, version): &(&u64, &u64)| !places(**id, **version, newest.0).contains(&shard);
            let misplaced = self.shards[shard].rows.iter().filter(is_misplaced);
            let misplaced = misplaced.map(|(id, version)| (PointId::Num(*id), LogIndex(*version))).collect();
            self.mail.push((shard, Message::Misplaced(newest.0, misplaced)));
        }
        self.page = Some(Page { shard, pairs, answers: Vec::new() });
    }

    /// Asks the next home shard; after the last one the page is judged.
    fn ask(&mut self, answers: bool) {
        let Some(mut page) = self.page.take() else { return };
        let home = &self.homes[page.answers.len()];
        let of_page = |id: &u64| page.pairs.iter().any(|(held, _)| *held == PointId::Num(*id));
        let versions = home.live.iter().filter(|(id, _)| of_page(id));
        let answer = AtHome {
            applied: LogIndex(home.applied),
            published: LogIndex(home.mark),
            versions: versions.map(|(id, version)| (PointId::Num(*id), LogIndex(*version))).collect(),
        };
        page.answers.push(answers.then_some(answer));
        if page.answers.len() < HOMES {
            self.page = Some(page);
            return;
        }
        let judged = gone(&page.pairs, &page.answers);
        self.mail.push((page.shard, Message::Gone(judged.gone)));
    }

    fn step(&mut self, (kind, at): (u8, u8)) {
        let (id, home, shard) = (u64::from(at) % IDS, usize::from(at) % HOMES, usize::from(at) % SHARDS);
        match kind % 16 {
            0..=2 => self.write(id, false),
            3 => self.write(id, true),
            4 | 5 => self.publish(home),
            6 => self.homes[home].mark = self.homes[home].published,
            7..=9 => self.change(),
            10 if at % 8 == 0 => self.abort(),
            10 | 11 => self.read(shard),
            12 | 13 => self.ask(at % 5 > 0),
            _ => {
                // Mostly something new, sometimes anything again.
                let back = if kind % 16 == 14 { usize::from(at) % 4 } else { usize::from(at) };
                if let Some(at) = self.mail.len().checked_sub(1 + back) {
                    let (shard, message) = self.mail[at].clone();
                    deliver(&mut self.shards[shard], &message);
                }
            }
        }
    }

    /// What searches by the served map rely on.
    fn check(&mut self) {
        if self.serving == 0 {
            return;
        }
        for home in &self.homes {
            let published = home.live.iter().filter(|(_, version)| **version <= home.published);
            self.acked.extend(published.map(|(id, version)| (*id, *version)));
        }
        for (id, version) in &self.acked {
            for place in places(*id, *version, self.serving) {
                // A newer one stands in: it leads to the point as well.
                let held = self.shards[place].rows.get(id);
                assert!(held >= Some(version), "{id} version {version} is not in {place}, but {held:?}");
            }
        }
    }

    /// Everything comes to rest; then only the rows that homes have are there, where the map says.
    fn settle(&mut self) {
        while self.next.is_some() {
            self.change();
        }
        // After a change that was given up, only a new map is the only one again.
        self.change();
        while self.next.is_some() {
            self.change();
        }
        for home in 0..HOMES {
            self.publish(home);
            self.homes[home].mark = self.homes[home].published;
        }
        self.check();
        for shard in 0..SHARDS {
            let before = self.mail.len();
            self.read(shard);
            (0..HOMES).for_each(|_| self.ask(true));
            for (shard, message) in self.mail.split_off(before) {
                deliver(&mut self.shards[shard], &message);
            }
            let homes = self.homes.iter().flat_map(|home| home.live.clone());
            let expected = homes.filter(|(id, version)| places(*id, *version, self.serving).contains(&shard));
            assert_eq!(self.shards[shard].rows, expected.collect::<BTreeMap<_, _>>());
        }
    }
}

/// Applies a message as search shards do.
fn deliver(shard: &mut SearchShard, message: &Message) {
    let mut remove = |pairs: &[CopyVersion]| {
        shard.rows.retain(|id, version| !pairs.contains(&(PointId::Num(*id), LogIndex(*version))));
    };
    match message {
        Message::Copy(id, version) => {
            let held = shard.rows.entry(*id).or_default();
            *held = (*version).max(*held);
        }
        Message::Gone(pairs) => remove(pairs),
        Message::Misplaced(map, pairs) => {
            if shard.maps.oldest == shard.maps.newest && shard.maps.newest.0 == *map {
                remove(pairs);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_searches_rely_on_stays_and_at_rest_nothing_else(
        begun in 0usize..30,
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..250),
    ) {
        let mut model = Model::new();
        (0..begun).for_each(|_| model.change());
        for step in steps {
            model.step(step);
            model.check();
        }
        model.settle();
    }
}
