//! Requests counted by route and status, for `GET /telemetry`.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// What is known of all requests since the start. Bounded: a key is a route of this server and a status it gives.
#[derive(Debug, Default)]
pub(crate) struct RequestStats {
    routes: Mutex<BTreeMap<String, BTreeMap<u16, Times>>>,
}

/// How often, how long.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    count: u64,
    total_us: u64,
    min_us: u64,
    max_us: u64,
}

impl RequestStats {
    /// Counts an answer to `route`, which is a method and the path as it was declared: `GET /collections/{collection}`.
    pub(super) fn note(&self, route: &str, status: u16, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut routes = self.routes.lock();
        // Looked up first: the name is copied once per route, not once per request.
        let statuses = match routes.get_mut(route) {
            Some(statuses) => statuses,
            None => routes.entry(route.to_owned()).or_default(),
        };
        let times = statuses.entry(status).or_default();
        times.min_us = if times.count == 0 { us } else { times.min_us.min(us) };
        times.max_us = times.max_us.max(us);
        times.total_us = times.total_us.saturating_add(us);
        times.count += 1;
    }

    /// As the API shows it: route, then status, then figures in microseconds.
    pub(super) fn shown(&self) -> Value {
        let by_status = |statuses: &BTreeMap<u16, Times>| -> Map<String, Value> {
            statuses.iter().map(|(status, times)| (status.to_string(), times.shown())).collect()
        };
        let routes = self.routes.lock();
        routes.iter().map(|(route, statuses)| (route.clone(), by_status(statuses))).collect()
    }
}

impl Times {
    fn shown(&self) -> Value {
        json!({
            "count": self.count,
            "avg_duration_micros": self.total_us as f64 / self.count as f64,
            "min_duration_micros": self.min_us,
            "max_duration_micros": self.max_us,
            "total_duration_micros": self.total_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_kept_per_route_and_status() {
        let stats = RequestStats::default();
        for (status, ms) in [(200, 2), (200, 4), (404, 1)] {
            stats.note("GET /x", status, Duration::from_millis(ms));
        }
        let shown = stats.shown();
        assert_eq!(
            shown["GET /x"]["200"],
            json!({
                "count": 2,
                "avg_duration_micros": 3_000.0,
                "min_duration_micros": 2_000,
                "max_duration_micros": 4_000,
                "total_duration_micros": 6_000,
            })
        );
        assert_eq!(shown["GET /x"]["404"]["count"], 1);
    }
}
