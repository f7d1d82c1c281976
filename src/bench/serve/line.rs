//! What is told of a step: a line of JSON, and rows of a table for people.

use serde_json::{Map, Value, json};

use super::args::Mode;
use super::histogram::millis;
use super::recall::Recall;
use super::tally::{Requests, Tally};
use super::watch::Seen;
use crate::bench::timing::merged;

/// The head of the table. Latencies are in milliseconds.
pub(super) fn head() -> String {
    let [p50, p90, p99, p99_9, max] = ["p50 ms", "p90", "p99", "p99.9", "max"];
    format!(
        "{:<20} {:>5} {:>11} {p50:>8} {p90:>8} {p99:>8} {p99_9:>8} {max:>8} {:>8} {:>8} {:>8} {:>12} {:>9}",
        "load", "what", "answers/s", "recall", "failed", "partial", "not started", "late p99",
    )
}

/// A step that has been measured.
pub(super) struct Measured {
    pub(super) mode: Mode,
    /// Measured time.
    pub(super) seconds: f64,
    /// Queries per request.
    pub(super) batch_queries: usize,
    /// Points per write.
    pub(super) write_batch: usize,
    pub(super) tally: Tally,
    /// Requests of the open loop that could not start.
    pub(super) not_started: u64,
    /// Where answers were compared.
    pub(super) recall: Option<Recall>,
    /// What was seen of the servers, where they were watched.
    pub(super) seen: Seen,
}

impl Measured {
    /// The fields of the line that are of this step alone.
    pub(super) fn line(&self) -> Value {
        let (answered, failed) = self.tally.totals();
        let tally = &self.tally;
        let load = match self.mode {
            Mode::Closed { concurrency } => json!({"mode": "closed", "concurrency": concurrency}),
            Mode::Open { rate, in_flight } => json!({
                "mode": "open",
                "rate": rate,
                "in_flight_max": in_flight,
                "late_p50_ms": tally.lateness.percentile(0.50).map(millis),
                "late_p99_ms": tally.lateness.percentile(0.99).map(millis),
                "late_max_ms": tally.lateness.percentile(1.0).map(millis),
            }),
        };
        let errors: Map<String, Value> =
            tally.errors.iter().map(|(error, count)| (error.name(), json!(count))).collect();
        let answered_within = tally.queries.answered_within + tally.writes.answered_within;
        let mean_bytes = (tally.queries.latencies.count() > 0)
            .then(|| (tally.answer_bytes as f64 / tally.queries.latencies.count() as f64).round());
        let [p50, server_p50] = [&tally.queries.latencies, &tally.server_times].map(|times| times.percentile(0.5));
        merged([
            load,
            self.seen.line(p50, server_p50),
            json!({
                "phase": "query",
                "requests": answered + failed,
                "answered": answered,
                "failed": failed,
                "not_started": self.not_started,
                "errors": errors,
                "partial": tally.partial,
                "requests_per_s": self.per_second(answered_within, 1),
                "queries_per_s": self.per_second(tally.queries.answered_within, self.batch_queries),
                "points_written_per_s": self.per_second(tally.writes.answered_within, self.write_batch),
                "answer_bytes": mean_bytes,
                "server_p50_ms": server_p50.map(millis),
                "shards_asked": self.shards_asked(),
                "recall": self.recall.and_then(|recall| recall.share()),
                "recall_queries": self.recall.map(|recall| recall.queries),
                "recall_unreadable": self.recall.map(|recall| recall.unreadable),
                "writes": self.of_writes(),
            }),
            tally.queries.latencies.summary(),
        ])
    }

    /// Shards asked for a query, on average, where answers tell of it.
    fn shards_asked(&self) -> Option<f64> {
        let (asked, told) = self.tally.shards_asked;
        (told > 0).then(|| (asked as f64 / told as f64 * 1e3).round() / 1e3)
    }

    /// Whether there were requests, and not one was answered.
    pub(super) fn is_unanswered(&self) -> bool {
        let (answered, failed) = self.tally.totals();
        let late = self.tally.queries.answered_within + self.tally.writes.answered_within;
        answered + late == 0 && failed + self.not_started > 0
    }

    /// Null without any.
    fn of_writes(&self) -> Value {
        let writes = &self.tally.writes;
        let answered = writes.latencies.count();
        if answered + writes.failed == 0 {
            return Value::Null;
        }
        merged([json!({"answered": answered, "failed": writes.failed}), writes.latencies.summary()])
    }

    fn per_second(&self, requests: u64, each: usize) -> f64 {
        (requests as f64 * each as f64 / self.seconds.max(1e-9) * 10.0).round() / 10.0
    }

    /// Rows of the table: one for the queries, one for the writes, where there are any.
    pub(super) fn rows(&self) -> Vec<String> {
        let load = match self.mode {
            Mode::Closed { concurrency } => format!("{concurrency} in flight"),
            Mode::Open { rate, .. } => format!("{rate} per s"),
        };
        let of_all = |requests: &Requests| requests.latencies.count() + requests.failed > 0;
        let mut rows = Vec::new();
        if of_all(&self.tally.queries) || !of_all(&self.tally.writes) {
            let recall = self.recall.and_then(|recall| recall.share()).map(|share| format!("{share:.4}"));
            let late = match self.mode {
                Mode::Closed { .. } => None,
                Mode::Open { .. } => self.tally.lateness.percentile(0.99).map(|late| format!("{:.3}", millis(late))),
            };
            rows.push(format!(
                "{load:<20} {} {:>8} {:>8} {:>8} {:>12} {:>9}",
                self.columns("query", &self.tally.queries),
                recall.as_deref().unwrap_or("-"),
                self.tally.queries.failed,
                self.tally.partial,
                self.not_started,
                late.as_deref().unwrap_or("-"),
            ));
        }
        if of_all(&self.tally.writes) {
            let columns = self.columns("write", &self.tally.writes);
            rows.push(format!("{load:<20} {columns} {:>8} {:>8}", "-", self.tally.writes.failed));
        }
        rows
    }

    fn columns(&self, what: &str, requests: &Requests) -> String {
        let ms = |share| match requests.latencies.percentile(share) {
            Some(latency) => format!("{:>8.3}", millis(latency)),
            None => format!("{:>8}", "-"),
        };
        format!(
            "{what:>5} {:>11.1} {} {} {} {} {}",
            self.per_second(requests.answered_within, 1),
            ms(0.50),
            ms(0.90),
            ms(0.99),
            ms(0.999),
            ms(1.0),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tally::{ErrorKind, Kind};
    use super::*;

    fn measured(mode: Mode) -> Measured {
        let mut tally = Tally { partial: 1, answer_bytes: 900, shards_asked: (7, 2), ..Tally::default() };
        for ms in [1, 2, 3] {
            tally.answered(Kind::Query, Duration::from_millis(ms));
            tally.lateness.add(Duration::from_micros(50));
        }
        tally.failed(Kind::Query, ErrorKind::Status(503), "busy");
        tally.queries.answered_within = 3;
        let seen = Seen::default();
        Measured { mode, seconds: 2.0, batch_queries: 10, write_batch: 5, tally, not_started: 4, recall: None, seen }
    }

    #[test]
    fn a_line_of_the_open_loop_has_rate_lateness_and_what_did_not_start() {
        let line = measured(Mode::Open { rate: 2.5, in_flight: 7 }).line();
        assert_eq!((&line["mode"], &line["rate"], &line["in_flight_max"]), (&json!("open"), &json!(2.5), &json!(7)));
        assert_eq!((&line["late_p99_ms"], &line["not_started"]), (&json!(0.05), &json!(4)));
        assert_eq!((&line["requests"], &line["answered"], &line["failed"]), (&json!(4), &json!(3), &json!(1)));
        assert_eq!(line["errors"], json!({"http_503": 1}));
        assert_eq!((&line["requests_per_s"], &line["queries_per_s"]), (&json!(1.5), &json!(15.0)));
        assert_eq!((&line["answer_bytes"], &line["partial"]), (&json!(300.0), &json!(1)));
        assert_eq!((&line["shards_asked"], line.get("server_cpu_us")), (&json!(3.5), None));
        assert_eq!((&line["max_ms"], &line["recall"], &line["writes"]), (&json!(3.0), &Value::Null, &Value::Null));
        let p50 = line["p50_ms"].as_f64().unwrap();
        assert!((2.0..=2.02).contains(&p50), "{p50}");
    }

    #[test]
    fn writes_have_latencies_of_their_own() {
        let mut measured = measured(Mode::Closed { concurrency: 3 });
        measured.tally.answered(Kind::Write, Duration::from_millis(40));
        measured.tally.writes.answered_within = 1;
        let line = measured.line();
        assert_eq!((&line["mode"], &line["concurrency"]), (&json!("closed"), &json!(3)));
        assert!(line.get("late_p99_ms").is_none() && line.get("rate").is_none());
        assert_eq!((&line["writes"]["answered"], &line["writes"]["max_ms"]), (&json!(1), &json!(40.0)));
        assert_eq!((&line["max_ms"], &line["points_written_per_s"]), (&json!(3.0), &json!(2.5)));
        assert_eq!(line["requests_per_s"], json!(2.0));
        assert_eq!(measured.rows().len(), 2);
    }

    #[test]
    fn a_step_without_requests_is_no_failure_and_one_without_answers_is() {
        let mut measured = measured(Mode::Closed { concurrency: 1 });
        assert!(!measured.is_unanswered());
        measured.tally = Tally::default();
        assert!(measured.is_unanswered(), "four could not start");
        measured.not_started = 0;
        assert!(!measured.is_unanswered());
        measured.tally.failed(Kind::Write, ErrorKind::Timeout, "late");
        assert!(measured.is_unanswered());
    }

    #[test]
    fn rows_fit_under_the_head() {
        let rows = measured(Mode::Open { rate: 2.5, in_flight: 7 }).rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].len(), head().len());
        assert!(rows[0].starts_with("2.5 per s ") && rows[0].ends_with("0.050"), "{}", rows[0]);
        let nothing = Measured { tally: Tally::default(), ..measured(Mode::Closed { concurrency: 1 }) };
        assert_eq!(nothing.rows()[0].len(), head().len());
        assert_eq!(nothing.line()["p99_ms"], Value::Null);
    }
}
