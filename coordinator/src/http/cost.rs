//! What reading requests and writing answers costs: the server's own code on texts in memory, for `vicinal bench json`.

use vicinal_common::api::VectorSelector;
use vicinal_common::collection::CollectionSchema;

use super::answer::Failure;
use super::body::parse;
use super::decode::{QueryBody, UpdateBody, UpsertBody};
use super::encode::{self, Shown};
use super::selector::WithPayload;
use crate::query::Hit;
use crate::write::Update;

/// Reads the body of a query to the form that is run. The error is the text a client would get.
pub fn read_query(body: &[u8]) -> Result<(), String> {
    parse::<QueryBody>(body).and_then(QueryBody::into_query).map(drop).map_err(|failure| failure.text)
}

/// Reads the body of an upsert to points that are checked against the collection; how many.
pub fn read_upsert(schema: &CollectionSchema, body: &[u8]) -> Result<usize, String> {
    let update = parse::<UpsertBody>(body).and_then(|body| body.into_update(schema)).map_err(|failure| failure.text)?;
    match update {
        Update::Upsert { points, .. } => Ok(points.len()),
        _ => Err("an upsert was read as something else".into()),
    }
}

/// Writes hits as the answer to a query, with payloads and vectors as they are; how many bytes.
pub fn write_hits(hits: &[Hit], with_vectors: bool) -> Result<usize, String> {
    let vectors = if with_vectors { VectorSelector::All } else { VectorSelector::None };
    let mut out = Vec::new();
    let written = encode::hits(&mut out, hits, &Shown { payload: WithPayload::All, vectors });
    written.map_err(|error| Failure::from(error).text)?;
    Ok(out.len())
}
