//! Search shards: what is left of copies and of what is said to be gone, whatever comes in which order and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use rand::seq::SliceRandom;
use vicinal_common::api::{Effect, ReplicaSpec, StoredPoint, WriteOp};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, MapVersion};
use vicinal_common::point::{Point, PointId};
use vicinal_common::publish::{Copies, Copy, FeedChange, MapRange, Misplaced, ShardRole};

use super::super::{ApplyEntry, ApplyOutcome, EntryPayload, Shard};
use super::harness::{Model, Work, all_parts, create_of, env, mark, spec, write_of};

pub(super) fn search_spec() -> ReplicaSpec {
    ReplicaSpec { role: ShardRole::Search, ..spec() }
}

/// What home shards send, at random: versions come about in the order of their making, many twice, some late.
#[derive(Default)]
pub(super) struct Sender {
    sent: Vec<Copy>,
}

impl Sender {
    /// Makes a copy, or takes one that was sent before.
    fn copy(&mut self, work: &mut Work) -> Copy {
        if !self.sent.is_empty() && work.below(4) == 0 {
            return self.recent(work);
        }
        let number = self.sent.len() as u64;
        let version = LogIndex((1 + number + work.below(200)) << 20 | number);
        let copy = Copy { version, point: work.point() };
        self.sent.push(copy.clone());
        copy
    }

    fn recent(&self, work: &mut Work) -> Copy {
        let back = 1 + work.below(self.sent.len().min(300) as u64) as usize;
        self.sent[self.sent.len() - back].clone()
    }

    /// Versions that may be there: of copies that were sent, of live rows, some that never were.
    fn pairs(&self, work: &mut Work, model: &Model) -> Vec<(PointId, LogIndex)> {
        let pair = |work: &mut Work| match work.below(4) {
            0 => (work.id(), LogIndex(work.below(1 << 30))),
            1 if !self.sent.is_empty() => {
                let copy = self.recent(work);
                (copy.point.id, copy.version)
            }
            _ => {
                let id = work.id();
                (id, LogIndex(model.points.get(&id).map_or(7, |held| held.version)))
            }
        };
        (0..work.below(5)).map(|_| pair(work)).collect()
    }

    /// A random entry, appended to the model.
    pub(super) fn entry(&mut self, work: &mut Work, model: &mut Model) -> ApplyEntry {
        match work.below(30) {
            0 => model.push(EntryPayload::Blank),
            1 if !model.log.is_empty() => {
                let back = work.below(50.min(model.log.len() as u64)) as usize;
                let old = model.log[model.log.len() - 1 - back].payload.clone();
                model.push(old)
            }
            2 => {
                let newest = model.maps.newest.0 + work.below(2);
                let oldest = MapVersion(newest.saturating_sub(work.below(3)));
                model.write(WriteOp::Maps(MapRange { oldest, newest: MapVersion(newest) }))
            }
            3 => match work.below(3) {
                0 => model.write(WriteOp::Upsert(Arc::new(vec![work.point()]))),
                1 => model.write(WriteOp::Delete(vec![work.id()])),
                _ => model.write(WriteOp::Feed(FeedChange::End { version: MapVersion(1) })),
            },
            4 => {
                let mut points = vec![self.copy(work), self.copy(work)];
                points[1].point.vectors.insert("b".into(), vec![1.0; 99].into());
                let gone = self.pairs(work, model);
                model.write(WriteOp::Copies(Arc::new(Copies { points, gone, misplaced: None })))
            }
            _ => {
                let points: Vec<Copy> = (0..work.below(12)).map(|_| self.copy(work)).collect();
                let mut gone = if work.below(2) == 0 { self.pairs(work, model) } else { Vec::new() };
                if let Some(own) = points.first().filter(|_| work.below(10) == 0) {
                    gone.push((own.point.id, own.version));
                }
                let misplaced = (work.below(4) == 0).then(|| Misplaced {
                    map: MapVersion((model.maps.newest.0 + work.below(2)).saturating_sub(work.below(2))),
                    pairs: self.pairs(work, model),
                });
                model.write(WriteOp::Copies(Arc::new(Copies { points, gone, misplaced })))
            }
        }
    }
}

impl Model {
    /// Whether the vectors of a point fit.
    pub(super) fn check_vectors(&self, point: &Point) -> Result<(), Error> {
        for (name, vector) in &point.vectors {
            let Some(got) = vector.dense().map(<[f32]>::len) else { continue };
            let expected = self.spec.schema.vectors[name].dim;
            if expected != got {
                let text = format!("Vector dimension error: expected dim: {expected}, got {got}");
                return Err(Error::BadInput(text));
            }
        }
        Ok(())
    }

    /// What copies do, by sets: of each id the newest, unless exactly that is gone or, by the only map, misplaced.
    pub(super) fn take_copies(&mut self, index: u64, copies: &Copies) -> ApplyOutcome {
        copies.points.iter().try_for_each(|copy| self.check_vectors(&copy.point))?;
        let mut newest: BTreeMap<PointId, &Copy> = BTreeMap::new();
        for copy in &copies.points {
            let best = newest.entry(copy.point.id).or_insert(copy);
            if copy.version >= best.version {
                *best = copy;
            }
        }
        let mut affected = 0;
        for (id, copy) in newest {
            if self.points.get(&id).is_none_or(|held| held.version < copy.version.0) {
                self.kill(index, id);
                self.put_version(copy.version.0, copy.point.clone());
                affected += 1;
            }
        }
        let is_only = |map: MapVersion| (map, map) == (self.maps.oldest, self.maps.newest);
        let misplaced = copies.misplaced.iter().filter(|misplaced| is_only(misplaced.map));
        let wrong: BTreeSet<_> = copies.gone.iter().chain(misplaced.flat_map(|misplaced| &misplaced.pairs)).collect();
        for (id, version) in wrong {
            if self.points.get(id).is_some_and(|held| held.version == version.0) {
                self.kill(index, *id);
                affected += 1;
            }
        }
        Ok(Effect::of(affected))
    }
}

fn contents(shard: &Shard) -> Vec<StoredPoint> {
    shard.view().scroll(None, usize::MAX, None, &all_parts()).unwrap()
}

fn versions(shard: &Shard) -> BTreeMap<PointId, LogIndex> {
    contents(shard).into_iter().map(|point| (point.id, point.version)).collect()
}

/// Applies a write that must not be refused.
fn send(shard: &Shard, op: WriteOp) {
    let index = shard.applied().map_or(1, |mark| mark.index.0 + 1);
    let applied = shard.apply(vec![ApplyEntry { mark: mark(index), payload: write_of(op, index) }]).unwrap();
    assert!(applied[0].outcome.is_ok(), "{:?}", applied[0].outcome);
}

/// A few versions of a few points, and what is said to be gone: of some points all versions, of others some that were
/// replaced.
fn facts(work: &mut Work) -> (Vec<Copy>, BTreeSet<(PointId, LogIndex)>) {
    let (mut copies, mut gone) = (Vec::new(), BTreeSet::new());
    for id in 0..8 {
        let versions = 1 + work.below(4);
        for version in 1..=versions {
            let mut point = work.point();
            point.id = PointId::Num(id);
            let version = LogIndex(10 * version + id);
            copies.push(Copy { version, point });
        }
        let is_deleted = id % 3 == 0;
        for version in 1..=versions {
            if is_deleted || version < versions && work.below(2) == 0 {
                gone.insert((PointId::Num(id), LogIndex(10 * version + id)));
            }
        }
    }
    (copies, gone)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// In whatever order and however often messages come: points that are live at home have their newest version,
    /// others some copy that was sent, or none; and when all has been said that is gone, exactly the newest less the
    /// gone is left.
    #[test]
    fn the_newest_stay_and_the_gone_go(seed in any::<u64>()) {
        let mut work = Work::new(seed);
        let (copies, gone) = facts(&mut work);
        let mut shuffled = copies.clone();
        shuffled.shuffle(&mut work.random);
        let mut messages: Vec<Copies> = Vec::new();
        for chunk in shuffled.chunks(1 + work.below(4) as usize) {
            let riding = gone.iter().filter(|_| work.below(4) == 0).copied().collect();
            messages.push(Copies { points: chunk.to_vec(), gone: riding, misplaced: None });
        }
        messages.extend(gone.iter().map(|pair| Copies { gone: vec![*pair], ..Copies::default() }));
        let again: Vec<Copies> = messages.iter().filter(|_| work.below(2) == 0).cloned().collect();
        messages.extend(again);
        messages.shuffle(&mut work.random);

        let shard = create_of(&env(FaultyDisk::new(seed)), &search_spec()).unwrap();
        for message in messages {
            send(&shard, WriteOp::Copies(Arc::new(message)));
            match work.below(6) {
                0 => shard.flush_blocking().unwrap(),
                1 => drop(shard.maintain_once().unwrap()),
                _ => {}
            }
        }
        let newest: BTreeMap<PointId, LogIndex> = copies.iter().map(|copy| (copy.point.id, copy.version)).collect();
        let found = versions(&shard);
        for (id, version) in &newest {
            match gone.contains(&(*id, *version)) {
                false => prop_assert_eq!(found.get(id), Some(version)),
                true => prop_assert!(found.get(id).is_none_or(|found| found <= version)),
            }
        }
        send(&shard, WriteOp::Copies(Arc::new(Copies { gone: gone.iter().copied().collect(), ..Copies::default() })));
        let mut left = newest;
        left.retain(|id, version| !gone.contains(&(*id, *version)));
        prop_assert_eq!(versions(&shard), left);
        for point in contents(&shard) {
            let sent = copies.iter().find(|copy| (copy.point.id, copy.version) == (point.id, point.version)).unwrap();
            prop_assert_eq!(&sent.point.vectors, &point.vectors);
            prop_assert_eq!(&sent.point.payload, &point.payload);
        }
    }

    /// The order within an entry does not matter, even if it names a version that it brings.
    #[test]
    fn one_entry_is_a_set(seed in any::<u64>()) {
        let mut work = Work::new(seed);
        let (copies, _) = facts(&mut work);
        let (before, mut points): (Vec<Copy>, Vec<Copy>) = copies.iter().cloned().partition(|_| work.below(2) == 0);
        let pairs = |work: &mut Work| -> Vec<(PointId, LogIndex)> {
            copies.iter().filter(|_| work.below(4) == 0).map(|copy| (copy.point.id, copy.version)).collect()
        };
        let (mut gone, mut misplaced) = (pairs(&mut work), pairs(&mut work));
        let mut found = Vec::new();
        for _ in 0..3 {
            let shard = create_of(&env(FaultyDisk::new(seed)), &search_spec()).unwrap();
            let map = MapVersion(4);
            send(&shard, WriteOp::Maps(MapRange { oldest: map, newest: map }));
            send(&shard, WriteOp::Copies(Arc::new(Copies { points: before.clone(), ..Copies::default() })));
            let both = Misplaced { map, pairs: misplaced.clone() };
            let message = Copies { points: points.clone(), gone: gone.clone(), misplaced: Some(both) };
            send(&shard, WriteOp::Copies(Arc::new(message)));
            found.push(contents(&shard));
            points.shuffle(&mut work.random);
            gone.shuffle(&mut work.random);
            misplaced.shuffle(&mut work.random);
            std::mem::swap(&mut gone, &mut misplaced);
        }
        prop_assert_eq!(&found[0], &found[1]);
        prop_assert_eq!(&found[0], &found[2]);
    }
}

#[test]
fn misplaced_copies_go_only_while_one_map_is_in_force() {
    let mut work = Work::new(1);
    let shard = create_of(&env(FaultyDisk::new(1)), &search_spec()).unwrap();
    let copy = Copy { version: LogIndex(900), point: work.point() };
    let pair = (copy.point.id, copy.version);
    send(&shard, WriteOp::Copies(Arc::new(Copies { points: vec![copy], ..Copies::default() })));
    let say = |map: u64| {
        let misplaced = Some(Misplaced { map: MapVersion(map), pairs: vec![pair] });
        send(&shard, WriteOp::Copies(Arc::new(Copies { misplaced, ..Copies::default() })));
        versions(&shard).len()
    };
    let raise = |oldest: u64, newest: u64| {
        let (oldest, newest) = (MapVersion(oldest), MapVersion(newest));
        send(&shard, WriteOp::Maps(MapRange { oldest, newest }));
    };
    raise(1, 2);
    assert_eq!((say(1), say(2)), (1, 1), "two are in force");
    raise(2, 1);
    assert_eq!(
        shard.view().maps(),
        MapRange { oldest: MapVersion(2), newest: MapVersion(2) },
        "neither end moves back"
    );
    assert_eq!((say(1), say(3)), (1, 1), "another map");
    assert_eq!(say(2), 0);
}

#[test]
fn a_copy_that_does_not_fit_spoils_its_entry_and_is_forgotten() {
    let mut work = Work::new(2);
    let mut model = Model::of(search_spec());
    let shard = create_of(&env(FaultyDisk::new(1)), &search_spec()).unwrap();
    let good = Copy { version: LogIndex(70), point: work.point() };
    let mut bad = Copy { version: LogIndex(1), point: work.point() };
    bad.point.vectors.insert("c".into(), vec![1.0].into());
    let gone = vec![(good.point.id, good.version)];
    let first = Copies { points: vec![good.clone()], ..Copies::default() };
    let refused = Copies { points: vec![good, bad], gone, misplaced: None };
    let entries = [
        model.write(WriteOp::Copies(Arc::new(first))),
        ApplyEntry { mark: mark(2), payload: write_of(WriteOp::Copies(Arc::new(refused)), 2) },
    ];
    let applied = shard.apply(entries.to_vec()).unwrap();
    assert_eq!(applied[0].outcome, Ok(Effect::of(1)));
    assert!(matches!(&applied[1].outcome, Err(Error::BadInput(words)) if words.contains("vector name")), "{applied:?}");
    assert_eq!(contents(&shard), model.scroll(None, 9, None));
    // In no request table: what was refused, or done, is done again under its own index.
    let again = ApplyEntry { mark: mark(3), ..entries[0].clone() };
    let applied = shard.apply(vec![again]).unwrap().remove(0);
    assert_eq!((applied.index, applied.outcome), (LogIndex(3), Ok(Effect::of(0))));
}
