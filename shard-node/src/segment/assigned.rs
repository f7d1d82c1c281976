//! The cluster of each row of a run, by one map: docs/adr/0020-clusters-as-objects.md. Computed from the row's vector and the
//! map alone, in memory only, and kept with the run, whose rows never change.

use std::sync::Arc;

use parking_lot::Mutex;
use vicinal_common::ids::MapDigest;
use vicinal_common::vector::VectorRef;
use vicinal_routing::Placer;

use super::merge::{RowRef, Source};
use super::{Run, Vectors};

/// A row without the vector: it is in no cluster.
const NONE: u32 = u32::MAX;
/// A row whose cluster is not known yet.
const PENDING: u32 = u32::MAX - 1;
/// Rows after which it is asked whether to go on.
const ROWS_TOLD: usize = 128;

/// The clusters of the rows of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignments {
    map: MapDigest,
    /// By row.
    clusters: Vec<u32>,
    /// Length to the centroid, by row; 0 where there is none.
    lengths: Vec<f32>,
    /// Rows whose cluster is not known yet.
    pending: usize,
    /// Rows in a cluster, by cluster and then ascending. Empty while rows are pending.
    sorted: Vec<u32>,
}

impl Assignments {
    fn new(map: MapDigest, clusters: Vec<u32>, lengths: Vec<f32>) -> Assignments {
        let pending = clusters.iter().filter(|cluster| **cluster == PENDING).count();
        let mut sorted = Vec::new();
        if pending == 0 {
            sorted.extend((0..clusters.len() as u32).filter(|row| clusters[*row as usize] != NONE));
            sorted.sort_by_key(|row| clusters[*row as usize]);
        }
        Assignments { map, clusters, lengths, pending, sorted }
    }

    /// The map.
    pub fn map(&self) -> MapDigest {
        self.map
    }

    /// How many rows are assigned, those without the vector among them.
    pub fn assigned(&self) -> u64 {
        (self.clusters.len() - self.pending) as u64
    }

    /// The cluster of a row; `None` when it lacks the vector.
    pub fn cluster(&self, row: u32) -> Option<u32> {
        self.clusters.get(row as usize).copied().filter(|cluster| *cluster < PENDING)
    }

    /// The rows of a cluster, dead ones among them, ascending.
    pub fn rows_of(&self, cluster: u32) -> &[u32] {
        let of = |row: &u32| self.clusters[*row as usize];
        let start = self.sorted.partition_point(|row| of(row) < cluster);
        let rest = &self.sorted[start..];
        &rest[..rest.partition_point(|row| of(row) == cluster)]
    }

    /// All rows in clusters with their cluster and length, by cluster and then ascending.
    pub fn by_cluster(&self) -> impl Iterator<Item = (u32, u32, f32)> {
        self.sorted.iter().map(|row| (*row, self.clusters[*row as usize], self.lengths[*row as usize]))
    }

    /// What a run made of rows of others knows from them; `None` when they know nothing. Rows of runs that know less
    /// are pending.
    fn carried(sources: &[Source<'_>], order: impl Iterator<Item = RowRef>) -> Option<Assignments> {
        let known: Vec<Option<Arc<Assignments>>> =
            sources.iter().map(|source| source.run.assigned().newest()).collect();
        // While a new map takes the place of another, some runs know the old one: what most rows know is carried.
        let map = known.iter().flatten().max_by_key(|known| known.assigned())?.map;
        let (mut clusters, mut lengths) = (Vec::new(), Vec::new());
        for RowRef { source, row } in order {
            let of_run = known.get(source as usize).and_then(Option::as_ref).filter(|known| known.map == map);
            let of_row = of_run.and_then(|known| {
                let row = row as usize;
                Some((*known.clusters.get(row)?, *known.lengths.get(row)?))
            });
            let (cluster, length) = of_row.unwrap_or((PENDING, 0.0));
            clusters.push(cluster);
            lengths.push(length);
        }
        Some(Assignments::new(map, clusters, lengths))
    }
}

/// The place of a run's assignments.
#[derive(Default)]
pub struct Assigned {
    known: Mutex<Option<Arc<Assignments>>>,
    /// Held while rows are assigned, so that those who ask at the same time wait for one that does. Nobody waits for this
    /// lock who holds another one.
    assigning: Mutex<()>,
}

impl Assigned {
    /// What a run made of rows of others, in this order, knows from them.
    pub fn carried(sources: &[Source<'_>], order: impl Iterator<Item = RowRef>) -> Assigned {
        let known = Assignments::carried(sources, order).map(Arc::new);
        Assigned { known: Mutex::new(known), assigning: Mutex::default() }
    }

    /// The same for a run that is there already.
    pub fn carry(&self, sources: &[Source<'_>], order: impl Iterator<Item = RowRef>) {
        if let Some(carried) = Assignments::carried(sources, order) {
            *self.known.lock() = Some(Arc::new(carried));
        }
    }

    fn newest(&self) -> Option<Arc<Assignments>> {
        self.known.lock().clone()
    }

    /// The assignments by a map, perhaps with rows that are pending.
    pub fn by(&self, map: MapDigest) -> Option<Arc<Assignments>> {
        self.newest().filter(|known| known.map == map)
    }

    /// The assignments of all rows by a map.
    pub fn complete(&self, map: MapDigest) -> Option<Arc<Assignments>> {
        self.by(map).filter(|known| known.pending == 0)
    }

    /// Forgets all but those by this map.
    pub fn keep(&self, map: Option<MapDigest>) {
        let mut known = self.known.lock();
        if known.as_ref().map(|known| known.map) != map {
            *known = None;
        }
    }

    /// Assigns the rows of `run`, whose place this is, that are not yet. `goes_on` is told of rows done since it was last
    /// asked; when it wants no more, what was done so far is kept. Returns whether all is done.
    pub fn assign(
        &self,
        run: &dyn Run,
        ordinal: usize,
        (map, placer): (MapDigest, &Placer),
        goes_on: &mut dyn FnMut(usize) -> bool,
    ) -> bool {
        let _single = self.assigning.lock();
        if self.complete(map).is_some() {
            return true;
        }
        let rows = run.rows() as usize;
        let known = self.by(map).filter(|known| known.clusters.len() == rows);
        let (mut clusters, mut lengths) = match known {
            Some(known) => (known.clusters.clone(), known.lengths.clone()),
            None => (vec![PENDING; rows], vec![0.0; rows]),
        };
        let vectors: Vectors<'_> = run.vectors(ordinal);
        let mut done = 0;
        for (row, (cluster, length)) in clusters.iter_mut().zip(&mut lengths).enumerate() {
            if *cluster != PENDING {
                continue;
            }
            (*cluster, *length) = match vectors.get(row as u32) {
                Some(VectorRef::Dense(vector)) => placer.cell(vector),
                Some(VectorRef::Sparse(_) | VectorRef::Multi(_)) | None => (NONE, 0.0),
            };
            done += 1;
            if done == ROWS_TOLD {
                done = 0;
                if !goes_on(ROWS_TOLD) {
                    break;
                }
            }
        }
        let known = Assignments::new(map, clusters, lengths);
        let is_done = known.pending == 0;
        *self.known.lock() = Some(Arc::new(known));
        is_done
    }
}
