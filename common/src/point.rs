//! Points: an id, one or more named vectors, a payload.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::payload::Payload;
use crate::vector::Vector;

/// Name of a point's vector. The single unnamed vector of a collection has the name `""`.
pub const UNNAMED: &str = "";

/// Id of a point, chosen by the client. Ordered: numbers first, then UUIDs; scrolling follows this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointId {
    /// An unsigned 64-bit integer.
    Num(u64),
    /// A UUID, compared by its bytes.
    Uuid(Uuid),
}

/// The stored vectors of a point by name, each of its collection's kind and dimension and prepared for its metric.
pub type Vectors = BTreeMap<String, Vector>;

/// A whole point as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The id.
    pub id: PointId,
    /// Vectors by name; a name of the collection may be missing.
    pub vectors: Vectors,
    /// The payload, empty when there is none.
    pub payload: Payload,
}

impl PointId {
    /// Reads an id as it stands in a path or a string: digits are a number, anything else must be a UUID (hyphenated,
    /// simple or URN form).
    pub fn parse(text: &str) -> Result<PointId, String> {
        if let Ok(number) = text.parse::<u64>() {
            return Ok(PointId::Num(number));
        }
        Uuid::parse_str(text).map(PointId::Uuid).map_err(|_| {
            format!("{text} is not a valid point ID, valid values are either an unsigned integer or a UUID")
        })
    }

    /// The id's portable bytes: a kind byte, then 8 or 16 bytes. What the token of an id is hashed from.
    pub fn to_bytes(self) -> ([u8; 17], usize) {
        let mut bytes = [0u8; 17];
        match self {
            PointId::Num(number) => {
                bytes[1..9].copy_from_slice(&number.to_le_bytes());
                (bytes, 9)
            }
            PointId::Uuid(uuid) => {
                bytes[0] = 1;
                bytes[1..].copy_from_slice(uuid.as_bytes());
                (bytes, 17)
            }
        }
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PointId::Num(number) => number.fmt(f),
            PointId::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

/// Binary form: kind byte, then the value. Text form (JSON): a number or a string.
impl Serialize for PointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, serializer.is_human_readable()) {
            (PointId::Num(number), true) => serializer.serialize_u64(*number),
            (PointId::Uuid(uuid), true) => serializer.collect_str(uuid),
            (PointId::Num(number), false) => (0u8, u128::from(*number)).serialize(serializer),
            (PointId::Uuid(uuid), false) => (1u8, uuid.as_u128()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PointId, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(PointIdVisitor);
        }
        match <(u8, u128)>::deserialize(deserializer)? {
            (0, value) => u64::try_from(value).map(PointId::Num).map_err(de::Error::custom),
            (1, value) => Ok(PointId::Uuid(Uuid::from_u128(value))),
            (kind, _) => Err(de::Error::custom(format!("unknown kind of point id: {kind}"))),
        }
    }
}

struct PointIdVisitor;

impl Visitor<'_> for PointIdVisitor {
    type Value = PointId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a point ID, either an unsigned integer or a UUID")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<PointId, E> {
        Ok(PointId::Num(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<PointId, E> {
        u64::try_from(value).map(PointId::Num).map_err(|_| {
            E::custom(format!(
                "value {value} is not a valid point ID, valid values are either an unsigned integer or a UUID"
            ))
        })
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<PointId, E> {
        Uuid::parse_str(value).map(PointId::Uuid).map_err(|_| {
            E::custom(format!(
                "value {value} is not a valid point ID, valid values are either an unsigned integer or a UUID"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_id() -> impl Strategy<Value = PointId> {
        prop_oneof![any::<u64>().prop_map(PointId::Num), any::<u128>().prop_map(|v| PointId::Uuid(Uuid::from_u128(v)))]
    }

    proptest! {
        #[test]
        fn ids_survive_both_encodings(id in any_id()) {
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<PointId>(&json).unwrap(), id);
            let binary = postcard::to_stdvec(&id).unwrap();
            prop_assert_eq!(postcard::from_bytes::<PointId>(&binary).unwrap(), id);
            prop_assert_eq!(PointId::parse(&id.to_string()).unwrap(), id);
        }
    }

    #[test]
    fn numbers_sort_before_uuids() {
        assert!(PointId::Num(u64::MAX) < PointId::Uuid(Uuid::nil()));
    }

    #[test]
    fn bad_ids_are_refused_in_words() {
        for bad in ["-1", "1.5", "\"abc\"", "null", "[1]"] {
            let error = serde_json::from_str::<PointId>(bad).unwrap_err().to_string();
            assert!(error.contains("point ID"), "{bad}: {error}");
        }
    }
}
