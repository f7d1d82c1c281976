//! The payload index file, byte by byte: see docs/formats/payload-index.md.

use std::ops::Range;

use roaring::RoaringBitmap;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{EVALUATOR_VERSION, Tokenization};
use vicinal_common::payload_index::FieldType;

use super::Field;
use super::keys::Sorted;

const MAGIC: [u8; 8] = *b"VICNLPIX";
const VERSION: u32 = 3;
const ALIGN: usize = 64;
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 32;
/// Where the sections begin.
const BODY: usize = HEADER_BYTES + Section::ALL.len() * ENTRY_BYTES;

// Lists are read in place, as the little-endian numbers they are.
#[cfg(target_endian = "big")]
compile_error!("payload index files are mapped as little-endian arrays");

/// What is known of a row's values at the path, a bitmap each. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum State {
    /// The path leads to a value.
    Found = 0,
    /// One is neither null nor `[]`.
    Filled = 1,
    /// One is null or `[]`.
    Empty = 2,
    /// One is null or an array that holds null.
    WithNull = 3,
    /// One is neither.
    WithoutNull = 4,
    /// One is of another type than the index and not null, arrays standing for their elements.
    Others = 5,
    /// One is in the index.
    Keyed = 6,
    /// Two different ones are in the index; of a text index, two texts.
    Many = 7,
}

impl State {
    pub(super) const COUNT: usize = 8;
}

/// A part of the file. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Section {
    Path = 1,
    States = 2,
    Keys = 3,
    Texts = 4,
    Starts = 5,
    Rows = 6,
}

impl Section {
    pub(super) const ALL: [Section; 6] =
        [Section::Path, Section::States, Section::Keys, Section::Texts, Section::Starts, Section::Rows];
}

/// What a file says of itself, and where its sections are.
pub(super) struct Layout {
    pub(super) of: FieldType,
    pub(super) rows: u32,
    pub(super) distinct: usize,
    /// See [`tokenization_crc`].
    pub(super) tokenization_crc: u32,
    sections: [Range<usize>; Section::ALL.len()],
}

impl Layout {
    pub(super) fn section(&self, section: Section) -> Range<usize> {
        self.sections[section as usize - 1].clone()
    }
}

pub(super) fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("payload index: {what}"))
}

fn code(of: FieldType) -> u32 {
    // The place in the list is stored: types are only ever added at its end.
    FieldType::ALL.iter().position(|known| *known == of).map_or(0, |place| place as u32 + 1)
}

/// Checksum of how this program cuts the texts of a field, 0 when its index is of another type: a file is of no use where
/// texts are cut in another way.
pub(super) fn tokenization_crc(field: &Field) -> u32 {
    field.tokenization().map_or(0, |params| cutting_crc(EVALUATOR_VERSION, char::UNICODE_VERSION, params))
}

/// Tokens belong to the evaluator, to the tables that letters are told by, and to the parameters.
fn cutting_crc(evaluator: u32, unicode: (u8, u8, u8), params: &Tokenization) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&evaluator.to_le_bytes());
    crc.update(&[unicode.0, unicode.1, unicode.2]);
    crc.update(params.to_json().to_string().as_bytes());
    crc.finalize()
}

/// The bytes of a file.
pub(super) fn encode(field: &Field, rows: u32, states: &[RoaringBitmap; State::COUNT], sorted: &Sorted) -> Vec<u8> {
    let mut state_bytes = Vec::new();
    for state in states {
        state_bytes.extend_from_slice(&(state.serialized_size() as u64).to_le_bytes());
        state.serialize_into(&mut state_bytes).expect("writing to memory does not fail");
    }
    let path = field.path.to_string();
    let parts: [&[u8]; Section::ALL.len()] = [
        path.as_bytes(),
        &state_bytes,
        &sorted.keys,
        &sorted.texts,
        bytemuck::cast_slice(&sorted.starts),
        bytemuck::cast_slice(&sorted.rows),
    ];
    let total = parts.iter().map(|part| part.len().next_multiple_of(ALIGN)).sum::<usize>();
    let mut bytes = vec![0; BODY];
    bytes.reserve_exact(total);
    for (i, (section, part)) in Section::ALL.iter().zip(parts).enumerate() {
        let offset = bytes.len();
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        let crc = crc32fast::hash(&bytes[offset..]);
        let entry = &mut bytes[HEADER_BYTES + i * ENTRY_BYTES..][..ENTRY_BYTES];
        entry[..4].copy_from_slice(&(*section as u32).to_le_bytes());
        entry[4..8].copy_from_slice(&crc.to_le_bytes());
        entry[8..16].copy_from_slice(&(offset as u64).to_le_bytes());
        entry[16..24].copy_from_slice(&(part.len() as u64).to_le_bytes());
    }
    let table = crc32fast::hash(&bytes[HEADER_BYTES..BODY]);
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&code(field.of).to_le_bytes());
    bytes[16..24].copy_from_slice(&u64::from(rows).to_le_bytes());
    bytes[24..32].copy_from_slice(&sorted.distinct.to_le_bytes());
    bytes[32..36].copy_from_slice(&tokenization_crc(field).to_le_bytes());
    bytes[56..60].copy_from_slice(&table.to_le_bytes());
    let header = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&header.to_le_bytes());
    bytes
}

/// Verifies header, table and the checksum of every section.
pub(super) fn decode(bytes: &[u8]) -> Result<Layout> {
    if bytes.len() < BODY || bytes[..8] != MAGIC {
        return Err(corrupt("this is no payload index file, or its beginning is missing"));
    }
    if crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
        return Err(corrupt("wrong checksum of the header"));
    }
    let version = u32_at(bytes, 8);
    if version != VERSION {
        return Err(corrupt(&format!("format version {version}, this program reads version {VERSION}")));
    }
    if crc32fast::hash(&bytes[HEADER_BYTES..BODY]) != u32_at(bytes, 56) {
        return Err(corrupt("wrong checksum of the table of sections"));
    }
    let of = FieldType::ALL.into_iter().find(|of| code(*of) == u32_at(bytes, 12));
    let of = of.ok_or_else(|| corrupt("unknown type of index"))?;
    let rows = u32::try_from(u64_at(bytes, 16)).map_err(|_| corrupt("too many rows"))?;
    let distinct = usize::try_from(u64_at(bytes, 24)).map_err(|_| corrupt("too many values"))?;
    let mut sections: [Range<usize>; Section::ALL.len()] = Default::default();
    let mut position = BODY;
    for (i, section) in Section::ALL.into_iter().enumerate() {
        let entry = &bytes[HEADER_BYTES + i * ENTRY_BYTES..][..ENTRY_BYTES];
        let length = usize::try_from(u64_at(entry, 16)).ok();
        let padded = length.and_then(|length| length.checked_next_multiple_of(ALIGN));
        let end = padded.and_then(|padded| position.checked_add(padded)).filter(|end| *end <= bytes.len());
        let (Some(length), Some(end)) = (length, end) else {
            return Err(corrupt(&format!("section {section:?} is cut off")));
        };
        if u32_at(entry, 0) != section as u32 || u64_at(entry, 8) != position as u64 {
            return Err(corrupt(&format!("section {section:?} is out of place")));
        }
        if crc32fast::hash(&bytes[position..end]) != u32_at(entry, 4) {
            return Err(corrupt(&format!("wrong checksum of section {section:?}")));
        }
        sections[i] = position..position + length;
        position = end;
    }
    if position != bytes.len() {
        return Err(corrupt("there is something after the last section"));
    }
    Ok(Layout { of, rows, distinct, tokenization_crc: u32_at(bytes, 32), sections })
}

/// The bitmaps of the states section.
pub(super) fn decode_states(mut bytes: &[u8], rows: u32) -> Result<[RoaringBitmap; State::COUNT]> {
    let mut states: [RoaringBitmap; State::COUNT] = Default::default();
    for state in &mut states {
        let Some((length, rest)) = bytes.split_at_checked(8) else { return Err(corrupt("a bitmap is missing")) };
        let length = usize::try_from(u64_at(length, 0)).ok().and_then(|length| rest.split_at_checked(length));
        let Some((bitmap, rest)) = length else { return Err(corrupt("a bitmap is cut off")) };
        let read = RoaringBitmap::deserialize_from(bitmap);
        *state = read.map_err(|error| corrupt(&format!("a bitmap cannot be read: {error}")))?;
        if state.max().is_some_and(|row| row >= rows) {
            return Err(corrupt("a bitmap has a row outside the segment"));
        }
        bytes = rest;
    }
    Ok(states)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes the file of a text index one that another evaluator wrote.
    pub(crate) fn cut_in_another_way(bytes: &mut [u8]) {
        let other = !u32_at(bytes, 32);
        bytes[32..36].copy_from_slice(&other.to_le_bytes());
        let header = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&header.to_le_bytes());
    }

    #[test]
    fn whatever_changes_tokens_changes_the_checksum() {
        let (params, cased) = (Tokenization::default(), Tokenization { lowercase: false, ..Tokenization::default() });
        let crc = cutting_crc(3, (16, 0, 0), &params);
        for other in [
            cutting_crc(4, (16, 0, 0), &params),
            cutting_crc(3, (17, 0, 0), &params),
            cutting_crc(3, (16, 1, 0), &params),
            cutting_crc(3, (16, 0, 1), &params),
            cutting_crc(3, (16, 0, 0), &cased),
        ] {
            assert_ne!(other, crc);
        }
        let field = |of| Field::new(vicinal_common::filter::KeyPath::parse("a").unwrap(), of, None);
        let own = cutting_crc(EVALUATOR_VERSION, char::UNICODE_VERSION, &params);
        assert_eq!(tokenization_crc(&field(FieldType::Text)), own);
        assert_eq!(tokenization_crc(&field(FieldType::Keyword)), 0);
    }
}
