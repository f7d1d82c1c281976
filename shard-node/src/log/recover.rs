//! Reads the files back when the log is opened. An incomplete last batch is what a crash leaves and is cut off; damage
//! anywhere else is never taken for one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vicinal_common::disk::{Disk, DiskFile};
use vicinal_common::error::{Error, Result};

use super::format::{self, BATCH_HEADER_BYTES, Batch, BatchKind, FILE_HEADER_BYTES, FileHeader, Record, VERSION};
use super::index::{Index, Slot};
use super::state::LogFile;
use super::writer::Writer;

/// What the files say.
pub(super) struct Replay {
    pub(super) index: Index,
    pub(super) files: BTreeMap<u32, LogFile>,
    pub(super) writer: Writer,
    /// What was found and done about it, in plain words.
    pub(super) notes: Vec<String>,
}

/// The newest file as far as it is read.
struct Newest {
    sequence: u32,
    path: PathBuf,
    bytes: Vec<u8>,
    /// End of the checkpoint.
    start: usize,
    /// Where the last batch begins; 0 if that is the checkpoint, which was written together with the header.
    last: usize,
    /// Where the valid part ends.
    end: usize,
}

fn io_error(path: &Path, e: &io::Error) -> Error {
    let text = format!("shard log {}: {e}", path.display());
    if e.kind() == io::ErrorKind::StorageFull { Error::Unavailable(text) } else { Error::Internal(text) }
}

fn corrupt(path: &Path, offset: usize, what: &str) -> Error {
    Error::Corrupt(format!("shard log {} at offset {offset}: {what}", path.display()))
}

fn records(payload: &[u8]) -> Result<Vec<(usize, Record)>, String> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let (record, len) = format::read_record(&payload[at..])?;
        records.push((at, record));
        at += len;
    }
    Ok(records)
}

/// Reads all files of `dir`, mends the end of the newest, and returns the log ready for writing.
pub(super) fn replay(disk: Arc<dyn Disk>, dir: &Path) -> Result<Replay> {
    let fail = |e: io::Error| io_error(dir, &e);
    disk.create_dir_all(dir).map_err(fail)?;
    let mut notes = Vec::new();
    let mut sequences = Vec::new();
    for name in disk.list(dir).map_err(fail)? {
        match format::file_sequence(&name).map(u32::try_from) {
            Some(Ok(sequence)) => sequences.push(sequence),
            Some(Err(_)) | None => notes.push(format!("{name} is no file of the log and was left alone")),
        }
    }
    let mut reader =
        Reader { disk: disk.clone(), dir, index: Index::default(), next_batch: None, files: BTreeMap::new(), notes };
    let mut newest = None;
    for (at, &sequence) in sequences.iter().enumerate() {
        if at > 0 && sequences[at - 1] + 1 != sequence {
            let what = format!("file {} is missing", format::file_name(u64::from(sequences[at - 1]) + 1));
            return Err(corrupt(dir, 0, &what));
        }
        let place = Place { is_oldest: at == 0, is_newest: at + 1 == sequences.len() };
        newest = reader.read_file(sequence, place)?.or(newest);
    }
    if let Some((group, index)) = reader.index.find_missing() {
        return Err(corrupt(dir, 0, &format!("entry {index} of shard {group} should be there; a file was lost")));
    }
    let writer = match newest {
        Some(newest) => reader.mend(newest)?,
        None => {
            let writer = Writer::first(disk, dir).map_err(fail)?;
            reader.files.insert(writer.sequence, writer.log_file());
            writer
        }
    };
    Ok(Replay { index: reader.index, files: reader.files, writer, notes: reader.notes })
}

/// Where a file stands among the others.
struct Place {
    is_oldest: bool,
    is_newest: bool,
}

struct Reader<'a> {
    disk: Arc<dyn Disk>,
    dir: &'a Path,
    index: Index,
    /// Number the next batch must have; none before the oldest file.
    next_batch: Option<u64>,
    files: BTreeMap<u32, LogFile>,
    notes: Vec<String>,
}

impl Reader<'_> {
    /// Reads a file into the index. None when it was the beginning of a file that was never completed, which is
    /// removed.
    fn read_file(&mut self, sequence: u32, place: Place) -> Result<Option<Newest>> {
        let path = self.dir.join(format::file_name(u64::from(sequence)));
        let bytes = self.disk.read(&path).map_err(|e| io_error(&path, &e))?;
        let start = match self.read_start(&path, &bytes, sequence)? {
            Ok(end) => end,
            Err((offset, what)) => {
                // A file gets its first commit only when its checkpoint is durable, and older files are deleted only
                // then. So a newest file without a commit, with all before it still there, is an interrupted beginning.
                let has_commit = format::find_batch(&bytes, |batch| batch.kind == BatchKind::Commit).is_some();
                if !place.is_newest || has_commit || (place.is_oldest && sequence != 1) {
                    return Err(corrupt(&path, offset, &what));
                }
                self.disk.remove(&path).map_err(|e| io_error(&path, &e))?;
                self.disk.sync_dir(self.dir).map_err(|e| io_error(self.dir, &e))?;
                let name = format::file_name(u64::from(sequence));
                self.notes
                    .push(format!("{name} was begun and not completed ({what}); it held nothing and was removed"));
                return Ok(None);
            }
        };
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.open(&path).map_err(|e| io_error(&path, &e))?);
        let mut newest = Newest { sequence, path, bytes, start, last: 0, end: start };
        while newest.end < newest.bytes.len() {
            let rest = &newest.bytes[newest.end..];
            match format::read_batch(rest) {
                Ok(batch) => {
                    let len = BATCH_HEADER_BYTES + batch.payload.len();
                    self.apply(&newest, &batch)?;
                    newest.last = newest.end;
                    newest.end += len;
                }
                Err(what) => {
                    let expected = self.next_batch.unwrap_or(0);
                    if !place.is_newest {
                        return Err(corrupt(&newest.path, newest.end, &format!("{what}, and a later file exists")));
                    }
                    if let Some(later) = format::find_batch(rest, |batch| batch.number >= expected) {
                        let what = format!("{what}, and a later batch stands at offset {}", newest.end + later);
                        return Err(corrupt(&newest.path, newest.end, &what));
                    }
                    break;
                }
            }
        }
        self.files.insert(sequence, LogFile { file, bytes: newest.end as u64 });
        Ok(Some(newest))
    }

    /// Reads header and checkpoint; returns where they end, or what in them is damaged and where.
    fn read_start(&mut self, path: &Path, bytes: &[u8], sequence: u32) -> Result<Result<usize, (usize, String)>> {
        let header = match FileHeader::decode(bytes) {
            Ok(header) => header,
            Err(what) => return Ok(Err((0, what))),
        };
        if header.version != VERSION {
            let what = format!("shard log {} has version {}", path.display(), header.version);
            return Err(Error::Internal(format!(
                "{what}; this program reads version {VERSION}: use the newer program"
            )));
        }
        if header.sequence != u64::from(sequence) {
            return Err(corrupt(path, 0, &format!("the header belongs to file {}", header.sequence)));
        }
        if self.next_batch.is_some_and(|next| next != header.first_batch) {
            return Err(corrupt(path, 0, &format!("the file begins with batch {}", header.first_batch)));
        }
        let batch = match format::read_batch(&bytes[FILE_HEADER_BYTES..]) {
            Ok(batch) => batch,
            Err(what) => return Ok(Err((FILE_HEADER_BYTES, what.into()))),
        };
        let wrong = |what: &str| corrupt(path, FILE_HEADER_BYTES, what);
        if batch.kind != BatchKind::Checkpoint || batch.number != header.first_batch {
            return Err(wrong("the first batch is not the file's checkpoint"));
        }
        let checkpoint: Vec<Record> =
            records(batch.payload).map_err(|what| wrong(&what))?.into_iter().map(|(_, record)| record).collect();
        if self.next_batch.is_none() {
            self.index.begin(&checkpoint).map_err(|what| wrong(&what))?;
        } else if self.index.checkpoint() != checkpoint {
            return Err(wrong("the checkpoint differs from what the older files say"));
        }
        self.next_batch = Some(header.first_batch + 1);
        Ok(Ok(FILE_HEADER_BYTES + BATCH_HEADER_BYTES + batch.payload.len()))
    }

    fn apply(&mut self, newest: &Newest, batch: &Batch<'_>) -> Result<()> {
        let wrong = |what: &str| corrupt(&newest.path, newest.end, what);
        if batch.kind != BatchKind::Commit || Some(batch.number) != self.next_batch {
            return Err(wrong(&format!("batch {} stands where it should not", batch.number)));
        }
        for (at, record) in records(batch.payload).map_err(|what| wrong(&what))? {
            let offset = (newest.end + BATCH_HEADER_BYTES + at) as u64;
            // Lengths are stored as u32, so this one fits.
            let slot = Slot { offset, len: record.bytes.len() as u32, file: newest.sequence };
            self.index.apply(&record, slot).map_err(|what| wrong(&what))?;
        }
        self.next_batch = Some(batch.number + 1);
        Ok(())
    }

    /// Cuts an incomplete end off and makes sure that the rest is on the disk.
    fn mend(&mut self, newest: Newest) -> Result<Writer> {
        let fail = |e: io::Error| io_error(&newest.path, &e);
        let file = self.files[&newest.sequence].file.clone();
        let torn = newest.bytes.len() - newest.end;
        if torn > 0 {
            file.truncate(newest.end as u64).map_err(fail)?;
            let name = format::file_name(u64::from(newest.sequence));
            self.notes.push(format!(
                "the last {torn} bytes of {name}, from offset {}, were a write that a crash cut short; they were never \
                 acknowledged and are dropped",
                newest.end
            ));
        }
        // The last batch may be one whose sync failed before this process was started again: it can be read but is
        // not on the disk, and a sync alone would not bring it there. Writing it again does. All batches before it
        // were synced, or it would not have been written.
        file.write_at(newest.last as u64, &newest.bytes[newest.last..newest.end]).map_err(fail)?;
        file.sync().map_err(fail)?;
        self.disk.sync_dir(self.dir).map_err(|e| io_error(self.dir, &e))?;
        Ok(Writer {
            disk: self.disk.clone(),
            dir: self.dir.to_path_buf(),
            sequence: newest.sequence,
            file,
            len: newest.end as u64,
            start: newest.start as u64,
            next_batch: self.next_batch.unwrap_or(0),
            buffer: Vec::new(),
        })
    }
}
