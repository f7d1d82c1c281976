//! When a slow answer is asked for a second time elsewhere, and how often that may happen.

use std::time::Duration;

use parking_lot::Mutex;
use vicinal_common::ids::NodeId;

use crate::shard_client::{Health, Work};

/// Share of the requests that may be hedged: one in so many.
const REQUESTS_PER_HEDGE: u32 = 20;
/// Hedges that may be saved up for a bad moment.
const BURST: u32 = 10;
/// Bounds of the delay: below the first a hiccup of the scheduler would use up the budget, above the second it would be
/// as good as none.
const DELAY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Delay while too little is known of a node.
const DELAY_UNKNOWN: Duration = Duration::from_millis(100);
/// Of the node's recent answers to such work, this many in a hundred came within the delay.
const PERCENT: u32 = 95;

/// How long to wait for the node's answer before another replica is asked too.
pub(super) fn delay(health: &Health, node: NodeId, work: Work) -> Duration {
    health.quantile(node, work, PERCENT).map_or(DELAY_UNKNOWN, |usual| usual.clamp(DELAY.0, DELAY.1))
}

/// A token bucket: every request earns a share of a hedge, so that hedges never multiply the load of a cluster that is
/// slow because it has too much to do.
#[derive(Debug)]
pub struct HedgeBudget {
    /// In shares of [`REQUESTS_PER_HEDGE`] to the hedge.
    shares: Mutex<u32>,
}

impl Default for HedgeBudget {
    fn default() -> HedgeBudget {
        HedgeBudget { shares: Mutex::new(BURST * REQUESTS_PER_HEDGE) }
    }
}

impl HedgeBudget {
    /// A request that is no hedge is sent.
    pub(super) fn earn(&self) {
        let mut shares = self.shares.lock();
        *shares = (*shares + 1).min(BURST * REQUESTS_PER_HEDGE);
    }

    /// Takes a hedge out of the budget, if there is one.
    pub(super) fn take(&self) -> bool {
        let mut shares = self.shares.lock();
        match shares.checked_sub(REQUESTS_PER_HEDGE) {
            Some(rest) => {
                *shares = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::shard_client::{Blame, Ended, WorkKind};

    proptest! {
        #[test]
        fn never_more_than_its_share_and_a_burst(steps in proptest::collection::vec(any::<bool>(), 0..2_000)) {
            let budget = HedgeBudget::default();
            let (mut requests, mut hedges) = (0u32, 0u32);
            for is_hedge in steps {
                if is_hedge {
                    hedges += u32::from(budget.take());
                } else {
                    budget.earn();
                    requests += 1;
                }
                prop_assert!(hedges <= BURST + requests / REQUESTS_PER_HEDGE);
            }
        }
    }

    #[test]
    fn the_delay_follows_the_node_within_bounds() {
        let (health, node, work) = (Arc::new(Health::default()), NodeId(1), Work::new(WorkKind::Search, 1));
        assert_eq!(delay(&health, node, work), DELAY_UNKNOWN);
        let now = Instant::now();
        for (millis, delays) in
            [(1, DELAY.0..DELAY.0 * 2), (100, DELAY.0 * 10..DELAY.0 * 13), (60_000, DELAY.1..DELAY.1 * 2)]
        {
            for _ in 0..1_000 {
                let ticket = health.begin(node, work, Blame::Node, now);
                ticket.end(Ended::Answered, now + Duration::from_millis(millis));
            }
            assert!(delays.contains(&delay(&health, node, work)), "{millis} ms");
        }
    }
}
