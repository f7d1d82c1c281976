//! The clusters of a shard's rows: who assigns them and when, and what is asked of them. docs/adr/0020-clusters-as-objects.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use vicinal_common::api::{ClusterSample, ClusterStat, ClusterStats, OrderValue, PointParts, StoredPoint};
use vicinal_common::collection::VectorKind;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::ids::MapDigest;
use vicinal_common::point::PointId;
use vicinal_common::publish::MapRef;
use vicinal_common::tuning::Tuning;

use super::Shard;
use super::commit::StepError;
use super::environment::MapSource;
use super::matching::Matcher;
use super::ordered::First;
use super::patience::{Patience, ROW_COST};
use super::select::{Reading, RunRef};
use super::view::{Parts, View};
use crate::node::OpenMap;
use crate::segment::{Assignments, Layout, Run, Segment, Source};

/// A segment whose open rows take no more work than this is assigned by the read that needs it, in about nanoseconds: it may
/// be young, or have been merged of parts that were not asked for before. Others are left to the background.
const READ_WORK_MAX: u64 = 1_000_000_000;
/// Components of centroids compared in a nanosecond, about: most of them by their codes.
const COMPONENTS_PER_WORK: u64 = 8;
/// Bytes that assigning takes per row: cluster, length, and its place in the order of clusters, each twice.
const BYTES_PER_ROW: u64 = 24;

/// What the rows of a replica are assigned to clusters by.
pub(super) struct WantedClusters {
    map: MapRef,
    ordinal: usize,
    maps: Arc<dyn MapSource>,
    /// Kept once it was needed, so that the maps of a node are parsed once.
    open: Mutex<Option<Arc<OpenMap>>>,
}

impl fmt::Debug for WantedClusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WantedClusters").field("map", &self.map).finish_non_exhaustive()
    }
}

impl WantedClusters {
    /// `None` without a clustering, and in a shard that does not hold its vector.
    pub(super) fn of(tuning: &Tuning, layout: &Layout, maps: &Arc<dyn MapSource>) -> Option<WantedClusters> {
        let map = tuning.clustering.clone()?;
        let ordinal = layout.ordinal(&map.vector)?;
        let is_dense = matches!(layout.vectors[ordinal].kind, VectorKind::Dense);
        is_dense.then(|| WantedClusters { map, ordinal, maps: Arc::clone(maps), open: Mutex::default() })
    }

    /// Whether rows of a segment can be assigned, and are not.
    pub(super) fn is_due(&self, segment: &Segment) -> bool {
        segment.assigned().complete(self.map.digest).is_none() && self.maps.holds(self.map.digest)
    }

    /// The map. `Unavailable` while it is not here, or damaged: then it is put again.
    fn open(&self, dim: usize) -> Result<Arc<OpenMap>> {
        let mut open = self.open.lock();
        if let Some(open) = &*open {
            return Ok(Arc::clone(open));
        }
        let opened = self.maps.open(self.map.digest).map_err(|error| match error {
            Error::NotFound(words) | Error::Corrupt(words) => {
                Error::Unavailable(format!("points cannot be assigned to clusters yet: {words}"))
            }
            other => other,
        })?;
        if opened.map.parts().dim != dim {
            let has = opened.map.parts().dim;
            return Err(Error::Internal(format!("the clusters have centroids of {has} dimensions, the vectors {dim}")));
        }
        *open = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Work to assign a row, in about nanoseconds.
    fn row_cost(&self, open: &OpenMap) -> u64 {
        (open.map.len() as u64 * open.map.parts().dim as u64 / COMPONENTS_PER_WORK).max(ROW_COST)
    }
}

impl View {
    /// Makes sure that the cluster of every row is known to all runs, if a filter asks for clusters. Assigns what is young;
    /// `Unavailable`, with how far they are, when others are not assigned yet or the filter means another map.
    pub fn know_clusters(&self, filter: Option<&Filter>, patience: &Patience) -> Result<()> {
        let Some(filter) = filter.filter(|filter| filter.names_clusters()) else { return Ok(()) };
        filter.cluster_maps()?.into_iter().try_for_each(|map| self.know_map(map, patience))
    }

    fn know_map(&self, map: MapDigest, patience: &Patience) -> Result<()> {
        self.assign_young(map, patience)?;
        let (assigned, rows) = self.assigned(map);
        if assigned < rows {
            return Err(Error::Unavailable(format!(
                "{assigned} of {rows} points of a shard are assigned to clusters so far: try again later"
            )));
        }
        Ok(())
    }

    /// Assigns the rows of fresh runs, and of segments where that is little work. `Unavailable` when rows are not assigned
    /// by this map at all.
    fn assign_young(&self, map: MapDigest, patience: &Patience) -> Result<()> {
        let wanted = self.wanted.clusters.as_ref().filter(|wanted| wanted.map.digest == map);
        let Some(wanted) = wanted else {
            return Err(match &self.wanted.tuning.clustering {
                Some(known) if known.digest == map => Error::Unavailable(format!(
                    "this shard does not hold vector `{}`, by which points are clustered",
                    known.vector
                )),
                Some(_) | None => Error::Unavailable(
                    "the clusters of the collection are changing: a shard does not know the new ones yet".into(),
                ),
            });
        };
        let dim = self.layout.vectors[wanted.ordinal].dim;
        for run in self.runs() {
            let rows = run.source().run;
            if rows.assigned().complete(map).is_some() {
                continue;
            }
            let open = wanted.open(dim)?;
            let cost = wanted.row_cost(&open);
            let assigned = rows.assigned().by(map).map_or(0, |known| known.assigned());
            let pending = u64::from(rows.rows()).saturating_sub(assigned);
            if matches!(run, RunRef::Segment(_)) && pending.saturating_mul(cost) > READ_WORK_MAX {
                continue;
            }
            let mut late = Ok(());
            rows.assigned().assign(rows, wanted.ordinal, (map, &open.placer), &mut |done| {
                late = patience.spend(done as u64 * cost);
                late.is_ok()
            });
            late?;
        }
        Ok(())
    }

    /// How many rows are assigned by a map, of how many.
    fn assigned(&self, map: MapDigest) -> (u64, u64) {
        let runs = self.sources().map(|source| {
            let assigned = source.run.assigned().by(map).map_or(0, |known| known.assigned());
            (assigned, u64::from(source.run.rows()))
        });
        runs.fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1))
    }

    /// What is in each cluster; only how far assigning is, while it is under way or has not begun.
    pub fn cluster_stats(&self, map: MapDigest, patience: &Patience) -> Result<ClusterStats> {
        match self.assign_young(map, patience) {
            Ok(()) | Err(Error::Unavailable(_)) => {}
            Err(error) => return Err(error),
        }
        let (assigned, rows) = self.assigned(map);
        let mut stats = ClusterStats { assigned, rows, clusters: Vec::new() };
        if !stats.is_ready() {
            return Ok(stats);
        }
        let mut clusters: BTreeMap<u32, ClusterStat> = BTreeMap::new();
        for (source, known) in self.with_clusters(map)? {
            patience.spend(u64::from(source.run.rows()))?;
            let ids = source.run.ids();
            for (row, cluster, length) in known.by_cluster().filter(|(row, ..)| !source.dead.contains(*row)) {
                let one = ClusterStat {
                    cluster,
                    points: 1,
                    length_sum: f64::from(length),
                    nearest_length: length,
                    nearest: ids.get(row),
                };
                clusters.entry(cluster).and_modify(|stat| *stat = stat.and(one)).or_insert(one);
            }
        }
        stats.clusters = clusters.into_values().collect();
        Ok(stats)
    }

    /// All runs with their assignments.
    fn with_clusters(&self, map: MapDigest) -> Result<Vec<(Source<'_>, Arc<Assignments>)>> {
        let runs = self.sources().map(|source| {
            let known = source.run.assigned().complete(map);
            known
                .map(|known| (source, known))
                .ok_or_else(|| Error::Unavailable("the clusters of the collection have just changed: try again".into()))
        });
        runs.collect()
    }

    /// The first `limit` points of a sample over clusters that match the filter, each with its cluster.
    pub(super) fn page_by_cluster(
        &self,
        sample: ClusterSample,
        limit: usize,
        filter: Option<&Filter>,
        parts: &PointParts,
        patience: &Patience,
    ) -> Result<Vec<StoredPoint>> {
        self.know_map(sample.map, patience)?;
        let runs = self.with_clusters(sample.map)?;
        let matchers = self.runs().map(|run| self.matcher(run, filter, Reading::Some));
        let matchers = matchers.collect::<Result<Vec<Matcher<'_>>>>()?;
        let clusters = runs.iter().flat_map(|(_, known)| known.by_cluster().map(|(_, cluster, _)| cluster));
        let clusters: BTreeSet<u32> = clusters.collect();
        let mut order: Vec<(u64, u32)> = clusters.into_iter().map(|cluster| sample.cluster_key(cluster)).collect();
        order.sort_unstable();
        let parts = Parts::new(parts, &self.layout)?;
        let per_cluster = usize::try_from(sample.per_cluster).unwrap_or(usize::MAX);
        let mut page = Vec::new();
        for (_, cluster) in order {
            if page.len() >= limit {
                break;
            }
            let mut first: First<((u64, PointId), usize, u32)> = First::new(per_cluster.min(limit - page.len()));
            for (number, ((source, known), matcher)) in runs.iter().zip(&matchers).enumerate() {
                for row in known.rows_of(cluster).iter().copied().filter(|row| !source.dead.contains(*row)) {
                    patience.spend(ROW_COST)?;
                    let key = (sample.point_key(source.run.ids().get(row)), number, row);
                    if first.would_take(&key) && matcher.check(row)? {
                        first.push(key);
                    }
                }
            }
            let found = first.heap.into_sorted_vec().into_iter();
            page.extend(found.map(|(_, number, row)| StoredPoint {
                order: Some(OrderValue::Integer(i64::from(cluster))),
                ..parts.read(runs[number].0.run, row)
            }));
        }
        Ok(page)
    }
}

impl Shard {
    /// Finds the clusters of the rows of one segment, in the background.
    pub(super) fn assign_clusters(&self, number: u64) -> Result<(), StepError> {
        let (segment, wanted) = {
            let committed = self.commit.lock();
            let segment = committed.segments.iter().find(|segment| segment.number == number);
            (segment.map(|segment| Arc::clone(&segment.segment)), Arc::clone(&committed.wanted))
        };
        let (Some(segment), Some(clusters)) = (segment, &wanted.clusters) else { return Ok(()) };
        let dim = self.layout.vectors[clusters.ordinal].dim;
        self.in_background(|| {
            let open = clusters.open(dim).map_err(|error| match error {
                // It has to be put on this node again. Like a full disk: tried later, and everything else goes on.
                Error::Unavailable(words) => StepError::DiskFull(std::io::Error::other(words)),
                other => StepError::Fatal(other),
            })?;
            let _reserved = self.env.builder.reserve(u64::from(segment.rows()) * BYTES_PER_ROW);
            let map = clusters.map.digest;
            let goes_on = &mut |_| {
                let now = self.view.load().wanted.tuning.clustering.as_ref().map(|map| map.digest);
                !self.closed.load(Ordering::Acquire) && now == Some(map)
            };
            segment.assigned().assign(&*segment, clusters.ordinal, (map, &open.placer), goes_on);
            match self.closed.load(Ordering::Acquire) {
                true => Err(StepError::Closed),
                // When another map is wanted now, the next step sees that.
                false => Ok(()),
            }
        })
    }

    /// Looks for background work, after something came that it may have been waiting for.
    pub fn look_for_work(&self) {
        self.schedule_optimizer(std::time::Duration::ZERO);
    }

    /// Gives back the memory of assignments by other maps than the wanted one.
    pub(super) fn forget_clusters(&self) {
        let view = self.view.load_full();
        let wanted = view.wanted.clusters.as_ref().map(|clusters| clusters.map.digest);
        view.sources().for_each(|source| source.run.assigned().keep(wanted));
    }
}
