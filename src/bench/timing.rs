//! Latencies of many requests and what is said about them.

use std::time::Duration;

use serde_json::{Value, json};

/// The latencies of a run, complete: runs are short enough to keep each one.
#[derive(Clone, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub(super) fn join(mut self, other: Latencies) -> Latencies {
        self.0.extend(other.0);
        self
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Percentiles in milliseconds, by nearest rank.
    pub(super) fn summary(mut self) -> Value {
        self.0.sort_unstable();
        let ms = |share| self.percentile(share).map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3);
        json!({"p50_ms": ms(0.50), "p90_ms": ms(0.90), "p99_ms": ms(0.99), "max_ms": ms(1.0)})
    }

    /// What two runs are compared by; `None` without any latency.
    pub(super) fn spread(mut self) -> Option<Spread> {
        self.0.sort_unstable();
        let mean = self.0.iter().sum::<Duration>().checked_div(u32::try_from(self.0.len()).ok()?)?;
        Some(Spread { mean, p50: self.percentile(0.50)?, p99: self.percentile(0.99)?, max: self.percentile(1.0)? })
    }

    /// By nearest rank; the latencies are sorted.
    fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

/// How long the requests of a run took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) mean: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

/// One JSON object of several, the later ones winning.
pub(super) fn merged(parts: impl IntoIterator<Item = Value>) -> Value {
    let objects = parts.into_iter().filter_map(|part| match part {
        Value::Object(object) => Some(object),
        _ => None,
    });
    Value::Object(objects.flatten().collect())
}

/// A rate, rounded to what is worth reading.
pub(super) fn per_second(n: usize, time: Duration) -> f64 {
    (n as f64 / time.as_secs_f64().max(1e-9) * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let latencies = Latencies((1..=100).rev().map(Duration::from_millis).collect());
        let summary = latencies.summary();
        assert_eq!(summary, json!({"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "max_ms": 100.0}));
        assert_eq!(Latencies::default().summary()["p50_ms"], Value::Null);

        let spread = Latencies((1..=4).map(Duration::from_millis).collect()).spread().unwrap();
        assert_eq!((spread.mean, spread.p50), (Duration::from_micros(2_500), Duration::from_millis(2)));
        assert_eq!((spread.p99, spread.max), (Duration::from_millis(4), Duration::from_millis(4)));
        assert_eq!(Latencies::default().spread(), None);
    }
}
