//! What every answer looks like: `{"result", "status": "ok", "time"}`, or `{"status": {"error"}, "time"}`.

use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use serde::Serialize;
use tokio::time::Instant;
use vicinal_common::error::Error;

use super::failure_log::FailureLog;
use super::params::Params;
use crate::query::Coverage;

/// Header with shards answered and shards asked, on every answer that comes from shards.
const COVERAGE_HEADER: &str = "x-vicinal-coverage";
/// Header that says how a search was routed, on answers of collections that are routed by cluster.
const ROUTING_HEADER: &str = "x-vicinal-routing";
/// Header with the session token, on requests that show one and on answers to reads and writes of points.
pub(super) const SESSION_HEADER: &str = "x-vicinal-session";
/// Seconds after which a client should try again that met a limit, or shards that cannot serve at the moment.
const RETRY_AFTER_SECONDS: &str = "1";

/// A successful answer, before it is wrapped.
#[derive(Clone)]
pub(super) struct Answer {
    result: Bytes,
    coverage: Option<Arc<Coverage>>,
    session: Option<HeaderValue>,
}

impl Answer {
    /// An answer whose result is encoded already.
    pub(super) fn encoded(result: Vec<u8>) -> Answer {
        Answer { result: Bytes::from(result), coverage: None, session: None }
    }

    /// Encodes a result.
    pub(super) fn json(result: &impl Serialize) -> Result<Answer, Failure> {
        let encoded = serde_json::to_vec(result).map_err(|e| Error::Internal(format!("encode the answer: {e}")))?;
        Ok(Answer::encoded(encoded))
    }

    /// Says which shards the result stands for.
    pub(super) fn with_coverage(self, coverage: Coverage) -> Answer {
        Answer { coverage: Some(Arc::new(coverage)), ..self }
    }

    /// Gives the client the token of what it has seen.
    pub(super) fn with_session(self, params: &Params) -> Answer {
        let session = params.session_token().and_then(|token| HeaderValue::try_from(token).ok());
        Answer { session, ..self }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(self);
        response
    }
}

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// HTTP status.
    pub(super) status: StatusCode,
    /// Text for the person who reads it.
    pub(super) text: String,
    /// Seconds after which to try again, where more is known than that it is worth a try.
    retry_after: Option<u64>,
}

impl Failure {
    /// A failure that is no [`Error`]: what is wrong with the form of a request.
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Failure {
        Failure { status, text: text.into(), retry_after: None }
    }

    /// Says after how many seconds to try again.
    pub(super) fn with_retry_after(self, seconds: u64) -> Failure {
        Failure { retry_after: Some(seconds), ..self }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = match &error {
            Error::WrongLeader { .. } | Error::WrongEpoch { .. } | Error::NoSuchShard(_) => {
                format!("Service unavailable: {error}")
            }
            Error::BadInput(_)
            | Error::Validation { .. }
            | Error::NotFound(_)
            | Error::Conflict(_)
            | Error::TooLarge(_)
            | Error::Overloaded(_)
            | Error::Unavailable(_)
            | Error::Timeout(_)
            | Error::Corrupt(_)
            | Error::Internal(_) => error.to_string(),
        };
        Failure::new(status, text)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// Wraps what handlers return, measures the time, and turns a panic into an answer: one request must never take the
/// process down.
pub(super) async fn envelope<F: Future<Output = Response>>(
    log: &FailureLog,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match AssertUnwindSafe(next(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(%method, path, "a request met a defect and was answered with an error; please report it");
            Failure::from(Error::Internal("the request met a defect in the server".into())).into_response()
        }
    };
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        if failure.status.is_server_error() {
            log.write(&method, &path, &failure, started);
        } else {
            tracing::debug!(%method, path, status = failure.status.as_u16(), "request refused: {}", failure.text);
        }
        return with_retry_after(wrap_failure(&failure, started));
    }
    match response.extensions_mut().remove::<Answer>() {
        Some(answer) => wrap_answer(answer, started),
        None => with_retry_after(response),
    }
}

fn wrap_answer(answer: Answer, started: Instant) -> Response {
    let mut body = Vec::with_capacity(answer.result.len() + 80);
    body.extend_from_slice(b"{\"result\":");
    body.extend_from_slice(&answer.result);
    body.extend_from_slice(b",\"status\":\"ok\",\"time\":");
    body.extend_from_slice(seconds(started).as_bytes());
    let mut header = None;
    let mut routing = None;
    if let Some(coverage) = &answer.coverage {
        routing =
            coverage.routed.as_deref().and_then(|routed| HeaderValue::try_from(serde_json::to_vec(routed).ok()?).ok());
        header = HeaderValue::try_from(format!("{}/{}", coverage.shards_answered, coverage.shards_asked)).ok();
        if !coverage.is_complete()
            && let Ok(text) = serde_json::to_vec(coverage.as_ref())
        {
            body.extend_from_slice(b",\"coverage\":");
            body.extend_from_slice(&text);
        }
    }
    body.push(b'}');
    let mut response = json(StatusCode::OK, body);
    if let Some(header) = header {
        response.headers_mut().insert(COVERAGE_HEADER, header);
    }
    if let Some(routing) = routing {
        response.headers_mut().insert(ROUTING_HEADER, routing);
    }
    if let Some(session) = answer.session {
        response.headers_mut().insert(SESSION_HEADER, session);
    }
    response
}

fn wrap_failure(failure: &Failure, started: Instant) -> Response {
    let text = serde_json::Value::from(failure.text.as_str());
    let body = format!("{{\"status\":{{\"error\":{text}}},\"time\":{}}}", seconds(started));
    let mut response = json(failure.status, body.into_bytes());
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Says when to try again, where that is worth a try.
fn with_retry_after(mut response: Response) -> Response {
    if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        let seconds = HeaderValue::from_static(RETRY_AFTER_SECONDS);
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(seconds);
    }
    response
}

/// A response with a JSON body.
pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn seconds(started: Instant) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{:.9}", started.elapsed().as_secs_f64());
    text
}

#[cfg(test)]
mod tests {
    use vicinal_common::ids::MapVersion;

    use super::*;
    use crate::query::{Fixed, HomesBecause, Routed, Why};

    #[test]
    fn an_answer_of_a_collection_routed_by_cluster_shows_how() {
        let plain = wrap_answer(Answer::encoded(b"1".to_vec()).with_coverage(Coverage::default()), Instant::now());
        assert!(!plain.headers().contains_key(ROUTING_HEADER));
        let reason = Why::Fixed(Fixed::Homes { why: HomesBecause::Wanted });
        let routed = Routed { asked: 0, of: 4, second_wave: 0, map: MapVersion(2), reason };
        let coverage = Coverage { routed: Some(Box::new(routed)), ..Coverage::default() };
        let shown = wrap_answer(Answer::encoded(b"1".to_vec()).with_coverage(coverage), Instant::now());
        assert_eq!(
            shown.headers()[ROUTING_HEADER],
            r#"{"search_shards_asked":0,"search_shards":4,"second_wave":0,"map":2,"reason":{"kind":"homes","why":"wanted"}}"#
        );
    }
}
