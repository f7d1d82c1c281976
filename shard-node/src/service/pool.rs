//! The threads that searches run on: as many as cores, one bounded queue for all nodes of a process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::telemetry::instruments;

/// Runs CPU-bound reads. Async threads never do.
pub struct SearchPool {
    /// None in a simulation, where reads run in place.
    threads: Option<rayon::ThreadPool>,
    queued: AtomicUsize,
    queue_max: usize,
}

impl SearchPool {
    /// Starts `threads` threads (at least 1). At most `queue_max` jobs wait or run at a time; more are refused. A
    /// longer queue only helps clients that are willing to wait longer.
    pub fn start(threads: usize, queue_max: usize) -> Result<Arc<SearchPool>> {
        let start = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.max(1))
                .thread_name(|i| format!("search-{i}"))
                .build()
                .map_err(|e| Error::Internal(format!("the search threads cannot start: {e}")))
        };
        let threads = (!exec::is_simulated()).then(start).transpose()?;
        let count = threads.as_ref().map_or(1, rayon::ThreadPool::current_num_threads);
        instruments().search.threads.add(count as i64);
        Ok(Arc::new(SearchPool { threads, queued: AtomicUsize::new(0), queue_max }))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// How many of the threads a job that runs now may use: all when it is alone.
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
        let Some(threads) = &self.threads else {
            let _place = place.begin();
            return Ok((exec::blocking(job).await??, JobTimes::default()));
        };
        let queued = Instant::now();
        let (answer, answered) = oneshot::channel();
        threads.spawn_fifo(move || {
            let place = place;
            let begun = Instant::now();
            if answer.is_closed() || begun >= deadline {
                instruments().search.expired.inc();
                return;
            }
            let place = place.begin();
            // A panic in one read must not take the process down; it is a bug that the caller hears of.
            let result = catch_unwind(AssertUnwindSafe(job));
            let result = result.unwrap_or_else(|_| Err(Error::Internal("a read panicked; see the log".into())));
            let times = JobTimes { queued: begun - queued, ran: begun.elapsed() };
            instruments().search.ran(times.queued, times.ran);
            // Before the answer: whoever gets it finds the place free.
            drop(place);
            // The caller may have given up.
            let _ = answer.send(result.map(|result| (result, times)));
        });
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::Timeout("the read was not done by its deadline".into())),
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
}
