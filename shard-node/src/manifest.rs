//! The manifest: the one file that says what a shard durably holds. Replacing it is the commit.
//!
//! Byte by byte: docs/formats/manifest.md.

use std::io;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vicinal_common::api::ReplicaSpec;
use vicinal_common::disk::{Disk, prepare_file};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Tokenization;
use vicinal_common::ids::{LogIndex, RequestId};
use vicinal_common::payload_index::FieldType;
use vicinal_common::publish::{Feed, MapRange, Target};
use vicinal_common::tuning::Tuning;

use crate::segment::{FileInfo, Tombstones};
use crate::shard::{ApplyOutcome, LogMark};

/// Name of the manifest in the shard's directory.
pub const MANIFEST: &str = "MANIFEST";
/// Name of the file that holds what the shard was created from.
pub const SPEC: &str = "SPEC";

const MANIFEST_MAGIC: [u8; 8] = *b"VICNLMAN";
const SPEC_MAGIC: [u8; 8] = *b"VICNLSPC";
const VERSION: u32 = 8;
const HEADER_BYTES: usize = 24;

/// A remembered request: a retry of it is answered with this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The client's write.
    pub request: RequestId,
    /// The part of it.
    pub part: u32,
    /// Log index of its first application.
    pub index: u64,
    /// What became of it.
    pub outcome: ApplyOutcome,
}

/// An index file beside a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Ordinal of the vector.
    pub ordinal: u32,
    /// Number in the file name.
    pub number: u64,
    /// Length of the file.
    pub bytes: u64,
    /// CRC32 of the file.
    pub crc: u32,
}

/// A payload index file beside a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadIndexRecord {
    /// Text form of the key path.
    pub field: String,
    /// Which values are indexed.
    pub of: FieldType,
    /// How the texts of a text index are cut; `None` of other types.
    pub tokenization: Option<Tokenization>,
    /// Number in the file name.
    pub number: u64,
    /// Length of the file.
    pub bytes: u64,
    /// CRC32 of the file.
    pub crc: u32,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Number in the file name.
    pub number: u64,
    /// Rows, dead ones included.
    pub rows: u32,
    /// Length of the file.
    pub bytes: u64,
    /// CRC32 of the file.
    pub crc: u32,
    /// Its index files.
    pub indexes: Vec<IndexRecord>,
    /// Its payload index files.
    pub payload_indexes: Vec<PayloadIndexRecord>,
    /// Its dead rows as of the manifest's position: each as the distance from the one before (the first from 0).
    pub dead: Vec<u32>,
}

/// What a shard durably holds: exactly its state after the entry `mark`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Identifies shard, collection and schema: [`spec_digest`].
    pub spec_digest: u32,
    /// The last entry it holds; `None` before the first.
    pub mark: Option<LogMark>,
    /// The last membership up to `mark`.
    pub membership: Option<(LogMark, Bytes)>,
    /// Remembered requests in log order.
    pub requests: Vec<RequestRecord>,
    /// What is wanted beside the points.
    pub tuning: Tuning,
    /// The segments.
    pub segments: Vec<SegmentRecord>,
    /// Number of the next file: all files of the manifest have smaller ones.
    pub next_file: u64,
    /// Of a home shard: what it publishes, as of `mark`.
    pub feed: Feed,
    /// Of a search shard: the maps by which it may be searched, as of `mark`.
    pub maps: MapRange,
}

impl FileInfo {
    fn new(bytes: u64, crc: u32) -> FileInfo {
        FileInfo { bytes, crc }
    }
}

impl IndexRecord {
    /// What identifies the file's content.
    pub fn info(&self) -> FileInfo {
        FileInfo::new(self.bytes, self.crc)
    }
}

impl SegmentRecord {
    /// What identifies the file's content.
    pub fn info(&self) -> FileInfo {
        FileInfo::new(self.bytes, self.crc)
    }

    /// Encodes dead rows for [`SegmentRecord::dead`].
    pub fn encode_dead(dead: &Tombstones) -> Vec<u32> {
        let mut last = 0;
        dead.iter().map(|row| row - std::mem::replace(&mut last, row)).collect()
    }

    /// Decodes [`SegmentRecord::dead`]; `Corrupt` when a row is outside the segment.
    pub fn decode_dead(&self) -> Result<Tombstones> {
        let mut dead = Tombstones::default();
        let mut row = 0u32;
        for (i, distance) in self.dead.iter().enumerate() {
            row = row
                .checked_add(*distance)
                .filter(|row| *row < self.rows)
                .ok_or_else(|| corrupt(&format!("a dead row is outside its segment {}", self.number)))?;
            if i > 0 && *distance == 0 {
                return Err(corrupt(&format!("the dead rows of segment {} are not ascending", self.number)));
            }
            dead.insert(row);
        }
        Ok(dead)
    }
}

/// Why a manifest was not stored.
#[derive(Debug)]
pub enum StoreError {
    /// The old manifest is certainly still the one: storing may be tried again.
    NotStored(io::Error),
    /// It is not known which of the two a restart will find.
    Unknown(io::Error),
}

impl Manifest {
    /// The file's bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encode(MANIFEST_MAGIC, self)
    }

    /// Reads the file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let manifest: Manifest = decode(MANIFEST_MAGIC, MANIFEST, bytes)?;
        manifest.check_feed()?;
        Ok(manifest)
    }

    /// That entries up to `mark` can have led to the feed.
    fn check_feed(&self) -> Result<()> {
        let Feed { targets, published, newest } = &self.feed;
        let is_before = |a: &Target, b: &Target| a.map.version < b.map.version && a.since < b.since;
        if !targets.is_sorted_by(is_before) || targets.last().is_some_and(|last| last.map.version > *newest) {
            return Err(corrupt("feed: its maps are not ascending"));
        }
        let applied = self.mark.as_ref().map_or(LogIndex(0), |mark| mark.index);
        if *published > applied || targets.last().is_some_and(|last| last.since > applied) {
            return Err(corrupt("feed: it names positions beyond that of the manifest"));
        }
        Ok(())
    }

    /// Reads the manifest of a shard's directory. A missing one is `Corrupt`: it is made before the shard exists.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Manifest> {
        let bytes = disk.read(&dir.join(MANIFEST)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => corrupt("the file is missing"),
            _ => Error::Internal(format!("read manifest: {error}")),
        })?;
        Manifest::decode(&bytes)
    }

    /// Replaces the manifest of a shard's directory. All files it names must be durable, names included.
    pub fn store(disk: &dyn Disk, dir: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        replace(disk, dir, MANIFEST, bytes)
    }
}

/// Identifies what all replicas of a shard share: shard, collection and schema, not the epoch of their creation.
pub fn spec_digest(spec: &ReplicaSpec) -> Result<u32> {
    let bytes = postcard::to_stdvec(&(spec.shard, spec.collection, &spec.schema));
    bytes.map(|bytes| crc32fast::hash(&bytes)).map_err(|e| Error::Internal(format!("encode spec: {e}")))
}

/// Reads what a shard was created from; `None` when there is no shard in `dir`.
pub fn load_spec(disk: &dyn Disk, dir: &Path) -> Result<Option<ReplicaSpec>> {
    match disk.read(&dir.join(SPEC)) {
        Ok(bytes) => decode(SPEC_MAGIC, SPEC, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Internal(format!("read spec: {error}"))),
    }
}

/// Writes what a shard was created from. From then on the shard exists.
pub fn store_spec(disk: &dyn Disk, dir: &Path, spec: &ReplicaSpec) -> Result<()> {
    let bytes = encode(SPEC_MAGIC, spec)?;
    replace(disk, dir, SPEC, &bytes).map_err(|error| match error {
        StoreError::NotStored(e) if e.kind() == io::ErrorKind::StorageFull => {
            Error::Unavailable(format!("disk is full: cannot create the shard: {e}"))
        }
        StoreError::NotStored(e) | StoreError::Unknown(e) => Error::Internal(format!("write spec: {e}")),
    })
}

/// Like [`vicinal_common::disk::replace_file`], but tells a failure before the point of no return from one after it.
fn replace(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let path = dir.join(name);
    let temporary = prepare_file(disk, &path, bytes).map_err(StoreError::NotStored)?;
    disk.rename(&temporary, &path).map_err(StoreError::Unknown)?;
    disk.sync_dir(dir).map_err(StoreError::Unknown)
}

fn encode<T: Serialize>(magic: [u8; 8], value: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes = postcard::to_extend(value, bytes).map_err(|e| Error::Internal(format!("encode manifest: {e}")))?;
    let body = (bytes.len() - HEADER_BYTES) as u64;
    bytes[..8].copy_from_slice(&magic);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&body.to_le_bytes());
    let crc = checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// `name` is that of the file, for errors.
fn decode<T: for<'de> Deserialize<'de>>(magic: [u8; 8], name: &str, bytes: &[u8]) -> Result<T> {
    let wrong = |text: &str| Error::Corrupt(format!("{name}: {text}"));
    let length = bytes.len();
    if length < HEADER_BYTES {
        return Err(wrong(&format!("the file ends at offset {length}, within its header")));
    }
    if bytes[..8] != magic {
        return Err(wrong("header at offset 0: the file does not begin as it must"));
    }
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let body = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
    if body != (length - HEADER_BYTES) as u64 {
        return Err(wrong(&format!("the file ends at offset {length}, its header says after a body of {body} bytes")));
    }
    if checksum(bytes) != u32_at(12) {
        return Err(wrong(&format!("wrong checksum of offsets 0 to {length}")));
    }
    let version = u32_at(8);
    if version != VERSION {
        return Err(wrong(&format!("format version {version} at offset 8, this program reads version {VERSION}")));
    }
    let body = &bytes[HEADER_BYTES..];
    postcard::from_bytes(body).map_err(|e| wrong(&format!("the body at offset {HEADER_BYTES} cannot be read: {e}")))
}

/// CRC32 of everything but the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("{MANIFEST}: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vicinal_common::api::Effect;
    use vicinal_common::ids::{Epoch, MapDigest, MapVersion, NodeId, ShardId};
    use vicinal_common::point::PointId;
    use vicinal_common::publish::{Filled, MapRef};
    use vicinal_common::tuning::GraphPlacement;

    use super::*;

    fn example() -> Manifest {
        let mark = LogMark { index: LogIndex(7), encoded: Bytes::from_static(b"seven") };
        let dead: Tombstones = [0, 3, 64, 9_000].into_iter().collect();
        Manifest {
            spec_digest: 5,
            mark: Some(mark.clone()),
            membership: Some((mark, Bytes::from_static(b"members"))),
            requests: vec![
                RequestRecord {
                    request: RequestId(1),
                    part: 0,
                    index: 6,
                    outcome: Ok(Effect { missing: Some(PointId::Num(3)), ..Effect::of(3) }),
                },
                RequestRecord { request: RequestId(2), part: 1, index: 7, outcome: Err(Error::BadInput("x".into())) },
            ],
            tuning: Tuning {
                revision: 2,
                payload_indexes: [("a[].b".to_owned(), FieldType::Integer.into())].into(),
                graphs: GraphPlacement { on_disk: true, vectors: [("v".to_owned(), false)].into() },
                unindexed: ["v".to_owned()].into(),
                search_shards: [(ShardId(7), vec![NodeId(1), NodeId(2)])].into(),
                home_shards: [(ShardId(6), vec![NodeId(2)])].into(),
                epoch: Epoch(3),
                map: None,
                clustering: Some(MapRef {
                    version: MapVersion(2),
                    vector: "v".into(),
                    digest: MapDigest(9),
                    bytes: 70,
                    shards: Vec::new(),
                }),
            },
            segments: vec![SegmentRecord {
                number: 3,
                rows: 10_000,
                bytes: 100,
                crc: 1,
                indexes: vec![IndexRecord { ordinal: 0, number: 1, bytes: 10, crc: 2 }],
                payload_indexes: vec![PayloadIndexRecord {
                    field: "a[].b".into(),
                    of: FieldType::Integer,
                    tokenization: None,
                    number: 2,
                    bytes: 12,
                    crc: 4,
                }],
                dead: SegmentRecord::encode_dead(&dead),
            }],
            next_file: 4,
            feed: Feed {
                targets: vec![Target {
                    map: MapRef {
                        vector: "v".into(),
                        version: MapVersion(3),
                        digest: MapDigest(0x1234_5678),
                        bytes: 900,
                        shards: vec![ShardId(8), ShardId(9)],
                    },
                    since: LogIndex(4),
                    filled: Filled::Below(Some(PointId::Num(17))),
                }],
                published: LogIndex(6),
                newest: MapVersion(3),
            },
            maps: MapRange { oldest: MapVersion(2), newest: MapVersion(3) },
        }
    }

    #[test]
    fn survives_its_encoding() {
        let manifest = example();
        let read = Manifest::decode(&manifest.encode().unwrap()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(read.segments[0].decode_dead().unwrap().iter().collect::<Vec<_>>(), [0, 3, 64, 9_000]);
        assert!(SegmentRecord { rows: 9_000, ..read.segments[0].clone() }.decode_dead().is_err());
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = example().encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(matches!(Manifest::decode(&bytes), Err(Error::Corrupt(_))));
            bytes.truncate(at);
            prop_assert!(matches!(Manifest::decode(&bytes), Err(Error::Corrupt(_))));
        }
    }
}
