//! The one way to files. Everything that must survive a crash goes through [`Disk`], so that a fault-injecting twin
//! can cut the power at every single operation.
//!
//! The contract, which both implementations keep: bytes written to a file survive a power cut only after
//! [`DiskFile::sync`]; a file's name (created, renamed, removed) only after [`Disk::sync_dir`] of its directory.
//! An error from `sync` means that nothing may be assumed of what was written since the last good one: the caller stops
//! using the file and never retries the sync.

mod faulty;
mod real;

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use faulty::{Fault, FaultyDisk};
pub use real::RealDisk;

/// A file system as far as this project uses one. Paths are absolute or relative to the process; calls block.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its parents. The new names are durable when the call returns.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates an empty file for writing; fails with `AlreadyExists` when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Maps a whole file for reading. The file must not change while it is mapped; it may be removed.
    fn map(&self, path: &Path) -> io::Result<Mapping>;
    /// Renames a file atomically, replacing what `to` named.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it; a missing one is fine.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names of the entries of a directory, sorted; empty when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Free space for data on the file system that holds `dir`, in bytes.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `data` at `offset`, extending the file when needed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Fills `data` from `offset`; `UnexpectedEof` when the file is shorter.
    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable (fdatasync). Returns only after the device has it.
    fn sync(&self) -> io::Result<()>;
}

/// The bytes of a mapped file, shared and immutable. Aligned to at least 64 bytes at its start.
#[derive(Clone)]
pub struct Mapping(Arc<dyn Deref<Target = [u8]> + Send + Sync>);

impl Mapping {
    /// Wraps an owner of bytes: a memory map, or a copy on the faulty disk.
    pub fn new(owner: impl Deref<Target = [u8]> + Send + Sync + 'static) -> Mapping {
        Mapping(Arc::new(owner))
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Writes a whole file so that after a crash either the old content or the new is there: temporary name, sync, rename,
/// directory sync. Returns only when the new content is durable under `path`.
pub fn replace_file(disk: &dyn Disk, path: &Path, data: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no directory"))?;
    let temporary = prepare_file(disk, path, data)?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}

/// The first half of [`replace_file`], up to the point of no return: `data` is durable under a temporary name, which is
/// returned for the rename. After an error nothing has changed.
pub fn prepare_file(disk: &dyn Disk, path: &Path, data: &[u8]) -> io::Result<PathBuf> {
    let (temporary, file) = create_temporary(disk, path)?;
    match file.write_at(0, data).and_then(|()| file.sync()) {
        Ok(()) => Ok(temporary),
        Err(error) => {
            // Best effort: a temporary file is removed before the next attempt and at the next start.
            let _ = disk.remove(&temporary);
            Err(error)
        }
    }
}

/// Creates the empty file in which the content of `path` is prepared until a rename makes it that; what an earlier attempt
/// left under its name is removed. Returns its path and the file.
pub fn create_temporary(disk: &dyn Disk, path: &Path) -> io::Result<(PathBuf, Box<dyn DiskFile>)> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let file = disk.create(&temporary)?;
    Ok((temporary, file))
}

/// Ending of names that are not yet part of the store: a start-up removes them.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
