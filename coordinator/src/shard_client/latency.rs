//! How long a node takes for one kind of work: a mean that follows changes, and high quantiles of the recent past.

use std::time::Duration;

use tokio::time::Instant;

/// What is asked of a node. Latencies are kept apart by it, as a count says nothing of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkKind {
    /// Search by an index.
    Search,
    /// Search by scanning.
    ExactSearch,
    /// Points by id.
    Retrieve,
    /// A page of points.
    Scroll,
    /// Number of points.
    Count,
    /// A write.
    Write,
    /// Whether the node answers at all.
    Status,
}

/// A kind of work and about how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    kind: WorkKind,
    size: u8,
}

impl Work {
    /// `units` in whatever the kind is counted in; requests within a factor of four are alike.
    pub fn new(kind: WorkKind, units: usize) -> Work {
        let size = units.checked_ilog(4).unwrap_or(0).min(SIZES_MAX) as u8;
        Work { kind, size }
    }

    /// All sizes of the same kind.
    pub(super) fn of_kind(self) -> std::ops::RangeInclusive<Work> {
        Work { size: 0, ..self }..=Work { size: SIZES_MAX as u8, ..self }
    }

    /// Whether it is a write.
    pub fn is_write(self) -> bool {
        self.kind == WorkKind::Write
    }
}

/// Sizes told apart: bounds the number of histograms of a node.
const SIZES_MAX: u32 = 7;
/// Weight of a new sample in the mean.
const EWMA_WEIGHT: f64 = 0.2;
/// Time in which an old mean loses half of its value: a node that was slow gets asked again and can show that it is not.
const HALF_LIFE: Duration = Duration::from_secs(2);
/// Smallest power of two that is told apart, in microseconds.
const FIRST_OCTAVE: u32 = 5;
/// Powers of two told apart, from 32 microseconds to a minute.
const OCTAVES: u32 = 21;
/// Buckets per power of two: a quantile is at most a quarter too high.
const STEPS: u32 = 4;
const BUCKETS: usize = (OCTAVES * STEPS) as usize;
/// Samples after which all counts are halved, so that the quantiles follow changes.
const SAMPLES_MAX: u32 = 512;
/// Samples below which no quantile is given.
pub(super) const SAMPLES_MIN: u32 = 16;

/// Latencies of one kind of work at one node.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    mean_micros: f64,
    at: Instant,
    counts: Vec<u32>,
    total: u32,
}

impl Latency {
    /// Nothing seen yet.
    pub(super) fn new(now: Instant) -> Latency {
        Latency { mean_micros: 0.0, at: now, counts: vec![0; BUCKETS], total: 0 }
    }

    /// Takes in an answer.
    pub(super) fn note(&mut self, took: Duration, now: Instant) {
        self.follow(took, now);
        self.counts[bucket(took)] += 1;
        self.total += 1;
        if self.total > SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// Takes in that there was no answer within `took`: all that is known is that the latency is not less.
    pub(super) fn note_at_least(&mut self, took: Duration, now: Instant) {
        if took.as_micros() as f64 > self.mean_micros(now) {
            self.follow(took, now);
        }
    }

    fn follow(&mut self, took: Duration, now: Instant) {
        let micros = took.as_micros() as f64;
        let mean = self.mean_micros(now);
        self.mean_micros = if mean == 0.0 { micros } else { mean + EWMA_WEIGHT * (micros - mean) };
        self.at = self.at.max(now);
    }

    /// The mean in microseconds, less the older it is; 0 when nothing is known.
    pub(super) fn mean_micros(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.mean_micros * (-age / HALF_LIFE.as_secs_f64()).exp2()
    }

    /// The latency that `percent` of the recent answers did not exceed (rounded up to the next bucket). `None` while too
    /// few are known.
    pub(super) fn quantile(&self, percent: u32) -> Option<Duration> {
        if self.total < SAMPLES_MIN {
            return None;
        }
        let wanted = (u64::from(self.total) * u64::from(percent)).div_ceil(100);
        let mut seen = 0u64;
        let place = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        Some(upper_bound(place.unwrap_or(BUCKETS - 1)))
    }
}

/// Bucket of a latency: its power of two, cut in four.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    if octave < FIRST_OCTAVE {
        return 0;
    }
    let step = (micros >> (octave - 2)) & 3;
    let place = u64::from((octave - FIRST_OCTAVE) * STEPS) + step;
    (place as usize).min(BUCKETS - 1)
}

/// First latency that is above the bucket.
fn upper_bound(place: usize) -> Duration {
    let (octave, step) = (place as u32 / STEPS + FIRST_OCTAVE, place as u64 % u64::from(STEPS));
    Duration::from_micros((1 << octave) + (step + 1) * (1 << (octave - 2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_samples_within_a_bucket(
            samples in proptest::collection::vec(32u64..60_000_000, 16..300),
            percent in 1u32..100,
        ) {
            let now = Instant::now();
            let mut latency = Latency::new(now);
            samples.iter().for_each(|micros| latency.note(Duration::from_micros(*micros), now));
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            let rank = (samples.len() * percent as usize).div_ceil(100) - 1;
            let (exact, got) = (sorted[rank], latency.quantile(percent).unwrap().as_micros() as u64);
            prop_assert!(got > exact && got as f64 <= exact as f64 * 1.25 + 1.0, "{exact} {got}");
        }

        #[test]
        fn quantiles_follow_a_change(before in 100u64..1_000, times in 20u64..1_000) {
            let now = Instant::now();
            let mut latency = Latency::new(now);
            (0..10_000).for_each(|_| latency.note(Duration::from_micros(before), now));
            let after = Duration::from_micros(before * times);
            (0..SAMPLES_MAX).for_each(|_| latency.note(after, now));
            prop_assert!(latency.quantile(95).unwrap() > after);
            prop_assert!((latency.mean_micros(now) / after.as_micros() as f64 - 1.0).abs() < 0.01);
        }

        #[test]
        fn the_mean_stays_within_the_samples_and_fades(samples in proptest::collection::vec(1u64..1_000_000, 1..50)) {
            let now = Instant::now();
            let mut latency = Latency::new(now);
            samples.iter().for_each(|micros| latency.note(Duration::from_micros(*micros), now));
            let (least, most) = (*samples.iter().min().unwrap() as f64, *samples.iter().max().unwrap() as f64);
            let mean = latency.mean_micros(now);
            prop_assert!(mean >= least - 1e-6 && mean <= most + 1e-6);
            prop_assert!((latency.mean_micros(now + HALF_LIFE) - mean / 2.0).abs() < mean * 1e-9);
            latency.note_at_least(Duration::ZERO, now);
            prop_assert_eq!(latency.mean_micros(now), mean, "that it took longer than nothing says nothing");
        }
    }

    #[test]
    fn buckets_are_bounded_and_in_order() {
        let mut last = 0;
        for micros in (0..64).map(|shift| 1u64 << shift).chain([u64::MAX]) {
            let place = bucket(Duration::from_micros(micros));
            assert!(place >= last && place < BUCKETS);
            last = place;
        }
        assert_eq!(Work::new(WorkKind::Search, usize::MAX).size, SIZES_MAX as u8);
        assert_ne!(Work::new(WorkKind::Search, 1), Work::new(WorkKind::Search, 4));
    }
}
