//! Keeps search shards even: looks at collections now and then, and makes the next map of the one that is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use vicinal_common::api::{NodeDirectory, NodeStatus};
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::{CollectionId, MapDigest, ShardId};
use vicinal_common::limits::MAP_BYTES_MAX;
use vicinal_routing::{
    AdjustOptions, Adjusted, CentroidMap, Known, LearnOptions, Placer, Router, Spread, adjust, centroids_wanted,
    fan_out, learn_from, on_threads,
};

use super::balance::{self, Found, Watch};
use super::plan;
use super::train::{Learned, POINTS_PER_CENTROID, QUERIES_MAX, checked, prepared, threads};
use crate::members::Members;
use crate::meta::{
    Catalog, ClusterRouting, Collection, CollectionState, Measured, MetaCommand, MetaState, ServedMap, Verdict,
};
use crate::placement::Reconciler;

/// Points of a sample for each cell.
const POINTS_PER_CELL: usize = 64;
/// Most bytes of vectors of a sample that is only looked at.
const LOOK_BYTES_MAX: usize = 64 << 20;
/// Bytes of a centroid in a map beside its values, about.
const CENTROID_BYTES: usize = 32;

/// What is remembered of collections while this coordinator leads.
pub(in super::super) type Watches = BTreeMap<CollectionId, Watch>;

/// What balancing would do.
#[derive(Clone, Debug)]
pub struct BalancePlan {
    /// How it is.
    pub measured: Measured,
    /// Search shards of the map that is served, in its order.
    pub shards: Vec<ShardId>,
    /// What moves and is split, reckoned on a sample; `None` when that would gain nothing.
    pub adjusted: Option<Adjusted>,
    /// Points of the collection for each one of the sample.
    pub scale: f64,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Cells move or are split.
    Adjust,
    /// A new map is trained.
    Retrain,
}

impl Action {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Action::None => "none",
            Action::Adjust => "adjust",
            Action::Retrain => "retrain",
        }
    }
}

impl BalancePlan {
    /// What is done when somebody asks for balance: also where little is to be gained, which nobody begins by itself.
    pub fn action(&self) -> Action {
        match self.measured.verdict {
            Verdict::RetrainForFanOut | Verdict::RetrainForGrowth => Action::Retrain,
            Verdict::TooSmall => Action::None,
            Verdict::Even | Verdict::Adjust | Verdict::Stuck | Verdict::Replicas if self.adjusted.is_some() => {
                Action::Adjust
            }
            Verdict::Even | Verdict::Adjust | Verdict::Stuck | Verdict::Replicas => Action::None,
        }
    }
}

/// Says what balancing a collection would do now, whoever leads. `Conflict` while no map is served.
pub async fn plan_balance(
    catalog: &Catalog,
    nodes: &NodeDirectory,
    members: &Arc<Members>,
    collection: &Collection,
) -> Result<BalancePlan> {
    let reconciler = Reconciler::new(catalog.clone(), nodes.clone(), members.clone());
    let (cluster, served) = served(collection)
        .ok_or_else(|| Error::Conflict(format!("Collection `{}` has no map yet that is served", collection.name)))?;
    reconciler.look(collection, cluster, served, None).await
}

/// Collections whose search shards are to be even.
pub(in super::super) fn watched(state: &MetaState) -> impl Iterator<Item = &Arc<Collection>> {
    state.collections.values().filter(|collection| served(collection).is_some())
}

fn served(collection: &Collection) -> Option<(&ClusterRouting, &ServedMap)> {
    let cluster = collection.routing.cluster().filter(|_| collection.state == CollectionState::Active)?;
    Some((cluster, cluster.serving.as_ref()?))
}

/// Centroids that a map of so many shards and dimensions may come to have by splitting: twice as many as a new one has.
fn centroids_max(shards: u32, dim: usize) -> usize {
    (2 * centroids_wanted(shards)).min(MAP_BYTES_MAX / (dim * size_of::<f32>() + CENTROID_BYTES))
}

impl Reconciler {
    /// Glances at all collections that are routed by a map, and looks at those for which it is time.
    pub(in super::super) async fn keep_even(self) {
        let answers = self.statuses(self.nodes.ids().into_iter().collect()).await;
        let statuses: Vec<NodeStatus> = answers.into_iter().filter_map(|(_, status)| status.ok()).collect();
        for (id, load) in self.due(&statuses) {
            let began = Instant::now();
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&id) else { continue };
            let Some((cluster, served)) = served(collection) else { continue };
            let looked = self.look(collection, cluster, served, load).await;
            let points = looked.as_ref().map_or(0, |plan| plan.measured.points);
            if let Some(watch) = self.watches.lock().get_mut(&id) {
                watch.looked(began, Instant::now(), points);
            }
            let done = match looked {
                Ok(plan) => self.act(collection, cluster, plan.measured).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "the balance of collection `{}` is looked at later", collection.name);
            }
        }
    }

    /// The collections to look at, each with how unevenly its search shards are searched.
    fn due(&self, statuses: &[NodeStatus]) -> Vec<(CollectionId, Option<f64>)> {
        let (state, now) = (self.catalog.state(), Instant::now());
        let mut watches = self.watches.lock();
        watches.retain(|id, _| state.collections.contains_key(id));
        let mut due = Vec::new();
        for collection in watched(&state) {
            let Some((cluster, served)) = served(collection) else { continue };
            let watch = watches.entry(collection.id).or_default();
            watch.set_on(cluster.balance);
            watch.rates.count(statuses, &served.map.shards, now);
            let is_changing = cluster.under_way().is_some() || self.needs_move(&state, collection);
            if is_changing || collection.clustering_wanted.is_some() {
                watch.is_busy(now);
            } else if let Some(glimpse) = balance::glimpse(statuses, collection)
                && glimpse.points >= balance::points_min(u32::try_from(served.map.shards.len()).unwrap_or(u32::MAX))
                && watch.is_due(glimpse, now)
            {
                due.push((collection.id, watch.rates.imbalance(now)));
            }
        }
        due
    }

    /// Notes what was found, and wants what follows from it.
    async fn act(&self, collection: &Collection, cluster: &ClusterRouting, measured: Measured) -> Result<()> {
        let (id, name, now_ms) = (collection.id, &collection.name, self.catalog.now_ms());
        self.change(MetaCommand::NoteBalance { collection: id, measured }).await?;
        if !cluster.balance || !self.catalog.is_leader() {
            return Ok(());
        }
        let wanted = match measured.verdict {
            Verdict::Even | Verdict::TooSmall | Verdict::Stuck => return Ok(()),
            Verdict::Replicas => {
                tracing::warn!("some search shards of collection `{name}` are searched far more: they need replicas");
                return Ok(());
            }
            Verdict::Adjust => MetaCommand::BalanceMap { collection: id, version: cluster.map_to_come(), now_ms },
            Verdict::RetrainForFanOut | Verdict::RetrainForGrowth => MetaCommand::TrainMap { collection: id, now_ms },
        };
        tracing::info!("search shards of collection `{name}`: {} ({measured:?})", measured.verdict.name());
        self.change(wanted).await
    }

    /// Places a sample of the points by the map that is served, and says what follows.
    async fn look(
        &self,
        collection: &Collection,
        cluster: &ClusterRouting,
        served: &ServedMap,
        load_imbalance: Option<f64>,
    ) -> Result<BalancePlan> {
        let _turn = self.trainings.acquire().await.map_err(|_| Error::Unavailable("it is stopping".into()))?;
        let routed = plan::routed(collection, cluster)?;
        let (dim, metric) = (routed.dim, routed.metric);
        let map = self.served_map(collection, served).await?;
        let most = LOOK_BYTES_MAX / (dim * size_of::<f32>());
        let (wanted, seed) = ((POINTS_PER_CELL * map.len()).min(most), self.catalog.rng().next_u64());
        let points = self.points_of(collection).await;
        let sample = self.sample(collection, (&cluster.vector, dim), wanted, seed).await?;
        if sample.is_empty() {
            return Err(Error::Unavailable(format!("none of its points has the vector `{}`", cluster.vector)));
        }
        let sampled = sample.len();
        let options =
            AdjustOptions { copies: f64::from(cluster.copies), centroids_max: centroids_max(map.shards(), dim), seed };
        let recall = cluster.trained.map_or(cluster.recall_target, |trained| trained.recall);
        let work = move || {
            let values = prepared(sample, dim, metric);
            let queries = &values[..sampled.min(QUERIES_MAX) * dim];
            let map = Arc::new(map);
            let find = || {
                let spread = Spread::of(&Placer::new(map.clone()), &values);
                let asked = fan_out(&Router::new(map.clone()), queries, recall);
                Ok((spread, asked, adjust(&map, &values, options)?))
            };
            let found = exec::in_background("look at balance", || on_threads(threads(), find));
            let found = found.map_err(|error| Error::Unavailable(format!("no thread to look: {error}")))?;
            found.map_err(|error| Error::Internal(format!("the balance was not found out: {error}")))
        };
        let (spread, asked, adjusted) = exec::blocking(work).await??;
        let found = Found {
            points,
            shards: u32::try_from(spread.shards.len()).unwrap_or(u32::MAX),
            imbalance: spread.imbalance(),
            load_imbalance,
            oversized: spread.oversized_share(),
            fan_out: asked,
            sample_max: (POINTS_PER_CENTROID * centroids_wanted(cluster.search_shards)) as u64,
        };
        let verdict = match balance::verdict(&found, cluster.trained.as_ref()) {
            Verdict::Adjust if adjusted.is_none() => Verdict::Stuck,
            verdict => verdict,
        };
        let measured = Measured {
            map: served.map.version,
            at_ms: self.catalog.now_ms(),
            points,
            imbalance: found.imbalance as f32,
            load_imbalance: load_imbalance.map(|load| load as f32),
            oversized: found.oversized as f32,
            fan_out: asked as f32,
            verdict,
        };
        let scale = points as f64 / sampled as f64;
        Ok(BalancePlan { measured, shards: served.map.shards.clone(), adjusted, scale })
    }

    /// Makes the next map of the one that is served; `None` when there is nothing to gain any more.
    pub(super) async fn even_out(&self, collection: &Collection, cluster: &ClusterRouting) -> Result<Option<Learned>> {
        let _turn = self.trainings.acquire().await.map_err(|_| Error::Unavailable("it is stopping".into()))?;
        let Some(served) = &cluster.serving else { return Ok(None) };
        let routed = plan::routed(collection, cluster)?;
        let (dim, metric) = (routed.dim, routed.metric);
        let map = self.served_map(collection, served).await?;
        let (version, shards, seed) = (cluster.map_to_come(), map.shards(), self.catalog.rng().next_u64());
        let sample = self.sample(collection, (&cluster.vector, dim), POINTS_PER_CELL * map.len(), seed).await?;
        if (sample.len() as u64) < plan::points_needed(cluster) {
            return Ok(None);
        }
        self.progress(collection.id, plan::progress::SAMPLED).await;
        let options =
            LearnOptions { version: version.0, shards, copies: f64::from(cluster.copies), seed, threads: threads() };
        let asked = self.asked.of(collection.id, &cluster.vector, dim);
        let work = move || {
            let values = prepared(sample, dim, metric);
            let most = centroids_max(shards, dim);
            let known = Known { sample: &values, asked: &asked };
            let learned = exec::in_background("balance map", || learn_from(map, known, most, options));
            let learned = learned.map_err(|error| Error::Unavailable(format!("no thread to adjust a map: {error}")))?;
            learned.map_err(|error| Error::Internal(format!("a map was not adjusted: {error}")))
        };
        let Some(adjusted) = exec::blocking(work).await?? else { return Ok(None) };
        let bytes = checked(version, Bytes::from(adjusted.map.encode()))?;
        self.progress(collection.id, plan::progress::LEARNED).await;
        let (before, after) = (adjusted.before.imbalance(), adjusted.after.imbalance());
        let (moves, splits) = (adjusted.moves.len(), adjusted.splits.len());
        let name = &collection.name;
        tracing::info!(
            "map {version} of collection `{name}`: {moves} cells move, {splits} are split; the fullest shard had \
             {before:.2} times the mean and gets {after:.2}"
        );
        let (vector, digest) = (cluster.vector.clone(), MapDigest::of(&bytes));
        Ok(Some(Learned { version, vector, shards, digest, bytes, trained: cluster.trained }))
    }

    async fn served_map(&self, collection: &Collection, served: &ServedMap) -> Result<CentroidMap> {
        let bytes = self.fetch_map(collection, served.map.digest).await?;
        let decode = move || CentroidMap::decode(&bytes);
        exec::blocking(decode).await?.map_err(|error| Error::Corrupt(format!("the map that is served: {error}")))
    }

    /// Points of a collection, as its home shards say.
    pub(super) async fn points_of(&self, collection: &Collection) -> u64 {
        let statuses = self.all_statuses(collection).await;
        plan::points(&statuses, collection.shard_ids()).values().sum()
    }
}
