//! Random work for a shard and its model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use uuid::Uuid;
use vicinal_common::api::{
    Goal, LoggedFilter, OrderBy, OrderValue, Pair, PointEdit, PointParts, PointVectors, ReplicaSpec, ScrollOrder,
    SearchQuery, Selection, UpdateMode, VectorSelector, Weighted, WriteOp,
};
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorKind, VectorSchema};
use vicinal_common::disk::Disk;
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::ids::{CollectionId, Epoch, LogIndex, RequestId, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::payload_index::{FieldType, PayloadIndexes};
use vicinal_common::point::{Point, PointId, Vectors};
use vicinal_common::publish::{MapRange, ShardRole};
use vicinal_common::vector::{MultiVector, SparseVector, Vector};

use super::super::{
    ApplyEntry, Background, Builder, BuilderOptions, EntryPayload, LogMark, LoggedWrite, Shard, ShardEnv, ShardOptions,
};
pub(super) use super::reference::Model;

pub(super) const DIR: &str = "/data/shard";
/// Vectors `""` and `"b"` of few dimensions: graphs are over the vectors themselves.
const SMALL: [(usize, Metric); 2] = [(6, Metric::Euclid), (3, Metric::Dot)];

pub(super) fn spec() -> ReplicaSpec {
    spec_of(SMALL, HnswConfig { m: 4, ef_construction: 16 }, 2)
}

/// A shard with the vectors `""` and `"b"`, multivectors `"m"` and sparse vectors `"s"`.
pub(super) fn spec_of(vectors: [(usize, Metric); 2], hnsw: HnswConfig, indexing_threshold_kib: u64) -> ReplicaSpec {
    let vectors = ["", "b"].into_iter().zip(vectors);
    let vectors = vectors.map(|(name, (dim, metric))| (name.to_owned(), VectorSchema::dense(dim, metric)));
    let multi = VectorSchema { kind: VectorKind::Multi, ..VectorSchema::dense(2, Metric::Euclid) };
    let others = [("m".to_owned(), multi), ("s".to_owned(), VectorSchema::sparse(true))];
    let vectors = vectors.chain(others);
    ReplicaSpec {
        shard: ShardId(7),
        collection: CollectionId(Uuid::from_u128(70)),
        schema: CollectionSchema { vectors: vectors.collect(), hnsw, indexing_threshold_kib },
        epoch: Epoch(3),
        role: ShardRole::Home,
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
    ShardEnv { disk, builder: Builder::start(threads).unwrap(), maps: Arc::new(()), options }
}

pub(super) fn create(env: &ShardEnv) -> Result<Arc<Shard>, Error> {
    create_of(env, &spec())
}

pub(super) fn create_of(env: &ShardEnv, spec: &ReplicaSpec) -> Result<Arc<Shard>, Error> {
    Shard::create(env, Path::new(DIR), spec)
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

/// Random work.
pub(super) struct Work {
    pub(super) random: StdRng,
    /// Ids are numbers below this, and a tenth as many UUIDs.
    ids: u64,
    /// Of the vectors `""` and `"b"`.
    vectors: [(usize, Metric); 2],
}

impl Work {
    /// Work for a shard of [`spec`].
    pub(super) fn new(seed: u64) -> Work {
        Work::of(seed, 400, SMALL)
    }

    pub(super) fn of(seed: u64, ids: u64, vectors: [(usize, Metric); 2]) -> Work {
        Work { random: StdRng::seed_from_u64(seed), ids, vectors }
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random.random_range(0..limit)
    }

    pub(super) fn id(&mut self) -> PointId {
        match self.below(10) {
            0 => PointId::Uuid(Uuid::from_u128(u128::from(self.below(self.ids / 10)) << 64 | 5)),
            _ => PointId::Num(self.below(self.ids)),
        }
    }

    /// A vector for a name, prepared. With many dimensions it is near one of a few centres, as real ones are: graphs are
    /// no good for noise. Some are equal.
    pub(super) fn vector_of(&mut self, name: &str) -> Vec<f32> {
        let (dim, metric) = self.vectors[usize::from(name == "b")];
        if dim < 16 {
            return self.vector(dim);
        }
        let mut centre = StdRng::seed_from_u64(self.below(25));
        let spread = if self.below(20) == 0 { 1 } else { 400 };
        let mut values: Vec<f32> = (0..dim).map(|_| centre.random_range(-1.0..1.0f32)).collect();
        values.iter_mut().for_each(|value| *value += self.below(spread) as f32 / 400.0);
        metric.prepare(&mut values);
        values
    }

    pub(super) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.below(20) as f32 - 10.0).collect()
    }

    /// A vector for a name, of its kind.
    pub(super) fn any_vector(&mut self, name: &str) -> Vector {
        match name {
            "m" => {
                let count = 1 + self.below(6) as usize;
                Vector::Multi(MultiVector { dim: 2, values: self.vector(2 * count) })
            }
            "s" => {
                let count = self.below(6) as usize;
                let indices: BTreeSet<u32> = (0..count).map(|_| self.below(40) as u32 * 1_000_003).collect();
                let values = self.vector(indices.len());
                Vector::Sparse(SparseVector { indices: indices.into_iter().collect(), values })
            }
            _ => Vector::Dense(self.vector_of(name)),
        }
    }

    /// Something to look for, most often a vector.
    fn goal(&mut self, name: &str) -> Goal {
        let examples = |work: &mut Work| {
            let one = |work: &mut Work| Weighted {
                vector: Arc::new(work.any_vector(name)),
                weight: [1.0, 1.0, 0.5][work.below(3) as usize],
            };
            (0..work.below(3)).map(|_| one(work)).collect::<Vec<_>>()
        };
        let pairs = |work: &mut Work| {
            let vector = |work: &mut Work| Arc::new(work.any_vector(name));
            (0..1 + work.below(2)).map(|_| Pair { positive: vector(work), negative: vector(work) }).collect::<Vec<_>>()
        };
        match self.below(12) {
            0 => Goal::BestScore { positive: examples(self), negative: examples(self) },
            1 => Goal::SumScores { positive: examples(self), negative: examples(self) },
            2 => Goal::Discover { target: Arc::new(self.any_vector(name)), pairs: pairs(self) },
            3 => Goal::Context { pairs: pairs(self) },
            _ => Goal::Nearest(Arc::new(self.any_vector(name))),
        }
    }

    /// An order of points.
    pub(super) fn order(&mut self) -> ScrollOrder {
        match self.below(3) {
            0 => ScrollOrder::Random { seed: self.below(1_000) },
            1 => ScrollOrder::Id { from: (self.below(2) == 0).then(|| self.id()) },
            _ => {
                let from = (self.below(2) == 0).then(|| OrderValue::Float(self.below(30) as f64 - 0.5));
                ScrollOrder::Key(OrderBy { key: "g".into(), descending: self.below(2) == 0, from })
            }
        }
    }

    pub(super) fn point(&mut self) -> Point {
        let mut vectors = Vectors::new();
        if self.below(20) > 0 {
            vectors.insert(String::new(), self.any_vector(""));
        }
        if self.below(3) == 0 {
            vectors.insert("b".into(), self.any_vector("b"));
        }
        for name in ["m", "s"] {
            if self.below(4) == 0 {
                vectors.insert(name.into(), self.any_vector(name));
            }
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
        let id = self.below(self.ids);
        filter(match self.below(5) {
            0 => json!({"must": {"key": "g", "match": {"value": group}}}),
            1 => json!({"must": {"key": "g", "range": {"gte": group}}}),
            2 => {
                json!({"must_not": {"key": "text", "match": {"text_any": format!("{} y", "x".repeat(group as usize))}}})
            }
            3 => json!({"must": [{"has_id": [id, id + 1, id + 2, id + 7]}, {"is_empty": {"key": "nothing"}}]}),
            _ => json!({"must_not": [{"has_id": [id]}, {"has_vector": "b"}]}),
        })
    }

    /// Payload indexes of some of the fields, of types that fit and others.
    pub(super) fn payload_fields(&mut self) -> PayloadIndexes {
        let mut fields = PayloadIndexes::new();
        for (name, types) in [
            ("g", [FieldType::Integer, FieldType::Float, FieldType::Keyword]),
            ("text", [FieldType::Keyword, FieldType::Uuid, FieldType::Text]),
            ("nothing", [FieldType::Datetime, FieldType::Geo, FieldType::Integer]),
        ] {
            if self.below(3) > 0 {
                fields.insert(name.to_owned(), types[self.below(3) as usize].into());
            }
        }
        fields
    }

    pub(super) fn query(&mut self) -> SearchQuery {
        let name = ["b", "m", "s", "", "", "", "", ""][self.below(8) as usize];
        SearchQuery {
            vector_name: name.into(),
            goal: self.goal(name),
            k: self.below(30) as usize,
            filter: (self.below(2) == 0).then(|| Arc::new(self.filter())),
            distance_max: (self.below(4) == 0).then(|| self.below(200) as f32),
            ef: None,
            exact: true,
        }
    }

    /// A random entry, appended to the model.
    pub(super) fn entry(&mut self, model: &mut Model) -> ApplyEntry {
        match self.below(42) {
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
                bad.vectors.insert("b".into(), vec![1.0; self.vectors[1].0 + 1].into());
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
                let filter = LoggedFilter::new(&self.filter_of_few()).unwrap();
                model.write(WriteOp::DeleteByFilter(filter))
            }
            6 => {
                let points = Arc::new((0..1 + self.below(6)).map(|_| self.point()).collect());
                let mode = [UpdateMode::Upsert, UpdateMode::InsertOnly, UpdateMode::UpdateOnly][self.below(3) as usize];
                let filter = (self.below(2) == 0).then(|| LoggedFilter::new(&self.filter()).unwrap());
                model.write(WriteOp::ConditionalUpsert { points, mode, filter })
            }
            7 => {
                let updates: BTreeMap<PointId, Vectors> =
                    (0..1 + self.below(6)).map(|_| self.point()).map(|point| (point.id, point.vectors)).collect();
                let points = updates.into_iter().map(|(id, vectors)| PointVectors { id, vectors }).collect();
                let filter = (self.below(3) == 0).then(|| LoggedFilter::new(&self.filter()).unwrap());
                model.write(WriteOp::UpdateVectors { points: Arc::new(points), filter })
            }
            8 | 9 => {
                let points = match self.below(3) {
                    0 => {
                        let from = (self.below(2) == 0).then(|| self.id());
                        Selection::Matching { filter: LoggedFilter::new(&self.filter_of_few()).unwrap(), from }
                    }
                    _ => Selection::Ids(
                        (0..1 + self.below(6)).map(|_| self.id()).collect::<BTreeSet<_>>().into_iter().collect(),
                    ),
                };
                let edit = self.edit();
                model.write(WriteOp::Edit { points, edit })
            }
            40 => {
                let change = self.feed_change(model);
                model.write(WriteOp::Feed(change))
            }
            41 => match self.below(8) {
                0 => model.write(WriteOp::Maps(MapRange::default())),
                1 => model.write(WriteOp::Copies(Arc::default())),
                _ => {
                    let change = self.feed_change(model);
                    model.write(WriteOp::Feed(change))
                }
            },
            10..=14 => {
                let ids = (0..1 + self.below(6)).map(|_| self.id()).collect();
                model.write(WriteOp::Delete(ids))
            }
            _ => {
                let points = (0..1 + self.below(12)).map(|_| self.point()).collect();
                model.write(WriteOp::Upsert(Arc::new(points)))
            }
        }
    }

    fn edit(&mut self) -> PointEdit {
        let payload = self.point().payload;
        match self.below(6) {
            0 => PointEdit::SetPayload { payload, key: None },
            1 => PointEdit::SetPayload { payload, key: Some("deep[].er".into()) },
            2 => PointEdit::OverwritePayload(payload),
            3 => PointEdit::DeletePayload(vec!["g".into(), "deep.er".into()]),
            4 => PointEdit::ClearPayload,
            _ => PointEdit::DeleteVectors(vec![["", "b"][self.below(2) as usize].into()]),
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
