//! The one worker that writes to a [`MetaStore`]. Jobs that wait while it writes are written together: one sync for
//! many.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use vicinal_common::exec::{Next, Signal, Worker};

use super::store::{Change, MetaStore};

/// Jobs that may wait.
const JOBS_MAX: usize = 1_024;
/// Jobs written together.
const BATCH_MAX: usize = 256;

/// Called once the changes are durable, or will not be.
type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Job {
    changes: Vec<Change>,
    done: Done,
    _place: OwnedSemaphorePermit,
}

/// What waits to be written.
struct Queue {
    /// In the order of submission.
    jobs: Mutex<VecDeque<Job>>,
    /// Room for jobs. Closed once nothing more is taken.
    places: Arc<Semaphore>,
    signal: Arc<Signal>,
}

/// Hands changes to the worker, in order. Shared by the log and the state machine.
pub(super) struct Writer {
    queue: Arc<Queue>,
    worker: Worker,
}

impl Writer {
    /// Starts the worker.
    pub(super) fn start(store: Box<dyn MetaStore>) -> io::Result<Writer> {
        let places = Arc::new(Semaphore::new(JOBS_MAX));
        let queue = Arc::new(Queue { jobs: Mutex::default(), places, signal: Arc::default() });
        let mut writing = Writing { queue: queue.clone(), store, failed: None };
        let worker = Worker::start("metadata", queue.signal.clone(), move || writing.step())?;
        Ok(Writer { queue, worker })
    }

    /// Hands in changes; `done` is called from the worker once they are durable.
    pub(super) async fn submit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let place = self.queue.places.clone().acquire_owned().await.map_err(|_| stopped())?;
        {
            let mut jobs = self.queue.jobs.lock();
            // Again under the lock: whoever closes takes it afterwards, and finds this job.
            if self.queue.places.is_closed() {
                return Err(stopped());
            }
            jobs.push_back(Job { changes, done: Box::new(done), _place: place });
        }
        self.queue.signal.notify();
        Ok(())
    }

    /// Hands in changes and waits until they are durable.
    pub(super) async fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        // Whoever waited may be gone; the changes are written in any case.
        self.submit(changes, move |result| drop(sender.send(result))).await?;
        receiver.await.map_err(|_| stopped())?
    }

    /// Writes what was handed in, closes the store and ends the worker. Blocks.
    pub(super) fn close(&self) {
        self.queue.close();
        if self.worker.join().is_err() {
            tracing::error!("the thread that writes metadata panicked");
        }
    }
}

impl Drop for Writer {
    /// Lets the worker end by itself.
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Queue {
    fn close(&self) {
        self.places.close();
        self.signal.notify();
    }
}

/// The worker's own.
struct Writing {
    queue: Arc<Queue>,
    store: Box<dyn MetaStore>,
    failed: Option<String>,
}

impl Writing {
    /// Writes a batch.
    fn step(&mut self) -> Next {
        let mut changes = Vec::new();
        let mut waiting = Vec::new();
        {
            let mut jobs = self.queue.jobs.lock();
            if jobs.is_empty() {
                return if self.queue.places.is_closed() { Next::End } else { Next::Wait };
            }
            while waiting.len() < BATCH_MAX
                && let Some(job) = jobs.pop_front()
            {
                changes.extend(job.changes);
                waiting.push(job.done);
            }
        }
        // After one failure nothing is known of what is on the disk, so that nothing more is confirmed.
        if self.failed.is_none()
            && let Err(error) = self.store.commit(&changes)
        {
            tracing::error!(%error, "metadata cannot be written; this coordinator stops taking part");
            self.failed = Some(error.to_string());
        }
        for done in waiting {
            done(match &self.failed {
                None => Ok(()),
                Some(error) => Err(io::Error::other(format!("metadata cannot be written: {error}"))),
            });
        }
        Next::Step
    }
}

impl Drop for Writing {
    /// Nobody may wait for a worker that is gone, should it have panicked.
    fn drop(&mut self) {
        self.queue.places.close();
        let left = std::mem::take(&mut *self.queue.jobs.lock());
        drop(left);
    }
}

fn stopped() -> io::Error {
    io::Error::other("the metadata store is closed")
}
