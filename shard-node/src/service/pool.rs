//! The threads that searches run on: as many as cores, one bounded queue for all nodes of a process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;

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
        Ok(Arc::new(SearchPool { threads, queued: AtomicUsize::new(0), queue_max }))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `job` and waits for it. `Overloaded` when the queue is full; `Timeout` when it was not done by `deadline`:
    /// a job whose deadline passes in the queue, or whose caller has gone, is not begun.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = Place::take(self)?;
        let Some(threads) = &self.threads else {
            let _place = place;
            return exec::blocking(job).await?;
        };
        let (answer, answered) = oneshot::channel();
        threads.spawn_fifo(move || {
            let _place = place;
            if answer.is_closed() || Instant::now() >= deadline {
                return;
            }
            // A panic in one read must not take the process down; it is a bug that the caller hears of.
            let result = catch_unwind(AssertUnwindSafe(job));
            let result = result.unwrap_or_else(|_| Err(Error::Internal("a read panicked; see the log".into())));
            // The caller may have given up.
            let _ = answer.send(result);
        });
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::Timeout("the read was not done by its deadline".into())),
        }
    }
}

/// A place in the queue, given back when dropped.
struct Place(Arc<SearchPool>);

impl Place {
    fn take(pool: &Arc<SearchPool>) -> Result<Place> {
        let place = Place(pool.clone());
        let before = pool.queued.fetch_add(1, Ordering::Relaxed);
        if before >= pool.queue_max {
            // Dropping `place` gives the count back.
            return Err(Error::Overloaded(format!("{before} reads are waiting on this node; try again")));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

        let (release, hold) = std::sync::mpsc::channel::<()>();
        let waiting = pool.run(soon, move || {
            let _ = hold.recv();
            Ok(1)
        });
        let second = pool.run(soon, || Ok(2));
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
