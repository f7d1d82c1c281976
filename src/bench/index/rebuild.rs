//! `--during-build`: how long searches take while one other thread builds the same index again, beside how long they
//! take when nothing else runs.
//!
//! Rounds of both take turns, so that what else the machine does meets both. A round of searches during a build goes on
//! until a whole build has ended: its beginning, with a graph that fits into the caches, is no measure of the rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use vicinal_index::hnsw::{BuildControl, BuildError, HnswIndex};
use vicinal_index::{Accept, Searched};

use super::report::{Beside, Run};
use super::rounds::{WARM_UP, pin_this_thread};
use super::truth::Truth;
use super::{Bench, Index, family};
use crate::bench::timing::{Latencies, Spread};

/// How often it is looked whether the build has begun to insert rows.
const BEGIN_POLL: Duration = Duration::from_millis(1);

/// What came out.
pub(super) struct Compared {
    pub(super) idle: Spread,
    pub(super) building: Spread,
    /// Searches measured in each of both states.
    pub(super) searches: usize,
    /// Rows inserted while searches were measured.
    pub(super) rows_inserted: u64,
    /// The same in builds of the whole index.
    pub(super) builds: f64,
    /// Share of its time that the building thread had a processor, where the system tells it.
    pub(super) build_running: Option<f64>,
    /// Of each query.
    pub(super) answers: Vec<Searched>,
}

impl Compared {
    /// How many times longer searches take during a build, by one of the figures.
    pub(super) fn ratio(&self, of: impl Fn(&Spread) -> Duration) -> f64 {
        of(&self.building).as_secs_f64() / of(&self.idle).as_secs_f64().max(1e-9)
    }
}

impl Index {
    /// Refuses what makes no sense with `--during-build`.
    pub(super) fn check_during_build(&self) -> anyhow::Result<()> {
        ensure!(self.threads == 1, "--during-build measures one searching thread, --threads is {}", self.threads);
        ensure!(self.ef.len() == 1, "--during-build measures one beam: say which with --ef");
        let params = family::graph_params(&self.family, &self.params)?;
        ensure!(params.is_some(), "--during-build: family {} builds nothing", self.family);
        if let Some(cpu) = self.pin_build {
            ensure!(self.pin != Some(cpu), "--pin and --pin-build are the same processor");
            let pinned = thread::scope(|scope| scope.spawn(|| pin_this_thread("--pin-build", cpu)).join());
            pinned.ok().context("binding a thread panicked")??;
        }
        Ok(())
    }
}

impl Bench<'_> {
    /// Measures one beam.
    pub(super) fn during_build(&self, run: &Run, truth: &Truth) -> anyhow::Result<()> {
        let graph =
            family::graph_params(&self.index.family, &self.index.params)?.context("there is nothing to build")?;
        for ef in self.index.beams(self.built.beam) {
            let params = self.index.search_params(ef);
            let measurement = DuringBuild {
                repeat: self.index.repeat,
                pin: self.index.pin,
                pin_build: self.index.pin_build,
                rows: self.rows.len() as u64,
            };
            let compared = measurement.measure(
                self.queries.rows(),
                |number| self.built.index.search_counted(self.rows, self.queries.row(number), params, Accept::All),
                |control| HnswIndex::build(self.rows, self.metric, graph, control).map(drop),
            )?;
            let qps = 1.0 / compared.idle.mean.as_secs_f64().max(1e-9);
            let point = truth.point(ef, qps, &compared.answers);
            run.print_point(&point, Beside::Build(&compared))?;
        }
        Ok(())
    }
}

/// How to measure.
struct DuringBuild {
    /// Rounds: each is at least one whole build, and as many searches with nothing else running.
    repeat: usize,
    pin: Option<usize>,
    pin_build: Option<usize>,
    /// Rows that a whole build inserts.
    rows: u64,
}

impl DuringBuild {
    /// Measures `search(0)` to `search(queries - 1)`, again and again, with and without `build` running.
    fn measure(
        &self,
        queries: usize,
        search: impl Fn(usize) -> Searched + Sync,
        build: impl Fn(BuildControl<'_>) -> Result<(), BuildError> + Sync,
    ) -> anyhow::Result<Compared> {
        ensure!(queries > 0, "there are no queries");
        let measured = thread::scope(|scope| scope.spawn(|| self.on_thread(queries, &search, &build)).join());
        measured.ok().context("a search panicked")?
    }

    fn on_thread(
        &self,
        queries: usize,
        search: &(impl Fn(usize) -> Searched + Sync),
        build: &(impl Fn(BuildControl<'_>) -> Result<(), BuildError> + Sync),
    ) -> anyhow::Result<Compared> {
        if let Some(cpu) = self.pin {
            pin_this_thread("--pin", cpu)?;
        }
        let mut answers = vec![Searched::default(); queries];
        let mut pass = |latencies: &mut Latencies| {
            for (number, answer) in answers.iter_mut().enumerate() {
                let started = Instant::now();
                *answer = search(number);
                latencies.add(started.elapsed());
            }
        };
        let warm_up = || (0..queries.min(WARM_UP)).for_each(|number| drop(std::hint::black_box(search(number))));
        let (mut idle, mut building) = (Latencies::default(), Latencies::default());
        let (mut rows_inserted, mut running) = (0, Running::default());
        for _ in 0..self.repeat {
            let progress = Progress::default();
            let mut passes = 0;
            thread::scope(|scope| {
                let builder = scope.spawn(|| self.build_on(&progress, build));
                // Searching must end the builds even if it panics: the scope waits for them.
                let _stop = StopOnDrop(&progress.stop);
                while progress.inserted(self.rows) == 0 && !builder.is_finished() {
                    thread::sleep(BEGIN_POLL);
                }
                warm_up();
                let before = progress.inserted(self.rows);
                while !builder.is_finished() && (passes == 0 || progress.whole.load(Ordering::Acquire) == 0) {
                    pass(&mut building);
                    passes += 1;
                }
                rows_inserted += progress.inserted(self.rows).saturating_sub(before);
                progress.stop.store(true, Ordering::Release);
                // It ends before it is told to only when it fails.
                running = running.and(builder.join().ok().context("the build panicked")??);
                anyhow::Ok(())
            })?;
            warm_up();
            (0..passes).for_each(|_| pass(&mut idle));
        }
        let searches = idle.len();
        Ok(Compared {
            idle: idle.spread().context("nothing was measured")?,
            building: building.spread().context("no search fell into a build: give more --queries")?,
            searches,
            rows_inserted,
            builds: rows_inserted as f64 / self.rows.max(1) as f64,
            build_running: running.share(),
            answers,
        })
    }

    /// Builds again and again until told to stop.
    fn build_on(
        &self,
        progress: &Progress,
        build: &impl Fn(BuildControl<'_>) -> Result<(), BuildError>,
    ) -> anyhow::Result<Running> {
        if let Some(cpu) = self.pin_build {
            pin_this_thread("--pin-build", cpu)?;
        }
        let (started, before) = (Instant::now(), processor_time());
        loop {
            match build(BuildControl { cancel: &progress.stop, done: &progress.done, threads: 1 }) {
                Ok(()) => {
                    // In this order, so that whoever reads in between counts too few rows, not too many.
                    progress.done.store(0, Ordering::Release);
                    progress.whole.fetch_add(1, Ordering::AcqRel);
                }
                Err(BuildError::Cancelled) => break,
                Err(error) => bail!("the build failed: {error}"),
            }
        }
        let used = before.zip(processor_time()).map(|(before, after)| after.saturating_sub(before));
        Ok(Running { wall: started.elapsed(), used })
    }
}

/// How far the builds of a round are.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    /// Builds that have ended.
    whole: AtomicU64,
    /// Rows of the build under way.
    done: AtomicU64,
}

impl Progress {
    /// Rows inserted so far, for builds of `rows` each.
    fn inserted(&self, rows: u64) -> u64 {
        self.whole.load(Ordering::Acquire) * rows + self.done.load(Ordering::Acquire)
    }
}

/// Ends the builds of a round when the searching thread leaves it, also by a panic.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What a building thread got of its processor.
#[derive(Clone, Copy, Default)]
struct Running {
    wall: Duration,
    used: Option<Duration>,
}

impl Running {
    fn and(self, other: Running) -> Running {
        Running { wall: self.wall + other.wall, used: other.used.map(|used| used + self.used.unwrap_or_default()) }
    }

    fn share(self) -> Option<f64> {
        self.used.map(|used| used.as_secs_f64() / self.wall.as_secs_f64().max(1e-9))
    }
}

/// Processor time of the calling thread, where the system tells it.
#[cfg(target_os = "linux")]
fn processor_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()
}

/// Processor time of the calling thread, where the system tells it.
#[cfg(not(target_os = "linux"))]
fn processor_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vicinal_common::metric::Metric;
    use vicinal_index::Rows;
    use vicinal_index::hnsw::HnswParams;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        index: Index,
    }

    fn flags(given: &[&str]) -> Result<Index, String> {
        let given = ["bench", "--data", "none"].iter().chain(given);
        let flags = Flags::try_parse_from(given).map_err(|error| error.to_string())?;
        flags.index.check_during_build().map_err(|error| error.to_string())?;
        Ok(flags.index)
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        assert!(flags(&["--during-build", "--ef", "64", "--pin", "0"]).is_ok());
        for (given, reason) in [
            (&["--during-build"][..], "one beam"),
            (&["--during-build", "--ef", "64", "--threads", "2"], "one searching thread"),
            (&["--during-build", "--ef", "64", "--family", "flat"], "builds nothing"),
            (&["--during-build", "--ef", "64", "--pin", "0", "--pin-build", "0"], "the same processor"),
            (&["--during-build", "--ef", "64", "--pin-build", "4096"], "--pin-build 4096"),
            (&["--during-build", "--ef", "64", "--filter", "independent"], "--filter"),
            (&["--pin-build", "0", "--ef", "64"], "--during-build"),
        ] {
            let refused = flags(given).err().unwrap_or_default();
            assert!(refused.contains(reason), "{given:?}: {refused}");
        }
    }

    #[test]
    fn searches_are_measured_while_rows_are_inserted() {
        let data: Vec<f32> = (0..6_000).map(|i| (i * 37 % 1_009) as f32).collect();
        let rows = Rows { data: &data, dim: 2 };
        let during = DuringBuild { repeat: 2, pin: None, pin_build: None, rows: 3_000 };
        let search = |number| Searched { hits: Vec::new(), distances: number as u64 };
        let params = HnswParams::default();
        let build = |control: BuildControl<'_>| HnswIndex::build(rows, Metric::Euclid, params, control).map(drop);
        let compared = during.measure(200, search, build).unwrap();
        assert!(compared.builds > 0.0, "no row was inserted while searches were measured");
        assert!(compared.searches >= 400 && compared.searches.is_multiple_of(200));
        assert!(compared.answers.iter().enumerate().all(|(number, answer)| answer.distances == number as u64));
        if cfg!(target_os = "linux") {
            assert!(compared.build_running.is_some_and(|share| share > 0.0 && share < 1.1));
        }
    }

    #[test]
    fn a_build_that_fails_is_an_error() {
        let during = DuringBuild { repeat: 1, pin: None, pin_build: None, rows: 10 };
        let refused = during.measure(10, |_| Searched::default(), |_| Err(BuildError::Memory("none".to_owned())));
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("the build failed"), "{refused}");
    }
}
