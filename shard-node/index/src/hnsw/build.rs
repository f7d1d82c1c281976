//! Building a graph: Malkov & Yashunin's insertion, in batches, so that any number of threads gives the same graph.
//!
//! Rows are inserted by descending level, within a level in the order of a seeded hash, [`BATCH`] at a time. The rows
//! of a batch are searched for in the graph of the rows before (which nobody changes meanwhile) and compared with each
//! other exactly; then their lists and the edges back to them are written in one fixed order.

use rayon::prelude::*;

use super::beam::{Found, ScoreBuffers, Scratch, ScratchPool};
use super::graph::{Graph, LAYERS_MAX, Layer, NONE};
use super::search::{Scorer, greedy, search_layer};
use super::select::{Geometry, RowScorer, SelectScratch, Target, select};
use super::{BuildControl, BuildError, HnswParams, duplicates, repair};
use crate::Rows;

/// Rows inserted at a time. Part of what determines a graph: changing it changes every graph.
const BATCH: usize = 128;

/// Builds the graph over all rows, on the threads of `pool` if there is one.
pub(super) fn build(
    rows: Rows<'_>,
    geometry: Geometry<'_>,
    pool: Option<rayon::ThreadPool>,
    params: &HnswParams,
    control: &BuildControl<'_>,
) -> Result<Graph, BuildError> {
    control.check()?;
    let duplicates = duplicates::find(rows);
    let order = InsertOrder::new(&duplicates.distinct, params);
    control.check()?;
    let mut builder = Builder {
        geometry,
        layers: order.layers(rows.len(), params.m),
        order,
        ef_construction: params.ef_construction,
        scratches: ScratchPool::new(),
        pool,
    };
    let repeated = (rows.len() - builder.order.rows.len()) as u64;
    for start in (0..builder.order.rows.len()).step_by(BATCH) {
        control.check()?;
        let end = (start + BATCH).min(builder.order.rows.len());
        builder.insert_batch(start, end);
        control.done.store(repeated + end as u64, std::sync::atomic::Ordering::Relaxed);
    }
    control.check()?;
    let Builder { geometry, layers, order, scratches, pool, .. } = builder;
    let mut lists = layers.into_iter().enumerate().map(|(l, layer)| {
        finish_layer(layer, pool.as_ref(), &scratches, |node, list, degree, scratch| {
            select(&geometry, order.row(l, node), list, degree, |node| order.row(l, node), scratch)
        })
    });
    let base = lists.next().unwrap_or_default();
    let upper = lists.collect::<Vec<_>>().concat();
    let mut graph = Graph {
        m: params.m,
        base,
        upper_rows: order.rows[..order.layer_nodes.first().map_or(0, |nodes| *nodes as usize)].to_vec(),
        upper,
        twins: duplicates.twins,
        entry: order.rows.first().copied().unwrap_or(NONE),
        layer_nodes: order.layer_nodes,
    };
    repair::connect(&mut graph, &order.rows, &geometry, control, &mut scratches.take())?;
    Ok(graph)
}

/// The order in which rows enter the graph. The position of a row in it is its node number in the upper layers.
struct InsertOrder {
    rows: Vec<u32>,
    /// Number of rows in layers 1, 2, ...
    layer_nodes: Vec<u32>,
}

impl InsertOrder {
    fn new(distinct: &[u32], params: &HnswParams) -> InsertOrder {
        let mut ranked: Vec<(std::cmp::Reverse<usize>, u64, u32)> = distinct
            .iter()
            .map(|&row| {
                let hash = mix(params.seed ^ mix(u64::from(row)));
                (std::cmp::Reverse(level(hash, params.m)), hash, row)
            })
            .collect();
        ranked.sort_unstable();
        let top = ranked.first().map_or(0, |(level, ..)| level.0);
        let nodes_of = |layer: usize| ranked.partition_point(|(level, ..)| level.0 >= layer);
        let layer_nodes =
            (1..=top).map(|layer| u32::try_from(nodes_of(layer)).expect("rows are limited to 31 bits")).collect();
        InsertOrder { rows: ranked.into_iter().map(|(.., row)| row).collect(), layer_nodes }
    }

    /// The highest layer of the row at a position.
    fn level(&self, position: usize) -> usize {
        self.layer_nodes.iter().take_while(|nodes| **nodes as usize > position).count()
    }

    /// Empty layers, layer 0 first.
    fn layers(&self, rows: usize, m: usize) -> Vec<BuildLayer> {
        let base = BuildLayer::new(rows, 2 * m);
        std::iter::once(base).chain(self.layer_nodes.iter().map(|nodes| BuildLayer::new(*nodes as usize, m))).collect()
    }

    /// The node of a position in a layer.
    fn node(&self, layer: usize, position: usize) -> u32 {
        if layer == 0 { self.rows[position] } else { position as u32 }
    }

    /// The row of a node of a layer.
    fn row(&self, layer: usize, node: u32) -> u32 {
        if layer == 0 { node } else { self.rows[node as usize] }
    }
}

/// SplitMix64's finaliser: every input bit reaches every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A row of so many, at least 1: always the same for the same number, all about equally often.
pub(crate) fn any_row(number: u64, rows: usize) -> u32 {
    (mix(number) % rows as u64) as u32
}

/// The level of a row: at least l with probability m^-l, by integers only, so that all platforms agree.
fn level(hash: u64, m: usize) -> usize {
    let mut level = 0;
    let mut draw = mix(hash);
    while level < LAYERS_MAX && draw.is_multiple_of(m as u64) {
        level += 1;
        draw = mix(draw);
    }
    level
}

/// One layer while it grows. Lists may be a quarter longer than the final degree, so that a popular node is not pruned
/// for every single edge.
struct BuildLayer {
    degree: usize,
    capacity: usize,
    links: Vec<u32>,
    /// Distance of each link, by the build's geometry.
    distances: Vec<f32>,
    counts: Vec<u16>,
}

impl BuildLayer {
    fn new(nodes: usize, degree: usize) -> BuildLayer {
        let capacity = degree + degree / 4;
        BuildLayer {
            degree,
            capacity,
            links: vec![NONE; nodes * capacity],
            distances: vec![0.0; nodes * capacity],
            counts: vec![0; nodes],
        }
    }

    fn list(&self, node: u32) -> impl Iterator<Item = Found> + '_ {
        let start = node as usize * self.capacity;
        let end = start + usize::from(self.counts[node as usize]);
        let (links, distances) = (&self.links[start..end], &self.distances[start..end]);
        links.iter().zip(distances).map(|(&node, &distance)| Found { distance, node })
    }

    fn set_list(&mut self, node: u32, list: &[Found]) {
        let start = node as usize * self.capacity;
        self.links[start..start + self.capacity].fill(NONE);
        for (i, found) in list.iter().enumerate() {
            self.links[start + i] = found.node;
            self.distances[start + i] = found.distance;
        }
        self.counts[node as usize] = u16::try_from(list.len()).expect("a list is no longer than its capacity");
    }
}

/// What inserting one row changes: its list in each of its layers, layer 0 first.
struct Plan {
    position: usize,
    lists: Vec<Vec<Found>>,
}

/// An edge towards a new node: from `target`, in `layer`.
struct BackEdge {
    layer: usize,
    target: u32,
    source: Found,
}

struct Builder<'a> {
    geometry: Geometry<'a>,
    layers: Vec<BuildLayer>,
    order: InsertOrder,
    ef_construction: usize,
    scratches: ScratchPool,
    pool: Option<rayon::ThreadPool>,
}

/// Applies `work` to all items and keeps their order, on the pool if there is one.
fn map_all<T: Sync, R: Send>(
    pool: Option<&rayon::ThreadPool>,
    scratches: &ScratchPool,
    items: &[T],
    work: impl Fn(&mut Scratch, &T) -> R + Sync,
) -> Vec<R> {
    match pool {
        Some(pool) => pool
            .install(|| items.par_iter().map_init(|| scratches.take(), |scratch, item| work(scratch, item)).collect()),
        None => {
            let mut scratch = scratches.take();
            items.iter().map(|item| work(&mut scratch, item)).collect()
        }
    }
}

impl Builder<'_> {
    fn layer(&self, layer: usize) -> Layer<'_> {
        let lists = &self.layers[layer];
        let rows = (layer > 0).then_some(&self.order.rows[..]);
        Layer { links: &lists.links, degree: lists.capacity, rows }
    }

    fn insert_batch(&mut self, start: usize, end: usize) {
        let positions: Vec<usize> = (start..end).collect();
        let this = &*self;
        let plans = map_all(this.pool.as_ref(), &this.scratches, &positions, |scratch, &position| {
            this.plan(position, start..end, scratch)
        });
        let mut edges = Vec::new();
        for plan in &plans {
            for (layer, list) in plan.lists.iter().enumerate() {
                let node = self.order.node(layer, plan.position);
                self.layers[layer].set_list(node, list);
                edges.extend(list.iter().map(|found| BackEdge {
                    layer,
                    target: found.node,
                    source: Found { distance: found.distance, node },
                }));
            }
        }
        edges
            .sort_unstable_by(|a, b| (a.layer, a.target).cmp(&(b.layer, b.target)).then(a.source.cmp_total(&b.source)));
        let groups: Vec<&[BackEdge]> = edges.chunk_by(|a, b| (a.layer, a.target) == (b.layer, b.target)).collect();
        let this = &*self;
        let lists = map_all(this.pool.as_ref(), &this.scratches, &groups, |scratch, group| {
            this.with_back_edges(group, &mut scratch.select)
        });
        for (group, list) in groups.iter().zip(&lists) {
            self.layers[group[0].layer].set_list(group[0].target, list);
        }
    }

    /// Finds the neighbours of a row in the graph before its batch and among the rest of the batch.
    fn plan(&self, position: usize, batch: std::ops::Range<usize>, scratch: &mut Scratch) -> Plan {
        let row = self.order.rows[position];
        let mut target = std::mem::take(&mut scratch.target);
        self.geometry.aim(&mut target, row);
        let scorer = self.geometry.scorer(&target);
        let level = self.order.level(position);
        let companions = self.companions(position, batch.clone(), &scorer, &mut scratch.buffers);
        let mut lists = vec![Vec::new(); level + 1];
        let mut start = Found { distance: f32::MAX, node: 0 };
        if batch.start > 0 {
            scorer.score(&self.order.rows[..1], &mut scratch.buffers);
            start.distance = scratch.buffers.distances[0];
            for layer in (level + 1..self.layers.len()).rev() {
                start = greedy(self.layer(layer), &scorer, start, &mut scratch.buffers);
            }
        }
        scratch.entries.clear();
        scratch.entries.push(start);
        for layer in (0..=level).rev() {
            let mut candidates: Vec<Found> = Vec::with_capacity(self.ef_construction + companions.len());
            if batch.start > 0 {
                if layer == 0 {
                    for entry in &mut scratch.entries {
                        entry.node = self.order.rows[entry.node as usize];
                    }
                }
                self.search(layer, &target, row, scratch, &mut candidates);
            }
            let nodes = if layer == 0 { usize::MAX } else { self.order.layer_nodes[layer - 1] as usize };
            candidates.extend(
                companions
                    .iter()
                    .filter(|(position, _)| *position < nodes)
                    .map(|&(position, distance)| Found { distance, node: self.order.node(layer, position) }),
            );
            candidates.sort_by(Found::cmp_total);
            if !self.geometry.is_lifted() {
                candidates.truncate(self.ef_construction);
            }
            let degree = self.layers[layer].degree;
            let row_of = |node| self.order.row(layer, node);
            lists[layer] = select(&self.geometry, row, &candidates, degree, row_of, &mut scratch.select);
        }
        scratch.target = target;
        Plan { position, lists }
    }

    /// Searches one layer for a row: what is found goes to `candidates` and becomes the entries of the next layer.
    /// Where the orders differ, both are searched for; every distance is lifted.
    fn search(&self, layer: usize, target: &Target, row: u32, scratch: &mut Scratch, candidates: &mut Vec<Found>) {
        search_layer(self.layer(layer), &self.geometry.scorer(target), self.ef_construction.into(), scratch);
        candidates.extend(scratch.beam.found());
        if let Some(nearest) = candidates.first().copied().filter(|_| self.geometry.is_lifted()) {
            let scorer = self.geometry.plain_scorer(target);
            scorer.score(&[self.order.row(layer, nearest.node)], &mut scratch.buffers);
            let distance = scratch.buffers.distances[0];
            scratch.entries.clear();
            scratch.entries.push(Found { distance, ..nearest });
            search_layer(self.layer(layer), &scorer, self.ef_construction.into(), scratch);
            candidates.extend(scratch.beam.found().map(|found| {
                let lifted = self.geometry.lift(row, self.order.row(layer, found.node), found.distance);
                Found { distance: lifted, ..found }
            }));
            candidates.sort_by(Found::cmp_total);
            candidates.dedup_by_key(|found| found.node);
        }
        scratch.entries.clear();
        scratch.entries.extend(candidates.iter().copied());
    }

    /// The distances to the other rows of the batch, by position.
    fn companions(
        &self,
        position: usize,
        batch: std::ops::Range<usize>,
        scorer: &RowScorer<'_>,
        buffers: &mut ScoreBuffers,
    ) -> Vec<(usize, f32)> {
        scorer.score(&self.order.rows[batch.clone()], buffers);
        let scored = batch.zip(buffers.distances.iter().copied());
        scored.filter(|(other, _)| *other != position).collect()
    }

    /// The list of a node after edges to new nodes were added; pruned to the degree when it would not fit.
    fn with_back_edges(&self, group: &[BackEdge], scratch: &mut SelectScratch) -> Vec<Found> {
        let BackEdge { layer, target, .. } = group[0];
        let lists = &self.layers[layer];
        let mut list: Vec<Found> = lists.list(target).collect();
        for edge in group {
            // Two rows of one batch may have chosen each other.
            if list.iter().all(|found| found.node != edge.source.node) {
                list.push(edge.source);
            }
        }
        if list.len() > lists.capacity {
            list.sort_by(Found::cmp_total);
            let row_of = |node| self.order.row(layer, node);
            list = select(&self.geometry, row_of(target), &list, lists.degree, row_of, scratch);
        }
        list
    }
}

/// The final lists of a layer: at most its degree, nearest first.
fn finish_layer(
    layer: BuildLayer,
    pool: Option<&rayon::ThreadPool>,
    scratches: &ScratchPool,
    prune: impl Fn(u32, &[Found], usize, &mut SelectScratch) -> Vec<Found> + Sync,
) -> Vec<u32> {
    let mut links = vec![NONE; layer.counts.len() * layer.degree];
    let fill = |scratch: &mut Scratch, (node, out): (usize, &mut [u32])| {
        let mut list: Vec<Found> = layer.list(node as u32).collect();
        list.sort_by(Found::cmp_total);
        if list.len() > layer.degree {
            list = prune(node as u32, &list, layer.degree, &mut scratch.select);
        }
        for (place, found) in out.iter_mut().zip(list) {
            *place = found.node;
        }
    };
    match pool {
        Some(pool) => pool.install(|| {
            let lists = links.par_chunks_exact_mut(layer.degree).enumerate();
            lists.for_each_init(|| scratches.take(), |scratch, list| fill(scratch, list));
        }),
        None => {
            let mut scratch = scratches.take();
            links.chunks_exact_mut(layer.degree).enumerate().for_each(|list| fill(&mut scratch, list));
        }
    }
    links
}
