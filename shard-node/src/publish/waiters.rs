//! Those who wait until what they wrote can be found.

use std::collections::BTreeMap;

use vicinal_common::ids::{LogIndex, ShardId};

use super::round::{Rounds, Standing};

/// Names one that waits.
pub(super) type Ticket = (LogIndex, u64);

/// Those who wait, by the positions of their writes.
#[derive(Debug)]
pub(super) struct Waiters<T> {
    waiting: BTreeMap<Ticket, T>,
    tickets: u64,
}

impl<T> Default for Waiters<T> {
    fn default() -> Waiters<T> {
        Waiters { waiting: BTreeMap::new(), tickets: 0 }
    }
}

impl<T> Waiters<T> {
    /// One more, who is told by `waiter` how the write at `index` ends.
    pub(super) fn add(&mut self, index: LogIndex, waiter: T) -> Ticket {
        self.tickets += 1;
        let ticket = (index, self.tickets);
        self.waiting.insert(ticket, waiter);
        ticket
    }

    /// Forgets one who does not wait any more.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Takes out those whose writes are where they belong, with the positions in the search shards' logs.
    pub(super) fn release(&mut self, rounds: &Rounds) -> Vec<(T, Vec<(ShardId, LogIndex)>)> {
        let mut done = Vec::new();
        for (ticket, _) in self.waiting.range(..=(rounds.head(), u64::MAX)) {
            if let Standing::Done(copies) = rounds.standing(ticket.0) {
                done.push((*ticket, copies));
            }
        }
        let out = |(ticket, copies)| self.waiting.remove(&ticket).map(|waiter| (waiter, copies));
        done.into_iter().filter_map(out).collect()
    }

    /// Takes out all.
    pub(super) fn drain(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}
