//! Requests counted by route and status, for `GET /telemetry`.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// What is known of all requests since the start. Bounded: a key is a route of this server with a
/// method and a status it gives.
#[derive(Debug, Default)]
pub(crate) struct RequestStats {
    routes: Mutex<BTreeMap<String, Answers>>,
}

/// Answers of one route by method and status.
type Answers = BTreeMap<(&'static str, u16), Times>;

/// How often, how long.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    count: u64,
    total_us: u64,
    min_us: u64,
    max_us: u64,
}

impl RequestStats {
    /// Counts an answer to `route`, which is the path as it was declared: `/collections/{collection}`.
    pub(super) fn note(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut routes = self.routes.lock();
        // Looked up first: the name is copied once per route, not once per request.
        let answers = match routes.get_mut(route) {
            Some(answers) => answers,
            None => routes.entry(route.to_owned()).or_default(),
        };
        let times = answers.entry((method, status)).or_default();
        times.min_us = if times.count == 0 { us } else { times.min_us.min(us) };
        times.max_us = times.max_us.max(us);
        times.total_us = times.total_us.saturating_add(us);
        times.count += 1;
    }

    /// As the API shows it: method and route, then status, then figures in microseconds.
    pub(super) fn shown(&self) -> Value {
        let mut shown: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (route, answers) in self.routes.lock().iter() {
            for ((method, status), times) in answers {
                shown.entry(format!("{method} {route}")).or_default().insert(status.to_string(), times.shown());
            }
        }
        shown.into_iter().collect()
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
            stats.note("GET", "/x", status, Duration::from_millis(ms));
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
