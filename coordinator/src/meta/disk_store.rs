//! The metadata group's store on [`Disk`], for simulation and crash tests: an image of everything and a journal of the
//! changes since.
//!
//! `image` names the number of its journal; `journal-<number>` is a sequence of frames: magic (4 bytes), length (u32),
//! CRC-32 (u32) of the content, content (postcard of a list of changes); integers little endian. A commit is one frame
//! and one sync, so only the last frame can be torn.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vicinal_common::disk::{Disk, DiskFile, TEMPORARY_SUFFIX, replace_file};

use super::store::{Change, MetaStore, Stored, decode, encode};

const MAGIC: [u8; 4] = *b"VMJ1";
const HEAD: usize = 12;
/// Bytes of the journal after which a new image is written.
const JOURNAL_BYTES_MAX: u64 = 4 * 1024 * 1024;
const IMAGE: &str = "image";

/// [`MetaStore`] on [`Disk`].
pub struct DiskStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    image: Stored,
    number: u64,
    journal: Option<Box<dyn DiskFile>>,
    end: u64,
}

impl DiskStore {
    /// The store in `dir`, which is made when it is missing.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<DiskStore> {
        disk.create_dir_all(dir)?;
        let dir = dir.to_path_buf();
        Ok(DiskStore { disk, dir, image: Stored::default(), number: 0, journal: None, end: 0 })
    }

    fn journal_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("journal-{number}"))
    }

    /// Makes the empty journal `number`, then an image that names it. A crash between the two leaves the old image with
    /// its journal, and the new one is made anew.
    fn begin_journal(&mut self, number: u64) -> io::Result<()> {
        let path = self.journal_path(number);
        if self.disk.exists(&path)? {
            self.disk.remove(&path)?;
        }
        let journal = self.disk.create(&path)?;
        self.disk.sync_dir(&self.dir)?;
        replace_file(&*self.disk, &self.dir.join(IMAGE), &encode(&(number, &self.image))?)?;
        if number > 0 {
            let old = self.journal_path(self.number);
            if self.number != number && self.disk.exists(&old)? {
                self.disk.remove(&old)?;
            }
        }
        (self.number, self.journal, self.end) = (number, Some(journal), 0);
        Ok(())
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        let current = format!("journal-{}", self.number);
        for name in self.disk.list(&self.dir)? {
            if name.ends_with(TEMPORARY_SUFFIX) || (name.starts_with("journal-") && name != current) {
                self.disk.remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }
}

impl MetaStore for DiskStore {
    fn load(&mut self) -> io::Result<Stored> {
        let image = self.dir.join(IMAGE);
        if !self.disk.exists(&image)? {
            self.begin_journal(0)?;
            return Ok(Stored::default());
        }
        (self.number, self.image) = decode("the image of the metadata", &self.disk.read(&image)?)?;
        let path = self.journal_path(self.number);
        let bytes = self.disk.read(&path)?;
        let mut end = 0;
        while let Some((content, next)) = frame_at(&bytes, end) {
            let changes: Vec<Change> = postcard::from_bytes(content).map_err(|error| damaged(&path, end, &error))?;
            for change in changes {
                self.image.apply(change);
            }
            end = next;
        }
        // What follows is the torn end of a commit that was never confirmed, unless another frame comes after it.
        if (end + 1..bytes.len()).any(|at| frame_at(&bytes, at).is_some()) {
            return Err(damaged(&path, end, &"a frame is damaged although later ones are whole"));
        }
        let journal = self.disk.open(&path)?;
        if end < bytes.len() {
            journal.truncate(end as u64)?;
            journal.sync()?;
        }
        (self.journal, self.end) = (Some(journal), end as u64);
        self.remove_leftovers()?;
        Ok(self.image.clone())
    }

    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        let content = postcard::to_stdvec(changes).map_err(io::Error::other)?;
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
        frame.extend_from_slice(&content);
        let journal = self.journal.as_ref().ok_or_else(|| io::Error::other("commit before load"))?;
        journal.write_at(self.end, &frame)?;
        journal.sync()?;
        self.end += frame.len() as u64;
        for change in changes {
            self.image.apply(change.clone());
        }
        if self.end > JOURNAL_BYTES_MAX { self.begin_journal(self.number + 1) } else { Ok(()) }
    }
}

/// The content of the whole frame at `at`, and where the next one begins.
fn frame_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let frame = bytes.get(at..)?;
    let (head, rest) = frame.split_at_checked(HEAD)?;
    let word = |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
    if head[..4] != MAGIC {
        return None;
    }
    let content = rest.get(..usize::try_from(word(4)).ok()?)?;
    (crc32fast::hash(content) == word(8)).then_some((content, at + HEAD + content.len()))
}

fn damaged(path: &Path, at: usize, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged at byte {at}: {why}", path.display()))
}
