//! What a write writes: vector and payload follow from id and serial, so that whoever reads a point can tell whether it is
//! whole, and whoever gets a hit can tell its score.

use serde_json::{Value, json};

use crate::op::{Coverage, Found, Seen, Version};
use crate::rest::Answer;

/// Dimension of the vectors.
pub const DIM: usize = 8;
/// Points that are written once have ids below this.
pub const REGISTERS: u64 = 1 << 40;
/// Registers lie so far from everything else that no search near another point finds one: a point that is overwritten all
/// the time may be left out of an answer, and the checks of the other answers stay exact.
const REGISTER_OFFSET: f32 = 100_000.0;
/// Components are whole numbers below this: distances between them are exact in 64 bits.
const COMPONENTS: u64 = 1_024;
/// Scores are 32-bit numbers.
const SCORE_ERROR: f64 = 1e-4;

/// A fixed mixture of bits (the finaliser of splitmix64).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The vector of a version. No two versions share one.
pub fn vector(version: Version) -> [f32; DIM] {
    let offset = if version.id >= REGISTERS { REGISTER_OFFSET } else { 0.0 };
    std::array::from_fn(|place| {
        let bits = mix(version.serial.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(place as u64 + 1));
        (bits % COMPONENTS) as f32 + offset
    })
}

/// The payload of a version; its length varies.
pub fn payload(version: Version) -> Value {
    let Version { id, serial } = version;
    let filler = "x".repeat((mix(serial) % 200) as usize);
    json!({"serial": serial, "check": format!("{:016x}", mix(id ^ mix(serial))), "filler": filler})
}

/// A version as a point of an upsert.
pub fn point(version: Version) -> Value {
    json!({"id": version.id, "vector": vector(version), "payload": payload(version)})
}

/// The score that a hit must have: the Euclidean distance.
pub fn score(query: Version, hit: Version) -> f64 {
    let pairs = vector(query).into_iter().zip(vector(hit));
    pairs.map(|(a, b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

/// Whether two scores are the same but for rounding.
pub fn same_score(a: f64, b: f64) -> bool {
    (a - b).abs() <= SCORE_ERROR * a.abs().max(b.abs()).max(1.0)
}

/// A point of an answer. One that names no serial is not sound, and its serial is 0, which nobody writes.
pub fn seen(point: &Value) -> Seen {
    let id = point["id"].as_u64().unwrap_or(u64::MAX);
    let version = Version { id, serial: point["payload"]["serial"].as_u64().unwrap_or(0) };
    let is_whole = point["payload"] == payload(version);
    let has_vector = match &point["vector"] {
        Value::Array(numbers) => numbers.iter().map(Value::as_f64).eq(vector(version).map(|x| Some(f64::from(x)))),
        other => other.is_null(),
    };
    Seen { version, is_sound: is_whole && has_vector, score: point["score"].as_f64() }
}

/// What an answer that comes from shards says of them. `None` when it says nothing.
pub fn coverage(answer: &Answer) -> Option<Coverage> {
    let (answered, asked) = answer.coverage.as_deref()?.split_once('/')?;
    let (answered, asked): (u64, u64) = (answered.parse().ok()?, asked.parse().ok()?);
    let missing = answer.body["coverage"]["missing"].as_array().map_or(0, Vec::len) as u64;
    Some(Coverage { answered, asked, is_explained: answered + missing == asked })
}

/// The points of a successful read or search.
pub fn found(answer: &Answer) -> Found {
    let result = &answer.body["result"];
    let points = match result.get("points").unwrap_or(result) {
        Value::Array(points) => points.iter().map(seen).collect(),
        point => vec![seen(point)],
    };
    Found { points, coverage: coverage(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Version = Version { id: 7, serial: 12 };

    fn answer(coverage: &str, body: Value) -> Answer {
        Answer { status: 200, body, coverage: Some(coverage.to_owned()), session: None }
    }

    #[test]
    fn a_point_is_sound_only_when_it_is_what_was_written() {
        let whole = point(SOME);
        assert!(seen(&whole).is_sound);
        let mut torn = whole.clone();
        torn["payload"]["filler"] = json!("");
        assert!(!seen(&torn).is_sound);
        let mut of_another = whole;
        of_another["vector"] = json!(vector(Version { id: 7, serial: 13 }));
        assert!(!seen(&of_another).is_sound);
        assert_eq!(seen(&json!({"id": 7})).version.serial, 0);
    }

    #[test]
    fn answers_are_understood() {
        let one = found(&answer("1/1", json!({"result": point(SOME)})));
        assert_eq!(one.points[0].version, SOME);
        let two = found(&answer("2/4", json!({"result": {"points": [point(SOME), point(SOME)]}})));
        assert_eq!(two.points.len(), 2);
        assert_eq!(two.coverage, Some(Coverage { answered: 2, asked: 4, is_explained: false }));
        let missing = json!([{"shard": 1}, {"shard": 2}]);
        let explained = coverage(&answer("2/4", json!({"result": [], "coverage": {"missing": missing}})));
        assert!(explained.unwrap().is_explained);
        assert_eq!(coverage(&answer("four", json!({}))), None);
    }

    #[test]
    fn scores_are_distances() {
        assert_eq!(score(SOME, SOME), 0.0);
        let other = Version { id: 8, serial: 13 };
        assert!(score(SOME, other) > 100.0 && same_score(score(SOME, other), f64::from(score(other, SOME) as f32)));
        assert!(!same_score(0.0, 1.0));
    }
}
