//! The servers that are asked, in turn.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::tally::ErrorKind;

/// Says how many shards of how many an answer comes from, as in `3/4`; only Vicinal has it.
const COVERAGE_HEADER: &str = "x-vicinal-coverage";
/// How many search shards were asked, where a collection is routed by cluster; only Vicinal has it.
const ROUTING_HEADER: &str = "x-vicinal-routing";
/// Last bytes of an answer, among which its `time` stands.
const END_BYTES: usize = 256;
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
    /// Shards that were asked for the nearest points, where the server tells.
    pub(super) shards_asked: Option<u64>,
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

impl Answer {
    /// How long the server says that it took: the `time` at the end of an answer, in seconds there.
    pub(super) fn server_time(&self) -> Option<Duration> {
        const NAME: &[u8] = b"\"time\":";
        let end = &self.body[self.body.len().saturating_sub(END_BYTES)..];
        let at = end.windows(NAME.len()).rposition(|window| window == NAME)? + NAME.len();
        let number = end[at..].split(|byte| matches!(byte, b',' | b'}')).next()?;
        let seconds: f64 = std::str::from_utf8(number).ok()?.trim().parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
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
        let told = told(answer.headers());
        let body = answer.bytes().await.map_err(failure)?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(Failure { kind: ErrorKind::Status(status.as_u16()), text });
        }
        let (coverage, shards_asked) = told?;
        Ok(Answer { body, coverage, shards_asked })
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

/// What the headers of an answer tell of the shards that it comes from.
fn told(headers: &HeaderMap) -> Result<(Coverage, Option<u64>), Failure> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let covered = text(COVERAGE_HEADER).map(coverage).transpose()?;
    // Of a collection that is routed by cluster the coverage counts home shards too, which only confirm.
    let routed = text(ROUTING_HEADER).map(search_shards_asked).transpose()?;
    Ok((covered.map_or(Coverage::Complete, |(coverage, _)| coverage), routed.or(covered.map(|(_, asked)| asked))))
}

/// Whether all shards answered, and how many were asked.
fn coverage(header: &str) -> Result<(Coverage, u64), Failure> {
    let counts = header.split_once('/').map(|(answered, asked)| (answered.parse::<u64>(), asked.parse::<u64>()));
    match counts {
        Some((Ok(answered), Ok(asked))) if answered <= asked => {
            Ok((if answered == asked { Coverage::Complete } else { Coverage::Partial }, asked))
        }
        _ => Err(unreadable(COVERAGE_HEADER, header)),
    }
}

fn search_shards_asked(header: &str) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Routed {
        search_shards_asked: u64,
    }
    let routed = serde_json::from_str::<Routed>(header).map_err(|_| unreadable(ROUTING_HEADER, header))?;
    Ok(routed.search_shards_asked)
}

fn unreadable(name: &str, header: &str) -> Failure {
    Failure { kind: ErrorKind::Unreadable, text: format!("{name} is {header:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_read_from_its_header() {
        assert_eq!(coverage("4/4").unwrap(), (Coverage::Complete, 4));
        assert_eq!(coverage("0/4").unwrap(), (Coverage::Partial, 4));
        for broken in ["", "4", "5/4", "a/b", "-1/4"] {
            assert_eq!(coverage(broken).unwrap_err().kind, ErrorKind::Unreadable, "{broken}");
        }
    }

    #[test]
    fn shards_asked_are_those_that_look_for_neighbours() {
        let of = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            told(&headers.collect::<HeaderMap>())
        };
        let routed = r#"{"search_shards_asked":2,"search_shards":8,"second_wave":1,"map":3,"reason":{}}"#;
        assert_eq!(of(&[]).unwrap(), (Coverage::Complete, None));
        assert_eq!(of(&[(COVERAGE_HEADER, "3/4")]).unwrap(), (Coverage::Partial, Some(4)));
        let both = of(&[(COVERAGE_HEADER, "6/6"), (ROUTING_HEADER, routed)]);
        assert_eq!(both.unwrap(), (Coverage::Complete, Some(2)));
        assert_eq!(of(&[(ROUTING_HEADER, "2")]).unwrap_err().kind, ErrorKind::Unreadable);
    }

    #[test]
    fn the_time_of_the_server_is_found_at_the_end() {
        let time = |body: &str| {
            let body = Bytes::from(body.to_owned());
            Answer { body, coverage: Coverage::Complete, shards_asked: None }.server_time()
        };
        let micros = |micros| Some(Duration::from_micros(micros));
        assert_eq!(time(r#"{"result":{"time":9},"status":"ok","time":0.000250000}"#), micros(250));
        assert_eq!(time(r#"{"time": 1e-6, "usage": null}"#), micros(1));
        for none in ["", r#"{"result":[]}"#, r#"{"time":}"#, r#"{"time":-1}"#, r#"{"time":"1"}"#] {
            assert_eq!(time(none), None, "{none}");
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
