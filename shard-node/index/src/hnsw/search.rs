//! Walking one layer: the greedy descent and the beam search of Malkov & Yashunin (arXiv 1603.09320, algorithms 2
//! and 5), over a sorted-array beam. Builds and queries share both and differ in the [`Scorer`].

use vicinal_common::distance::Kernel;

use super::beam::{Found, Scratch};
use super::graph::{GraphView, Layer, NONE};
use super::prefetch::prefetch;
use crate::Rows;

/// Distance of rows to the one thing that is searched for.
pub(super) trait Scorer {
    /// The distance of one row.
    fn one(&self, row: u32) -> f32;
    /// The distances of four rows.
    fn four(&self, rows: [u32; 4]) -> [f32; 4];
    /// Asks for the row's vector ahead of scoring it.
    fn prefetch(&self, row: u32);
}

/// Scores rows against a query vector.
pub(super) struct QueryScorer<'a> {
    pub(super) kernel: Kernel,
    pub(super) rows: Rows<'a>,
    pub(super) query: &'a [f32],
}

impl Scorer for QueryScorer<'_> {
    #[inline]
    fn one(&self, row: u32) -> f32 {
        self.kernel.distance(self.query, self.rows.row(row))
    }

    #[inline]
    fn four(&self, rows: [u32; 4]) -> [f32; 4] {
        self.kernel.distance4(self.query, rows.map(|row| self.rows.row(row)))
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        prefetch(self.rows.row(row));
    }
}

/// Moves to the best neighbour for as long as there is a better one. Ends, because every step gets nearer.
pub(super) fn greedy<S: Scorer>(layer: Layer<'_>, scorer: &S, start: Found, scratch: &mut Scratch) -> Found {
    let fresh = &mut scratch.fresh;
    let mut best = start;
    loop {
        let here = best;
        fresh.clear();
        fresh.extend(layer.neighbours(here.node).iter().copied().take_while(|&node| node != NONE));
        score_each(layer, scorer, fresh, |found| {
            if found.is_before(&best) {
                best = found;
            }
        });
        if best == here {
            return best;
        }
    }
}

/// Fills `scratch.beam` with the `ef` nodes nearest by the graph, starting from `scratch.entries`.
pub(super) fn search_layer<S: Scorer>(layer: Layer<'_>, scorer: &S, ef: usize, scratch: &mut Scratch) {
    let Scratch { beam, visited, fresh, entries } = scratch;
    beam.reset(ef);
    visited.reset(layer.links.len() / layer.degree);
    for &entry in entries.iter() {
        if visited.insert(entry.node) {
            beam.insert(entry);
        }
    }
    while let Some(node) = beam.expand_next() {
        fresh.clear();
        for &neighbour in layer.neighbours(node) {
            if neighbour == NONE {
                break;
            }
            if visited.insert(neighbour) {
                fresh.push(neighbour);
            }
        }
        score_each(layer, scorer, fresh, |found| {
            if beam.insert(found) {
                prefetch(layer.neighbours(found.node));
            }
        });
    }
}

/// From the entry point through the upper layers to layer 0, then a beam search there. The graph must not be empty.
pub(super) fn search_graph<S: Scorer>(graph: GraphView<'_>, scorer: &S, ef: usize, scratch: &mut Scratch) {
    let mut found = Found { distance: scorer.one(graph.entry), node: 0 };
    let mut row = graph.entry;
    for layer in graph.upper_layers() {
        found = greedy(layer, scorer, found, scratch);
        row = layer.row(found.node);
    }
    scratch.entries.clear();
    scratch.entries.push(Found { distance: found.distance, node: row });
    search_layer(graph.base(), scorer, ef, scratch);
}

/// Scores nodes four at a time while the vectors of the next four are on their way.
#[inline]
fn score_each<S: Scorer>(layer: Layer<'_>, scorer: &S, nodes: &[u32], mut each: impl FnMut(Found)) {
    let (quads, rest) = nodes.as_chunks::<4>();
    let ahead = |at: usize| nodes.iter().skip(at).take(4).for_each(|&node| scorer.prefetch(layer.row(node)));
    ahead(0);
    for (i, quad) in quads.iter().enumerate() {
        ahead(4 * (i + 1));
        let distances = scorer.four(quad.map(|node| layer.row(node)));
        for (node, distance) in quad.iter().zip(distances) {
            each(Found { distance, node: *node });
        }
    }
    for &node in rest {
        each(Found { distance: scorer.one(layer.row(node)), node });
    }
}
