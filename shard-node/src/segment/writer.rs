//! Writing a segment: one pass per section over the rows of its sources, through a small buffer.

use std::io;
use std::path::Path;

use vicinal_common::collection::VectorKind;
use vicinal_common::disk::Disk;
use vicinal_common::point::PointId;
use vicinal_common::vector::{MultiRef, SparseRef, VectorRef};
use vicinal_index::sparse::{OwnedPostings, Postings};

use super::Vectors;
use super::file::{FileInfo, FileWriter};
use super::format::{Entry, FOOTER_BYTES, Footer, HEADER_BYTES, Header, Kind, padded};
use super::layout::{Layout, VectorLayout};
use super::merge::{RowRef, Source, live_rows};
use super::present::{Present, set};

/// Most rows of a run: row numbers are u32, and rounding up to bitmap words must not overflow them.
pub(super) const ROWS_MAX: usize = u32::MAX as usize - 64;

/// Writes the live rows of `sources` as a segment file at `path`: content durable, name not yet (the caller syncs the
/// directory). `None`, and no file, when there is no live row.
pub fn write_segment(
    disk: &dyn Disk,
    path: &Path,
    sources: &[Source<'_>],
    layout: &Layout,
) -> io::Result<Option<FileInfo>> {
    let mut order: Vec<RowRef> = Vec::new();
    let mut nums = 0;
    for (id, row) in live_rows(sources, None) {
        nums += usize::from(matches!(id, PointId::Num(_)));
        order.push(row);
    }
    if order.is_empty() {
        return Ok(None);
    }
    if order.len() > ROWS_MAX {
        return Err(io::Error::other(format!("{} rows are too many for one segment", order.len())));
    }
    let file = FileWriter::create(disk, path)?;
    let mut writer = SegmentWriter { file, sources, order: &order, entries: Vec::new() };
    writer.write_header(layout, nums)?;
    writer.write_rows(nums)?;
    for (ordinal, vector) in layout.vectors.iter().enumerate() {
        writer.write_vectors(ordinal, vector)?;
    }
    writer.write_payloads()?;
    writer.finish().map(Some)
}

struct SegmentWriter<'a> {
    file: FileWriter<'a>,
    sources: &'a [Source<'a>],
    order: &'a [RowRef],
    entries: Vec<Entry>,
}

impl SegmentWriter<'_> {
    fn write_header(&mut self, layout: &Layout, nums: usize) -> io::Result<()> {
        let header = Header { vectors: layout.vectors.len() as u32, rows: self.order.len() as u64, nums: nums as u64 };
        self.file.write(&header.encode())?;
        self.file.end_part();
        debug_assert_eq!(self.file.position(), HEADER_BYTES as u64);
        Ok(())
    }

    /// Ids and versions.
    fn write_rows(&mut self, nums: usize) -> io::Result<()> {
        let (numbered, named) = self.order.split_at(nums);
        let offset = self.file.position();
        for row in numbered {
            let number = self.sources[row.source as usize].run.ids().nums[row.row as usize];
            self.file.write(&number.to_le_bytes())?;
        }
        self.end_section(Kind::Nums, 0, offset, 0)?;
        let offset = self.file.position();
        for row in named {
            let ids = self.sources[row.source as usize].run.ids();
            self.file.write(&ids.uuids[row.row as usize - ids.nums.len()])?;
        }
        self.end_section(Kind::Uuids, 0, offset, 0)?;
        let offset = self.file.position();
        for row in self.order {
            let version = self.sources[row.source as usize].run.versions()[row.row as usize];
            self.file.write(&version.to_le_bytes())?;
        }
        self.end_section(Kind::Versions, 0, offset, 0)
    }

    fn write_vectors(&mut self, ordinal: usize, layout: &VectorLayout) -> io::Result<()> {
        let dim = layout.dim;
        let vectors: Vec<Vectors<'_>> = self.sources.iter().map(|source| source.run.vectors(ordinal)).collect();
        let mut present = vec![0u64; Present::words_for(self.order.len() as u32)];
        for (target, row) in self.order.iter().enumerate() {
            if vectors[row.source as usize].present.contains(row.row) {
                set(&mut present, target as u32);
            }
        }
        let offset = self.file.position();
        self.file.write(bytemuck::cast_slice(&present))?;
        self.end_section(Kind::Present, ordinal as u32, offset, 0)?;
        if layout.kind != VectorKind::Dense {
            return self.write_lists(ordinal, layout, &vectors);
        }
        let offset = self.file.position();
        if present.iter().any(|word| *word != 0) {
            let absent = vec![0f32; dim];
            for row in self.order {
                let vector = vectors[row.source as usize].get(row.row).and_then(VectorRef::dense).unwrap_or(&absent);
                self.file.write(bytemuck::cast_slice(vector))?;
            }
        }
        self.end_section(Kind::Vectors, ordinal as u32, offset, dim as u32)
    }

    /// Vectors that differ in length, and the inverted index of sparse ones.
    fn write_lists(&mut self, ordinal: usize, layout: &VectorLayout, vectors: &[Vectors<'_>]) -> io::Result<()> {
        let ordinal = ordinal as u32;
        let sparse = |row: &RowRef| match vectors[row.source as usize].get(row.row) {
            Some(VectorRef::Sparse(sparse)) => sparse,
            Some(VectorRef::Dense(_) | VectorRef::Multi(_)) | None => SparseRef::default(),
        };
        let values = |row: &RowRef| match vectors[row.source as usize].get(row.row) {
            Some(VectorRef::Sparse(SparseRef { values, .. }) | VectorRef::Multi(MultiRef { values, .. })) => values,
            Some(VectorRef::Dense(_)) | None => &[],
        };
        let offset = self.file.position();
        let mut end = 0u64;
        self.file.write(&end.to_le_bytes())?;
        for row in self.order {
            end += values(row).len() as u64;
            self.file.write(&end.to_le_bytes())?;
        }
        self.end_section(Kind::Starts, ordinal, offset, 0)?;
        let is_sparse = matches!(layout.kind, VectorKind::Sparse { .. });
        if is_sparse {
            let offset = self.file.position();
            for row in self.order {
                self.file.write(bytemuck::cast_slice(sparse(row).indices))?;
            }
            self.end_section(Kind::Indices, ordinal, offset, 0)?;
        }
        let offset = self.file.position();
        for row in self.order {
            self.file.write(bytemuck::cast_slice(values(row)))?;
        }
        self.end_section(Kind::Vectors, ordinal, offset, layout.dim as u32)?;
        if !is_sparse {
            return Ok(());
        }
        let rows = self.order.iter().enumerate().map(|(target, row)| (target as u32, sparse(row)));
        let postings = OwnedPostings::from_rows(rows).map_err(io::Error::other)?;
        let Postings { dims, starts, rows, values, maxima, minima } = postings.as_ref();
        let sections: [(Kind, &[u8]); 6] = [
            (Kind::PostingDims, bytemuck::cast_slice(dims)),
            (Kind::PostingStarts, bytemuck::cast_slice(starts)),
            (Kind::PostingRows, bytemuck::cast_slice(rows)),
            (Kind::PostingValues, bytemuck::cast_slice(values)),
            (Kind::PostingMaxima, bytemuck::cast_slice(maxima)),
            (Kind::PostingMinima, bytemuck::cast_slice(minima)),
        ];
        for (kind, bytes) in sections {
            let offset = self.file.position();
            self.file.write(bytes)?;
            self.end_section(kind, ordinal, offset, 0)?;
        }
        Ok(())
    }

    fn write_payloads(&mut self) -> io::Result<()> {
        let offset = self.file.position();
        let mut end = 0u64;
        self.file.write(&end.to_le_bytes())?;
        for row in self.order {
            end += self.sources[row.source as usize].run.payload(row.row).len() as u64;
            self.file.write(&end.to_le_bytes())?;
        }
        self.end_section(Kind::PayloadOffsets, 0, offset, 0)?;
        let offset = self.file.position();
        for row in self.order {
            self.file.write(self.sources[row.source as usize].run.payload(row.row))?;
        }
        self.end_section(Kind::Payloads, 0, offset, 0)
    }

    /// Pads the section that began at `offset` and enters it into the table of contents.
    fn end_section(&mut self, kind: Kind, ordinal: u32, offset: u64, dim: u32) -> io::Result<()> {
        let bytes = self.file.position() - offset;
        self.file.write(&[0; 64][..(padded(bytes) - bytes) as usize])?;
        let crc = self.file.end_part();
        self.entries.push(Entry { kind, ordinal, offset, bytes, crc, dim });
        Ok(())
    }

    fn finish(mut self) -> io::Result<FileInfo> {
        let toc_offset = self.file.position();
        for entry in &self.entries {
            self.file.write(&entry.encode())?;
        }
        let toc_crc = self.file.end_part();
        let footer = Footer { toc_offset, entries: self.entries.len() as u32, toc_crc };
        let footer: [u8; FOOTER_BYTES] = footer.encode();
        self.file.write(&footer)?;
        self.file.finish()
    }
}
