//! Trains a map on a sample of the points of all home shards, stores it on nodes, and begins it.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use tokio::time::Instant;
use vicinal_common::api::{NodeStatus, random_key};
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::{MapDigest, MapVersion, NodeId};
use vicinal_common::limits::MAP_BYTES_MAX;
use vicinal_common::metric::Metric;
use vicinal_common::point::PointId;
use vicinal_common::publish::MapRef;
use vicinal_common::vector::Vector;
use vicinal_routing::{CentroidMap, Known, LearnOptions, Router, RoutingError, centroids_wanted, fan_out, learn};

use super::super::plan::load;
use super::super::reconcile::{CHANGE, Reconciler};
use super::plan::{self, progress};
use crate::members::Liveness;
use crate::meta::{BeginMap, ClusterRouting, Collection, MetaCommand, MetaReply, Shard, Trained};

/// Points of the sample for each centroid: more move centroids little.
pub(super) const POINTS_PER_CENTROID: usize = 256;
/// Points of a sample near which it is looked how many shards a search asks.
pub(super) const QUERIES_MAX: usize = 2_000;
/// Most bytes of vectors in a sample, and in one answer.
const SAMPLE_BYTES_MAX: usize = 256 << 20;
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of a point in an answer beside its vector, at most.
const POINT_BYTES: usize = 64;
/// How often a shard is asked for more of the sample: one answer cannot hold all of a large one.
const ANSWERS_MAX: u64 = 16;
/// How often shard ids are drawn anew because another collection took them.
const DRAWS_MAX: usize = 10;

/// A map that can be begun.
pub(super) struct Learned {
    pub(super) version: MapVersion,
    pub(super) vector: String,
    /// Shards that it is made for.
    pub(super) shards: u32,
    pub(super) digest: MapDigest,
    pub(super) bytes: Bytes,
    /// What training found.
    pub(super) trained: Option<Trained>,
}

/// A point of a sample: what its place in the sample is by, its id, its vector.
pub(super) type Drawn = (u64, PointId, Vec<f32>);

impl Reconciler {
    /// Trains the next map with the settings of now.
    pub(super) async fn learn(&self, collection: &Collection, cluster: &ClusterRouting) -> Result<Learned> {
        // One at a time: it takes memory and processors.
        let _turn = self.trainings.acquire().await.map_err(|_| Error::Unavailable("it is stopping".into()))?;
        let routed = plan::routed(collection, cluster)?;
        let (dim, metric) = (routed.dim, routed.metric);
        let seed = self.catalog.rng().next_u64();
        let served = cluster.serving.as_ref().map(|served| served.map.digest);
        let started = Instant::now();
        let wanted = POINTS_PER_CENTROID * centroids_wanted(cluster.search_shards);
        let sample = self.sample(collection, (&cluster.vector, dim), wanted, seed).await?;
        let least = plan::points_needed(cluster);
        if (sample.len() as u64) < least {
            return Err(Error::Unavailable(format!(
                "{} of its points have the vector `{}`, a map needs {least} to be trained on",
                sample.len(),
                cluster.vector
            )));
        }
        self.progress(collection.id, progress::SAMPLED).await;
        let (points, all, recall) = (sample.len(), self.points_of(collection).await, cluster.recall_target);
        // Without it other numbers are given to the shards, and more copies move.
        let previous = match served {
            Some(digest) => self.fetch_map(collection, digest).await.ok(),
            None => None,
        };
        let version = cluster.map_to_come();
        let options = LearnOptions {
            version: version.0,
            shards: cluster.search_shards,
            copies: f64::from(cluster.copies),
            seed,
            threads: threads(),
        };
        let asked = self.asked.of(collection.id, &cluster.vector, dim);
        let work = move || {
            let values = prepared(sample, dim, metric);
            let previous = previous.and_then(|bytes| CentroidMap::decode(&bytes).ok());
            let known = Known { sample: &values, asked: &asked };
            let train = || {
                let map = learn(known, dim, metric, previous, options)?;
                let bytes = Bytes::from(map.encode());
                let queries = &values[..points.min(QUERIES_MAX) * dim];
                Ok((bytes, fan_out(&Router::new(Arc::new(map)), queries, recall)))
            };
            let learned: Result<Result<_, RoutingError>, _> = exec::in_background("train map", train);
            let learned = learned.map_err(|error| Error::Unavailable(format!("no thread to train a map: {error}")))?;
            learned.map_err(|error| Error::Internal(format!("a map was not trained: {error}")))
        };
        let (bytes, asked) = exec::blocking(work).await??;
        let bytes = checked(version, bytes)?;
        self.progress(collection.id, progress::LEARNED).await;
        tracing::info!(
            "map {version} of collection `{}` was trained on {points} points in {:?}",
            collection.name,
            started.elapsed()
        );
        let (vector, shards) = (cluster.vector.clone(), cluster.search_shards);
        let trained = Some(Trained { points: all, recall, fan_out: asked as f32 });
        Ok(Learned { version, vector, shards, digest: MapDigest::of(&bytes), bytes, trained })
    }

    /// About so many points, at most what [`SAMPLE_BYTES_MAX`] holds, chosen at random: as many of each home shard as it
    /// has points, in an order that says nothing. Those that have no such vector are left out.
    pub(super) async fn sample(
        &self,
        collection: &Collection,
        vector: (&str, usize),
        wanted: usize,
        seed: u64,
    ) -> Result<Vec<Drawn>> {
        let most = (SAMPLE_BYTES_MAX / (vector.1.max(1) * size_of::<f32>())).max(1);
        let wanted = wanted.min(most) as u64;
        let statuses = self.all_statuses(collection).await;
        let points = plan::points(&statuses, collection.shard_ids());
        let total: u64 = points.values().sum();
        let mut sample: Vec<Drawn> = Vec::new();
        for shard in &collection.shards {
            let held = *points
                .get(&shard.id)
                .ok_or_else(|| Error::Unavailable(format!("shard {} does not say how many points it has", shard.id)))?;
            // All of them, or its share: rounded up, so that none is left out.
            let share = if total <= wanted { held } else { (wanted * held).div_ceil(total) };
            sample.extend(self.draw(collection, shard, vector, seed, share as usize).await?);
        }
        sample.sort_unstable_by_key(|(key, id, _)| (*key, *id));
        Ok(sample)
    }

    /// Points of one shard.
    async fn draw(
        &self,
        collection: &Collection,
        shard: &Shard,
        (vector, dim): (&str, usize),
        seed: u64,
        share: usize,
    ) -> Result<Vec<Drawn>> {
        let page = (ANSWER_BYTES_MAX / (dim * size_of::<f32>() + POINT_BYTES)).max(1);
        let (mut sample, mut drawn) = (Vec::new(), HashSet::<PointId>::new());
        for answer in 0..ANSWERS_MAX {
            if drawn.len() >= share {
                break;
            }
            // Another choice each time. What was there before comes again at times.
            let limit = page.min(share);
            let points = self.sampled(collection, shard, vector, seed.wrapping_add(answer), limit).await?;
            let is_all = points.len() < limit || limit == share;
            for mut point in points {
                if drawn.len() < share
                    && let Some(Vector::Dense(values)) = point.vectors.remove(vector)
                    && values.len() == dim
                    && drawn.insert(point.id)
                {
                    sample.push((random_key(seed, point.id), point.id, values));
                }
            }
            if is_all {
                break;
            }
        }
        Ok(sample)
    }

    /// Stores the map where it has to be, then begins it.
    pub(super) async fn begin(&self, collection: &Collection, learned: &Learned) -> Result<()> {
        let mut floor = 0;
        for _ in 0..DRAWS_MAX {
            let state = self.catalog.state();
            let Some(cluster) = collection.routing.cluster() else { return Ok(()) };
            let is_connected = |node| self.nodes.get(node).is_some() && self.members.may_take_more(node);
            let load = load(&state, is_connected);
            let first = state.next_shard.max(floor).min(u64::MAX - u64::from(learned.shards));
            let (shards, new_shards) = plan::search_shards(collection, cluster, learned.shards, &load, first)?;
            self.store(collection, &new_shards, learned.digest, &learned.bytes).await?;
            let map = MapRef {
                version: learned.version,
                vector: learned.vector.clone(),
                digest: learned.digest,
                bytes: learned.bytes.len() as u64,
                shards,
            };
            let (collection, trained) = (collection.id, learned.trained);
            let begin = MetaCommand::BeginMap(Box::new(BeginMap { collection, map, new_shards, trained }));
            match self.catalog.propose(begin, Instant::now() + CHANGE).await? {
                MetaReply::Done => return Ok(()),
                MetaReply::Refused(error) => return Err(error),
                MetaReply::ShardIdsTaken { next_shard } => floor = next_shard,
            }
        }
        Err(Error::Unavailable("other collections took the shard ids each time".into()))
    }

    /// Stores a map on all nodes that are up of the collection and of shards to come, and on a majority of each shard.
    pub(super) async fn store(
        &self,
        collection: &Collection,
        new_shards: &[Shard],
        digest: MapDigest,
        bytes: &Bytes,
    ) -> Result<()> {
        let shards = || collection.all_shards().chain(new_shards);
        let nodes: BTreeSet<NodeId> = shards().flat_map(Shard::readers).collect();
        let mut stored: BTreeSet<NodeId> = BTreeSet::new();
        let mut failure = None;
        for (node, status) in self.statuses(nodes).await {
            if status.as_ref().is_ok_and(|status| status.maps.contains(&digest)) {
                stored.insert(node);
                continue;
            }
            let put = self.put(collection.id, node, digest, bytes.clone());
            match put.await {
                Ok(()) => drop(stored.insert(node)),
                Err(error) => failure = Some((node, error)),
            }
        }
        let is_up = |node| self.members.liveness(node) == Liveness::Up;
        let checked = plan::check_stored(shards(), &stored, is_up);
        checked.map_err(|refusal| match failure {
            Some((node, error)) => Error::Unavailable(format!("{refusal} (node {node}: {error})")),
            None => refusal,
        })
    }

    /// Wants the first map of collections that have points enough for it.
    pub(in super::super) async fn want_first_maps(self) {
        let answers = self.statuses(self.nodes.ids().into_iter().collect()).await;
        let statuses: Vec<NodeStatus> = answers.into_iter().filter_map(|(_, status)| status.ok()).collect();
        let state = self.catalog.state();
        for collection in plan::waiting(&state) {
            let points: u64 = plan::points(&statuses, collection.shard_ids()).values().sum();
            let needed = collection
                .routing
                .cluster()
                .and_then(|cluster| Some(cluster.trains_from()?.max(plan::points_needed(cluster))));
            if needed.is_none_or(|needed| points < needed) {
                continue;
            }
            tracing::info!("collection `{}` has {points} points: its first map is trained", collection.name);
            let wanted = MetaCommand::TrainMap { collection: collection.id, now_ms: self.catalog.now_ms() };
            if let Err(error) = self.change(wanted).await {
                tracing::debug!(%error, "the first map of collection `{}` is not asked for yet", collection.name);
            }
        }
    }
}

/// The vectors of a sample, prepared, row-major.
pub(super) fn prepared(sample: Vec<Drawn>, dim: usize, metric: Metric) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(sample.len() * dim);
    for (_, _, mut vector) in sample {
        metric.prepare(&mut vector);
        values.extend(vector);
    }
    values
}

/// Refuses a map that is too large.
pub(super) fn checked(version: MapVersion, bytes: Bytes) -> Result<Bytes> {
    if bytes.len() > MAP_BYTES_MAX {
        let text = format!("map {version} has {} bytes, the limit is {MAP_BYTES_MAX}", bytes.len());
        return Err(Error::Internal(text));
    }
    Ok(bytes)
}

/// Half of the processors: the others serve.
pub(super) fn threads() -> NonZeroUsize {
    let processors = available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors / 2).unwrap_or(NonZeroUsize::MIN)
}
