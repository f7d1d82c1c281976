//! Searches of collections that are routed by cluster: each goes to home shards, or to the search shards that a map
//! names.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join;
use tokio::time::sleep;
use vicinal_common::api::Goal;
use vicinal_common::error::Result;
use vicinal_common::ids::MapVersion;
use vicinal_common::vector::Vector;
use vicinal_routing::{Ask, Decision, Router};

use super::by_map::{ByMap, Found, ask_by_map};
use super::homes::ask_homes;
use super::request::{Answer, Query};
use super::route::{EverywhereBecause, HomesBecause, Kind, Route, Routed, beam, kind_of};
use super::scatter::ReadSpec;
use super::search::Sent;
use crate::meta::{ClusterRouting, Collection, ServedMap};
use crate::off_thread::off_thread;
use crate::shards::{CollectionRef, Lookup, ShardAccess};

/// How often this coordinator looks whether its metadata name a map that a write was acknowledged by.
const LOOKS_MAX: usize = 10;
/// Pause between two looks: in all, what a search waits before home shards answer it.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Values that are compared here, on the thread of the request, to route the searches of a request; more are off it.
const COMPARED_HERE_MAX: usize = 1 << 20;

/// The collection, in metadata that are as new as the newest map by which a write was acknowledged, as far as this
/// coordinator or the client's session has seen, or that did not become so in time. Where no map is served nothing is
/// waited for: home shards answer.
pub(super) async fn not_behind(access: &ShardAccess, lookup: Lookup<'_>, spec: ReadSpec<'_>) -> Result<CollectionRef> {
    let mut collection = lookup()?;
    for _ in 0..LOOKS_MAX {
        let Some(served) = collection.routing.cluster().and_then(|cluster| cluster.serving.as_ref()) else { break };
        if map_floor(access, spec, &collection) <= served.map.version {
            break;
        }
        sleep(LOOK_PAUSE).await;
        collection = lookup()?;
    }
    Ok(collection)
}

/// The newest map of which it is known that a write was acknowledged by no older one: older ones may not name all
/// shards that hold its points.
fn map_floor(access: &ShardAccess, spec: ReadSpec<'_>, collection: &Collection) -> MapVersion {
    spec.session.enter(collection);
    access.map_floor(collection.id).max(spec.session.map_floor())
}

/// The searches of a request.
pub(super) struct Asking<'a> {
    pub(super) access: &'a ShardAccess,
    pub(super) collection: &'a Collection,
    pub(super) spec: ReadSpec<'a>,
    pub(super) queries: &'a [Query],
    pub(super) cluster: &'a ClusterRouting,
}

impl Asking<'_> {
    /// Answers them, and says whether a shard refused because of old metadata.
    pub(super) async fn nearest(
        &self,
        pending: Vec<Sent>,
        at_homes: Option<HomesBecause>,
        answers: &mut [Answer],
    ) -> Result<bool> {
        self.note(&pending);
        let (homes, by_map) = self.split(pending, at_homes).await?;
        let found = async {
            match &self.cluster.serving {
                Some(served) if !by_map.is_empty() => {
                    let Asking { access, collection, spec, queries, .. } = *self;
                    ask_by_map(ByMap { access, collection, spec, served, queries }, by_map).await
                }
                Some(_) | None => Ok(Found::default()),
            }
        };
        let (is_stale, found) = try_join(self.ask_homes(homes, answers), found).await?;
        let Found { answers: found, left, is_stale: is_refused } = found;
        if let (Some(served), false) = (&self.cluster.serving, found.is_empty()) {
            // What the client sees now it must not miss elsewhere by an older map.
            self.spec.session.note_map(self.collection.id, served.map.version);
        }
        for (place, answer) in found {
            answers[place] = answer;
        }
        let left = left.into_iter().map(|sent| (sent, HomesBecause::NotExact)).collect();
        Ok(is_stale | is_refused | self.ask_homes(left, answers).await?)
    }

    /// Notes the queries by the routed vector, whoever answers them: the first map is calibrated by them too. Those by a
    /// stored point are none: it is no answer to itself.
    fn note(&self, pending: &[Sent]) {
        let Asking { access, collection, queries, cluster, .. } = *self;
        for Sent { place, query, .. } in pending {
            let is_plain = query.vector_name == cluster.vector && queries[*place].source.points().is_empty();
            if let Goal::Nearest(vector) = &query.goal
                && is_plain
                && let Some(values) = vector.dense()
            {
                access.asked.note(collection.id, &cluster.vector, values);
            }
        }
    }

    async fn ask_homes(&self, sent: Vec<(Sent, HomesBecause)>, answers: &mut [Answer]) -> Result<bool> {
        let Asking { access, collection, spec, queries, cluster } = *self;
        let reasons: Vec<(usize, HomesBecause)> = sent.iter().map(|(sent, why)| (sent.place, *why)).collect();
        let sent = sent.into_iter().map(|(sent, _)| sent).collect();
        let is_stale = ask_homes(access, collection, spec, queries, sent, answers).await?;
        for (place, why) in reasons {
            answers[place].coverage.routed = Some(Box::new(Routed::at_homes(cluster, why)));
        }
        Ok(is_stale)
    }

    /// Which searches home shards answer, and whom the others ask.
    async fn split(
        &self,
        pending: Vec<Sent>,
        at_homes: Option<HomesBecause>,
    ) -> Result<(Vec<(Sent, HomesBecause)>, Vec<(Sent, Route)>)> {
        let (mut homes, mut by_map) = (Vec::new(), Vec::new());
        let served = match (&self.cluster.serving, at_homes) {
            (Some(served), None) => served,
            (serving, why) => {
                let unserved = if serving.is_none() { Some(HomesBecause::NoMap) } else { None };
                let why = unserved.or(why).unwrap_or(HomesBecause::NoMap);
                return Ok((pending.into_iter().map(|sent| (sent, why)).collect(), by_map));
            }
        };
        let floor = map_floor(self.access, self.spec, self.collection);
        let clusters = self.collection.clusters();
        let router = self.access.router(self.collection, served);
        let mut by_vector = Vec::new();
        let mut asks: Vec<(Arc<Vector>, Ask)> = Vec::new();
        for sent in pending {
            match kind_of(self.cluster, clusters, floor, &self.queries[sent.place], &sent.query) {
                Kind::Homes(why) => homes.push((sent, why)),
                Kind::Everywhere(why) => by_map.push((sent, Route::everywhere(served, why))),
                Kind::ByVector(vector, ask) => {
                    by_vector.push((sent, ask.goal));
                    asks.push((vector, ask));
                }
            }
        }
        let decisions = decide(router, asks).await?;
        let graph = self.collection.schema.hnsw_of(&self.cluster.vector).map(|hnsw| hnsw.ef_construction);
        for ((mut sent, goal), decision) in by_vector.into_iter().zip(decisions) {
            if let (Some(decision), Some(ef), None) = (&decision, graph, sent.query.ef) {
                sent.query.ef = beam(goal, decision.reason, ef.max(sent.query.k));
            }
            by_map.push((sent, route_of(served, decision)));
        }
        Ok((homes, by_map))
    }
}

fn route_of(served: &ServedMap, decision: Option<Decision>) -> Route {
    match decision {
        Some(decision) => Route::by(decision),
        None => Route::everywhere(served, EverywhereBecause::MapNotLoaded),
    }
}

/// What the map says of each vector; nothing while there is none.
async fn decide(router: Option<Arc<Router>>, asks: Vec<(Arc<Vector>, Ask)>) -> Result<Vec<Option<Decision>>> {
    let Some(router) = router else { return Ok(asks.iter().map(|_| None).collect()) };
    let dim = router.map().parts().dim;
    let compared = router.map().len().saturating_mul(dim).saturating_mul(asks.len());
    let decide = move || {
        let one = |(vector, ask): &(Arc<Vector>, Ask)| {
            let values = vector.dense().filter(|values| values.len() == dim)?;
            Some(router.route(values, *ask))
        };
        Ok(asks.iter().map(one).collect())
    };
    if compared <= COMPARED_HERE_MAX { decide() } else { off_thread(decide).await }
}
