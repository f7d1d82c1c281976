//! The values of an index: taken out of JSON, sorted into a column, read from it.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;
use vicinal_common::filter::{DateTime, GeoPoint};
use vicinal_common::payload_index::FieldType;

use super::{Field, geo, text};

/// The text of a UUID in its usual form: lower case, with hyphens. Other spellings are other strings to a filter.
pub(super) fn canonical_uuid(text: &str) -> Option<[u8; 16]> {
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (*uuid.hyphenated().encode_lower(&mut buffer) == *text).then(|| *uuid.as_bytes())
}

/// A number as an integer of the same order: IEEE 754 numbers without NaN. Both zeros are one, as to a comparison.
pub(super) fn ordered(number: f64) -> i64 {
    // Adding a positive zero turns the negative one into it.
    let bits = (number + 0.0).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The inverse of [`ordered`].
pub(super) fn number(ordered: i64) -> f64 {
    f64::from_bits((ordered ^ (((ordered >> 63) as u64) >> 1) as i64) as u64)
}

/// Values with their rows, as they come.
pub(super) enum Collector {
    /// Each string once, and which row has which.
    Texts {
        numbers: HashMap<Box<str>, u32>,
        pairs: Vec<(u32, u32)>,
    },
    /// The tokens of texts.
    Tokens(text::Tokens),
    /// Integers, times, truth values, and numbers in their order.
    Integers(Vec<(i64, u32)>),
    Uuids(Vec<([u8; 16], u32)>),
    /// Cell, place, row.
    Places(Vec<(u64, [f64; 2], u32)>),
}

/// Values in order, without repetitions, as they are stored.
#[derive(Default)]
pub(super) struct Sorted {
    /// How many there are.
    pub(super) distinct: u64,
    /// Bytes of the keys section, and of the texts section.
    pub(super) keys: Vec<u8>,
    pub(super) texts: Vec<u8>,
    /// Where the rows of each value begin, and where the last ones end. Empty for places, which have one row each.
    pub(super) starts: Vec<u64>,
    pub(super) rows: Vec<u32>,
    /// Of texts: the row of each, as a row is in the index for its texts and not for their tokens.
    pub(super) texts_of: Option<Vec<u32>>,
}

impl Collector {
    pub(super) fn new(field: &Field) -> Collector {
        if let Some(tokenizer) = &field.tokenizer {
            return Collector::Tokens(text::Tokens::new(tokenizer));
        }
        match field.of {
            FieldType::Keyword | FieldType::Text => Collector::Texts { numbers: HashMap::new(), pairs: Vec::new() },
            FieldType::Integer | FieldType::Float | FieldType::Bool | FieldType::Datetime => {
                Collector::Integers(Vec::new())
            }
            FieldType::Uuid => Collector::Uuids(Vec::new()),
            FieldType::Geo => Collector::Places(Vec::new()),
        }
    }

    /// Takes a value of a row; `false` when it is not of the type.
    pub(super) fn push(&mut self, of: FieldType, value: &Value, row: u32) -> bool {
        match self {
            Collector::Texts { numbers, pairs } => {
                let Some(text) = value.as_str() else { return false };
                let next = numbers.len() as u32;
                let number = match numbers.get(text) {
                    Some(number) => *number,
                    None => *numbers.entry(text.into()).or_insert(next),
                };
                pairs.push((number, row));
            }
            Collector::Tokens(tokens) => {
                let Some(text) = value.as_str() else { return false };
                tokens.push(text, row);
            }
            Collector::Integers(pairs) => {
                let key = match of {
                    FieldType::Integer => value.as_i64(),
                    FieldType::Float => value.as_f64().map(ordered),
                    FieldType::Bool => value.as_bool().map(i64::from),
                    FieldType::Datetime => value.as_str().and_then(DateTime::parse).map(|time| time.micros()),
                    FieldType::Keyword | FieldType::Uuid | FieldType::Geo | FieldType::Text => None,
                };
                let Some(key) = key else { return false };
                pairs.push((key, row));
            }
            Collector::Uuids(pairs) => {
                let Some(key) = value.as_str().and_then(canonical_uuid) else { return false };
                pairs.push((key, row));
            }
            Collector::Places(places) => {
                let Some(place) = GeoPoint::from_stored(value) else { return false };
                places.push((geo::cell(place), [place.lon, place.lat], row));
            }
        }
        true
    }

    pub(super) fn sort(self) -> Sorted {
        match self {
            Collector::Texts { numbers, pairs } => sort_texts(numbers, pairs),
            Collector::Tokens(tokens) => tokens.sort(),
            Collector::Integers(pairs) => {
                let mut keys = Vec::new();
                let sorted = group(pairs, |key| keys.extend_from_slice(&key.to_le_bytes()));
                Sorted { keys, ..sorted }
            }
            Collector::Uuids(pairs) => {
                let mut keys = Vec::new();
                let sorted = group(pairs, |key| keys.extend_from_slice(key));
                Sorted { keys, ..sorted }
            }
            Collector::Places(mut places) => {
                places.sort_unstable_by_key(|(cell, [lon, lat], row)| (*cell, ordered(*lon), ordered(*lat), *row));
                places.dedup_by_key(|(_, [lon, lat], row)| (ordered(*lon), ordered(*lat), *row));
                let mut sorted = Sorted { distinct: places.len() as u64, ..Sorted::default() };
                for (cell, place, row) in places {
                    sorted.keys.extend_from_slice(&cell.to_le_bytes());
                    sorted.texts.extend_from_slice(bytemuck::cast_slice(&place));
                    sorted.rows.push(row);
                }
                sorted
            }
        }
    }
}

/// Puts strings, of which each has a number, in order, with the rows of each: pairs of a number and a row.
pub(super) fn sort_texts(numbers: HashMap<Box<str>, u32>, mut pairs: Vec<(u32, u32)>) -> Sorted {
    let mut texts: Vec<(Box<str>, u32)> = numbers.into_iter().collect();
    texts.sort_unstable();
    let mut ranks = vec![0; texts.len()];
    for (rank, (_, number)) in texts.iter().enumerate() {
        ranks[*number as usize] = rank as u32;
    }
    for (number, _) in &mut pairs {
        *number = ranks[*number as usize];
    }
    let mut sorted = group(pairs, |_| ());
    sorted.keys.extend_from_slice(&0u64.to_le_bytes());
    for (text, _) in &texts {
        sorted.texts.extend_from_slice(text.as_bytes());
        sorted.keys.extend_from_slice(&(sorted.texts.len() as u64).to_le_bytes());
    }
    sorted
}

/// Sorts pairs and tells each distinct key once, in order.
fn group<K: Ord + Copy>(mut pairs: Vec<(K, u32)>, mut tell: impl FnMut(&K)) -> Sorted {
    pairs.sort_unstable();
    pairs.dedup();
    let mut sorted = Sorted { rows: Vec::with_capacity(pairs.len()), ..Sorted::default() };
    let mut last = None;
    for (key, row) in pairs {
        if last != Some(key) {
            sorted.starts.push(sorted.rows.len() as u64);
            sorted.distinct += 1;
            tell(&key);
            last = Some(key);
        }
        sorted.rows.push(row);
    }
    sorted.starts.push(sorted.rows.len() as u64);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_order() {
        let sorted = [f64::MIN, -1.5, -f64::MIN_POSITIVE, 0.0, 1e-300, 1.0, 2.5, 1e300];
        for pair in sorted.windows(2) {
            assert!(ordered(pair[0]) < ordered(pair[1]), "{pair:?}");
            assert_eq!(number(ordered(pair[0])).to_bits(), pair[0].to_bits());
        }
        assert_eq!(ordered(-0.0), ordered(0.0));
    }

    #[test]
    fn only_the_usual_form_of_a_uuid_counts() {
        assert!(canonical_uuid("550e8400-e29b-41d4-a716-446655440000").is_some());
        for other in ["550E8400-e29b-41d4-a716-446655440000", "550e8400e29b41d4a716446655440000", "x", ""] {
            assert_eq!(canonical_uuid(other), None, "{other}");
        }
    }
}
