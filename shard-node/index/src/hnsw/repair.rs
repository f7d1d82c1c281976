//! The last step of a build: every node of layer 0 is made reachable from the entry point.

use super::beam::{Found, Scratch};
use super::graph::{Graph, NONE};
use super::search::search_graph;
use super::select::Geometry;
use super::{BuildControl, BuildError};

/// How many near nodes are tried as a new predecessor before any node will do.
const NEAR: usize = 64;

/// The tree by which nodes were reached. Its edges are never removed, so what was reached stays so.
struct Reach {
    /// Predecessor of each reached row; the entry's is itself; [`NONE`]: not reached.
    parent: Vec<u32>,
    /// Reached rows, in order.
    reached: Vec<u32>,
}

impl Reach {
    /// Reaches `row` through `parent`, and whatever can be reached from it.
    fn extend(&mut self, graph: &Graph, row: u32, parent: u32) {
        let mut next = self.reached.len();
        self.parent[row as usize] = parent;
        self.reached.push(row);
        while let Some(&from) = self.reached.get(next) {
            next += 1;
            for &to in graph.view().base().neighbours(from).iter().take_while(|to| **to != NONE) {
                if self.parent[to as usize] == NONE {
                    self.parent[to as usize] = from;
                    self.reached.push(to);
                }
            }
        }
    }

    /// Adds the edge `from -> to`, in a free place or in that of the farthest edge outside the tree. False: all edges
    /// of `from` are in the tree.
    fn attach(&self, graph: &mut Graph, from: u32, to: u32) -> bool {
        let degree = 2 * graph.m;
        let list = &mut graph.base[from as usize * degree..][..degree];
        let free = list.iter().position(|&link| link == NONE);
        let place = free.or_else(|| list.iter().rposition(|&link| self.parent[link as usize] != from));
        if let Some(place) = place {
            list[place] = to;
        }
        place.is_some()
    }
}

/// Gives every unreachable row an edge from a near reachable one.
pub(super) fn connect(
    graph: &mut Graph,
    rows: &[u32],
    geometry: &Geometry<'_>,
    control: &BuildControl<'_>,
    scratch: &mut Scratch,
) -> Result<(), BuildError> {
    if graph.entry == NONE {
        return Ok(());
    }
    let mut reach = Reach { parent: vec![NONE; graph.base.len() / (2 * graph.m)], reached: Vec::new() };
    reach.extend(graph, graph.entry, graph.entry);
    // Where the search for any predecessor continues: a row whose edges are all in the tree stays so.
    let mut any = 0;
    for &row in rows {
        if reach.parent[row as usize] != NONE {
            continue;
        }
        control.check()?;
        let mut target = std::mem::take(&mut scratch.target);
        geometry.aim(&mut target, row);
        search_graph(graph.view(), &geometry.scorer(&target), NEAR.into(), scratch);
        scratch.target = target;
        let near: Vec<Found> = scratch.beam.found().collect();
        // The descent may start from a row that is not reachable itself: only reached rows count.
        let is_reached = |found: &&Found| reach.parent[found.node as usize] != NONE;
        let parent = near.iter().filter(is_reached).find(|found| reach.attach(graph, found.node, row));
        let parent = match parent {
            Some(found) => found.node,
            None => loop {
                // The tree over r rows has r - 1 edges and the rows have at least 4 r places: one is always found.
                let from = reach.reached[any];
                if reach.attach(graph, from, row) {
                    break from;
                }
                any += 1;
            },
        };
        reach.extend(graph, row, parent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use vicinal_common::distance::Kernel;
    use vicinal_common::metric::Metric;

    use super::super::select::Space;
    use super::*;
    use crate::Rows;

    #[test]
    fn connects_a_graph_without_edges_even_at_the_smallest_degree() {
        let data: Vec<f32> = (0..500u16).map(f32::from).collect();
        let order: Vec<u32> = (0..500).rev().collect();
        let mut graph = Graph {
            m: 2,
            layer_nodes: Vec::new(),
            base: vec![NONE; 500 * 4],
            upper_rows: Vec::new(),
            upper: Vec::new(),
            twins: Vec::new(),
            entry: 499,
        };
        let geometry =
            Geometry::new(Rows { data: &data, dim: 1 }, Metric::Euclid, Space::Vectors(Kernel::new(Metric::Euclid)));
        let control = BuildControl { cancel: &AtomicBool::new(false), done: &AtomicU64::new(0), threads: 1 };
        connect(&mut graph, &order, &geometry, &control, &mut Scratch::default()).unwrap();
        let mut reach = Reach { parent: vec![NONE; 500], reached: Vec::new() };
        reach.extend(&graph, 499, 499);
        assert_eq!(reach.reached.len(), 500);
    }
}
