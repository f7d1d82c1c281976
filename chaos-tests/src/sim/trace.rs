//! What happened in a simulation, as one number: two runs of a seed are the same if their traces are.

use std::fmt::Arguments;
use std::time::Duration;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3Default;

/// Collects events. One simulation has one, on one thread; the lock is for the compiler.
pub(super) struct Trace {
    hashed: Mutex<Hashed>,
    /// Print every event, to find where two runs part.
    is_printed: bool,
}

struct Hashed {
    hash: Xxh3Default,
    events: u64,
}

impl Trace {
    /// An empty trace. Its events are printed when `SIM_TRACE` is set.
    pub(super) fn new() -> Trace {
        let hashed = Hashed { hash: Xxh3Default::new(), events: 0 };
        Trace { hashed: Mutex::new(hashed), is_printed: std::env::var_os("SIM_TRACE").is_some() }
    }

    /// Adds an event at a virtual time.
    pub(super) fn note(&self, at: Duration, event: Arguments<'_>) {
        let text = format!("{:>12} {event}", at.as_micros());
        if self.is_printed {
            eprintln!("{text}");
        }
        let mut hashed = self.hashed.lock();
        hashed.hash.update(text.as_bytes());
        hashed.events += 1;
    }

    /// Adds an event now, on a simulated host.
    pub(super) fn note_here(&self, event: Arguments<'_>) {
        self.note(turmoil::sim_elapsed().unwrap_or_default(), event);
    }

    /// Hash and number of events so far.
    pub(super) fn digest(&self) -> (u64, u64) {
        let hashed = self.hashed.lock();
        (hashed.hash.digest(), hashed.events)
    }
}
