//! What search shards found, held against what home shards say. Pure.
//!
//! A search shard may hold a copy that is old, that another search shard holds in a newer version, or whose point is
//! gone. A hit counts only in the version that its home shard has. Where that has a newer one, its word replaces the
//! hit: the distance of the newer version, or that it does not match. What is never shown cannot be wrong.

use std::collections::{BTreeSet, HashMap, HashSet};

use vicinal_common::api::{ShardHit, StoredPoint};
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::metric::Metric;
use vicinal_common::point::PointId;
use vicinal_common::ring::TokenTable;

use super::request::Query;

/// Hits more than are wanted that are looked up at home, and that search shards are asked for: so many may be old
/// before a search takes another round.
pub(super) const SPARE: usize = 8;

/// What home shards have said of points in the course of a request.
#[derive(Debug, Default)]
pub(super) struct Homes {
    points: HashMap<PointId, AtHome>,
    /// Home shards that do not answer.
    away: BTreeSet<ShardId>,
}

/// A point at home.
#[derive(Debug)]
enum AtHome {
    /// It is there; with the parts wanted, or nothing but its version.
    There { point: StoredPoint, has_parts: bool },
    /// It is not there, in a state that has seen this version.
    Gone(LogIndex),
}

/// What is to be made of a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Home has this version.
    Confirmed,
    /// Home has a newer one.
    Changed,
    /// It is no point any more.
    Gone,
    /// Home has not been asked, or before this version was there.
    Unknown,
    /// Home does not answer.
    Away,
}

impl Homes {
    /// Home shards that do not answer.
    pub(super) fn are_away(&mut self, shards: impl Iterator<Item = ShardId>) {
        self.away.extend(shards);
    }

    /// Takes in what was looked up: ids, each with the version that its home shard must have seen, and the points
    /// found. Those whose home shard did not answer stay unknown.
    pub(super) fn learn(
        &mut self,
        asked: &[(PointId, LogIndex)],
        mut found: HashMap<PointId, StoredPoint>,
        has_parts: bool,
        tokens: &TokenTable,
    ) {
        for (id, version) in asked {
            match found.remove(id) {
                Some(point) => {
                    let known = match self.points.get(id) {
                        Some(AtHome::There { point, has_parts }) => Some((point.version, *has_parts)),
                        Some(AtHome::Gone(_)) | None => None,
                    };
                    if known.is_none_or(|known| known < (point.version, has_parts)) {
                        self.points.insert(*id, AtHome::There { point, has_parts });
                    }
                }
                None if self.away.contains(&tokens.shard_of(*id)) => {}
                None => drop(self.points.insert(*id, AtHome::Gone(*version))),
            }
        }
    }

    /// The version of a point that was looked up.
    fn version(&self, id: PointId) -> Option<LogIndex> {
        match self.points.get(&id)? {
            AtHome::There { point, .. } => Some(point.version),
            AtHome::Gone(_) => None,
        }
    }

    /// Whether home has said that a copy of this version is not what it has, and will never be again.
    pub(super) fn refuse(&self, id: PointId, version: LogIndex) -> bool {
        match self.points.get(&id) {
            Some(AtHome::There { point, .. }) => point.version > version,
            Some(AtHome::Gone(seen)) => *seen >= version,
            None => false,
        }
    }

    /// A point that was looked up with its parts.
    pub(super) fn point(&self, id: PointId) -> Option<&StoredPoint> {
        match self.points.get(&id)? {
            AtHome::There { point, has_parts: true } => Some(point),
            AtHome::There { has_parts: false, .. } | AtHome::Gone(_) => None,
        }
    }

    fn verdict(&self, hit: &ShardHit, wants_parts: bool, home: ShardId) -> Verdict {
        let unknown = if self.away.contains(&home) { Verdict::Away } else { Verdict::Unknown };
        match self.points.get(&hit.id) {
            None => unknown,
            Some(AtHome::Gone(seen)) if *seen >= hit.version => Verdict::Gone,
            Some(AtHome::Gone(_)) => unknown,
            Some(AtHome::There { point, .. }) if point.version < hit.version => unknown,
            Some(AtHome::There { point, .. }) if point.version > hit.version => Verdict::Changed,
            Some(AtHome::There { has_parts, .. }) if wants_parts && !has_parts => unknown,
            Some(AtHome::There { .. }) => Verdict::Confirmed,
        }
    }
}

/// Home's word on a point whose copy was old.
#[derive(Clone, Copy, Debug)]
struct Settled {
    /// Holds for copies up to this version.
    version: LogIndex,
    /// `None`: it does not match.
    distance: Option<f32>,
}

/// One search of search shards on its way to an answer.
pub(super) struct Chase<'a> {
    query: &'a Query,
    metric: Metric,
    own: HashSet<PointId>,
    tokens: &'a TokenTable,
    /// The newest version of each point that search shards hold.
    found: HashMap<PointId, ShardHit>,
    settled: HashMap<PointId, Settled>,
    /// The first place that a list which was cut says nothing about.
    horizon: Option<(f32, PointId)>,
}

/// How far a search is.
pub(super) struct Outcome {
    /// What is confirmed, best first, offset included.
    pub(super) hits: Vec<ShardHit>,
    /// Hits that would come before the last of these were neither confirmed nor refused.
    pub(super) is_open: bool,
    /// Search shards may hold more that belongs before the last of these.
    pub(super) is_short: bool,
    /// Home shards that hits were left out for.
    pub(super) away: BTreeSet<ShardId>,
}

impl Outcome {
    /// The distance of the last hit wanted; `None` when there are fewer.
    pub(super) fn last(&self, wanted: usize) -> Option<f32> {
        self.hits.get(wanted.checked_sub(1)?).map(|hit| hit.distance)
    }
}

impl<'a> Chase<'a> {
    pub(super) fn new(query: &'a Query, metric: Metric, tokens: &'a TokenTable) -> Chase<'a> {
        let own = query.source.points().into_iter().collect();
        let (found, settled) = (HashMap::new(), HashMap::new());
        Chase { query, metric, own, tokens, found, settled, horizon: None }
    }

    /// Hits wanted, those of the offset included.
    pub(super) fn wanted(&self) -> usize {
        self.query.offset + self.query.limit
    }

    /// Search shards are asked anew: what they hold now counts.
    pub(super) fn forget(&mut self) {
        self.found.clear();
        self.horizon = None;
    }

    /// Takes in the hits of one search shard, best first, that was asked for `k`.
    pub(super) fn take(&mut self, k: usize, hits: Vec<ShardHit>) {
        if let Some(last) = hits.last().filter(|_| hits.len() >= k) {
            let end = (last.distance, last.id);
            self.horizon = Some(self.horizon.map_or(end, |known| if is_before(end, known) { end } else { known }));
        }
        for hit in hits {
            let known = self.found.entry(hit.id).or_insert(hit);
            if known.version < hit.version {
                *known = hit;
            }
        }
    }

    /// What may be a hit as far as is known, best first.
    pub(super) fn candidates(&self) -> Vec<ShardHit> {
        let as_settled = |hit: &ShardHit| match self.settled.get(&hit.id) {
            Some(settled) if settled.version >= hit.version => {
                let Settled { version, distance } = *settled;
                distance.map(|distance| ShardHit { id: hit.id, version, distance })
            }
            Some(_) | None => Some(*hit),
        };
        let mut hits: Vec<ShardHit> = self.found.values().filter_map(as_settled).collect();
        hits.retain(|hit| !self.own.contains(&hit.id) && self.accepts(hit.distance));
        hits.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
        hits
    }

    fn accepts(&self, distance: f32) -> bool {
        self.query.accepts(self.metric, self.query.source.score(self.metric, distance))
    }

    fn verdict(&self, homes: &Homes, hit: &ShardHit) -> Verdict {
        let is_settled = || self.settled.get(&hit.id).is_some_and(|settled| settled.version == hit.version);
        if !self.query.wants_parts() && is_settled() {
            return Verdict::Confirmed;
        }
        homes.verdict(hit, self.query.wants_parts(), self.tokens.shard_of(hit.id))
    }

    /// The first candidates, as many as are wanted and a few more, that home is to be asked about: each with the
    /// version that home must have seen.
    pub(super) fn unknown(&self, homes: &Homes) -> Vec<(PointId, LogIndex)> {
        let first = self.first(homes);
        let unknown = first.filter(|(_, verdict)| *verdict == Verdict::Unknown);
        unknown.map(|(hit, _)| (hit.id, hit.version)).collect()
    }

    /// Those of the first candidates that home has in a newer version.
    pub(super) fn changed(&self, homes: &Homes) -> Vec<PointId> {
        let first = self.first(homes);
        first.filter(|(_, verdict)| *verdict == Verdict::Changed).map(|(hit, _)| hit.id).collect()
    }

    fn first(&self, homes: &Homes) -> impl Iterator<Item = (ShardHit, Verdict)> {
        let hits = self.candidates().into_iter();
        let judged: Vec<_> = hits.map(|hit| (hit, self.verdict(homes, &hit))).collect();
        // Where much was old, more of the rest may be.
        let most = self.wanted() + SPARE + self.refused(homes);
        judged.into_iter().filter(|(_, verdict)| *verdict != Verdict::Gone).take(most)
    }

    /// Takes in what home shards found among points whose copies were old. Points of those that did not answer stay as
    /// they are.
    pub(super) fn settle(&mut self, homes: &Homes, ids: &[PointId], hits: &[ShardHit]) {
        for id in ids.iter().filter(|id| !homes.away.contains(&self.tokens.shard_of(**id))) {
            let Some(known) = homes.version(*id) else { continue };
            let hit = hits.iter().find(|hit| hit.id == *id);
            let version = hit.map_or(known, |hit| hit.version.max(known));
            self.settled.insert(*id, Settled { version, distance: hit.map(|hit| hit.distance) });
        }
    }

    /// Copies found that home has refused.
    pub(super) fn refused(&self, homes: &Homes) -> usize {
        self.found.values().filter(|hit| homes.refuse(hit.id, hit.version)).count()
    }

    /// What is confirmed by now.
    pub(super) fn outcome(&self, homes: &Homes) -> Outcome {
        let wanted = self.wanted();
        let mut outcome = Outcome { hits: Vec::new(), is_open: false, is_short: false, away: BTreeSet::new() };
        let mut left_out = 0;
        for hit in self.candidates() {
            if outcome.hits.len() == wanted {
                break;
            }
            match self.verdict(homes, &hit) {
                Verdict::Confirmed => outcome.hits.push(hit),
                Verdict::Gone => {}
                Verdict::Unknown | Verdict::Changed => outcome.is_open = true,
                Verdict::Away => {
                    left_out += 1;
                    outcome.away.insert(self.tokens.shard_of(hit.id));
                }
            }
        }
        let end = outcome.hits.last().map(|hit| (hit.distance, hit.id));
        outcome.is_short = self.horizon.is_some_and(|horizon| match end {
            Some(end) if outcome.hits.len() == wanted => is_before(horizon, end),
            // What home shards would say that do not answer is not made up for.
            Some(_) | None => outcome.hits.len() + left_out < wanted && self.accepts(horizon.0),
        });
        outcome
    }
}

fn is_before(a: (f32, PointId), b: (f32, PointId)) -> bool {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt()
}
