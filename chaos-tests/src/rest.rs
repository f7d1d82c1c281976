//! A REST client without retries: what the server answered is what the test sees.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

const COVERAGE_HEADER: &str = "x-vicinal-coverage";
const SESSION_HEADER: &str = "x-vicinal-session";

/// One server.
#[derive(Clone)]
pub struct Rest {
    client: Client,
    url: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; a string when it is no JSON.
    pub body: Value,
    /// Header `x-vicinal-coverage`.
    pub coverage: Option<String>,
    /// Header `x-vicinal-session`: sent back with a later request, to any coordinator, it promises that the request
    /// sees at least what this answer saw.
    pub session: Option<String>,
}

impl Answer {
    /// The error text of the envelope; empty for a success.
    pub fn error(&self) -> &str {
        self.body["status"]["error"].as_str().unwrap_or("")
    }

    /// The `result` of a success.
    ///
    /// # Panics
    /// When the status is not 200, with the whole answer.
    pub fn result(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        let mut body = self.body;
        body["result"].take()
    }
}

impl Rest {
    /// A client of the server at `url`.
    pub fn new(url: &str) -> Rest {
        Rest::with_timeout(url, Duration::from_secs(30))
    }

    /// A client that waits at most that long for a whole answer.
    pub fn with_timeout(url: &str, timeout: Duration) -> Rest {
        let client = Client::builder().no_proxy().retry(reqwest::retry::never()).timeout(timeout).build();
        Rest { client: client.expect("a plain client can be built"), url: url.to_owned() }
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends JSON, or no body for `Value::Null`. An error means that no whole answer came: for a write it is unknown
    /// whether it was carried out.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        self.call_in_session(method, path, body, None).await
    }

    /// As `call`, with the session token of an earlier answer.
    pub async fn call_in_session(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        session: Option<&str>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        if let Some(session) = session {
            request = request.header(SESSION_HEADER, session);
        }
        answer(request).await
    }

    /// Sends any bytes with any content type.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        answer(request).await
    }

    /// GET; panics without an answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &Value::Null).await.expect("the server answers")
    }

    /// PUT; panics without an answer.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, &body).await.expect("the server answers")
    }

    /// POST; panics without an answer.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, &body).await.expect("the server answers")
    }

    /// DELETE; panics without an answer.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &Value::Null).await.expect("the server answers")
    }

    /// All points of a collection in id order, read page by page, with payload and vectors.
    pub async fn scroll_all(&self, collection: &str) -> Vec<Value> {
        const PAGE: usize = 500;
        let (mut points, mut offset) = (Vec::new(), Value::Null);
        loop {
            let mut body = serde_json::json!({"limit": PAGE, "with_payload": true, "with_vector": true});
            if !offset.is_null() {
                body["offset"] = offset;
            }
            let mut page = self.post(&format!("/collections/{collection}/points/scroll"), body).await.result();
            points.append(page["points"].as_array_mut().expect("a page has points"));
            offset = page["next_page_offset"].take();
            if offset.is_null() {
                return points;
            }
        }
    }

    /// Number of points of a collection.
    pub async fn count(&self, collection: &str) -> u64 {
        let body = serde_json::json!({"exact": true});
        let count = self.post(&format!("/collections/{collection}/points/count"), body).await.result();
        count["count"].as_u64().expect("a count is a number")
    }
}

async fn answer(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(Into::into);
    let (coverage, session) = (header(COVERAGE_HEADER), header(SESSION_HEADER));
    let text = answer.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, body, coverage, session })
}
