//! A histogram of latencies: linear within each power of two, so that a latency is known to within 1 % however long the
//! run, in memory that does not grow (the log-linear buckets that HdrHistogram is known for).

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets per power of two, as a power of two: 128, so that one is at most 1/128 of its value wide.
const PARTS_LOG2: u32 = 7;
/// Longest latency that has a bucket of its own: 2^42 ns, 73 minutes. Longer ones count as this long, but for the maximum.
const NANOS_MAX: u64 = (1 << 42) - 1;

/// Latencies in buckets of at most 1 %; mean and maximum are exact.
#[derive(Clone, Default)]
pub(super) struct Histogram {
    /// Grows to the largest bucket in use.
    counts: Vec<u64>,
    count: u64,
    sum_nanos: u128,
    max_nanos: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket_of(nanos);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum_nanos += u128::from(nanos);
        self.max_nanos = self.max_nanos.max(nanos);
    }

    pub(super) fn merge(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_nanos += other.sum_nanos;
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// How many latencies it holds.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The latency by nearest rank that `share` (0 to 1) of all do not exceed: never less than the exact one, at most 1 %
    /// more. `None` without any latency.
    pub(super) fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                // The largest latency of the last bucket is known, and may be too long for any bucket.
                let nanos = if seen == self.count { self.max_nanos } else { largest_of(bucket) };
                return Some(Duration::from_nanos(nanos));
            }
        }
        None
    }

    /// `None` without any latency.
    pub(super) fn mean(&self) -> Option<Duration> {
        let nanos = self.sum_nanos.checked_div(u128::from(self.count))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// In milliseconds.
    pub(super) fn summary(&self) -> Value {
        let ms = |share| self.percentile(share).map(millis);
        json!({
            "mean_ms": self.mean().map(millis),
            "p50_ms": ms(0.50),
            "p90_ms": ms(0.90),
            "p99_ms": ms(0.99),
            "p99_9_ms": ms(0.999),
            "max_ms": ms(1.0),
        })
    }
}

/// Milliseconds, rounded to microseconds.
pub(super) fn millis(latency: Duration) -> f64 {
    (latency.as_secs_f64() * 1e6).round() / 1e3
}

/// Buckets 0 to 255 hold one value each; each further 128 are twice as wide as those before.
fn bucket_of(nanos: u64) -> usize {
    let nanos = nanos.min(NANOS_MAX);
    let shift = nanos.max(1).ilog2().saturating_sub(PARTS_LOG2);
    ((u64::from(shift) << PARTS_LOG2) + (nanos >> shift)) as usize
}

/// The largest value of a bucket.
fn largest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> PARTS_LOG2).saturating_sub(1);
    let part = bucket - (shift << PARTS_LOG2);
    ((part + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nanos: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        nanos.into_iter().for_each(|nanos| histogram.add(Duration::from_nanos(nanos)));
        histogram
    }

    #[test]
    fn every_value_is_in_a_bucket_of_at_most_one_percent() {
        let mut previous = None;
        let mut value = 0;
        while value < NANOS_MAX {
            let bucket = bucket_of(value);
            assert!(previous.is_none_or(|previous| bucket == previous + 1), "{value}: a bucket is left out");
            let largest = largest_of(bucket);
            assert_eq!(bucket_of(largest), bucket);
            assert!((largest - value) as f64 <= 0.01 * value as f64, "{value} to {largest}");
            (previous, value) = (Some(bucket), largest + 1);
        }
        assert_eq!(bucket_of(u64::MAX), previous.unwrap());
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list_or_one_percent_more() {
        let mut x = 7_u64;
        let mut values: Vec<u64> = (0..10_000)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (1 << (x >> 59)) | (x >> 40)
            })
            .collect();
        let histogram = of(values.iter().copied());
        values.sort_unstable();
        for share in [0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let told = histogram.percentile(share).unwrap().as_nanos() as u64;
            assert!(told >= exact && told as f64 <= exact as f64 * 1.01, "{share}: {told} for {exact}");
        }
        assert_eq!(histogram.percentile(1.0).unwrap().as_nanos() as u64, *values.last().unwrap());
    }

    #[test]
    fn histograms_that_are_merged_are_that_of_all_values() {
        let mut merged = of([5, 1_000]);
        merged.merge(&of([2_000_000_000, 7]));
        merged.merge(&Histogram::default());
        assert_eq!(merged.summary(), of([5, 7, 1_000, 2_000_000_000]).summary());
        assert_eq!((merged.count(), merged.mean()), (4, Some(Duration::from_nanos(500_000_253))));
    }

    #[test]
    fn an_empty_histogram_tells_nothing_and_an_endless_latency_is_kept_as_maximum() {
        assert_eq!(Histogram::default().summary()["p99_ms"], Value::Null);
        assert_eq!(Histogram::default().mean(), None);
        let endless = of([1, u64::MAX]);
        assert_eq!(endless.percentile(1.0), Some(Duration::from_nanos(u64::MAX)));
        assert_eq!(endless.percentile(0.5), Some(Duration::from_nanos(1)));
    }
}
