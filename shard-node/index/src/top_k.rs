//! The k best hits seen so far, in the total order of [`Hit`]: bounded memory for any k.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::Hit;

/// A hit in heap order: the worst on top.
struct Ranked(Hit);

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Ordering {
        self.0.cmp_total(&other.0)
    }
}

/// Keeps the `k` smallest hits by [`Hit::cmp_total`]; equal distances are decided by row.
#[derive(Default)]
pub struct TopK {
    k: usize,
    heap: BinaryHeap<Ranked>,
}

impl TopK {
    /// Room for `k` hits of at most `rows`: a k beyond the rows reserves nothing.
    pub fn new(k: usize, rows: usize) -> TopK {
        let k = k.min(rows);
        TopK { k, heap: BinaryHeap::with_capacity(k) }
    }

    /// How many hits it keeps.
    pub fn capacity(&self) -> usize {
        self.k
    }

    /// The worst of the hits, once there are as many as it keeps.
    pub fn worst(&self) -> Option<Hit> {
        if self.heap.len() < self.k { None } else { self.heap.peek().map(|worst| worst.0) }
    }

    /// Whether a hit would be among the best so far: what to ask before a costly check of the hit.
    pub fn would_take(&self, hit: &Hit) -> bool {
        self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| hit.cmp_total(&worst.0) == Ordering::Less)
    }

    /// Offers a hit. Returns whether it is among the best so far.
    pub fn push(&mut self, hit: Hit) -> bool {
        if self.heap.len() < self.k {
            self.heap.push(Ranked(hit));
            return true;
        }
        match self.heap.peek_mut() {
            Some(mut worst) if hit.cmp_total(&worst.0) == Ordering::Less => {
                *worst = Ranked(hit);
                true
            }
            _ => false,
        }
    }

    /// Whether no hit is held.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// How many hits are held.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// The hits, best first.
    pub fn into_sorted(self) -> Vec<Hit> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}
