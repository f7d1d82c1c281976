//! When search shards are kept even, and what is done for it: moving and splitting cells of the map that is served, or
//! training a new one. Pure.
//!
//! A glimpse at what replicas say is cheap and says when a look is due; a look places a sample of the points, and
//! decides.
//! Between changes there is a pause that grows with what the last one took, so that it is a small part of the cluster's
//! work whatever the size of the collection; and what starts a change (a fifth more than the mean) is far from what it
//! aims at (a twentieth).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use vicinal_common::api::NodeStatus;
use vicinal_common::ids::{NodeId, ShardId};

use super::plan;
use crate::meta::{Collection, Trained, Verdict};

/// A shard may hold, or be searched, so many times more than the mean before something is done.
const IMBALANCE_MAX: f64 = 1.2;
/// Cells that want splitting may hold this share of the points.
const OVERSIZED_MAX: f64 = 0.1;
/// Searches may ask so many times more shards than after training.
const FAN_OUT_DRIFT_MAX: f64 = 1.15;
/// So many times the points of training are reason to train anew, where more of them make a better map.
const GROWTH_MAX: u64 = 4;
/// Fewer points for each search shard than this are uneven by chance.
const POINTS_PER_SHARD_MIN: u64 = 250;
/// Shortest and longest pause between changes, and how many times it is as long as the last change took.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3_600);
const PAUSE_RATIO: u32 = 10;
/// How often there is a look at shards that are uneven where the last one found nothing to do, and at even ones.
const UNEVEN_AGAIN: Duration = Duration::from_secs(600);
const EVEN_AGAIN: Duration = Duration::from_secs(3_600);
/// Points have changed when there are so many times as many, or as few; uneven ones sooner.
const POINTS_CHANGED: f64 = 1.25;
const POINTS_CHANGED_UNEVEN: f64 = 1.02;
/// Rates of searches are means over about this time, and say nothing before.
const RATE_TIME: Duration = Duration::from_secs(60);
/// Fewer searches per second than this, all shards together, are no load.
const LOAD_MIN: f64 = 10.0;

/// What a look has found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Points of the collection.
    pub(super) points: u64,
    /// Search shards of the map.
    pub(super) shards: u32,
    /// The fullest of them by the mean, on a sample.
    pub(super) imbalance: f64,
    /// The most searched one by the mean, if that is known.
    pub(super) load_imbalance: Option<f64>,
    /// Share of the points that are in cells that want splitting.
    pub(super) oversized: f64,
    /// Share of the shards that a search asks, for the recall of training.
    pub(super) fan_out: f64,
    /// Points that a map is trained on where there are enough.
    pub(super) sample_max: u64,
}

/// With fewer points than this nobody looks.
pub(super) fn points_min(shards: u32) -> u64 {
    POINTS_PER_SHARD_MIN * u64::from(shards)
}

/// What is to be done.
pub(super) fn verdict(found: &Found, trained: Option<&Trained>) -> Verdict {
    if found.points < points_min(found.shards) {
        return Verdict::TooSmall;
    }
    if let Some(trained) = trained {
        if found.fan_out > FAN_OUT_DRIFT_MAX * f64::from(trained.fan_out) {
            return Verdict::RetrainForFanOut;
        }
        if trained.points < found.sample_max && found.points >= GROWTH_MAX.saturating_mul(trained.points) {
            return Verdict::RetrainForGrowth;
        }
    }
    if found.imbalance > IMBALANCE_MAX || found.oversized > OVERSIZED_MAX {
        return Verdict::Adjust;
    }
    // Which points a shard holds decides how much it is asked: only more replicas share that.
    match found.load_imbalance {
        Some(load) if load > IMBALANCE_MAX => Verdict::Replicas,
        Some(_) | None => Verdict::Even,
    }
}

/// What replicas say of the search shards of the map that is served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Glimpse {
    /// Points of the collection.
    pub(super) points: u64,
    /// The fullest search shard by the mean. Copies that are to be swept count.
    pub(super) imbalance: f64,
}

/// `None` while some shard does not say how it is.
pub(super) fn glimpse(statuses: &[NodeStatus], collection: &Collection) -> Option<Glimpse> {
    let served = collection.routing.cluster()?.serving.as_ref()?;
    let homes = plan::points(statuses, collection.shard_ids());
    let searched = plan::points(statuses, served.map.shards.iter().copied());
    if homes.len() != collection.shards.len() || searched.len() != served.map.shards.len() {
        return None;
    }
    Some(Glimpse { points: homes.values().sum(), imbalance: imbalance(searched.values().map(|points| *points as f64)) })
}

/// The largest by the mean; 1 when all are zero.
pub(super) fn imbalance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let (count, total) = (values.clone().count() as f64, values.clone().sum::<f64>());
    let most = values.fold(0.0, f64::max);
    if total > 0.0 { most * count / total } else { 1.0 }
}

/// How often each search shard is searched, from counters that begin at zero with each start of a node.
#[derive(Debug, Default)]
pub(in super::super) struct Rates {
    counted: BTreeMap<(NodeId, ShardId), u64>,
    /// Searches per second, means over a time.
    rates: BTreeMap<ShardId, f64>,
    began: Option<Instant>,
    last: Option<Instant>,
}

impl Rates {
    /// Takes in what nodes say of these shards. A node that is silent adds nothing, one that was restarted what it has
    /// counted since.
    pub(super) fn count(&mut self, statuses: &[NodeStatus], shards: &[ShardId], now: Instant) {
        let wanted: BTreeSet<ShardId> = shards.iter().copied().collect();
        let mut new: BTreeMap<ShardId, u64> = wanted.iter().map(|shard| (*shard, 0)).collect();
        for status in statuses {
            for replica in status.replicas.iter().filter(|replica| wanted.contains(&replica.shard)) {
                let before = self.counted.insert((status.node, replica.shard), replica.searches);
                let more = match before {
                    Some(before) => replica.searches.checked_sub(before).unwrap_or(replica.searches),
                    // How old those are is not known.
                    None => 0,
                };
                *new.entry(replica.shard).or_default() += more;
            }
        }
        self.counted.retain(|(_, shard), _| wanted.contains(shard));
        self.rates.retain(|shard, _| wanted.contains(shard));
        self.began.get_or_insert(now);
        let passed = now - self.last.replace(now).unwrap_or(now);
        if passed.is_zero() {
            return;
        }
        let weight = (passed.as_secs_f64() / RATE_TIME.as_secs_f64()).min(1.0);
        for (shard, searches) in new {
            let rate = self.rates.entry(shard).or_default();
            *rate += weight * (searches as f64 / passed.as_secs_f64() - *rate);
        }
    }

    /// The most searched shard by the mean; `None` when that is not known yet, or there are next to no searches.
    pub(super) fn imbalance(&self, now: Instant) -> Option<f64> {
        let is_known = self.began.is_some_and(|began| now - began >= RATE_TIME);
        let total: f64 = self.rates.values().sum();
        (is_known && total >= LOAD_MIN).then(|| imbalance(self.rates.values().copied()))
    }
}

/// What is remembered of a collection between glimpses.
#[derive(Debug, Default)]
pub(in super::super) struct Watch {
    /// Since when a change of it is under way.
    busy_since: Option<Instant>,
    quiet_since: Option<Instant>,
    /// Work of the last change.
    changed_in: Duration,
    /// When the last look ended, how long it took, and how many points there were.
    looked: Option<(Instant, Duration, u64)>,
    /// Whether something was to be done about what a look finds.
    is_on: bool,
    pub(super) rates: Rates,
}

impl Watch {
    /// Whether something is to be done about what a look finds: once it is, what was only looked at is looked at again.
    pub(super) fn set_on(&mut self, is_on: bool) {
        if is_on && !std::mem::replace(&mut self.is_on, is_on) {
            self.looked = None;
        }
        self.is_on = is_on;
    }

    /// Something else is being changed of the collection.
    pub(super) fn is_busy(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
        self.quiet_since = None;
    }

    /// Whether it is time to look. One who has just come to lead waits, too: what was before is not known to it.
    pub(super) fn is_due(&mut self, glimpse: Glimpse, now: Instant) -> bool {
        if let Some(since) = self.busy_since.take() {
            self.changed_in = now - since;
        }
        let quiet_since = *self.quiet_since.get_or_insert(now);
        if now - quiet_since < pause(self.changed_in) {
            return false;
        }
        let Some((at, took, points)) = self.looked else { return true };
        let (ago, is_uneven) = (now - at, glimpse.imbalance > IMBALANCE_MAX);
        if ago < pause(took) {
            return false;
        }
        let (enough, again) = match is_uneven {
            true => (POINTS_CHANGED_UNEVEN, UNEVEN_AGAIN),
            false => (POINTS_CHANGED, EVEN_AGAIN),
        };
        let (now_points, before) = (glimpse.points.max(1) as f64, points.max(1) as f64);
        ago >= again || now_points >= enough * before || before >= enough * now_points
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, began: Instant, now: Instant, points: u64) {
        self.looked = Some((now, now - began, points));
    }
}

/// The pause after work that took so long.
fn pause(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_RATIO).clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests;
