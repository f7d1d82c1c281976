//! The threads that searches run on: as many as cores, one bounded queue for all nodes of a process. What is known to end
//! before another thread would have begun it runs where it arrives.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::telemetry::instruments;

/// Runs CPU-bound reads. Async threads do so only for the shortest ones.
pub struct SearchPool {
    /// None in a simulation, where reads run in place.
    queue: Option<Arc<Queue>>,
    threads: usize,
    queued: AtomicUsize,
    queue_max: usize,
    arrivals: Arrivals,
}

/// Where each thread gets a read less often than so, reads may run in place. Beyond, threads hardly sleep, so that handing over costs
/// little; and reads one after the other on the same thread find their code and data in its caches.
const CALM: Duration = Duration::from_micros(500);

impl SearchPool {
    /// Starts `threads` threads (at least 1). At most `queue_max` jobs wait or run at a time; more are refused. A
    /// longer queue only helps clients that are willing to wait longer.
    pub fn start(threads: usize, queue_max: usize) -> Result<Arc<SearchPool>> {
        let threads = if exec::is_simulated() { 1 } else { threads.max(1) };
        let queue = (!exec::is_simulated()).then(|| Queue::start(threads)).transpose()?;
        instruments().search.threads.add(threads as i64);
        Ok(Arc::new(SearchPool { queue, threads, queued: AtomicUsize::new(0), queue_max, arrivals: Arrivals::new() }))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Notes that a request for reads arrives. Returns whether they come so seldom that one may run in place.
    pub(super) fn is_calm(&self) -> bool {
        let apart = self.arrivals.note(Instant::now());
        apart.saturating_mul(self.threads as u32) >= CALM
    }

    /// How many threads a job that runs now may spread a scan over: as many as the pool has when it is alone.
    pub(super) fn share(&self) -> usize {
        (self.threads() / self.queued.load(Ordering::Relaxed).max(1)).max(1)
    }

    /// [`SearchPool::timed`] without the times.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Ok(self.timed(deadline, job).await?.0)
    }

    /// Runs `job` and waits for it. `Overloaded` when the queue is full; `Timeout` when it was not done by `deadline`:
    /// a job whose deadline passes in the queue, or whose caller has gone, is not begun.
    pub async fn timed<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<(T, JobTimes)> {
        let place = Place::take(self)?;
        let Some(queue) = &self.queue else {
            let _place = place.begin();
            return Ok((exec::blocking(job).await??, JobTimes::default()));
        };
        let queued = Instant::now();
        let (answer, answered) = oneshot::channel();
        queue.push(Box::new(move || {
            let begun = Instant::now();
            if answer.is_closed() || begun >= deadline {
                instruments().search.expired.inc();
                return;
            }
            let result = contained(place, begun - queued, job);
            // The caller may have given up.
            let _ = answer.send(result);
        }));
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::Timeout("the read was not done by its deadline".into())),
        }
    }

    /// Runs a job in place that takes no longer than waking a thread up, twice: for it to begin, and for its answer to be
    /// heard. The caller must know that of it. Errors are those of [`SearchPool::timed`].
    pub(super) async fn in_place<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<(T, JobTimes)> {
        if self.queue.is_none() {
            return self.timed(deadline, job).await;
        }
        let place = Place::take(self)?;
        if Instant::now() >= deadline {
            instruments().search.expired.inc();
            return Err(Error::Timeout("the read was not done by its deadline".into()));
        }
        contained(place, Duration::ZERO, job)
    }
}

impl Drop for SearchPool {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
        instruments().search.threads.add(-(self.threads as i64));
    }
}

/// Runs a job that waited for `queued`, and gives its place back.
fn contained<T>(place: Place, queued: Duration, job: impl FnOnce() -> Result<T>) -> Result<(T, JobTimes)> {
    let begun = Instant::now();
    let place = place.begin();
    // A panic in one read must not take the process down; it is a bug that the caller hears of.
    let result = catch_unwind(AssertUnwindSafe(job));
    let result = result.unwrap_or_else(|_| Err(Error::Internal("a read panicked; see the log".into())));
    let times = JobTimes { queued, ran: begun.elapsed() };
    instruments().search.ran(times.queued, times.ran);
    // Before the answer: whoever gets it finds the place free.
    drop(place);
    result.map(|result| (result, times))
}

/// How far apart requests came lately.
struct Arrivals {
    began: Instant,
    /// Nanoseconds from `began` to the last one.
    last: AtomicU64,
    /// Their mean distance in nanoseconds, the last ones weighing most.
    apart: AtomicU64,
}

impl Arrivals {
    /// What a distance counts at most: a pause of any length is forgotten after some dozen requests.
    const APART_MAX: u64 = 10_000_000;
    /// By how much of the difference one distance changes the mean.
    const PART: u64 = 16;

    fn new() -> Arrivals {
        Arrivals { began: Instant::now(), last: AtomicU64::new(0), apart: AtomicU64::new(Arrivals::APART_MAX) }
    }

    /// Takes one in. Returns the mean distance.
    fn note(&self, now: Instant) -> Duration {
        let now = now.saturating_duration_since(self.began).as_nanos() as u64;
        // Relaxed: of two that come at once one may be lost, which does no harm.
        let last = self.last.swap(now, Ordering::Relaxed);
        let apart = now.saturating_sub(last).min(Arrivals::APART_MAX);
        let mean = self.apart.load(Ordering::Relaxed);
        let mean = mean - mean / Arrivals::PART + apart / Arrivals::PART;
        self.apart.store(mean, Ordering::Relaxed);
        Duration::from_nanos(mean)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Jobs in the order they came, and the threads that wait for them. A thread without work sleeps at once: one that looks
/// for work a while longer takes the processor from the very client that would send it.
#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    is_closed: bool,
}

impl Queue {
    /// Fails when the system has no threads.
    fn start(threads: usize) -> Result<Arc<Queue>> {
        let queue = Arc::new(Queue::default());
        for number in 0..threads {
            let of_thread = queue.clone();
            let started = thread::Builder::new().name(format!("search-{number}")).spawn(move || of_thread.work());
            if let Err(error) = started {
                // Those that run already leave.
                queue.close();
                return Err(Error::Internal(format!("the search threads cannot start: {error}")));
            }
        }
        Ok(queue)
    }

    fn push(&self, job: Job) {
        self.jobs.lock().waiting.push_back(job);
        self.changed.notify_one();
    }

    /// What waits is done, then the threads leave. Nobody waits for them: the last owner may be one of them.
    fn close(&self) {
        self.jobs.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The life of a thread.
    fn work(&self) {
        while let Some(job) = self.next() {
            // Jobs contain their panics themselves; one in what surrounds them must not cost a thread.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                return Some(job);
            }
            if jobs.is_closed {
                return None;
            }
            self.changed.wait(&mut jobs);
        }
    }
}

/// What a job took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobTimes {
    /// From the call to a thread.
    pub queued: Duration,
    /// On the thread.
    pub ran: Duration,
}

/// A place in the queue, then on a thread; given back when dropped.
struct Place {
    pool: Arc<SearchPool>,
    is_begun: bool,
}

impl Place {
    fn take(pool: &Arc<SearchPool>) -> Result<Place> {
        let place = Place { pool: pool.clone(), is_begun: false };
        let before = pool.queued.fetch_add(1, Ordering::Relaxed);
        instruments().search.queued.inc();
        if before >= pool.queue_max {
            instruments().search.refused.inc();
            // Dropping `place` gives the count back.
            return Err(Error::Overloaded(format!("{before} reads are waiting on this node; try again")));
        }
        Ok(place)
    }

    fn begin(mut self) -> Place {
        self.is_begun = true;
        instruments().search.queued.dec();
        instruments().search.busy.inc();
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.queued.fetch_sub(1, Ordering::Relaxed);
        let search = &instruments().search;
        let gauge = if self.is_begun { &search.busy } else { &search.queued };
        gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_are_bounded_and_panics_contained() {
        let pool = SearchPool::start(1, 2).unwrap();
        let soon = Instant::now() + Duration::from_secs(10);
        assert_eq!(pool.run(soon, || Ok(7)).await, Ok(7));
        let panicked = pool.run::<()>(soon, || panic!("bug")).await;
        assert!(matches!(panicked, Err(Error::Internal(_))));
        let late = pool.run(Instant::now(), || Ok(())).await;
        assert!(matches!(late, Err(Error::Timeout(_))));

        let here = std::thread::current().id();
        assert!(pool.in_place(soon, move || Ok(std::thread::current().id() == here)).await.unwrap().0);
        assert!(matches!(pool.in_place::<()>(soon, || panic!("bug")).await, Err(Error::Internal(_))));
        assert!(matches!(pool.in_place(Instant::now(), || Ok(())).await, Err(Error::Timeout(_))));
        assert_eq!(pool.queued.load(Ordering::Relaxed), 0, "all places were given back");

        let alone = SearchPool::start(3, 2).unwrap();
        let asked = alone.clone();
        assert_eq!(alone.run(soon, move || Ok(asked.share())).await, Ok(3), "a job alone has all threads");

        let (release, hold) = std::sync::mpsc::channel::<()>();
        let waiting = pool.run(soon, move || {
            let _ = hold.recv();
            Ok(1)
        });
        let asked = pool.clone();
        let second = pool.run(soon, move || Ok(1 + asked.share()));
        let third = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let refused = pool.run(soon, || Ok(3)).await;
            release.send(()).unwrap();
            refused
        };
        let (first, second, third) = tokio::join!(waiting, second, third);
        assert_eq!((first, second), (Ok(1), Ok(2)));
        assert!(matches!(third, Err(Error::Overloaded(_))));
    }

    #[test]
    fn arrivals_tell_rush_from_calm() {
        let arrivals = Arrivals::new();
        let mut now = arrivals.began;
        let mut after = |count: u64, apart: Duration| {
            let one = |_| {
                now += apart;
                arrivals.note(now)
            };
            (0..count).map(one).last().unwrap()
        };
        assert!(after(1, Duration::from_secs(1_000)) >= Duration::from_millis(9), "a long pause counts as a short one");
        let rushed = after(200, Duration::from_micros(20));
        assert!((Duration::from_micros(19)..Duration::from_micros(30)).contains(&rushed), "{rushed:?}");
        assert!(after(1, Duration::from_secs(5)) > Duration::from_micros(500), "calm again at once");
        assert!(after(200, Duration::from_micros(350)) > Duration::from_micros(340));
        assert!(after(200, Duration::ZERO) < Duration::from_micros(1));
    }

    #[test]
    fn threads_finish_what_waits_and_leave() {
        let queue = Queue::start(2).unwrap();
        let (done, results) = std::sync::mpsc::channel();
        for number in 0..100 {
            let done = done.clone();
            queue.push(Box::new(move || done.send(number).unwrap()));
        }
        queue.push(Box::new(|| panic!("bug")));
        queue.close();
        drop(done);
        let mut results: Vec<i32> = results.iter().collect();
        results.sort_unstable();
        assert_eq!(results, (0..100).collect::<Vec<_>>());
        // Bounded: a thread that stays fails the test instead of holding it up.
        for _ in 0..1_000 {
            if Arc::strong_count(&queue) == 1 {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("threads are still there");
    }
}
