//! Which client writes were applied, and what became of them: a retry is answered, not applied again.

use std::collections::{HashMap, VecDeque};

use vicinal_common::ids::RequestId;
use vicinal_common::limits::REQUEST_TABLE_MAX;

use crate::manifest::RequestRecord;

/// The last [`REQUEST_TABLE_MAX`] writes in log order. Part of the replicated state: equal on all replicas.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestTable {
    /// Positions in `records`, counted from the first record ever.
    positions: HashMap<(RequestId, u32), u64>,
    records: VecDeque<RequestRecord>,
    /// Records forgotten so far.
    forgotten: u64,
}

impl RequestTable {
    /// What became of a write, if it was applied.
    pub(super) fn get(&self, request: RequestId, part: u32) -> Option<&RequestRecord> {
        let position = self.positions.get(&(request, part))?;
        self.records.get(usize::try_from(position - self.forgotten).ok()?)
    }

    /// Remembers a write that is not in the table, and forgets the oldest one when there are too many.
    pub(super) fn insert(&mut self, record: RequestRecord) {
        if self.records.len() >= REQUEST_TABLE_MAX
            && let Some(oldest) = self.records.pop_front()
        {
            self.positions.remove(&(oldest.request, oldest.part));
            self.forgotten += 1;
        }
        self.positions.insert((record.request, record.part), self.forgotten + self.records.len() as u64);
        self.records.push_back(record);
    }

    /// All records in log order.
    pub(super) fn records(&self) -> Vec<RequestRecord> {
        self.records.iter().cloned().collect()
    }
}

impl FromIterator<RequestRecord> for RequestTable {
    fn from_iter<I: IntoIterator<Item = RequestRecord>>(records: I) -> RequestTable {
        let mut table = RequestTable::default();
        for record in records {
            table.insert(record);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::api::Effect;

    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut table = RequestTable::default();
        let record =
            |i: u128| RequestRecord { request: RequestId(i), part: 1, index: i as u64, outcome: Ok(Effect::of(1)) };
        for i in 0..REQUEST_TABLE_MAX as u128 + 10 {
            table.insert(record(i));
        }
        assert!(table.get(RequestId(9), 1).is_none());
        assert_eq!(table.get(RequestId(10), 1), Some(&record(10)));
        assert_eq!(table.get(RequestId(4_000), 1), Some(&record(4_000)));
        assert!(table.get(RequestId(4_000), 0).is_none());
        let again: RequestTable = table.records().into_iter().collect();
        assert_eq!(again.get(RequestId(4_105), 1), Some(&record(4_105)));
        assert_eq!(again.records().len(), REQUEST_TABLE_MAX);
    }
}
