//! What the metadata group keeps on a disk, as bytes: the seam between raft and sled.
//!
//! All of it fits into memory, so a store is read once, when it is opened; after that it is only written.

use std::collections::BTreeMap;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Durable storage of one coordinator's part of the metadata group. Calls block; one thread makes them.
pub trait MetaStore: Send + 'static {
    /// Reads everything. Called once, before the first commit.
    fn load(&mut self) -> io::Result<Stored>;

    /// Carries out the changes in order, all of them or, if the process dies meanwhile, possibly none. They are durable
    /// when the call returns. After an error nothing may be assumed and the store is not used again.
    fn commit(&mut self, changes: &[Change]) -> io::Result<()>;
}

/// A change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Adds or replaces a log entry.
    Put {
        /// Its index.
        index: u64,
        /// Its bytes.
        entry: Vec<u8>,
    },
    /// Removes the log entries from this index on.
    TruncateFrom(u64),
    /// Removes the log entries up to this index and that one itself.
    PurgeThrough(u64),
    /// Writes a record.
    Set(Record, Vec<u8>),
}

/// Things of which there is one each. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Record {
    /// Who this process is.
    Identity,
    /// The last vote.
    Vote,
    /// The last log id known to be committed.
    Committed,
    /// The last log id purged.
    Purged,
    /// The newest snapshot of the state.
    Snapshot,
}

impl Record {
    /// All of them.
    pub const ALL: [Record; 5] = [Record::Identity, Record::Vote, Record::Committed, Record::Purged, Record::Snapshot];
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Log entries by index.
    pub log: BTreeMap<u64, Vec<u8>>,
    /// Records that were ever written.
    pub records: BTreeMap<Record, Vec<u8>>,
}

impl Stored {
    /// Carries out one change in memory.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put { index, entry } => {
                self.log.insert(index, entry);
            }
            Change::TruncateFrom(first) => {
                self.log.split_off(&first);
            }
            Change::PurgeThrough(last) => self.log.retain(|index, _| *index > last),
            Change::Set(record, bytes) => {
                self.records.insert(record, bytes);
            }
        }
    }
}

/// Version of the stored form of every value.
const VERSION: u8 = 8;
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 4;

/// A value as it is stored: version, postcard form, CRC-32 of both (little endian).
pub(super) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(value, vec![VERSION]).map_err(io::Error::other)?;
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// The inverse of [`encode`]. `InvalidData` names `what` could not be read.
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{what} {why}"));
    let split = bytes.len().checked_sub(CHECKSUM).ok_or_else(|| damaged("is too short".into()))?;
    let (body, checksum) = bytes.split_at(split);
    if crc32fast::hash(body).to_le_bytes() != checksum {
        return Err(damaged("has a wrong checksum".into()));
    }
    match body.split_first() {
        Some((&VERSION, value)) => {
            postcard::from_bytes(value).map_err(|error| damaged(format!("cannot be decoded: {error}")))
        }
        Some((version, _)) => Err(damaged(format!("has version {version}, this program knows {VERSION}"))),
        None => Err(damaged("is empty".into())),
    }
}
