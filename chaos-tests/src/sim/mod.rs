//! Deterministic simulation: the real coordinators and shard nodes on one thread, with virtual time, a simulated network
//! and simulated disks, all drawn from one seed. The same seed gives the same run, event by event.
//!
//! A simulation takes its whole process: [`run`] is called once, and by nothing but a test binary that was started for
//! it. See docs/adr/0009-simulation.md.

mod changes;
mod check;
mod client;
mod copies;
mod entropy;
mod maps;
mod model;
mod network;
mod plan;
mod points;
mod processes;
mod quiet;
mod reads;
mod site;
mod trace;
mod world;

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use vicinal_common::exec;

pub use model::Counts;

use plan::Plan;
use world::World;

#[cfg(not(tokio_unstable))]
compile_error!(
    "simulations need --cfg tokio_unstable: a RUSTFLAGS variable has replaced the flags of .cargo/config.toml"
);

/// Stack of the simulation's thread: everything runs on it, nested.
const STACK_BYTES: usize = 64 << 20;

/// What a run showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every promise was kept, under faults that were felt.
    Pass,
    /// Promises that were broken.
    Fail(Vec<String>),
    /// No promise was broken, but the run did not test what it was meant to.
    Inconclusive(String),
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What it showed.
    pub verdict: Verdict,
    /// Hash of all events.
    pub hash: u64,
    /// Number of events.
    pub events: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// What the clients did.
    pub counts: Counts,
    /// The plan, in words.
    pub plan: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { seed, hash, events, elapsed, counts, .. } = self;
        let Counts { writes, writes_open, reads, reads_failed } = counts;
        let seconds = elapsed.as_secs_f64();
        write!(
            f,
            "seed {seed} hash {hash:016x} events {events} virtual {seconds:.1} s, writes {writes} + {writes_open} open, \
             reads {reads} + {reads_failed} failed: {:?}",
            self.verdict
        )
    }
}

thread_local! {
    static WORK: Cell<(u64, u64)> = const { Cell::new((0, 1)) };
}

/// How long a piece of work off the async threads takes: mostly a moment, sometimes long.
fn work_takes() -> Duration {
    let (mut state, max_us) = WORK.get();
    let drawn = entropy::next(&mut state);
    WORK.set((state, max_us));
    let max_us = if drawn.is_multiple_of(16) { max_us } else { (max_us / 16).max(1) };
    Duration::from_micros((drawn >> 8) % max_us)
}

/// Runs the simulation of a seed. Once per process, which is a simulation from then on.
///
/// # Panics
/// When the simulated code panics: a bug in it or in the simulation.
pub fn run(seed: u64) -> Outcome {
    // A thread that nothing has run on: what is drawn per thread is drawn from the seed.
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK_BYTES);
    let running = thread.spawn(move || run_here(seed)).expect("the system has room for a thread");
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run_here(seed: u64) -> Outcome {
    entropy::seed_this_thread(seed);
    exec::simulate(work_takes);
    let plan = Plan::draw(seed);
    WORK.set((seed, plan.work_max.as_micros() as u64));
    let words = format!("{plan:?}");
    let mut world = World::new(seed, plan);
    let ended = world.run();
    let mut violations = world.work.model.violations();
    violations.extend(ended.err());
    let verdict = match (violations.is_empty(), world.inconclusive.take()) {
        (false, _) => Verdict::Fail(violations),
        (true, Some(why)) => Verdict::Inconclusive(why),
        (true, None) => Verdict::Pass,
    };
    let (hash, events) = world.trace.digest();
    Outcome { seed, verdict, hash, events, elapsed: world.elapsed(), counts: world.work.model.counts(), plan: words }
}
