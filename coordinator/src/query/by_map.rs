//! Searches by a map: search shards find, home shards confirm, in the hop that fetches what hits hold.
//!
//! A round: search shards are asked, those of a second wave after the first; of several versions of a point the newest
//! counts; the best are looked up at home; what home has in a newer version is searched there, among those ids. Another
//! round follows where something changed in between or too much was old.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::future::join;
use vicinal_common::api::{PointParts, SearchQuery, ShardHit};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Condition, Filter, SortedSet};
use vicinal_common::ids::{Epoch, LogIndex, ShardId};
use vicinal_common::point::PointId;

use super::confirm::{Chase, Homes, SPARE};
use super::fetch::{Fetched, fetch_since};
use super::gather::{Coverage, Missing};
use super::homes::{add_parts, narrow};
use super::repair::FoundCopy;
use super::request::{Answer, Hit, Query, resolve_vector_name};
use super::route::Route;
use super::scatter::{ReadSpec, Targets};
use super::search::{RERUNS_MAX, Sent};
use super::search_each::{Wanted, search_each};
use crate::meta::{Collection, ServedMap};
use crate::shards::ShardAccess;

/// What all searches of a request have in common.
#[derive(Clone, Copy)]
pub(super) struct ByMap<'a> {
    pub(super) access: &'a ShardAccess,
    pub(super) collection: &'a Collection,
    pub(super) spec: ReadSpec<'a>,
    pub(super) served: &'a ServedMap,
    pub(super) queries: &'a [Query],
}

/// What became of searches by a map.
#[derive(Default)]
pub(super) struct Found {
    /// Answers by the place of their queries.
    pub(super) answers: Vec<(usize, Answer)>,
    /// Exact searches that met too much that is old, or that changed: home shards have to answer them.
    pub(super) left: Vec<Sent>,
    /// Whether a shard refused because of old metadata.
    pub(super) is_stale: bool,
}

/// A search under way.
struct Search<'a> {
    sent: Sent,
    route: Route,
    chase: Chase<'a>,
    /// To be asked next, by their places in the map.
    next: Vec<usize>,
    /// Search shards that did not answer when they were asked last.
    missing: BTreeMap<ShardId, Error>,
    /// All copies that it was given.
    copies: Vec<FoundCopy>,
}

/// Answers searches by the search shards that their routes name.
pub(super) async fn ask_by_map(by_map: ByMap<'_>, routed: Vec<(Sent, Route)>) -> Result<Found> {
    let ByMap { collection, queries, .. } = by_map;
    let mut open: Vec<Search<'_>> = Vec::with_capacity(routed.len());
    for (mut sent, route) in routed {
        let query = &queries[sent.place];
        let metric = resolve_vector_name(&collection.schema, &query.using)?.metric;
        sent.query.k += SPARE;
        let (chase, next) = (Chase::new(query, metric, &collection.tokens), route.asked.clone());
        open.push(Search { sent, route, chase, next, missing: BTreeMap::new(), copies: Vec::new() });
    }
    let mut homes = Homes::default();
    let mut at_home = BTreeMap::new();
    let mut found = Found::default();
    for round in 0..=RERUNS_MAX {
        if open.is_empty() {
            break;
        }
        found.is_stale |= by_map.find(&mut open).await;
        found.is_stale |= by_map.confirm(&open, &mut homes, &mut at_home).await;
        found.is_stale |= by_map.resolve(&mut open, &mut homes, &mut at_home).await;
        let mut again = Vec::new();
        for mut search in open {
            let outcome = search.chase.outcome(&homes);
            let more = search.more(outcome.last(search.chase.wanted()).is_some());
            let is_done = !outcome.is_open && !outcome.is_short && more.is_empty();
            if !is_done && round < RERUNS_MAX {
                if outcome.is_short {
                    search.sent.query.k += search.chase.refused(&homes) + SPARE;
                    search.chase.forget();
                    search.next.clone_from(&search.route.asked);
                }
                search.route.asked.extend(&more);
                search.next.extend(more);
                again.push(search);
                continue;
            }
            let refused = search.copies.iter().filter(|(_, id, version)| homes.refuse(*id, *version));
            by_map.access.repairs.take_in(&by_map.access.nodes, collection, &refused.copied().collect::<Vec<_>>());
            if search.sent.query.exact && (outcome.is_short || outcome.is_open) {
                search.sent.query.k = queries[search.sent.place].hits_asked();
                found.left.push(search.sent);
                continue;
            }
            found.answers.push((search.sent.place, by_map.answer(&search, outcome, &homes, &at_home)));
        }
        open = again;
    }
    Ok(found)
}

impl Search<'_> {
    /// Who else is to be asked.
    fn more(&self, has_enough: bool) -> Vec<usize> {
        // The worst distance that is allowed is one that a hit may have.
        let most = self.sent.query.distance_max.map_or(f32::MAX, f32::next_up);
        self.route.more(has_enough, most, self.sent.query.filter.is_some())
    }
}

impl ByMap<'_> {
    /// Asks the search shards that are to be asked next, then the others if there are too few hits.
    async fn find(&self, open: &mut [Search<'_>]) -> bool {
        let mut is_stale = self.wave(open).await;
        for search in open.iter_mut() {
            let wanted = search.chase.wanted();
            search.next = search.more(search.chase.candidates().len() >= wanted);
            search.route.asked.extend(&search.next);
        }
        is_stale |= self.wave(open).await;
        is_stale
    }

    async fn wave(&self, open: &mut [Search<'_>]) -> bool {
        let ServedMap { map, floors } = self.served;
        let mut wanted: Wanted = BTreeMap::new();
        let mut least: BTreeMap<ShardId, LogIndex> = BTreeMap::new();
        for (at, search) in open.iter().enumerate() {
            for place in &search.next {
                let Some(shard) = map.shards.get(*place) else { continue };
                wanted.entry(*shard).or_default().push(at);
                least.insert(*shard, floors.get(*place).copied().unwrap_or_default());
            }
        }
        if wanted.is_empty() {
            return false;
        }
        let queries: Vec<&SearchQuery> = open.iter().map(|search| &search.sent.query).collect();
        let shards: Vec<ShardId> = wanted.keys().copied().collect();
        let floors: Vec<LogIndex> = least.into_values().collect();
        let targets = Targets { shards: &shards, epoch: Epoch(map.version.0), floors: &floors };
        let gathered = search_each(self.access, self.collection, self.spec, targets, &queries, &wanted).await;
        let is_stale = gathered.is_stale();
        for (shard, lists) in gathered.answers {
            for (at, hits) in wanted.get(&shard).into_iter().flatten().zip(lists) {
                let search = &mut open[*at];
                search.missing.remove(&shard);
                search.copies.extend(hits.iter().map(|hit| (shard, hit.id, hit.version)));
                search.chase.take(search.sent.query.k, hits);
            }
        }
        for Missing { shard, reason } in gathered.coverage.missing {
            for at in wanted.get(&shard).into_iter().flatten() {
                open[*at].missing.insert(shard, reason.clone());
            }
        }
        open.iter_mut().for_each(|search| search.next.clear());
        is_stale
    }

    /// Looks the best hits up at home. Nothing but their versions, where no more is wanted of them.
    async fn confirm(&self, open: &[Search<'_>], homes: &mut Homes, at_home: &mut BTreeMap<ShardId, Error>) -> bool {
        let (mut plain, mut whole) = (BTreeMap::new(), BTreeMap::new());
        let mut parts = PointParts::default();
        for search in open {
            let query = &self.queries[search.sent.place];
            let ids = match query.wants_parts() {
                false => &mut plain,
                true => {
                    add_parts(&mut parts, &query.parts);
                    &mut whole
                }
            };
            for (id, version) in search.chase.unknown(homes) {
                let known: &mut LogIndex = ids.entry(id).or_default();
                *known = version.max(*known);
            }
        }
        plain.retain(|id, version| match whole.get_mut(id) {
            Some(known) => {
                *known = (*version).max(*known);
                false
            }
            None => true,
        });
        let asked = [plain, whole].map(|ids| ids.into_iter().collect::<Vec<_>>());
        let [plain, whole] = &asked;
        let none = PointParts::default();
        let found = join(self.look_up(plain, &none), self.look_up(whole, &parts)).await;
        let mut is_stale = false;
        for (asked, fetched, has_parts) in [(plain, found.0, false), (whole, found.1, true)] {
            let Some(Fetched { points, coverage, is_stale: refused }) = fetched else { continue };
            is_stale |= refused;
            homes.are_away(coverage.missing.iter().map(|missing| missing.shard));
            at_home.extend(coverage.missing.into_iter().map(|missing| (missing.shard, missing.reason)));
            homes.learn(asked, points, has_parts, &self.collection.tokens);
        }
        is_stale
    }

    /// From replicas that have seen what search shards have of these points.
    async fn look_up(&self, asked: &[(PointId, LogIndex)], parts: &PointParts) -> Option<Fetched> {
        if asked.is_empty() {
            return None;
        }
        let mut floors: HashMap<ShardId, LogIndex> = HashMap::new();
        for (id, version) in asked {
            let floor = floors.entry(self.collection.tokens.shard_of(*id)).or_default();
            *floor = (*version).max(*floor);
        }
        let ids: Vec<PointId> = asked.iter().map(|(id, _)| *id).collect();
        Some(fetch_since(self.access, self.collection, self.spec, &ids, parts, &floors).await)
    }

    /// Has home shards score the points that they have in newer versions.
    async fn resolve(
        &self,
        open: &mut [Search<'_>],
        homes: &mut Homes,
        at_home: &mut BTreeMap<ShardId, Error>,
    ) -> bool {
        let mut wanted: Wanted = BTreeMap::new();
        let mut resolved: Vec<(usize, Vec<PointId>, SearchQuery)> = Vec::new();
        for (at, search) in open.iter().enumerate() {
            let ids = search.chase.changed(homes);
            if ids.is_empty() {
                continue;
            }
            let shards: BTreeSet<ShardId> = ids.iter().map(|id| self.collection.tokens.shard_of(*id)).collect();
            for shard in shards {
                wanted.entry(shard).or_default().push(resolved.len());
            }
            let query = among(&search.sent.query, &ids);
            resolved.push((at, ids, query));
        }
        if resolved.is_empty() {
            return false;
        }
        let queries: Vec<&SearchQuery> = resolved.iter().map(|(.., query)| query).collect();
        let shards: Vec<ShardId> = wanted.keys().copied().collect();
        let targets = Targets::homes(self.collection, &shards);
        let gathered = search_each(self.access, self.collection, self.spec, targets, &queries, &wanted).await;
        let is_stale = gathered.is_stale();
        let mut hits: Vec<Vec<ShardHit>> = resolved.iter().map(|_| Vec::new()).collect();
        for (shard, lists) in gathered.answers {
            for (place, list) in wanted.get(&shard).into_iter().flatten().zip(lists) {
                hits[*place].extend(list);
            }
        }
        homes.are_away(gathered.coverage.missing.iter().map(|missing| missing.shard));
        at_home.extend(gathered.coverage.missing.into_iter().map(|missing| (missing.shard, missing.reason)));
        for ((at, ids, _), hits) in resolved.iter().zip(&hits) {
            open[*at].chase.settle(homes, ids, hits);
        }
        is_stale
    }

    /// What the client is shown.
    fn answer(
        &self,
        search: &Search<'_>,
        outcome: super::confirm::Outcome,
        homes: &Homes,
        at_home: &BTreeMap<ShardId, Error>,
    ) -> Answer {
        let query = &self.queries[search.sent.place];
        let schema = self.collection.schema.vectors.get(&query.using);
        let score = |distance| schema.map_or(0.0, |schema| query.source.score(schema.metric, distance));
        let shown = outcome.hits.into_iter().skip(query.offset).map(|ShardHit { id, version, distance }| {
            let point = homes.point(id).filter(|_| query.wants_parts()).map(|point| narrow(point, &query.parts));
            Hit { id, version, score: score(distance), order: None, point }
        });
        let hits: Vec<Hit> = shown.collect();
        let asked = search.route.asked.len();
        let answered = asked.saturating_sub(search.missing.len());
        let away = outcome.away.iter().filter_map(|shard| at_home.get_key_value(shard));
        let missing = search.missing.iter().chain(away);
        let missing: Vec<Missing> =
            missing.map(|(shard, reason)| Missing { shard: *shard, reason: reason.clone() }).collect();
        let coverage = Coverage {
            shards_asked: answered + missing.len(),
            // Where nothing could be confirmed there is no answer, whatever search shards say.
            shards_answered: if hits.is_empty() && !outcome.away.is_empty() { 0 } else { answered },
            missing,
            routed: Some(Box::new(search.route.shown(self.served))),
        };
        Answer { hits, coverage }
    }
}

/// The same search among some points, exactly.
fn among(query: &SearchQuery, ids: &[PointId]) -> SearchQuery {
    let mut must = vec![Condition::HasId(SortedSet::new(ids.to_vec()))];
    must.extend(query.filter.as_deref().map(|filter| Condition::Filter(filter.clone())));
    let filter = Some(Arc::new(Filter { must, ..Filter::default() }));
    SearchQuery { filter, k: ids.len(), exact: true, ..query.clone() }
}
