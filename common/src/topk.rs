//! Merging sorted results of several shards under one total order.

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// Merges sorted lists into the first `k` of their union. Of items with the same `key` only the first counts: a point
/// that two shards return at once is one hit. Each list must be sorted by `cmp`, which must be a total order.
///
/// A linear scan over the heads: lists are one per shard, a handful, where a heap's bookkeeping costs more.
pub fn merge_sorted<T, K: Eq + Hash>(
    lists: Vec<Vec<T>>,
    k: usize,
    cmp: impl Fn(&T, &T) -> Ordering,
    key: impl Fn(&T) -> K,
) -> Vec<T> {
    let total = lists.iter().map(Vec::len).sum::<usize>();
    let mut lists: Vec<VecDeque<T>> = lists.into_iter().map(VecDeque::from).collect();
    let mut merged: Vec<T> = Vec::with_capacity(k.min(total));
    let mut taken: HashSet<K> = HashSet::with_capacity(k.min(total));
    while merged.len() < k {
        let mut best: Option<(usize, &T)> = None;
        for (i, list) in lists.iter().enumerate() {
            if let Some(head) = list.front()
                && best.is_none_or(|(_, current)| cmp(head, current) == Ordering::Less)
            {
                best = Some((i, head));
            }
        }
        let Some(item) = best.map(|(i, _)| i).and_then(|i| lists[i].pop_front()) else { break };
        if taken.insert(key(&item)) {
            merged.push(item);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merging_is_sorting_the_union(
            mut lists in proptest::collection::vec(proptest::collection::vec((0u8..20, 0u8..50), 0..30), 0..8),
            k in 0usize..60,
        ) {
            for list in &mut lists {
                list.sort_unstable();
            }
            let mut model: Vec<(u8, u8)> = lists.concat();
            model.sort_unstable();
            let mut seen = HashSet::new();
            model.retain(|(_, id)| seen.insert(*id));
            model.truncate(k);
            prop_assert_eq!(merge_sorted(lists, k, Ord::cmp, |(_, id)| *id), model);
        }
    }
}
