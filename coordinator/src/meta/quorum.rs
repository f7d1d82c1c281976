//! Which coordinators vote. Pure.
//!
//! Voters are 1, 3 or 5: an even number tolerates no more losses than the odd one below it, and waits for more.

use std::collections::{BTreeMap, BTreeSet};

use vicinal_common::ids::NodeId;

/// Most coordinators that vote.
pub(super) const VOTERS_MAX: usize = 5;
/// A learner gets its vote once it misses no more entries than this.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// A member of the metadata group as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The operator's name for it.
    pub(super) name: String,
    /// Log entries it misses; `None` when it has not answered this leader yet.
    pub(super) missing: Option<u64>,
}

/// The voters as they should be, when that differs from `voters` (all of them members). One step at a time: a learner
/// takes the place of the voter of its own name, whose data is gone; or learners become voters where the number stays
/// odd.
pub(super) fn next_voters(members: &BTreeMap<NodeId, Member>, voters: &BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
    let is_ready = |member: &Member| member.missing.is_some_and(|entries| entries <= CAUGHT_UP_ENTRIES);
    let named = |name: &str| voters.iter().find(|voter| members.get(voter).is_some_and(|member| member.name == name));
    let mut spare = Vec::new();
    for (node, member) in members.iter().filter(|(node, member)| !voters.contains(node) && is_ready(member)) {
        match named(&member.name) {
            None => spare.push(*node),
            Some(old) => {
                let mut next = voters.clone();
                next.remove(old);
                next.insert(*node);
                return Some(next);
            }
        }
    }
    let possible = (voters.len() + spare.len()).min(VOTERS_MAX);
    let target = if possible.is_multiple_of(2) { possible.saturating_sub(1) } else { possible };
    if target <= voters.len() {
        return None;
    }
    let new = spare.into_iter().take(target - voters.len());
    Some(voters.iter().copied().chain(new).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(all: &[(u64, &str, Option<u64>)]) -> BTreeMap<NodeId, Member> {
        all.iter()
            .map(|(node, name, missing)| (NodeId(*node), Member { name: (*name).into(), missing: *missing }))
            .collect()
    }

    fn ids(all: &[u64]) -> BTreeSet<NodeId> {
        all.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn the_second_waits_for_the_third() {
        let mut all = members(&[(1, "c1", Some(0)), (2, "c2", Some(0))]);
        assert_eq!(next_voters(&all, &ids(&[1])), None);
        all.extend(members(&[(3, "c3", Some(5_000))]));
        assert_eq!(next_voters(&all, &ids(&[1])), None, "it has not caught up");
        all.extend(members(&[(3, "c3", Some(3))]));
        assert_eq!(next_voters(&all, &ids(&[1])), Some(ids(&[1, 2, 3])));
        all.extend(members(&[(4, "c4", Some(0)), (5, "c5", Some(0)), (6, "c6", Some(0))]));
        assert_eq!(next_voters(&all, &ids(&[1, 2, 3])), Some(ids(&[1, 2, 3, 4, 5])), "five at most");
    }

    #[test]
    fn a_coordinator_without_its_data_is_replaced_under_its_name() {
        let all = members(&[(1, "c1", Some(0)), (2, "c2", None), (3, "c3", Some(0)), (9, "c2", Some(0))]);
        assert_eq!(next_voters(&all, &ids(&[1, 2, 3])), Some(ids(&[1, 3, 9])));
    }

    proptest! {
        #[test]
        fn it_settles_on_an_odd_number_of_distinct_names(
            names in proptest::collection::vec((0u8..6, proptest::option::of(0u64..100)), 1..10),
        ) {
            let all: BTreeMap<NodeId, Member> = (1..).map(NodeId)
                .zip(names.iter().map(|(name, missing)| Member { name: format!("c{name}"), missing: *missing })).collect();
            let mut voters = ids(&[1]);
            for _ in 0..20 {
                let Some(next) = next_voters(&all, &voters) else { break };
                prop_assert!(next.iter().all(|node| all.contains_key(node)));
                prop_assert!(next.len() >= voters.len() && next.len() % 2 == 1 && next.len() <= VOTERS_MAX);
                // A learner that took a voter's place must not lose it to another of the same name at once.
                let swapped = voters.difference(&next).count();
                prop_assert!(swapped <= 1);
                voters = next;
            }
        }
    }
}
