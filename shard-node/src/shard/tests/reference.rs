//! What a shard must hold: a plain map, and brute force over it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vicinal_common::api::{
    Effect, FacetCount, FacetValue, Frequencies, LoggedFilter, OrderBy, OrderValue, ReplicaSpec, ScrollOrder,
    SearchQuery, Selection, ShardHit, StoredPoint, UpdateMode, WriteOp, random_key,
};
use vicinal_common::distance::Kernel;
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::ids::{LogIndex, RequestId};
use vicinal_common::payload::Fields;
use vicinal_common::point::{Point, PointId};
use vicinal_common::publish::{Feed, MapRange, ShardRole};
use vicinal_common::vector::Vector;

use super::super::{Applied, ApplyEntry, ApplyOutcome, EntryPayload, LogMark, LoggedWrite, Shard, View};
use super::feed::Death;
use super::harness::{all_parts, mark, spec};

/// A point of the model.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) version: u64,
    pub(super) point: Point,
    fields: Fields,
}

fn parsed(logged: &LoggedFilter) -> Filter {
    serde_json::from_str(&logged.json).unwrap()
}

/// Larger is nearer; none for sparse vectors that share nothing.
fn similarity(kernel: Kernel, a: &Vector, b: &Vector) -> Option<f32> {
    match (a, b) {
        (Vector::Dense(a), Vector::Dense(b)) => Some(0.0 - kernel.distance(a, b)),
        (Vector::Multi(a), Vector::Multi(b)) => {
            let nearest = |a: &[f32]| {
                let distances = b.as_ref().vectors().map(|b| kernel.distance(a, b));
                distances.fold(f32::INFINITY, f32::min)
            };
            Some(0.0 - a.as_ref().vectors().map(nearest).sum::<f32>())
        }
        (Vector::Sparse(a), Vector::Sparse(b)) => {
            let shared = a.indices.iter().zip(&a.values).filter_map(|(index, value)| {
                let at = b.indices.iter().position(|other| other == index)?;
                Some(value * b.values[at])
            });
            shared.fold(None, |sum: Option<f32>, product| Some(sum.unwrap_or(0.0) + product))
        }
        _ => panic!("{a:?} and {b:?} are of different kinds"),
    }
}

/// What a shard must hold, and the log that led there.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) spec: ReplicaSpec,
    pub(super) points: BTreeMap<PointId, Held>,
    pub(super) log: Vec<ApplyEntry>,
    pub(super) outcomes: Vec<Applied>,
    membership: Option<(LogMark, Bytes)>,
    pub(super) feed: Feed,
    pub(super) maps: MapRange,
    /// In the order of the entries.
    pub(super) deaths: Vec<Death>,
}

impl Default for Model {
    fn default() -> Model {
        Model::of(spec())
    }
}

impl Model {
    /// A model of a shard that nothing was written to.
    pub(super) fn of(spec: ReplicaSpec) -> Model {
        Model {
            spec,
            points: BTreeMap::new(),
            log: Vec::new(),
            outcomes: Vec::new(),
            membership: None,
            feed: Feed::default(),
            maps: MapRange::default(),
            deaths: Vec::new(),
        }
    }

    /// How many points there are.
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// Appends an entry and applies it.
    pub(super) fn push(&mut self, payload: EntryPayload) -> ApplyEntry {
        let index = self.log.len() as u64 + 1;
        let entry = ApplyEntry { mark: mark(index), payload };
        let outcome = match &entry.payload {
            EntryPayload::Blank => Ok(Effect::default()),
            EntryPayload::Membership(bytes) => {
                self.membership = Some((entry.mark.clone(), bytes.clone()));
                Ok(Effect::default())
            }
            EntryPayload::Write(write) => match self.first_of(write).filter(|_| !write.op.is_repeatable()) {
                Some(first) => {
                    self.log.push(entry.clone());
                    self.outcomes.push(first);
                    return entry;
                }
                None => self.change(index, write),
            },
        };
        self.log.push(entry.clone());
        self.outcomes.push(Applied { index: LogIndex(index), outcome });
        entry
    }

    pub(super) fn write(&mut self, op: WriteOp) -> ApplyEntry {
        let request = RequestId(self.log.len() as u128 + 1);
        self.push(EntryPayload::Write(LoggedWrite {
            request,
            part: 0,
            collection: self.spec.collection,
            epoch: self.spec.epoch,
            op,
        }))
    }

    fn first_of(&self, write: &LoggedWrite) -> Option<Applied> {
        let same = |entry: &ApplyEntry| match &entry.payload {
            EntryPayload::Write(other) => (other.request, other.part) == (write.request, write.part),
            EntryPayload::Blank | EntryPayload::Membership(_) => false,
        };
        // The newest ones only: older ones are forgotten by the shard.
        let recent = self.log.len().saturating_sub(1_000);
        let first = recent + self.log[recent..].iter().position(same)?;
        let first = self.outcomes[first].clone();
        (!first.outcome.as_ref().is_err_and(Error::is_retryable)).then_some(first)
    }

    fn change(&mut self, index: u64, write: &LoggedWrite) -> ApplyOutcome {
        let (role, is_repeatable) = (self.spec.role, write.op.is_repeatable());
        if role == ShardRole::Home && write.epoch != self.spec.epoch {
            return Err(Error::WrongEpoch { shard: self.spec.shard, asked: write.epoch, current: self.spec.epoch });
        }
        let refused = |words: &str| Err(Error::BadInput(format!("shard 7 is a {words}")));
        match (&write.op, role) {
            (WriteOp::Copies(_), ShardRole::Home) => return refused("home shard: it takes no copies"),
            (WriteOp::Maps(_), ShardRole::Home) => return refused("home shard: it takes no maps to be searched by"),
            (WriteOp::Feed(_), ShardRole::Search) => return refused("search shard: it takes no maps to publish by"),
            (_, ShardRole::Search) if !is_repeatable => return refused("search shard: it takes no writes of points"),
            (_, ShardRole::Home | ShardRole::Search) => {}
        }
        match &write.op {
            WriteOp::Copies(copies) => self.take_copies(index, copies),
            WriteOp::Maps(maps) => {
                self.maps.oldest = self.maps.oldest.max(maps.oldest);
                self.maps.newest = self.maps.newest.max(maps.newest);
                Ok(Effect::default())
            }
            WriteOp::Feed(change) => {
                self.feed.change(LogIndex(index), change);
                Ok(Effect::default())
            }
            WriteOp::Upsert(points) => {
                points.iter().try_for_each(|point| self.check_vectors(point))?;
                let mut ids: Vec<PointId> = points.iter().map(|point| point.id).collect();
                points.iter().for_each(|point| self.put(index, point.clone()));
                ids.sort_unstable();
                ids.dedup();
                Ok(Effect::of(ids.len() as u64))
            }
            WriteOp::Delete(ids) => {
                let gone = ids.iter().filter(|id| self.kill(index, **id)).count();
                Ok(Effect::of(gone as u64))
            }
            WriteOp::DeleteByFilter(logged) => {
                let filter = parsed(logged);
                let matching = self.points.iter().filter(|(_, held)| held.matches(Some(&filter)));
                let ids: Vec<PointId> = matching.map(|(id, _)| *id).collect();
                let killed = ids.iter().filter(|id| self.kill(index, **id)).count();
                Ok(Effect::of(killed as u64))
            }
            WriteOp::ConditionalUpsert { points, mode, filter } => {
                let filter = filter.as_ref().map(parsed);
                let mut written = BTreeSet::new();
                for point in points.iter() {
                    let is_wanted = match self.points.get(&point.id) {
                        Some(held) => *mode != UpdateMode::InsertOnly && held.matches(filter.as_ref()),
                        None => *mode != UpdateMode::UpdateOnly,
                    };
                    if is_wanted {
                        written.insert(point.id);
                        self.put(index, point.clone());
                    }
                }
                Ok(Effect::of(written.len() as u64))
            }
            WriteOp::UpdateVectors { points, filter } => {
                let filter = filter.as_ref().map(parsed);
                let mut effect = Effect::default();
                for update in points.iter() {
                    let Some(held) = self.points.get(&update.id) else {
                        effect.missing = effect.missing.or(Some(update.id));
                        continue;
                    };
                    if held.matches(filter.as_ref()) {
                        let mut point = held.point.clone();
                        update.vectors.iter().for_each(|(name, v)| drop(point.vectors.insert(name.clone(), v.clone())));
                        self.put(index, point);
                        effect.affected += 1;
                    }
                }
                Ok(effect)
            }
            WriteOp::Edit { points, edit } => {
                let mut effect = Effect::default();
                let ids: Vec<PointId> = match points {
                    Selection::Ids(ids) => ids.clone(),
                    Selection::Matching { filter, from } => {
                        let filter = parsed(filter);
                        let held = self.points.range(from.unwrap_or(PointId::Num(0))..);
                        held.filter(|(_, held)| held.matches(Some(&filter))).map(|(id, _)| *id).collect()
                    }
                };
                for id in ids {
                    let Some(held) = self.points.get(&id) else {
                        effect.missing = effect.missing.or(Some(id));
                        continue;
                    };
                    let mut point = held.point.clone();
                    if edit.apply(&mut point)? {
                        self.put(index, point);
                    }
                    effect.affected += 1;
                }
                Ok(effect)
            }
        }
    }

    /// Removes a point. Whether it was there.
    pub(super) fn kill(&mut self, index: u64, id: PointId) -> bool {
        let Some(held) = self.points.remove(&id) else { return false };
        // What an entry writes twice never was there in between.
        if (self.spec.role, held.version) != (ShardRole::Home, index) {
            let vector = held.point.vectors.get("").and_then(Vector::dense).map(<[f32]>::to_vec);
            self.deaths.push((LogIndex(index), id, LogIndex(held.version), vector));
        }
        true
    }

    fn put(&mut self, version: u64, point: Point) {
        self.kill(version, point.id);
        self.put_version(version, point);
    }

    pub(super) fn put_version(&mut self, version: u64, point: Point) {
        let fields = point.payload.fields().unwrap();
        self.points.insert(point.id, Held { version, point, fields });
    }

    fn stored(&self, id: PointId) -> Option<StoredPoint> {
        let held = self.points.get(&id)?;
        let Point { id, vectors, payload } = held.point.clone();
        Some(StoredPoint { id, version: LogIndex(held.version), payload, vectors, order: None })
    }

    pub(super) fn scroll(&self, from: Option<PointId>, limit: usize, filter: Option<&Filter>) -> Vec<StoredPoint> {
        let ids = self.points.iter().filter(|(id, _)| from.is_none_or(|from| **id >= from));
        let matching = ids.filter(|(_, held)| held.matches(filter)).take(limit);
        matching.filter_map(|(id, _)| self.stored(*id)).collect()
    }

    /// A page in any order.
    pub(super) fn page(&self, order: &ScrollOrder, limit: usize, filter: Option<&Filter>) -> Vec<StoredPoint> {
        let matching = || self.points.iter().filter(|(_, held)| held.matches(filter));
        match order {
            ScrollOrder::Id { from } => self.scroll(*from, limit, filter),
            ScrollOrder::Clusters(_) => panic!("clusters have tests of their own"),
            ScrollOrder::Random { seed } => {
                let mut ids: Vec<PointId> = matching().map(|(id, _)| *id).collect();
                ids.sort_by_key(|id| random_key(*seed, *id));
                ids.into_iter().take(limit).filter_map(|id| self.stored(id)).collect()
            }
            ScrollOrder::Key(OrderBy { key, descending, from }) => {
                let value = |held: &Held| held.fields.get(key).and_then(OrderValue::of);
                let mut values: Vec<(OrderValue, PointId)> =
                    matching().filter_map(|(id, held)| Some((value(held)?, *id))).collect();
                values.sort_unstable();
                if *descending {
                    values.reverse();
                }
                values.retain(|(value, _)| {
                    from.is_none_or(|from| if *descending { *value <= from } else { *value >= from })
                });
                let point = |(value, id)| Some(StoredPoint { order: Some(value), ..self.stored(id)? });
                values.into_iter().take(limit).filter_map(point).collect()
            }
        }
    }

    /// The values of the payload key `g`.
    pub(super) fn facet(&self, filter: Option<&Filter>) -> Vec<FacetCount> {
        let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
        for held in self.points.values().filter(|held| held.matches(filter)) {
            if let Some(value) = held.fields.get("g").and_then(serde_json::Value::as_i64) {
                *counts.entry(value).or_default() += 1;
            }
        }
        counts.into_iter().map(|(value, count)| FacetCount { value: FacetValue::Integer(value), count }).collect()
    }

    /// How frequent dimensions of the sparse vector are.
    pub(super) fn frequencies(&self, indices: &[u32], filter: Option<&Filter>) -> Frequencies {
        let sparse = |held: &Held| match held.point.vectors.get("s") {
            Some(Vector::Sparse(sparse)) => Some(sparse.indices.clone()),
            _ => None,
        };
        let own: Vec<Vec<u32>> = self.points.values().filter(|held| held.matches(filter)).filter_map(sparse).collect();
        let of = |index: &u32| own.iter().filter(|own| own.contains(index)).count() as u64;
        Frequencies { points: own.len() as u64, of: indices.iter().map(of).collect() }
    }

    /// How many points match.
    pub(super) fn count(&self, filter: &Filter) -> u64 {
        self.points.values().filter(|held| held.matches(Some(filter))).count() as u64
    }

    /// What a search must say of a point, if it may find it at all.
    pub(super) fn hit(&self, query: &SearchQuery, id: PointId) -> Option<ShardHit> {
        self.points.get(&id)?.hit(query, self.kernel(query))
    }

    fn kernel(&self, query: &SearchQuery) -> Kernel {
        Kernel::new(self.spec.schema.vectors[&query.vector_name].metric)
    }

    pub(super) fn search(&self, query: &SearchQuery) -> Vec<ShardHit> {
        let kernel = self.kernel(query);
        let mut hits: Vec<ShardHit> = self.points.values().filter_map(|held| held.hit(query, kernel)).collect();
        hits.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
        hits.truncate(query.k);
        hits
    }

    /// Compares everything that can be read.
    pub(super) fn check(&self, shard: &Shard) {
        let view = shard.view();
        self.check_view(&view);
        assert_eq!(shard.applied(), self.log.last().map(|entry| entry.mark.clone()));
        assert_eq!(shard.membership(), self.membership);
        assert_eq!(shard.stats().points, self.points.len() as u64);
        assert_eq!((&**view.feed(), view.maps()), (&self.feed, self.maps));
    }

    fn check_view(&self, view: &View) {
        let stored = view.scroll(None, usize::MAX, None, &all_parts()).unwrap();
        assert_eq!(stored, self.scroll(None, usize::MAX, None));
        assert_eq!(view.count(None).unwrap(), self.points.len() as u64);
    }

    /// Gives a shard the entries that it has not applied, a few at a time, and checks what became of them.
    pub(super) fn replay(&self, shard: &Shard) -> Result<(), Error> {
        let applied = shard.applied().map_or(0, |mark| mark.index.0) as usize;
        for (i, chunk) in self.log[applied..].chunks(5).enumerate() {
            let first = applied + i * 5;
            let outcomes = shard.apply(chunk.to_vec())?;
            assert_eq!(outcomes, self.outcomes[first..first + chunk.len()]);
        }
        Ok(())
    }
}

impl Held {
    fn matches(&self, filter: Option<&Filter>) -> bool {
        let Some(filter) = filter else { return true };
        filter.matches(self.point.id, &self.fields, &|name| self.point.vectors.contains_key(name))
    }

    fn hit(&self, query: &SearchQuery, kernel: Kernel) -> Option<ShardHit> {
        let vector = self.point.vectors.get(&query.vector_name)?;
        if query.goal.nearest().is_some_and(|wanted| similarity(kernel, wanted, vector).is_none()) {
            return None;
        }
        let distance = query.goal.distance(|part| similarity(kernel, part, vector).unwrap_or(0.0));
        let is_near = distance <= query.distance_max.unwrap_or(f32::INFINITY);
        let hit = ShardHit { distance, id: self.point.id, version: LogIndex(self.version) };
        (is_near && self.matches(query.filter.as_deref())).then_some(hit)
    }
}
