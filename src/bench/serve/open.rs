//! The open loop: requests are meant to start at the times of a Poisson process, whether the server keeps up or not, and
//! their latencies count from there. A server that stalls is so charged for all requests of that time, and not only for
//! those in flight ("coordinated omission" is the name of the mistake).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use tokio::sync::Semaphore;

use super::schedule::Arrivals;
use super::step::{Running, Window};

/// Most arrivals that wait for their start; further ones are given up at once.
const WAITING_MAX: usize = 1_000_000;

/// What the server is offered.
#[derive(Clone, Copy)]
pub(super) struct Offered {
    /// Requests per second, on average.
    pub(super) rate: f64,
    /// Most requests in flight.
    pub(super) in_flight: usize,
    pub(super) seed: u64,
}

/// Offers requests until the step ends and waits for those that have started. Returns how many of the measured time could
/// not start.
pub(super) async fn run(running: &Arc<Running>, begin: Instant, offered: Offered) -> anyhow::Result<u64> {
    let due = Arc::new(Due::new(running.window));
    // A thread of its own, because timers of the runtime are good to a millisecond only.
    let pacer = {
        let due = due.clone();
        let arrivals = Arrivals::new(offered.rate, offered.seed);
        std::thread::Builder::new().name("pacer".into()).spawn(move || {
            sharpen_sleep();
            due.pace(arrivals.map(|at| begin + at))
        })?
    };
    let worker = |number: usize| {
        let (running, due) = (running.clone(), due.clone());
        tokio::spawn(async move {
            while let Some(intended) = due.next().await {
                // A failure is counted, and no reason to offer less.
                let _ = running.perform(number, intended).await;
            }
        })
    };
    let workers: Vec<_> = (0..offered.in_flight).map(worker).collect();
    for worker in workers {
        worker.await?;
    }
    // The workers have ended because the pacer has: this does not wait.
    let given_up = pacer.join().ok().context("the thread that paces the requests panicked")?;
    Ok(given_up + due.left())
}

/// Sleeps of this thread end within microseconds. Where the system refuses, requests are later by some 50 us, which shows
/// in their lateness.
fn sharpen_sleep() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// Arrivals that should have started, oldest first.
struct Due {
    window: Window,
    waiting: Mutex<VecDeque<Instant>>,
    /// As many as wait; closed when none shall start any more.
    permits: Semaphore,
}

impl Due {
    fn new(window: Window) -> Due {
        Due { window, waiting: Mutex::default(), permits: Semaphore::new(0) }
    }

    /// Makes each arrival due at its time, until the end of the window. Returns those of the measured time that were given
    /// up.
    fn pace(&self, arrivals: impl Iterator<Item = Instant>) -> u64 {
        let mut given_up = 0;
        for intended in arrivals.take_while(|intended| *intended < self.window.end) {
            sleep_until(intended);
            // When this thread is so late that the step is over, nothing starts any more.
            if Instant::now() < self.window.end && self.push(intended) {
                self.permits.add_permits(1);
            } else {
                given_up += u64::from(self.window.contains(intended));
            }
        }
        sleep_until(self.window.end);
        self.permits.close();
        given_up
    }

    /// Whether there was room.
    fn push(&self, intended: Instant) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = waiting.len() < WAITING_MAX;
        if has_room {
            waiting.push_back(intended);
        }
        has_room
    }

    /// Waits for the next arrival that is due; `None` after the end of the window. What the warm-up leaves waiting is
    /// forgotten: with more than a server can take, nothing of the measured time would ever start.
    async fn next(&self) -> Option<Instant> {
        loop {
            self.permits.acquire().await.ok()?.forget();
            let intended = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
            if intended >= self.window.start || Instant::now() < self.window.start {
                return Some(intended);
            }
        }
    }

    /// Arrivals of the measured time that still wait.
    fn left(&self) -> u64 {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.iter().filter(|intended| self.window.contains(**intended)).count() as u64
    }
}

fn sleep_until(at: Instant) {
    let wait = at.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        std::thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due(start_ms: u64, end_ms: u64) -> (Due, Instant) {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        (Due::new(Window { start: at(start_ms), end: at(end_ms) }), begin)
    }

    #[tokio::test]
    async fn arrivals_start_in_order_and_not_before_their_time() {
        let (due, begin) = due(0, 200);
        let due = Arc::new(due);
        let intended: Vec<Instant> = [1, 5, 5, 30].map(|ms| begin + Duration::from_millis(ms)).to_vec();
        let pacer = {
            let (due, intended) = (due.clone(), intended.clone());
            std::thread::spawn(move || due.pace(intended.into_iter()))
        };
        let mut started = Vec::new();
        while let Some(intended) = due.next().await {
            assert!(Instant::now() >= intended);
            started.push(intended);
        }
        assert_eq!(started, intended);
        assert_eq!((pacer.join().unwrap(), due.left()), (0, 0));
        assert!(begin.elapsed() >= Duration::from_millis(200));
    }

    #[tokio::test]
    async fn what_nobody_starts_is_left_and_the_warm_up_does_not_count() {
        let (due, begin) = due(20, 40);
        let arrivals = (0..60).map(|ms| begin + Duration::from_millis(ms));
        let given_up = due.pace(arrivals);
        assert_eq!(given_up + due.left(), 20);
        assert_eq!(due.next().await, None);
    }

    #[tokio::test]
    async fn what_waits_when_the_warm_up_ends_is_forgotten() {
        let (due, begin) = due(20, 10_000);
        let arrivals: Vec<Instant> = [0, 1, 2, 25].map(|ms| begin + Duration::from_millis(ms)).to_vec();
        for intended in &arrivals {
            assert!(due.push(*intended));
            due.permits.add_permits(1);
        }
        sleep_until(due.window.start);
        assert_eq!(due.next().await, Some(arrivals[3]));
        assert_eq!(due.left(), 0);
    }

    #[tokio::test]
    async fn arrivals_that_are_noticed_too_late_are_given_up() {
        let (due, begin) = due(0, 10);
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(due.pace((0..10).map(|ms| begin + Duration::from_millis(ms))), 10);
        assert_eq!(due.left(), 0);
    }
}
