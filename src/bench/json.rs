//! `vicinal bench json`: what it takes to read queries and upserts and to write answers. One thread, best of many rounds.

use std::hint::black_box;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use vicinal_common::api::StoredPoint;
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::ids::LogIndex;
use vicinal_common::metric::Metric;
use vicinal_common::payload::Payload;
use vicinal_common::point::{PointId, UNNAMED};
use vicinal_coordinator::http::cost;
use vicinal_coordinator::query::Hit;

use super::print_line;

/// Its flags.
#[derive(Debug, Args)]
pub(crate) struct Json {
    /// Dimensions to measure
    #[arg(long, value_delimiter = ',', default_values_t = [128usize, 768, 1536])]
    dims: Vec<usize>,
    /// Points in an upsert
    #[arg(long, default_value_t = 500)]
    points: usize,
    /// Hits in an answer
    #[arg(long, default_value_t = 10)]
    hits: usize,
    /// Rounds; the fastest counts
    #[arg(long, default_value_t = 200)]
    rounds: usize,
}

/// Numbers as clients write them: the shortest text of a 32-bit float, or of the same number as a 64-bit one, as Python does.
const DIGITS: [&str; 2] = ["f32", "f64"];

/// Measures and prints one line for each dimension and way to write numbers.
pub(crate) fn run(json: &Json) -> anyhow::Result<()> {
    for dim in &json.dims {
        for digits in DIGITS {
            print_line(&measure(json, *dim, digits)?.to_string());
        }
    }
    Ok(())
}

fn vector(dim: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.2
    };
    (0..dim).map(|_| next()).collect()
}

fn text(vector: &[f32], digits: &str) -> Value {
    match digits {
        "f32" => {
            vector.iter().map(|value| serde_json::from_str::<Value>(&value.to_string()).unwrap_or_default()).collect()
        }
        _ => vector.iter().map(|value| f64::from(*value)).collect(),
    }
}

fn measure(flags: &Json, dim: usize, digits: &str) -> anyhow::Result<Value> {
    let payload = json!({"title": "a title of usual length", "tags": ["a", "b"], "year": 2024});
    let query = json!({"query": text(&vector(dim, 1), digits), "limit": flags.hits, "with_payload": true}).to_string();
    let point = |id: usize| json!({"id": id, "vector": text(&vector(dim, id as u64), digits), "payload": payload});
    let points: Vec<Value> = (0..flags.points).map(point).collect();
    let upsert = json!({ "points": points }).to_string();
    let schema = CollectionSchema {
        vectors: [(UNNAMED.to_owned(), VectorSchema::dense(dim, Metric::Dot))].into(),
        hnsw: HnswConfig::default(),
        indexing_threshold_kib: CollectionSchema::INDEXING_THRESHOLD_KIB,
    };
    let stored = Payload::from_stored(payload.to_string().into_bytes().into());
    let hit = |id: usize| Hit {
        id: PointId::Num(id as u64),
        version: LogIndex(7),
        score: 0.5 / (1 + id) as f32,
        order: None,
        point: Some(StoredPoint {
            id: PointId::Num(id as u64),
            version: LogIndex(7),
            payload: stored.clone(),
            vectors: [(UNNAMED.to_owned(), vector(dim, id as u64).into())].into(),
            order: None,
        }),
    };
    let hits: Vec<Hit> = (0..flags.hits).map(hit).collect();

    let failed = anyhow::Error::msg;
    let read_query = best(flags.rounds, || cost::read_query(query.as_bytes())).map_err(failed)?;
    let write = best(flags.rounds, || cost::write_hits(&hits, false)).map_err(failed)?;
    let write_vectors = best(flags.rounds, || cost::write_hits(&hits, true)).map_err(failed)?;
    let read_upsert = best(flags.rounds.min(20), || cost::read_upsert(&schema, upsert.as_bytes())).map_err(failed)?;
    let micros = |seconds: f64| (seconds * 1e7).round() / 10.0;
    Ok(json!({
        "bench": "json",
        "dim": dim,
        "digits": digits,
        "query_bytes": query.len(),
        "read_query_us": micros(read_query),
        "hits": flags.hits,
        "write_answer_us": micros(write),
        "write_answer_with_vectors_us": micros(write_vectors),
        "upsert_bytes": upsert.len(),
        "upsert_points": flags.points,
        "read_upsert_mb_per_second": (upsert.len() as f64 / read_upsert / 1e6).round(),
    }))
}

/// Seconds of the fastest round.
fn best<T>(rounds: usize, mut work: impl FnMut() -> Result<T, String>) -> Result<f64, String> {
    let mut best = f64::INFINITY;
    for _ in 0..rounds.max(1) {
        let started = Instant::now();
        black_box(work()?);
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}
