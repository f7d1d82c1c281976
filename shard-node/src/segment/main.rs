//! A segment: a mapped file, read in place.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use bytes::Bytes;
use rayon::prelude::*;
use vicinal_common::collection::VectorKind;
use vicinal_common::disk::{Disk, Mapping};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;
use vicinal_common::payload::Payload;

use super::assigned::Assigned;
use super::file::StoredFile;
use super::format::{ENTRY_BYTES, Entry, FOOTER_BYTES, Footer, HEADER_BYTES, Header, Kind, corrupt, padded};
use super::ids::Ids;
use super::layout::Layout;
use super::present::Present;
use super::writer::ROWS_MAX;
use super::{Lists, Run, Vectors};
use vicinal_index::Rows;
use vicinal_index::sparse::Postings;

/// Where one vector name is in the file.
struct Column {
    dim: usize,
    present: Range<usize>,
    /// How many rows have the vector.
    count: u64,
    data: Range<usize>,
    /// Where the values of each row begin, for vectors that differ in length.
    starts: Option<Range<usize>>,
    sparse: Option<SparseColumn>,
}

/// What only a sparse vector has: its dimensions, and its inverted index.
struct SparseColumn {
    indices: Range<usize>,
    dims: Range<usize>,
    starts: Range<usize>,
    rows: Range<usize>,
    values: Range<usize>,
    maxima: Range<usize>,
    minima: Range<usize>,
}

/// An immutable segment.
pub struct Segment {
    mapping: Mapping,
    file: StoredFile,
    sections: Sections,
    max_version: u64,
    assigned: Assigned,
}

/// Checksums of large sections are computed in pieces of this size, in parallel.
const CHECK_BYTES: usize = 8 << 20;

impl Segment {
    /// Maps and verifies a segment file: every checksum, and that its content is the expected one. `at` is where the
    /// file is now; `file` knows where it will be.
    pub fn open(disk: &Arc<dyn Disk>, at: &std::path::Path, file: StoredFile, layout: &Layout) -> Result<Segment> {
        let name = at.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mapping = disk.map(at).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Corrupt(format!("{name}: the file is missing")),
            _ => Error::Internal(format!("map {name}: {error}")),
        })?;
        Segment::from_mapping(mapping, file, layout).map_err(|error| match error {
            Error::Corrupt(text) => Error::Corrupt(format!("{name}: {text}")),
            other => other,
        })
    }

    fn from_mapping(mapping: Mapping, file: StoredFile, layout: &Layout) -> Result<Segment> {
        let (length, expected) = (mapping.len(), file.info().bytes);
        if length as u64 != expected {
            return Err(corrupt(&format!("the file ends at offset {length}, the manifest says at {expected}")));
        }
        let sections = read_sections(&mapping, layout, file.info().crc)?;
        let mut segment = Segment { mapping, file, sections, max_version: 0, assigned: Assigned::default() };
        segment.check_content()?;
        // The column was just read for its checksum.
        segment.max_version = segment.versions().iter().copied().max().unwrap_or(0);
        Ok(segment)
    }

    /// What a checksum cannot tell: that the numbers make sense.
    fn check_content(&self) -> Result<()> {
        if !self.ids().are_sorted() {
            return Err(corrupt("sections Nums and Uuids: ids are not sorted"));
        }
        let offsets = self.array::<u64>(&self.sections.offsets);
        let ends_right = offsets.first() == Some(&0) && offsets.last() == Some(&(self.sections.payloads.len() as u64));
        if !ends_right || !offsets.is_sorted() {
            return Err(corrupt("section PayloadOffsets: the offsets are not sorted"));
        }
        (0..self.sections.columns.len()).try_for_each(|ordinal| self.check_lists(ordinal))
    }

    fn check_lists(&self, ordinal: usize) -> Result<()> {
        let wrong = |what: &str| corrupt(&format!("vector {ordinal}: {what}"));
        let Some(Lists { starts, indices, values, dim }) = self.vectors(ordinal).lists else { return Ok(()) };
        let ends_right = starts.first() == Some(&0) && starts.last() == Some(&(values.len() as u64));
        if !ends_right || !starts.is_sorted() {
            return Err(wrong("the starts are not sorted"));
        }
        match indices {
            None if starts.iter().all(|start| start.is_multiple_of(dim as u64)) => Ok(()),
            None => Err(wrong("a multivector has no whole number of vectors")),
            Some(indices) => {
                let mut lists = starts.windows(2).map(|ends| &indices[ends[0] as usize..ends[1] as usize]);
                if indices.len() != values.len() || !lists.all(|list| list.is_sorted_by(|a, b| a < b)) {
                    return Err(wrong("dimensions of a sparse vector are not sorted"));
                }
                self.postings(ordinal).map_or(Ok(()), |postings| postings.check(self.rows()).map_err(wrong))
            }
        }
    }

    /// The file.
    pub fn file(&self) -> &StoredFile {
        &self.file
    }

    /// Bytes of all payloads, dead rows included.
    pub fn payload_bytes(&self) -> u64 {
        self.sections.payloads.len() as u64
    }

    fn array<T: Pod>(&self, range: &Range<usize>) -> &[T] {
        // Cannot fail: `read_sections` checked lengths, and sections are aligned to 64 bytes in an aligned mapping.
        bytemuck::cast_slice(&self.mapping[range.clone()])
    }
}

/// The sections of a file, with lengths that fit each other.
struct Sections {
    nums: Range<usize>,
    uuids: Range<usize>,
    versions: Range<usize>,
    columns: Vec<Column>,
    offsets: Range<usize>,
    payloads: Range<usize>,
}

fn read_sections(mapping: &[u8], layout: &Layout, crc: u32) -> Result<Sections> {
    if mapping.len() < HEADER_BYTES + FOOTER_BYTES {
        return Err(corrupt(&format!("the file ends at offset {}, within header or footer", mapping.len())));
    }
    if mapping.as_ptr().align_offset(64) != 0 {
        return Err(Error::Internal("a segment is mapped at an unaligned address".into()));
    }
    let (rest, footer_bytes) = mapping.split_at(mapping.len() - FOOTER_BYTES);
    let header = Header::decode(&mapping[..HEADER_BYTES])?;
    let footer = Footer::decode(footer_bytes, rest.len())?;
    let wrong_toc = |what: &str| corrupt(&format!("table of contents at offset {}: {what}", footer.toc_offset));
    let toc = usize::try_from(footer.toc_offset).ok().and_then(|offset| rest.get(offset..));
    let toc = toc.ok_or_else(|| wrong_toc("it is outside the file"))?;
    if toc.len() != footer.entries as usize * ENTRY_BYTES || crc32fast::hash(toc) != footer.toc_crc {
        return Err(wrong_toc("wrong length or checksum"));
    }
    let entries = toc.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect::<Result<Vec<Entry>>>()?;

    // Header, sections, table and footer cover the file without a gap, so their checksums make up the file's.
    let mut whole = crc32fast::Hasher::new();
    whole.update(&mapping[..HEADER_BYTES]);
    let mut position = HEADER_BYTES as u64;
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in &entries {
        let end = entry.bytes.checked_add(63).and_then(|_| position.checked_add(padded(entry.bytes)));
        let wrong =
            |what: &str| corrupt(&format!("section {:?} {} at offset {position}: {what}", entry.kind, entry.ordinal));
        let end = end.filter(|end| *end <= footer.toc_offset).ok_or_else(|| wrong("it is too long"))?;
        if entry.offset != position {
            return Err(wrong("the table of contents has it elsewhere"));
        }
        // Offsets below the file's length fit usize.
        let section = &mapping[position as usize..end as usize];
        let checksum = checksum(section);
        if checksum.clone().finalize() != entry.crc {
            return Err(wrong("wrong checksum"));
        }
        whole.combine(&checksum);
        ranges.push(position as usize..(position + entry.bytes) as usize);
        position = end;
    }
    if position != footer.toc_offset {
        return Err(wrong_toc("there is a gap before it"));
    }
    whole.update(toc);
    whole.update(footer_bytes);
    if whole.finalize() != crc {
        return Err(corrupt("this is not the file that the manifest names"));
    }
    let mut sections = arrange(&header, &entries, &ranges, layout)?;
    for column in &mut sections.columns {
        column.count = Present::count_in(bytemuck::cast_slice(&mapping[column.present.clone()]));
    }
    Ok(sections)
}

/// Checks that the sections are those of the layout, in order, with the lengths that the header asks for.
fn arrange(header: &Header, entries: &[Entry], ranges: &[Range<usize>], layout: &Layout) -> Result<Sections> {
    let wrong = || corrupt("the sections do not fit the header");
    let rows = usize::try_from(header.rows).ok().filter(|rows| *rows <= ROWS_MAX).ok_or_else(wrong)?;
    let nums = usize::try_from(header.nums).ok().filter(|nums| *nums <= rows).ok_or_else(wrong)?;
    if header.vectors as usize != layout.vectors.len() {
        return Err(corrupt("the file has other vectors than the collection"));
    }
    let mut sections = entries.iter().zip(ranges);
    let mut take = |kind: Kind, ordinal: usize, bytes: Option<usize>, dim: usize| -> Result<Range<usize>> {
        let (entry, range) = sections.next().ok_or_else(wrong)?;
        let fits = entry.kind == kind && entry.ordinal as usize == ordinal && entry.dim as usize == dim;
        // Whatever it holds, it is read as numbers of 4 or 8 bytes, but for payloads.
        let unit = match kind {
            Kind::PostingStarts => 8,
            Kind::Payloads => 1,
            _ => 4,
        };
        if !fits || !range.len().is_multiple_of(unit) || bytes.is_some_and(|bytes| bytes != range.len()) {
            return Err(wrong());
        }
        Ok(range.clone())
    };
    let ids = take(Kind::Nums, 0, Some(nums * 8), 0)?;
    let uuids = take(Kind::Uuids, 0, Some((rows - nums) * 16), 0)?;
    let versions = take(Kind::Versions, 0, Some(rows * 8), 0)?;
    let mut columns = Vec::with_capacity(layout.vectors.len());
    for (ordinal, vector) in layout.vectors.iter().enumerate() {
        let present = take(Kind::Present, ordinal, Some(Present::words_for(rows as u32) * 8), 0)?;
        let starts = match vector.kind {
            VectorKind::Dense => None,
            VectorKind::Multi | VectorKind::Sparse { .. } => {
                Some(take(Kind::Starts, ordinal, Some((rows + 1) * 8), 0)?)
            }
        };
        let is_sparse = matches!(vector.kind, VectorKind::Sparse { .. });
        let indices = is_sparse.then(|| take(Kind::Indices, ordinal, None, 0)).transpose()?;
        let data = take(Kind::Vectors, ordinal, None, vector.dim)?;
        if starts.is_none() && !data.is_empty() && Some(data.len()) != rows.checked_mul(vector.dim * 4) {
            return Err(wrong());
        }
        let sparse = match indices {
            None => None,
            Some(indices) => Some(SparseColumn {
                indices,
                dims: take(Kind::PostingDims, ordinal, None, 0)?,
                starts: take(Kind::PostingStarts, ordinal, None, 0)?,
                rows: take(Kind::PostingRows, ordinal, None, 0)?,
                values: take(Kind::PostingValues, ordinal, None, 0)?,
                maxima: take(Kind::PostingMaxima, ordinal, None, 0)?,
                minima: take(Kind::PostingMinima, ordinal, None, 0)?,
            }),
        };
        columns.push(Column { dim: vector.dim, present, count: 0, data, starts, sparse });
    }
    let offsets = take(Kind::PayloadOffsets, 0, Some((rows + 1) * 8), 0)?;
    let payloads = take(Kind::Payloads, 0, None, 0)?;
    if sections.next().is_some() {
        return Err(wrong());
    }
    Ok(Sections { nums: ids, uuids, versions, columns, offsets, payloads })
}

fn checksum(section: &[u8]) -> crc32fast::Hasher {
    let hash = |piece: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(piece);
        hasher
    };
    if section.len() <= CHECK_BYTES {
        return hash(section);
    }
    let pieces: Vec<crc32fast::Hasher> = section.par_chunks(CHECK_BYTES).map(hash).collect();
    let mut whole = crc32fast::Hasher::new();
    for piece in &pieces {
        whole.combine(piece);
    }
    whole
}

impl Run for Segment {
    fn ids(&self) -> Ids<'_> {
        Ids { nums: self.array(&self.sections.nums), uuids: self.array(&self.sections.uuids) }
    }

    fn versions(&self) -> &[u64] {
        self.array(&self.sections.versions)
    }

    fn max_version(&self) -> LogIndex {
        LogIndex(self.max_version)
    }

    fn vectors(&self, ordinal: usize) -> Vectors<'_> {
        let column = &self.sections.columns[ordinal];
        let present = Present::new(self.array(&column.present), column.count);
        let Some(starts) = &column.starts else {
            return Vectors { rows: Rows { data: self.array(&column.data), dim: column.dim }, present, lists: None };
        };
        let lists = Lists {
            starts: self.array(starts),
            indices: column.sparse.as_ref().map(|sparse| self.array(&sparse.indices)),
            values: self.array(&column.data),
            dim: column.dim,
        };
        Vectors { rows: Rows { data: &[], dim: 1 }, present, lists: Some(lists) }
    }

    fn postings(&self, ordinal: usize) -> Option<Postings<'_>> {
        let sparse = self.sections.columns[ordinal].sparse.as_ref()?;
        Some(Postings {
            dims: self.array(&sparse.dims),
            starts: self.array(&sparse.starts),
            rows: self.array(&sparse.rows),
            values: self.array(&sparse.values),
            maxima: self.array(&sparse.maxima),
            minima: self.array(&sparse.minima),
        })
    }

    fn assigned(&self) -> &Assigned {
        &self.assigned
    }

    fn payload(&self, row: u32) -> &[u8] {
        let offsets = self.array::<u64>(&self.sections.offsets);
        let (start, end) = (offsets[row as usize] as usize, offsets[row as usize + 1] as usize);
        &self.mapping[self.sections.payloads.clone()][start..end]
    }

    fn payload_owned(&self, row: u32) -> Payload {
        Payload::from_stored(Bytes::copy_from_slice(self.payload(row)))
    }
}
