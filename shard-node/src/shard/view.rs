//! A consistent state of a shard, immutable once published: what every read works on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use vicinal_common::api::{PointParts, ShardDigest, StoredPoint, VectorSelector};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::ids::LogIndex;
use vicinal_common::payload::Payload;
use vicinal_common::point::{PointId, Vectors};
use vicinal_common::publish::{Feed, MapRange};
use vicinal_common::vector::{MultiRef, SparseRef, VectorRef};
use xxhash_rust::xxh3::Xxh3;

use super::matching::Matcher;
use super::payload::{FreshFields, SegmentField};
use super::select::{Reading, RunRef};
use super::tuning::Wanted;
use crate::segment::{Layout, MemoryRun, Run, Segment, Source, StoredFile, Tombstones};
use vicinal_index::Residency;
use vicinal_index::hnsw::HnswIndex;

/// The index of one vector of a segment.
pub(super) struct SegmentIndex {
    pub(super) hnsw: HnswIndex,
    /// Number in its file name.
    pub(super) number: u64,
    /// Where it was opened.
    pub(super) residency: Residency,
    /// Shared with what was opened from it before and is still used.
    pub(super) file: Arc<StoredFile>,
}

/// A segment in a view.
#[derive(Clone)]
pub(super) struct LiveSegment {
    /// Number in its file name: its identity.
    pub(super) number: u64,
    pub(super) segment: Arc<Segment>,
    /// By ordinal of the vector.
    pub(super) indexes: Vec<Option<Arc<SegmentIndex>>>,
    /// Its payload indexes: of fields that are wanted, not necessarily all.
    pub(super) fields: Vec<Arc<SegmentField>>,
    pub(super) dead: Tombstones,
}

/// A fresh run in a view.
#[derive(Clone)]
pub(super) struct LiveRun {
    pub(super) run: Arc<MemoryRun>,
    pub(super) fields: Arc<FreshFields>,
    pub(super) dead: Tombstones,
}

/// A state of a shard. Over all runs, at most one live row has a given id.
#[derive(Clone)]
pub struct View {
    pub(super) layout: Arc<Layout>,
    pub(super) applied: LogIndex,
    /// What is wanted beside the points.
    pub(super) wanted: Arc<Wanted>,
    pub(super) segments: Vec<LiveSegment>,
    /// Oldest first.
    pub(super) fresh: Vec<LiveRun>,
    /// Live rows of all runs.
    pub(super) live: u64,
    /// Of a home shard: what it publishes.
    pub(super) feed: Arc<Feed>,
    /// Of a search shard: the maps by which it may be searched.
    pub(super) maps: MapRange,
}

impl LiveSegment {
    pub(super) fn source(&self) -> Source<'_> {
        Source { run: &*self.segment, dead: &self.dead }
    }

    /// All files of the segment.
    pub(super) fn files(&self) -> impl Iterator<Item = &StoredFile> {
        let indexes = self.indexes.iter().flatten().map(|index| &*index.file);
        std::iter::once(self.segment.file()).chain(indexes).chain(self.fields.iter().map(|field| &field.file))
    }
}

impl LiveRun {
    pub(super) fn new(run: MemoryRun) -> LiveRun {
        LiveRun { run: Arc::new(run), fields: Arc::default(), dead: Tombstones::default() }
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source { run: &*self.run, dead: &self.dead }
    }
}

impl View {
    /// A state of segments only, of a shard that neither publishes nor may be searched by a map.
    pub(super) fn of_segments(
        layout: Arc<Layout>,
        applied: LogIndex,
        wanted: Arc<Wanted>,
        segments: Vec<LiveSegment>,
    ) -> View {
        let live = segments.iter().map(|s| u64::from(s.segment.rows() - s.dead.count())).sum();
        let (feed, maps) = (Arc::default(), MapRange::default());
        View { layout, applied, wanted, segments, fresh: Vec::new(), live, feed, maps }
    }

    /// All runs with their dead rows, newest first.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        self.runs().map(RunRef::source)
    }

    /// Memory of the fresh part, in bytes.
    pub(super) fn fresh_bytes(&self) -> u64 {
        self.fresh.iter().map(|fresh| fresh.run.bytes()).sum()
    }

    /// The live row of an id.
    pub(super) fn locate(&self, id: PointId) -> Option<(Source<'_>, u32)> {
        self.sources().find_map(|source| {
            let row = source.run.ids().find(id)?;
            (!source.dead.contains(row)).then_some((source, row))
        })
    }

    /// The log index up to which this state holds everything; 0 before the first entry.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Points by id, in the order of `ids`; those that do not exist are left out.
    pub fn retrieve(&self, ids: &[PointId], parts: &PointParts) -> Result<Vec<StoredPoint>> {
        let parts = Parts::new(parts, &self.layout)?;
        Ok(ids.iter().filter_map(|id| self.locate(*id)).map(|(source, row)| parts.read(source.run, row)).collect())
    }

    /// Shows the points that match the filter in id order, from the id `from` on, for as long as `see` wants more.
    pub(super) fn visit(
        &self,
        from: Option<PointId>,
        filter: Option<&Filter>,
        parts: &PointParts,
        see: &mut dyn FnMut(StoredPoint) -> Result<bool>,
    ) -> Result<()> {
        let parts = Parts::new(parts, &self.layout)?;
        if let Some(ids) = filter.and_then(Filter::ids) {
            let mut ids: Vec<PointId> = ids.iter().copied().filter(|id| from.is_none_or(|from| *id >= from)).collect();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                if let Some((source, row)) = self.locate(id)
                    && Matcher::of(filter, source.run, &self.layout).check(row)?
                    && !see(parts.read(source.run, row))?
                {
                    break;
                }
            }
            return Ok(());
        }
        let runs: Vec<RunRef<'_>> = self.runs().collect();
        // What is looked for are the first rows that match.
        let matchers = runs.iter().map(|run| self.matcher(*run, filter, Reading::Some));
        let matchers = matchers.collect::<Result<Vec<Matcher<'_>>>>()?;
        let mut rows = RowsInOrder::new(runs.iter().zip(&matchers).map(|(run, matcher)| {
            let source = run.source();
            let first = from.map_or(0, |id| source.run.ids().lower_bound(id));
            (source, matcher.candidates(source.dead, first))
        }));
        while let Some((run, row)) = rows.next() {
            if matchers[run].check(row)? && !see(parts.read(runs[run].source().run, row))? {
                break;
            }
        }
        Ok(())
    }

    /// A digest of all live points, to compare replicas by.
    pub fn digest(&self) -> Result<ShardDigest> {
        let parts = Parts::new(&PointParts { payload: true, vectors: VectorSelector::All }, &self.layout)?;
        let mut digest = ShardDigest { points: 0, digest: 0 };
        for source in self.sources() {
            for row in (0..source.run.ids().len()).filter(|row| !source.dead.contains(*row)) {
                digest.points += 1;
                digest.digest = digest.digest.wrapping_add(digest_of(&parts.read(source.run, row)));
            }
        }
        Ok(digest)
    }

    /// How many points match; all without a filter, which costs nothing.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        let Some(filter) = filter else { return Ok(self.live) };
        if filter.ids().is_some() {
            return Ok(self.matching(filter)?.len() as u64);
        }
        let mut count = 0;
        for run in self.runs() {
            count += self.matcher(run, Some(filter), Reading::Every)?.count(run.source().dead)?;
        }
        Ok(count)
    }

    /// The ids of all points that match, in no order.
    pub(super) fn matching(&self, filter: &Filter) -> Result<Vec<PointId>> {
        let mut found = Vec::new();
        if let Some(ids) = filter.ids() {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                if let Some((source, row)) = self.locate(id)
                    && Matcher::of(Some(filter), source.run, &self.layout).check(row)?
                {
                    found.push(id);
                }
            }
            return Ok(found);
        }
        for run in self.runs() {
            let Source { run: rows, dead } = run.source();
            let matcher = self.matcher(run, Some(filter), Reading::Every)?;
            for row in matcher.candidates(dead, 0) {
                if matcher.check(row)? {
                    found.push(rows.ids().get(row));
                }
            }
        }
        Ok(found)
    }
}

/// xxh3 over id, version, payload and vectors, each with its length.
fn digest_of(point: &StoredPoint) -> u64 {
    let mut hash = Xxh3::new();
    let (id, length) = point.id.to_bytes();
    hash.update(&id[..length]);
    hash.update(&point.version.0.to_le_bytes());
    let payload = point.payload.as_bytes();
    hash.update(&(payload.len() as u64).to_le_bytes());
    hash.update(payload);
    for (name, vector) in &point.vectors {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        let (indices, values): (&[u32], &[f32]) = match vector.as_ref() {
            VectorRef::Dense(values) | VectorRef::Multi(MultiRef { values, .. }) => (&[], values),
            VectorRef::Sparse(SparseRef { indices, values }) => (indices, values),
        };
        hash.update(&(values.len() as u64).to_le_bytes());
        hash.update(bytemuck::cast_slice(indices));
        hash.update(bytemuck::cast_slice(values));
    }
    hash.digest()
}

/// A row that comes next in its run: id, run, row.
type Head = Reverse<(PointId, usize, u32)>;

/// Rows of several runs in the order of their ids.
struct RowsInOrder<'a> {
    runs: Vec<(Source<'a>, Box<dyn Iterator<Item = u32> + 'a>)>,
    heads: BinaryHeap<Head>,
}

impl<'a> RowsInOrder<'a> {
    fn new(runs: impl Iterator<Item = (Source<'a>, Box<dyn Iterator<Item = u32> + 'a>)>) -> RowsInOrder<'a> {
        let mut rows = RowsInOrder { runs: runs.collect(), heads: BinaryHeap::new() };
        (0..rows.runs.len()).for_each(|run| rows.advance(run));
        rows
    }

    fn advance(&mut self, run: usize) {
        let (source, rows) = &mut self.runs[run];
        if let Some(row) = rows.next() {
            self.heads.push(Reverse((source.run.ids().get(row), run, row)));
        }
    }

    fn next(&mut self) -> Option<(usize, u32)> {
        let Reverse((_, run, row)) = self.heads.pop()?;
        self.advance(run);
        Some((run, row))
    }
}

/// The parts of a point to return, with names resolved.
pub(super) struct Parts {
    payload: bool,
    vectors: Vec<(usize, String)>,
}

impl Parts {
    pub(super) fn new(parts: &PointParts, layout: &Layout) -> Result<Parts> {
        let all = || layout.vectors.iter().enumerate().map(|(ordinal, vector)| (ordinal, vector.name.clone()));
        let vectors = match &parts.vectors {
            VectorSelector::None => Vec::new(),
            VectorSelector::All => all().collect(),
            VectorSelector::Named(names) => {
                let resolve = |name: &String| match layout.ordinal(name) {
                    Some(ordinal) => Ok((ordinal, name.clone())),
                    None => Err(Error::BadInput(format!("Not existing vector name error: {name}"))),
                };
                names.iter().map(resolve).collect::<Result<_>>()?
            }
        };
        Ok(Parts { payload: parts.payload, vectors })
    }

    pub(super) fn read(&self, run: &dyn Run, row: u32) -> StoredPoint {
        let mut vectors = Vectors::new();
        for (ordinal, name) in &self.vectors {
            if let Some(vector) = run.vectors(*ordinal).get(row) {
                vectors.insert(name.clone(), vector.to_vector());
            }
        }
        StoredPoint {
            id: run.ids().get(row),
            version: LogIndex(run.versions()[row as usize]),
            payload: if self.payload { run.payload_owned(row) } else { Payload::EMPTY },
            vectors,
            order: None,
        }
    }
}
