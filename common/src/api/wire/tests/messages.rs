//! Random messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::api::*;
use crate::collection::{CollectionSchema, HnswConfig, VectorKind, VectorSchema};
use crate::consistency::Consistency;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::ids::{CollectionId, Epoch, LogIndex, MapDigest, MapVersion, NodeId, RequestId, ShardId};
use crate::metric::Metric;
use crate::payload::Payload;
use crate::point::{Point, PointId, Vectors};
use crate::publish::{
    Copies, Copy, FeedChange, Filled, MapRange, MapRef, Misplaced, PublishStatus, ShardRole, TargetStatus,
};
use crate::transport::Address;
use crate::vector::{Datatype, MultiVector, SparseVector, Vector};

pub(super) fn shard() -> impl Strategy<Value = ShardId> {
    any::<u64>().prop_map(ShardId)
}

fn index() -> impl Strategy<Value = LogIndex> {
    any::<u64>().prop_map(LogIndex)
}

fn collection() -> impl Strategy<Value = CollectionId> {
    any::<u128>().prop_map(|id| CollectionId(Uuid::from_u128(id)))
}

pub(super) fn id() -> impl Strategy<Value = PointId> {
    prop_oneof![any::<u64>().prop_map(PointId::Num), any::<u128>().prop_map(|id| PointId::Uuid(Uuid::from_u128(id)))]
}

pub(super) fn context() -> impl Strategy<Value = ReadContext> {
    let consistency = prop_oneof![Just(Consistency::ReadYourWrites), Just(Consistency::Linearizable)];
    (collection(), any::<u64>(), vec((shard(), index()), 0..5), consistency).prop_map(
        |(collection, epoch, shards, consistency)| ReadContext {
            collection,
            epoch: Epoch(epoch),
            shards,
            consistency,
            deadline: Instant::now(),
        },
    )
}

pub(super) fn filter() -> impl Strategy<Value = Arc<Filter>> {
    let filters = vec![
        json!({}),
        json!({"must": [{"key": "a.b[]", "match": {"value": "ü\"\\"}}]}),
        json!({"must_not": [{"has_id": [1, u64::MAX, "936da01f-9abd-4d9d-80c7-02af85c822a8"]}]}),
        json!({"should": [{"key": "x", "range": {"gt": 0.1, "lte": 1e300}}, {"is_empty": {"key": "y"}}]}),
        json!({"min_should": {"conditions": [{"nested": {"key": "n", "filter": {"must": [{"key": "k", "match":
            {"any": [1, 2]}}]}}}], "min_count": 1}}),
    ];
    prop::sample::select(filters).prop_map(|json| Arc::new(Filter::parse(&json).unwrap()))
}

fn float() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

fn number() -> impl Strategy<Value = usize> {
    any::<u64>().prop_map(|number| number as usize)
}

fn vector() -> impl Strategy<Value = Vector> {
    let sparse = btree_map(any::<u32>(), float(), 0..9).prop_map(|pairs| {
        let (indices, values) = pairs.into_iter().unzip();
        Vector::Sparse(SparseVector { indices, values })
    });
    let multi = (1usize..4, vec(float(), 0..9)).prop_map(|(dim, mut values)| {
        values.truncate(values.len() / dim * dim);
        Vector::Multi(MultiVector { dim, values })
    });
    prop_oneof![vec(float(), 0..9).prop_map(Vector::Dense), sparse, multi]
}

fn goal() -> impl Strategy<Value = Goal> {
    let shared = || vector().prop_map(Arc::new);
    let examples = || vec((shared(), float()).prop_map(|(vector, weight)| Weighted { vector, weight }), 0..3);
    let pairs = || vec((shared(), shared()).prop_map(|(positive, negative)| Pair { positive, negative }), 0..3);
    prop_oneof![
        shared().prop_map(Goal::Nearest),
        (examples(), examples()).prop_map(|(positive, negative)| Goal::BestScore { positive, negative }),
        (examples(), examples()).prop_map(|(positive, negative)| Goal::SumScores { positive, negative }),
        (shared(), pairs()).prop_map(|(target, pairs)| Goal::Discover { target, pairs }),
        pairs().prop_map(|pairs| Goal::Context { pairs }),
        (shared(), float(), pairs(), float()).prop_map(|(target, factor, pairs, weight)| {
            Goal::Feedback { target, factor, pairs: pairs.into_iter().map(|pair| (pair, weight)).collect() }
        }),
    ]
}

fn order_value() -> impl Strategy<Value = OrderValue> {
    prop_oneof![any::<i64>().prop_map(OrderValue::Integer), any::<f64>().prop_map(OrderValue::Float)]
}

pub(super) fn order() -> impl Strategy<Value = ScrollOrder> {
    prop_oneof![
        option::of(id()).prop_map(|from| ScrollOrder::Id { from }),
        ("[a-z.]{0,9}", any::<bool>(), option::of(order_value()))
            .prop_map(|(key, descending, from)| ScrollOrder::Key(OrderBy { key, descending, from })),
        any::<u64>().prop_map(|seed| ScrollOrder::Random { seed }),
        (any::<u64>(), any::<u128>(), any::<u64>()).prop_map(|(seed, map, per_cluster)| {
            ScrollOrder::Clusters(ClusterSample { seed, map: MapDigest(map), per_cluster })
        }),
    ]
}

pub(super) fn facets() -> impl Strategy<Value = Vec<FacetCount>> {
    let value = prop_oneof![
        any::<bool>().prop_map(FacetValue::Bool),
        any::<i64>().prop_map(FacetValue::Integer),
        "[a-zü]{0,9}".prop_map(FacetValue::Keyword),
    ];
    vec((value, any::<u64>()).prop_map(|(value, count)| FacetCount { value, count }), 0..5)
}

pub(super) fn frequencies() -> impl Strategy<Value = Frequencies> {
    (any::<u64>(), vec(any::<u64>(), 0..5)).prop_map(|(points, of)| Frequencies { points, of })
}

pub(super) fn clusters() -> impl Strategy<Value = ClusterStats> {
    let one = (any::<u32>(), any::<u64>(), any::<f64>(), float(), id()).prop_map(
        |(cluster, points, length_sum, nearest_length, nearest)| ClusterStat {
            cluster,
            points,
            length_sum,
            nearest_length,
            nearest,
        },
    );
    (any::<u64>(), any::<u64>(), vec(one, 0..5)).prop_map(|(assigned, rows, clusters)| ClusterStats {
        assigned,
        rows,
        clusters,
    })
}

pub(super) fn map_ref(version: u64) -> MapRef {
    MapRef {
        version: MapVersion(version),
        vector: "v".into(),
        digest: MapDigest(9),
        bytes: 70,
        shards: vec![ShardId(3)],
    }
}

pub(super) fn query() -> impl Strategy<Value = SearchQuery> {
    let parts = (
        "[a-zü]{0,5}",
        goal(),
        number(),
        option::of(filter()),
        option::of(float()),
        option::of(number()),
        any::<bool>(),
    );
    parts.prop_map(|(vector_name, goal, k, filter, distance_max, ef, exact)| SearchQuery {
        vector_name,
        goal,
        k,
        filter,
        distance_max,
        ef,
        exact,
    })
}

pub(super) fn parts() -> impl Strategy<Value = PointParts> {
    let vectors = prop_oneof![
        Just(VectorSelector::None),
        Just(VectorSelector::All),
        vec("[a-z]{0,5}", 0..3).prop_map(VectorSelector::Named),
    ];
    (any::<bool>(), vectors).prop_map(|(payload, vectors)| PointParts { payload, vectors })
}

fn vectors() -> impl Strategy<Value = Vectors> {
    btree_map("[a-z]{0,3}", vector(), 0..3)
}

fn payload() -> impl Strategy<Value = Payload> {
    vec(any::<u8>(), 0..30).prop_map(|bytes| Payload::from_stored(Bytes::from(bytes)))
}

fn edit() -> impl Strategy<Value = PointEdit> {
    let texts = || vec("[ -~]{0,9}", 0..4);
    prop_oneof![
        (payload(), option::of("[a-z]{0,9}")).prop_map(|(payload, key)| PointEdit::SetPayload { payload, key }),
        payload().prop_map(PointEdit::OverwritePayload),
        texts().prop_map(PointEdit::DeletePayload),
        Just(PointEdit::ClearPayload),
        texts().prop_map(PointEdit::DeleteVectors),
    ]
}

fn copies(point: impl Strategy<Value = Point>) -> impl Strategy<Value = Copies> {
    let copy = (index(), point).prop_map(|(version, point)| Copy { version, point });
    let pairs = || vec((id(), index()), 0..4);
    let misplaced = (any::<u64>(), pairs()).prop_map(|(map, pairs)| Misplaced { map: MapVersion(map), pairs });
    (vec(copy, 0..4), pairs(), option::of(misplaced)).prop_map(|(points, gone, misplaced)| Copies {
        points,
        gone,
        misplaced,
    })
}

fn feed_change() -> impl Strategy<Value = FeedChange> {
    let version = || any::<u64>().prop_map(MapVersion);
    let map = (version(), "[a-z]{0,3}", any::<u128>(), any::<u64>(), vec(shard(), 0..4)).prop_map(
        |(version, vector, digest, bytes, shards)| MapRef { version, vector, digest: MapDigest(digest), bytes, shards },
    );
    let filled = prop_oneof![Just(Filled::Done), option::of(id()).prop_map(Filled::Below)];
    prop_oneof![
        map.prop_map(FeedChange::Begin),
        (index(), vec((version(), filled), 0..3))
            .prop_map(|(published, filled)| FeedChange::Mark { published, filled }),
        version().prop_map(|version| FeedChange::End { version }),
    ]
}

pub(super) fn write() -> impl Strategy<Value = WriteRequest> {
    let point = || (id(), vectors(), payload()).prop_map(|(id, vectors, payload)| Point { id, vectors, payload });
    let filter = || (any::<u32>(), "[ -~]{0,20}").prop_map(|(evaluator, json)| LoggedFilter { evaluator, json });
    let mode = prop_oneof![Just(UpdateMode::Upsert), Just(UpdateMode::InsertOnly), Just(UpdateMode::UpdateOnly)];
    let moved = (id(), vectors()).prop_map(|(id, vectors)| PointVectors { id, vectors });
    let selection = prop_oneof![
        vec(id(), 0..9).prop_map(Selection::Ids),
        (filter(), option::of(id())).prop_map(|(filter, from)| Selection::Matching { filter, from }),
    ];
    let op = prop_oneof![
        (vec(point(), 0..5), mode, option::of(filter())).prop_map(|(points, mode, filter)| {
            WriteOp::ConditionalUpsert { points: Arc::new(points), mode, filter }
        }),
        (vec(moved, 0..5), option::of(filter()))
            .prop_map(|(points, filter)| WriteOp::UpdateVectors { points: Arc::new(points), filter }),
        (selection, edit()).prop_map(|(points, edit)| WriteOp::Edit { points, edit }),
        vec(point(), 0..5).prop_map(|points| WriteOp::Upsert(Arc::new(points))),
        vec(id(), 0..9).prop_map(WriteOp::Delete),
        filter().prop_map(WriteOp::DeleteByFilter),
        copies(point()).prop_map(|copies| WriteOp::Copies(Arc::new(copies))),
        (any::<u64>(), any::<u64>()).prop_map(|(oldest, newest)| {
            WriteOp::Maps(MapRange { oldest: MapVersion(oldest), newest: MapVersion(newest) })
        }),
        feed_change().prop_map(WriteOp::Feed),
    ];
    (any::<u128>(), any::<u32>(), collection(), any::<u64>(), shard(), op).prop_map(
        |(request, part, collection, epoch, shard, op)| WriteRequest {
            request: RequestId(request),
            part,
            collection,
            epoch: Epoch(epoch),
            shard,
            op,
            deadline: Instant::now(),
        },
    )
}

pub(super) fn members() -> impl Strategy<Value = BTreeMap<NodeId, Address>> {
    btree_map(any::<u64>().prop_map(NodeId), "[a-z:/]{0,9}".prop_map(Address), 0..4)
}

pub(super) fn spec() -> impl Strategy<Value = ReplicaSpec> {
    let vector = VectorSchema {
        kind: VectorKind::Sparse { idf: true },
        dim: 3,
        metric: Metric::Cosine,
        datatype: Datatype::Uint8,
        hnsw: Some(HnswConfig::default()),
    };
    (shard(), collection(), any::<u64>(), "[a-z]{0,3}").prop_map(move |(shard, collection, epoch, name)| ReplicaSpec {
        shard,
        collection,
        schema: CollectionSchema {
            vectors: BTreeMap::from([(name, vector.clone())]),
            hnsw: HnswConfig::default(),
            indexing_threshold_kib: 7,
        },
        epoch: Epoch(epoch),
        role: ShardRole::Search,
    })
}

pub(super) fn error() -> impl Strategy<Value = Error> {
    prop_oneof![
        "[a-z]{0,9}".prop_map(Error::BadInput),
        ("[a-z]{0,9}", "[a-z]{0,9}").prop_map(|(field, message)| Error::Validation { field, message }),
        "[a-z]{0,9}".prop_map(Error::Unavailable),
        "[a-z]{0,9}".prop_map(Error::Timeout),
        "[a-z]{0,9}".prop_map(Error::Corrupt),
        (shard(), option::of(any::<u64>().prop_map(NodeId)), any::<u64>())
            .prop_map(|(shard, hint, term)| Error::WrongLeader { shard, hint, term }),
        (shard(), any::<u64>(), any::<u64>()).prop_map(|(shard, asked, current)| Error::WrongEpoch {
            shard,
            asked: Epoch(asked),
            current: Epoch(current)
        }),
        shard().prop_map(Error::NoSuchShard),
    ]
}

pub(super) fn result<T: Clone + std::fmt::Debug>(good: impl Strategy<Value = T>) -> impl Strategy<Value = Result<T>> {
    prop_oneof![4 => good.prop_map(Ok), 1 => error().prop_map(Err)]
}

pub(super) fn answers<T: Clone + std::fmt::Debug>(
    good: impl Strategy<Value = T>,
) -> impl Strategy<Value = Result<Vec<ShardAnswer<T>>>> {
    let answer =
        (shard(), index(), result(good)).prop_map(|(shard, applied, result)| ShardAnswer { shard, applied, result });
    result(vec(answer, 0..4))
}

pub(super) fn hits() -> impl Strategy<Value = Vec<Vec<ShardHit>>> {
    let hit = (float(), id(), index()).prop_map(|(distance, id, version)| ShardHit { distance, id, version });
    vec(vec(hit, 0..6), 0..4)
}

pub(super) fn points() -> impl Strategy<Value = Vec<StoredPoint>> {
    let parts = (id(), index(), payload(), vectors(), option::of(order_value()));
    let point =
        parts.prop_map(|(id, version, payload, vectors, order)| StoredPoint { id, version, payload, vectors, order });
    vec(point, 0..5)
}

pub(super) fn digest() -> impl Strategy<Value = ShardDigest> {
    (any::<u64>(), any::<u64>()).prop_map(|(points, digest)| ShardDigest { points, digest })
}

pub(super) fn ack() -> impl Strategy<Value = WriteAck> {
    let effect = (any::<u64>(), option::of(id()), option::of(id())).prop_map(|(affected, missing, next)| Effect {
        affected,
        missing,
        next,
    });
    let copies = vec((shard(), index()), 0..3);
    (index(), any::<u64>(), effect, copies, any::<u64>()).prop_map(|(index, term, effect, copies, map)| {
        let map = MapVersion(map);
        WriteAck { index, term, effect, copies, map }
    })
}

pub(super) fn change() -> impl Strategy<Value = MembersChange> {
    prop_oneof![Just(MembersChange::Done), any::<u64>().prop_map(|entries| MembersChange::CatchingUp { entries })]
}

pub(super) fn status() -> impl Strategy<Value = NodeStatus> {
    let replica = (shard(), collection(), members(), option::of("[a-z]{0,9}"), index()).prop_map(
        |(shard, collection, voters, failed, applied)| ReplicaStatus {
            publish: publish_status(applied.0),
            searches: applied.0,
            role: ReplicaRole::Leader,
            voters,
            failed,
            applied,
            ..ReplicaStatus::unknown(shard, collection)
        },
    );
    (any::<u64>(), vec(replica, 0..3), option::of("[a-z]{0,9}")).prop_map(|(node, replicas, read_only)| NodeStatus {
        node: NodeId(node),
        replicas,
        read_only,
        maps: vec![MapDigest(u128::from(node))],
    })
}

fn publish_status(behind: u64) -> PublishStatus {
    let target = TargetStatus { version: MapVersion(4), is_filled: behind == 0, rows_filled: 9 };
    let maps = MapRange { oldest: MapVersion(3), newest: MapVersion(4) };
    PublishStatus { targets: vec![target], behind, published: LogIndex(behind + 7), maps }
}
