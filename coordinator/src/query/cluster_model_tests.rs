//! Searches of a model cluster whose search shards are in arbitrary bad states, compared with what home shards answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use vicinal_common::api::{PointParts, VectorSelector};
use vicinal_common::consistency::Consistency;
use vicinal_common::filter::Filter;
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::point::{PointId, UNNAMED};
use vicinal_common::publish::{Copies, Copy};
use vicinal_common::vector::Vector;

use super::*;
use crate::model::{ClusterModel, ModelCluster, ModelShard, Publish};
use crate::session::Session;

mod repairs;

const IDS: u64 = 40;
/// Distances that differ by less may be of either order.
const CLOSE: f32 = 1e-3;

/// Something that happens to a point or its copies.
#[derive(Clone, Debug)]
enum Step {
    /// It is written at this place, with its copies.
    Write(u64, f32),
    /// It is deleted; its copies stay.
    Delete(u64),
    /// A search shard gets, or still has, a version that is gone, with whatever place.
    Old { id: u64, shard: usize, age: u64, x: f32 },
    /// A search shard gets a copy of the point as it is, wherever the map wants it.
    Misplaced { id: u64, shard: usize },
    /// A search shard hears of all versions that are gone.
    Sweep(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (id, x, shard) = (0..IDS, 0.0f32..62.0, 0usize..4);
    prop_oneof![
        6 => (id.clone(), x.clone()).prop_map(|(id, x)| Step::Write(id, x)),
        2 => id.clone().prop_map(Step::Delete),
        4 => (id.clone(), shard.clone(), 0u64..6, x).prop_map(|(id, shard, age, x)| Step::Old { id, shard, age, x }),
        3 => (id, shard.clone()).prop_map(|(id, shard)| Step::Misplaced { id, shard }),
        1 => shard.prop_map(Step::Sweep),
    ]
}

type Shards = BTreeMap<ShardId, ModelShard>;

/// Does a step to the shards of a model; `home_of` says where a point lives.
fn act(shards: &mut Shards, publish: &Publish, home_of: &dyn Fn(u64) -> ShardId, step: &Step) {
    let search: Vec<ShardId> = shards.keys().copied().filter(|shard| shard.0 >= 100).collect();
    match step {
        Step::Write(id, x) => {
            let home = home_of(*id);
            let shard = shards.get_mut(&home).unwrap();
            shard.log += 1;
            let index = LogIndex(shard.log);
            shard.points.insert(PointId::Num(*id), (index, ModelCluster::point(*id, *x)));
            publish.send(shards, home, index);
        }
        Step::Delete(id) => {
            let shard = shards.get_mut(&home_of(*id)).unwrap();
            shard.log += 1;
            shard.points.remove(&PointId::Num(*id));
        }
        Step::Old { id, shard, age, x } => {
            let home = &shards[&home_of(*id)];
            let newest =
                home.points.get(&PointId::Num(*id)).map_or(home.log, |(version, _)| version.0.saturating_sub(1));
            let version = LogIndex(newest.saturating_sub(*age));
            if version > LogIndex(0) {
                let copy = Copy { version, point: ModelCluster::point(*id, *x) };
                let copies = Copies { points: vec![copy], ..Copies::default() };
                shards.get_mut(&search[*shard]).unwrap().take_copies(&copies);
            }
        }
        Step::Misplaced { id, shard } => {
            if let Some((version, point)) = shards[&home_of(*id)].points.get(&PointId::Num(*id)).cloned() {
                let copies = Copies { points: vec![Copy { version, point }], ..Copies::default() };
                shards.get_mut(&search[*shard]).unwrap().take_copies(&copies);
            }
        }
        Step::Sweep(shard) => {
            let held = shards[&search[*shard]].points.iter().map(|(id, (version, _))| (*id, *version));
            let is_live = |id: PointId, version: LogIndex| {
                let PointId::Num(number) = id else { return false };
                shards[&home_of(number)].points.get(&id).is_some_and(|(live, _)| *live == version)
            };
            let gone = held.filter(|(id, version)| !is_live(*id, *version)).collect();
            shards.get_mut(&search[*shard]).unwrap().take_copies(&Copies { gone, ..Copies::default() });
        }
    }
}

fn after(steps: &[Step]) -> ClusterModel {
    after_on(1, steps)
}

/// The same with so many replicas.
fn after_on(replicas: u64, steps: &[Step]) -> ClusterModel {
    let cluster = ClusterModel::new(3, 4, replicas).with_map();
    let home_of = |id| cluster.base.shard_of(id);
    let mut model = cluster.base.model.lock();
    for step in steps {
        act(&mut model.shards, &cluster.publish, &home_of, step);
    }
    drop(model);
    cluster
}

fn any_source() -> impl Strategy<Value = Source> {
    let example = prop_oneof![
        (0.0f32..62.0).prop_map(|x| Example::Vector(vec![x, 0.0].into())),
        (0..IDS).prop_map(|id| Example::Point(PointId::Num(id))),
    ];
    let some = proptest::collection::vec(example.clone().prop_map(|example| (example, 1.0)), 1..3);
    prop_oneof![
        4 => (0.0f32..62.0).prop_map(|x| Source::Vector(vec![x, 0.0].into())),
        1 => (0..IDS).prop_map(|id| Source::Point(PointId::Num(id))),
        1 => some.clone().prop_map(|positive| Source::Average { positive, negative: Vec::new() }),
        1 => some.prop_map(|positive| Source::BestScore { positive, negative: Vec::new() }),
    ]
}

fn any_filter() -> impl Strategy<Value = Option<Arc<Filter>>> {
    let below = (0..IDS).prop_map(|n| format!(r#"{{"must": [{{"key": "n", "range": {{"lt": {n}}}}}]}}"#));
    let among = (0..IDS).prop_map(|n| format!(r#"{{"must": [{{"has_id": [{n}, {}, {}]}}]}}"#, n / 2, n / 3));
    let has = Just(r#"{"must": [{"has_vector": ""}]}"#.to_owned());
    let text =
        prop_oneof![3 => Just(None), 2 => below.prop_map(Some), 1 => among.prop_map(Some), 1 => has.prop_map(Some)];
    text.prop_map(|text| text.map(|text| Arc::new(serde_json::from_str(&text).unwrap())))
}

fn any_query() -> impl Strategy<Value = Query> {
    let threshold = prop_oneof![2 => Just(None), 1 => (0.0f32..30.0).prop_map(Some)];
    let parts = prop_oneof![
        Just(PointParts::default()),
        Just(PointParts { payload: true, vectors: VectorSelector::None }),
        Just(PointParts { payload: true, vectors: VectorSelector::All }),
    ];
    let width = prop_oneof![
        3 => Just(Width::Usual),
        1 => Just(Width::Recall(0.5)),
        1 => Just(Width::Shards(1)),
        1 => Just(Width::All),
    ];
    (any_source(), any_filter(), threshold, 1usize..12, 0usize..4, any::<bool>(), parts, width).prop_map(
        |(source, filter, threshold, limit, offset, exact, parts, width)| Query {
            // Of other goals the larger score is the better one.
            score_threshold: threshold.filter(|_| !matches!(source, Source::BestScore { .. })),
            source,
            using: UNNAMED.into(),
            filter,
            limit,
            offset,
            ef: None,
            exact,
            oversampling: None,
            idf_corpus: None,
            parts,
            width,
            allow_partial: false,
        },
    )
}

async fn ask(cluster: &ClusterModel, queries: &[Query]) -> vicinal_common::error::Result<Vec<Answer>> {
    ask_within(cluster, queries, Duration::from_secs(5)).await
}

async fn ask_within(
    cluster: &ClusterModel,
    queries: &[Query],
    time: Duration,
) -> vicinal_common::error::Result<Vec<Answer>> {
    let session = Session::default();
    let deadline = Instant::now() + time;
    let spec = ReadSpec { consistency: Consistency::ReadYourWrites, deadline, session: &session };
    run(&cluster.base.access, &cluster.base.lookup(), spec, queries).await
}

fn blocking<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Whether the answer to a query is equal to that of home shards, because all search shards are asked and the model
/// searches exactly. Where the map decides, neighbours beyond a border may be missing.
fn is_exact(query: &Query) -> bool {
    let is_by_example = matches!(query.source, Source::BestScore { .. });
    let is_counted = matches!(query.width, Width::Shards(_));
    query.exact || query.width == Width::All || is_by_example || (query.filter.is_some() && !is_counted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_search_shards_hold_answers_are_those_of_home_shards(
        steps in proptest::collection::vec(any_step(), 0..120),
        queries in proptest::collection::vec(any_query(), 1..5),
    ) {
        blocking(async {
            let cluster = after(&steps);
            let at_homes = |query: &Query| Query { width: Width::Homes, ..query.clone() };
            let homes: Vec<Query> = queries.iter().map(at_homes).collect();
            let (found, expected) = (ask(&cluster, &queries).await, ask(&cluster, &homes).await);
            let (found, expected) = match (found, expected) {
                (Ok(found), Ok(expected)) => (found, expected),
                (found, expected) => {
                    // A point that is searched for may be missing.
                    assert_eq!(found.unwrap_err(), expected.unwrap_err());
                    return;
                }
            };
            for ((query, found), expected) in queries.iter().zip(&found).zip(&expected) {
                assert!(found.coverage.is_complete());
                // All that may hold a hit are asked before there are too few.
                let is_short = found.hits.len() < query.limit && !matches!(query.width, Width::Shards(_));
                if is_exact(query) || is_short {
                    assert_eq!(found.hits, expected.hits, "{query:?} {:?}", found.coverage);
                } else {
                    cluster.base.model.lock().searches.clear();
                    let alone = ask(&cluster, std::slice::from_ref(query)).await.unwrap().remove(0);
                    assert_eq!(alone.hits, found.hits, "{query:?}");
                    check_merge(&cluster.base.model.lock(), query, &found.hits);
                }
            }
        });
    }

    #[test]
    fn points_that_change_under_a_search_are_shown_once_as_they_were_at_some_moment(
        steps in proptest::collection::vec(any_step(), 0..80),
        during in proptest::collection::vec((any::<bool>(), any_step()), 1..12),
        query in any_query(),
    ) {
        blocking(async {
            let cluster = after(&steps);
            let query = Query { source: Source::Vector(vec![30.0, 0.0].into()), ..query };
            let tokens = cluster.base.collection.tokens.clone();
            // All versions that there were of each point.
            let history = Arc::new(parking_lot::Mutex::new(BTreeMap::new()));
            note(&cluster.base.model.lock().shards, &mut history.lock());
            let before: BTreeMap<u64, f32> = live(&cluster.base.model.lock().shards);
            let touched: BTreeSet<u64> = during.iter().filter_map(|(_, step)| match step {
                Step::Write(id, _) | Step::Delete(id) => Some(*id),
                Step::Old { .. } | Step::Misplaced { .. } | Step::Sweep(_) => None,
            }).collect();
            let hook = |at_search: bool| {
                let mut steps: Vec<Step> =
                    during.iter().filter(|(at, _)| *at == at_search).map(|(_, step)| step.clone()).collect();
                let (publish, history, tokens) = (cluster.publish.clone(), history.clone(), tokens.clone());
                let hook = move |shards: &mut Shards| {
                    if let Some(step) = steps.pop() {
                        act(shards, &publish, &|id| tokens.shard_of(PointId::Num(id)), &step);
                        note(shards, &mut history.lock());
                    }
                };
                Box::new(hook)
            };
            cluster.base.model.lock().before_search = Some(hook(true));
            cluster.base.model.lock().before_retrieve = Some(hook(false));
            let answer = ask(&cluster, std::slice::from_ref(&query)).await.unwrap().remove(0);
            let ids: BTreeSet<PointId> = answer.hits.iter().map(|hit| hit.id).collect();
            assert_eq!(ids.len(), answer.hits.len(), "an id twice");
            for hit in &answer.hits {
                let PointId::Num(id) = hit.id else { panic!("no such point") };
                let x = history.lock()[&(id, hit.version)];
                assert!((hit.score - (x - 30.0).abs()).abs() < 1e-4, "the score of another version");
                assert_eq!(hit.point.is_some(), query.wants_parts());
                if let Some(point) = hit.point.as_ref().filter(|point| !point.vectors.is_empty()) {
                    assert_eq!(point.version, hit.version);
                    assert_eq!(point.vectors[UNNAMED].dense(), Some(&[x, 0.0][..]));
                }
            }
            // What did not change is not missing before the last hit, nor at all when there are few.
            if !is_exact(&query) || query.offset > 0 {
                return;
            }
            let last = match answer.hits.len() == query.limit {
                true => answer.hits.last().map_or(0.0, |hit| hit.score),
                false => f32::INFINITY,
            };
            let last = query.score_threshold.map_or(last, |most| most.min(last));
            for (id, x) in before.iter().filter(|(id, _)| !touched.contains(id)) {
                let point = ModelCluster::point(*id, *x);
                let matches = |filter: &Arc<Filter>| {
                    filter.matches(point.id, &point.payload.fields().unwrap(), &|name| name == UNNAMED)
                };
                let is_wanted = (x - 30.0).abs() < last - 1e-3 && query.filter.as_ref().is_none_or(matches);
                assert!(!is_wanted || ids.contains(&point.id), "point {id} at {x} is missing: {answer:?}");
            }
        });
    }
}

/// The answer to a query that the map has sent to some search shards is the merge of what these hold, after home shards
/// have been asked: those of them whose present version is in one of these, best first. One that they hold only in an
/// older version is in the answer if the older one was found.
fn check_merge(model: &crate::model::Model, query: &Query, hits: &[Hit]) {
    let shards = &model.shards;
    let homes: Vec<ShardId> = shards.keys().copied().filter(|shard| shard.0 < 100).collect();
    let asked: BTreeSet<ShardId> = model.searches.iter().map(|(shard, _)| *shard).collect();
    let live: BTreeMap<PointId, (LogIndex, f32)> = homes
        .iter()
        .flat_map(|shard| &shards[shard].points)
        .map(|(id, (version, point))| (*id, (*version, point.vectors[UNNAMED].dense().unwrap()[0])))
        .collect();
    let at = |example: &Example| match example {
        Example::Vector(Vector::Dense(vector)) => vector[0],
        Example::Point(id) => live[id].1,
        Example::Vector(other) => panic!("no such example is drawn: {other:?}"),
    };
    let near = match &query.source {
        Source::Vector(vector) => at(&Example::Vector(vector.clone())),
        Source::Point(id) => live[id].1,
        Source::Average { positive, .. } => {
            positive.iter().map(|(example, _)| at(example)).sum::<f32>() / positive.len() as f32
        }
        other => panic!("it asks all shards: {other:?}"),
    };
    let mut held: BTreeMap<PointId, LogIndex> = BTreeMap::new();
    for (id, (version, _)) in asked.iter().filter(|shard| shard.0 >= 100).flat_map(|shard| &shards[shard].points) {
        let newest = held.entry(*id).or_default();
        *newest = (*newest).max(*version);
    }
    let own: Vec<PointId> = query.source.points().into_iter().collect();
    let is_wanted = |id: &PointId, x: f32| {
        let fields = homes.iter().find_map(|shard| shards[shard].points.get(id)).unwrap().1.payload.fields().unwrap();
        let matches = |filter: &Arc<Filter>| filter.matches(*id, &fields, &|name| name == UNNAMED);
        let is_near = query.score_threshold.is_none_or(|most| (x - near).abs() < most - CLOSE);
        !own.contains(id) && is_near && query.filter.as_ref().is_none_or(matches)
    };
    let mut last = 0.0;
    for hit in hits {
        let (version, x) = live[&hit.id];
        assert!(held.contains_key(&hit.id), "{hit:?} is in none of {asked:?}: {query:?}");
        assert_eq!(hit.version, version, "{query:?}");
        assert!((hit.score - (x - near).abs()).abs() < CLOSE && hit.score >= last, "{hit:?} after {last}: {query:?}");
        last = hit.score;
    }
    let shown: BTreeSet<PointId> = hits.iter().map(|hit| hit.id).collect();
    assert_eq!(shown.len(), hits.len(), "an id twice: {query:?}");
    let from = hits.first().map_or(0.0, |hit| hit.score);
    let to = if hits.len() == query.limit { last } else { f32::MAX };
    let current = live.iter().filter(|(id, (version, x))| held.get(*id) == Some(version) && is_wanted(id, *x));
    let current: Vec<(PointId, f32)> = current.map(|(id, (_, x))| (*id, (x - near).abs())).collect();
    if !hits.is_empty() {
        let before = current.iter().filter(|(_, distance)| *distance < from - CLOSE).count();
        assert!(before <= query.offset, "{before} come before the first hit: {query:?}");
    }
    for (id, distance) in &current {
        let is_between = query.offset == 0 || (*distance > from + CLOSE && !hits.is_empty());
        let is_missing = is_between && *distance < to - CLOSE && !shown.contains(id);
        assert!(!is_missing, "{id} at {distance} is missing, {asked:?} were asked: {query:?} {hits:?}");
    }
}

fn live(shards: &Shards) -> BTreeMap<u64, f32> {
    let homes = shards.iter().filter(|(shard, _)| shard.0 < 100).flat_map(|(_, shard)| &shard.points);
    let number = |id: &PointId| match id {
        PointId::Num(number) => *number,
        PointId::Uuid(_) => panic!("no such point"),
    };
    homes.map(|(id, (_, point))| (number(id), point.vectors[UNNAMED].dense().unwrap()[0])).collect()
}

fn note(shards: &Shards, history: &mut BTreeMap<(u64, LogIndex), f32>) {
    for shard in shards.iter().filter(|(shard, _)| shard.0 < 100).map(|(_, shard)| shard) {
        for (id, (version, point)) in &shard.points {
            let PointId::Num(id) = id else { continue };
            history.insert((*id, *version), point.vectors[UNNAMED].dense().unwrap()[0]);
        }
    }
}
