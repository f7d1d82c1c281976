//! The index of one field of a run, read in place from the bytes of its file, mapped or in memory.

use std::ops::Range;

use bytemuck::Pod;
use roaring::RoaringBitmap;
use vicinal_common::disk::Mapping;
use vicinal_common::error::Result;

use super::Field;
use super::format::{Layout, Section, State, corrupt, decode, decode_states, tokenization_crc};
use super::keys::{number, ordered};
use super::{geo, rows};
use vicinal_common::payload_index::FieldType;

/// The index of one field.
pub struct FieldIndex {
    field: Field,
    bytes: Mapping,
    layout: Layout,
    states: [RoaringBitmap; State::COUNT],
}

/// Bytes at an address that numbers can be read from.
struct Aligned {
    words: Vec<u64>,
    bytes: usize,
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
}

impl FieldIndex {
    /// Reads an index that was just built and lives in memory only.
    pub fn in_memory(field: &Field, rows: u32, built: &[u8]) -> Result<FieldIndex> {
        let mut words = vec![0u64; built.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..built.len()].copy_from_slice(built);
        FieldIndex::open_built(field, rows, Mapping::new(Aligned { words, bytes: built.len() }))
    }

    /// [`FieldIndex::open`] of an index that this program has built.
    pub fn open_built(field: &Field, rows: u32, bytes: Mapping) -> Result<FieldIndex> {
        let index = FieldIndex::open(field, rows, bytes)?;
        index.ok_or_else(|| corrupt("the texts of the index are cut in another way"))
    }

    /// Verifies and opens the index of a field of a run with so many rows. `None` when all is right but that its texts
    /// are cut in another way than by this program. `Corrupt` says what is wrong.
    pub fn open(field: &Field, rows: u32, bytes: Mapping) -> Result<Option<FieldIndex>> {
        let layout = decode(&bytes)?;
        if layout.of != field.of || bytes[layout.section(Section::Path)] != *field.path.to_string().as_bytes() {
            return Err(corrupt("the file is the index of another field"));
        }
        if field.of != FieldType::Text && layout.tokenization_crc != 0 {
            return Err(corrupt("the file has a tokenization and no texts"));
        }
        if layout.rows != rows {
            return Err(corrupt("the file has another number of rows than its segment"));
        }
        if bytes.as_ptr().align_offset(8) != 0 {
            return Err(corrupt("the file is mapped at an unaligned address"));
        }
        let states = decode_states(&bytes[layout.section(Section::States)], rows)?;
        let index = FieldIndex { field: field.clone(), bytes, layout, states };
        index.check_content()?;
        let is_cut_alike = index.layout.tokenization_crc == tokenization_crc(field);
        Ok(is_cut_alike.then_some(index))
    }

    /// What a checksum cannot tell: that lists have the lengths and the order that reading relies on.
    fn check_content(&self) -> Result<()> {
        let keys = self.layout.section(Section::Keys).len();
        let texts = self.layout.section(Section::Texts).len();
        let distinct = self.layout.distinct;
        let is_complete = match self.field.of {
            FieldType::Keyword | FieldType::Text => {
                Some(keys) == distinct.checked_add(1).and_then(|n| n.checked_mul(8))
            }
            FieldType::Uuid => Some(keys) == distinct.checked_mul(16),
            FieldType::Geo => Some(keys) == distinct.checked_mul(8) && Some(texts) == distinct.checked_mul(16),
            FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Datetime => {
                Some(keys) == distinct.checked_mul(8)
            }
        };
        let starts = self.layout.section(Section::Starts).len();
        let lists = self.layout.section(Section::Rows).len();
        if !is_complete || !starts.is_multiple_of(8) || !lists.is_multiple_of(4) {
            return Err(corrupt("sections do not have the lengths that the header asks for"));
        }
        let sorted = match self.field.of {
            FieldType::Keyword | FieldType::Text => {
                let ends = self.numbers();
                let fits = ends.first() == Some(&0) && ends.last() == Some(&(texts as u64)) && ends.is_sorted();
                fits && (1..distinct).all(|key| self.text(key - 1) < self.text(key))
            }
            FieldType::Uuid => self.uuids().is_sorted_by(|a, b| a < b),
            FieldType::Geo => self.numbers().is_sorted(),
            FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Datetime => {
                self.integers().is_sorted_by(|a, b| a < b)
            }
        };
        if !sorted {
            return Err(corrupt("values are not sorted"));
        }
        let rows = self.rows();
        if rows.iter().any(|row| *row >= self.layout.rows) {
            return Err(corrupt("a value has a row outside the segment"));
        }
        if self.field.of == FieldType::Geo {
            return if rows.len() == distinct { Ok(()) } else { Err(corrupt("a place has no row")) };
        }
        let starts = self.starts();
        let ends_right = starts.first() == Some(&0) && starts.last() == Some(&(rows.len() as u64));
        if starts.len() != distinct + 1 || !ends_right || !starts.is_sorted_by(|a, b| a < b) {
            return Err(corrupt("lists of rows do not fit the values"));
        }
        let ascend = |key: usize| rows[starts[key] as usize..starts[key + 1] as usize].is_sorted_by(|a, b| a < b);
        match (0..distinct).all(ascend) {
            true => Ok(()),
            false => Err(corrupt("rows of a value do not ascend")),
        }
    }

    /// The field.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// Rows that have a value in the index: of a text index a text, be it without tokens.
    pub fn keyed(&self) -> &RoaringBitmap {
        self.state(State::Keyed)
    }

    pub(super) fn state(&self, state: State) -> &RoaringBitmap {
        &self.states[state as usize]
    }

    pub(super) fn row_count(&self) -> u32 {
        self.layout.rows
    }

    fn list<T: Pod>(&self, section: Section) -> &[T] {
        // Cannot fail: lengths were checked when the file was opened, sections and mapping are aligned.
        bytemuck::cast_slice(&self.bytes[self.layout.section(section)])
    }

    fn numbers(&self) -> &[u64] {
        self.list(Section::Keys)
    }

    fn integers(&self) -> &[i64] {
        self.list(Section::Keys)
    }

    fn uuids(&self) -> &[[u8; 16]] {
        self.list(Section::Keys)
    }

    fn starts(&self) -> &[u64] {
        self.list(Section::Starts)
    }

    fn rows(&self) -> &[u32] {
        self.list(Section::Rows)
    }

    fn text(&self, key: usize) -> &[u8] {
        let ends = self.numbers();
        let texts = &self.bytes[self.layout.section(Section::Texts)];
        // An offset that a bad file has beyond the end counts as the end; opening refuses it.
        let at = |end: u64| usize::try_from(end).unwrap_or(texts.len()).min(texts.len());
        &texts[at(ends[key])..at(ends[key + 1]).max(at(ends[key]))]
    }

    /// The first of the texts, in order, for which `before` does not hold.
    fn first_text(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.layout.distinct);
        while low < high {
            let middle = low + (high - low) / 2;
            match before(self.text(middle)) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// The rows of some of the values, which follow one another.
    fn rows_of(&self, keys: Range<usize>) -> RoaringBitmap {
        if keys.start >= keys.end {
            return RoaringBitmap::new();
        }
        let starts = self.starts();
        let listed = &self.rows()[starts[keys.start] as usize..starts[keys.end] as usize];
        match keys.len() {
            1 => rows::of_sorted(listed.iter().copied()),
            _ => rows::of_any(listed, self.layout.rows),
        }
    }

    /// Rows with a string, or a token.
    pub(super) fn with_text(&self, text: &str) -> RoaringBitmap {
        let key = self.first_text(|known| known < text.as_bytes());
        let is_it = key < self.layout.distinct && self.text(key) == text.as_bytes();
        self.rows_of(key..key + usize::from(is_it))
    }

    /// Rows with a string, or a token, that begins so.
    pub(super) fn with_prefix(&self, prefix: &str) -> RoaringBitmap {
        let prefix = prefix.as_bytes();
        let from = self.first_text(|known| known < prefix);
        let to = self.first_text(|known| known < prefix || known.starts_with(prefix));
        self.rows_of(from..to)
    }

    /// Rows with a UUID.
    pub(super) fn with_uuid(&self, uuid: [u8; 16]) -> RoaringBitmap {
        self.uuids().binary_search(&uuid).map_or_else(|_| RoaringBitmap::new(), |key| self.rows_of(key..key + 1))
    }

    /// Rows with an integer, a time or a truth value.
    pub(super) fn with_integer(&self, integer: i64) -> RoaringBitmap {
        self.integers().binary_search(&integer).map_or_else(|_| RoaringBitmap::new(), |key| self.rows_of(key..key + 1))
    }

    /// Rows with a number.
    pub(super) fn with_number(&self, number: f64) -> RoaringBitmap {
        self.with_integer(ordered(number))
    }

    /// Rows with an integer or time that is neither below nor above; both must agree with the order.
    pub(super) fn between(&self, below: impl Fn(i64) -> bool, above: impl Fn(i64) -> bool) -> RoaringBitmap {
        let keys = self.integers();
        let from = keys.partition_point(|key| below(*key));
        let to = keys.partition_point(|key| !above(*key));
        self.rows_of(from..to)
    }

    /// [`FieldIndex::between`] for numbers.
    pub(super) fn numbers_between(&self, below: impl Fn(f64) -> bool, above: impl Fn(f64) -> bool) -> RoaringBitmap {
        self.between(|key| below(number(key)), |key| above(number(key)))
    }

    /// Rows with a place inside an area.
    pub(super) fn inside(&self, area: &dyn geo::Area) -> RoaringBitmap {
        geo::rows_inside(
            area,
            &geo::Places { cells: self.numbers(), places: self.list(Section::Texts), rows: self.rows() },
            self.layout.rows,
        )
    }
}
