//! The thread that makes submitted changes durable: it takes what has queued up, writes it as one batch, syncs once and
//! then tells everybody.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use vicinal_common::exec::{self, Next, Signal, Worker};
use vicinal_common::ids::ShardId;
use vicinal_common::telemetry::instruments;

use super::LogOptions;
use super::error::LogError;
use super::state::{Done, Keep, Op, State};
use super::writer::{WriteError, Writer};

/// On a full disk, how long purges and truncations wait before they are tried again when nothing else comes.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// What the handles and the flusher share.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Signalled when there is something to write, or the log closes.
    pub(super) work: Arc<Signal>,
    /// Signalled when the queue has become shorter.
    pub(super) room: Condvar,
    pub(super) options: LogOptions,
    pub(super) flusher: OnceLock<ThreadId>,
}

impl Shared {
    /// Queues a change. Waits while the queue is over its bound, which lasts at most as long as the disk needs for
    /// that much: the flusher either writes the queue or fails it.
    pub(super) fn submit(&self, group: ShardId, op: Op) -> Result<(), (LogError, Op)> {
        let mut state = self.state.lock();
        // A callback runs on the flusher, which must not wait for itself. In a simulation everything does.
        let is_flusher = self.flusher.get() == Some(&thread::current().id());
        let may_wait = op.done.is_some() && !is_flusher && !exec::is_simulated();
        while may_wait && state.queued_bytes >= self.options.queue_bytes_max && state.poisoned.is_none() {
            self.room.wait(&mut state);
        }
        let submitted = state.submit(group, op);
        drop(state);
        self.work.notify();
        submitted
    }

    /// Takes changes to write, or tells what to do instead. `retry` is when a full disk is tried again.
    fn next_batch(&self, retry: &mut Option<Instant>) -> Result<Vec<Op>, Next> {
        let mut state = self.state.lock();
        if state.poisoned.is_some() {
            return Err(Next::End);
        }
        let now = Instant::now();
        if retry.take_if(|at| *at <= now).is_some() {
            state.full = false;
        }
        let patient = state.full && state.only_patient();
        if !state.queue.is_empty() && !patient {
            *retry = None;
            return Ok(state.take_batch(self.options.batch_bytes));
        }
        if state.closing {
            return Err(Next::End);
        }
        if state.queue.is_empty() {
            return Err(Next::Wait);
        }
        let at = *retry.get_or_insert(now + FULL_RETRY);
        Err(Next::WaitFor(at - now))
    }

    /// Makes a batch durable and records it. Gives the batch back with the error.
    fn commit(&self, writer: &mut Writer, batch: Vec<Op>) -> Result<Vec<Done>, (WriteError, Vec<Op>)> {
        if writer.wants_rotation(self.options.file_bytes) {
            let checkpoint = self.state.lock().index.checkpoint();
            if let Err(e) = writer.rotate(&checkpoint) {
                return Err((e, batch));
            }
            self.state.lock().files.insert(writer.sequence, writer.log_file());
        }
        let started = Instant::now();
        let slots = match writer.write(batch.iter().flat_map(|op| &op.records)) {
            Ok(slots) => slots,
            Err(e) => return Err((e, batch)),
        };
        instruments().write.synced(started.elapsed(), batch.iter().map(Op::bytes).sum(), batch.len());
        writer.shrink(self.options.batch_bytes as usize);
        let mut state = self.state.lock();
        let committed = state.commit(batch, &slots);
        if let Some(file) = state.files.get_mut(&writer.sequence) {
            file.bytes = writer.len;
        }
        state.evict(self.options.cache_bytes);
        committed.map_err(|what| (WriteError::Broken(what), Vec::new()))
    }

    /// Deletes the oldest files while nothing needs them.
    fn delete_old(&self, writer: &Writer) -> Result<(), WriteError> {
        loop {
            let Some(oldest) = self.state.lock().deletable() else { return Ok(()) };
            writer.delete(oldest)?;
            self.state.lock().files.remove(&oldest);
        }
    }

    /// Undoes what is not durable and tells everybody who waits.
    fn fail(&self, batch: Vec<Op>, e: WriteError) {
        let mut state = self.state.lock();
        let (dones, e) = match e {
            WriteError::Full(what) => {
                tracing::warn!(what, "the disk of the shard log is full");
                state.full = true;
                (state.roll_back(batch, Keep::Patient), LogError::Full(what))
            }
            WriteError::Broken(what) => {
                tracing::error!(what, "the shard log has stopped: check the disk, then restart this node");
                state.poisoned = Some(what.clone());
                (state.roll_back(batch, Keep::Nothing), LogError::Poisoned(what))
            }
        };
        drop(state);
        self.room.notify_all();
        for done in dones {
            tell(done, Err(e.clone()));
        }
    }
}

/// Calls back. A panic there is a bug of one caller, which must not stop the log of all.
fn tell(done: Done, result: Result<(), LogError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a callback of the shard log panicked");
    }
}

/// Stops the log for good if the flusher panics: nobody may wait for a thread that is gone.
struct StopOnPanic(Arc<Shared>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(Vec::new(), WriteError::Broken("a bug: the thread of the shard log panicked".into()));
        }
    }
}

/// Starts the flusher. One step is one batch.
pub(super) fn start(shared: Arc<Shared>, mut writer: Writer) -> io::Result<Worker> {
    let guard = StopOnPanic(shared.clone());
    let mut retry = None;
    Worker::start("shard-log", shared.work.clone(), move || {
        let shared = &guard.0;
        shared.flusher.get_or_init(|| thread::current().id());
        let batch = match shared.next_batch(&mut retry) {
            Ok(batch) => batch,
            Err(next) => return next,
        };
        match shared.commit(&mut writer, batch) {
            Ok(dones) => {
                shared.room.notify_all();
                for done in dones {
                    tell(done, Ok(()));
                }
                if let Err(e) = shared.delete_old(&writer) {
                    shared.fail(Vec::new(), e);
                }
            }
            Err((e, batch)) => shared.fail(batch, e),
        }
        Next::Step
    })
}
