//! Home shards: what they publish, what a publisher reads of them, and which rows died.

use std::sync::Arc;

use vicinal_common::api::{ReplicaSpec, WriteOp};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::error::Error;
use vicinal_common::ids::{Epoch, LogIndex, MapDigest, MapVersion, ShardId};
use vicinal_common::point::{Point, PointId};
use vicinal_common::publish::{Copies, Copy, FeedChange, Filled, MapRange, MapRef, ShardRole};
use vicinal_common::vector::Vector;

use super::super::{Shard, View};
use super::copies::search_spec;
use super::harness::{Model, Work, create_of, env, spec};
use super::model::copy_files;

impl Work {
    /// A change of a feed, near what it is.
    pub(super) fn feed_change(&mut self, model: &Model) -> FeedChange {
        let near = |work: &mut Work| MapVersion((model.feed.newest.0 + work.below(3)).saturating_sub(1));
        match self.below(4) {
            0 => FeedChange::Begin(MapRef {
                version: near(self),
                digest: MapDigest(self.below(1 << 40).into()),
                bytes: self.below(1_000),
                shards: (0..self.below(4)).map(ShardId).collect(),
                vector: String::new(),
            }),
            1 => FeedChange::End { version: near(self) },
            _ => {
                let filled = |work: &mut Work| match work.below(6) {
                    0 => Filled::Done,
                    1 => Filled::Below(None),
                    _ => Filled::Below(Some(work.id())),
                };
                let filled = (0..self.below(3)).map(|_| (near(self), filled(self))).collect();
                FeedChange::Mark { published: LogIndex(self.below(model.log.len() as u64 + 10)), filled }
            }
        }
    }
}

/// A death as the model knows it: entry, id, version, the vector `""`.
pub(super) type Death = (LogIndex, PointId, LogIndex, Option<Vec<f32>>);

/// How far the deaths of a shard were compared with the model's.
pub(super) struct DeathWatch {
    began: LogIndex,
    seen: usize,
}

impl DeathWatch {
    /// Begins to watch a shard.
    pub(super) fn begin(shard: &Shard, model: &Model) -> DeathWatch {
        shard.watch_deaths(true);
        let began = shard.applied().map_or(LogIndex(0), |mark| mark.index);
        DeathWatch { began, seen: model.deaths.partition_point(|death| death.0 <= began) }
    }

    /// All that died since the last time, in the order of the entries.
    pub(super) fn check(&mut self, shard: &Shard, model: &Model) {
        let deaths = shard.take_deaths();
        assert_eq!(deaths.complete_after, self.began);
        assert!(deaths.died.is_sorted_by_key(|died| died.index));
        let read = |died: &super::super::Died| (died.index, died.id, died.version, died.vector("").unwrap());
        let mut found: Vec<Death> = deaths.died.iter().map(read).collect();
        let mut expected = model.deaths[self.seen..].to_vec();
        let order = |death: &Death| (death.0, death.1);
        found.sort_by_key(order);
        expected.sort_by_key(order);
        assert_eq!(found, expected);
        self.seen = model.deaths.len();
    }
}

/// What a publisher reads of a view.
pub(super) fn check_publishing(work: &mut Work, view: &View, model: &Model) {
    let newest = model.points.values().map(|held| held.version).max().unwrap_or(0);
    let after = match work.below(2) {
        0 => work.below(newest + 2),
        _ => newest.saturating_sub(work.below(40)),
    };
    let rows = model.points.iter().map(|(id, held)| (LogIndex(held.version), *id));
    let mut expected: Vec<_> = rows.filter(|(version, _)| version.0 > after).collect();
    expected.sort_unstable();
    assert_eq!(view.newer_than(LogIndex(after)), expected);

    let name = ["", "b"][work.below(2) as usize];
    let copy = |id: &PointId| {
        let held = model.points.get(id)?;
        let mut point = held.point.clone();
        point.vectors.retain(|own, _| own == name);
        Some(Copy { version: LogIndex(held.version), point })
    };
    let id = work.id();
    assert_eq!(view.copy_of(id, name).unwrap(), copy(&id));

    let (first, bytes_max) = ((work.below(2) == 0).then(|| work.id()), work.below(3_000) as usize);
    let expected: Vec<Copy> =
        model.points.keys().filter(|id| first.is_none_or(|first| **id >= first)).filter_map(copy).collect();
    let (mut from, mut found) = (first, Vec::new());
    for _ in 0..=expected.len() {
        let (page, next) = view.page_of_copies(from, bytes_max, name).unwrap();
        let bytes = |copy: &Copy| {
            copy.point.payload.as_bytes().len() + copy.point.vectors.values().map(Vector::bytes).sum::<usize>()
        };
        let last = page.last().map_or(0, bytes);
        assert!(page.iter().map(bytes).sum::<usize>() <= bytes_max + last, "a page ends when it is full");
        found.extend(page);
        from = next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!((found, from), (expected, None));
}

fn shard_of(spec: &ReplicaSpec) -> Arc<Shard> {
    create_of(&env(FaultyDisk::new(1)), spec).unwrap()
}

fn maps(oldest: u64, newest: u64) -> WriteOp {
    WriteOp::Maps(MapRange { oldest: MapVersion(oldest), newest: MapVersion(newest) })
}

#[test]
fn shards_take_what_is_for_their_role() {
    let (home, search) = (shard_of(&spec()), shard_of(&search_spec()));
    assert_eq!((home.role(), search.role()), (ShardRole::Home, ShardRole::Search));
    let (mut at_home, mut at_search) = (Model::of(spec()), Model::of(search_spec()));
    let begin = MapRef {
        version: MapVersion(1),
        digest: MapDigest(1),
        bytes: 1,
        shards: vec![ShardId(9)],
        vector: String::new(),
    };
    for op in [
        WriteOp::Copies(Arc::new(Copies::default())),
        maps(1, 1),
        WriteOp::Feed(FeedChange::Begin(begin)),
        WriteOp::Upsert(Arc::new(Vec::new())),
        WriteOp::Delete(Vec::new()),
    ] {
        let is_for_home = matches!(&op, WriteOp::Feed(_) | WriteOp::Upsert(_) | WriteOp::Delete(_));
        for (shard, model, takes) in [(&home, &mut at_home, is_for_home), (&search, &mut at_search, !is_for_home)] {
            let outcome = shard.apply(vec![model.write(op.clone())]).unwrap().remove(0).outcome;
            assert_eq!(outcome.is_ok(), takes, "{op:?}: {outcome:?}");
            assert!(takes || matches!(outcome, Err(Error::BadInput(_))));
        }
    }
    assert_eq!(home.view().feed().published, LogIndex(3));
    assert_eq!(search.view().maps().newest, MapVersion(1));
}

#[test]
fn a_read_is_answered_by_the_maps_of_the_view_it_reads() {
    let home = shard_of(&spec());
    let own = spec().epoch;
    for read in [None, Some(&*home.view())] {
        assert_eq!(home.check_epoch(own, read), Ok(()));
        let refused = home.check_epoch(Epoch(own.0 + 1), read);
        assert_eq!(refused, Err(Error::WrongEpoch { shard: ShardId(7), asked: Epoch(own.0 + 1), current: own }));
    }

    let search = shard_of(&search_spec());
    let mut model = Model::of(search_spec());
    search.apply(vec![model.write(maps(2, 3))]).unwrap();
    let before = search.view();
    search.apply(vec![model.write(maps(3, 4))]).unwrap();
    let after = search.view();
    let answers = |view: &View, asked: u64| match search.check_epoch(Epoch(asked), Some(view)) {
        Ok(()) => None,
        Err(Error::WrongEpoch { asked: named, current, .. }) if named == Epoch(asked) => Some(current.0),
        Err(other) => panic!("{other}"),
    };
    assert_eq!([1, 2, 3, 4].map(|asked| answers(&before, asked)), [Some(2), None, None, Some(3)]);
    assert_eq!([2, 3, 4, 5].map(|asked| answers(&after, asked)), [Some(3), None, None, Some(4)]);
    assert_eq!(search.check_epoch(Epoch(77), None), Ok(()), "copies are facts by whatever map");
}

#[test]
fn a_new_row_costs_a_publisher_no_look_at_sealed_ones() {
    let shard = shard_of(&spec());
    let (mut work, mut model) = (Work::new(4), Model::default());
    for _ in 0..40 {
        let points: Vec<Point> = (0..5).map(|_| work.point()).collect();
        shard.apply(vec![model.write(WriteOp::Upsert(Arc::new(points)))]).unwrap();
    }
    shard.flush_blocking().unwrap();
    let sealed = shard.applied().unwrap().index;
    shard.apply(vec![model.write(WriteOp::Upsert(Arc::new(vec![work.point()])))]).unwrap();
    let view = shard.view();
    let beyond = view.sources().filter(|source| source.run.max_version() > sealed).count();
    assert_eq!((view.segments.len(), beyond), (1, 1), "of the runs only the fresh one is read");
    assert_eq!(view.newer_than(sealed).len(), 1);
    assert!(matches!(view.copy_of(PointId::Num(1), "c"), Err(Error::BadInput(_))));
    assert!(matches!(view.page_of_copies(None, 9, "c"), Err(Error::BadInput(_))));
}

#[test]
fn deaths_are_known_from_when_somebody_watches() {
    let env = env(FaultyDisk::new(1));
    let shard = create_of(&env, &spec()).unwrap();
    let (mut work, mut model) = (Work::new(3), Model::default());
    let put = |model: &mut Model, work: &mut Work| {
        let points = vec![Point { id: PointId::Num(1), ..work.point() }];
        shard.apply(vec![model.write(WriteOp::Upsert(Arc::new(points)))]).unwrap();
    };
    put(&mut model, &mut work);
    put(&mut model, &mut work);
    assert_eq!(shard.take_deaths().complete_after, LogIndex(u64::MAX), "nobody watches");
    shard.watch_deaths(true);
    put(&mut model, &mut work);
    // Watching already.
    shard.watch_deaths(true);
    shard.apply(vec![model.write(WriteOp::Delete(vec![PointId::Num(1)]))]).unwrap();
    let deaths = shard.take_deaths();
    assert_eq!(deaths.complete_after, LogIndex(2));
    let entries: Vec<_> = deaths.died.iter().map(|died| (died.index.0, died.version.0)).collect();
    assert_eq!(entries, [(3, 2), (4, 3)]);
    assert!(matches!(deaths.died[0].vector("c"), Err(Error::BadInput(_))));
    assert_eq!(deaths.died[0].vector("m"), Ok(None), "it is no dense one");
    assert!(shard.take_deaths().died.is_empty());

    // A state that is installed says nothing of what died on the way.
    let donor_env = super::harness::env(FaultyDisk::new(2));
    let donor = create_of(&donor_env, &spec()).unwrap();
    put(&mut model, &mut work);
    model.replay(&donor).unwrap();
    donor.flush_blocking().unwrap();
    let snapshot = donor.snapshot().unwrap();
    copy_files(&donor_env, &env, &snapshot, &shard.begin_install().unwrap());
    shard.finish_install(&snapshot.manifest).unwrap();
    let deaths = shard.take_deaths();
    assert_eq!((deaths.complete_after, deaths.died.len()), (LogIndex(5), 0));
    shard.watch_deaths(false);
    assert_eq!(shard.take_deaths().complete_after, LogIndex(u64::MAX));
}
