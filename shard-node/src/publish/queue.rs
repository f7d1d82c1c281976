//! What one search shard is still to be sent: copies in the order of their versions, copies for filling, removals.

use std::collections::VecDeque;

use tokio::time::Instant;
use vicinal_common::error::Error;
use vicinal_common::ids::LogIndex;
use vicinal_common::publish::{Copies, Copy};

use super::gone::{Gone, GoneQueue};
use super::limits::Limits;

/// The queue of one search shard. Everything in it is a copy of rows at home: it can be thrown away and made again.
///
/// Invariant: of all rows of this search shard with versions up to `covered` that were live when they were looked at,
/// it has copies; those between `covered` and `sent` are on their way.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    copies: VecDeque<Copy>,
    fill: VecDeque<Copy>,
    gone: GoneQueue,
    /// Bytes of copies that wait or are on their way.
    bytes: usize,
    bytes_under_way: usize,
    is_under_way: bool,
    /// Whether copies for filling are under way.
    fills: bool,
    sent: LogIndex,
    covered: LogIndex,
    /// Where the newest copies are in the log of the search shard; `None` until it has taken something in.
    index: Option<LogIndex>,
    /// Why it did not take what it was sent last.
    trouble: Option<Error>,
    /// The version that is being taken in: a version goes in whole.
    taking: LogIndex,
    is_full: bool,
}

impl Queue {
    /// A queue for rows with versions above `after`.
    pub(super) fn new(after: LogIndex, limits: Limits) -> Queue {
        Queue {
            limits,
            copies: VecDeque::new(),
            fill: VecDeque::new(),
            gone: GoneQueue::default(),
            bytes: 0,
            bytes_under_way: 0,
            is_under_way: false,
            fills: false,
            sent: after,
            covered: after,
            index: None,
            trouble: None,
            taking: after,
            is_full: false,
        }
    }

    /// Versions up to this one are taken in.
    pub(super) fn sent(&self) -> LogIndex {
        self.sent
    }

    /// Versions up to this one are committed in the search shard.
    pub(super) fn covered(&self) -> LogIndex {
        self.covered
    }

    /// See the field.
    pub(super) fn index(&self) -> Option<LogIndex> {
        self.index
    }

    /// Why the search shard did not take what it was sent last.
    pub(super) fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref()
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a round may bring more.
    pub(super) fn is_open(&self) -> bool {
        self.bytes
            < match self.trouble {
                Some(_) => self.limits.queue_bytes_in_trouble,
                None => self.limits.queue_bytes,
            }
    }

    /// Whether it takes a row of the round, whose versions come ascending. Once it is full it takes none of the
    /// versions that follow: a later round begins there.
    pub(super) fn takes(&mut self, version: LogIndex) -> bool {
        if self.is_full || version <= self.sent {
            return false;
        }
        if version != self.taking && !self.is_open() {
            self.is_full = true;
            self.sent = self.sent.max(LogIndex(version.0.saturating_sub(1)));
            return false;
        }
        self.taking = version;
        true
    }

    /// Takes in a copy of a row that it [takes](Queue::takes).
    pub(super) fn push(&mut self, copy: Copy) {
        self.bytes += bytes_of(&copy);
        self.copies.push_back(copy);
    }

    /// The round has shown it all its rows with versions up to `to`.
    pub(super) fn end_round(&mut self, to: LogIndex) {
        if !std::mem::take(&mut self.is_full) {
            self.sent = self.sent.max(to);
        }
        self.cover();
    }

    /// Takes in a copy that somebody fills by.
    pub(super) fn push_fill(&mut self, copy: Copy) {
        self.bytes += bytes_of(&copy);
        self.fill.push_back(copy);
    }

    /// Forgets copies for filling that are not under way.
    pub(super) fn clear_fill(&mut self) {
        self.bytes -= self.fill.drain(..).map(|copy| bytes_of(&copy)).sum::<usize>();
    }

    /// Whether copies for filling wait or are under way.
    pub(super) fn is_filling(&self) -> bool {
        self.fills || !self.fill.is_empty()
    }

    /// Takes in a removal.
    pub(super) fn push_gone(&mut self, gone: Gone, now: Instant) {
        self.gone.push(gone, now);
    }

    /// Whether something waits to be sent at once.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_under_way && (self.index.is_none() || !self.copies.is_empty() || !self.fill.is_empty())
    }

    /// The next message, if one is due; it has to be [`done`](Queue::done) before the next. The first one goes even if
    /// it is empty: an acknowledgement has to say where in its log the search shard has everything.
    pub(super) fn take(&mut self, published: LogIndex, now: Instant) -> Option<Copies> {
        let is_idle = self.copies.is_empty() && self.fill.is_empty() && !self.gone.is_urgent(published, now);
        if self.is_under_way || (is_idle && self.index.is_some()) {
            return None;
        }
        let mut points = Vec::new();
        let mut bytes = move_front(&mut self.copies, &mut points, self.limits.message_bytes);
        let fill_max = match points.is_empty() {
            true => self.limits.fill_bytes_alone,
            false => self.limits.fill_bytes_beside.min(self.limits.message_bytes.saturating_sub(bytes)),
        };
        let before = points.len();
        bytes += move_front(&mut self.fill, &mut points, fill_max);
        self.fills = points.len() > before;
        let gone = match self.fill.is_empty() {
            true => {
                let unsent = self.copies.front().map_or(LogIndex(u64::MAX), |copy| copy.version);
                self.gone.take(published, unsent, now)
            }
            false => Vec::new(),
        };
        self.is_under_way = true;
        self.bytes_under_way = bytes;
        Some(Copies { points, gone, misplaced: None })
    }

    /// The message is committed at this position of the search shard's log.
    pub(super) fn done(&mut self, index: LogIndex) {
        self.is_under_way = false;
        self.fills = false;
        self.bytes -= std::mem::take(&mut self.bytes_under_way);
        self.index = self.index.max(Some(index));
        self.trouble = None;
        self.cover();
    }

    /// The search shard has not taken it yet.
    pub(super) fn failed(&mut self, error: Error) {
        self.trouble = Some(error);
    }

    fn cover(&mut self) {
        if self.is_under_way || self.index.is_none() {
            return;
        }
        let to = self.copies.front().map_or(self.sent, |copy| LogIndex(copy.version.0.saturating_sub(1)));
        self.covered = self.covered.max(to);
    }
}

/// Moves copies over while they fit, but at least one where there is nothing yet. Returns their bytes.
fn move_front(from: &mut VecDeque<Copy>, to: &mut Vec<Copy>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    while let Some(copy) = from.front() {
        let size = bytes_of(copy);
        if bytes + size > bytes_max && !to.is_empty() {
            break;
        }
        bytes += size;
        to.extend(from.pop_front());
    }
    bytes
}

/// About how many bytes a copy takes, in memory as on the wire.
pub(super) fn bytes_of(copy: &Copy) -> usize {
    const ITEM: usize = 48;
    let vectors = copy.point.vectors.values().map(|vector| ITEM + vector.bytes()).sum::<usize>();
    ITEM + copy.point.payload.as_bytes().len() + vectors
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use vicinal_common::payload::Payload;
    use vicinal_common::point::{Point, PointId};

    use super::*;

    const QUEUE_BYTES_IN_TROUBLE: usize = 1 << 20;
    const FILL_BYTES_BESIDE: usize = 256 << 10;

    fn queue(after: u64) -> Queue {
        Queue::new(LogIndex(after), Limits::default())
    }

    fn copy(version: u64, bytes: usize) -> Copy {
        let payload = Payload::from_stored(Bytes::from(vec![b' '; bytes]));
        let point = Point { id: PointId::Num(version), vectors: BTreeMap::new(), payload };
        Copy { version: LogIndex(version), point }
    }

    fn versions(copies: &Copies) -> Vec<u64> {
        copies.points.iter().map(|copy| copy.version.0).collect()
    }

    fn round(queue: &mut Queue, rows: impl IntoIterator<Item = (u64, usize)>, to: u64) {
        for (version, bytes) in rows {
            if queue.takes(LogIndex(version)) {
                queue.push(copy(version, bytes));
            }
        }
        queue.end_round(LogIndex(to));
    }

    #[test]
    fn it_covers_what_is_committed_and_nothing_before_the_first_message() {
        let now = Instant::now();
        let mut queue = queue(5);
        round(&mut queue, [], 9);
        assert_eq!((queue.covered(), queue.sent()), (LogIndex(5), LogIndex(9)));
        assert_eq!(queue.take(LogIndex(5), now), Some(Copies::default()));
        assert_eq!(queue.take(LogIndex(5), now), None, "one at a time");
        round(&mut queue, [(10, 5), (11, 5)], 12);
        queue.done(LogIndex(77));
        assert_eq!((queue.covered(), queue.index()), (LogIndex(9), Some(LogIndex(77))));
        assert_eq!(versions(&queue.take(LogIndex(5), now).unwrap()), [10, 11]);
        round(&mut queue, [], 15);
        assert_eq!(queue.covered(), LogIndex(9));
        queue.done(LogIndex(78));
        assert_eq!(queue.covered(), LogIndex(15));
        assert_eq!((queue.take(LogIndex(5), now), queue.bytes()), (None, 0));
        round(&mut queue, [], 20);
        assert_eq!(queue.covered(), LogIndex(20), "nothing to send");
    }

    #[test]
    fn a_version_cut_between_messages_counts_when_all_of_it_is_there() {
        let now = Instant::now();
        let mut queue = queue(0);
        round(&mut queue, [(1, 3 << 20), (2, 1000), (2, 3 << 20)], 4);
        assert_eq!(versions(&queue.take(LogIndex(0), now).unwrap()), [1, 2]);
        queue.done(LogIndex(1));
        assert_eq!(queue.covered(), LogIndex(1));
        assert_eq!(versions(&queue.take(LogIndex(0), now).unwrap()), [2]);
        queue.done(LogIndex(2));
        assert_eq!(queue.covered(), LogIndex(4));
    }

    #[test]
    fn a_full_queue_ends_between_versions_and_goes_on_there() {
        let now = Instant::now();
        let mut queue = queue(0);
        queue.failed(Error::Unavailable("away".into()));
        round(&mut queue, [(1, QUEUE_BYTES_IN_TROUBLE), (1, 10), (3, 10), (4, 10)], 5);
        assert_eq!((queue.sent(), queue.is_open()), (LogIndex(2), false));
        assert_eq!(versions(&queue.take(LogIndex(0), now).unwrap()), [1, 1]);
        queue.done(LogIndex(1));
        assert_eq!((queue.covered(), queue.is_open()), (LogIndex(2), true));
        round(&mut queue, [(1, 10), (3, 10), (4, 10)], 5);
        assert_eq!(versions(&queue.take(LogIndex(0), now).unwrap()), [3, 4]);
        assert_eq!(queue.sent(), LogIndex(5));
    }

    #[test]
    fn filling_gives_way_and_removals_wait_for_it() {
        let now = Instant::now();
        let mut queue = queue(9);
        (0..3).for_each(|i| queue.push_fill(copy(i, FILL_BYTES_BESIDE / 2)));
        queue.push_gone(Gone { id: PointId::Num(1), version: LogIndex(1), successor: None }, now);
        round(&mut queue, [(10, 5)], 10);
        let first = queue.take(LogIndex(9), now).unwrap();
        assert_eq!((versions(&first), first.gone), (vec![10, 0], vec![]));
        queue.done(LogIndex(1));
        assert!(queue.is_filling() && queue.covered() == LogIndex(10));
        let second = queue.take(LogIndex(9), now).unwrap();
        assert_eq!((versions(&second), second.gone), (vec![1, 2], vec![(PointId::Num(1), LogIndex(1))]));
        assert!(queue.is_filling());
        queue.done(LogIndex(2));
        assert!(!queue.is_filling() && queue.bytes() == 0);
    }
}
