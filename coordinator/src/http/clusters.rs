//! Handlers of clusters: training, looking at, searching and sampling them; and conditions on clusters in the filters of reads.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use axum::extract::{Query as UrlQuery, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use vicinal_common::api::{
    ClusterSample, ClusterStat, OrderValue, PointParts, ScrollOrder, StoredPoint, VectorSelector,
};
use vicinal_common::collection::VectorKind;
use vicinal_common::distance::Kernel;
use vicinal_common::error::{Error, Result as CommonResult};
use vicinal_common::exec;
use vicinal_common::filter::Filter;
use vicinal_common::limits::{CLUSTER_IDS_MAX, MAP_BYTES_MAX, POINTS_PER_CLUSTER_MIN};
use vicinal_common::vector::Vector;

use super::answer::{Answer, Failure};
use super::body::{JsonBody, off_thread};
use super::decode::{LIMIT_DEFAULT, NearestClustersBody, SampleClustersBody, SampleWanted, TrainClustersBody};
use super::encode::{self, Shown};
use super::indexes::{Purpose, prepare_filter};
use super::info::{self, Patience};
use super::params::Params;
use super::selector::WithPayload;
use super::strict;
use crate::Coordinator;
use crate::meta::Collection;
use crate::placement::announce_tuning;
use crate::query::{self, ClusterMap, Coverage, Example, PageRequest, QueryTree};

type Shared = State<Arc<Coordinator>>;
type UrlParams = Result<UrlQuery<HashMap<String, String>>, axum::extract::rejection::QueryRejection>;

/// Bytes of a map beside its centroids, per centroid and in all, at most.
const MAP_EXTRA_BYTES: usize = 64;

/// `PUT /collections/{collection}/clusters`: answers once it is agreed on that clusters are wanted.
pub(super) async fn train(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (vector, count) = body.decode(TrainClustersBody::into_wish).await?;
    let schema = query::resolve_vector_name(&collection.schema, &vector)?;
    if schema.kind != VectorKind::Dense {
        return Err(
            Error::BadInput(format!("`vector`: {vector:?} is not dense: only dense vectors are clustered")).into()
        );
    }
    let refuse = |message: String| Failure::from(Error::Validation { field: "count".into(), message });
    let most = MAP_BYTES_MAX / (schema.dim * size_of::<f32>() + MAP_EXTRA_BYTES);
    if count as usize > most {
        let dim = schema.dim;
        return Err(refuse(format!(
            "value {count} invalid, must be {most} or smaller for vectors of {dim} dimensions"
        )));
    }
    let replicas = info::survey(&coordinator.shards, &collection, Patience::EachShard, params.deadline).await;
    let homes = replicas.values().filter(|replica| collection.is_home(replica.shard));
    let points: u64 = homes.map(|replica| replica.points).sum();
    let most = points / POINTS_PER_CLUSTER_MIN as u64;
    if u64::from(count) > most {
        return Err(refuse(format!(
            "value {count} invalid, must be {most} or smaller: the collection has {points} points, a cluster needs \
             {POINTS_PER_CLUSTER_MIN}"
        )));
    }
    coordinator.catalog.train_clusters(collection.id, vector, count, params.deadline).await?;
    let collection = coordinator.same_collection(params.collection(), collection.id)?;
    Answer::json(&json!({"training": training(&collection), "version": version(&collection)}))
}

/// `DELETE /collections/{collection}/clusters`
pub(super) async fn delete(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    coordinator.catalog.drop_clusters(collection.id, params.deadline).await?;
    let collection = coordinator.same_collection(params.collection(), collection.id)?;
    let nodes = coordinator.shards.nodes.clone();
    // Ends by itself: every call in it is bounded. Whoever is not reached hears of it later.
    tokio::spawn(async move { announce_tuning(&nodes, &collection).await });
    Answer::json(&true)
}

fn version(collection: &Collection) -> Value {
    json!(collection.clusters().map(|map| map.version))
}

fn training(collection: &Collection) -> Value {
    match &collection.clustering_wanted {
        Some(wish) => json!({
            "vector": wish.vector,
            "count": wish.count,
            "since": vicinal_common::clock::rfc3339(wish.since_ms),
        }),
        None => Value::Null,
    }
}

/// What is known of all clusters at the moment.
struct Known {
    collection: Arc<Collection>,
    map: Arc<ClusterMap>,
    stats: BTreeMap<u32, ClusterStat>,
    assigned: u64,
    points: u64,
    coverage: Coverage,
}

impl Known {
    async fn read(coordinator: &Coordinator, params: &Params, collection: Arc<Collection>) -> Result<Known, Failure> {
        let map = coordinator.cluster_maps.of(&coordinator.shards, &collection).await?;
        let (lookup, spec) = (params.lookup(coordinator), params.read_spec());
        let (stats, coverage) = query::cluster_stats(&coordinator.shards, &lookup, spec, map.of.digest).await?;
        coverage.check(false)?;
        let (assigned, points) = (stats.assigned, stats.rows);
        let stats = stats.clusters.into_iter().map(|stat| (stat.cluster, stat)).collect();
        Ok(Known { collection, map, stats, assigned, points, coverage })
    }

    fn is_ready(&self) -> bool {
        self.assigned >= self.points
    }

    fn head(&self) -> Value {
        let own = self.collection.clustering.as_ref();
        json!({
            "version": self.map.of.version,
            "vector": self.map.of.vector,
            "count": self.map.map.len(),
            "of": if own.is_some() { "clustering" } else { "routing" },
            "trained_at": own.map(|own| vicinal_common::clock::rfc3339(own.trained_ms)),
            "trained_on": own.map(|own| own.points),
            "training": training(&self.collection),
            "ready": self.is_ready(),
            "assigned": self.assigned,
            "points": self.points,
        })
    }

    fn size(&self, cluster: u32) -> u64 {
        self.stats.get(&cluster).map_or(0, |stat| stat.points)
    }

    fn show(&self, cluster: u32) -> Value {
        let parts = self.map.map.parts();
        let stat = self.stats.get(&cluster).filter(|stat| stat.points > 0);
        let spread = stat.map(|stat| stat.length_sum / stat.points as f64);
        let place = cluster as usize;
        let is_own = self.collection.clustering.is_some();
        // A clustering's map keeps the spread of each cell there; those of a routing keep how far it reaches.
        let trained = parts.radius.get(place).filter(|trained| is_own && **trained > 0.0);
        let drift = spread.zip(trained).map(|(spread, trained)| spread / f64::from(*trained) - 1.0);
        let position = parts.shard_of.get(place).filter(|_| !is_own);
        let shard = position.and_then(|position| self.map.of.shards.get(*position as usize));
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        json!({
            "id": cluster,
            "size": stat.map_or(0, |stat| stat.points),
            "medoid": stat.map(|stat| stat.nearest),
            "spread": finite(spread),
            "drift": finite(drift),
            "shard": shard,
        })
    }
}

/// `GET /collections/{collection}/clusters?offset&limit&order`
pub(super) async fn list(State(coordinator): Shared, params: Params, url: UrlParams) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let page = page(&url_params(url)?)?;
    if collection.clusters().is_none() && collection.clustering_wanted.is_some() {
        let shown = json!({"version": null, "training": training(&collection), "ready": false, "clusters": []});
        return Answer::json(&shown);
    }
    strict::check_limit(&collection, page.limit)?;
    let known = Known::read(&coordinator, &params, collection).await?;
    let mut order: Vec<u32> = match known.is_ready() {
        true => (0..known.map.map.len() as u32).collect(),
        false => Vec::new(),
    };
    if page.by_size {
        order.sort_by_key(|cluster| std::cmp::Reverse(known.size(*cluster)));
    }
    let shown: Vec<Value> =
        order.into_iter().skip(page.offset).take(page.limit).map(|cluster| known.show(cluster)).collect();
    let mut answer = known.head();
    answer["clusters"] = Value::Array(shown);
    Ok(Answer::json(&answer)?.with_coverage(known.coverage).with_session(&params))
}

/// `GET /collections/{collection}/clusters/{id}`
pub(super) async fn get(State(coordinator): Shared, params: Params) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let text = params.segment("id");
    let Ok(id) = text.parse::<u32>() else {
        let text = format!("Wrong input: `{text}` is not the id of a cluster, a whole number");
        return Err(Failure::new(StatusCode::BAD_REQUEST, text));
    };
    let known = Known::read(&coordinator, &params, collection).await?;
    let count = known.map.map.len();
    if id as usize >= count {
        let text =
            format!("there is no cluster {id}: the ids of {count} clusters are 0 to {}", count.saturating_sub(1));
        return Err(Error::NotFound(text).into());
    }
    if !known.is_ready() {
        let (assigned, points) = (known.assigned, known.points);
        let text = format!("{assigned} of {points} points are assigned to clusters so far: try again later");
        return Err(Error::Unavailable(text).into());
    }
    let mut shown = known.show(id);
    shown["version"] = json!(known.map.of.version);
    Ok(Answer::json(&shown)?.with_coverage(known.coverage).with_session(&params))
}

/// `POST /collections/{collection}/clusters/nearest`
pub(super) async fn nearest(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let (example, limit) = body.decode(NearestClustersBody::into_query).await?;
    strict::check_limit(&collection, limit)?;
    let map = coordinator.cluster_maps.of(&coordinator.shards, &collection).await?;
    let schema = query::resolve_vector_name(&collection.schema, &map.of.vector)?;
    let vector = match example {
        Example::Vector(Vector::Dense(mut vector)) => {
            let dim = map.map.parts().dim;
            if vector.len() != dim {
                let got = vector.len();
                return Err(Error::BadInput(format!(
                    "`query`: Vector dimension error: expected dim: {dim}, got {got}"
                ))
                .into());
            }
            if vector.iter().any(|value| !value.is_finite()) {
                return Err(Error::BadInput("`query`: a value is no finite number of 32 bits".into()).into());
            }
            schema.metric.prepare(&mut vector);
            vector
        }
        Example::Vector(_) => {
            return Err(Error::BadInput("`query`: expected a dense vector or a point id".into()).into());
        }
        Example::Point(id) => {
            let lookup = params.lookup(&coordinator);
            let parts = PointParts { payload: false, vectors: VectorSelector::Named(vec![map.of.vector.clone()]) };
            let found = query::retrieve(&coordinator.shards, &lookup, params.read_spec(), &[id], &parts).await?;
            let (points, coverage) = found;
            coverage.check(false)?;
            let point = points.into_iter().next();
            let point = point.ok_or_else(|| Error::NotFound(format!("Point with id {id} does not exists!")))?;
            match point.vectors.get(&map.of.vector) {
                Some(Vector::Dense(vector)) => vector.clone(),
                Some(_) | None => {
                    let name = &map.of.vector;
                    return Err(Error::BadInput(format!("`query`: point {id} has no vector {name:?}")).into());
                }
            }
        }
    };
    let (metric, of) = (schema.metric, map.of.version);
    let scored = exec::blocking(move || {
        let kernel = Kernel::new(metric);
        let rows = map.map.rows();
        let mut scored: Vec<(f32, u32)> =
            (0..map.map.len() as u32).map(|cluster| (kernel.distance(&vector, rows.row(cluster)), cluster)).collect();
        scored.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        scored.truncate(limit);
        scored
    });
    let score = |distance: f32| metric.score(distance).clamp(f32::MIN, f32::MAX);
    let shown = scored.await?.into_iter().map(|(distance, id)| json!({"id": id, "score": score(distance)}));
    let shown: Vec<Value> = shown.collect();
    Ok(Answer::json(&json!({"version": of, "clusters": shown}))?.with_session(&params))
}

/// `POST /collections/{collection}/clusters/sample`
pub(super) async fn sample(State(coordinator): Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let SampleWanted { limit, per_cluster, mut filter, with_payload, seed, allow_partial } =
        body.decode(SampleClustersBody::into_sample).await?;
    prepare_filter(&collection, Some(Arc::make_mut(&mut filter)), Purpose::Read)?;
    strict::check_limit(&collection, limit)?;
    fix(&coordinator, &params, Some(&mut filter)).await?;
    let map = coordinator.cluster_maps.of(&coordinator.shards, &collection).await?;
    // A simulation must find the same in each run.
    let by_chance = || if exec::is_simulated() { 0 } else { RandomState::new().hash_one(limit) };
    let seed = seed.unwrap_or_else(by_chance);
    let request = PageRequest {
        order: ScrollOrder::Clusters(ClusterSample { seed, map: map.of.digest, per_cluster }),
        limit,
        filter: Some(filter),
        parts: PointParts { payload: with_payload != WithPayload::None, vectors: VectorSelector::None },
    };
    let lookup = params.lookup(&coordinator);
    let page = query::scroll(&coordinator.shards, &lookup, params.read_spec(), &request).await?;
    page.coverage.check(allow_partial)?;
    let (points, shown) = (page.points, Shown { payload: with_payload, vectors: VectorSelector::None });
    let version = map.of.version;
    let encoded = off_thread(encode::size_of_points(points.iter()), move || {
        let mut out = format!("{{\"version\":{version},\"points\":").into_bytes();
        encode::list(&mut out, &points, |out, point| encode_sampled(out, point, &shown))?;
        out.push(b'}');
        Ok(out)
    });
    Ok(Answer::encoded(encoded.await?).with_coverage(page.coverage).with_session(&params))
}

/// A point with its cluster, which a sample carries as what it is ordered by.
fn encode_sampled(out: &mut Vec<u8>, point: &StoredPoint, shown: &Shown) -> CommonResult<()> {
    let cluster = match point.order {
        Some(OrderValue::Integer(cluster)) => json!(cluster),
        Some(OrderValue::Float(_)) | None => Value::Null,
    };
    encode::point(out, &StoredPoint { order: None, ..point.clone() }, shown)?;
    out.pop();
    out.extend_from_slice(format!(",\"cluster\":{cluster}}}").as_bytes());
    Ok(())
}

/// Fixes the conditions on clusters of a read's filter.
pub(super) async fn fix(
    coordinator: &Coordinator,
    params: &Params,
    filter: Option<&mut Arc<Filter>>,
) -> Result<(), Failure> {
    match filter.filter(|filter| filter.names_clusters()) {
        Some(filter) => fix_all(coordinator, params, vec![Arc::make_mut(filter)]).await,
        None => Ok(()),
    }
}

/// The same for all filters of some queries and their prefetches.
pub(super) async fn fix_trees(
    coordinator: &Coordinator,
    params: &Params,
    trees: &mut [QueryTree],
) -> Result<(), Failure> {
    let mut filters = Vec::new();
    trees.iter_mut().for_each(|tree| add_filters(tree, &mut filters));
    if filters.is_empty() {
        return Ok(());
    }
    fix_all(coordinator, params, filters).await
}

fn add_filters<'a>(tree: &'a mut QueryTree, filters: &mut Vec<&'a mut Filter>) {
    let own = tree.query.filter.iter_mut().chain(&mut tree.query.idf_corpus);
    filters.extend(own.filter(|filter| filter.names_clusters()).map(Arc::make_mut));
    tree.prefetch.iter_mut().for_each(|prefetch| add_filters(prefetch, filters));
}

async fn fix_all(coordinator: &Coordinator, params: &Params, filters: Vec<&mut Filter>) -> Result<(), Failure> {
    let (maps, lookup) = (&coordinator.cluster_maps, params.lookup(coordinator));
    Ok(query::fix_clusters(&coordinator.shards, maps, &lookup, params.read_spec(), filters).await?)
}

/// Which clusters to show.
struct Page {
    offset: usize,
    limit: usize,
    by_size: bool,
}

fn url_params(url: UrlParams) -> Result<HashMap<String, String>, Failure> {
    let bad = |text: String| Failure::new(StatusCode::BAD_REQUEST, text);
    url.map(|UrlQuery(query)| query)
        .map_err(|e| bad(format!("Deserialize error in query parameters: {}", e.body_text())))
}

fn page(query: &HashMap<String, String>) -> Result<Page, Failure> {
    let refuse = |name: &str, value: &str, allowed: &str| {
        let text = format!("Deserialize error in query parameters: `{name}` is `{value}`, allowed is {allowed}");
        Failure::new(StatusCode::BAD_REQUEST, text)
    };
    let number = |name: &str, default: usize, least: usize| match query.get(name) {
        None => Ok(default),
        Some(text) => match text.parse::<usize>() {
            Ok(number) if (least..=CLUSTER_IDS_MAX).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(refuse(name, text, &format!("a whole number from {least} to {CLUSTER_IDS_MAX}"))),
        },
    };
    let by_size = match query.get("order").map(String::as_str) {
        None | Some("id") => false,
        Some("size") => true,
        Some(other) => return Err(refuse("order", other, "size or id")),
    };
    Ok(Page { offset: number("offset", 0, 0)?, limit: number("limit", LIMIT_DEFAULT, 1)?, by_size })
}
