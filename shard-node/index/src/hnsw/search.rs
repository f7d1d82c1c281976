//! Walking one layer: the greedy descent and the beam search of Malkov & Yashunin (arXiv 1603.09320, algorithms 2
//! and 5), over a sorted-array beam. Builds and queries share both and differ in the [`Scorer`].

use vicinal_common::distance::Kernel;

use super::beam::{Found, ScoreBuffers, Scratch, Width};
use super::graph::{GraphView, Layer, NONE};
use crate::Rows;
use crate::codes::{CodeKernel, CodedQuery, CodesView, ShortCodes, ShortQuery};
use crate::prefetch::prefetch;

/// Distance of rows to the one thing that is searched for.
pub(super) trait Scorer {
    /// How many nodes a beam must keep for each hit that is asked for, because distances are estimates.
    const KEPT_PER_HIT: usize = 1;
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
        buffers.scored += rows.len() as u64;
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
        buffers.scored += rows.len() as u64;
        let ScoreBuffers { distances, products, .. } = buffers;
        self.codes.score(self.kernel, self.query, rows, products, distances);
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        self.codes.prefetch(row);
    }
}

/// The same by 4-bit codes.
pub(super) struct ShortScorer<'a> {
    pub(super) kernel: CodeKernel,
    pub(super) codes: &'a ShortCodes,
    pub(super) query: &'a ShortQuery,
}

impl Scorer for ShortScorer<'_> {
    /// Of the ten nearest of 200,000 rows 0.3 % are not among the twenty nearest by 4-bit codes.
    const KEPT_PER_HIT: usize = 2;

    fn score(&self, rows: &[u32], buffers: &mut ScoreBuffers) {
        buffers.scored += rows.len() as u64;
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
        list[..count].iter().for_each(|node| scorer.prefetch(layer.row(*node)));
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

/// Fills `scratch.beam` with the nodes nearest by the graph, starting from `scratch.entries`.
pub(super) fn search_layer<S: Scorer>(layer: Layer<'_>, scorer: &S, width: Width, scratch: &mut Scratch) {
    start_layer(layer, width, scratch);
    walk_layer(layer, scorer, usize::MAX, scratch);
}

/// Makes `scratch.entries` the beginning of a walk.
pub(super) fn start_layer(layer: Layer<'_>, width: Width, scratch: &mut Scratch) {
    let Scratch { beam, visited, entries, .. } = scratch;
    beam.reset(width);
    visited.reset(layer.links.len() / layer.degree);
    for &entry in entries.iter() {
        if visited.insert(entry.node) {
            beam.insert(entry);
        }
    }
}

/// Goes on with a walk, for so many steps at most.
pub(super) fn walk_layer<S: Scorer>(layer: Layer<'_>, scorer: &S, steps_max: usize, scratch: &mut Scratch) {
    let Scratch { beam, visited, buffers, .. } = scratch;
    for _ in 0..steps_max {
        let Some(node) = beam.expand_next() else { return };
        let before = visited.len();
        for &neighbour in layer.neighbours(node) {
            if neighbour == NONE {
                break;
            }
            if visited.insert(neighbour) {
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

/// What a walk over accepted rows may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AcceptedBounds {
    /// Accepted rows that one step may bring, at most.
    pub(super) accepted_max: usize,
    /// Rows that are not accepted and that one step looks through, at most. Lists begin with the nearest.
    pub(super) through_max: usize,
}

/// Like [`search_layer`] in layer 0, but only accepted rows enter the beam. Rows that are not accepted are walked through:
/// their neighbours count as those of the node that led there (ACORN-1, Patel et al., arXiv 2403.04871, bounded).
/// Continues from what the beam holds, all accepted, with whatever was visited.
pub(super) fn search_accepted<S: Scorer>(
    layer: Layer<'_>,
    scorer: &S,
    bounds: AcceptedBounds,
    is_accepted: impl Fn(u32) -> bool,
    scratch: &mut Scratch,
) {
    let Scratch { beam, visited, buffers, accepted, through, .. } = scratch;
    while let Some(node) = beam.expand_next() {
        accepted.clear();
        through.clear();
        for &neighbour in layer.neighbours(node).iter().take_while(|node| **node != NONE) {
            if !is_accepted(neighbour) {
                if through.len() < bounds.through_max {
                    through.push(neighbour);
                    prefetch(layer.neighbours(neighbour));
                }
            } else if visited.insert(neighbour) {
                scorer.prefetch(neighbour);
                accepted.push(neighbour);
            }
        }
        for &via in through.iter() {
            if accepted.len() >= bounds.accepted_max {
                break;
            }
            let before = accepted.len();
            append_accepted(layer.neighbours(via), &is_accepted, accepted);
            let mut kept = before;
            for at in before..accepted.len() {
                let far = accepted[at];
                if visited.insert(far) {
                    scorer.prefetch(far);
                    accepted[kept] = far;
                    kept += 1;
                }
            }
            accepted.truncate(kept);
        }
        scorer.score(accepted, buffers);
        for (node, distance) in accepted.iter().zip(&buffers.distances) {
            if beam.insert(Found { distance: *distance, node: *node }) {
                prefetch(layer.neighbours(*node));
            }
        }
    }
}

/// Appends the accepted ones of a list.
#[inline(always)]
fn append_accepted(list: &[u32], is_accepted: impl Fn(u32) -> bool, out: &mut Vec<u32>) {
    let start = out.len();
    out.resize(start + list.len(), NONE);
    let slots = &mut out[start..];
    let mut count = 0;
    for &node in list {
        if node == NONE {
            break;
        }
        // What is not accepted is written over by the next: guessing which is, wrong one time in ten, would cost more.
        slots[count] = node;
        count += usize::from(is_accepted(node));
    }
    out.truncate(start + count);
}

/// Leaves in the beam the accepted ones among the rows that a walk visited, not expanded, as many as fit.
pub(super) fn keep_accepted<S: Scorer>(
    scorer: &S,
    width: Width,
    is_accepted: impl Fn(u32) -> bool,
    scratch: &mut Scratch,
) {
    let Scratch { beam, visited, buffers, accepted, .. } = scratch;
    accepted.clear();
    accepted.extend(visited.since(0).iter().copied().filter(|node| is_accepted(*node)));
    // Scored once more, a share of the few: cheaper than to remember the distances of all walks.
    scorer.score(accepted, buffers);
    beam.reset(width);
    for (node, distance) in accepted.iter().zip(&buffers.distances) {
        beam.insert(Found { distance: *distance, node: *node });
    }
}

/// From the entry point through the upper layers to where a search of layer 0 starts, which becomes the only one of
/// `scratch.entries`. The graph must not be empty.
pub(super) fn descend<S: Scorer>(graph: GraphView<'_>, scorer: &S, scratch: &mut Scratch) {
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
}

/// From the entry point down, then a beam search of layer 0. The graph must not be empty.
pub(super) fn search_graph<S: Scorer>(graph: GraphView<'_>, scorer: &S, width: Width, scratch: &mut Scratch) {
    descend(graph, scorer, scratch);
    search_layer(graph.base(), scorer, width, scratch);
}
