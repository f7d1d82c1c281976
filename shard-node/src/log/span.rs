//! Which entries a group has: the arithmetic of appending, cutting and purging, without the entries. The durable index
//! and what callers see follow the same rules through it.

use bytes::Bytes;

/// The entries `first..next` of a group, and what was purged before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// Index of the first entry, if there is one.
    pub(super) first: u64,
    /// Index the next entry will have.
    pub(super) next: u64,
    /// The last purge: every index up to this one is gone, and the caller's marker for it.
    pub(super) purged: Option<(u64, Bytes)>,
}

impl Span {
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        self.first <= index && index < self.next
    }

    /// Takes entry `index`. A group that has neither entries nor a purge begins anywhere, any other goes on without a
    /// gap. The error says what was expected.
    pub(super) fn append(&mut self, index: u64) -> Result<(), String> {
        if index == u64::MAX {
            return Err(format!("no entry can have the index {index}"));
        }
        if self.is_empty() && self.purged.is_none() {
            self.first = index;
        } else if index != self.next {
            return Err(format!("the next entry has the index {}, not {index}", self.next));
        }
        self.next = index + 1;
        Ok(())
    }

    /// Drops the entries from `from` on.
    pub(super) fn truncate(&mut self, from: u64) {
        self.next = self.next.min(from).max(self.first);
    }

    /// Drops the entries up to `index`; true unless a later purge makes this one stale. The entries may end before
    /// `index` (a snapshot replaced them): the group then goes on after it.
    pub(super) fn purge(&mut self, index: u64, marker: &Bytes) -> bool {
        if index == u64::MAX || self.purged.as_ref().is_some_and(|(purged, _)| *purged > index) {
            return false;
        }
        if self.is_empty() || self.next <= index {
            (self.first, self.next) = (index + 1, index + 1);
        } else {
            self.first = self.first.max(index + 1);
        }
        self.purged = Some((index, marker.clone()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Bytes {
        Bytes::from_static(b"m")
    }

    #[test]
    fn entries_follow_each_other() {
        let mut span = Span::default();
        span.append(5).unwrap();
        span.append(6).unwrap();
        assert!(span.append(6).is_err() && span.append(8).is_err());
        assert_eq!((span.first, span.next), (5, 7));
        span.truncate(0);
        assert!(span.is_empty());
        // Nothing was purged: as on the first day, any index may come.
        span.append(2).unwrap();
        assert!(Span::default().append(u64::MAX).is_err());
    }

    #[test]
    fn a_purge_is_a_floor() {
        let mut span = Span::default();
        for index in 0..5 {
            span.append(index).unwrap();
        }
        assert!(span.purge(2, &marker()));
        assert_eq!((span.first, span.next), (3, 5));
        span.truncate(1);
        assert_eq!((span.first, span.next), (3, 3));
        assert!(span.append(2).is_err());
        span.append(3).unwrap();
        assert!(span.purge(9, &marker()));
        assert_eq!((span.first, span.next), (10, 10));
        assert!(!span.purge(8, &marker()));
        assert!(span.append(9).is_err());
        span.append(10).unwrap();
        assert!(span.contains(10) && !span.contains(9) && !span.contains(11));
    }

    #[test]
    fn a_purge_before_the_first_entry_keeps_all() {
        let mut span = Span::default();
        span.append(5).unwrap();
        assert!(span.purge(3, &marker()));
        assert_eq!((span.first, span.next), (5, 6));
    }
}
