//! A model of a shard, random work for both, and the comparison.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use uuid::Uuid;
use vicinal_common::api::{
    LoggedFilter, NearestQuery, PointParts, ReplicaSpec, ShardHit, StoredPoint, VectorSelector, WriteOp,
};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::disk::Disk;
use vicinal_common::distance::Kernel;
use vicinal_common::error::Error;
use vicinal_common::filter::{EVALUATOR_VERSION, Filter};
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, RequestId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::payload_index::FieldType;
use vicinal_common::point::{Point, PointId, Vectors};

use super::super::{
    Applied, ApplyEntry, Background, Builder, BuilderOptions, EntryPayload, LogMark, LoggedWrite, Shard, ShardEnv,
    ShardOptions, View,
};

pub(super) const DIR: &str = "/data/shard";
/// Dimensions of the vectors `""` and `"b"`.
const DIMS: [usize; 2] = [6, 3];

pub(super) fn spec() -> ReplicaSpec {
    let vector = |dim, metric| VectorSchema { dim, metric, hnsw: None };
    let mut vectors = BTreeMap::from([(String::new(), vector(DIMS[0], Metric::Euclid))]);
    vectors.insert(
        "b".into(),
        VectorSchema { hnsw: Some(HnswConfig { m: 4, ef_construction: 16 }), ..vector(DIMS[1], Metric::Dot) },
    );
    ReplicaSpec {
        shard: ShardId(7),
        collection: CollectionId(Uuid::from_u128(70)),
        schema: CollectionSchema { vectors, hnsw: HnswConfig { m: 4, ef_construction: 16 }, indexing_threshold_kib: 2 },
        epoch: Epoch(3),
    }
}

/// Everything small and driven by hand.
pub(super) fn env(disk: impl Disk) -> ShardEnv {
    let options = ShardOptions {
        seal_bytes: 4_000,
        fresh_bytes_max: 64_000,
        background: Background::Manual,
        ..ShardOptions::default()
    };
    env_with(Arc::new(disk), options)
}

pub(super) fn env_with(disk: Arc<dyn Disk>, options: ShardOptions) -> ShardEnv {
    let threads = BuilderOptions { seal_threads: 1, build_threads: 1, ..BuilderOptions::default() };
    ShardEnv { disk, builder: Builder::start(threads).unwrap(), options }
}

pub(super) fn create(env: &ShardEnv) -> Result<Arc<Shard>, Error> {
    Shard::create(env, Path::new(DIR), &spec())
}

pub(super) fn all_parts() -> PointParts {
    PointParts { payload: true, vectors: VectorSelector::All }
}

pub(super) fn filter(json: serde_json::Value) -> Filter {
    Filter::parse(&json).unwrap()
}

pub(super) fn mark(index: u64) -> LogMark {
    LogMark { index: LogIndex(index), encoded: Bytes::from(format!("mark {index}")) }
}

/// What a shard must hold, and the log that led there.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) points: BTreeMap<PointId, (u64, Point)>,
    pub(super) log: Vec<ApplyEntry>,
    pub(super) outcomes: Vec<Applied>,
    membership: Option<(LogMark, Bytes)>,
}

impl Model {
    /// Appends an entry and applies it.
    pub(super) fn push(&mut self, payload: EntryPayload) -> ApplyEntry {
        let index = self.log.len() as u64 + 1;
        let entry = ApplyEntry { mark: mark(index), payload };
        let outcome = match &entry.payload {
            EntryPayload::Blank => Ok(0),
            EntryPayload::Membership(bytes) => {
                self.membership = Some((entry.mark.clone(), bytes.clone()));
                Ok(0)
            }
            EntryPayload::Write(write) => match self.first_of(write) {
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
            collection: spec().collection,
            epoch: spec().epoch,
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

    fn change(&mut self, index: u64, write: &LoggedWrite) -> Result<u64, Error> {
        if write.epoch != spec().epoch {
            return Err(Error::WrongEpoch { shard: spec().shard, asked: write.epoch, current: spec().epoch });
        }
        match &write.op {
            WriteOp::Upsert(points) => {
                for point in points.iter() {
                    for (name, vector) in &point.vectors {
                        let (expected, got) = (DIMS[usize::from(name == "b")], vector.len());
                        if expected != got {
                            let text = format!("Vector dimension error: expected dim: {expected}, got {got}");
                            return Err(Error::BadInput(text));
                        }
                    }
                }
                let mut ids: Vec<PointId> = points.iter().map(|point| point.id).collect();
                for point in points.iter() {
                    self.points.insert(point.id, (index, point.clone()));
                }
                ids.sort_unstable();
                ids.dedup();
                Ok(ids.len() as u64)
            }
            WriteOp::Delete(ids) => Ok(ids.iter().filter(|id| self.points.remove(id).is_some()).count() as u64),
            WriteOp::DeleteByFilter(logged) => {
                let filter: Filter = serde_json::from_str(&logged.json).unwrap();
                let before = self.points.len();
                self.points.retain(|_, (_, point)| !matches(Some(&filter), point));
                Ok((before - self.points.len()) as u64)
            }
        }
    }

    fn stored(&self, id: PointId) -> Option<StoredPoint> {
        let (version, point) = self.points.get(&id)?;
        let Point { id, vectors, payload } = point.clone();
        Some(StoredPoint { id, version: LogIndex(*version), payload, vectors })
    }

    pub(super) fn scroll(&self, from: Option<PointId>, limit: usize, filter: Option<&Filter>) -> Vec<StoredPoint> {
        let ids = self.points.iter().filter(|(id, _)| from.is_none_or(|from| **id >= from));
        let matching = ids.filter(|(_, (_, point))| matches(filter, point)).take(limit);
        matching.filter_map(|(id, _)| self.stored(*id)).collect()
    }

    pub(super) fn search(&self, query: &NearestQuery) -> Vec<ShardHit> {
        let kernel = Kernel::new(spec().schema.vectors[&query.vector_name].metric);
        let points = self.points.values().filter(|(_, point)| matches(query.filter.as_deref(), point));
        let hits = points.filter_map(|(version, point)| {
            let vector = point.vectors.get(&query.vector_name)?;
            let distance = kernel.distance(&query.vector, vector);
            Some(ShardHit { distance, id: point.id, version: LogIndex(*version) })
        });
        let limit = query.distance_max.unwrap_or(f32::INFINITY);
        let mut hits: Vec<ShardHit> = hits.filter(|hit| hit.distance <= limit).collect();
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

fn matches(filter: Option<&Filter>, point: &Point) -> bool {
    let Some(filter) = filter else { return true };
    filter.matches(point.id, &point.payload.fields().unwrap(), &|name| point.vectors.contains_key(name))
}

/// Random work.
pub(super) struct Work(pub(super) StdRng);

impl Work {
    pub(super) fn new(seed: u64) -> Work {
        Work(StdRng::seed_from_u64(seed))
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0.random_range(0..limit)
    }

    pub(super) fn id(&mut self) -> PointId {
        match self.below(10) {
            0 => PointId::Uuid(Uuid::from_u128(u128::from(self.below(40)) << 64 | 5)),
            _ => PointId::Num(self.below(400)),
        }
    }

    pub(super) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.below(20) as f32 - 10.0).collect()
    }

    fn point(&mut self) -> Point {
        let mut vectors = Vectors::new();
        if self.below(20) > 0 {
            vectors.insert(String::new(), self.vector(DIMS[0]));
        }
        if self.below(3) == 0 {
            vectors.insert("b".into(), self.vector(DIMS[1]));
        }
        let payload = match self.below(5) {
            0 => Payload::EMPTY,
            _ => {
                let fields = json!({"g": self.below(30), "text": "x".repeat(self.below(30) as usize)});
                Payload::from_fields(fields.as_object().unwrap()).unwrap()
            }
        };
        Point { id: self.id(), vectors, payload }
    }

    pub(super) fn filter(&mut self) -> Filter {
        let group = self.below(30);
        let id = self.below(400);
        filter(match self.below(4) {
            0 => json!({"must": {"key": "g", "match": {"value": group}}}),
            1 => json!({"must": {"key": "g", "range": {"gte": group}}}),
            2 => json!({"must": [{"has_id": [id, id + 1, id + 2, id + 7]}, {"is_empty": {"key": "nothing"}}]}),
            _ => json!({"must_not": [{"has_id": [id]}, {"has_vector": "b"}]}),
        })
    }

    /// Payload indexes of some of the fields, of types that fit and others.
    pub(super) fn payload_fields(&mut self) -> BTreeMap<String, FieldType> {
        let mut fields = BTreeMap::new();
        for (name, types) in [
            ("g", [FieldType::Integer, FieldType::Float, FieldType::Keyword]),
            ("text", [FieldType::Keyword, FieldType::Uuid, FieldType::Bool]),
            ("nothing", [FieldType::Datetime, FieldType::Geo, FieldType::Integer]),
        ] {
            if self.below(3) > 0 {
                fields.insert(name.to_owned(), types[self.below(3) as usize]);
            }
        }
        fields
    }

    pub(super) fn query(&mut self) -> NearestQuery {
        let name = if self.below(4) == 0 { "b" } else { "" };
        NearestQuery {
            vector_name: name.into(),
            vector: self.vector(DIMS[usize::from(name == "b")]).into(),
            k: self.below(30) as usize,
            filter: (self.below(2) == 0).then(|| Arc::new(self.filter())),
            distance_max: (self.below(4) == 0).then(|| self.below(200) as f32),
            ef: None,
            exact: true,
        }
    }

    /// A random entry, appended to the model.
    pub(super) fn entry(&mut self, model: &mut Model) -> ApplyEntry {
        match self.below(40) {
            0 => model.push(EntryPayload::Blank),
            1 => model.push(EntryPayload::Membership(Bytes::from(format!("members {}", self.below(1_000))))),
            2 if !model.log.is_empty() => {
                // A retry of something recent.
                let back = self.below(50.min(model.log.len() as u64)) as usize;
                let old = model.log[model.log.len() - 1 - back].payload.clone();
                model.push(old)
            }
            3 => {
                let mut bad = self.point();
                bad.vectors.insert("b".into(), vec![1.0; DIMS[1] + 1]);
                let good = self.point();
                model.write(WriteOp::Upsert(Arc::new(vec![good, bad])))
            }
            4 => {
                let request = RequestId(model.log.len() as u128 + 1);
                let (collection, epoch) = (spec().collection, Epoch(9));
                let op = WriteOp::Delete(vec![self.id()]);
                model.push(EntryPayload::Write(LoggedWrite { request, part: 0, collection, epoch, op }))
            }
            5 => {
                let json = serde_json::to_string(&self.filter_of_few()).unwrap();
                model.write(WriteOp::DeleteByFilter(LoggedFilter { evaluator: EVALUATOR_VERSION, json }))
            }
            6..=12 => {
                let ids = (0..1 + self.below(6)).map(|_| self.id()).collect();
                model.write(WriteOp::Delete(ids))
            }
            _ => {
                let points = (0..1 + self.below(12)).map(|_| self.point()).collect();
                model.write(WriteOp::Upsert(Arc::new(points)))
            }
        }
    }

    fn filter_of_few(&mut self) -> Filter {
        filter(json!({"must": {"key": "g", "match": {"value": self.below(30)}}}))
    }
}

/// A write of its own request id, for the spec's collection and epoch.
pub(super) fn write_of(op: WriteOp, request: u64) -> EntryPayload {
    let (collection, epoch) = (spec().collection, spec().epoch);
    EntryPayload::Write(LoggedWrite { request: RequestId(u128::from(request) << 40), part: 0, collection, epoch, op })
}
