//! The one thread that writes to a [`MetaStore`]. Jobs that wait while it writes are written together: one sync for
//! many.

use std::io;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

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
}

/// Hands changes to the thread, in order. Shared by the log and the state machine.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(store: Box<dyn MetaStore>) -> io::Result<Writer> {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let thread = std::thread::Builder::new().name("metadata".into()).spawn(move || write(store, queue))?;
        Ok(Writer { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) })
    }

    /// Hands in changes; `done` is called from the thread once they are durable.
    pub(super) async fn submit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let jobs = self.jobs.lock().clone().ok_or_else(stopped)?;
        let job = Job { changes, done: Box::new(done) };
        jobs.send(job).await.map_err(|_| stopped())
    }

    /// Hands in changes and waits until they are durable.
    pub(super) async fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        // Whoever waited may be gone; the changes are written in any case.
        self.submit(changes, move |result| drop(sender.send(result))).await?;
        receiver.await.map_err(|_| stopped())?
    }

    /// Writes what was handed in, closes the store and ends the thread. Blocks.
    pub(super) fn close(&self) {
        *self.jobs.lock() = None;
        let thread = self.thread.lock().take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!("the thread that writes metadata panicked");
        }
    }
}

fn write(mut store: Box<dyn MetaStore>, mut queue: mpsc::Receiver<Job>) {
    let mut failed: Option<String> = None;
    while let Some(first) = queue.blocking_recv() {
        let mut changes = first.changes;
        let mut waiting = vec![first.done];
        while waiting.len() < BATCH_MAX
            && let Ok(job) = queue.try_recv()
        {
            changes.extend(job.changes);
            waiting.push(job.done);
        }
        // After one failure nothing is known of what is on the disk, so that nothing more is confirmed.
        if failed.is_none()
            && let Err(error) = store.commit(&changes)
        {
            tracing::error!(%error, "metadata cannot be written; this coordinator stops taking part");
            failed = Some(error.to_string());
        }
        for done in waiting {
            done(match &failed {
                None => Ok(()),
                Some(error) => Err(io::Error::other(format!("metadata cannot be written: {error}"))),
            });
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the metadata store is closed")
}
