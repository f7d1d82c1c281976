//! The payload indexes of a shard: those of its segments (files), and those of its fresh runs (memory).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use vicinal_common::error::{Error, Result};
use vicinal_common::payload_index::FieldType;

use super::Shard;
use super::commit::{Committed, CommittedSegment, StepError};
use super::files::field_name;
use super::tuning::Wanted;
use crate::manifest::PayloadIndexRecord;
use crate::payload_index::{Field, FieldIndex, build_fields};
use crate::segment::{FileInfo, MemoryRun, Run, Segment, StoredFile, write_whole};

/// Bytes that building an index takes per row and field, about: values, their order, and the encoded form.
const BUILD_BYTES_PER_ROW: u64 = 64;
/// The same of a text index, for about 60 tokens per row.
const BUILD_BYTES_PER_TEXT: u64 = 1_024;
/// The same per byte of payload, when there is a text index. A token of 6 bytes takes 8 bytes with its row while texts are
/// cut, three times that while the list grows, and 8 more in the encoded form; one that is in no other text about 60 more.
const BUILD_BYTES_PER_PAYLOAD_BYTE: u64 = 8;
/// Bytes of the file of a text index per byte of payload: a token has 4 per row, and once its letters and 16 more.
const FILE_BYTES_PER_PAYLOAD_BYTE: u64 = 2;

/// The index of one field of a segment.
pub(super) struct SegmentField {
    /// Number in its file name.
    pub(super) number: u64,
    pub(super) index: Arc<FieldIndex>,
    pub(super) file: StoredFile,
}

impl SegmentField {
    pub(super) fn record(&self) -> PayloadIndexRecord {
        let (field, info) = (self.index.field(), self.file.info());
        PayloadIndexRecord {
            field: field.path.to_string(),
            of: field.of,
            tokenization: field.tokenization().cloned(),
            number: self.number,
            bytes: info.bytes,
            crc: info.crc,
        }
    }
}

/// The indexes of a fresh run. They are built when they pay: at once for work that would read every payload anyway,
/// otherwise when as many payloads have been read one by one as the run has. So writes pay nothing for them, and reads
/// at most twice what they would without.
#[derive(Default)]
pub(super) struct FreshFields {
    pub(super) payloads_read: AtomicU64,
    built: Mutex<Vec<Arc<FieldIndex>>>,
}

impl FreshFields {
    /// The wanted indexes, all of them or none.
    pub(super) fn ready(&self, wanted: &Wanted) -> Option<Vec<Arc<FieldIndex>>> {
        let built = self.built.lock();
        wanted.missing(built.iter()).is_empty().then(|| built.clone())
    }

    /// Builds what is missing of the wanted ones. `Corrupt` when a payload cannot be read.
    pub(super) fn build(&self, run: &MemoryRun, wanted: &Wanted) -> Result<Vec<Arc<FieldIndex>>> {
        // Held while building: several searches at once wait for one build instead of each making their own.
        let mut built = self.built.lock();
        let missing = wanted.missing(built.iter());
        let bytes = build_fields(run, &missing, &|| false)?.unwrap_or_default();
        built.retain(|index| wanted.fields.contains(index.field()));
        for (field, bytes) in missing.iter().zip(bytes) {
            built.push(Arc::new(FieldIndex::in_memory(field, run.rows(), &bytes)?));
        }
        Ok(built.clone())
    }
}

impl Shard {
    /// Builds the missing payload indexes of a segment, beside its file.
    pub(super) fn index_payload(&self, number: u64) -> Result<(), StepError> {
        let (input, wanted) = {
            let committed = self.commit.lock();
            let input = committed.segments.iter().find(|segment| segment.number == number).cloned();
            (input, Arc::clone(&committed.wanted))
        };
        let Some(input) = input else { return Ok(()) };
        let built = self.in_background(|| self.write_fields(number, &input.segment, &input.missing(&wanted)))?;

        let mut committed = self.commit.lock();
        let mut next = committed.clone();
        if let Some(segment) = next.segments.iter_mut().find(|s| Arc::ptr_eq(&s.segment, &input.segment)) {
            segment.fields.extend(built.iter().cloned());
        }
        next.drop_unwanted();
        let result = self.store_manifest(&next);
        if result.is_ok() {
            *committed = next;
            self.show_indexes(&committed);
        }
        // Not wanted any more, or of a segment that a snapshot replaced, or not committed.
        let is_kept = |field: &Arc<SegmentField>| {
            let mut kept = committed.segments.iter().flat_map(|segment| &segment.fields);
            kept.any(|known| Arc::ptr_eq(known, field))
        };
        if !matches!(result, Err(StepError::Fatal(_))) {
            built.iter().filter(|field| !is_kept(field)).for_each(|field| field.file.mark_obsolete());
        }
        result
    }

    /// Builds, writes and maps the indexes of some fields of a segment.
    pub(super) fn write_fields(
        &self,
        number: u64,
        segment: &Segment,
        fields: &[Field],
    ) -> Result<Vec<Arc<SegmentField>>, StepError> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let needs = Needs::of(fields, segment.rows(), segment.payload_bytes());
        self.check_room(needs.disk_bytes)?;
        let _reserved = self.env.builder.reserve(needs.memory_bytes);
        let is_closed = || self.closed.load(Ordering::Acquire);
        let built = build_fields(segment, fields, &is_closed).map_err(StepError::Fatal)?.ok_or(StepError::Closed)?;
        let mut files = Vec::with_capacity(fields.len());
        let write = || -> Result<Vec<Arc<SegmentField>>, StepError> {
            for bytes in built {
                let file_number = self.next_file.fetch_add(1, Ordering::AcqRel);
                let path = self.dir.join(field_name(number, file_number));
                let info = write_whole(&*self.env.disk, &path, &bytes)?;
                files.push((file_number, StoredFile::new(Arc::clone(&self.env.disk), path, info)));
            }
            self.env.disk.sync_dir(&self.dir)?;
            let mut opened = Vec::with_capacity(fields.len());
            for (field, (number, file)) in fields.iter().zip(&files) {
                let bytes = self.env.disk.map(file.path())?;
                let index = FieldIndex::open_built(field, segment.rows(), bytes).map_err(StepError::Fatal)?;
                opened.push((*number, Arc::new(index)));
            }
            let opened = opened.into_iter().zip(files.drain(..));
            Ok(opened.map(|((number, index), (_, file))| Arc::new(SegmentField { number, index, file })).collect())
        };
        let result = write();
        // Best effort after an error: no manifest names them, so the next start removes them too.
        files.iter().for_each(|(_, file)| file.mark_obsolete());
        result
    }

    /// Maps and verifies an index that a manifest names. It is, or will be, the file `to`. `None` when the file is gone, or
    /// its texts are cut in another way than by this program: it is built again.
    pub(super) fn open_field(
        &self,
        path: &Path,
        record: &PayloadIndexRecord,
        to: (u64, u64),
        rows: u32,
    ) -> Result<Option<Arc<SegmentField>>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let corrupt = |text: &str| Error::Corrupt(format!("{name}: {text}"));
        let bytes = match self.env.disk.map(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!(shard = %self.spec.shard, %name, "a payload index file is missing and is built again");
                return Ok(None);
            }
            Err(error) => return Err(Error::Internal(format!("map {name}: {error}"))),
        };
        let path = vicinal_common::filter::KeyPath::parse(&record.field).map_err(|text| corrupt(&text))?;
        let field = Field::new(path, record.of, record.tokenization.clone());
        let index = FieldIndex::open(&field, rows, bytes.clone());
        let index = index.map_err(|error| match error {
            Error::Corrupt(text) => corrupt(&text),
            other => other,
        })?;
        let info = FileInfo { bytes: record.bytes, crc: record.crc };
        if bytes.len() as u64 != info.bytes || crc32fast::hash(&bytes) != info.crc {
            return Err(corrupt("this is not the file that the manifest names"));
        }
        let Some(index) = index else {
            tracing::warn!(shard = %self.spec.shard, %name, "a text index is of another evaluator and is built again");
            return Ok(None);
        };
        let (segment, number) = to;
        let file = StoredFile::new(Arc::clone(&self.env.disk), self.dir.join(field_name(segment, number)), info);
        Ok(Some(Arc::new(SegmentField { number, index: Arc::new(index), file })))
    }
}

/// What building the indexes of some fields of a segment takes, about.
#[derive(Debug, PartialEq, Eq)]
struct Needs {
    memory_bytes: u64,
    disk_bytes: u64,
}

impl Needs {
    fn of(fields: &[Field], rows: u32, payload_bytes: u64) -> Needs {
        let per_row = fields.iter().map(|field| match field.of {
            FieldType::Text => BUILD_BYTES_PER_TEXT,
            FieldType::Keyword
            | FieldType::Integer
            | FieldType::Float
            | FieldType::Bool
            | FieldType::Datetime
            | FieldType::Uuid
            | FieldType::Geo => BUILD_BYTES_PER_ROW,
        });
        let of_rows = u64::from(rows).saturating_mul(per_row.sum());
        // Fields share the payloads: together their texts are no longer.
        let has_texts = fields.iter().any(|field| field.of == FieldType::Text);
        let texts_bytes = if has_texts { payload_bytes } else { 0 };
        Needs {
            memory_bytes: of_rows.max(texts_bytes.saturating_mul(BUILD_BYTES_PER_PAYLOAD_BYTE)),
            disk_bytes: of_rows.max(texts_bytes.saturating_mul(FILE_BYTES_PER_PAYLOAD_BYTE)),
        }
    }
}

impl CommittedSegment {
    /// Wanted fields that have no index here.
    pub(super) fn missing(&self, wanted: &Wanted) -> Vec<Field> {
        wanted.missing(self.fields.iter().map(|field| &field.index))
    }
}

impl Committed {
    /// Takes out the indexes that are not wanted, and all but one of a kind.
    pub(super) fn drop_unwanted(&mut self) -> Vec<Arc<SegmentField>> {
        let mut dropped = Vec::new();
        for segment in &mut self.segments {
            let mut kept: Vec<Arc<SegmentField>> = Vec::with_capacity(segment.fields.len());
            for field in segment.fields.drain(..) {
                let is_first = kept.iter().all(|known| known.index.field() != field.index.field());
                match is_first && self.wanted.fields.contains(field.index.field()) {
                    true => kept.push(field),
                    false => dropped.push(field),
                }
            }
            segment.fields = kept;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use vicinal_common::filter::KeyPath;

    use super::*;

    #[test]
    fn long_texts_need_more_room_than_short_ones() {
        let fields = |types: &[FieldType]| -> Vec<Field> {
            types.iter().map(|of| Field::new(KeyPath::parse("a").unwrap(), *of, None)).collect()
        };
        let memory = |types: &[FieldType], rows, bytes| Needs::of(&fields(types), rows, bytes).memory_bytes;
        assert_eq!(memory(&[FieldType::Text], 10, 500), 10_240);
        // Ten texts of 4 MiB each are no ten KiB.
        let long = Needs::of(&fields(&[FieldType::Text]), 10, 40 << 20);
        assert_eq!(long, Needs { memory_bytes: 320 << 20, disk_bytes: 80 << 20 });
        assert_eq!(memory(&[FieldType::Text, FieldType::Text, FieldType::Geo], 10, 40 << 20), 320 << 20);
        assert_eq!(memory(&[FieldType::Integer, FieldType::Geo], 10, 40 << 20), 1_280);
        assert_eq!(memory(&[FieldType::Text], u32::MAX, u64::MAX), u64::MAX);
        assert_eq!(memory(&[], 10, 40 << 20), 0);
    }
}
