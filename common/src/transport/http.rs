//! The transport between processes: `POST <address>/internal/<route>` over HTTP/1.1, connections kept alive, bytes in and
//! bytes out.

mod serve;
#[cfg(test)]
mod tests;
mod urls;

use std::error::Error as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use futures::FutureExt;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{Address, Handler, Transport, TransportError};
pub use serve::serve_router;
use urls::Urls;

use crate::limits::{INTERNAL_ANSWER_BYTES_MAX, INTERNAL_BODY_BYTES_MAX};
use crate::telemetry::{self, HopOutcome, Side};

/// Time a connection may take to be made: between processes of one cluster, more means that nobody is there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Idle connections kept for each process.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection is kept. The receiving side sets no limit of its own, so the sender closes first.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// How often a process that has gone without a word (power cut, cable) is looked for on an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Most bytes of a refusal's text that are repeated in an error.
const REFUSAL_TEXT_MAX: usize = 200;

/// What the sending side adds to each request beside its body.
fn outgoing(headers: &mut HeaderMap) {
    if telemetry::is_traced() {
        telemetry::inject(&Span::current(), headers);
    }
}

/// Counts a request and what became of it.
fn count(side: Side, route: &str, outcome: HopOutcome, started: Instant) {
    telemetry::instruments().hop.ended(side, route, outcome, started.elapsed());
}

/// Sends requests to other processes over HTTP.
#[derive(Clone)]
pub struct HttpTransport {
    client: reqwest::Client,
    urls: Arc<Urls>,
}

/// What a failed attempt allows.
enum Failed {
    /// The connection ended without a byte of an answer: a kept one that the other side had closed looks like this.
    Disconnected(String),
    /// Final.
    Final(TransportError),
}

impl HttpTransport {
    /// A transport with a pool of connections of its own. Fails only if the machine cannot give what a client needs.
    pub fn new() -> Result<HttpTransport, String> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // What is repeated is decided here; and a client that may repeat a request copies it first.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX)
            .build()
            .map_err(|e| format!("the HTTP client between processes cannot be made: {}", with_causes(&e)))?;
        Ok(HttpTransport { client, urls: Arc::default() })
    }

    async fn attempt(&self, to: &Address, route: &str, body: Bytes) -> Result<Bytes, Failed> {
        let unreachable = |why: String| Failed::Final(TransportError::Unreachable(to.clone(), why));
        let unknown = |why: String| Failed::Final(TransportError::Unknown(to.clone(), why));
        let url = self.urls.of(to, route).map_err(&unreachable)?;
        let mut request = reqwest::Request::new(Method::POST, url);
        outgoing(request.headers_mut());
        *request.body_mut() = Some(body.into());
        let sent = self.client.execute(request).await;
        let response = match sent {
            Ok(response) => response,
            // Nothing left this process.
            Err(error) if error.is_connect() || error.is_builder() => return Err(unreachable(with_causes(&error))),
            Err(error) => return Err(Failed::Disconnected(with_causes(&error))),
        };
        let status = response.status();
        let bytes = response.content_length().unwrap_or(u64::MAX);
        if bytes > INTERNAL_ANSWER_BYTES_MAX as u64 {
            return Err(unknown(format!("its answer is larger than {INTERNAL_ANSWER_BYTES_MAX} bytes")));
        }
        // The request was carried out, or was refused: asking again is up to the caller from here on.
        let answer = response.bytes().await.map_err(|e| unknown(with_causes(&e)))?;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(&answer[..answer.len().min(REFUSAL_TEXT_MAX)]).into_owned();
        let why = format!("it answers {status} to {route}: {text}");
        // All of these are said before a handler sees the request; anything else may come from within one.
        let refused = status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE;
        Err(if refused { unreachable(why) } else { unknown(why) })
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn call(&self, to: &Address, route: &str, body: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let bytes = body.len();
        let twice = async {
            match self.attempt(to, route, body.clone()).await {
                // The process may have been started anew since the connection was made; a request may be repeated.
                Err(Failed::Disconnected(first)) => match self.attempt(to, route, body).await {
                    // Nobody took the second one, but somebody may have carried out the first.
                    Err(Failed::Final(TransportError::Unreachable(to, second))) => {
                        Err(Failed::Final(TransportError::Unknown(to, format!("{first}; then: {second}"))))
                    }
                    result => result,
                },
                result => result,
            }
        };
        let started = Instant::now();
        let span = telemetry::hop_client_span(route, &to.0, bytes);
        let result = match tokio::time::timeout_at(started + timeout, twice.instrument(span.clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failed::Final(error))) => Err(error),
            Ok(Err(Failed::Disconnected(why))) => Err(TransportError::Unknown(to.clone(), why)),
            Err(_) => Err(TransportError::Unknown(to.clone(), format!("no answer within {timeout:?}"))),
        };
        let outcome = match &result {
            Ok(_) => HopOutcome::Ok,
            Err(TransportError::Unreachable(..)) => HopOutcome::Unreachable,
            Err(TransportError::Unknown(..)) => HopOutcome::Unknown,
        };
        if result.is_err() {
            telemetry::failed(&span);
        }
        count(Side::Client, route, outcome, started);
        result
    }
}

/// An error and what it comes from: reqwest's own text names only the URL.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// The receiving side: `POST /internal/<route>` answered by `handler`, for the router of a process.
pub fn internal_router(handler: Arc<dyn Handler>) -> Router {
    Router::new()
        .route("/internal/{*route}", post(receive))
        .layer(DefaultBodyLimit::max(INTERNAL_BODY_BYTES_MAX))
        .with_state(handler)
}

async fn receive(
    State(handler): State<Arc<dyn Handler>>,
    Path(route): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Bytes, (StatusCode, String)> {
    let started = Instant::now();
    let span = telemetry::hop_server_span(&route, &headers, body.len());
    // A bug in one handler costs one request: the sender is told instead of finding the connection gone.
    match AssertUnwindSafe(handler.handle(&route, body).instrument(span)).catch_unwind().await {
        Ok(Some(answer)) => {
            count(Side::Server, &route, HopOutcome::Ok, started);
            Ok(answer)
        }
        Ok(None) => {
            // The route is the sender's word alone: no label is made of it.
            count(Side::Server, "none", HopOutcome::Failed, started);
            Err((StatusCode::NOT_FOUND, format!("no route {route}")))
        }
        Err(_) => {
            count(Side::Server, &route, HopOutcome::Failed, started);
            Err((StatusCode::INTERNAL_SERVER_ERROR, format!("the handler of {route} panicked; see its log")))
        }
    }
}
