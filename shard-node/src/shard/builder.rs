//! The background pool of a process: a bounded number of threads and a memory budget for all shards together.
//!
//! Sealing, building and opening have threads of their own, so that making room for writes never waits for an index, and
//! moving a graph to memory or back never waits for a build.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec::{Next, Signal, Worker};

/// Settings of the pool.
#[derive(Clone, Debug)]
pub struct BuilderOptions {
    /// Threads that seal, at least 1.
    pub seal_threads: usize,
    /// Threads that merge and build, at least 1.
    pub build_threads: usize,
    /// Threads that one index build uses, at least 1.
    pub threads_per_build: usize,
    /// Memory that all builds together may take beyond the mapped files, in bytes. One that needs more runs alone.
    pub memory_bytes: u64,
}

impl Default for BuilderOptions {
    /// Half the cores build, so that searches keep the other half.
    fn default() -> BuilderOptions {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        BuilderOptions {
            seal_threads: 2,
            build_threads: (cores / 2).clamp(1, 4),
            threads_per_build: (cores / 8).max(1),
            memory_bytes: 1 << 30,
        }
    }
}

/// Which threads a job runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Seal,
    Build,
    Open,
}

type Job = Box<dyn FnOnce() + Send>;

/// Jobs of one lane. A shard has at most one job in each lane, so the queue is bounded by the number of shards.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Instant, Job)>,
    closed: bool,
}

#[derive(Default)]
struct LaneState {
    queue: Mutex<Queue>,
    changed: Arc<Signal>,
}

/// The pool. Dropping it lets running jobs end and forgets the waiting ones.
pub struct Builder {
    seal: Arc<LaneState>,
    build: Arc<LaneState>,
    open: Arc<LaneState>,
    options: BuilderOptions,
    reserved: Mutex<u64>,
    released: Condvar,
}

impl Builder {
    /// Starts the threads. `Internal` when the system refuses them.
    pub fn start(options: BuilderOptions) -> Result<Arc<Builder>> {
        let builder = Builder {
            seal: Arc::default(),
            build: Arc::default(),
            open: Arc::default(),
            reserved: Mutex::new(0),
            released: Condvar::new(),
            options,
        };
        let lanes = [
            ("seal", &builder.seal, builder.options.seal_threads),
            ("build", &builder.build, builder.options.build_threads),
            ("open", &builder.open, 1),
        ];
        for (name, lane, threads) in lanes {
            for i in 0..threads.max(1) {
                let lane = Arc::clone(lane);
                Worker::start(&format!("{name}-{i}"), lane.changed.clone(), move || run_due(&lane))
                    .map_err(|e| Error::Internal(format!("cannot start a background thread: {e}")))?;
            }
        }
        Ok(Arc::new(builder))
    }

    /// The settings.
    pub fn options(&self) -> &BuilderOptions {
        &self.options
    }

    /// Runs `job` on a thread of `lane`, not before `delay` has passed. The job must not panic.
    pub(super) fn run(&self, lane: Lane, delay: Duration, job: Job) {
        let lane = match lane {
            Lane::Seal => &self.seal,
            Lane::Build => &self.build,
            Lane::Open => &self.open,
        };
        lane.queue.lock().jobs.push_back((Instant::now() + delay, job));
        lane.changed.notify();
    }

    /// Waits until `bytes` of the memory budget are free, and takes them until the reservation is dropped. More than
    /// the whole budget is granted once nobody else holds any.
    pub(super) fn reserve(&self, bytes: u64) -> Reservation<'_> {
        let bytes = bytes.min(self.options.memory_bytes);
        let mut reserved = self.reserved.lock();
        while *reserved > 0 && *reserved + bytes > self.options.memory_bytes {
            self.released.wait(&mut reserved);
        }
        *reserved += bytes;
        Reservation { builder: self, bytes }
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        for lane in [&self.seal, &self.build, &self.open] {
            let forgotten = {
                let mut queue = lane.queue.lock();
                queue.closed = true;
                std::mem::take(&mut queue.jobs)
            };
            lane.changed.notify();
            drop(forgotten);
        }
    }
}

/// A share of the memory budget.
pub(super) struct Reservation<'a> {
    builder: &'a Builder,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *self.builder.reserved.lock() -= self.bytes;
        self.builder.released.notify_all();
    }
}

/// Runs a job of a lane that is due, or tells how long to wait.
fn run_due(lane: &LaneState) -> Next {
    let mut queue = lane.queue.lock();
    if queue.closed {
        return Next::End;
    }
    let now = Instant::now();
    if let Some(due) = queue.jobs.iter().position(|(at, _)| *at <= now) {
        let job = queue.jobs.remove(due);
        drop(queue);
        if let Some((_, job)) = job {
            job();
        }
        return Next::Step;
    }
    let next = queue.jobs.iter().map(|(at, _)| *at).min();
    next.map_or(Next::Wait, |at| Next::WaitFor(at - now))
}
