//! One simulated machine: its name, its disk, and what of it outlives the process that runs on it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use vicinal_common::clock::Clock;
use vicinal_common::disk::FaultyDisk;
use vicinal_common::rng::SeededRng;
use vicinal_coordinator::Coordinator;

use super::trace::Trace;

/// Start of time in every simulation: 2030-01-01.
pub(super) const EPOCH: Duration = Duration::from_secs(1_893_456_000);

/// Links on which everything is lost at the moment, and how much was.
#[derive(Default)]
pub(super) struct Links {
    cut: Mutex<BTreeSet<(&'static str, &'static str)>>,
    lost: AtomicU64,
}

impl Links {
    /// Notes that nothing gets from one host to another one any more.
    pub(super) fn cut(&self, from: &'static str, to: &'static str) {
        self.cut.lock().insert((from, to));
    }

    /// All links carry again.
    pub(super) fn heal(&self) {
        self.cut.lock().clear();
    }

    /// Calls that were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A simulated machine.
pub(super) struct Site {
    /// Its host name.
    pub(super) name: &'static str,
    /// Outlives crashes. A machine whose disk has no power is dead.
    pub(super) disk: FaultyDisk,
    pub(super) trace: Arc<Trace>,
    /// The coordinator that runs here, for a look at its metadata from outside.
    pub(super) coordinator: Mutex<Weak<Coordinator>>,
    links: Arc<Links>,
    seed: u64,
    boots: AtomicU32,
}

impl Site {
    /// A new machine. `seed` is its own.
    pub(super) fn new(name: &'static str, seed: u64, links: Arc<Links>, trace: Arc<Trace>) -> Arc<Site> {
        Arc::new(Site {
            name,
            disk: FaultyDisk::new(seed),
            trace,
            coordinator: Mutex::default(),
            links,
            seed,
            boots: AtomicU32::new(0),
        })
    }

    /// Random numbers for a process that starts now.
    pub(super) fn boot(&self) -> SeededRng {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        self.trace.note_here(format_args!("{} starts, boot {boot}", self.name));
        SeededRng::from_seed(self.seed.rotate_left(17) ^ u64::from(boot))
    }

    /// Returns, unless the machine has lost its power: then it says nothing more.
    pub(super) async fn silent_when_dead(&self) {
        if self.disk.is_off() {
            std::future::pending().await
        }
    }

    /// Whether what this machine sends to `host` is lost on the way.
    pub(super) fn is_cut_off(&self, host: &str) -> bool {
        self.links.cut.lock().contains(&(self.name, host))
    }

    /// Counts a call to `host` that begins now, if its request or its answer is lost on a link that carries nothing.
    pub(super) fn count_if_lost(&self, host: &str) {
        let cut = self.links.cut.lock();
        if cut.iter().any(|link| *link == (self.name, host) || *link == (host, self.name)) {
            self.links.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Virtual time of day.
pub(super) struct SimClock;

impl Clock for SimClock {
    fn unix_millis(&self) -> u64 {
        let now = EPOCH + turmoil::sim_elapsed().unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The same for turmoil.
pub(super) fn epoch() -> std::time::SystemTime {
    UNIX_EPOCH + EPOCH
}
