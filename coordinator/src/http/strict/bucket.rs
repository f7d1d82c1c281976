//! A token bucket: so many tokens come in a minute, evenly, and no more than that are ever held.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Tokens, and when they were counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    per_minute: u64,
    tokens: f64,
    counted: Instant,
}

/// Why tokens were not given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shortage {
    /// More were asked for than the bucket can hold.
    TooMany,
    /// So many are there; enough of them are after so many seconds, at least 1.
    Wait { available: f64, seconds: u64 },
}

impl Bucket {
    /// A full one. `per_minute` is at least 1.
    pub(super) fn new(per_minute: u64, now: Instant) -> Bucket {
        Bucket { per_minute, tokens: per_minute as f64, counted: now }
    }

    /// Tokens in a minute.
    pub(super) fn per_minute(&self) -> u64 {
        self.per_minute
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        let come = passed.as_secs_f64() / MINUTE.as_secs_f64() * self.per_minute as f64;
        self.tokens = (self.tokens + come).min(self.per_minute as f64);
        self.counted = now;
    }

    /// Takes `count` tokens, or none.
    pub(super) fn take(&mut self, count: u64, now: Instant) -> Result<(), Shortage> {
        if count > self.per_minute {
            return Err(Shortage::TooMany);
        }
        self.refill(now);
        let missing = count as f64 - self.tokens;
        if missing <= 0.0 {
            self.tokens = -missing;
            return Ok(());
        }
        let seconds = missing / self.per_minute as f64 * MINUTE.as_secs_f64();
        // Never 0, which would say that it can be tried at once.
        Err(Shortage::Wait { available: self.tokens, seconds: (seconds.ceil() as u64).max(1) })
    }

    /// Takes tokens back that nothing was done for.
    pub(super) fn give_back(&mut self, count: u64) {
        self.tokens = (self.tokens + count as f64).min(self.per_minute as f64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_empties_at_once_and_fills_in_a_minute() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, now);
        assert_eq!(bucket.take(11, now), Err(Shortage::TooMany));
        assert_eq!(bucket.take(10, now), Ok(()));
        assert_eq!(bucket.take(10, now), Err(Shortage::Wait { available: 0.0, seconds: 60 }));
        assert_eq!(bucket.take(1, now), Err(Shortage::Wait { available: 0.0, seconds: 6 }));
        assert_eq!(bucket.take(1, now + Duration::from_secs(6)), Ok(()));
        bucket.give_back(1);
        assert_eq!(bucket.take(1, now + Duration::from_secs(6)), Ok(()));
        assert_eq!(bucket.take(10, now + Duration::from_secs(3_600)), Ok(()), "an hour holds no more than a minute");
        assert!(bucket.take(1, now + Duration::from_secs(3_600)).is_err());
        let mut many = Bucket::new(6_000, now);
        assert_eq!(many.take(6_000, now), Ok(()));
        assert_eq!(many.take(1, now), Err(Shortage::Wait { available: 0.0, seconds: 1 }));
    }

    proptest! {
        /// In no window of time is more given than the bucket holds and what came in meanwhile; and whoever waits as long
        /// as it is told gets what it asked for.
        #[test]
        fn no_more_is_given_than_came_in(
            per_minute in 1u64..500,
            asked in prop::collection::vec((1u64..50, 0u64..5_000), 1..60),
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut given) = (Bucket::new(per_minute, start), start, 0);
            for (count, pause_ms) in asked {
                now += Duration::from_millis(pause_ms);
                match bucket.take(count, now) {
                    Ok(()) => given += count,
                    Err(Shortage::TooMany) => prop_assert!(count > per_minute),
                    Err(Shortage::Wait { available, seconds }) => {
                        prop_assert!(available < count as f64 && (1..=60).contains(&seconds));
                        let mut later = bucket;
                        // Sums of fractions may miss the last one by a hair.
                        let then = now + Duration::from_secs(seconds) + Duration::from_micros(1);
                        prop_assert!(later.take(count, then).is_ok());
                    }
                }
                let most = per_minute as f64 * (1.0 + (now - start).as_secs_f64() / 60.0);
                prop_assert!(given as f64 <= most + 1e-6, "{given} of {most}");
            }
        }
    }
}
