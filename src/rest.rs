//! The REST client of the command line's own tools: the demo and the benchmarks speak to a server as anybody would.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::{Client, Method};
use serde_json::Value;

/// A server, by its address.
#[derive(Clone)]
pub(crate) struct Rest {
    client: Client,
    url: String,
}

/// Longest time one request of a tool may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

impl Rest {
    /// A client of the server at `url`, for example `http://127.0.0.1:6333`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Rest> {
        let client = Client::builder().timeout(REQUEST_TIMEOUT).tcp_nodelay(true).no_proxy().build()?;
        Ok(Rest { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// The `result` of a GET.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// The `result` of a PUT.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::PUT, path, Some(body.to_string())).await
    }

    /// The `result` of a POST.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body.to_string())).await
    }

    /// The `result` of a DELETE.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::DELETE, path, None).await
    }

    /// Sends a body that is encoded already and reads the answer to its end; an error unless the status is 2xx.
    pub(crate) async fn send_encoded(
        &self,
        method: Method,
        path: &str,
        body: bytes::Bytes,
    ) -> anyhow::Result<bytes::Bytes> {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        let answer = request.send().await.map_err(|error| unreachable_server(&self.url, error))?;
        let status = answer.status();
        let body = answer.bytes().await.context("the answer broke off")?;
        if !status.is_success() {
            bail!("{path} answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let body = self.send_encoded(method, path, body.unwrap_or_default().into()).await?;
        let mut answer: Value = serde_json::from_slice(&body).with_context(|| format!("{path} answered no JSON"))?;
        Ok(answer["result"].take())
    }
}

fn unreachable_server(url: &str, error: reqwest::Error) -> anyhow::Error {
    if error.is_connect() {
        return anyhow!("no server answers at {url}; start one with `vicinal dev`");
    }
    anyhow!(error).context(format!("the request to {url} failed"))
}
