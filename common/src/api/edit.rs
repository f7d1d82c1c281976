//! What is done to a point that is there.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::filter::{KeyPath, merge_fields};
use crate::payload::{Fields, Payload};
use crate::point::Point;

/// A change of a point. Doing it again changes nothing more. Logged: what a variant does never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PointEdit {
    /// Takes over fields; those that are null are removed.
    SetPayload {
        /// The fields.
        payload: Payload,
        /// Key path of the objects that take them, as text; `None`: the payload itself.
        key: Option<String>,
    },
    /// Replaces the payload.
    OverwritePayload(Payload),
    /// Removes what is at these key paths.
    DeletePayload(Vec<String>),
    /// Removes the payload.
    ClearPayload,
    /// Removes vectors by name; missing ones are fine.
    DeleteVectors(Vec<String>),
}

impl PointEdit {
    /// Changes the point. Whether it differs afterwards. `BadInput`, with nothing done, when a key path cannot be read or
    /// the payload would exceed a limit; `Corrupt` when the stored payload cannot be read.
    pub fn apply(&self, point: &mut Point) -> Result<bool> {
        let payload = match self {
            PointEdit::SetPayload { payload, key } => {
                let mut fields = point.payload.fields()?;
                match key {
                    Some(key) => path(key)?.merge(&mut fields, &payload.fields()?),
                    None => merge_fields(&mut fields, &payload.fields()?),
                }
                stored(point, &fields)?
            }
            PointEdit::OverwritePayload(payload) => payload.clone(),
            PointEdit::DeletePayload(keys) => {
                let mut fields = point.payload.fields()?;
                for key in keys {
                    path(key)?.remove(&mut fields);
                }
                stored(point, &fields)?
            }
            PointEdit::ClearPayload => Payload::EMPTY,
            PointEdit::DeleteVectors(names) => {
                let before = point.vectors.len();
                point.vectors.retain(|name, _| !names.contains(name));
                return Ok(point.vectors.len() < before);
            }
        };
        let is_new = payload != point.payload;
        point.payload = payload;
        Ok(is_new)
    }

    /// About how many bytes it carries.
    pub(super) fn bytes(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
        match self {
            PointEdit::SetPayload { payload, key } => payload.as_bytes().len() + key.as_ref().map_or(0, String::len),
            PointEdit::OverwritePayload(payload) => payload.as_bytes().len(),
            PointEdit::DeletePayload(keys) => texts(keys),
            PointEdit::ClearPayload => 0,
            PointEdit::DeleteVectors(names) => texts(names),
        }
    }
}

fn path(key: &str) -> Result<KeyPath> {
    KeyPath::parse(key).map_err(Error::BadInput)
}

fn stored(point: &Point, fields: &Fields) -> Result<Payload> {
    Payload::from_fields(fields).map_err(|error| error.with_note(&format!("point {}", point.id)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::limits::PAYLOAD_BYTES_MAX;
    use crate::point::{PointId, Vectors};

    fn payload(value: serde_json::Value) -> Payload {
        Payload::from_fields(value.as_object().unwrap()).unwrap()
    }

    fn point() -> Point {
        let vectors = Vectors::from([("a".to_owned(), vec![1.0].into()), ("b".to_owned(), vec![2.0].into())]);
        Point { id: PointId::Num(1), vectors, payload: payload(json!({"x": {"y": 1}, "z": [1, 2]})) }
    }

    fn set(value: serde_json::Value, key: Option<&str>) -> PointEdit {
        PointEdit::SetPayload { payload: payload(value), key: key.map(str::to_owned) }
    }

    #[test]
    fn each_edit_changes_its_part_once() {
        let original = point();
        for (edit, expected) in [
            (set(json!({"x": null, "n": 1}), None), json!({"n": 1, "z": [1, 2]})),
            (set(json!({"w": 2}), Some("x")), json!({"x": {"w": 2, "y": 1}, "z": [1, 2]})),
            (PointEdit::OverwritePayload(payload(json!({"o": 1}))), json!({"o": 1})),
            (PointEdit::DeletePayload(vec!["x.y".into(), "z[]".into(), "q".into()]), json!({"x": {}, "z": []})),
            (PointEdit::ClearPayload, json!({})),
        ] {
            let mut point = original.clone();
            assert!(edit.apply(&mut point).unwrap(), "{edit:?}");
            assert_eq!(serde_json::Value::Object(point.payload.fields().unwrap()), expected, "{edit:?}");
            assert_eq!(point.vectors, original.vectors);
            assert!(!edit.apply(&mut point).unwrap(), "{edit:?} again");
        }
        let mut point = original.clone();
        let edit = PointEdit::DeleteVectors(vec!["b".into(), "c".into()]);
        assert!(edit.apply(&mut point).unwrap());
        assert_eq!(point.vectors.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(point.payload, original.payload);
        assert!(!edit.apply(&mut point).unwrap());
    }

    #[test]
    fn a_payload_does_not_outgrow_its_limits() {
        let mut point = point();
        let half = |name: &str| set(json!({name: "x".repeat(PAYLOAD_BYTES_MAX * 3 / 5)}), None);
        assert!(half("a").apply(&mut point).unwrap());
        let before = point.clone();
        let error = half("b").apply(&mut point).unwrap_err();
        assert!(error.to_string().contains("the limit is") && error.to_string().contains("point 1"), "{error}");
        assert_eq!(point, before);
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({"d": deep});
        }
        let path = "d.".repeat(39) + "d";
        assert!(set(deep.clone(), None).apply(&mut point).unwrap());
        assert_eq!(set(deep, Some(&path)).apply(&mut point).unwrap_err().http_status(), 400);
        assert_eq!(set(json!({}), Some("a..b")).apply(&mut point).unwrap_err().http_status(), 400);
    }
}
