//! Moving a snapshot to another replica: the segment files of a durable manifest, in chunks, each with its checksum.
//!
//! A transfer is `begin` (position, names and sizes), then every chunk in order, then `finish` (the manifest). The receiver
//! keeps at most one transfer, in memory. A new `begin` for the same position and files, whoever sends it, goes on where
//! that one stands; any other throws it away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};
use vicinal_common::disk::{Disk, DiskFile};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;

use super::machine::on_blocking_thread;
use crate::shard::{Shard, ShardSnapshot};

/// Bytes per chunk.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;
/// Most files in one snapshot: far above what any shard has.
const FILES_MAX: usize = 65_536;

/// A snapshot as raft hands it around.
pub(super) enum SnapshotData {
    /// Of this node's shard: the files stay as long as this lives.
    Local(Arc<ShardSnapshot>),
    /// Received whole from another replica.
    Received {
        /// The manifest that makes the files a shard.
        manifest: Bytes,
        /// Keeps the directory of received files from being used for another transfer.
        incoming: OwnedMutexGuard<Incoming>,
    },
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FileInfo {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// CRC-32 of the whole file, from the sender's manifest.
    pub(super) crc: u32,
}

/// Opens a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// Tells attempts apart; drawn by the sender.
    pub(super) transfer: u64,
    /// Log index up to which the snapshot holds everything.
    pub(super) position: LogIndex,
    pub(super) files: Vec<FileInfo>,
}

/// How far the receiver is: the next byte it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The file; the number of files when all are there.
    pub(super) file: u32,
    /// The byte in it.
    pub(super) offset: u64,
}

/// A piece of a file. Pieces are sent in order: file by file, offset by offset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) transfer: u64,
    pub(super) file: u32,
    pub(super) offset: u64,
    /// CRC-32 of `bytes`.
    pub(super) crc: u32,
    pub(super) bytes: Bytes,
}

/// The receiving side's one transfer.
#[derive(Default)]
pub(super) struct Incoming(Option<Transfer>);

struct Transfer {
    id: u64,
    position: LogIndex,
    files: Vec<FileInfo>,
    /// Where they go; `None` when the shard is as far already and needs none of them.
    dir: Option<PathBuf>,
    /// The file being received, and how much of it is here.
    current: usize,
    received: u64,
    crc: crc32fast::Hasher,
    open: Option<Box<dyn DiskFile>>,
}

/// Receives snapshots for one shard.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) shard: Arc<Shard>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) incoming: Arc<Mutex<Incoming>>,
}

impl Receiver {
    /// Starts a transfer, or goes on with one of the same snapshot. Waits while a finished one is being installed.
    pub(super) async fn begin(&self, begin: Begin) -> Result<Progress> {
        if begin.files.len() > FILES_MAX {
            return Err(Error::BadInput(format!("a snapshot of {} files", begin.files.len())));
        }
        // A name is one path component: what another process says must not lead out of the directory.
        if let Some(bad) = begin.files.iter().find(|f| !is_plain_name(&f.name)) {
            return Err(Error::BadInput(format!("a snapshot file is called {:?}", bad.name)));
        }
        let mut incoming = self.incoming.clone().lock_owned().await;
        let (shard, disk) = (self.shard.clone(), self.disk.clone());
        on_blocking_thread(move || {
            if let Some(open) = incoming.0.as_mut().filter(|open| open.is_of(&begin)) {
                // Chunks of the attempt before, should any still be on their way, are not of this one.
                open.id = begin.transfer;
                return open.progress();
            }
            incoming.0 = None;
            let mut transfer = Transfer {
                id: begin.transfer,
                position: begin.position,
                files: begin.files,
                dir: None,
                current: 0,
                received: 0,
                crc: crc32fast::Hasher::new(),
                open: None,
            };
            // Only the answer to an installation can have been lost: raft takes such a snapshot without looking at it.
            if shard.applied().is_some_and(|mark| mark.index >= transfer.position) {
                transfer.current = transfer.files.len();
            } else {
                transfer.dir = Some(shard.begin_install()?);
                transfer.settle(disk.as_ref())?;
            }
            let progress = transfer.progress();
            incoming.0 = Some(transfer);
            progress
        })
        .await
    }

    /// Takes a chunk. One that was received before is fine: its answer may have been lost.
    pub(super) async fn chunk(&self, chunk: Chunk) -> Result<()> {
        if crc32fast::hash(&chunk.bytes) != chunk.crc {
            return Err(Error::Unavailable("a snapshot chunk was damaged on its way".into()));
        }
        let mut incoming = self.incoming.clone().lock_owned().await;
        let disk = self.disk.clone();
        on_blocking_thread(move || {
            let transfer = incoming.transfer(chunk.transfer)?;
            if !transfer.wants(&chunk)? {
                return Ok(());
            }
            let result = transfer.write(disk.as_ref(), &chunk);
            if result.is_err() {
                // What is on the disk is unknown after a failed write: the transfer starts over.
                incoming.0 = None;
            }
            result
        })
        .await
    }

    /// Checks that all files are here and hands over the directory, which stays locked to this snapshot.
    pub(super) async fn finish(&self, transfer: u64, manifest: Bytes) -> Result<SnapshotData> {
        let mut incoming = self.incoming.clone().lock_owned().await;
        let open = incoming.transfer(transfer)?;
        if open.current < open.files.len() {
            let missing = &open.files[open.current].name;
            return Err(Error::Unavailable(format!("snapshot file {missing} has not arrived whole")));
        }
        if let Some(dir) = open.dir.clone() {
            let disk = self.disk.clone();
            on_blocking_thread(move || disk.sync_dir(&dir).map_err(|e| storage_error("sync", &dir, e))).await?;
        }
        // The transfer ends here, whether raft takes the snapshot or not.
        incoming.0 = None;
        Ok(SnapshotData::Received { manifest, incoming })
    }
}

impl Incoming {
    fn transfer(&mut self, id: u64) -> Result<&mut Transfer> {
        let open = self.0.as_mut().filter(|transfer| transfer.id == id);
        open.ok_or_else(|| Error::Unavailable("this snapshot transfer was given up: begin again".into()))
    }
}

impl Transfer {
    /// Whether it is of the same snapshot: then its bytes are the same too, whichever replica they come from.
    fn is_of(&self, begin: &Begin) -> bool {
        self.position == begin.position && self.files == begin.files
    }

    fn progress(&self) -> Result<Progress> {
        let file = u32::try_from(self.current).map_err(|_| Error::Internal("too many snapshot files".into()))?;
        Ok(Progress { file, offset: self.received })
    }

    /// Whether the chunk is the next one; `false` for one that is here already.
    fn wants(&self, chunk: &Chunk) -> Result<bool> {
        let end = chunk.offset.saturating_add(chunk.bytes.len() as u64);
        let file = chunk.file as usize;
        if file < self.current || (file == self.current && end <= self.received) {
            return Ok(false);
        }
        let Some(info) = self.files.get(self.current) else {
            return Err(Error::BadInput("a snapshot chunk after the last file".into()));
        };
        if file != self.current || chunk.offset != self.received || end > info.bytes || chunk.bytes.is_empty() {
            let (name, have) = (&info.name, self.received);
            return Err(Error::BadInput(format!("a snapshot chunk is out of order: {name} has {have} bytes so far")));
        }
        Ok(true)
    }

    /// Writes a chunk that is wanted.
    fn write(&mut self, disk: &dyn Disk, chunk: &Chunk) -> Result<()> {
        let open = self.open.as_ref().ok_or_else(|| Error::Internal("no snapshot file is open".into()))?;
        open.write_at(chunk.offset, &chunk.bytes).map_err(|e| {
            let name = self.files.get(self.current).map_or("a snapshot file", |info| &info.name);
            storage_error("write", Path::new(name), e)
        })?;
        self.received += chunk.bytes.len() as u64;
        self.crc.update(&chunk.bytes);
        self.settle(disk)
    }

    /// Completes files that have all their bytes and opens the next one.
    fn settle(&mut self, disk: &dyn Disk) -> Result<()> {
        let dir = self.dir.as_ref().ok_or_else(|| Error::Internal("a snapshot has no directory".into()))?;
        while let Some(info) = self.files.get(self.current) {
            let path = dir.join(&info.name);
            if self.open.is_none() {
                self.open = Some(disk.create(&path).map_err(|e| storage_error("create", &path, e))?);
            }
            if self.received < info.bytes {
                break;
            }
            // The chunks arrived as they were sent: another sum means that the sender's file is damaged. Found here, it
            // costs this transfer; found while installing, it would cost the replica.
            if std::mem::take(&mut self.crc).finalize() != info.crc {
                return Err(Error::Unavailable(format!("snapshot file {} is damaged at its sender", info.name)));
            }
            if let Some(file) = self.open.take() {
                file.sync().map_err(|e| storage_error("sync", &path, e))?;
            }
            self.current += 1;
            self.received = 0;
        }
        Ok(())
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

fn storage_error(what: &str, path: &Path, e: io::Error) -> Error {
    Error::Unavailable(format!("{what} {}: {e}", path.display()))
}

/// The chunks of a local snapshot, read one at a time.
pub(super) struct Chunks {
    disk: Arc<dyn Disk>,
    snapshot: Arc<ShardSnapshot>,
    transfer: u64,
    at: Progress,
}

impl Chunks {
    pub(super) fn new(disk: Arc<dyn Disk>, snapshot: Arc<ShardSnapshot>, transfer: u64) -> Chunks {
        Chunks { disk, snapshot, transfer, at: Progress::default() }
    }

    pub(super) fn begin(&self) -> Begin {
        let info = |f: &crate::shard::SnapshotFile| FileInfo { name: f.name.clone(), bytes: f.bytes, crc: f.crc };
        let files = self.snapshot.files.iter().map(info).collect();
        Begin { transfer: self.transfer, position: self.snapshot.mark.index, files }
    }

    /// Goes on where the receiver says that it is.
    pub(super) fn seek(&mut self, to: Progress) -> Result<()> {
        let files = &self.snapshot.files;
        let is_inside = match files.get(to.file as usize) {
            Some(file) => to.offset <= file.bytes,
            None => to.file as usize == files.len() && to.offset == 0,
        };
        if !is_inside {
            let count = files.len();
            return Err(Error::Internal(format!("the receiver of a snapshot of {count} files says it is at {to:?}")));
        }
        self.at = to;
        Ok(())
    }

    /// Reads the next chunk; `None` after the last. Blocks on the disk.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>> {
        while let Some(file) = self.snapshot.files.get(self.at.file as usize) {
            if self.at.offset >= file.bytes {
                self.at = Progress { file: self.at.file + 1, offset: 0 };
                continue;
            }
            let len = (file.bytes - self.at.offset).min(CHUNK_BYTES as u64);
            let mut bytes = vec![0u8; len as usize];
            let read = self.disk.open(&file.path).and_then(|open| open.read_at(self.at.offset, &mut bytes));
            read.map_err(|e| storage_error("read", &file.path, e))?;
            let Progress { file, offset } = self.at;
            self.at.offset += len;
            let crc = crc32fast::hash(&bytes);
            return Ok(Some(Chunk { transfer: self.transfer, file, offset, crc, bytes: Bytes::from(bytes) }));
        }
        Ok(None)
    }
}
