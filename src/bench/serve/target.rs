//! The servers that are asked, in turn.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use reqwest::{Client, Method, header};
use serde_json::{Map, Value};

use super::tally::ErrorKind;

/// Says how many shards of how many an answer comes from, as in `3/4`; only Vicinal has it.
const COVERAGE_HEADER: &str = "x-vicinal-coverage";
/// What a server says about itself.
const ABOUT: [&str; 4] = ["title", "version", "vicinal_version", "commit"];

/// Servers that answer the same, such as the coordinators of a cluster. Connections are kept.
pub(super) struct Target {
    client: Client,
    urls: Vec<String>,
}

/// A complete answer with a status of 2xx.
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) coverage: Coverage,
}

/// Whether all shards answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// As far as the answer tells.
    Complete,
    Partial,
}

/// Why there is none.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) text: String,
}

impl Target {
    /// Addresses like `http://10.0.0.5:6333`, at least one.
    pub(super) fn new(urls: &[String], timeout: Duration) -> anyhow::Result<Target> {
        let urls = urls.iter().map(|url| Ok(crate::config::check_url("--url", url)?.0)).collect::<anyhow::Result<_>>();
        let client = Client::builder().timeout(timeout).tcp_nodelay(true).no_proxy().build()?;
        Ok(Target { client, urls: urls? })
    }

    /// Sends a request to the server whose turn it is and reads the answer to its end.
    pub(super) async fn send(&self, turn: u64, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let url = &self.urls[(turn % self.urls.len() as u64) as usize];
        let request = self.client.request(method, format!("{url}{path}"));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let answer = request.send().await.map_err(failure)?;
        let status = answer.status();
        let coverage =
            answer.headers().get(COVERAGE_HEADER).map(|header| coverage(header.to_str().unwrap_or_default()));
        let body = answer.bytes().await.map_err(failure)?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(Failure { kind: ErrorKind::Status(status.as_u16()), text });
        }
        Ok(Answer { body, coverage: coverage.unwrap_or(Ok(Coverage::Complete))? })
    }

    /// Name and version, as `GET /` of the first server tells.
    pub(super) async fn about(&self) -> anyhow::Result<Value> {
        let url = &self.urls[0];
        let answer = self.client.get(format!("{url}/")).send().await;
        let answer = answer.with_context(|| format!("no server answers at {url}"))?.error_for_status()?;
        let mut about: Value = answer.json().await.with_context(|| format!("{url}/ does not say what it is"))?;
        let told = ABOUT.iter().filter_map(|name| Some(((*name).to_owned(), about.get_mut(*name)?.take())));
        Ok(Value::Object(told.collect::<Map<_, _>>()))
    }
}

fn failure(error: reqwest::Error) -> Failure {
    let kind = if error.is_timeout() {
        ErrorKind::Timeout
    } else if error.is_connect() {
        ErrorKind::Connect
    } else {
        ErrorKind::Broken
    };
    Failure { kind, text: format!("{:#}", anyhow::Error::new(error)) }
}

fn coverage(header: &str) -> Result<Coverage, Failure> {
    let counts = header.split_once('/').map(|(answered, asked)| (answered.parse::<u64>(), asked.parse::<u64>()));
    match counts {
        Some((Ok(answered), Ok(asked))) if answered <= asked => {
            Ok(if answered == asked { Coverage::Complete } else { Coverage::Partial })
        }
        _ => Err(Failure { kind: ErrorKind::Unreadable, text: format!("{COVERAGE_HEADER} is {header:?}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_read_from_its_header() {
        assert_eq!(coverage("4/4").unwrap(), Coverage::Complete);
        assert_eq!(coverage("0/4").unwrap(), Coverage::Partial);
        for broken in ["", "4", "5/4", "a/b", "-1/4"] {
            assert_eq!(coverage(broken).unwrap_err().kind, ErrorKind::Unreadable, "{broken}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_meant_are_refused() {
        let target = |url: &str| Target::new(&[url.to_owned()], Duration::from_secs(1));
        assert_eq!(target("http://127.0.0.1:6333/").unwrap().urls, ["http://127.0.0.1:6333"]);
        assert!(target("127.0.0.1:6333").is_err());
        assert!(target("http://127.0.0.1:6333/collections").is_err());
    }
}
