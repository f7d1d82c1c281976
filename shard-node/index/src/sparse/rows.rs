//! Scoring rows by their vectors: for the few rows of a selective filter, and for rows that have no postings.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::{SparseRef, hit};
use crate::prefetch::prefetch;
use crate::{Accept, Hit, TopK};

/// Vectors that are fetched while one is scored: rows of a filter lie far apart.
const AHEAD: usize = 4;

/// The `k` accepted rows of those given with the highest inner product with `query`, best first, ties by row: what
/// [`super::Postings::search`] finds, to the bit. Each row comes once, in any order, with its vector; `rows` is how many
/// come at most. `accept` is asked only about rows that would be among the best so far.
pub fn score_rows<'v>(
    rows: usize,
    vectors: impl Iterator<Item = (u32, SparseRef<'v>)>,
    query: SparseRef<'_>,
    k: usize,
    accept: Accept<'_>,
) -> Vec<Hit> {
    let mut best = TopK::new(k, rows);
    if best.capacity() == 0 || query.indices.is_empty() {
        return Vec::new();
    }
    let table = QueryTable::new(query);
    let mut ahead = VecDeque::with_capacity(AHEAD);
    let mut vectors = vectors.inspect(|(_, vector)| {
        prefetch(vector.indices);
        prefetch(vector.values);
    });
    ahead.extend(vectors.by_ref().take(AHEAD - 1));
    loop {
        ahead.extend(vectors.next());
        let Some((row, vector)) = ahead.pop_front() else { break };
        if let Some(score) = table.dot(vector) {
            let hit = hit(row, score);
            if best.would_take(&hit) && accept.contains(row) {
                best.push(hit);
            }
        }
    }
    best.into_sorted()
}

/// Where an index belongs in a table of `2^(32 - shift)` slots: multiply-shift hashing (Dietzfelbinger, Hagerup, Katajainen
/// and Penttonen, A Reliable Randomized Algorithm for the Closest-Pair Problem, 1997) by the process's [`multiplier`]. `shift`
/// is at most 31.
#[inline(always)]
pub(super) fn hash(dim: u32, multiplier: u32, shift: u32) -> usize {
    (dim.wrapping_mul(multiplier) >> shift) as usize
}

/// An odd number that differs from process to process: nobody can choose indices that fall into few slots. What is built with
/// it does not depend on it.
pub(super) fn multiplier() -> u32 {
    static MULTIPLIER: OnceLock<u32> = OnceLock::new();
    *MULTIPLIER.get_or_init(|| RandomState::new().hash_one(0u8) as u32 | 1)
}

/// Slots for each index of a query at least: most of what a row has is not in the query, and is then seen not to be at the
/// first slot.
const SLOTS: usize = 32;

/// The values of a query by index. Against a merge of the two lists, whose branches are as good as random, the branches of
/// its look-ups are nearly always foreseen.
struct QueryTable {
    slots: Vec<(u32, f32)>,
    multiplier: u32,
    shift: u32,
    /// An index that the query does not have: that of free slots.
    free: u32,
}

impl QueryTable {
    fn new(query: SparseRef<'_>) -> QueryTable {
        let bits = (SLOTS * query.indices.len()).next_power_of_two().trailing_zeros().max(4);
        let free =
            (0..u32::MAX).zip(query.indices).find(|(i, dim)| i != *dim).map_or(query.indices.len() as u32, |gap| gap.0);
        let mut table =
            QueryTable { slots: vec![(free, 0.0); 1 << bits], multiplier: multiplier(), shift: 32 - bits, free };
        for (dim, value) in query.indices.iter().zip(query.values) {
            let at = table.find(*dim);
            table.slots[at] = (*dim, *value);
        }
        table
    }

    /// The slot of an index, or the free one where it would be.
    #[inline(always)]
    fn find(&self, dim: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash(dim, self.multiplier, self.shift) & mask;
        while self.slots[at].0 != dim && self.slots[at].0 != self.free {
            at = (at + 1) & mask;
        }
        at
    }

    /// [`super::dot`] with the query.
    fn dot(&self, vector: SparseRef<'_>) -> Option<f32> {
        let (mut sum, mut is_shared) = (0.0, false);
        for (dim, value) in vector.indices.iter().zip(vector.values) {
            let (found, weight) = self.slots[self.find(*dim)];
            if found == *dim && found != self.free {
                sum += weight * value;
                is_shared = true;
            }
        }
        is_shared.then_some(sum)
    }
}
