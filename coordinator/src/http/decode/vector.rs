//! Vectors in JSON: a list of numbers, or lists by name. Read in one pass, without a tree of values in between.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vicinal_common::limits::{DIM_MAX, VECTOR_NAMES_MAX};

use crate::write::VectorInput;

/// A dense vector. Numbers beyond the 32-bit range become infinite and are refused when the vector is checked.
pub(super) struct Dense(pub(super) Vec<f32>);

impl<'de> Deserialize<'de> for Dense {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dense, D::Error> {
        deserializer.deserialize_any(DenseVisitor)
    }
}

struct DenseVisitor;

impl<'de> Visitor<'de> for DenseVisitor {
    type Value = Dense;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector, a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Dense, A::Error> {
        read_numbers(seq).map(Dense)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Dense, E> {
        Err(E::custom("expected a vector, a list of numbers; turning text or images into vectors is not supported"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dense, A::Error> {
        Err(refuse_object(map.next_key::<String>()?.as_deref()))
    }
}

/// What an object in the place of a vector is, by its first key.
pub(super) fn refuse_object<E: de::Error>(key: Option<&str>) -> E {
    match key {
        Some("indices" | "values") => E::custom("sparse vectors are not supported yet"),
        Some("text" | "image" | "object" | "model" | "options" | "bm25") => {
            E::custom("inference (turning text or images into vectors) is not supported, send the vector itself")
        }
        Some(_) | None => E::custom("expected a vector, a list of numbers"),
    }
}

fn read_numbers<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Vec<f32>, A::Error> {
    let mut numbers = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(DIM_MAX));
    while let Some(Number(number)) = seq.next_element()? {
        if numbers.len() == DIM_MAX {
            return Err(de::Error::custom(format!("a vector has more than {DIM_MAX} dimensions")));
        }
        numbers.push(number);
    }
    // The length is not known ahead: what was set aside in vain would stay with the point until it is written.
    numbers.shrink_to_fit();
    Ok(numbers)
}

/// One component.
struct Number(f32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
        Ok(Number(value as f32))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value as f32))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number(value as f32))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Number, A::Error> {
        Err(de::Error::custom("multivectors (lists of vectors) are not supported yet"))
    }
}

/// The `vector` of a point.
pub(super) struct PointVector(pub(super) VectorInput);

impl<'de> Deserialize<'de> for PointVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PointVector, D::Error> {
        deserializer.deserialize_any(PointVectorVisitor)
    }
}

struct PointVectorVisitor;

impl<'de> Visitor<'de> for PointVectorVisitor {
    type Value = PointVector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers, or lists of numbers by vector name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<PointVector, A::Error> {
        read_numbers(seq).map(|numbers| PointVector(VectorInput::Single(numbers)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PointVector, A::Error> {
        let mut names: HashSet<String> = HashSet::new();
        let mut vectors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if vectors.len() == VECTOR_NAMES_MAX {
                return Err(de::Error::custom(format!("a point has more than {VECTOR_NAMES_MAX} named vectors")));
            }
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format!("vector `{name}` is given twice")));
            }
            let Dense(vector) = map.next_value()?;
            vectors.push((name, vector));
        }
        Ok(PointVector(VectorInput::Named(vectors)))
    }
}

/// The `vectors` of a column batch: one list per point, or lists by name.
pub(super) enum BatchVectors {
    /// Unnamed vectors, one per point.
    Single(Vec<Vec<f32>>),
    /// Named vectors, each list one per point.
    Named(Vec<(String, Vec<Vec<f32>>)>),
}

impl<'de> Deserialize<'de> for BatchVectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BatchVectors, D::Error> {
        deserializer.deserialize_any(BatchVectorsVisitor)
    }
}

struct BatchVectorsVisitor;

impl<'de> Visitor<'de> for BatchVectorsVisitor {
    type Value = BatchVectors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of vectors, or lists of vectors by name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BatchVectors, A::Error> {
        let mut vectors = Vec::new();
        while let Some(Dense(vector)) = seq.next_element()? {
            vectors.push(vector);
        }
        Ok(BatchVectors::Single(vectors))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BatchVectors, A::Error> {
        let mut columns: Vec<(String, Vec<Vec<f32>>)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if columns.len() == VECTOR_NAMES_MAX || columns.iter().any(|(known, _)| *known == name) {
                map.next_value::<IgnoredAny>()?;
                return Err(de::Error::custom(format!("vector `{name}` is given twice or one of too many")));
            }
            let column: Vec<Dense> = map.next_value()?;
            columns.push((name, column.into_iter().map(|Dense(vector)| vector).collect()));
        }
        Ok(BatchVectors::Named(columns))
    }
}
