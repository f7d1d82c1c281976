//! A run in memory: a sorted batch of upserts, or the merger of several.

use std::sync::OnceLock;

use bytes::Bytes;
use vicinal_common::collection::VectorKind;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};
use vicinal_common::publish::Copy;
use vicinal_common::vector::{MultiRef, SparseRef, VectorRef};

use super::assigned::Assigned;
use super::ids::Ids;
use super::layout::{Layout, VectorLayout};
use super::merge::{RowRef, Source};
use super::present::{Present, set};
use super::{Lists, Run, Vectors, sparse_rows};
use vicinal_index::Rows;
use vicinal_index::sparse::{OwnedPostings, Postings};

/// One vector name of a run.
struct Column {
    kind: VectorKind,
    dim: usize,
    /// Rows the run will have.
    rows: usize,
    present: Vec<u64>,
    /// How many rows have the vector; known when the run is finished.
    count: u64,
    /// Dense: row-major, empty when no row has the vector. Else one vector after the other.
    data: Vec<f32>,
    /// Where the values of each row begin; only for vectors that differ in length.
    starts: Vec<u64>,
    /// Dimensions of the values; only for sparse vectors.
    indices: Vec<u32>,
    /// Made when it is first searched.
    postings: OnceLock<OwnedPostings>,
}

/// Rows sorted by id, in memory.
pub struct MemoryRun {
    nums: Vec<u64>,
    uuids: Vec<[u8; 16]>,
    versions: Vec<u64>,
    columns: Vec<Column>,
    payloads: Vec<Bytes>,
    bytes: u64,
    max_version: u64,
    assigned: Assigned,
}

impl MemoryRun {
    /// Takes the points of one write; of several with the same id the last one counts. `BadInput`, with nothing done,
    /// when a vector does not fit the layout.
    pub fn from_points(points: &[Point], version: LogIndex, layout: &Layout) -> Result<MemoryRun> {
        for point in points {
            check(point, layout)?;
        }
        Ok(MemoryRun::from_versions(points.iter().map(|point| (point, version)).collect(), layout))
    }

    /// Takes those of the copies that are wanted, each with its own version; of several with the same id the newest one
    /// counts. `BadInput`, with nothing done, when a vector does not fit the layout, of a copy that is not wanted too.
    pub fn from_copies(copies: &[Copy], is_wanted: impl Fn(&Copy) -> bool, layout: &Layout) -> Result<MemoryRun> {
        for copy in copies {
            check(&copy.point, layout)?;
        }
        let wanted = copies.iter().filter(|copy| is_wanted(copy));
        Ok(MemoryRun::from_versions(wanted.map(|copy| (&copy.point, copy.version)).collect(), layout))
    }

    /// Points that fit the layout; of several with the same id the newest counts, and the last one of that version.
    fn from_versions(mut points: Vec<(&Point, LogIndex)>, layout: &Layout) -> MemoryRun {
        // Stable: among equal versions of an id the last one written stays last.
        points.sort_by_key(|(point, version)| (point.id, *version));
        let mut kept: Vec<(&Point, LogIndex)> = Vec::with_capacity(points.len());
        for next in points {
            match kept.last_mut() {
                Some(last) if last.0.id == next.0.id => *last = next,
                Some(_) | None => kept.push(next),
            }
        }
        let mut run = MemoryRun::with_capacity(kept.len(), layout);
        for (row, (point, version)) in kept.into_iter().enumerate() {
            run.push_id(point.id);
            run.versions.push(version.0);
            run.payloads.push(point.payload.as_bytes().clone());
            for (name, vector) in &point.vectors {
                let ordinal = layout.ordinal(name).expect("checked by the caller");
                run.columns[ordinal].push(row as u32, vector.as_ref());
            }
        }
        run.finish()
    }

    /// Copies the given rows, which must be in id order and of distinct ids, out of other runs.
    pub fn from_rows(sources: &[Source<'_>], order: &[RowRef], layout: &Layout) -> MemoryRun {
        let mut run = MemoryRun::with_capacity(order.len(), layout);
        for row in order {
            let source = sources[row.source as usize].run;
            run.push_id(source.ids().get(row.row));
            run.versions.push(source.versions()[row.row as usize]);
            run.payloads.push(source.payload_owned(row.row).as_bytes().clone());
        }
        for (ordinal, column) in run.columns.iter_mut().enumerate() {
            let vectors: Vec<Vectors<'_>> = sources.iter().map(|source| source.run.vectors(ordinal)).collect();
            for (target, row) in order.iter().enumerate() {
                if let Some(vector) = vectors[row.source as usize].get(row.row) {
                    column.push(target as u32, vector);
                }
            }
        }
        run.assigned = Assigned::carried(sources, order.iter().copied());
        run.finish()
    }

    fn with_capacity(rows: usize, layout: &Layout) -> MemoryRun {
        let words = Present::words_for(rows as u32);
        let column = |vector: &VectorLayout| Column {
            kind: vector.kind,
            dim: vector.dim,
            rows,
            present: vec![0; words],
            count: 0,
            data: Vec::new(),
            starts: Vec::new(),
            indices: Vec::new(),
            postings: OnceLock::new(),
        };
        MemoryRun {
            nums: Vec::new(),
            uuids: Vec::new(),
            versions: Vec::with_capacity(rows),
            columns: layout.vectors.iter().map(column).collect(),
            payloads: Vec::with_capacity(rows),
            bytes: 0,
            max_version: 0,
            assigned: Assigned::default(),
        }
    }

    fn push_id(&mut self, id: PointId) {
        match id {
            PointId::Num(number) => self.nums.push(number),
            PointId::Uuid(uuid) => self.uuids.push(*uuid.as_bytes()),
        }
    }

    fn finish(mut self) -> MemoryRun {
        let rows = self.versions.len();
        for column in &mut self.columns {
            column.count = Present::count_in(&column.present);
            match column.kind {
                VectorKind::Dense if column.data.is_empty() => {}
                VectorKind::Dense => column.data.resize(rows * column.dim, 0.0),
                VectorKind::Multi | VectorKind::Sparse { .. } => {
                    column.starts.resize(rows + 1, column.data.len() as u64)
                }
            }
        }
        let data: usize = self.columns.iter().map(Column::bytes).sum();
        let payloads: usize = self.payloads.iter().map(|payload| payload.len() + size_of::<Bytes>()).sum();
        self.bytes = (data + payloads + self.nums.len() * 8 + self.uuids.len() * 16 + rows * 8) as u64;
        self.max_version = self.versions.iter().copied().max().unwrap_or(0);
        debug_assert!(self.ids().are_sorted());
        self
    }

    /// Memory it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Column {
    /// Rows come in ascending order; those left out stay zero, or empty.
    fn push(&mut self, row: u32, vector: VectorRef<'_>) {
        set(&mut self.present, row);
        match vector {
            VectorRef::Dense(values) => {
                if self.data.is_empty() {
                    self.data.reserve_exact(self.rows * self.dim);
                }
                self.data.resize(row as usize * self.dim, 0.0);
                self.data.extend_from_slice(values);
            }
            VectorRef::Sparse(SparseRef { indices, values }) => {
                self.starts.resize(row as usize + 1, self.data.len() as u64);
                self.indices.extend_from_slice(indices);
                self.data.extend_from_slice(values);
            }
            VectorRef::Multi(MultiRef { values, .. }) => {
                self.starts.resize(row as usize + 1, self.data.len() as u64);
                self.data.extend_from_slice(values);
            }
        }
    }

    /// Memory it takes, with the postings a sparse vector gets when it is searched.
    fn bytes(&self) -> usize {
        let lists = self.starts.len() * 8 + self.indices.len() * (4 + 8);
        self.data.len() * 4 + self.present.len() * 8 + lists
    }

    fn vectors(&self) -> Vectors<'_> {
        let present = Present::new(&self.present, self.count);
        let lists = |indices| {
            let Column { starts, data, dim, .. } = self;
            Vectors {
                rows: Rows { data: &[], dim: 1 },
                present,
                lists: Some(Lists { starts, indices, values: data, dim: *dim }),
            }
        };
        match self.kind {
            VectorKind::Dense => Vectors { rows: Rows { data: &self.data, dim: self.dim }, present, lists: None },
            VectorKind::Multi => lists(None),
            VectorKind::Sparse { .. } => lists(Some(&self.indices[..])),
        }
    }
}

/// Whether the vectors of a point fit the layout.
fn check(point: &Point, layout: &Layout) -> Result<()> {
    for (name, vector) in &point.vectors {
        let Some(ordinal) = layout.ordinal(name) else {
            return Err(Error::BadInput(format!("Not existing vector name error: {name}")));
        };
        layout.vectors[ordinal].check(vector)?;
    }
    Ok(())
}

impl Run for MemoryRun {
    fn ids(&self) -> Ids<'_> {
        Ids { nums: &self.nums, uuids: &self.uuids }
    }

    fn versions(&self) -> &[u64] {
        &self.versions
    }

    fn max_version(&self) -> LogIndex {
        LogIndex(self.max_version)
    }

    fn vectors(&self, ordinal: usize) -> Vectors<'_> {
        self.columns[ordinal].vectors()
    }

    fn postings(&self, ordinal: usize) -> Option<Postings<'_>> {
        let column = &self.columns[ordinal];
        let VectorKind::Sparse { .. } = column.kind else { return None };
        // The layout lets no vector in that has no place in postings.
        let make =
            || OwnedPostings::from_rows(sparse_rows(column.vectors(), self.rows())).expect("checked when written");
        Some(column.postings.get_or_init(make).as_ref())
    }

    fn assigned(&self) -> &Assigned {
        &self.assigned
    }

    fn payload(&self, row: u32) -> &[u8] {
        &self.payloads[row as usize]
    }

    fn payload_owned(&self, row: u32) -> Payload {
        Payload::from_stored(self.payloads[row as usize].clone())
    }
}
