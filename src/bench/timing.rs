//! Latencies of many requests and what is said about them.

use std::time::Duration;

use serde_json::{Value, json};

/// The latencies of a run, complete: runs are short enough to keep each one.
#[derive(Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub(super) fn join(mut self, other: Latencies) -> Latencies {
        self.0.extend(other.0);
        self
    }

    /// Percentiles in milliseconds, by nearest rank.
    pub(super) fn summary(mut self) -> Value {
        self.0.sort_unstable();
        json!({
            "p50_ms": self.percentile(0.50),
            "p90_ms": self.percentile(0.90),
            "p99_ms": self.percentile(0.99),
            "max_ms": self.percentile(1.0),
        })
    }

    fn percentile(&self, share: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        let latency = self.0.get(rank.saturating_sub(1))?;
        Some((latency.as_secs_f64() * 1e6).round() / 1e3)
    }
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
    }
}
