//! The bytes of a log file: file header, batches, records. Written down in docs/formats/log.md. Knows no files and no
//! groups' state.

use bytes::Bytes;
use vicinal_common::ids::ShardId;

/// Version of the format, in every file header.
pub(super) const VERSION: u32 = 1;
const FILE_MAGIC: [u8; 8] = *b"VCNLLOG\xff";
/// Holds bytes that no UTF-8 text contains, so that a payload's text never looks like the start of a batch.
const BATCH_MAGIC: [u8; 8] = [0xff, b'v', b'c', 0xfe, b'l', b'b', 0xc0, 0xff];

/// Length of a file header.
pub(super) const FILE_HEADER_BYTES: usize = 32;
/// Length of a batch header.
pub(super) const BATCH_HEADER_BYTES: usize = 28;
/// Length of a record header.
pub(super) const RECORD_HEADER_BYTES: usize = 28;
/// Largest payload of a batch. A longer length is damage.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// What a record does to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Entry `index` with its bytes.
    Entry = 1,
    /// State under key `index`.
    State = 2,
    /// Entries from `index` on are dropped.
    Truncate = 3,
    /// Entries up to and including `index` are dropped; the bytes are the caller's marker.
    Purge = 4,
    /// The group is forgotten.
    Remove = 5,
    /// Only in a checkpoint: the group's entries are `index` up to the u64 in the bytes.
    Bounds = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Entry, Kind::State, Kind::Truncate, Kind::Purge, Kind::Remove, Kind::Bounds]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One change of one group. `index` is what [`Kind`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) group: ShardId,
    pub(super) index: u64,
    pub(super) bytes: Bytes,
}

/// Whether a batch repeats what older files say, or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum BatchKind {
    /// First batch of a file: the state of all groups without their entries.
    Checkpoint = 1,
    /// One group commit.
    Commit = 2,
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// Of the format; what follows can be read only if it is [`VERSION`].
    pub(super) version: u32,
    /// Also in the file's name.
    pub(super) sequence: u64,
    /// Number of the checkpoint batch that follows.
    pub(super) first_batch: u64,
}

/// A batch whose checksum is right.
pub(super) struct Batch<'a> {
    pub(super) number: u64,
    pub(super) kind: BatchKind,
    pub(super) payload: &'a [u8],
}

/// Name of the file with this sequence number.
pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:016}.log")
}

/// Sequence number of a file with this name; none if it is not a log file.
pub(super) fn file_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice has 4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has 8 bytes"))
}

/// Reads the eight bytes of a [`Kind::Bounds`] record.
pub(super) fn read_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn crc(parts: [&[u8]; 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first_batch.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header; the error says in plain words what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<FileHeader, String> {
        if bytes.len() < FILE_HEADER_BYTES {
            return Err("the file is shorter than its header".into());
        }
        if bytes[..8] != FILE_MAGIC {
            return Err("the file does not begin as a log file does".into());
        }
        if u32_at(bytes, 28) != crc32fast::hash(&bytes[..28]) {
            return Err("the checksum of the file header is wrong".into());
        }
        Ok(FileHeader { version: u32_at(bytes, 8), sequence: u64_at(bytes, 12), first_batch: u64_at(bytes, 20) })
    }
}

/// Begins a batch in an empty buffer: leaves room for the header.
pub(super) fn begin_batch(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(BATCH_HEADER_BYTES, 0);
}

/// Adds a record; returns where it starts in the buffer. Its bytes are shorter than [`PAYLOAD_BYTES_MAX`].
pub(super) fn push_record(buffer: &mut Vec<u8>, record: &Record) -> usize {
    let start = buffer.len();
    let len = u32::try_from(record.bytes.len()).expect("records are bounded by PAYLOAD_BYTES_MAX");
    buffer.push(record.kind as u8);
    buffer.extend_from_slice(&[0; 3]);
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.extend_from_slice(&record.group.0.to_le_bytes());
    buffer.extend_from_slice(&record.index.to_le_bytes());
    let sum = crc([&buffer[start..start + 24], &record.bytes]);
    buffer.extend_from_slice(&sum.to_le_bytes());
    buffer.extend_from_slice(&record.bytes);
    start
}

/// Completes the header of the batch in the buffer.
pub(super) fn end_batch(buffer: &mut [u8], number: u64, kind: BatchKind) {
    let len = u32::try_from(buffer.len() - BATCH_HEADER_BYTES).expect("batches are bounded by PAYLOAD_BYTES_MAX");
    buffer[..8].copy_from_slice(&BATCH_MAGIC);
    buffer[8..16].copy_from_slice(&number.to_le_bytes());
    buffer[16..20].copy_from_slice(&(kind as u32).to_le_bytes());
    buffer[20..24].copy_from_slice(&len.to_le_bytes());
    let sum = crc([&buffer[..24], &buffer[BATCH_HEADER_BYTES..]]);
    buffer[24..28].copy_from_slice(&sum.to_le_bytes());
}

/// Reads the batch that starts with these bytes; the error says in plain words what is wrong.
pub(super) fn read_batch(bytes: &[u8]) -> Result<Batch<'_>, &'static str> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return Err("the batch header is cut short");
    }
    if bytes[..8] != BATCH_MAGIC {
        return Err("there is no batch header");
    }
    let len = u32_at(bytes, 20) as usize;
    if len > PAYLOAD_BYTES_MAX || len > bytes.len() - BATCH_HEADER_BYTES {
        return Err("the batch is longer than the file");
    }
    let payload = &bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + len];
    if u32_at(bytes, 24) != crc([&bytes[..24], payload]) {
        return Err("the checksum of the batch is wrong");
    }
    let kind = match u32_at(bytes, 16) {
        1 => BatchKind::Checkpoint,
        2 => BatchKind::Commit,
        _ => return Err("the batch has an unknown kind"),
    };
    Ok(Batch { number: u64_at(bytes, 8), kind, payload })
}

/// Position in `bytes` of the first whole batch that satisfies `wanted`, at any alignment.
pub(super) fn find_batch(bytes: &[u8], wanted: impl Fn(&Batch<'_>) -> bool) -> Option<usize> {
    let mut at = 0;
    while let Some(step) = bytes[at..].iter().position(|byte| *byte == BATCH_MAGIC[0]) {
        at += step;
        if read_batch(&bytes[at..]).is_ok_and(|batch| wanted(&batch)) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Reads the record that starts with these bytes, and tells its whole length. Its own checksum is verified too: a
/// record is also read alone, long after its batch was.
pub(super) fn read_record(bytes: &[u8]) -> Result<(Record, usize), String> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err("a record header is cut short".into());
    }
    let len = u32_at(bytes, 4) as usize;
    if len > bytes.len() - RECORD_HEADER_BYTES {
        return Err("a record is longer than its batch".into());
    }
    let data = &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len];
    if u32_at(bytes, 24) != crc([&bytes[..24], data]) {
        return Err("the checksum of a record is wrong".into());
    }
    let kind = Kind::from_byte(bytes[0]).ok_or_else(|| format!("a record has the unknown kind {}", bytes[0]))?;
    let record = Record {
        kind,
        group: ShardId(u64_at(bytes, 8)),
        index: u64_at(bytes, 16),
        bytes: Bytes::copy_from_slice(data),
    };
    Ok((record, RECORD_HEADER_BYTES + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, index: u64, bytes: &'static [u8]) -> Record {
        Record { kind, group: ShardId(7), index, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn what_is_written_is_read_back_and_any_flip_is_seen() {
        let records = [record(Kind::Entry, 3, b"entry"), record(Kind::Purge, 2, b""), record(Kind::State, 1, b"vote")];
        let mut buffer = Vec::new();
        begin_batch(&mut buffer);
        let starts: Vec<usize> = records.iter().map(|record| push_record(&mut buffer, record)).collect();
        end_batch(&mut buffer, 42, BatchKind::Commit);
        let batch = read_batch(&buffer).ok().unwrap();
        assert_eq!((batch.number, batch.kind), (42, BatchKind::Commit));
        for (record, start) in records.iter().zip(starts) {
            assert_eq!(&read_record(&buffer[start..]).unwrap().0, record);
        }
        for at in 0..buffer.len() * 8 {
            let mut damaged = buffer.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(read_batch(&damaged).is_err());
        }
        assert!((0..buffer.len()).all(|len| read_batch(&buffer[..len]).is_err()));
        let shifted = [&[0xff, 0, 1], &buffer[..]].concat();
        assert_eq!(find_batch(&shifted, |_| true), Some(3));
        assert_eq!(find_batch(&shifted, |batch| batch.number > 42), None);
    }

    #[test]
    fn file_headers_and_names() {
        let header = FileHeader { version: VERSION, sequence: 9, first_batch: 1 << 40 };
        let bytes = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 4;
            assert!(FileHeader::decode(&damaged).is_err());
        }
        assert_eq!(file_sequence(&file_name(12)), Some(12));
        assert_eq!(file_name(12), "0000000000000012.log");
        for name in ["12.log", "000000000000001x.log", "0000000000000012.tmp", "+000000000000012.log"] {
            assert_eq!(file_sequence(name), None);
        }
    }
}
