//! What is counted of the requests of a step.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use super::recall::Kept;

/// Longest text kept of an error, in characters.
const EXAMPLE_CHARS_MAX: usize = 300;

/// Why a request brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ErrorKind {
    /// The server answered with a status that is not 2xx.
    Status(u16),
    /// No answer within `--timeout`.
    Timeout,
    /// No connection could be made.
    Connect,
    /// The connection broke before the answer was complete.
    Broken,
    /// The answer says something that cannot be understood.
    Unreadable,
}

impl ErrorKind {
    /// The name in the JSON line.
    pub(super) fn name(self) -> String {
        match self {
            ErrorKind::Status(status) => format!("http_{status}"),
            ErrorKind::Timeout => "timeout".to_owned(),
            ErrorKind::Connect => "connect".to_owned(),
            ErrorKind::Broken => "broken".to_owned(),
            ErrorKind::Unreadable => "unreadable".to_owned(),
        }
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Write,
}

/// Requests of one kind.
#[derive(Clone, Default)]
pub(super) struct Requests {
    /// Of those that were answered.
    pub(super) latencies: Histogram,
    /// Of any start, answered within the measured time: what the rate is made of.
    pub(super) answered_within: u64,
    pub(super) failed: u64,
}

/// All of a step, or the part of it that some workers saw. But for `answered_within`, requests count that were meant to
/// start within the measured time, and all of these, however late they ended.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) queries: Requests,
    pub(super) writes: Requests,
    pub(super) errors: BTreeMap<ErrorKind, u64>,
    /// The text of the first error of each kind.
    pub(super) examples: BTreeMap<ErrorKind, String>,
    /// Answers that lack the part of some shard.
    pub(super) partial: u64,
    /// Bytes of all answers to queries.
    pub(super) answer_bytes: u64,
    /// How long the server says that it took for the answers to queries.
    pub(super) server_times: Histogram,
    /// Shards asked for the answers to queries, and how many answers told of it.
    pub(super) shards_asked: (u64, u64),
    /// From the intended start to the actual one, in the open loop.
    pub(super) lateness: Histogram,
    pub(super) kept: Vec<Kept>,
}

impl Tally {
    pub(super) fn of_mut(&mut self, kind: Kind) -> &mut Requests {
        match kind {
            Kind::Query => &mut self.queries,
            Kind::Write => &mut self.writes,
        }
    }

    pub(super) fn answered(&mut self, kind: Kind, latency: Duration) {
        self.of_mut(kind).latencies.add(latency);
    }

    pub(super) fn failed(&mut self, kind: Kind, error: ErrorKind, text: &str) {
        self.of_mut(kind).failed += 1;
        *self.errors.entry(error).or_default() += 1;
        self.examples.entry(error).or_insert_with(|| text.chars().take(EXAMPLE_CHARS_MAX).collect());
    }

    pub(super) fn merge(&mut self, other: Tally) {
        for (requests, more) in [(&mut self.queries, &other.queries), (&mut self.writes, &other.writes)] {
            requests.latencies.merge(&more.latencies);
            requests.answered_within += more.answered_within;
            requests.failed += more.failed;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        for (error, text) in other.examples {
            self.examples.entry(error).or_insert(text);
        }
        self.partial += other.partial;
        self.answer_bytes += other.answer_bytes;
        self.server_times.merge(&other.server_times);
        self.shards_asked.0 += other.shards_asked.0;
        self.shards_asked.1 += other.shards_asked.1;
        self.lateness.merge(&other.lateness);
        self.kept.extend(other.kept);
    }

    /// Requests that were answered, and those that failed.
    pub(super) fn totals(&self) -> (u64, u64) {
        let answered = self.queries.latencies.count() + self.writes.latencies.count();
        (answered, self.queries.failed + self.writes.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut whole = Tally::default();
        whole.answered(Kind::Query, Duration::from_millis(2));
        whole.failed(Kind::Query, ErrorKind::Status(503), "first");
        let mut part = Tally { partial: 2, answer_bytes: 70, shards_asked: (8, 2), ..Tally::default() };
        part.answered(Kind::Write, Duration::from_millis(9));
        part.failed(Kind::Write, ErrorKind::Status(503), &"x".repeat(1_000));
        part.failed(Kind::Write, ErrorKind::Timeout, &"é".repeat(1_000));
        whole.merge(part);
        assert_eq!(whole.totals(), (2, 3));
        assert_eq!(whole.errors, BTreeMap::from([(ErrorKind::Status(503), 2), (ErrorKind::Timeout, 1)]));
        assert_eq!(whole.examples[&ErrorKind::Status(503)], "first");
        assert_eq!(whole.examples[&ErrorKind::Timeout].chars().count(), EXAMPLE_CHARS_MAX);
        assert_eq!((whole.partial, whole.answer_bytes, whole.writes.failed), (2, 70, 2));
        assert_eq!(whole.shards_asked, (8, 2));
    }
}
