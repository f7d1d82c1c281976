//! How long reads of one kind have taken lately, to tell which of them are too short to be handed to another thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// By how much of the difference one shorter read brings the pace down. A longer one brings it up at once.
const SLOWLY: u64 = 8;

/// Time per unit of work of the reads of one kind in a shard. What a unit is, the kind decides: a candidate of the beam, a
/// point looked up. Rises with one slow read, as when vectors have to come from a disk, and falls over many fast ones, so
/// that a mistake is not repeated soon.
#[derive(Debug, Default)]
pub struct Pace {
    /// Nanoseconds; 0 when nothing is known.
    per_unit: AtomicU64,
}

impl Pace {
    /// What so many units will take, at least 1; `None` before the first was noted.
    pub fn expected(&self, units: u64) -> Option<Duration> {
        // Relaxed, here and below: a number that is a little old does no harm.
        let per_unit = self.per_unit.load(Ordering::Relaxed);
        (per_unit > 0).then(|| Duration::from_nanos(per_unit.saturating_mul(units.max(1))))
    }

    /// Nothing is known any more: from now on a unit is other work than before.
    pub fn forget(&self) {
        self.per_unit.store(0, Ordering::Relaxed);
    }

    /// Notes what so many units took.
    pub fn note(&self, units: u64, took: Duration) {
        let now = (took.as_nanos() as u64 / units.max(1)).max(1);
        let before = self.per_unit.load(Ordering::Relaxed);
        let after = if now >= before { now } else { before - (before - now).div_ceil(SLOWLY) };
        self.per_unit.store(after, Ordering::Relaxed);
    }
}

/// The paces of a shard.
#[derive(Debug, Default)]
pub struct Paces {
    /// Of searches that only walk a graph, or scan what is not in one yet: a unit is a candidate of the beam.
    pub search: Pace,
    /// Of points looked up by their ids: a unit is an id.
    pub retrieve: Pace,
    /// Searches answered so far.
    pub searches: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let pace = Pace::default();
        assert_eq!(pace.expected(10), None);
        let micros = Duration::from_micros;
        pace.note(100, micros(50));
        assert_eq!(pace.expected(100), Some(micros(50)));
        assert_eq!(pace.expected(0), Some(Duration::from_nanos(500)), "no work is a unit of work");
        pace.note(100, micros(5_000));
        assert_eq!(pace.expected(100), Some(micros(5_000)));
        pace.note(100, micros(50));
        assert!(pace.expected(100).unwrap() > micros(4_000));
        for _ in 0..60 {
            pace.note(100, micros(50));
        }
        assert!(pace.expected(100).unwrap() < micros(60));
        pace.note(0, Duration::ZERO);
        assert!(pace.expected(1).is_some());
        pace.note(1, Duration::MAX);
        assert!(pace.expected(u64::MAX).is_some(), "no overflow");
        pace.forget();
        assert_eq!(pace.expected(1), None);
    }
}
