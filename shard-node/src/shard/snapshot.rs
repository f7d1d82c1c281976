//! Snapshots: the durable state pinned for a reader, and a received one put in place of everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use vicinal_common::collection::VectorKind;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;

use super::Shard;
use super::commit::{Committed, CommittedSegment, StepError};
use super::deaths::DeathLog;
use super::entry::LogMark;
use super::files::{INCOMING, field_name, index_name, segment_name};
use super::tuning::Wanted;
use super::view::{SegmentIndex, View};
use crate::manifest::{Manifest, SegmentRecord};
use crate::segment::{FileInfo, Run, Segment, StoredFile};
use vicinal_index::hnsw::HnswIndex;
use vicinal_index::{Residency, Rows};

/// A durable state that stays on disk while this lives.
pub struct ShardSnapshot {
    /// Its position.
    pub mark: LogMark,
    /// The last membership up to that position.
    pub membership: Option<(LogMark, Bytes)>,
    /// The manifest: what [`Shard::finish_install`] takes.
    pub manifest: Bytes,
    /// The files the manifest names.
    pub files: Vec<SnapshotFile>,
    /// Keeps the files.
    _segments: Vec<CommittedSegment>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Name in the shard's directory, and in the directory of [`Shard::begin_install`].
    pub name: String,
    /// Where it is now.
    pub path: PathBuf,
    /// Length in bytes.
    pub bytes: u64,
    /// CRC32 of the whole file.
    pub crc: u32,
}

impl Shard {
    /// Pins the durable state. `Unavailable` when nothing was made durable yet.
    pub fn snapshot(&self) -> Result<ShardSnapshot> {
        let committed = self.commit.lock().clone();
        let Some(mark) = committed.mark.clone() else {
            return Err(Error::Unavailable(format!("shard {} has no durable state yet", self.spec.shard)));
        };
        let manifest = Bytes::from(self.manifest_of(&committed).encode()?);
        let files = committed.segments.iter().flat_map(CommittedSegment::files);
        let files = files.map(|(name, file)| SnapshotFile {
            name,
            path: file.path().to_path_buf(),
            bytes: file.info().bytes,
            crc: file.info().crc,
        });
        let files = files.collect();
        Ok(ShardSnapshot { mark, membership: committed.membership, manifest, files, _segments: committed.segments })
    }

    /// An empty directory to put the files of a snapshot into, under the names they have there. What it held before is
    /// gone.
    pub fn begin_install(&self) -> Result<PathBuf> {
        let incoming = self.dir.join(INCOMING);
        let disk = &self.env.disk;
        let made = disk.remove_dir_all(&incoming).and_then(|()| disk.create_dir_all(&incoming));
        made.map_err(|e| Error::from(StepError::from(e)))?;
        Ok(incoming)
    }

    /// Replaces the whole state by the snapshot in the directory of [`Shard::begin_install`]. Durable when it returns;
    /// after a crash on the way the shard has the old state or the new one. `Corrupt` when a file is damaged or
    /// missing, `BadInput` when the snapshot is of another shard or older than what is applied: the old state stays.
    pub fn finish_install(&self, manifest: &[u8]) -> Result<()> {
        let manifest = Manifest::decode(manifest)?;
        let mark = self.check_snapshot(&manifest)?;
        let incoming = self.dir.join(INCOMING);

        let mut committed = self.commit.lock();
        self.check_failed()?;
        // The sender may not have heard of the newest tuning yet.
        let is_newer = manifest.tuning.revision > committed.wanted.tuning.revision;
        let wanted = match is_newer {
            true => Arc::new(self.wanted(manifest.tuning)),
            false => Arc::clone(&committed.wanted),
        };
        // The sender's numbers may be in use here.
        let mut segments = Vec::with_capacity(manifest.segments.len());
        let mut moves = Vec::new();
        for record in &manifest.segments {
            let own = self.renumbered(record);
            for index in &record.payload_indexes {
                let name = field_name(record.number, index.number);
                if !self.env.disk.exists(&incoming.join(&name)).map_err(|e| Error::from(StepError::from(e)))? {
                    return Err(Error::Corrupt(format!("{name}: the file of the snapshot is missing")));
                }
            }
            let segment = self.open_segment(&incoming, record, &own, &wanted)?;
            // Those that are built again, or not wanted, stay where they are and go with the directory.
            let read: Vec<String> = segment.files().map(|(name, _)| name).collect();
            let pairs = names_of_segment(record).into_iter().zip(names_of_segment(&own));
            let pairs = pairs.filter(|(_, to)| read.contains(to));
            moves.extend(pairs.map(|(from, to)| (incoming.join(from), self.dir.join(to))));
            segments.push(segment);
        }
        self.move_durably(&moves).map_err(|error| Error::from(StepError::from(error)))?;

        let mut next = Committed {
            mark: Some(mark.clone()),
            membership: manifest.membership,
            requests: manifest.requests,
            wanted,
            segments,
            feed: Arc::new(manifest.feed),
            maps: manifest.maps,
        };
        let unwanted = next.drop_unwanted();
        if let Err(error) = self.store_manifest(&next) {
            match &error {
                StepError::Fatal(error) => self.fail(format!("cannot install a snapshot: {error}")),
                StepError::DiskFull(_) | StepError::Closed => {
                    next.segments.iter().for_each(CommittedSegment::mark_obsolete);
                    unwanted.iter().for_each(|field| field.file.mark_obsolete());
                }
            }
            return Err(error.into());
        }
        let old = std::mem::replace(&mut *committed, next);
        self.show(&committed, mark.index);
        old.segments.iter().for_each(CommittedSegment::mark_obsolete);
        unwanted.iter().for_each(|field| field.file.mark_obsolete());
        drop(committed);
        // Best effort: it holds nothing any more, and the next start removes it too.
        let _ = self.env.disk.remove_dir_all(&incoming);
        self.tell_durable(&mark);
        Ok(())
    }

    fn check_snapshot(&self, manifest: &Manifest) -> Result<LogMark> {
        if manifest.spec_digest != self.spec_digest {
            return Err(Error::BadInput(format!("the snapshot is not of shard {}", self.spec.shard)));
        }
        let mark = manifest.mark.clone().ok_or_else(|| Error::BadInput("the snapshot has no position".into()))?;
        if let Some(applied) = self.applied().filter(|applied| applied.index > mark.index) {
            let (applied, offered) = (applied.index, mark.index);
            return Err(Error::BadInput(format!("the snapshot is of log index {offered}, {applied} is applied here")));
        }
        Ok(mark)
    }

    /// Makes moved files durable in their new place: content first, for whoever wrote them may not have.
    fn move_durably(&self, moves: &[(PathBuf, PathBuf)]) -> std::io::Result<()> {
        let disk = &self.env.disk;
        for (from, to) in moves {
            disk.open(from)?.sync()?;
            disk.rename(from, to)?;
        }
        disk.sync_dir(&self.dir)
    }

    /// Publishes the durable state as the newest one. The commit lock must be held.
    pub(super) fn show(&self, committed: &Committed, applied: LogIndex) {
        let segments = committed.segments.iter().map(CommittedSegment::live).collect();
        let mut writer = self.writer.lock();
        writer.mark.clone_from(&committed.mark);
        writer.membership.clone_from(&committed.membership);
        writer.requests = committed.requests.iter().cloned().collect();
        writer.frozen = 0;
        let view = View::of_segments(Arc::clone(&self.layout), applied, Arc::clone(&committed.wanted), segments);
        // What died on the way to this state is not known.
        if let Some(deaths) = &mut *self.deaths.lock() {
            *deaths = DeathLog::after(applied);
        }
        self.view.store(Arc::new(View { feed: Arc::clone(&committed.feed), maps: committed.maps, ..view }));
    }

    /// The same segment under numbers of this shard.
    fn renumbered(&self, record: &SegmentRecord) -> SegmentRecord {
        let number = || self.next_file.fetch_add(1, Ordering::AcqRel);
        let mut own = SegmentRecord { number: number(), ..record.clone() };
        own.indexes.iter_mut().for_each(|index| index.number = number());
        own.payload_indexes.iter_mut().for_each(|index| index.number = number());
        own
    }

    /// Maps and verifies a segment and its indexes in the directory `from`, but for graphs that are not wanted. They belong,
    /// or will belong, to `own`, which differs from `record` in its numbers only.
    pub(super) fn open_segment(
        &self,
        from: &Path,
        record: &SegmentRecord,
        own: &SegmentRecord,
        wanted: &Wanted,
    ) -> Result<CommittedSegment> {
        let (disk, number) = (&self.env.disk, own.number);
        let stored = |name: String, info| StoredFile::new(Arc::clone(disk), self.dir.join(name), info);
        let file = stored(segment_name(number), record.info());
        let segment = Segment::open(disk, &from.join(segment_name(record.number)), file, &self.layout)?;
        if segment.rows() != record.rows {
            let (name, rows) = (segment_name(number), segment.rows());
            return Err(Error::Corrupt(format!("{name}: it has {rows} rows, the manifest says {}", record.rows)));
        }
        let mut indexes = vec![None; self.layout.vectors.len()];
        for (index, own) in record.indexes.iter().zip(&own.indexes) {
            let of = self.layout.vectors.get(index.ordinal as usize);
            let slot = indexes
                .get_mut(index.ordinal as usize)
                .filter(|_| of.is_some_and(|vector| vector.kind == VectorKind::Dense));
            let slot = slot.ok_or_else(|| {
                Error::Corrupt("MANIFEST: an index is of no vector of the collection that may have one".into())
            })?;
            let ordinal = index.ordinal as usize;
            if !wanted.wants_graph(ordinal) {
                continue;
            }
            let path = from.join(index_name(record.number, index.number));
            let file = stored(index_name(number, own.number), index.info());
            let (rows, residency) = (segment.vectors(ordinal).rows, wanted.residency(ordinal));
            let hnsw = self.open_index(&path, &file, rows, residency)?;
            *slot = Some(Arc::new(SegmentIndex { hnsw, number: own.number, residency, file: Arc::new(file) }));
        }
        let mut fields = Vec::with_capacity(record.payload_indexes.len());
        for (index, own) in record.payload_indexes.iter().zip(&own.payload_indexes) {
            let path = from.join(field_name(record.number, index.number));
            fields.extend(self.open_field(&path, index, (number, own.number), segment.rows())?);
        }
        let dead = record.decode_dead()?;
        Ok(CommittedSegment { number, segment: Arc::new(segment), indexes, fields, dead })
    }

    fn open_index(&self, path: &Path, file: &StoredFile, rows: Rows<'_>, residency: Residency) -> Result<HnswIndex> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mapping = self.env.disk.map(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Corrupt(format!("{name}: the file is missing")),
            _ => Error::Internal(format!("map {name}: {error}")),
        })?;
        let FileInfo { bytes, crc } = file.info();
        let wrong = |text: String| Error::Corrupt(format!("{name}: {text}"));
        let length = mapping.len();
        if length as u64 != bytes {
            return Err(wrong(format!("the file ends at offset {length}, the manifest says at {bytes}")));
        }
        let is_named = crc32fast::hash(&mapping) == crc;
        // A damaged file is opened too: it is the sections that tell where.
        let hnsw = HnswIndex::open(mapping, rows, residency).map_err(|error| match error {
            Error::Corrupt(text) => wrong(text),
            other => other,
        })?;
        if !is_named {
            let text = "each section is intact, the file is not: its padding is damaged, or the manifest names another";
            return Err(wrong(text.into()));
        }
        Ok(hnsw)
    }
}

impl CommittedSegment {
    /// All its files, with their names.
    fn files(&self) -> impl Iterator<Item = (String, &StoredFile)> {
        let indexes = self.indexes.iter().flatten();
        let indexes = indexes.map(|index| (index_name(self.number, index.number), &*index.file));
        let fields = self.fields.iter().map(|field| (field_name(self.number, field.number), &field.file));
        std::iter::once((segment_name(self.number), self.segment.file())).chain(indexes).chain(fields)
    }
}

/// The names of a segment's files.
fn names_of_segment(record: &SegmentRecord) -> Vec<String> {
    let indexes = record.indexes.iter().map(|index| index_name(record.number, index.number));
    let fields = record.payload_indexes.iter().map(|index| field_name(record.number, index.number));
    std::iter::once(segment_name(record.number)).chain(indexes).chain(fields).collect()
}
