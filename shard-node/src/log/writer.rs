//! Writes batches to the newest file, begins new files and deletes old ones. Only the flusher owns one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vicinal_common::disk::{Disk, DiskFile};

use super::format::{self, BATCH_HEADER_BYTES, BatchKind, FileHeader, Record, VERSION};
use super::index::Slot;
use super::state::LogFile;

/// Why a batch is not durable.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There is no room, and the files are as they were before.
    Full(String),
    /// Nobody knows what is on the disk now.
    Broken(String),
}

pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// Sequence number of the newest file.
    pub(super) sequence: u32,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next batch goes.
    pub(super) len: u64,
    /// Where the first batch after the checkpoint starts.
    pub(super) start: u64,
    /// Number of the next batch.
    pub(super) next_batch: u64,
    pub(super) buffer: Vec<u8>,
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn at(path: &Path, e: &io::Error) -> String {
    format!("{}: {e}", path.display())
}

impl Writer {
    fn path(&self, sequence: u32) -> PathBuf {
        self.dir.join(format::file_name(u64::from(sequence)))
    }

    /// Begins the first file of a log.
    pub(super) fn first(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Writer> {
        let path = dir.join(format::file_name(1));
        let file: Arc<dyn DiskFile> = Arc::from(disk.create(&path)?);
        let mut writer = Writer {
            disk,
            dir: dir.to_path_buf(),
            sequence: 1,
            file,
            len: 0,
            start: 0,
            next_batch: 0,
            buffer: Vec::new(),
        };
        writer.encode_start(1, &[]);
        writer.file.write_at(0, &writer.buffer)?;
        writer.file.sync()?;
        writer.disk.sync_dir(dir)?;
        writer.started(1, writer.file.clone());
        Ok(writer)
    }

    /// Fills the buffer with the beginning of a file: header and checkpoint.
    fn encode_start(&mut self, sequence: u32, checkpoint: &[Record]) {
        let header = FileHeader { version: VERSION, sequence: u64::from(sequence), first_batch: self.next_batch };
        format::begin_batch(&mut self.buffer);
        for record in checkpoint {
            format::push_record(&mut self.buffer, record);
        }
        format::end_batch(&mut self.buffer, self.next_batch, BatchKind::Checkpoint);
        self.buffer.splice(..0, header.encode());
    }

    fn started(&mut self, sequence: u32, file: Arc<dyn DiskFile>) {
        self.sequence = sequence;
        self.file = file;
        self.len = self.buffer.len() as u64;
        self.start = self.len;
        self.next_batch += 1;
    }

    /// Whether the newest file has reached `file_bytes` and holds more than its checkpoint.
    pub(super) fn wants_rotation(&self, file_bytes: u64) -> bool {
        self.len >= file_bytes && self.len > self.start
    }

    /// Begins the next file with a checkpoint. Durable, content and name, when it returns.
    pub(super) fn rotate(&mut self, checkpoint: &[Record]) -> Result<(), WriteError> {
        let sequence = self.sequence.checked_add(1).ok_or_else(|| WriteError::Broken("out of file names".into()))?;
        let path = self.path(sequence);
        let broken = |e: io::Error| WriteError::Broken(at(&path, &e));
        self.encode_start(sequence, checkpoint);
        let file: Arc<dyn DiskFile> = match self.disk.create(&path) {
            Ok(file) => Arc::from(file),
            Err(e) if is_full(&e) => return Err(WriteError::Full(at(&path, &e))),
            Err(e) => return Err(broken(e)),
        };
        match file.write_at(0, &self.buffer) {
            Ok(()) => {}
            Err(e) if is_full(&e) => {
                self.disk.remove(&path).map_err(broken)?;
                self.disk.sync_dir(&self.dir).map_err(broken)?;
                return Err(WriteError::Full(at(&path, &e)));
            }
            Err(e) => return Err(broken(e)),
        }
        file.sync().map_err(broken)?;
        self.disk.sync_dir(&self.dir).map_err(broken)?;
        self.started(sequence, file);
        Ok(())
    }

    /// Writes one batch and syncs it: the group commit. Returns the places of the records.
    pub(super) fn write<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<Vec<Slot>, WriteError> {
        format::begin_batch(&mut self.buffer);
        let mut slots = Vec::new();
        for record in records {
            let start = format::push_record(&mut self.buffer, record) as u64;
            // The record's length was bounded when it was submitted, far below 4 GiB.
            slots.push(Slot { offset: self.len + start, len: record.bytes.len() as u32, file: self.sequence });
        }
        if self.buffer.len() == BATCH_HEADER_BYTES {
            return Ok(slots);
        }
        format::end_batch(&mut self.buffer, self.next_batch, BatchKind::Commit);
        let path = self.path(self.sequence);
        let broken = |e: io::Error| WriteError::Broken(at(&path, &e));
        match self.file.write_at(self.len, &self.buffer) {
            Ok(()) => {}
            Err(e) if is_full(&e) => {
                // Nothing of it was acknowledged, so it can go; what stays must end where the next batch begins.
                self.file.truncate(self.len).map_err(broken)?;
                self.file.sync().map_err(broken)?;
                return Err(WriteError::Full(at(&path, &e)));
            }
            Err(e) => return Err(broken(e)),
        }
        // Never tried again: after an error the kernel may have dropped the data and call the next sync a success.
        self.file.sync().map_err(broken)?;
        self.len += self.buffer.len() as u64;
        self.next_batch += 1;
        Ok(slots)
    }

    /// Gives memory back after an unusually large batch.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.buffer.clear();
        self.buffer.shrink_to(bytes);
    }

    /// Deletes a file for good. One directory sync each, so that after a crash no file is missing between others.
    pub(super) fn delete(&self, sequence: u32) -> Result<(), WriteError> {
        let path = self.path(sequence);
        let broken = |e: io::Error| WriteError::Broken(at(&path, &e));
        self.disk.remove(&path).map_err(broken)?;
        self.disk.sync_dir(&self.dir).map_err(broken)
    }

    pub(super) fn log_file(&self) -> LogFile {
        LogFile { file: self.file.clone(), bytes: self.len }
    }
}
