//! Request bodies: read within bounds, decoded off the runtime's threads when they are large.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vicinal_common::error::Error;
use vicinal_common::limits::BODY_BYTES_MAX;

use super::answer::Failure;
use crate::Coordinator;

/// Bodies larger than this are decoded, and answers expected to be larger encoded, on a thread that may block.
pub(super) const INLINE_BYTES_MAX: usize = 64 * 1024;
/// KiB of request bodies that may be in memory at once; more wait for a moment and are then refused.
pub(crate) const BODIES_KIB_MAX: usize = 256 * 1024;
/// How long a request waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(2);
/// How long a client may take to send a body.
const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// An oversized body is read and thrown away up to this size, so that the client gets to read the answer.
const DISCARD_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;

/// A JSON body as it was received.
pub(super) struct JsonBody {
    bytes: Bytes,
    /// Holds the body's place in memory until it is decoded and dealt with.
    room: OwnedSemaphorePermit,
}

impl FromRequest<Arc<Coordinator>> for JsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, coordinator: &Arc<Coordinator>) -> Result<JsonBody, Failure> {
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if let Err(failure) = check_headers(request.headers(), announced) {
            return Err(refuse(request, announced, failure).await);
        }
        let expected = announced.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
        let room = room(coordinator.bodies.clone(), expected).await?;
        let bytes = tokio::time::timeout(READ_TIME_MAX, receive(request, announced.map_or(0, |_| expected)));
        let bytes = bytes.await.map_err(|_| Error::Timeout("the request body did not arrive in time".into()))??;
        Ok(JsonBody { bytes, room })
    }
}

/// What the headers tell before a byte of the body is read.
fn check_headers(headers: &HeaderMap, announced: Option<usize>) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media != "application/json" && !(media.starts_with("application/") && media.ends_with("+json")) {
        let got = if media.is_empty() { "none" } else { media.as_str() };
        let text = format!("Content type error: expected application/json, got {got}");
        return Err(Failure::new(StatusCode::BAD_REQUEST, text));
    }
    let encoding = text(header::CONTENT_ENCODING).trim();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        let text = format!("Content encoding error: `{encoding}` is not supported yet, send the JSON as it is");
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    match announced {
        Some(bytes) if bytes > BODY_BYTES_MAX => Err(too_large()),
        Some(_) | None => Ok(()),
    }
}

fn too_large() -> Failure {
    Error::TooLarge(format!("the request body is larger than the limit of {BODY_BYTES_MAX} bytes")).into()
}

/// Takes in what a client is sending already, so that it gets to read the answer instead of a reset connection. One that
/// waits for a go-ahead, or is about to send far too much, is answered at once.
async fn refuse(request: Request, announced: Option<usize>, failure: Failure) -> Failure {
    let is_waiting = request.headers().contains_key(header::EXPECT);
    if !is_waiting && announced.is_none_or(|bytes| bytes <= DISCARD_BYTES_MAX) {
        // The time is bounded because the bytes are worth nothing; the answer is the same either way.
        let _ = tokio::time::timeout(READ_TIME_MAX, discard(request)).await;
    }
    failure
}

async fn discard(request: Request) {
    let mut stream = request.into_body().into_data_stream();
    let mut total = 0usize;
    while let Some(Ok(chunk)) = stream.next().await {
        total += chunk.len();
        if total > DISCARD_BYTES_MAX {
            return;
        }
    }
}

async fn room(bodies: Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
    let kib = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
    match tokio::time::timeout(ROOM_WAIT, bodies.acquire_many_owned(kib)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => {
            let limit = BODIES_KIB_MAX / 1024;
            Err(Error::Overloaded(format!("{limit} MiB of requests are being worked on, try again")).into())
        }
    }
}

async fn receive(request: Request, announced: usize) -> Result<Bytes, Failure> {
    let mut stream = request.into_body().into_data_stream();
    // Most bodies come in one piece, which need not be copied.
    let mut first = Bytes::new();
    let mut body: Vec<u8> = Vec::new();
    let mut total = 0usize;
    while let Some(chunk) = stream.next().await {
        let broken = |e| Failure::new(StatusCode::BAD_REQUEST, format!("the request body broke off: {e}"));
        let chunk = chunk.map_err(broken)?;
        total += chunk.len();
        if total > DISCARD_BYTES_MAX {
            break;
        }
        if total > BODY_BYTES_MAX {
            (first, body) = (Bytes::new(), Vec::new());
        } else if total == chunk.len() {
            first = chunk;
        } else {
            if body.is_empty() {
                body.reserve_exact(announced.max(total));
                body.extend_from_slice(&std::mem::take(&mut first));
            }
            body.extend_from_slice(&chunk);
        }
    }
    if total > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(if body.is_empty() { first } else { Bytes::from(body) })
}

impl JsonBody {
    /// Decodes the body and goes on to `then`, both off the runtime's threads when the body is large.
    pub(super) async fn decode<T, U>(
        self,
        then: impl FnOnce(T) -> Result<U, Failure> + Send + 'static,
    ) -> Result<U, Failure>
    where
        T: DeserializeOwned + 'static,
        U: Send + 'static,
    {
        let JsonBody { bytes, room } = self;
        let length = bytes.len();
        let work = move || {
            let decoded = parse::<T>(&bytes);
            drop(bytes);
            let result = decoded.and_then(then);
            drop(room);
            result
        };
        off_thread(length, work).await
    }
}

/// Parses a JSON text, which must be an object. Errors say where.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let malformed = |text: String| Failure::new(StatusCode::BAD_REQUEST, format!("Format error in JSON body: {text}"));
    // An array would be read as the fields in the order they are declared in: `[[1], null, null]` must delete nothing.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(malformed("expected an object, got an array at line 1 column 1".into()));
    }
    serde_json::from_slice(bytes).map_err(|error| malformed(with_place::<T>(bytes, &error)))
}

/// What is wrong with a text, with the field that it is about: found by reading it once more.
fn with_place<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> String {
    let mut again = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut again) {
        Err(placed) if error.is_data() && placed.path().iter().next().is_some() => {
            format!("{}: {}", placed.path(), placed.inner())
        }
        Err(_) | Ok(_) => error.to_string(),
    }
}

/// Runs `work` here when it is about few bytes (or in a simulation), else on a thread that may block.
pub(super) async fn off_thread<U: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<U, Failure> + Send + 'static,
) -> Result<U, Failure> {
    if bytes <= INLINE_BYTES_MAX { work() } else { crate::off_thread::off_thread(work).await }
}
