//! The sweep: the leader of a search shard goes over its copies again and again, slowly, and removes those that nobody
//! needs and nobody said so: publishers forget what is gone when the lead of a home shard changes, and a new map leaves
//! copies behind where it does not place them.
//!
//! What is removed is a fact that stays true, whoever finds it and however late it is proposed: a version that its home
//! shard has replaced and will never have again, or a copy that the only map in force does not place here, which is
//! checked once more where it is applied. When anything is unknown the copy stays: searches confirm their hits at home,
//! so one too many is never shown, while one too few would be missed.

mod homes;
mod judge;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vicinal_common::api::WriteOp;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::{MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Copies, CopyVersion, MapRange, Misplaced, ShardRole, gone};

use self::judge::Position;
use crate::node::{OpenMap, ShardNode};
use crate::raft::Group;
use crate::shard::{LoggedWrite, View};

/// Longest wait for a removal to be applied.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// Pairs of one shard that may wait to be removed; beyond, no further page is read.
const WAITING_MAX: usize = 65_536;
/// Pairs in one log entry.
const PAIRS_MAX: usize = 16_384;

/// How fast the sweep goes.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// Vectors and payloads of a page, in bytes.
    pub page_bytes: usize,
    /// Time between two pages of a node, whatever shards they are of.
    pub pause: Duration,
    /// A replaced copy stays at least so long after its successor was seen in its places: a search that asks two shards at
    /// different moments then finds one of the two.
    pub grace: Duration,
    /// Time from the end of a pass over a shard to the next one.
    pub again: Duration,
    /// The same after a pass that could not tell of every copy whether it may go, and after the first for a reason.
    pub again_soon: Duration,
}

impl Default for SweepOptions {
    fn default() -> SweepOptions {
        SweepOptions {
            page_bytes: 1 << 20,
            pause: Duration::from_millis(500),
            grace: Duration::from_secs(10),
            again: Duration::from_secs(30 * 60),
            again_soon: Duration::from_secs(30),
        }
    }
}

/// Sweeps the search shards that the node leads, a page of one of them at a time, until the node stops.
pub(crate) async fn run(node: Weak<ShardNode>, options: SweepOptions, stop: CancellationToken) {
    let mut tick = interval(options.pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = Sweep { options, shards: BTreeMap::new(), last: None };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(node) = node.upgrade() else { return };
        tokio::select! {
            () = sweep.step(&node) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The sweep of a node.
struct Sweep {
    options: SweepOptions,
    /// The search shards it leads.
    shards: BTreeMap<ShardId, Progress>,
    /// The shard whose turn was last.
    last: Option<ShardId>,
}

/// How far the sweep of a shard is.
#[derive(Default)]
struct Progress {
    pass: Option<Pass>,
    /// What the last pass was for, and when there is to be another one for the same.
    rested: Option<(Reason, Instant)>,
    /// Pairs that are gone, and from when on they may be removed.
    waiting: VecDeque<(Instant, Vec<CopyVersion>)>,
}

/// What makes a pass begin at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reason {
    term: u64,
    maps: MapRange,
    /// The map that metadata serve.
    served: MapVersion,
}

/// A pass over a shard, in order of the ids.
struct Pass {
    reason: Reason,
    from: Option<PointId>,
    /// Kept so that it is parsed once for the pass.
    map: Option<Arc<OpenMap>>,
    /// Copies of which it could not be told whether they may go.
    unknown: usize,
    removed: usize,
}

impl Progress {
    /// Whether it is this shard's turn: a pass is under way, or is due and begins.
    fn is_due(&mut self, reason: Reason, now: Instant) -> bool {
        if self.pass.as_ref().is_some_and(|pass| pass.reason == reason) {
            return true;
        }
        let is_resting = self.rested.is_some_and(|(last, until)| last == reason && now < until);
        self.pass = (!is_resting).then_some(Pass { reason, from: None, map: None, unknown: 0, removed: 0 });
        !is_resting
    }

    fn waiting(&self) -> usize {
        self.waiting.iter().map(|(_, pairs)| pairs.len()).sum()
    }

    /// Takes the pairs whose time has come, at most as many as one entry takes.
    fn take_due(&mut self, now: Instant) -> Vec<CopyVersion> {
        let mut due = Vec::new();
        while let Some((from, pairs)) = self.waiting.front_mut() {
            let room = PAIRS_MAX - due.len();
            if *from > now || room == 0 {
                break;
            }
            due.extend(pairs.drain(..room.min(pairs.len())));
            if pairs.is_empty() {
                self.waiting.pop_front();
            }
        }
        due
    }
}

impl Sweep {
    /// Removes what is due everywhere, and reads a page of one shard.
    async fn step(&mut self, node: &Arc<ShardNode>) {
        let search = node.groups().into_iter().filter(|group| group.shard().role() == ShardRole::Search);
        let led: Vec<(Arc<Group>, u64)> = search.filter_map(|group| Some((group.clone(), group.leading()?))).collect();
        // What another leader finds is not our business any more.
        self.shards.retain(|id, _| led.iter().any(|(group, _)| group.id() == *id));
        for (group, _) in &led {
            if let Some(progress) = self.shards.get_mut(&group.id()) {
                remove_due(node, group, progress, self.options.again_soon).await;
            }
        }
        let next = led.partition_point(|(group, _)| Some(group.id()) <= self.last);
        let (before, after) = led.split_at(next);
        for (group, term) in after.iter().chain(before) {
            let progress = self.shards.entry(group.id()).or_default();
            let view = group.shard().view();
            let served = view.tuning().map.as_ref().map_or(MapVersion(0), |map| map.version);
            let reason = Reason { term: *term, maps: view.maps(), served };
            if progress.waiting() >= WAITING_MAX || !progress.is_due(reason, Instant::now()) {
                continue;
            }
            self.last = Some(group.id());
            page(node, group, view, progress, &self.options).await;
            return;
        }
    }
}

/// Reads and judges a page of the pass under way.
async fn page(
    node: &Arc<ShardNode>,
    group: &Arc<Group>,
    view: Arc<View>,
    progress: &mut Progress,
    options: &SweepOptions,
) {
    let Some(mut pass) = progress.pass.take() else { return };
    let judged = judge_page(node, group, view, &mut pass, options.page_bytes).await;
    let now = Instant::now();
    let next = judged.map(|(next, gone)| {
        pass.removed += gone.len();
        if !gone.is_empty() {
            progress.waiting.push_back((now + options.grace, gone));
        }
        next
    });
    let shard = group.id();
    match next {
        Ok(Some(next)) => progress.pass = Some(Pass { from: Some(next), ..pass }),
        Ok(None) => {
            if pass.removed > 0 {
                let Pass { removed, unknown, .. } = pass;
                tracing::info!(%shard, removed, unknown, "copies that nobody needs were found and are removed");
            }
            // What was under way when its reason arose may have come after the first pass for it: a copy by the map that
            // ended, or one whose removal a home shard's former leader took with it.
            let is_first = progress.rested.is_none_or(|(last, _)| last != pass.reason);
            let pause = if pass.unknown > 0 || is_first { options.again_soon } else { options.again };
            progress.rested = Some((pass.reason, now + pause));
        }
        Err(error) => {
            tracing::debug!(%shard, %error, "the sweep of a search shard begins again later");
            progress.rested = Some((pass.reason, now + options.again_soon));
        }
    }
}

/// Removes the misplaced copies of a page. Returns where the next page begins and the copies that are gone.
async fn judge_page(
    node: &Arc<ShardNode>,
    group: &Arc<Group>,
    view: Arc<View>,
    pass: &mut Pass,
    page_bytes: usize,
) -> Result<(Option<PointId>, Vec<CopyVersion>)> {
    let spec = group.shard().spec();
    let Some(vector) = spec.schema.vectors.keys().next().cloned() else {
        return Err(Error::Internal(format!("search shard {} has no vector", spec.shard)));
    };
    if view.tuning().home_shards.is_empty() {
        return Err(Error::Unavailable(format!("search shard {} was not told its home shards yet", spec.shard)));
    }
    let position = position(node, spec.shard, &view, &vector, pass).await?;
    let (from, read) = (pass.from, view.clone());
    // The page is read before homes are asked: what they have then is not older than what the page shows.
    let (mut pairs, misplaced, next) = exec::blocking(move || {
        let (copies, next) = read.page_of_copies(from, page_bytes, &vector)?;
        let misplaced = position.map_or_else(Vec::new, |position| judge::misplaced(&copies, &vector, &position));
        let pairs: Vec<CopyVersion> = copies.iter().map(|copy| (copy.point.id, copy.version)).collect();
        Ok::<_, Error>((pairs, misplaced, next))
    })
    .await??;
    for misplaced in misplaced.chunks(PAIRS_MAX) {
        let misplaced = Misplaced { map: pass.reason.served, pairs: misplaced.to_vec() };
        remove(node, group, Copies { misplaced: Some(misplaced), ..Copies::default() }).await?;
    }
    pass.removed += misplaced.len();
    // Both are in the order of the page.
    let mut removed = misplaced.into_iter().peekable();
    pairs.retain(|pair| removed.next_if_eq(pair).is_none());
    let homes = homes::ask(node, spec.collection, view.tuning(), &pairs).await;
    let judged = gone(&pairs, &homes);
    pass.unknown += judged.unknown;
    Ok((next, judged.gone))
}

/// The shard in the map that is the only one in force, if it is, and if the node has it.
async fn position(
    node: &Arc<ShardNode>,
    shard: ShardId,
    view: &View,
    vector: &str,
    pass: &mut Pass,
) -> Result<Option<Position>> {
    let MapRange { oldest, newest } = view.maps();
    let Some(map) = view.tuning().map.as_ref().filter(|map| oldest == newest && map.version == newest) else {
        return Ok(None);
    };
    let Some(at) = map.shards.iter().position(|named| *named == shard) else { return Ok(None) };
    if pass.map.is_none() {
        let (maps, digest) = (node.maps().clone(), map.digest);
        match exec::blocking(move || maps.open(digest)).await? {
            Ok(open) => pass.map = Some(open),
            Err(error) => {
                // The reconciler puts it here; until then only what is gone is removed.
                tracing::debug!(%shard, %error, "no map to sweep by");
                pass.unknown += 1;
                return Ok(None);
            }
        }
    }
    let fits = |open: &&Arc<OpenMap>| {
        let parts = open.map.parts();
        parts.version == map.version.0 && parts.shards as usize == map.shards.len() && map.vector == vector
    };
    let open = pass.map.as_ref().filter(fits).cloned();
    Ok(open.map(|open| Position { map: open, shard: at as u32 }))
}

/// Removes the pairs whose time has come. Those that could not be removed are tried again.
async fn remove_due(node: &Arc<ShardNode>, group: &Arc<Group>, progress: &mut Progress, again: Duration) {
    let gone = progress.take_due(Instant::now());
    if gone.is_empty() {
        return;
    }
    if let Err(error) = remove(node, group, Copies { gone: gone.clone(), ..Copies::default() }).await {
        tracing::debug!(shard = %group.id(), %error, "copies that are gone were not removed yet");
        progress.waiting.push_back((Instant::now() + again, gone));
    }
}

/// Proposes a removal and waits until it is applied.
async fn remove(node: &Arc<ShardNode>, group: &Arc<Group>, copies: Copies) -> Result<()> {
    node.check_open()?;
    let op = WriteOp::Copies(Arc::new(copies));
    node.room.admit(op.bytes() as u64)?;
    group.admit()?;
    let spec = group.shard().spec();
    let (request, collection, epoch) = (node.env.rng.request_id(), spec.collection, spec.epoch);
    let write = LoggedWrite { request, part: 0, collection, epoch, op };
    group.write(write, Instant::now() + WRITE_PATIENCE).await.map(drop)
}
