//! How long a read may go on.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use vicinal_common::error::{Error, Result};

/// Ends reads that are not done by their deadline. What they do is counted in units of about a nanosecond, so that the clock is
/// looked at every few milliseconds.
pub struct Patience {
    deadline: Option<Instant>,
    spent: AtomicU64,
}

/// Work between two looks at the clock.
const STEP: u64 = 4_000_000;
/// Work for a row whose payload may have to be read.
pub(super) const ROW_COST: u64 = 500;

impl Patience {
    /// Until then.
    pub fn until(deadline: Instant) -> Patience {
        Patience { deadline: Some(deadline), spent: AtomicU64::new(0) }
    }

    /// Without an end.
    pub fn endless() -> Patience {
        Patience { deadline: None, spent: AtomicU64::new(0) }
    }

    /// Notes work that is about to be done. `Timeout` when there is no time left for it.
    pub(super) fn spend(&self, work: u64) -> Result<()> {
        let before = self.spent.fetch_add(work, Ordering::Relaxed);
        if before / STEP == (before + work) / STEP {
            return Ok(());
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                Err(Error::Timeout("the read was not done by its deadline".into()))
            }
            Some(_) | None => Ok(()),
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
        let patience = Patience::until(Instant::now() + Duration::from_secs(60));
        assert!((0..100).all(|_| patience.spend(STEP).is_ok() && Patience::endless().spend(u64::MAX / 2).is_ok()));
    }
}
