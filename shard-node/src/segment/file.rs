//! Files that are written once and then only read: how they come to be, and how they go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vicinal_common::disk::{Disk, DiskFile, create_temporary};

/// What identifies the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Length.
    pub bytes: u64,
    /// CRC32 of the whole content.
    pub crc: u32,
}

/// Bytes collected before they are given to the disk.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes a file from front to back under a temporary name. Dropped unfinished, it removes what it wrote.
pub struct FileWriter<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    temporary: PathBuf,
    file: Option<Box<dyn DiskFile>>,
    buffer: Vec<u8>,
    written: u64,
    whole: crc32fast::Hasher,
    part: crc32fast::Hasher,
}

impl<'a> FileWriter<'a> {
    /// Begins the file that will be `path`.
    pub fn create(disk: &'a dyn Disk, path: &Path) -> io::Result<FileWriter<'a>> {
        let (temporary, file) = create_temporary(disk, path)?;
        Ok(FileWriter {
            disk,
            path: path.to_path_buf(),
            temporary,
            file: Some(file),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            whole: crc32fast::Hasher::new(),
            part: crc32fast::Hasher::new(),
        })
    }

    /// Bytes given so far.
    pub fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends bytes.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.part.update(data);
        if self.buffer.len() + data.len() > BUFFER_BYTES {
            self.write_buffer()?;
        }
        if data.len() < BUFFER_BYTES {
            self.buffer.extend_from_slice(data);
            return Ok(());
        }
        self.file()?.write_at(self.written, data)?;
        self.written += data.len() as u64;
        Ok(())
    }

    /// Ends a part of the file: its CRC32. Parts cover the file without gaps.
    pub fn end_part(&mut self) -> u32 {
        let part = std::mem::take(&mut self.part);
        self.whole.combine(&part);
        part.finalize()
    }

    /// Ends the last part, makes the content durable and gives the file its name, which the caller makes durable by
    /// syncing the directory. After an error the content is given up.
    pub fn finish(mut self) -> io::Result<FileInfo> {
        self.end_part();
        self.write_buffer()?;
        self.file()?.sync()?;
        self.disk.rename(&self.temporary, &self.path)?;
        self.file = None;
        Ok(FileInfo { bytes: self.written, crc: self.whole.clone().finalize() })
    }

    fn file(&self) -> io::Result<&dyn DiskFile> {
        self.file.as_deref().ok_or_else(|| io::Error::other("the file is finished"))
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.file()?.write_at(self.written, &self.buffer)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Drop for FileWriter<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Best effort: what stays behind has a temporary name and goes at the next start.
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

/// Writes a whole file that is in memory. The name is durable once the caller has synced the directory.
pub fn write_whole(disk: &dyn Disk, path: &Path, data: &[u8]) -> io::Result<FileInfo> {
    let mut writer = FileWriter::create(disk, path)?;
    writer.write(data)?;
    writer.finish()
}

/// A file in use. Once it is obsolete, dropping the last reader removes it.
pub struct StoredFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    info: FileInfo,
    obsolete: AtomicBool,
}

impl StoredFile {
    /// A file that exists.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf, info: FileInfo) -> StoredFile {
        StoredFile { disk, path, info, obsolete: AtomicBool::new(false) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its content.
    pub fn info(&self) -> FileInfo {
        self.info
    }

    /// Lets the file be removed with its last reader. Only after the manifest without it is durable.
    pub fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = self.disk.remove(&self.path)
        {
            // The next start removes it: no manifest names it.
            tracing::debug!(path = %self.path.display(), %error, "obsolete file stays until the next start");
        }
    }
}
