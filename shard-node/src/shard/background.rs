//! When background work runs: on the pool by itself, or one step at a time for tests.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vicinal_common::error::Result;
use vicinal_common::exec;
use vicinal_common::ids::LogIndex;

use super::Shard;
use super::builder::Lane;
use super::commit::StepError;
use super::environment::Background;
use super::view::View;
use crate::optimizer::Action;

/// How long to wait for room on a full disk before trying again.
const DISK_FULL_PAUSE: Duration = Duration::from_secs(1);
/// How long to put off a merge or a build that has no room.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(10);
/// How a writer is held back: so many pauses of this length at most.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSES_MAX: usize = 25;
/// How long nothing must have been applied before a fresh part that is worth an index is sealed.
const IDLE: Duration = Duration::from_secs(1);
/// So many times of [`IDLE`] at most a steady trickle of writes puts that off.
const IDLE_CHECKS_MAX: u32 = 10;
/// Free space beyond what is to be written, before a full disk counts as having room again: 1 MiB.
const DISK_MARGIN_BYTES: u64 = 1 << 20;

impl Shard {
    /// Does one step of background work: seals when that is due or asked for, else drops graphs, opens one again, merges or
    /// builds. Returns false when there is nothing to do. For [`Background::Manual`].
    pub fn maintain_once(&self) -> Result<bool> {
        let is_due = self.view.load().fresh_bytes() >= self.env.options.seal_bytes;
        if (is_due || self.flush_requested.load(Ordering::Acquire)) && self.flush()? {
            return Ok(true);
        }
        {
            let _single = self.opening.lock();
            if self.drop_graphs_once()? || self.reopen_once()? {
                return Ok(true);
            }
        }
        let _single = self.optimizer.lock();
        Ok(self.optimize_once()?)
    }

    /// Stops background work and waits for what is running; a running build is cancelled. Afterwards this object
    /// writes no file any more, so the directory can be opened again or removed. Reads still work. What was not sealed
    /// is not lost: the log has it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.cancel_unwanted_build();
        drop(self.optimizer.lock());
        drop(self.opening.lock());
        drop(self.commit.lock());
    }

    /// Holds back a writer that outruns sealing, as a follower or a replay can: nobody asks [`Shard::admit`] for them.
    /// A short pause per call is enough, and bounded, so that the caller's timers keep working.
    pub(super) fn pause_when_far_behind(&self) {
        // In a simulation the sealing could not run meanwhile.
        if exec::is_simulated() {
            return;
        }
        let limit = self.env.options.fresh_bytes_max.saturating_mul(2);
        for _ in 0..PAUSES_MAX {
            let is_behind = self.view.load().fresh_bytes() > limit;
            if !is_behind || !self.flush_scheduled.load(Ordering::Acquire) || self.health.lock().read_only.is_some() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// `DiskFull`, without trying, when `bytes` more would leave no room to seal.
    pub(super) fn check_room(&self, bytes: u64) -> std::result::Result<(), StepError> {
        let needed = bytes.saturating_add(2 * self.env.options.seal_bytes).saturating_add(DISK_MARGIN_BYTES);
        match self.env.disk.free_bytes(&self.dir) {
            Ok(free) if free < needed => {
                let text = format!("{free} bytes are free, {needed} are needed");
                Err(StepError::DiskFull(io::Error::new(io::ErrorKind::StorageFull, text)))
            }
            // Not known: writing will tell.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Seals on the pool, unless that is scheduled already.
    pub(super) fn schedule_flush(&self) {
        self.schedule(Lane::Seal, Duration::ZERO);
    }

    /// Whether the fresh part holds enough for an index, which it gets only as a segment.
    pub(super) fn is_worth_sealing(&self, view: &View) -> bool {
        let policy = self.policy(&view.wanted);
        policy.index_from_bytes.iter().flatten().min().is_some_and(|from| view.fresh_bytes() >= *from)
    }

    /// Seals on the pool once nothing has been applied for a while, unless that is scheduled already. A load in
    /// progress fills the fresh part and seals by that.
    pub(super) fn schedule_idle_flush(&self, applied: LogIndex) {
        if self.env.options.background == Background::Pool && !self.idle_scheduled.swap(true, Ordering::AcqRel) {
            self.check_idle_later(applied, 1);
        }
    }

    fn check_idle_later(&self, applied: LogIndex, check: u32) {
        let this = self.this.clone();
        let job = move || {
            let Some(shard) = this.upgrade().filter(|shard| !shard.closed.load(Ordering::Acquire)) else { return };
            let view = shard.view.load_full();
            if shard.is_worth_sealing(&view) && view.applied != applied && check < IDLE_CHECKS_MAX {
                return shard.check_idle_later(view.applied, check + 1);
            }
            shard.idle_scheduled.store(false, Ordering::Release);
            if shard.is_worth_sealing(&view) {
                shard.request_flush();
            }
        };
        self.env.builder.run(Lane::Seal, IDLE, Box::new(job));
    }

    /// Merges and builds on the pool until nothing is left, unless that is scheduled already.
    pub(super) fn schedule_optimizer(&self, delay: Duration) {
        self.schedule(Lane::Build, delay);
    }

    /// Drops graphs on the pool that are not wanted, and opens those again that are elsewhere than they shall be, unless that
    /// is scheduled already.
    pub(super) fn schedule_opening(&self) {
        self.schedule(Lane::Open, Duration::ZERO);
    }

    fn schedule(&self, lane: Lane, delay: Duration) {
        if self.env.options.background == Background::Manual || self.closed.load(Ordering::Acquire) {
            return;
        }
        if self.scheduled(lane).swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.this.clone();
        let job = move || {
            if let Some(shard) = this.upgrade() {
                shard.run_guarded(lane);
            }
        };
        self.env.builder.run(lane, delay, Box::new(job));
    }

    fn scheduled(&self, lane: Lane) -> &AtomicBool {
        match lane {
            Lane::Seal => &self.flush_scheduled,
            Lane::Build => &self.optimizer_scheduled,
            Lane::Open => &self.opening_scheduled,
        }
    }

    /// A panic makes the shard refuse writes: the work it was doing is not done, and nobody else would do it.
    fn run_guarded(self: Arc<Self>, lane: Lane) {
        let step = || match lane {
            Lane::Seal => self.run_flush(),
            Lane::Build => self.run_optimizer(),
            Lane::Open => self.run_opening(),
        };
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(again) => {
                self.scheduled(lane).store(false, Ordering::Release);
                match again {
                    Some(delay) => self.schedule(lane, delay),
                    // It may have become due just before the flag was cleared.
                    None if self.is_due(lane) => self.schedule(lane, Duration::ZERO),
                    None => {}
                }
            }
            Err(panic) => self.fail(format!("background work panicked: {}", panic_text(&*panic))),
        }
    }

    /// Whether there is something to do. Nothing is in a shard that has failed.
    fn is_due(&self, lane: Lane) -> bool {
        let is_due = match lane {
            Lane::Seal => {
                let is_full = self.view.load().fresh_bytes() >= self.env.options.seal_bytes;
                is_full || self.flush_requested.load(Ordering::Acquire)
            }
            Lane::Build => !matches!(self.next_action(&self.commit.lock()), Action::Nothing),
            Lane::Open => self.is_misplaced(&self.commit.lock()),
        };
        is_due && self.check_failed().is_ok()
    }

    /// Seals once. Returns when to do so again.
    fn run_flush(&self) -> Option<Duration> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let is_read_only = self.health.lock().read_only.is_some();
        let needed = self.view.load().fresh_bytes() + DISK_MARGIN_BYTES;
        if is_read_only && self.env.disk.free_bytes(&self.dir).is_ok_and(|free| free < needed) {
            return Some(DISK_FULL_PAUSE);
        }
        match self.flush() {
            Ok(sealed) => {
                if sealed {
                    self.schedule_optimizer(Duration::ZERO);
                }
                None
            }
            Err(StepError::DiskFull(error)) => {
                tracing::warn!(shard = %self.spec.shard, %error, "no room to seal, writes are refused until there is");
                Some(DISK_FULL_PAUSE)
            }
            // The shard has failed, and says so where it is asked.
            Err(StepError::Fatal(_) | StepError::Closed) => None,
        }
    }

    /// Merges or builds once. Returns when to do so again.
    fn run_optimizer(&self) -> Option<Duration> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let _single = self.optimizer.lock();
        match self.optimize_once() {
            Ok(true) => Some(Duration::ZERO),
            Ok(false) | Err(StepError::Closed | StepError::Fatal(_)) => None,
            Err(StepError::DiskFull(error)) => {
                tracing::warn!(shard = %self.spec.shard, %error, "no room to merge or index segments, trying again");
                Some(NO_ROOM_PAUSE)
            }
        }
    }

    /// Drops graphs, or opens one again. Returns when to do so again.
    fn run_opening(&self) -> Option<Duration> {
        let _single = self.opening.lock();
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        match self.drop_graphs_once().and_then(|dropped| Ok(dropped || self.reopen_once()?)) {
            Ok(true) => Some(Duration::ZERO),
            Ok(false) | Err(StepError::Closed | StepError::Fatal(_)) => None,
            Err(StepError::DiskFull(error)) => {
                tracing::warn!(shard = %self.spec.shard, %error, "no room to open or drop an index, trying again");
                Some(NO_ROOM_PAUSE)
            }
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
