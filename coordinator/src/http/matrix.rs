//! Handlers of the search matrix: which points of a random sample are near to each other.

use std::sync::Arc;

use axum::extract::State;
use serde_json::json;
use vicinal_common::error::{Error, Result as CommonResult};

use super::answer::{Answer, Failure};
use super::body::{JsonBody, off_thread};
use super::clusters;
use super::decode::MatrixBody;
use super::encode;
use super::indexes::{Purpose, prepare_filter};
use super::params::Params;
use super::strict;
use crate::Coordinator;
use crate::query::{self, Matrix};

type Shared = State<Arc<Coordinator>>;

/// Bytes of JSON that a pair takes, for the decision where to encode.
const PAIR_BYTES: usize = 64;

/// `POST /collections/{collection}/points/search/matrix/pairs`
pub(super) async fn pairs(coordinator: Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    answer(coordinator, params, body, encode_pairs).await
}

/// `POST /collections/{collection}/points/search/matrix/offsets`
pub(super) async fn offsets(coordinator: Shared, params: Params, body: JsonBody) -> Result<Answer, Failure> {
    answer(coordinator, params, body, encode_offsets).await
}

async fn answer(
    State(coordinator): Shared,
    params: Params,
    body: JsonBody,
    encode: fn(&Matrix) -> CommonResult<Vec<u8>>,
) -> Result<Answer, Failure> {
    let collection = coordinator.collection(params.collection())?;
    let mut request = body.decode(MatrixBody::into_request).await?;
    prepare_filter(&collection, request.filter.as_mut().map(Arc::make_mut), Purpose::Read)?;
    clusters::fix(&coordinator, &params, request.filter.as_mut()).await?;
    strict::check_limit(&collection, request.limit.max(request.sample))?;
    let lookup = params.lookup(&coordinator);
    let (matrix, coverage) = query::matrix(&coordinator.shards, &lookup, params.read_spec(), &request).await?;
    let size = matrix.neighbours.iter().map(Vec::len).sum::<usize>() * PAIR_BYTES;
    let encoded = off_thread(size, move || Ok(encode(&matrix)?)).await?;
    Ok(Answer::encoded(encoded).with_coverage(coverage).with_session(&params))
}

/// `{"pairs": [{"a": id, "b": id, "score": ...}, ...]}`
fn encode_pairs(matrix: &Matrix) -> CommonResult<Vec<u8>> {
    let mut out = b"{\"pairs\":[".to_vec();
    let rows = matrix.ids.iter().zip(&matrix.neighbours);
    let pairs = rows.flat_map(|(a, row)| row.iter().map(move |(place, score)| (*a, matrix.ids.get(*place), *score)));
    for (place, (a, b, score)) in pairs.enumerate() {
        let b = b.ok_or_else(|| Error::Internal("a neighbour is not in the sample".into()))?;
        out.extend_from_slice(if place > 0 { b",{\"a\":" } else { b"{\"a\":" });
        encode::id(&mut out, a)?;
        out.extend_from_slice(b",\"b\":");
        encode::id(&mut out, *b)?;
        out.extend_from_slice(b",\"score\":");
        encode::number(&mut out, score)?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// `{"offsets_row": [...], "offsets_col": [...], "scores": [...], "ids": [...]}`: one entry of the first three for each
/// pair, which are places in the last.
fn encode_offsets(matrix: &Matrix) -> CommonResult<Vec<u8>> {
    let rows = matrix.neighbours.iter().enumerate();
    let pairs = rows.flat_map(|(row, found)| found.iter().map(move |(col, score)| (row, *col, *score)));
    let pairs: Vec<(usize, usize, f32)> = pairs.collect();
    let rows: Vec<usize> = pairs.iter().map(|(row, _, _)| *row).collect();
    let cols: Vec<usize> = pairs.iter().map(|(_, col, _)| *col).collect();
    // As in hits: JSON has no infinity, and no distance is NaN.
    let scores: Vec<f32> = pairs.iter().map(|(_, _, score)| score.clamp(f32::MIN, f32::MAX)).collect();
    let encode = |e| Error::Internal(format!("encode a matrix: {e}"));
    let shown = json!({"offsets_row": rows, "offsets_col": cols, "ids": matrix.ids});
    let mut out = serde_json::to_vec(&shown).map_err(encode)?;
    // Scores are written as the 32-bit numbers that they are, which a tree of values would not do.
    out.pop();
    out.extend_from_slice(b",\"scores\":");
    serde_json::to_writer(&mut out, &scores).map_err(encode)?;
    out.push(b'}');
    Ok(out)
}
