//! A REST client without retries: what the server answered is what the test sees.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;

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
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build();
        Rest { client: client.expect("a plain client can be built"), url: url.to_owned() }
    }

    /// Sends JSON, or no body for `Value::Null`. An error means that no whole answer came: for a write it is unknown
    /// whether it was carried out.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let (kind, bytes) = match body {
            Value::Null => (None, Vec::new()),
            body => (Some("application/json"), body.to_string().into_bytes()),
        };
        self.send(method, path, kind, bytes).await
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
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let coverage = answer.headers().get("x-vicinal-coverage").and_then(|value| value.to_str().ok()).map(Into::into);
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body, coverage })
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
