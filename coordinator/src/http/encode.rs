//! Points and hits as JSON text, written straight into the answer: payloads are passed on as they are stored.

use std::io::Write;

use vicinal_common::api::{OrderValue, StoredPoint, VectorSelector};
use vicinal_common::error::{Error, Result};
use vicinal_common::point::{PointId, UNNAMED, Vectors};
use vicinal_common::vector::{SparseRef, VectorRef};

use super::selector::WithPayload;
use crate::query::Hit;

/// What is shown of each point.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Which payload fields.
    pub(super) payload: WithPayload,
    /// Which vectors.
    pub(super) vectors: VectorSelector,
}

/// `[hit, ...]`
pub(super) fn hits(out: &mut Vec<u8>, hits: &[Hit], shown: &Shown) -> Result<()> {
    list(out, hits, |out, hit| {
        out.extend_from_slice(b"{\"id\":");
        id(out, hit.id)?;
        write!(out, ",\"version\":{},\"score\":", hit.version.0).map_err(io)?;
        number(out, hit.score)?;
        if let Some(point) = &hit.point {
            parts(out, point, shown)?;
        }
        order_value(out, hit.order)?;
        out.push(b'}');
        Ok(())
    })
}

/// `[point, ...]`
pub(super) fn points(out: &mut Vec<u8>, points: &[StoredPoint], shown: &Shown) -> Result<()> {
    list(out, points, |out, item| point(out, item, shown))
}

/// `{"id": ..., "payload": ..., "vector": ...}`
pub(super) fn point(out: &mut Vec<u8>, point: &StoredPoint, shown: &Shown) -> Result<()> {
    out.extend_from_slice(b"{\"id\":");
    id(out, point.id)?;
    parts(out, point, shown)?;
    order_value(out, point.order)?;
    out.push(b'}');
    Ok(())
}

fn order_value(out: &mut Vec<u8>, value: Option<OrderValue>) -> Result<()> {
    match value {
        None => Ok(()),
        Some(OrderValue::Integer(integer)) => write!(out, ",\"order_value\":{integer}").map_err(io),
        // Comes from JSON, so it is finite.
        Some(OrderValue::Float(float)) => {
            out.extend_from_slice(b",\"order_value\":");
            serde_json::to_writer(out, &float).map_err(|e| Error::Internal(format!("encode a number: {e}")))
        }
    }
}

/// An id: a number or a quoted UUID.
pub(super) fn id(out: &mut Vec<u8>, id: PointId) -> Result<()> {
    serde_json::to_writer(out, &id).map_err(|e| Error::Internal(format!("encode an id: {e}")))
}

/// Upper bound of the answer's size, to decide where it is encoded.
pub(super) fn size_of_points<'a>(points: impl Iterator<Item = &'a StoredPoint>) -> usize {
    /// Digits of a number, with its comma.
    const NUMBER_BYTES: usize = 12;
    let one = |point: &StoredPoint| {
        let numbers: usize = point.vectors.values().map(|vector| vector.bytes() / 4).sum();
        64 + point.payload.as_bytes().len() + numbers * NUMBER_BYTES
    };
    points.map(one).sum()
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T) -> Result<()>) -> Result<()> {
    out.push(b'[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        each(out, item)?;
    }
    out.push(b']');
    Ok(())
}

fn parts(out: &mut Vec<u8>, point: &StoredPoint, shown: &Shown) -> Result<()> {
    if shown.payload != WithPayload::None {
        out.extend_from_slice(b",\"payload\":");
        if point.payload.is_empty() {
            out.extend_from_slice(b"{}");
        } else if shown.payload.is_whole() {
            out.extend_from_slice(point.payload.as_bytes());
        } else {
            let fields = shown.payload.select(point.payload.fields()?);
            serde_json::to_writer(&mut *out, &fields).map_err(|e| Error::Internal(format!("encode a payload: {e}")))?;
        }
    }
    if shown.vectors != VectorSelector::None {
        out.extend_from_slice(b",\"vector\":");
        vectors(out, &point.vectors)?;
    }
    Ok(())
}

fn vector(out: &mut Vec<u8>, vector: VectorRef<'_>) -> Result<()> {
    let numbers = |out: &mut Vec<u8>, values: &[f32]| list(out, values, |out, value| number(out, *value));
    match vector {
        VectorRef::Dense(values) => numbers(out, values),
        VectorRef::Multi(multi) => {
            let vectors: Vec<&[f32]> = multi.vectors().collect();
            list(out, &vectors, |out, values| numbers(out, values))
        }
        VectorRef::Sparse(SparseRef { indices, values }) => {
            out.extend_from_slice(b"{\"indices\":");
            list(out, indices, |out, index| write!(out, "{index}").map_err(io))?;
            out.extend_from_slice(b",\"values\":");
            numbers(out, values)?;
            out.push(b'}');
            Ok(())
        }
    }
}

fn vectors(out: &mut Vec<u8>, vectors: &Vectors) -> Result<()> {
    match vectors.get(UNNAMED) {
        Some(one) if vectors.len() == 1 => vector(out, one.as_ref()),
        _ => {
            out.push(b'{');
            for (place, (name, one)) in vectors.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, name).map_err(|e| Error::Internal(format!("encode a name: {e}")))?;
                out.push(b':');
                vector(out, one.as_ref())?;
            }
            out.push(b'}');
            Ok(())
        }
    }
}

/// The shortest text that reads back as the same number. A score beyond the range (an inner product of huge vectors) shows
/// as the largest number there is: JSON has no infinity.
fn number(out: &mut Vec<u8>, value: f32) -> Result<()> {
    let value = if value.is_nan() { 0.0 } else { value.clamp(f32::MIN, f32::MAX) };
    serde_json::to_writer(out, &value).map_err(|e| Error::Internal(format!("encode a number: {e}")))
}

fn io(error: std::io::Error) -> Error {
    Error::Internal(format!("encode the answer: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use vicinal_common::ids::LogIndex;
    use vicinal_common::payload::Payload;

    use super::*;

    fn encode(point_: &StoredPoint, shown: &Shown) -> Value {
        let mut out = Vec::new();
        point(&mut out, point_, shown).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn points_have_the_parts_asked_for() {
        let payload = Payload::from_fields(json!({"a": 1, "b": "x\"y"}).as_object().unwrap()).unwrap();
        let vectors = Vectors::from([(UNNAMED.to_owned(), vec![0.1, -1.0].into())]);
        let mut point = StoredPoint { id: PointId::Num(7), version: LogIndex(3), payload, vectors, order: None };
        let mut shown = Shown { payload: WithPayload::None, vectors: VectorSelector::None };
        assert_eq!(encode(&point, &shown), json!({"id": 7}));
        shown.payload = WithPayload::All;
        shown.vectors = VectorSelector::All;
        assert_eq!(encode(&point, &shown), json!({"id": 7, "payload": {"a": 1, "b": "x\"y"}, "vector": [0.1, -1.0]}));
        point.vectors = Vectors::from([("t".to_owned(), vec![2.5].into())]);
        point.payload = Payload::EMPTY;
        assert_eq!(encode(&point, &shown), json!({"id": 7, "payload": {}, "vector": {"t": [2.5]}}));
    }

    proptest! {
        #[test]
        fn numbers_read_back_unchanged(value in proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO) {
            let mut out = Vec::new();
            number(&mut out, value).unwrap();
            prop_assert_eq!(serde_json::from_slice::<f32>(&out).unwrap().to_bits(), value.to_bits());
        }
    }
}
