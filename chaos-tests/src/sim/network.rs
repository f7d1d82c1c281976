//! The way between simulated processes: the byte-level transport over turmoil's TCP, one connection for each call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use turmoil::net::{TcpListener, TcpStream};
use vicinal_common::transport::{Address, Handler, Transport, TransportError};

use super::site::Site;

const PORT: u16 = 7_000;
/// Route of REST requests; the others are calls between processes.
const REST: &str = "rest";
/// Time a connection may take to be made, as over HTTP.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Most that one message holds.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A REST request on the wire.
#[derive(Serialize, Deserialize)]
pub(super) struct RestRequest {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// A REST answer.
#[derive(Serialize, Deserialize)]
pub(super) struct RestAnswer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// Address of the process on a host.
pub(super) fn address(host: &str) -> Address {
    Address(format!("sim://{host}"))
}

/// The transport of one process.
pub(super) struct SimTransport {
    pub(super) site: Arc<Site>,
}

#[async_trait]
impl Transport for SimTransport {
    async fn call(&self, to: &Address, route: &str, body: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        let unreachable = |why: &str| TransportError::Unreachable(to.clone(), why.into());
        let unknown = |why: &str| TransportError::Unknown(to.clone(), why.into());
        let host = to.0.strip_prefix("sim://").ok_or_else(|| unreachable("not an address of this simulation"))?;
        self.site.silent_when_dead().await;
        self.site.count_if_lost(host);
        let (from, length) = (self.site.name, body.len());
        self.site.trace.note_here(format_args!("{from} > {host} {route} {length}"));
        let mut is_sent = false;
        let exchange = tokio::time::timeout(timeout, self.exchange(host, route, &body, &mut is_sent)).await;
        let ended = match exchange {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(unreachable("no such route")),
            Ok(Err(e)) if is_sent => Err(unknown(&e.to_string())),
            Ok(Err(e)) => Err(unreachable(&e.to_string())),
            Err(_) if is_sent => Err(unknown("no answer in time")),
            Err(_) => Err(unreachable("no connection in time")),
        };
        self.site.silent_when_dead().await;
        let length = ended.as_ref().map_or(-1, |answer: &Bytes| answer.len() as i64);
        self.site.trace.note_here(format_args!("{from} < {host} {route} {length}"));
        ended
    }
}

impl SimTransport {
    async fn exchange(&self, host: &str, route: &str, body: &[u8], is_sent: &mut bool) -> io::Result<Option<Bytes>> {
        let mut stream = match TcpStream::connect((host, PORT)).await {
            Ok(stream) => stream,
            // The simulated network refuses at once what a real one loses in silence.
            Err(e) if self.site.is_cut_off(host) => {
                tokio::time::sleep(CONNECT_TIMEOUT).await;
                return Err(e);
            }
            Err(e) => return Err(e),
        };
        *is_sent = true;
        let mut message = Vec::with_capacity(8 + route.len() + body.len());
        for part in [route.as_bytes(), body] {
            message.extend_from_slice(&length(part)?.to_le_bytes());
            message.extend_from_slice(part);
        }
        stream.write_all(&message).await?;
        match stream.read_u8().await? {
            0 => Ok(None),
            _ => Ok(Some(read_part(&mut stream).await?)),
        }
    }

    /// Sends a REST request to the coordinator on `host`. An error means that it is not known what became of it.
    pub(super) async fn rest(
        &self,
        host: &str,
        request: RestRequest,
        within: Duration,
    ) -> Result<RestAnswer, TransportError> {
        let to = address(host);
        let unknown = |e: &dyn std::fmt::Display| TransportError::Unknown(to.clone(), e.to_string());
        let body = postcard::to_stdvec(&request).map_err(|e| unknown(&e))?;
        let answer = self.call(&to, REST, body.into(), within).await?;
        postcard::from_bytes(&answer).map_err(|e| unknown(&e))
    }
}

/// Answers what is sent to this host, until the process ends.
pub(super) async fn serve(site: Arc<Site>, handler: Arc<dyn Handler>, rest: Option<Router>) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (site, handler, rest) = (site.clone(), handler.clone(), rest.clone());
        tokio::spawn(async move {
            // The other side sees the broken connection, and that is all it can see.
            let _ = answer(site, stream, handler, rest).await;
        });
    }
}

async fn answer(
    site: Arc<Site>,
    mut stream: TcpStream,
    handler: Arc<dyn Handler>,
    rest: Option<Router>,
) -> io::Result<()> {
    let route = read_part(&mut stream).await?;
    let route = String::from_utf8(route.to_vec()).map_err(io::Error::other)?;
    let body = read_part(&mut stream).await?;
    let handled = async {
        match (route.as_str(), rest) {
            (REST, Some(router)) => Some(serve_rest(router, &body).await),
            (REST, None) => None,
            (route, _) => handler.handle(route, body).await,
        }
    };
    let mut rest_of_stream = [0];
    // Who hangs up is not answered, and the work for it is dropped where it stands, as a web server does.
    let answer = tokio::select! {
        biased;
        answer = handled => answer,
        _ = stream.read(&mut rest_of_stream) => return Ok(()),
    };
    site.silent_when_dead().await;
    let mut message = vec![u8::from(answer.is_some())];
    if let Some(answer) = answer {
        message.extend_from_slice(&length(&answer)?.to_le_bytes());
        message.extend_from_slice(&answer);
    }
    stream.write_all(&message).await?;
    stream.shutdown().await
}

async fn serve_rest(router: Router, body: &[u8]) -> Bytes {
    let refused = |text: String| RestAnswer { status: 400, headers: Vec::new(), body: text.into_bytes() };
    let answered = async {
        let request: RestRequest = postcard::from_bytes(body).map_err(|e| e.to_string())?;
        let builder = Request::builder().method(request.method.as_str()).uri(request.path);
        let with_header =
            |builder: axum::http::request::Builder, (name, value)| builder.header::<String, String>(name, value);
        let builder = request.headers.into_iter().fold(builder, with_header);
        let request = builder.body(Body::from(request.body)).map_err(|e| e.to_string())?;
        let response = router.oneshot(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let body = to_bytes(response.into_body(), MESSAGE_BYTES_MAX).await.map_err(|e| e.to_string())?;
        Ok(RestAnswer { status, headers, body: body.to_vec() })
    };
    let answer = answered.await.unwrap_or_else(refused);
    postcard::to_stdvec(&answer).unwrap_or_default().into()
}

fn length(part: &[u8]) -> io::Result<u32> {
    u32::try_from(part.len()).map_err(io::Error::other)
}

async fn read_part(stream: &mut TcpStream) -> io::Result<Bytes> {
    let length = stream.read_u32_le().await? as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes.into())
}
