//! One step of the query phase: requests for some time, in the closed or in the open loop.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::args::Mode;
use super::open;
use super::recall::Kept;
use super::requests::{Request, Requests};
use super::tally::{Kind, Tally};
use super::target::{Answer, Coverage, Failure, Target};

/// Parts of the tally: workers that share one wait for each other for a moment.
const PARTS: usize = 16;
/// Most bytes of answers that are kept to be compared with the exact ones; further answers are not compared.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// Pause of a client whose request failed: a server that is gone is not asked as fast as the client can.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// Longest time that asking every query once may take.
const ONCE_MAX: Duration = Duration::from_secs(3_600);
/// How often the progress is drawn.
const PROGRESS: Duration = Duration::from_millis(200);

/// What all steps have in common.
pub(super) struct Driver {
    pub(super) target: Arc<Target>,
    pub(super) requests: Requests,
    pub(super) keep: Keep,
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
}

/// Whether answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    /// The first answer to each query within a step.
    First,
}

/// What a step brought.
pub(super) struct Ended {
    pub(super) tally: Tally,
    /// All requests sent, those of the warm-up too.
    pub(super) sent: u64,
    /// Arrivals of the open loop, within the measured time, that could not start until its end.
    pub(super) not_started: u64,
}

/// The measured time of a step.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

impl Window {
    pub(super) fn contains(&self, at: Instant) -> bool {
        (self.start..self.end).contains(&at)
    }
}

impl Driver {
    /// Runs a step; all of its requests have ended when it returns. `seed` is for the arrivals.
    pub(super) async fn step(self: &Arc<Driver>, mode: Mode, seed: u64) -> anyhow::Result<Ended> {
        let style = ProgressStyle::with_template("{msg:<24} {bar:40} {elapsed}")?;
        let total = self.warmup + self.measured;
        let bar = ProgressBar::new(total.as_millis() as u64).with_style(style).with_message(title(mode));
        let begin = Instant::now();
        let start = begin + self.warmup;
        let running = Arc::new(Running::new(self.clone(), Window { start, end: start + self.measured }, u64::MAX));
        let progress = {
            let bar = bar.clone();
            tokio::spawn(async move {
                loop {
                    bar.set_position(begin.elapsed().as_millis() as u64);
                    tokio::time::sleep(PROGRESS).await;
                }
            })
        };
        let ran = match mode {
            Mode::Closed { concurrency } => closed(&running, concurrency).await.map(|()| 0),
            Mode::Open { rate, in_flight } => open::run(&running, begin, open::Offered { rate, in_flight, seed }).await,
        };
        progress.abort();
        bar.finish_and_clear();
        Ok(Ended { not_started: ran?, sent: running.next.load(Ordering::Relaxed), tally: running.take_tally() })
    }

    /// Asks every query once, so many at a time.
    pub(super) async fn each_once(self: &Arc<Driver>, concurrency: usize) -> anyhow::Result<Tally> {
        let start = Instant::now();
        let requests = self.requests.for_each_query();
        let running = Arc::new(Running::new(self.clone(), Window { start, end: start + ONCE_MAX }, requests));
        closed(&running, concurrency).await?;
        Ok(running.take_tally())
    }
}

fn title(mode: Mode) -> String {
    match mode {
        Mode::Closed { concurrency } => format!("{concurrency} in flight"),
        Mode::Open { rate, .. } => format!("{rate} requests/s"),
    }
}

/// So many clients, each of which waits for its answer.
async fn closed(running: &Arc<Running>, concurrency: usize) -> anyhow::Result<()> {
    let client = |number: usize| {
        let running = running.clone();
        tokio::spawn(async move {
            loop {
                let now = Instant::now();
                if now >= running.window.end || running.next.load(Ordering::Relaxed) >= running.requests_max {
                    return;
                }
                if running.perform(number, now).await.is_err() {
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        })
    };
    let clients: Vec<_> = (0..concurrency).map(client).collect();
    for client in clients {
        client.await?;
    }
    Ok(())
}

/// A step under way.
pub(super) struct Running {
    driver: Arc<Driver>,
    pub(super) window: Window,
    /// Number of the next request.
    next: AtomicU64,
    /// Clients stop after about so many.
    requests_max: u64,
    /// Queries that have an answer; empty when none is kept.
    seen: Vec<AtomicBool>,
    kept_bytes: AtomicUsize,
    tallies: Vec<Mutex<Tally>>,
}

/// A request that brought no answer; it is counted already.
pub(super) struct Failed;

impl Running {
    fn new(driver: Arc<Driver>, window: Window, requests_max: u64) -> Running {
        let seen = match driver.keep {
            Keep::Nothing => 0,
            Keep::First => driver.requests.queries(),
        };
        Running {
            window,
            next: AtomicU64::new(0),
            requests_max,
            seen: (0..seen).map(|_| AtomicBool::new(false)).collect(),
            kept_bytes: AtomicUsize::new(0),
            tallies: (0..PARTS).map(|_| Mutex::default()).collect(),
            driver,
        }
    }

    /// Sends the next request and counts what comes of it. `intended` is when it should have started: its latency
    /// counts from there.
    pub(super) async fn perform(&self, worker: usize, intended: Instant) -> Result<(), Failed> {
        let lateness = intended.elapsed();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Request { turn, kind, method, path, body, queries, shape } = self.driver.requests.request(number);
        let sent = self.driver.target.send(turn, method, path, body).await;
        let ended = Instant::now();
        let counts = self.window.contains(intended);
        let kept = match &sent {
            Ok(answer) if counts && kind == Kind::Query => self.keep(&queries, answer),
            Ok(_) | Err(_) => None,
        };
        let kept = kept.map(|(queries, body)| Kept { queries, shape, body });

        let part = &self.tallies[worker % self.tallies.len()];
        let mut tally = part.lock().unwrap_or_else(PoisonError::into_inner);
        if counts {
            tally.lateness.add(lateness);
            tally.kept.extend(kept);
        }
        match sent {
            Ok(answer) => {
                if self.window.contains(ended) {
                    tally.of_mut(kind).answered_within += 1;
                }
                if counts {
                    tally.answered(kind, ended - intended);
                    tally.partial += u64::from(answer.coverage == Coverage::Partial);
                    if kind == Kind::Query {
                        tally.answer_bytes += answer.body.len() as u64;
                        if let Some(time) = answer.server_time() {
                            tally.server_times.add(time);
                        }
                        tally.shards_asked.0 += answer.shards_asked.unwrap_or(0);
                        tally.shards_asked.1 += u64::from(answer.shards_asked.is_some());
                    }
                }
                Ok(())
            }
            Err(Failure { kind: error, text }) => {
                if counts {
                    tally.failed(kind, error, &text);
                }
                Err(Failed)
            }
        }
    }

    /// The answer, if it is the first to one of these queries, with those that it is the first to.
    fn keep(&self, queries: &[usize], answer: &Answer) -> Option<(Vec<Option<usize>>, Vec<u8>)> {
        let is_first = |query: usize| Some(!self.seen.get(query)?.swap(true, Ordering::Relaxed));
        let first: Vec<Option<usize>> =
            queries.iter().map(|query| (is_first(*query) == Some(true)).then_some(*query)).collect();
        first.iter().find(|query| query.is_some())?;
        let bytes = answer.body.len();
        let fits = self.kept_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= KEPT_BYTES_MAX;
        // Copied: the body is a part of a larger buffer of its connection.
        fits.then(|| (first, answer.body.to_vec()))
    }

    fn take_tally(&self) -> Tally {
        let mut all = Tally::default();
        for part in &self.tallies {
            all.merge(std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        all
    }
}
