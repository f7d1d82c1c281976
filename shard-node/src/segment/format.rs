//! The segment file, byte by byte: see docs/formats/segment.md.

use vicinal_common::error::{Error, Result};

/// First bytes of a segment file, and of its footer.
pub(super) const MAGIC: [u8; 8] = *b"VICNLSEG";
/// Version of the format.
pub(super) const VERSION: u32 = 1;
/// Sections begin at multiples of this and are padded with zeros to a multiple of it.
pub(super) const ALIGN: u64 = 64;
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const ENTRY_BYTES: usize = 32;
pub(super) const FOOTER_BYTES: usize = 32;

// Sections are read in place, as the little-endian numbers they are.
#[cfg(target_endian = "big")]
compile_error!("segment files are mapped as little-endian arrays");

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Numeric ids: u64, ascending.
    Nums = 1,
    /// UUIDs: 16 bytes, big-endian, ascending.
    Uuids = 2,
    /// Log index per row: u64.
    Versions = 3,
    /// Rows that have the vector: bitmap, u64 words.
    Present = 4,
    /// Vectors: f32, row-major.
    Vectors = 5,
    /// Where each payload begins in the next section: u64, one more than rows.
    PayloadOffsets = 6,
    /// Payload texts, one after the other.
    Payloads = 7,
    /// Where the values of each row begin, for vectors that differ in length: u64, one more than rows.
    Starts = 8,
    /// Dimensions of the values of sparse vectors: u32, ascending within a row.
    Indices = 9,
    /// Dimensions that have postings: u32, ascending.
    PostingDims = 10,
    /// Where the postings of each dimension begin: u64, one more than dimensions.
    PostingStarts = 11,
    /// Rows of the postings: u32, ascending within a dimension.
    PostingRows = 12,
    /// Values of the postings: f32.
    PostingValues = 13,
    /// Largest value of each dimension: f32.
    PostingMaxima = 14,
    /// Smallest value of each dimension: f32.
    PostingMinima = 15,
}

impl Kind {
    const ALL: [Kind; 15] = [
        Kind::Nums,
        Kind::Uuids,
        Kind::Versions,
        Kind::Present,
        Kind::Vectors,
        Kind::PayloadOffsets,
        Kind::Payloads,
        Kind::Starts,
        Kind::Indices,
        Kind::PostingDims,
        Kind::PostingStarts,
        Kind::PostingRows,
        Kind::PostingValues,
        Kind::PostingMaxima,
        Kind::PostingMinima,
    ];
}

/// Start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Named vectors of the layout.
    pub(super) vectors: u32,
    pub(super) rows: u64,
    pub(super) nums: u64,
}

/// A section in the table of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// Ordinal of the vector for sections of vectors, else 0.
    pub(super) ordinal: u32,
    pub(super) offset: u64,
    /// Length without padding.
    pub(super) bytes: u64,
    /// CRC32 of the section with its padding.
    pub(super) crc: u32,
    /// Values per vector for [`Kind::Vectors`], else 0.
    pub(super) dim: u32,
}

/// End of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) toc_offset: u64,
    pub(super) entries: u32,
    pub(super) toc_crc: u32,
}

/// `bytes` with padding.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

pub(super) fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("segment: {what}"))
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.vectors.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.rows.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.nums.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Header> {
        if bytes.len() != HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(corrupt("header at offset 0: this is no segment file"));
        }
        if crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(corrupt("header at offset 0: wrong checksum"));
        }
        check_version(u32_at(bytes, 8), "header at offset 0")?;
        Ok(Header { vectors: u32_at(bytes, 12), rows: u64_at(bytes, 16), nums: u64_at(bytes, 24) })
    }
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.ordinal.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.crc.to_le_bytes());
        bytes[28..].copy_from_slice(&self.dim.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Entry> {
        let kind = u32_at(bytes, 0);
        let kind = Kind::ALL.into_iter().find(|known| *known as u32 == kind);
        Ok(Entry {
            kind: kind.ok_or_else(|| corrupt("table of contents: unknown kind of section"))?,
            ordinal: u32_at(bytes, 4),
            offset: u64_at(bytes, 8),
            bytes: u64_at(bytes, 16),
            crc: u32_at(bytes, 24),
            dim: u32_at(bytes, 28),
        })
    }
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(&self.toc_offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.entries.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.toc_crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&MAGIC);
        bytes[24..28].copy_from_slice(&VERSION.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `offset` is where the footer begins, for errors.
    pub(super) fn decode(bytes: &[u8], offset: usize) -> Result<Footer> {
        let wrong = |what: &str| corrupt(&format!("footer at offset {offset}: {what}"));
        if bytes.len() != FOOTER_BYTES || bytes[16..24] != MAGIC {
            return Err(wrong("the end of the file is missing"));
        }
        if crc32fast::hash(&bytes[..28]) != u32_at(bytes, 28) {
            return Err(wrong("wrong checksum"));
        }
        check_version(u32_at(bytes, 24), &format!("footer at offset {offset}"))?;
        Ok(Footer { toc_offset: u64_at(bytes, 0), entries: u32_at(bytes, 8), toc_crc: u32_at(bytes, 12) })
    }
}

fn check_version(version: u32, place: &str) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(corrupt(&format!("{place}: format version {version}, this program reads version {VERSION}")))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
