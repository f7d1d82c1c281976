//! When requests start and what they are: arrivals of the open loop, the mix of queries and writes, the order in which
//! the query file is used. All of it is fixed by numbers, so that two runs ask the same.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The intended starts of a Poisson process, from the begin of a step on, without end: gaps are exponentially
/// distributed, as those of many clients that do not know of each other.
pub(super) struct Arrivals {
    /// Mean gap, in seconds.
    gap: f64,
    /// Of the last arrival, in seconds.
    at: f64,
    random: StdRng,
}

impl Arrivals {
    /// `rate` arrivals per second on average, the same for each seed.
    pub(super) fn new(rate: f64, seed: u64) -> Arrivals {
        assert!(rate.is_finite() && rate > 0.0, "the flags are checked");
        Arrivals { gap: rate.recip(), at: 0.0, random: StdRng::seed_from_u64(seed) }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // 1 - u is in (0, 1]: its logarithm is finite.
        let u: f64 = self.random.random();
        self.at -= (1.0 - u).ln() * self.gap;
        Duration::try_from_secs_f64(self.at).ok()
    }
}

/// What an operation is, with its number among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Query(u64),
    Write(u64),
}

/// Queries and writes in a fixed proportion, the writes spread evenly.
#[derive(Clone, Copy)]
pub(super) struct Mix {
    write_share: f64,
}

impl Mix {
    /// `write_share` of all operations are writes: 0 for none, 1 for nothing else.
    pub(super) fn new(write_share: f64) -> Mix {
        assert!((0.0..=1.0).contains(&write_share), "the flags are checked");
        Mix { write_share }
    }

    pub(super) fn operation(self, number: u64) -> Operation {
        let writes_before = |number: u64| (number as f64 * self.write_share) as u64;
        let writes = writes_before(number);
        if writes_before(number + 1) > writes { Operation::Write(writes) } else { Operation::Query(number - writes) }
    }
}

/// Goes through `n` things so that each comes once per round and any stretch of them is spread over all: files are
/// often sorted by something, and a short run shall not measure their beginning.
#[derive(Clone, Copy)]
pub(super) struct Spread {
    n: u64,
    stride: u64,
}

impl Spread {
    /// `n` is 1 or larger.
    pub(super) fn new(n: usize) -> Spread {
        assert!(n > 0, "there is something to go through");
        let n = n as u64;
        // Strides near the golden section leave gaps of at most three sizes (the three-gap theorem).
        let golden = ((n as f64 * 0.618_033_988_75) as u64).max(1);
        let stride = (golden..).find(|stride| greatest_common_divisor(*stride, n) == 1).unwrap_or(1);
        Spread { n, stride }
    }

    pub(super) fn at(self, number: u64) -> usize {
        (u128::from(number) * u128::from(self.stride) % u128::from(self.n)) as usize
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_rate_and_the_variance_of_a_poisson_process() {
        let arrivals: Vec<f64> = Arrivals::new(500.0, 3).take(50_000).map(|at| at.as_secs_f64()).collect();
        assert!(arrivals.is_sorted());
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 500.0 - 1.0).abs() < 0.02, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{variance}");
        // Of an exponential distribution, e^-2 of the gaps are longer than twice the mean.
        let long = gaps.iter().filter(|gap| **gap > 2.0 / 500.0).count() as f64 / gaps.len() as f64;
        assert!((long - 0.1353).abs() < 0.006, "{long}");
    }

    #[test]
    fn arrivals_are_the_same_for_a_seed_and_differ_between_seeds() {
        let first = |seed| Arrivals::new(10.0, seed).take(9).collect::<Vec<_>>();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn operations_are_mixed_evenly_and_numbered_by_kind() {
        for share in [0.0, 0.1, 1.0 / 3.0, 0.5, 0.999, 1.0] {
            let (mut queries, mut writes) = (0, 0);
            for number in 0..10_000 {
                match Mix::new(share).operation(number) {
                    Operation::Query(query) => {
                        assert_eq!(query, queries);
                        queries += 1;
                    }
                    Operation::Write(write) => {
                        assert_eq!(write, writes);
                        writes += 1;
                    }
                }
                assert!((writes as f64 - (number + 1) as f64 * share).abs() <= 1.0, "{share} {number}");
            }
        }
    }

    #[test]
    fn a_round_uses_everything_once_and_a_part_of_it_is_spread() {
        for n in [1, 2, 3, 6, 10, 128, 1_000, 9_973, 10_000] {
            let spread = Spread::new(n);
            let mut round: Vec<usize> = (0..n as u64).map(|number| spread.at(number)).collect();
            assert_eq!(spread.at(n as u64 + 1), spread.at(1));
            round.sort_unstable();
            assert_eq!(round, (0..n).collect::<Vec<_>>());
        }
        let spread = Spread::new(10_000);
        let in_first_tenth = (0..100).filter(|number| spread.at(*number) < 1_000).count();
        assert!((8..=12).contains(&in_first_tenth), "{in_first_tenth}");
        assert!(spread.at(u64::MAX) < 10_000);
    }
}
