//! What goes wrong when: everything follows from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::check::FaultKind;

/// How long a stopped process stays stopped: longer than any election takes.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// Quiet time before each fault, in milliseconds: the cluster works and whoever came back catches up.
const QUIET_MILLIS: std::ops::Range<u64> = 3_500..6_000;
/// How long a killed process stays away, in milliseconds: longer and shorter than elections and time-outs take.
const AWAY_MILLIS: std::ops::Range<u64> = 1_000..6_000;
/// The order of the first round.
const ROUND: [FaultKind; 4] =
    [FaultKind::KillNode, FaultKind::KillShardLeader, FaultKind::KillCoordinatorLeader, FaultKind::PauseReplica];

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Quiet time before it.
    pub quiet: Duration,
    /// What.
    pub kind: FaultKind,
    /// How long the process is away.
    pub away: Duration,
    /// Chooses the target among those that are possible.
    pub choice: u64,
}

/// Endless rounds of all faults.
pub struct Schedule {
    rng: StdRng,
    round: Vec<FaultKind>,
}

impl Schedule {
    /// The schedule of a seed. The first round is in a fixed order, the later ones are shuffled.
    pub fn draw(seed: u64) -> Schedule {
        let mut round = ROUND.to_vec();
        round.reverse();
        Schedule { rng: StdRng::seed_from_u64(seed), round }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.round.is_empty() {
            self.round = ROUND.to_vec();
            self.round.shuffle(&mut self.rng);
        }
        let kind = self.round.pop()?;
        let quiet = Duration::from_millis(self.rng.random_range(QUIET_MILLIS));
        let away = match kind {
            FaultKind::PauseReplica => PAUSE,
            FaultKind::KillNode | FaultKind::KillShardLeader | FaultKind::KillCoordinatorLeader => {
                Duration::from_millis(self.rng.random_range(AWAY_MILLIS))
            }
        };
        Some(Step { quiet, kind, away, choice: self.rng.random() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_every_time_and_every_round_is_complete() {
        let draw = |seed| Schedule::draw(seed).take(12).collect::<Vec<_>>();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        for round in draw(5).chunks(ROUND.len()) {
            for kind in ROUND {
                assert_eq!(round.iter().filter(|step| step.kind == kind).count(), 1, "{round:?}");
            }
        }
    }
}
