//! The metadata group's store on sled.
//!
//! Two properties of sled 0.34 shape this file. `flush` writes to the file but does not sync it, so a sync of the file
//! `db` follows every flush. And a tree node larger than a quarter of a segment (128 KiB) goes to a file of its own that
//! is never synced; a leaf has up to 17 values, so values are cut into pieces small enough that no leaf gets there.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store::{Change, MetaStore, Record, Stored};

/// Bytes of a value's piece.
const PIECE: usize = 4_096;
/// Bytes of sled's cache. It takes more than it is told.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Longest wait for the lock of the directory: sled's own threads hold it a moment longer than the store lives.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// First byte of the keys of log entries; followed by the index and the number of the piece.
const LOG: u8 = b'l';
/// First byte of the keys of records; followed by the record's number and the number of the piece.
const RECORD: u8 = b'r';

/// [`MetaStore`] on sled.
pub struct SledStore {
    db: sled::Db,
    file: File,
    dir: PathBuf,
}

impl SledStore {
    /// Opens or creates the store in `dir`. An error says in plain words what to do.
    pub fn open(dir: &Path) -> io::Result<SledStore> {
        std::fs::create_dir_all(dir).map_err(|error| refused(dir, &error))?;
        let config = sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(CACHE_BYTES);
        let give_up = Instant::now() + LOCK_WAIT;
        let db = loop {
            // sled panics on some kinds of damage; a coordinator must refuse to start with a message instead.
            match catch_unwind(AssertUnwindSafe(|| config.open())) {
                Ok(Ok(db)) => break db,
                Ok(Err(error)) if is_locked(&error) && Instant::now() < give_up => std::thread::sleep(LOCK_POLL),
                Ok(Err(error)) => return Err(refused(dir, &error)),
                Err(_) => return Err(refused(dir, &"its content is damaged")),
            }
        };
        let file = File::open(dir.join("db")).map_err(|error| refused(dir, &error))?;
        let store = SledStore { db, file, dir: dir.to_path_buf() };
        store.sync()?;
        // The names of a new store's files, and that of its directory.
        File::open(dir)?.sync_all()?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(store)
    }

    fn sync(&self) -> io::Result<()> {
        self.db.flush().map_err(io::Error::from)?;
        self.file.sync_data()
    }

    fn put(&self, batch: &mut sled::Batch, prefix: &[u8], value: &[u8]) -> io::Result<()> {
        self.remove(batch, prefix)?;
        // A value of no bytes still has one piece, so that it is found again.
        let pieces = value.chunks(PIECE).chain(value.is_empty().then_some(&[][..]));
        for (number, piece) in (0_u32..).zip(pieces) {
            batch.insert([prefix, &number.to_be_bytes()].concat(), piece);
        }
        Ok(())
    }

    fn remove(&self, batch: &mut sled::Batch, prefix: &[u8]) -> io::Result<()> {
        for key in self.db.scan_prefix(prefix).keys() {
            batch.remove(key.map_err(io::Error::from)?);
        }
        Ok(())
    }

    fn remove_entries(&self, batch: &mut sled::Batch, from: &[u8], to: &[u8]) -> io::Result<()> {
        for key in self.db.range(from..to).keys() {
            batch.remove(key.map_err(io::Error::from)?);
        }
        Ok(())
    }

    fn unreadable(&self, key: &[u8]) -> io::Error {
        refused(&self.dir, &format!("it has a key of unknown form: {key:02x?}"))
    }
}

impl MetaStore for SledStore {
    fn load(&mut self) -> io::Result<Stored> {
        let mut stored = Stored::default();
        for item in self.db.iter() {
            let (key, piece) = item.map_err(|error| refused(&self.dir, &error))?;
            // Pieces come in the order of their numbers, so that a value grows piece by piece.
            let value = match key.split_first() {
                Some((&LOG, rest)) if rest.len() == 12 => {
                    let mut index = [0; 8];
                    index.copy_from_slice(&rest[..8]);
                    stored.log.entry(u64::from_be_bytes(index)).or_default()
                }
                Some((&RECORD, rest)) if rest.len() == 5 => {
                    let record = Record::ALL.into_iter().find(|record| *record as u8 == rest[0]);
                    stored.records.entry(record.ok_or_else(|| self.unreadable(&key))?).or_default()
                }
                _ => return Err(self.unreadable(&key)),
            };
            value.extend_from_slice(&piece);
        }
        Ok(stored)
    }

    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        // A batch remembers one fate per key, the last one, which is the order wanted. What it removes is looked up in
        // the tree, so that changes after one that removes must not have been put by the same batch: see `split`.
        for part in split(changes) {
            let mut batch = sled::Batch::default();
            for change in part {
                match change {
                    Change::Put { index, entry } => self.put(&mut batch, &log_key(*index), entry)?,
                    Change::TruncateFrom(first) => {
                        self.remove_entries(&mut batch, &log_key(*first), &[LOG + 1])?;
                    }
                    Change::PurgeThrough(last) => {
                        self.remove_entries(&mut batch, &[LOG], &log_key(last.saturating_add(1)))?;
                    }
                    Change::Set(record, value) => self.put(&mut batch, &[RECORD, *record as u8], value)?,
                }
            }
            self.db.apply_batch(batch).map_err(io::Error::from)?;
        }
        self.sync()
    }
}

/// Cuts the changes so that within a part nothing removes what an earlier change of the same part wrote. Parts are
/// carried out in order, so a crash leaves a beginning of the changes.
fn split(changes: &[Change]) -> Vec<&[Change]> {
    let mut parts = Vec::new();
    let mut rest = changes;
    while !rest.is_empty() {
        let clash = (1..rest.len()).find(|&at| match &rest[at] {
            Change::TruncateFrom(_) | Change::PurgeThrough(_) => {
                rest[..at].iter().any(|before| matches!(before, Change::Put { .. }))
            }
            Change::Put { index, .. } => {
                rest[..at].iter().any(|before| matches!(before, Change::Put { index: other, .. } if other == index))
            }
            Change::Set(record, _) => {
                rest[..at].iter().any(|before| matches!(before, Change::Set(other, _) if other == record))
            }
        });
        let (part, others) = rest.split_at(clash.unwrap_or(rest.len()));
        parts.push(part);
        rest = others;
    }
    parts
}

/// sled tells of a lock that another holds by the text of an I/O error only.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn log_key(index: u64) -> [u8; 9] {
    let mut key = [LOG; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn refused(dir: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!(
        "the cluster's metadata in {} cannot be opened: {why}. If another process uses this directory, stop it first. If \
         the disk is damaged, restore the directory from a copy; nothing was changed.",
        dir.display()
    ))
}
