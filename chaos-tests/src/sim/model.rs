//! What a client may see. Every point has one writer, which does one thing at a time: so after an acknowledged write the
//! writer must read exactly that, and a point that was never in doubt has one right value.
//!
//! A write without an answer may take place at any later time. Its point is then retired: it is not written again, and
//! either value is right from then on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::points::Held;

/// What a point holds; none when it is deleted or was never written.
pub(super) type Value = Option<Held>;

/// What is known of a point.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The last acknowledged value.
    pub(super) acked: Value,
    /// Values of writes without an answer.
    pub(super) maybe: Vec<Value>,
}

impl Known {
    /// Whether a read may find this.
    pub(super) fn allows(&self, found: Value) -> bool {
        self.states().any(|state| state == found)
    }

    /// All that it may hold.
    pub(super) fn states(&self) -> impl Iterator<Item = Value> {
        [self.acked].into_iter().chain(self.maybe.iter().copied())
    }

    /// Whether it may hold one thing only.
    pub(super) fn is_certain(&self) -> bool {
        self.maybe.is_empty()
    }
}

/// What happened to the operations so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged writes.
    pub writes: u64,
    /// Writes without an acknowledgement.
    pub writes_open: u64,
    /// Reads that were answered, and checked.
    pub reads: u64,
    /// Reads that failed.
    pub reads_failed: u64,
}

/// All that the clients know, over all of them.
#[derive(Default)]
pub(super) struct Model {
    points: Mutex<BTreeMap<u64, Known>>,
    serials: AtomicU64,
    counts: Mutex<Counts>,
    violations: Mutex<Vec<String>>,
}

impl Model {
    /// A serial number that no other write has.
    pub(super) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is known of a point.
    pub(super) fn known(&self, id: u64) -> Known {
        self.points.lock().get(&id).cloned().unwrap_or_default()
    }

    /// All points that were ever written.
    pub(super) fn points(&self) -> BTreeMap<u64, Known> {
        self.points.lock().clone()
    }

    /// Notes what became of a request that gave points these values, one after the other.
    pub(super) fn written(&self, changes: &BTreeMap<u64, Vec<Value>>, is_acked: bool) {
        let mut points = self.points.lock();
        for (id, values) in changes {
            let known = points.entry(*id).or_default();
            match is_acked {
                true => known.acked = values.last().copied().unwrap_or(known.acked),
                false => known.maybe.extend(values),
            }
        }
        let mut counts = self.counts.lock();
        match is_acked {
            true => counts.writes += 1,
            false => counts.writes_open += 1,
        }
    }

    /// Notes that a read was answered.
    pub(super) fn read(&self) {
        self.counts.lock().reads += 1;
    }

    /// Notes that a read was not answered.
    pub(super) fn read_failed(&self) {
        self.counts.lock().reads_failed += 1;
    }

    /// Notes that a promise was broken.
    pub(super) fn violated(&self, what: String) {
        self.violations.lock().push(what);
    }

    /// Promises broken so far.
    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// Operations so far.
    pub(super) fn counts(&self) -> Counts {
        *self.counts.lock()
    }
}
