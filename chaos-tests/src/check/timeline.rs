//! Which versions of a point a read may return: the writes of every point, with the time in which each took effect.

use std::collections::HashMap;

use crate::op::{Record, Version};

/// When a write may have taken effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) start: u64,
    /// Its answer; without one it may take effect at any later time.
    pub(super) settled: u64,
    pub(super) is_acknowledged: bool,
    /// It was refused: it never takes effect.
    pub(super) is_refused: bool,
}

/// All writes of a history.
pub(super) struct Timeline {
    writes: HashMap<Version, Written>,
}

impl Timeline {
    pub(super) fn of(records: &[Record]) -> Timeline {
        let mut writes = HashMap::new();
        for record in records {
            let is_acknowledged = record.is_ok();
            let is_refused = !is_acknowledged && record.settled() != u64::MAX;
            let written = Written { start: record.start, settled: record.settled(), is_acknowledged, is_refused };
            writes.extend(record.written().iter().map(|version| (*version, written)));
        }
        Timeline { writes }
    }

    pub(super) fn get(&self, version: Version) -> Option<&Written> {
        self.writes.get(&version)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Version, &Written)> {
        self.writes.iter()
    }

    /// Whether the one was over for good before the other began: after the other it cannot be seen any more.
    pub(super) fn is_before(&self, one: Version, other: Version) -> bool {
        match (self.get(one), self.get(other)) {
            (Some(one), Some(other)) => one.settled < other.start,
            (None, _) | (_, None) => false,
        }
    }

    /// What is wrong with a version that was read until `end`, whatever the reader knows.
    pub(super) fn impossible(&self, version: Version, end: u64) -> Option<&'static str> {
        match self.get(version) {
            None => Some("nobody ever wrote it"),
            Some(written) if written.is_refused => Some("its write was refused"),
            Some(written) if written.start > end => Some("it was read before it was written"),
            Some(_) => None,
        }
    }
}
