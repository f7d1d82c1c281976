//! Applying log entries: a pure function of the state and the entry, in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vicinal_common::api::{Effect, LoggedFilter, WriteOp, check_logged};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{EVALUATOR_OLDEST, EVALUATOR_VERSION, Filter};
use vicinal_common::ids::LogIndex;
use vicinal_common::point::{Point, PointId};

use super::Shard;
use super::deaths::{DeathLog, MortalRun};
use super::entry::{Applied, ApplyEntry, ApplyOutcome, EntryPayload, LogMark, LoggedWrite};
use super::requests::RequestTable;
use super::view::{LiveRun, View};
use crate::manifest::RequestRecord;
use crate::segment::{Ids, Layout, MemoryRun, Run, Source, Tombstones, merge_runs};

/// What only the one who applies changes. The view is published while this is locked.
pub(super) struct Writer {
    /// The last applied entry.
    pub(super) mark: Option<LogMark>,
    /// The last applied membership.
    pub(super) membership: Option<(LogMark, Bytes)>,
    /// Applied writes.
    pub(super) requests: RequestTable,
    /// The first so many fresh runs are being sealed: they stay as they are, but for their tombstones.
    pub(super) frozen: usize,
}

/// The entry that is being applied.
pub(super) struct Step<'a> {
    /// Where it stands in the log.
    pub(super) index: LogIndex,
    /// See [`Writer::frozen`].
    pub(super) frozen: usize,
    /// Where its deaths are noted, if somebody watches.
    pub(super) deaths: Option<&'a mut DeathLog>,
}

/// A panic in the middle of applying leaves the writer ahead of the view, as an error does: raft, started again, would
/// go on behind entries that no view has, and the next manifest would say that they are in it.
pub(super) struct FailOnPanic<'a>(pub(super) &'a Shard);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("applying the log panicked, which is a bug".into());
        }
    }
}

impl Shard {
    /// Applies entries in log order and publishes one new view for all of them. An entry that does not fit has an
    /// error as its outcome and changes nothing. `Err` means that this replica must stop: stored data is damaged, the
    /// shard has failed, or an entry came twice.
    pub fn apply(&self, entries: Vec<ApplyEntry>) -> Result<Vec<Applied>> {
        self.pause_when_far_behind();
        let mut writer = self.writer.lock();
        self.check_failed()?;
        let _guard = FailOnPanic(self);
        let mut draft = View::clone(&self.view.load());
        let mut died = self.deaths.lock().as_ref().map(|_| DeathLog::default());
        let applied = self.apply_to(&mut writer, &mut draft, &mut died, entries).inspect_err(|error| {
            // The writer may be ahead of the view now: nothing of it may become durable.
            self.fail(format!("cannot apply the log: {error}"));
        })?;
        let is_due = draft.fresh_bytes() >= self.env.options.seal_bytes;
        let (is_worth_sealing, position) = (self.is_worth_sealing(&draft), draft.applied);
        // Before the view: whoever has seen that finds all deaths that led to it.
        if let (Some(deaths), Some(died)) = (&mut *self.deaths.lock(), died) {
            deaths.append(died);
        }
        self.view.store(Arc::new(draft));
        drop(writer);
        if is_due {
            self.schedule_flush();
        } else if is_worth_sealing {
            self.schedule_idle_flush(position);
        }
        Ok(applied)
    }

    fn apply_to(
        &self,
        writer: &mut Writer,
        draft: &mut View,
        deaths: &mut Option<DeathLog>,
        entries: Vec<ApplyEntry>,
    ) -> Result<Vec<Applied>> {
        let mut applied = Vec::with_capacity(entries.len());
        for entry in entries {
            if writer.mark.as_ref().is_some_and(|last| last.index >= entry.mark.index) {
                let index = entry.mark.index;
                return Err(Error::Internal(format!("log entry {index} of shard {} came twice", self.spec.shard)));
            }
            let index = entry.mark.index;
            applied.push(match entry.payload {
                EntryPayload::Blank => Applied { index, outcome: Ok(Effect::default()) },
                EntryPayload::Membership(membership) => {
                    writer.membership = Some((entry.mark.clone(), membership));
                    Applied { index, outcome: Ok(Effect::default()) }
                }
                EntryPayload::Write(write) => {
                    let mut step = Step { index, frozen: writer.frozen, deaths: deaths.as_mut() };
                    self.apply_write(&mut writer.requests, draft, &mut step, &write)?
                }
            });
            writer.mark = Some(entry.mark);
            draft.applied = index;
        }
        Ok(applied)
    }

    fn apply_write(
        &self,
        requests: &mut RequestTable,
        draft: &mut View,
        step: &mut Step<'_>,
        write: &LoggedWrite,
    ) -> Result<Applied> {
        let index = step.index;
        let is_remembered = !write.op.is_repeatable();
        if let Some(first) = requests.get(write.request, write.part).filter(|_| is_remembered) {
            return Ok(Applied { index: LogIndex(first.index), outcome: first.outcome.clone() });
        }
        let outcome = match self.check_route(write) {
            Ok(()) => self.change(draft, step, &write.op)?,
            Err(refused) => Err(refused),
        };
        // A refusal that a repetition can overcome (a stale epoch) is not remembered: nothing was done, and the
        // repetition carries the same request id.
        if is_remembered && !outcome.as_ref().is_err_and(Error::is_retryable) {
            let (request, part, outcome) = (write.request, write.part, outcome.clone());
            requests.insert(RequestRecord { request, part, index: index.0, outcome });
        }
        Ok(Applied { index, outcome })
    }

    fn check_route(&self, write: &LoggedWrite) -> Result<()> {
        if write.collection != self.spec.collection {
            return Err(Error::NoSuchShard(self.spec.shard));
        }
        self.check_epoch(write.epoch, None)?;
        self.check_role(&write.op)
    }

    fn change(&self, draft: &mut View, step: &mut Step<'_>, op: &WriteOp) -> Result<ApplyOutcome> {
        let planned = match op {
            WriteOp::Upsert(points) => return Ok(self.upsert(draft, step, points).map(Effect::of)),
            WriteOp::Delete(ids) => {
                let killed = ids.iter().filter(|id| draft.kill(**id, step)).count();
                return Ok(Ok(Effect::of(killed as u64)));
            }
            WriteOp::DeleteByFilter(logged) => {
                let filter = match parse_filter(logged)? {
                    Ok(filter) => filter,
                    Err(refused) => return Ok(Err(refused)),
                };
                let ids = draft.matching(&filter)?;
                let killed = ids.into_iter().filter(|id| draft.kill(*id, step)).count();
                return Ok(Ok(Effect::of(killed as u64)));
            }
            WriteOp::ConditionalUpsert { points, mode, filter } => draft.plan_upsert(points, *mode, filter.as_ref())?,
            WriteOp::UpdateVectors { points, filter } => draft.plan_vectors(points, filter.as_ref())?,
            WriteOp::Edit { points, edit } => draft.plan_edit(points, edit)?,
            WriteOp::Copies(copies) => return Ok(self.take_copies(draft, step, copies).map(Effect::of)),
            WriteOp::Maps(maps) => {
                draft.maps = draft.maps.raised(*maps);
                return Ok(Ok(Effect::default()));
            }
            WriteOp::Feed(change) => {
                Arc::make_mut(&mut draft.feed).change(step.index, change);
                return Ok(Ok(Effect::default()));
            }
        };
        Ok(planned.and_then(|(points, effect)| self.upsert(draft, step, &points).map(|_| effect)))
    }

    /// Writes points, or refuses them with nothing done. How many.
    fn upsert(&self, draft: &mut View, step: &mut Step<'_>, points: &[Point]) -> Result<u64> {
        let run = MemoryRun::from_points(points, step.index, &draft.layout)?;
        Ok(self.add_run(draft, step, run))
    }

    /// Puts new rows in the place of the live rows of their ids. How many.
    pub(super) fn add_run(&self, draft: &mut View, step: &mut Step<'_>, run: MemoryRun) -> u64 {
        let rows = u64::from(run.rows());
        if rows > 0 {
            draft.kill_all(run.ids(), step);
            draft.fresh.push(LiveRun::new(run));
            draft.live += rows;
            draft.settle_fresh(step.frozen, self.env.options.seal_bytes / 8);
        }
        rows
    }

    /// Seals soon, however little there is: the log has grown too long.
    pub fn request_flush(&self) {
        self.flush_requested.store(true, Ordering::Release);
        self.schedule_flush();
    }
}

/// The outer error: this program cannot evaluate the filter as the others do, so the replica must stop.
pub(super) fn parse_filter(logged: &LoggedFilter) -> Result<Result<Filter>> {
    if !(EVALUATOR_OLDEST..=EVALUATOR_VERSION).contains(&logged.evaluator) {
        let (asked, known) = (logged.evaluator, EVALUATOR_VERSION);
        return Err(Error::Corrupt(format!(
            "the log names version {asked} of the filter evaluator, this program has version {known}: run a newer one"
        )));
    }
    let parsed = serde_json::from_str(&logged.json);
    let parsed = parsed.map_err(|error| Error::BadInput(format!("Format error in filter: {error}")));
    Ok(parsed.and_then(|filter| check_logged(&filter).map(|()| filter)))
}

impl View {
    /// Makes the live row of an id dead. Returns whether there was one.
    pub(super) fn kill(&mut self, id: PointId, step: &mut Step<'_>) -> bool {
        let layout = &self.layout;
        let mut runs = self.fresh.iter_mut().rev();
        let mut segments = self.segments.iter_mut().rev();
        let killed = runs.any(|fresh| kill_row(fresh.run.ids(), &mut fresh.dead, id, step, (layout, &fresh.run)))
            || segments.any(|main| kill_row(main.segment.ids(), &mut main.dead, id, step, (layout, &main.segment)));
        self.live -= u64::from(killed);
        killed
    }

    /// Makes the live rows of all these ids dead.
    fn kill_all(&mut self, ids: Ids<'_>, step: &mut Step<'_>) {
        let (layout, mut killed) = (&self.layout, 0);
        for fresh in &mut self.fresh {
            killed += kill_in(fresh.run.ids(), &mut fresh.dead, ids, step, (layout, &fresh.run));
        }
        for main in &mut self.segments {
            killed += kill_in(main.segment.ids(), &mut main.dead, ids, step, (layout, &main.segment));
        }
        self.live -= killed;
    }

    /// Drops fresh runs without a live row, and merges the newest runs while the one before them is not much larger:
    /// each row is copied about log(n) times, and there are about log(n) runs. Frozen runs are left alone, and merged
    /// ones do not outgrow `bytes_max`, which bounds how long a write can take.
    fn settle_fresh(&mut self, frozen: usize, bytes_max: u64) {
        let mut position = 0;
        self.fresh.retain(|fresh| {
            position += 1;
            position <= frozen || fresh.dead.count() < fresh.run.rows()
        });
        let mut first = self.fresh.len().saturating_sub(1);
        let mut total = self.fresh.last().map_or(0, |fresh| fresh.run.bytes());
        while first > frozen {
            let bytes = self.fresh[first - 1].run.bytes();
            if bytes >= 2 * total || total + bytes > bytes_max {
                break;
            }
            total += bytes;
            first -= 1;
        }
        if first >= frozen && first + 1 < self.fresh.len() {
            let sources: Vec<Source<'_>> = self.fresh[first..].iter().map(LiveRun::source).collect();
            let run = merge_runs(&sources, &self.layout);
            self.fresh.truncate(first);
            self.fresh.push(LiveRun::new(run));
        }
    }
}

/// Makes the row of an id dead in one run; whether it was alive there.
fn kill_row<R: MortalRun>(
    rows: Ids<'_>,
    dead: &mut Tombstones,
    id: PointId,
    step: &mut Step<'_>,
    of: (&Arc<Layout>, &Arc<R>),
) -> bool {
    let Some(row) = rows.find(id).filter(|row| dead.insert(*row)) else { return false };
    step.note_death(of, row);
    true
}

/// Makes the rows of these ids dead in one run; how many were alive.
fn kill_in<R: MortalRun>(
    rows: Ids<'_>,
    dead: &mut Tombstones,
    ids: Ids<'_>,
    step: &mut Step<'_>,
    of: (&Arc<Layout>, &Arc<R>),
) -> u64 {
    if ids.is_empty() || rows.is_empty() {
        return 0;
    }
    // Loads often bring ascending ids: then no old run can hold any of them.
    let first = rows.lower_bound(ids.get(0));
    if first == rows.len() || rows.get(first) > ids.get(ids.len() - 1) {
        return 0;
    }
    (0..ids.len()).filter(|i| kill_row(rows, dead, ids.get(*i), step, of)).count() as u64
}
