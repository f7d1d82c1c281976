//! Applying log entries: a pure function of the state and the entry, in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vicinal_common::api::{Effect, LoggedFilter, WriteOp};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{EVALUATOR_OLDEST, EVALUATOR_VERSION, Filter};
use vicinal_common::ids::LogIndex;
use vicinal_common::point::{Point, PointId};

use super::Shard;
use super::entry::{Applied, ApplyEntry, ApplyOutcome, EntryPayload, LogMark, LoggedWrite};
use super::requests::RequestTable;
use super::view::{LiveRun, View};
use crate::manifest::RequestRecord;
use crate::segment::{Ids, MemoryRun, Run, Source, Tombstones, merge_runs};

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
        let applied = self.apply_to(&mut writer, &mut draft, entries).inspect_err(|error| {
            // The writer may be ahead of the view now: nothing of it may become durable.
            self.fail(format!("cannot apply the log: {error}"));
        })?;
        let is_due = draft.fresh_bytes() >= self.env.options.seal_bytes;
        let (is_worth_sealing, position) = (self.is_worth_sealing(&draft), draft.applied);
        self.view.store(Arc::new(draft));
        drop(writer);
        if is_due {
            self.schedule_flush();
        } else if is_worth_sealing {
            self.schedule_idle_flush(position);
        }
        Ok(applied)
    }

    fn apply_to(&self, writer: &mut Writer, draft: &mut View, entries: Vec<ApplyEntry>) -> Result<Vec<Applied>> {
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
                EntryPayload::Write(write) => self.apply_write(writer, draft, index, &write)?,
            });
            writer.mark = Some(entry.mark);
            draft.applied = index;
        }
        Ok(applied)
    }

    fn apply_write(
        &self,
        writer: &mut Writer,
        draft: &mut View,
        index: LogIndex,
        write: &LoggedWrite,
    ) -> Result<Applied> {
        if let Some(first) = writer.requests.get(write.request, write.part) {
            return Ok(Applied { index: LogIndex(first.index), outcome: first.outcome.clone() });
        }
        let outcome = match self.check_route(write) {
            Ok(()) => self.change(writer.frozen, draft, index, &write.op)?,
            Err(refused) => Err(refused),
        };
        // A refusal that a repetition can overcome (a stale epoch) is not remembered: nothing was done, and the
        // repetition carries the same request id.
        if !outcome.as_ref().is_err_and(Error::is_retryable) {
            let (request, part, outcome) = (write.request, write.part, outcome.clone());
            writer.requests.insert(RequestRecord { request, part, index: index.0, outcome });
        }
        Ok(Applied { index, outcome })
    }

    fn check_route(&self, write: &LoggedWrite) -> Result<()> {
        if write.collection != self.spec.collection {
            return Err(Error::NoSuchShard(self.spec.shard));
        }
        if write.epoch != self.spec.epoch {
            let (asked, current) = (write.epoch, self.spec.epoch);
            return Err(Error::WrongEpoch { shard: self.spec.shard, asked, current });
        }
        Ok(())
    }

    fn change(&self, frozen: usize, draft: &mut View, index: LogIndex, op: &WriteOp) -> Result<ApplyOutcome> {
        let planned = match op {
            WriteOp::Upsert(points) => return Ok(self.upsert(frozen, draft, index, points).map(Effect::of)),
            WriteOp::Delete(ids) => {
                let killed = ids.iter().filter(|id| draft.kill(**id)).count();
                return Ok(Ok(Effect::of(killed as u64)));
            }
            WriteOp::DeleteByFilter(logged) => {
                let filter = match parse_filter(logged)? {
                    Ok(filter) => filter,
                    Err(refused) => return Ok(Err(refused)),
                };
                let ids = draft.matching(&filter)?;
                let killed = ids.into_iter().filter(|id| draft.kill(*id)).count();
                return Ok(Ok(Effect::of(killed as u64)));
            }
            WriteOp::ConditionalUpsert { points, mode, filter } => draft.plan_upsert(points, *mode, filter.as_ref())?,
            WriteOp::UpdateVectors { points, filter } => draft.plan_vectors(points, filter.as_ref())?,
            WriteOp::Edit { points, edit } => draft.plan_edit(points, edit)?,
            WriteOp::Copies(_) | WriteOp::Maps(_) | WriteOp::Feed(_) => {
                return Ok(Err(Error::BadInput("routing by cluster is not built yet".into()))); // SEAM
            }
        };
        Ok(planned.and_then(|(points, effect)| self.upsert(frozen, draft, index, &points).map(|_| effect)))
    }

    /// Writes points, or refuses them with nothing done. How many.
    fn upsert(&self, frozen: usize, draft: &mut View, index: LogIndex, points: &[Point]) -> Result<u64> {
        if points.is_empty() {
            return Ok(0);
        }
        let run = MemoryRun::from_points(points, index, &draft.layout)?;
        let rows = u64::from(run.rows());
        draft.kill_all(run.ids());
        draft.fresh.push(LiveRun::new(run));
        draft.live += rows;
        draft.settle_fresh(frozen, self.env.options.seal_bytes / 8);
        Ok(rows)
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
    Ok(parsed.map_err(|error| Error::BadInput(format!("Format error in filter: {error}"))))
}

impl View {
    /// Makes the live row of an id dead. Returns whether there was one.
    fn kill(&mut self, id: PointId) -> bool {
        let runs = self.fresh.iter_mut().rev().map(|fresh| (fresh.run.ids().find(id), &mut fresh.dead));
        let segments = self.segments.iter_mut().rev().map(|main| (main.segment.ids().find(id), &mut main.dead));
        let killed = runs.chain(segments).any(|(row, dead)| row.is_some_and(|row| dead.insert(row)));
        self.live -= u64::from(killed);
        killed
    }

    /// Makes the live rows of all these ids dead.
    fn kill_all(&mut self, ids: Ids<'_>) {
        let mut killed = 0;
        for fresh in &mut self.fresh {
            killed += kill_in(fresh.run.ids(), &mut fresh.dead, ids);
        }
        for main in &mut self.segments {
            killed += kill_in(main.segment.ids(), &mut main.dead, ids);
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

/// Makes the rows of these ids dead in one run; how many were alive.
fn kill_in(rows: Ids<'_>, dead: &mut Tombstones, ids: Ids<'_>) -> u64 {
    if ids.is_empty() || rows.is_empty() {
        return 0;
    }
    // Loads often bring ascending ids: then no old run can hold any of them.
    let first = rows.lower_bound(ids.get(0));
    if first == rows.len() || rows.get(first) > ids.get(ids.len() - 1) {
        return 0;
    }
    let found = (0..ids.len()).filter_map(|i| rows.find(ids.get(i)));
    found.filter(|row| dead.insert(*row)).count() as u64
}
