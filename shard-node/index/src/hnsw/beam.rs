//! What a search works in: the beam (a sorted array), the visited set, and a bounded pool that reuses both.

use parking_lot::Mutex;

use super::select::{SelectScratch, Target};
use crate::codes::{CodedQuery, ShortQuery};

/// A node with its distance to whatever is being searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    /// Never NaN (see the distance kernels).
    pub(super) distance: f32,
    pub(super) node: u32,
}

impl Found {
    /// The order of everything in this module: distance, then node, so that a build does not depend on chance.
    #[inline]
    pub(super) fn is_before(&self, other: &Found) -> bool {
        self.distance < other.distance || (self.distance == other.distance && self.node < other.node)
    }

    /// The same as an [`std::cmp::Ordering`].
    pub(super) fn cmp_total(&self, other: &Found) -> std::cmp::Ordering {
        self.distance.total_cmp(&other.distance).then(self.node.cmp(&other.node))
    }
}

/// A node and its distance in one number that is ordered as [`Found`] is: the distance, its bits made monotone, above the
/// node, above one bit that says whether the node was expanded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot(u64);

/// See [`Slot`].
const EXPANDED: u64 = 1;

impl Slot {
    #[inline(always)]
    fn new(found: Found) -> Slot {
        // Adding +0.0 turns -0.0 into +0.0. Negative numbers are ordered the other way round and below positive ones.
        let bits = (found.distance + 0.0).to_bits();
        let ordered = bits ^ ((((bits as i32) >> 31) as u32) | 1 << 31);
        Slot(u64::from(ordered) << 32 | u64::from(found.node) << 1)
    }

    #[inline(always)]
    fn node(self) -> u32 {
        (self.0 as u32) >> 1
    }

    fn found(self) -> Found {
        let ordered = (self.0 >> 32) as u32;
        let mask = ((((!ordered) as i32) >> 31) as u32) | 1 << 31;
        Found { distance: f32::from_bits(ordered ^ mask), node: self.node() }
    }
}

/// How wide a beam is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    /// So many nodes are expanded: the `ef` of HNSW, at least 1.
    pub(super) window: usize,
    /// So many are kept: more than that only where distances are estimates, and the best by estimate are not enough.
    pub(super) kept: usize,
}

impl From<usize> for Width {
    /// All that are kept are expanded.
    fn from(window: usize) -> Width {
        Width { window, kept: window }
    }
}

/// The best `capacity` nodes seen, sorted; the best `window` of them are each expanded at most once.
#[derive(Default)]
pub(super) struct Beam {
    /// Sorted; the mark does not change the order, since a node is there once.
    slots: Vec<Slot>,
    capacity: usize,
    /// Slots from here on are kept, but not expanded.
    window: usize,
    /// Every slot before it is expanded.
    cursor: usize,
    /// Slots from here on are not among the best.
    worst: u64,
}

impl Beam {
    /// Empties the beam and sets its width.
    pub(super) fn reset(&mut self, width: Width) {
        self.slots.clear();
        self.window = width.window.max(1);
        self.capacity = self.window.max(width.kept);
        self.cursor = 0;
        self.worst = u64::MAX;
    }

    /// Expands and keeps more nodes from now on; what was too far before is not taken back.
    pub(super) fn widen(&mut self, window: usize) {
        self.window = self.window.max(window);
        if window > self.capacity {
            self.capacity = window;
            self.worst = u64::MAX;
        }
    }

    /// Offers a node that was not offered before. Returns whether it is to be expanded as things stand.
    #[inline(always)]
    pub(super) fn insert(&mut self, found: Found) -> bool {
        let slot = Slot::new(found);
        if slot.0 >= self.worst {
            return false;
        }
        if self.slots.len() == self.capacity {
            self.slots.pop();
        }
        let at = self.slots.partition_point(|other| *other < slot);
        self.slots.insert(at, slot);
        self.cursor = self.cursor.min(at);
        if self.slots.len() == self.capacity {
            self.worst = self.slots.last().map_or(u64::MAX, |last| last.0);
        }
        at < self.window
    }

    /// The nearest node not yet expanded, which then counts as expanded. `None`: the search is over.
    #[inline]
    pub(super) fn expand_next(&mut self) -> Option<u32> {
        while let Some(slot) = self.slots.get_mut(self.cursor).filter(|_| self.cursor < self.window) {
            self.cursor += 1;
            if slot.0 & EXPANDED == 0 {
                slot.0 |= EXPANDED;
                return Some(slot.node());
            }
        }
        None
    }

    /// What the beam holds, nearest first.
    pub(super) fn found(&self) -> impl Iterator<Item = Found> + Clone {
        self.slots.iter().map(|slot| slot.found())
    }
}

/// A set of node numbers that is emptied in time proportional to its content. It also remembers the order of arrival.
#[derive(Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    /// All members.
    log: Vec<u32>,
}

impl Visited {
    /// Empties the set and makes room for nodes below `nodes`.
    pub(super) fn reset(&mut self, nodes: usize) {
        for node in self.log.drain(..) {
            self.words[node as usize / 64] = 0;
        }
        let words = nodes.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Adds a node. Returns whether it is new.
    #[inline(always)]
    pub(super) fn insert(&mut self, node: u32) -> bool {
        let word = &mut self.words[node as usize / 64];
        let bit = 1u64 << (node % 64);
        let is_new = *word & bit == 0;
        if is_new {
            *word |= bit;
            self.log.push(node);
        }
        is_new
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// The members that arrived when there were `from` or more.
    #[inline(always)]
    pub(super) fn since(&self, from: usize) -> &[u32] {
        &self.log[from..]
    }
}

/// What a scorer works in.
#[derive(Default)]
pub(super) struct ScoreBuffers {
    /// Distances, one per row asked for.
    pub(super) distances: Vec<f32>,
    /// Integers on the way to them.
    pub(super) products: Vec<i32>,
    /// Rows of the nodes asked for.
    pub(super) rows: Vec<u32>,
    /// Distances computed since somebody set it to 0.
    pub(super) scored: u64,
}

/// The working memory of one search.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) beam: Beam,
    pub(super) visited: Visited,
    pub(super) buffers: ScoreBuffers,
    /// Rows to score that a filter accepts.
    pub(super) accepted: Vec<u32>,
    /// Rows to look through that it does not.
    pub(super) through: Vec<u32>,
    /// Where a search of one layer starts: nodes of that layer.
    pub(super) entries: Vec<Found>,
    /// The query as codes.
    pub(super) query: CodedQuery,
    /// The same as 4-bit codes are compared with.
    pub(super) short: ShortQuery,
    /// The row that a build is placing, and what it chooses neighbours with.
    pub(super) target: Target,
    pub(super) select: SelectScratch,
}

/// Keeps the working memory of finished searches for the next ones.
pub(super) struct ScratchPool {
    idle: Mutex<Vec<Scratch>>,
    idle_max: usize,
}

impl ScratchPool {
    /// A pool that keeps as many idle scratches as the machine runs threads.
    pub(super) fn new() -> ScratchPool {
        let idle_max = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ScratchPool { idle: Mutex::new(Vec::new()), idle_max }
    }

    /// Working memory until the guard is dropped.
    pub(super) fn take(&self) -> PooledScratch<'_> {
        PooledScratch { scratch: self.idle.lock().pop().unwrap_or_default(), pool: self }
    }
}

/// A [`Scratch`] on loan from its pool.
pub(super) struct PooledScratch<'a> {
    scratch: Scratch,
    pool: &'a ScratchPool,
}

impl std::ops::Deref for PooledScratch<'_> {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl std::ops::DerefMut for PooledScratch<'_> {
    fn deref_mut(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

impl Drop for PooledScratch<'_> {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock();
        if idle.len() < self.pool.idle_max {
            idle.push(std::mem::take(&mut self.scratch));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_beam_keeps_the_best_and_expands_each_once(
            distances in prop::collection::vec(0u8..20, 1..200),
            (window, spare) in (1usize..30, 0usize..10),
            expand_every in 1usize..10,
        ) {
            let mut beam = Beam::default();
            beam.reset(Width { window, kept: window + spare });
            let mut expanded = Vec::new();
            let mut all = Vec::new();
            for (node, distance) in distances.iter().enumerate() {
                let found = Found { distance: f32::from(*distance), node: node as u32 };
                beam.insert(found);
                all.push(found);
                if node % expand_every == 0 {
                    expanded.extend(beam.expand_next());
                }
            }
            while let Some(node) = beam.expand_next() {
                expanded.push(node);
            }
            all.sort_by(Found::cmp_total);
            all.truncate(window + spare);
            prop_assert_eq!(beam.found().collect::<Vec<_>>(), all.clone());
            all.truncate(window);
            let count = expanded.len();
            expanded.sort_unstable();
            expanded.dedup();
            prop_assert_eq!(expanded.len(), count);
            prop_assert!(all.iter().all(|found| expanded.binary_search(&found.node).is_ok()));
        }

        #[test]
        fn the_visited_set_is_a_set(rounds in prop::collection::vec(prop::collection::vec(0u32..500, 0..100), 1..5)) {
            let mut visited = Visited::default();
            for round in rounds {
                visited.reset(500);
                let mut model = std::collections::BTreeSet::new();
                for node in round {
                    prop_assert_eq!(visited.insert(node), model.insert(node));
                }
            }
        }
    }
}
