//! The history of a run: every operation with its outcome, in the order in which they ended. Nothing is ever changed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use crate::op::{Operation, Outcome, Record};

/// Variable that names a directory; histories and logs are written there as files.
const DIR: &str = "CHAOS_HISTORY";
/// Most operations of one run: an hour at several thousand a second would be too long for the checkers' memory.
const RECORDS_MAX: usize = 8_000_000;

/// An append-only history.
pub struct History {
    began: Instant,
    records: Mutex<Vec<Record>>,
}

impl Default for History {
    fn default() -> History {
        History { began: Instant::now(), records: Mutex::default() }
    }
}

/// How many operations of one kind ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Carried out.
    pub ok: usize,
    /// Certainly not.
    pub failed: usize,
    /// Unknown.
    pub unknown: usize,
}

impl History {
    /// Microseconds since the history began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Appends an operation.
    ///
    /// # Panics
    /// When the history is full: the run was asked to be longer than the harness can check.
    pub fn push(&self, record: Record) {
        let mut records = self.records.lock().expect("nobody panics while holding the records");
        assert!(records.len() < RECORDS_MAX, "the history is full; choose fewer minutes or a lower rate");
        records.push(record);
    }

    /// A copy of all that has ended so far.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().expect("nobody panics while holding the records").clone()
    }

    /// A copy of those after the first `n`.
    pub fn records_from(&self, n: usize) -> Vec<Record> {
        let records = self.records.lock().expect("nobody panics while holding the records");
        records.get(n..).unwrap_or_default().to_vec()
    }

    /// Operations that have ended so far.
    pub fn len(&self) -> usize {
        self.records.lock().expect("nobody panics while holding the records").len()
    }

    /// Whether nothing has ended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where files of a run go, when somebody asked for them.
pub fn record_dir() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os(DIR)?);
    std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{DIR}={}: {error}", dir.display()));
    Some(dir)
}

/// Writes records as lines of JSON.
pub fn write_json_lines(records: &[Record], path: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for record in records {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// Counts the chosen operations by outcome.
pub fn tally(records: &[Record], chosen: impl Fn(&Operation) -> bool) -> Tally {
    let mut tally = Tally::default();
    for record in records.iter().filter(|record| chosen(&record.operation)) {
        match record.outcome {
            Outcome::Ok(_) => tally.ok += 1,
            Outcome::Fail(_) => tally.failed += 1,
            Outcome::Unknown(_) => tally.unknown += 1,
        }
    }
    tally
}

/// The longest time without a success among the chosen operations between two instants, in microseconds. A success is
/// what was *asked* after the start, so that an answer that was on its way already does not hide the gap.
pub fn longest_gap(records: &[Record], from: u64, until: u64, chosen: impl Fn(&Record) -> bool) -> u64 {
    let counts = |record: &&Record| record.start >= from && record.end <= until && record.is_ok() && chosen(record);
    let mut ends: Vec<u64> = records.iter().filter(counts).map(|record| record.end).collect();
    ends.sort_unstable();
    let (mut last, mut longest) = (from, 0);
    for end in ends.into_iter().chain([until]) {
        longest = longest.max(end - last);
        last = end;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Found, Version};

    fn write(start: u64, end: u64, outcome: Outcome) -> Record {
        let operation = Operation::Write(vec![Version { id: start, serial: start }]);
        Record { client: 1, via: "c1".to_owned(), has_token: false, operation, outcome, start, end }
    }

    #[test]
    fn the_longest_gap_is_between_successes_asked_for_after_the_start() {
        let ok = || Outcome::Ok(Found::default());
        let records = [
            write(5, 30, ok()),
            write(20, 40, Outcome::Unknown("time-out".to_owned())),
            write(45, 50, ok()),
            write(60, 65, ok()),
        ];
        assert_eq!(longest_gap(&records, 10, 70, Record::is_acknowledged), 40);
        assert_eq!(longest_gap(&records, 10, 200, Record::is_acknowledged), 135);
        let tally = tally(&records, |operation| matches!(operation, Operation::Write(_)));
        assert_eq!(tally, Tally { ok: 3, failed: 0, unknown: 1 });
    }

    #[test]
    fn a_history_becomes_lines_of_json() {
        let history = History::default();
        history.push(write(1, 2, Outcome::Fail("connection refused".to_owned())));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        write_json_lines(&history.records(), &path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["outcome"]["Fail"], "connection refused");
        assert_eq!(line["operation"]["Write"][0]["serial"], 1);
    }
}
