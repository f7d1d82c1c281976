//! The finished graph: flat arrays of neighbour lists, owned after a build or borrowed from a mapped file.
//!
//! Nodes are ordered by level, so layer l >= 1 consists of the nodes `0..layer_nodes[l - 1]` and one array names the
//! row of each. Lists of layer l hold node numbers of that layer; lists of layer 0 hold rows. A list is as long as the
//! layer's degree; unused places at its end hold [`NONE`].

use std::io;

use crate::array::Array;

/// No node: fills the unused places of a list and ends a chain of equal rows.
pub(super) const NONE: u32 = u32::MAX;

/// Layers above layer 0, at most.
pub(super) const LAYERS_MAX: usize = 16;

/// Rows of one graph, at most: the top bit of a node number is used by the beam.
pub(super) const ROWS_MAX: usize = (1 << 31) - 1;

/// One layer, for searching.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    /// `nodes * degree` neighbours.
    pub(super) links: &'a [u32],
    /// Places per list.
    pub(super) degree: usize,
    /// Row of each node; `None` where nodes are rows (layer 0).
    pub(super) rows: Option<&'a [u32]>,
}

impl<'a> Layer<'a> {
    /// The neighbours of a node; valid up to the first [`NONE`].
    #[inline]
    pub(super) fn neighbours(&self, node: u32) -> &'a [u32] {
        let start = node as usize * self.degree;
        &self.links[start..start + self.degree]
    }

    /// The row a node stands for.
    #[inline]
    pub(super) fn row(&self, node: u32) -> u32 {
        self.rows.map_or(node, |rows| rows[node as usize])
    }
}

/// The arrays of a graph, borrowed.
#[derive(Clone, Copy)]
pub(super) struct GraphView<'a> {
    /// Half the degree of layer 0, the degree of the others.
    pub(super) m: usize,
    /// Number of nodes in layers 1, 2, ...: none is 0, none is larger than the one before.
    pub(super) layer_nodes: &'a [u32],
    /// Layer 0: `rows * 2m` rows.
    pub(super) base: &'a [u32],
    /// Row of each node of layer 1.
    pub(super) upper_rows: &'a [u32],
    /// Layers 1, 2, ... one after the other: `sum(layer_nodes) * m` node numbers.
    pub(super) upper: &'a [u32],
    /// For each row the next row with the same vector, or [`NONE`]. Empty when no two rows are equal. Only the first
    /// row of such a chain is in the graph.
    pub(super) twins: &'a [u32],
    /// The row where every search starts; [`NONE`] in an empty graph.
    pub(super) entry: u32,
}

impl<'a> GraphView<'a> {
    /// Layer 0.
    pub(super) fn base(&self) -> Layer<'a> {
        Layer { links: self.base, degree: 2 * self.m, rows: None }
    }

    /// The layers above layer 0, topmost first.
    pub(super) fn upper_layers(&self) -> impl Iterator<Item = Layer<'a>> {
        let view = *self;
        let mut end = view.upper.len();
        view.layer_nodes.iter().rev().map(move |&nodes| {
            let nodes = nodes as usize;
            let start = end - nodes * view.m;
            let links = &view.upper[start..end];
            end = start;
            Layer { links, degree: view.m, rows: Some(&view.upper_rows[..nodes]) }
        })
    }

    /// The rows whose vector is that of `row`, which is the first of them, in order.
    #[inline]
    pub(super) fn equal_rows(&self, row: u32) -> impl Iterator<Item = u32> + use<'a> {
        let twins = self.twins;
        std::iter::successors(Some(row), move |&row| twins.get(row as usize).copied().filter(|&next| next != NONE))
    }
}

/// The arrays of a graph, while it is being finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Graph {
    pub(super) m: usize,
    pub(super) layer_nodes: Vec<u32>,
    pub(super) base: Vec<u32>,
    pub(super) upper_rows: Vec<u32>,
    pub(super) upper: Vec<u32>,
    pub(super) twins: Vec<u32>,
    pub(super) entry: u32,
}

impl Graph {
    /// The arrays, borrowed.
    pub(super) fn view(&self) -> GraphView<'_> {
        GraphView {
            m: self.m,
            layer_nodes: &self.layer_nodes,
            base: &self.base,
            upper_rows: &self.upper_rows,
            upper: &self.upper,
            twins: &self.twins,
            entry: self.entry,
        }
    }
}

/// The arrays of a finished graph.
pub(super) struct StoredGraph {
    pub(super) m: usize,
    pub(super) entry: u32,
    pub(super) layer_nodes: Vec<u32>,
    pub(super) base: Array,
    pub(super) upper_rows: Array,
    pub(super) upper: Array,
    pub(super) twins: Array,
}

impl StoredGraph {
    /// Takes a graph over. Fails when there is no memory.
    pub(super) fn new(graph: Graph) -> io::Result<StoredGraph> {
        Ok(StoredGraph {
            m: graph.m,
            entry: graph.entry,
            layer_nodes: graph.layer_nodes,
            base: Array::copy(&graph.base)?,
            upper_rows: Array::copy(&graph.upper_rows)?,
            upper: Array::copy(&graph.upper)?,
            twins: Array::copy(&graph.twins)?,
        })
    }

    /// The arrays, borrowed.
    pub(super) fn view(&self) -> GraphView<'_> {
        GraphView {
            m: self.m,
            layer_nodes: &self.layer_nodes,
            base: self.base.of(),
            upper_rows: self.upper_rows.of(),
            upper: self.upper.of(),
            twins: self.twins.of(),
            entry: self.entry,
        }
    }
}
