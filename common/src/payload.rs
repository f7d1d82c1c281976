//! Payloads: a JSON object per point, kept as the compact text it is stored and sent as, parsed only when a filter or a
//! client asks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::limits::{PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX};

/// The fields of a parsed payload.
pub type Fields = Map<String, Value>;

/// The compact JSON text of an object; no bytes at all stand for the empty object. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(Bytes);

impl Payload {
    /// The empty payload.
    pub const EMPTY: Payload = Payload(Bytes::new());

    /// Takes parsed fields. `BadInput` when nested deeper than [`PAYLOAD_DEPTH_MAX`] or larger than
    /// [`PAYLOAD_BYTES_MAX`].
    pub fn from_fields(fields: &Fields) -> Result<Payload> {
        if fields.is_empty() {
            return Ok(Payload::EMPTY);
        }
        if fields.values().any(|value| !is_shallower_than(value, PAYLOAD_DEPTH_MAX)) {
            return Err(Error::BadInput(format!("payload is nested deeper than {PAYLOAD_DEPTH_MAX} levels")));
        }
        let text = serde_json::to_vec(fields).map_err(|e| Error::Internal(format!("encode payload: {e}")))?;
        if text.len() > PAYLOAD_BYTES_MAX {
            let bytes = text.len();
            return Err(Error::BadInput(format!("payload has {bytes} bytes, the limit is {PAYLOAD_BYTES_MAX}")));
        }
        Ok(Payload(Bytes::from(text)))
    }

    /// Takes text that was a payload before: from a segment or the log. It is not checked until it is parsed.
    pub fn from_stored(text: Bytes) -> Payload {
        Payload(text)
    }

    /// The stored text: a JSON object, or nothing when empty.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parses the fields. `Corrupt` when the stored text is no JSON object.
    pub fn fields(&self) -> Result<Fields> {
        parse_fields(&self.0)
    }
}

/// Parses stored payload text without taking ownership: what filters use on mapped segments.
pub fn parse_fields(text: &[u8]) -> Result<Fields> {
    if text.is_empty() {
        return Ok(Fields::new());
    }
    serde_json::from_slice(text).map_err(|e| Error::Corrupt(format!("stored payload is not a JSON object: {e}")))
}

fn is_shallower_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(values) => levels > 0 && values.iter().all(|v| is_shallower_than(v, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|v| is_shallower_than(v, levels - 1)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_survive_the_text_form() {
        let value = json!({"a": 1, "b": [true, null, "x"], "c": {"d": 0.1}, "e": u64::MAX});
        let fields = value.as_object().unwrap().clone();
        let payload = Payload::from_fields(&fields).unwrap();
        assert_eq!(payload.fields().unwrap(), fields);
        assert!(Payload::from_fields(&Fields::new()).unwrap().is_empty());
    }

    #[test]
    fn deep_nesting_is_refused_with_the_limit() {
        let mut value = json!(1);
        for _ in 0..PAYLOAD_DEPTH_MAX + 1 {
            value = json!([value]);
        }
        let mut fields = Fields::new();
        fields.insert("deep".into(), value);
        let error = Payload::from_fields(&fields).unwrap_err();
        assert!(error.to_string().contains("64 levels"), "{error}");
    }
}
