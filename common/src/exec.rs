//! The one way off the async threads, as a seam: work that blocks or computes ([`blocking`]), work that others must not
//! notice ([`in_background`]) and workers that live long ([`Worker`]). A server runs them on threads of their own. In a simulation nothing may run beside the one simulated
//! thread, because the order would be the operating system's: there the same work runs in place, as part of a task, and
//! takes as much virtual time as the simulation says.
//!
//! A process is one or the other from its first moment: [`simulate`] is called by the simulation's binary, before
//! anything else, and by nobody else.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::error::{Error, Result};

/// How long a piece of work takes, in virtual time.
static SIMULATION: OnceLock<fn() -> Duration> = OnceLock::new();

/// Makes this process a simulation, for good: nothing is run on threads from now on. `takes` is asked how long each
/// piece of work takes in virtual time.
pub fn simulate(takes: fn() -> Duration) {
    // A second call changes nothing.
    let _ = SIMULATION.set(takes);
}

/// Whether this process is a simulation: then nobody may block a thread to wait for another one.
pub fn is_simulated() -> bool {
    SIMULATION.get().is_some()
}

async fn take_time(takes: fn() -> Duration) {
    tokio::time::sleep(takes()).await;
}

/// Runs work that blocks, or computes for long, off the async threads. It is done to its end even if the caller stops
/// waiting. `Internal` when it panics.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if let Some(takes) = SIMULATION.get() {
        let done = work();
        take_time(*takes).await;
        return Ok(done);
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::Internal(format!("work off the async threads ended early: {e}")))
}

/// How much nicer than its process background work is: beside a busy thread it gets a tenth of a processor, not nothing,
/// because a load that only an index would make light must not keep that index from being built.
const BACKGROUND_NICE: i32 = 10;
/// The nicest there is.
const NICE_MAX: i32 = 19;

/// Runs work that computes for long while others are waited for by somebody: on a thread of low priority, and so are all
/// threads that it starts. Alone on the machine it is as fast as any. Blocks until the work is done; a panic in it goes on
/// in the caller. Fails when the system has no thread for it.
///
/// The work should hold no lock that others wait for: they would wait for the priority as well.
pub fn in_background<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if is_simulated() {
        return Ok(work());
    }
    let run = || {
        be_nice();
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.into()).spawn_scoped(scope, run)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Lowers the priority of the calling thread for good.
#[cfg(target_os = "linux")]
fn be_nice() {
    use rustix::process::{getpriority_process, setpriority_process};
    // Here a thread is a process of its own to the scheduler. Without it the work is done all the same.
    if let Ok(nice) = getpriority_process(None) {
        let _ = setpriority_process(None, (nice + BACKGROUND_NICE).min(NICE_MAX));
    }
}

/// Elsewhere it would be the priority of the whole process.
#[cfg(not(target_os = "linux"))]
fn be_nice() {}

/// Wakes workers that wait. No wake-up is lost: one that comes while a worker is busy makes it look again.
#[derive(Default)]
pub struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
    tasks: Notify,
}

impl Signal {
    /// Wakes every worker that waits on this signal.
    pub fn notify(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
        if is_simulated() {
            self.tasks.notify_waiters();
        }
    }

    fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Blocks until there was a notification after the one counted `seen`, or for as long as given. May return early.
    fn wait(&self, seen: u64, longest: Option<Duration>) {
        let mut count = self.count.lock();
        if *count == seen {
            match longest {
                Some(longest) => drop(self.changed.wait_for(&mut count, longest)),
                None => self.changed.wait(&mut count),
            }
        }
    }

    async fn notified(&self, seen: u64) {
        let mut notified = std::pin::pin!(self.tasks.notified());
        notified.as_mut().enable();
        if self.count() == seen {
            notified.await;
        }
    }
}

/// What a worker wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next step at once.
    Step,
    /// To wait for its signal. A step may also come without one.
    Wait,
    /// To wait for its signal, but no longer than this.
    WaitFor(Duration),
    /// To end.
    End,
}

type Step = Box<dyn FnMut() -> Next + Send>;

/// A worker that lives long: it does one step after another, which may block, and waits for its signal in between.
/// Dropping the handle does not end it.
pub struct Worker(Body);

enum Body {
    Thread(Mutex<Option<JoinHandle<()>>>),
    /// None once it has ended.
    Task(Arc<Mutex<Option<Step>>>),
}

impl Worker {
    /// Starts a worker. The step, with all that it holds, is dropped when it ends or panics. Fails when the system has no
    /// thread for it.
    pub fn start(
        name: &str,
        signal: Arc<Signal>,
        mut step: impl FnMut() -> Next + Send + 'static,
    ) -> io::Result<Worker> {
        if let Some(takes) = SIMULATION.get() {
            let step: Arc<Mutex<Option<Step>>> = Arc::new(Mutex::new(Some(Box::new(step))));
            tokio::spawn(run_task(signal, step.clone(), *takes));
            return Ok(Worker(Body::Task(step)));
        }
        let run = move || {
            loop {
                let seen = signal.count();
                match step() {
                    Next::Step => {}
                    Next::Wait => signal.wait(seen, None),
                    Next::WaitFor(longest) => signal.wait(seen, Some(longest)),
                    Next::End => return,
                }
            }
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Worker(Body::Thread(Mutex::new(Some(thread)))))
    }

    /// Waits until the worker has ended, which the caller has made its steps want, and has signalled. Returns at once when
    /// called by one of its own steps. Blocks. `Internal` when it had panicked.
    pub fn join(&self) -> Result<()> {
        match &self.0 {
            Body::Thread(thread) => {
                let thread = thread.lock().take().filter(|thread| thread.thread().id() != thread::current().id());
                let ended = thread.map_or(Ok(()), JoinHandle::join);
                ended.map_err(|_| Error::Internal("a worker thread panicked".into()))
            }
            // Nobody else would run it while the caller waits. A lock that is held is held by a step: by this caller.
            Body::Task(step) => {
                let Some(mut step) = step.try_lock() else { return Ok(()) };
                while step.as_mut().is_some_and(|step| step() == Next::Step) {}
                *step = None;
                Ok(())
            }
        }
    }
}

async fn run_task(signal: Arc<Signal>, step: Arc<Mutex<Option<Step>>>, takes: fn() -> Duration) {
    loop {
        let seen = signal.count();
        let next = step.lock().as_mut().map_or(Next::End, |step| step());
        match next {
            Next::Step => {}
            Next::Wait => signal.notified(seen).await,
            // Elapsing is what was asked for.
            Next::WaitFor(longest) => drop(tokio::time::timeout(longest, signal.notified(seen)).await),
            Next::End => break,
        }
        take_time(takes).await;
    }
    let ended = step.lock().take();
    drop(ended);
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_worker_sees_every_wake_up_and_ends_when_asked() {
        let signal = Arc::new(Signal::default());
        let queue = Arc::new(Mutex::new((VecDeque::new(), false)));
        let (results, done) = mpsc::channel();
        let worker = Worker::start("test", signal.clone(), {
            let queue = queue.clone();
            move || {
                let mut queue = queue.lock();
                match queue.0.pop_front() {
                    Some(number) => {
                        results.send(number).unwrap();
                        Next::Step
                    }
                    None if queue.1 => Next::End,
                    None => Next::Wait,
                }
            }
        });
        let worker = worker.unwrap();
        for number in 0..1_000 {
            queue.lock().0.push_back(number);
            signal.notify();
            if number % 100 == 0 {
                assert_eq!(done.recv_timeout(Duration::from_secs(10)), Ok(number));
            } else {
                assert_eq!(done.recv().unwrap(), number);
            }
        }
        queue.lock().1 = true;
        signal.notify();
        worker.join().unwrap();
        assert!(done.recv().is_err(), "the step was dropped");
    }

    #[test]
    fn a_timer_wakes_too_and_a_panic_is_reported() {
        let (results, done) = mpsc::channel();
        let mut steps = 0;
        let worker = Worker::start("test", Arc::default(), move || {
            steps += 1;
            results.send(steps).unwrap();
            assert!(steps < 3, "on purpose");
            Next::WaitFor(Duration::from_millis(1))
        });
        assert!(worker.unwrap().join().is_err());
        assert_eq!(done.iter().count(), 3);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn background_work_and_the_threads_it_starts_are_nicer_than_their_caller() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let (own, of_started) = in_background("test", || (nice(), thread::spawn(nice).join().unwrap())).unwrap();
        let expected = (before + BACKGROUND_NICE).min(NICE_MAX);
        assert_eq!((own, of_started, nice()), (expected, expected, before));
    }

    #[test]
    fn a_panic_in_the_background_goes_on_in_the_caller() {
        let panicked = std::panic::catch_unwind(|| in_background("test", || panic!("on purpose")));
        let panic = panicked.map(|result: io::Result<()>| result.is_ok()).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    }

    #[tokio::test]
    async fn blocking_work_reports_a_panic() {
        assert_eq!(blocking(|| 7).await, Ok(7));
        assert!(matches!(blocking(|| panic!("on purpose")).await, Err::<(), _>(Error::Internal(_))));
    }
}
