//! Versions that were replaced or deleted, on their way to a search shard that may hold copies of them.
//!
//! They are facts: late, twice or never is fine. A copy that moved stays for a while, so that a search that asks the
//! old shard and the new one at different moments finds one of the two; and until the new one is in its places, so that
//! a write that is still on its way hides nothing.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use vicinal_common::ids::LogIndex;
use vicinal_common::point::PointId;

/// How long a copy stays where the point is no more.
const MOVED_STAYS: Duration = Duration::from_secs(5);
/// After this the removal is sent even if nothing else is.
const MOVED_ALONE: Duration = Duration::from_secs(10);
/// The same for a deleted point: searches do not show it anyway.
const DELETED_ALONE: Duration = Duration::from_secs(1);
/// Most pairs that wait for one search shard. The oldest are forgotten first, which the sweep makes up for.
const WAITING_MAX: usize = 65_536;
/// Most pairs in one message.
const MESSAGE_MAX: usize = 16_384;

/// A version that is live no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// The point.
    pub(super) id: PointId,
    /// Its version then.
    pub(super) version: LogIndex,
    /// The version that is live instead, of a point that is elsewhere now.
    pub(super) successor: Option<LogIndex>,
}

/// Those that wait for one search shard.
#[derive(Debug, Default)]
pub(super) struct GoneQueue {
    deleted: VecDeque<(Instant, Gone)>,
    moved: VecDeque<(Instant, Gone)>,
}

impl GoneQueue {
    /// Takes one in that was learnt of now.
    pub(super) fn push(&mut self, gone: Gone, now: Instant) {
        let queue = if gone.successor.is_some() { &mut self.moved } else { &mut self.deleted };
        if queue.len() >= WAITING_MAX {
            queue.pop_front();
        }
        queue.push_back((now, gone));
    }

    /// Whether one has waited long enough to be sent alone.
    pub(super) fn is_urgent(&self, published: LogIndex, now: Instant) -> bool {
        let deleted = self.deleted.front().is_some_and(|(since, _)| *since + DELETED_ALONE <= now);
        let moved = self.moved.front().filter(|(_, gone)| gone.successor <= Some(published));
        deleted || moved.is_some_and(|(since, _)| *since + MOVED_ALONE <= now)
    }

    /// Those that may be sent with a message after which no copy with a version below `unsent` is on its way: a copy
    /// that came after the fact that it is gone would stay.
    pub(super) fn take(&mut self, published: LogIndex, unsent: LogIndex, now: Instant) -> Vec<(PointId, LogIndex)> {
        let mut taken = Vec::new();
        let may_go = |gone: &Gone| gone.version < unsent && gone.successor <= Some(published);
        for (queue, stays) in [(&mut self.deleted, Duration::ZERO), (&mut self.moved, MOVED_STAYS)] {
            while let Some((since, gone)) = queue.front()
                && taken.len() < MESSAGE_MAX
                && *since + stays <= now
                && may_go(gone)
            {
                taken.push((gone.id, gone.version));
                queue.pop_front();
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(version: u64, successor: Option<u64>) -> Gone {
        Gone { id: PointId::Num(version), version: LogIndex(version), successor: successor.map(LogIndex) }
    }

    fn taken(queue: &mut GoneQueue, published: u64, unsent: u64, now: Instant) -> Vec<u64> {
        queue.take(LogIndex(published), LogIndex(unsent), now).into_iter().map(|(_, version)| version.0).collect()
    }

    #[test]
    fn deleted_ones_ride_at_once_and_moved_ones_later() {
        let now = Instant::now();
        let mut queue = GoneQueue::default();
        queue.push(gone(3, None), now);
        queue.push(gone(4, Some(9)), now);
        assert_eq!(taken(&mut queue, 9, 100, now), [3]);
        assert!(taken(&mut queue, 9, 100, now + MOVED_STAYS / 2).is_empty());
        assert!(!queue.is_urgent(LogIndex(9), now + MOVED_STAYS));
        assert!(queue.is_urgent(LogIndex(9), now + MOVED_ALONE));
        assert!(!queue.is_urgent(LogIndex(8), now + MOVED_ALONE), "its successor is not in place");
        assert!(taken(&mut queue, 8, 100, now + MOVED_STAYS).is_empty());
        assert_eq!(taken(&mut queue, 9, 100, now + MOVED_STAYS), [4]);
        assert!(queue.moved.is_empty() && queue.deleted.is_empty());
    }

    #[test]
    fn none_goes_before_its_copy() {
        let now = Instant::now();
        let mut queue = GoneQueue::default();
        queue.push(gone(3, None), now);
        assert!(queue.is_urgent(LogIndex(0), now + DELETED_ALONE));
        assert!(taken(&mut queue, 0, 3, now).is_empty());
        assert_eq!(taken(&mut queue, 0, 4, now), [3]);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let now = Instant::now();
        let mut queue = GoneQueue::default();
        (0..=WAITING_MAX as u64).for_each(|version| queue.push(gone(version, None), now));
        let first = taken(&mut queue, 0, u64::MAX, now);
        assert_eq!((first.len(), first[0]), (MESSAGE_MAX, 1));
    }
}
