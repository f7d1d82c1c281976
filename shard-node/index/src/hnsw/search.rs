//! Walking one layer: the greedy descent and the beam search of Malkov & Yashunin (arXiv 1603.09320, algorithms 2
//! and 5), over a sorted-array beam. Builds and queries share both and differ in the [`Scorer`].

use vicinal_common::distance::Kernel;

use super::beam::{Found, ScoreBuffers, Scratch};
use super::graph::{GraphView, Layer, NONE};
use crate::Rows;
use crate::codes::{CodeKernel, CodedQuery, CodesView};
use crate::prefetch::prefetch;

/// Distance of rows to the one thing that is searched for.
pub(super) trait Scorer {
    /// The distances of rows, in order, into `buffers.distances`.
    fn score(&self, rows: &[u32], buffers: &mut ScoreBuffers);
    /// Asks for what scoring the row needs, ahead of it.
    fn prefetch(&self, row: u32);
}

/// Scores rows against a query vector: the vectors themselves are read.
pub(super) struct VectorScorer<'a> {
    pub(super) kernel: Kernel,
    pub(super) rows: Rows<'a>,
    pub(super) query: &'a [f32],
}

impl Scorer for VectorScorer<'_> {
    fn score(&self, rows: &[u32], buffers: &mut ScoreBuffers) {
        let out = &mut buffers.distances;
        out.clear();
        let (quads, rest) = rows.as_chunks::<4>();
        for (i, quad) in quads.iter().enumerate() {
            rows[4 * (i + 1)..].iter().take(4).for_each(|row| self.prefetch(*row));
            out.extend(self.kernel.distance4(self.query, quad.map(|row| self.rows.row(row))));
        }
        out.extend(rest.iter().map(|row| self.kernel.distance(self.query, self.rows.row(*row))));
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        prefetch(self.rows.row(row));
    }
}

/// Scores rows against a query by their codes.
pub(super) struct CodeScorer<'a> {
    pub(super) kernel: CodeKernel,
    pub(super) codes: CodesView<'a>,
    pub(super) query: &'a CodedQuery,
}

impl Scorer for CodeScorer<'_> {
    fn score(&self, rows: &[u32], buffers: &mut ScoreBuffers) {
        let ScoreBuffers { distances, products, .. } = buffers;
        self.codes.score(self.kernel, self.query, rows, products, distances);
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        self.codes.prefetch(row);
    }
}

/// Scores nodes of a layer: those of the upper layers are named differently from the rows they stand for.
#[inline]
fn score_nodes<S: Scorer>(layer: Layer<'_>, scorer: &S, nodes: &[u32], buffers: &mut ScoreBuffers) {
    match layer.rows {
        None => scorer.score(nodes, buffers),
        Some(rows) => {
            let mut named = std::mem::take(&mut buffers.rows);
            named.clear();
            named.extend(nodes.iter().map(|node| rows[*node as usize]));
            scorer.score(&named, buffers);
            buffers.rows = named;
        }
    }
}

/// Moves to the best neighbour for as long as there is a better one. Ends, because every step gets nearer.
pub(super) fn greedy<S: Scorer>(layer: Layer<'_>, scorer: &S, start: Found, buffers: &mut ScoreBuffers) -> Found {
    let mut best = start;
    loop {
        let here = best;
        let list = layer.neighbours(here.node);
        let count = list.iter().position(|node| *node == NONE).unwrap_or(list.len());
        score_nodes(layer, scorer, &list[..count], buffers);
        for (node, distance) in list.iter().zip(&buffers.distances) {
            let found = Found { distance: *distance, node: *node };
            if found.is_before(&best) {
                best = found;
            }
        }
        if best == here {
            return best;
        }
    }
}

/// Fills `scratch.beam` with the `ef` nodes nearest by the graph, starting from `scratch.entries`.
pub(super) fn search_layer<S: Scorer>(layer: Layer<'_>, scorer: &S, ef: usize, scratch: &mut Scratch) {
    let Scratch { beam, visited, buffers, entries, .. } = scratch;
    beam.reset(ef);
    visited.reset(layer.links.len() / layer.degree);
    for &entry in entries.iter() {
        if visited.insert(entry.node) {
            beam.insert(entry);
        }
    }
    while let Some(node) = beam.expand_next() {
        let before = visited.len();
        for &neighbour in layer.neighbours(node) {
            if neighbour == NONE {
                break;
            }
            if visited.insert(neighbour) && visited.len() - before <= AHEAD {
                scorer.prefetch(layer.row(neighbour));
            }
        }
        let fresh = visited.since(before);
        score_nodes(layer, scorer, fresh, buffers);
        for (node, distance) in fresh.iter().zip(&buffers.distances) {
            if beam.insert(Found { distance: *distance, node: *node }) {
                prefetch(layer.neighbours(*node));
            }
        }
    }
}

/// Rows asked for while the neighbours are still being gathered; scoring asks for the rest.
const AHEAD: usize = 4;

/// From the entry point through the upper layers to layer 0, then a beam search there. The graph must not be empty.
pub(super) fn search_graph<S: Scorer>(graph: GraphView<'_>, scorer: &S, ef: usize, scratch: &mut Scratch) {
    let buffers = &mut scratch.buffers;
    scorer.score(&[graph.entry], buffers);
    let mut found = Found { distance: buffers.distances[0], node: 0 };
    let mut row = graph.entry;
    for layer in graph.upper_layers() {
        found = greedy(layer, scorer, found, buffers);
        row = layer.row(found.node);
    }
    scratch.entries.clear();
    scratch.entries.push(Found { distance: found.distance, node: row });
    search_layer(graph.base(), scorer, ef, scratch);
}
