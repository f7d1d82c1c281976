//! Times searches: warm up, several rounds over all queries, the fastest round counts.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vicinal_index::Searched;

/// Queries before the clock starts.
pub(super) const WARM_UP: usize = 100;
/// Queries that a thread takes at a time when there are several.
const SHARE: usize = 8;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    pub(super) threads: usize,
    pub(super) repeat: usize,
    /// The processor that a single searching thread is bound to.
    pub(super) pin: Option<usize>,
}

/// What came out.
pub(super) struct Measured {
    /// Of the fastest round.
    pub(super) time: Duration,
    /// Of each query.
    pub(super) answers: Vec<Searched>,
}

impl Measured {
    pub(super) fn qps(&self) -> f64 {
        self.answers.len() as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

impl Rounds {
    /// Measures `search(0)` to `search(queries - 1)`.
    pub(super) fn measure(
        &self,
        queries: usize,
        search: impl Fn(usize) -> Searched + Sync,
    ) -> anyhow::Result<Measured> {
        let measured = if self.threads == 1 {
            // A thread of its own: what is computed between two measurements is not bound to the processor.
            std::thread::scope(|scope| scope.spawn(|| self.on_one(queries, &search)).join())
        } else {
            Ok(Ok(self.on_many(queries, &search)))
        };
        measured.ok().context("a search panicked")?
    }

    fn on_one(&self, queries: usize, search: &impl Fn(usize) -> Searched) -> anyhow::Result<Measured> {
        if let Some(cpu) = self.pin {
            pin_this_thread("--pin", cpu)?;
        }
        for number in 0..queries.min(WARM_UP) {
            std::hint::black_box(search(number));
        }
        let mut best = Measured { time: Duration::MAX, answers: vec![Searched::default(); queries] };
        for _ in 0..self.repeat {
            let started = Instant::now();
            for (number, answer) in best.answers.iter_mut().enumerate() {
                *answer = search(number);
            }
            best.time = best.time.min(started.elapsed());
        }
        Ok(best)
    }

    fn on_many(&self, queries: usize, search: &(impl Fn(usize) -> Searched + Sync)) -> Measured {
        for number in 0..queries.min(WARM_UP) {
            std::hint::black_box(search(number));
        }
        let mut best = Measured { time: Duration::MAX, answers: vec![Searched::default(); queries] };
        for _ in 0..self.repeat {
            let (next, start) = (AtomicUsize::new(0), Barrier::new(self.threads + 1));
            let worker = || {
                let mut found = Vec::with_capacity(queries);
                start.wait();
                loop {
                    let first = next.fetch_add(SHARE, Ordering::Relaxed);
                    if first >= queries {
                        return (Instant::now(), found);
                    }
                    for number in first..queries.min(first + SHARE) {
                        found.push((number, search(number)));
                    }
                }
            };
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..self.threads).map(|_| scope.spawn(worker)).collect();
                start.wait();
                let started = Instant::now();
                let mut time = Duration::ZERO;
                for worker in workers {
                    let (ended, found) = worker.join().expect("a search does not panic");
                    time = time.max(ended.saturating_duration_since(started));
                    for (number, answer) in found {
                        best.answers[number] = answer;
                    }
                }
                best.time = best.time.min(time);
            });
        }
        best
    }
}

/// Binds the calling thread to a processor, as a flag asks for.
#[cfg(target_os = "linux")]
pub(super) fn pin_this_thread(flag: &str, cpu: usize) -> anyhow::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    if cpu >= CpuSet::MAX_CPU {
        bail!("{flag} {cpu}: there is no such processor");
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("{flag} {cpu}: cannot bind the thread to this processor"))
}

/// Binds the calling thread to a processor, as a flag asks for.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin_this_thread(flag: &str, cpu: usize) -> anyhow::Result<()> {
    bail!("{flag} {cpu}: not supported on this system");
}

/// Resident memory of this process, in bytes; `None` where the system does not tell.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_answered_on_one_thread_and_on_several() {
        for threads in [1, 3] {
            let rounds = Rounds { threads, repeat: 2, pin: None };
            let answer = |number| Searched { hits: Vec::new(), distances: number as u64 };
            let measured = rounds.measure(21, answer).unwrap();
            let numbers: Vec<u64> = measured.answers.iter().map(|answer| answer.distances).collect();
            assert_eq!(numbers, (0..21).collect::<Vec<_>>());
            assert!(measured.qps() > 0.0);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn resident_memory_is_known() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
