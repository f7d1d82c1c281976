//! How long a read may go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;
use vicinal_common::error::{Error, Result};

/// Ends reads that are not done by their deadline. What they do is counted in units of about a nanosecond, so that the clock is
/// looked at every few milliseconds.
pub struct Patience {
    deadline: Option<Instant>,
    spent: AtomicU64,
    has_ended: AtomicBool,
}

/// Work between two looks at the clock.
const STEP: u64 = 4_000_000;
/// Work for a row whose payload may have to be read.
pub(super) const ROW_COST: u64 = 500;

impl Patience {
    /// Until then.
    pub fn until(deadline: Instant) -> Patience {
        Patience { deadline: Some(deadline), spent: AtomicU64::new(0), has_ended: AtomicBool::new(false) }
    }

    /// Without an end.
    pub fn endless() -> Patience {
        Patience { deadline: None, spent: AtomicU64::new(0), has_ended: AtomicBool::new(false) }
    }

    /// All work noted so far.
    #[cfg(test)]
    pub(super) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Notes work that is about to be done. `Timeout` when there is no time left for it, and ever after.
    pub(super) fn spend(&self, work: u64) -> Result<()> {
        let before = self.spent.fetch_add(work, Ordering::Relaxed);
        let is_due = before / STEP != before.wrapping_add(work) / STEP;
        if is_due && self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.has_ended.store(true, Ordering::Relaxed);
        }
        match self.has_ended.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::Timeout("the read was not done by its deadline".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_ends_with_the_time() {
        let late = Patience::until(Instant::now() - Duration::from_secs(1));
        let spent = (0..).find(|_| late.spend(ROW_COST).is_err()).unwrap();
        assert_eq!(spent, STEP / ROW_COST - 1);
        assert!(late.spend(1).is_err(), "from then on");
        let patience = Patience::until(Instant::now() + Duration::from_secs(60));
        assert!((0..100).all(|_| patience.spend(STEP).is_ok() && Patience::endless().spend(u64::MAX / 2).is_ok()));
    }
}
