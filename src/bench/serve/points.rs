//! The points that are stored: row n of the data set is point n, with a payload that depends on nothing but n.

use std::fmt::Write;

use bytes::Bytes;
use serde_json::{Value, json};
use vicinal_index::Rows;

use crate::bench::ingest::push_vector;

/// Values of the field `kind`: a condition on one of them matches 1 % of the points.
const KINDS: u64 = 100;
/// Values of the field `n`: a range of it matches its share of these.
const NUMBERS: u64 = 1_000_000;

/// What each point has beside its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Nothing,
    /// `kind`, `n`, and a `text` that fills it up to about so many bytes.
    Bytes(usize),
}

impl Payload {
    /// Fields that filters can ask for, with the type of a payload index on them.
    pub(super) const FIELDS: [(&str, &str); 2] = [("kind", "keyword"), ("n", "integer")];

    fn of(self, row: u32) -> Option<Value> {
        let Payload::Bytes(bytes) = self else { return None };
        let random = scattered(u64::from(row));
        let mut payload = json!({"kind": format!("k{}", random % KINDS), "n": random / KINDS % NUMBERS});
        let missing = bytes.saturating_sub(payload.to_string().len() + ",\"text\":\"\"".len());
        if missing > 0 {
            payload["text"] = json!("x".repeat(missing));
        }
        Some(payload)
    }
}

/// The body that writes some points.
pub(super) fn body(rows: Rows<'_>, numbers: impl IntoIterator<Item = u32>, payload: Payload) -> Bytes {
    let mut body = String::from("{\"points\":[");
    for (i, row) in numbers.into_iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(body, "{comma}{{\"id\":{row},\"vector\":");
        push_vector(&mut body, rows.row(row));
        if let Some(payload) = payload.of(row) {
            let _ = write!(body, ",\"payload\":{payload}");
        }
        body.push('}');
    }
    body.push_str("]}");
    Bytes::from(body)
}

/// A number that looks random and depends only on the row (the finaliser of splitmix64).
fn scattered(row: u64) -> u64 {
    let mut x = row.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Rows<'static> = Rows { data: &[0.0, 1.5, 255.0, -0.1, 1e-7, 3.0], dim: 2 };

    #[test]
    fn a_body_is_json_and_holds_the_rows_asked_for() {
        let body: Value = serde_json::from_slice(&body(ROWS, [2, 0], Payload::Nothing)).unwrap();
        assert_eq!(body["points"].as_array().unwrap().len(), 2);
        assert_eq!(body["points"][1], json!({"id": 0, "vector": [0, 1.5]}));
        let vector: Vec<f32> = serde_json::from_value(body["points"][0]["vector"].clone()).unwrap();
        assert_eq!(vector, [1e-7, 3.0]);
    }

    #[test]
    fn payloads_have_their_size_and_are_the_same_each_time() {
        let text = Payload::Bytes(200).of(7).unwrap().to_string();
        assert_eq!(text.len(), 200);
        assert_eq!(Payload::Bytes(200).of(7).unwrap().to_string(), text);
        assert!(Payload::Bytes(1).of(7).unwrap().get("text").is_none());
        assert_eq!(Payload::Nothing.of(7), None);
        let body: Value = serde_json::from_slice(&body(ROWS, [1], Payload::Bytes(90))).unwrap();
        assert_eq!(body["points"][0]["payload"], Payload::Bytes(90).of(1).unwrap());
    }

    #[test]
    fn a_kind_matches_one_percent_and_a_range_its_share() {
        let payloads: Vec<Value> = (0..20_000).filter_map(|row| Payload::Bytes(0).of(row)).collect();
        let kind = payloads.iter().filter(|payload| payload["kind"] == json!("k3")).count();
        let range = payloads.iter().filter(|payload| payload["n"].as_u64().unwrap() < 100_000).count();
        assert!((150..=250).contains(&kind) && (1_850..=2_150).contains(&range), "{kind} {range}");
    }
}
