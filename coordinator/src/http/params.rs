//! What stands beside the body: the collection's name in the path, and `wait`, `timeout`, `ordering`, `consistency`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use vicinal_common::consistency::Consistency;
use vicinal_common::error::Result;
use vicinal_common::limits::{REQUEST_TIMEOUT_SECONDS, REQUEST_TIMEOUT_SECONDS_MAX};

use super::answer::{Failure, SESSION_HEADER};
use crate::Coordinator;
use crate::query::ReadSpec;
use crate::session::Session;
use crate::shards::CollectionRef;
use crate::write::WriteSpec;

/// A request's path and query parameters, checked. Parameters we do not know are left alone, as clients send some that
/// are for other versions.
#[derive(Debug)]
pub(super) struct Params {
    path: HashMap<String, String>,
    /// Whether the answer to a write says that it is complete.
    pub(super) wait: bool,
    /// When the request must be answered.
    pub(super) deadline: Instant,
    consistency: Consistency,
    session: Arc<Session>,
}

impl FromRequestParts<Arc<Coordinator>> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Coordinator>) -> Result<Params, Failure> {
        let bad = |text: String| Failure::new(StatusCode::BAD_REQUEST, text);
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let path = path.map_err(|e| bad(format!("Deserialize error in path parameters: {}", e.body_text())))?.0;
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let query = query.map_err(|e| bad(format!("Deserialize error in query parameters: {}", e.body_text())))?.0;
        let params = Params::check(path, &query)?;
        Ok(Params { session: Arc::new(session(&parts.headers)?), ..params })
    }
}

impl Params {
    fn check(path: HashMap<String, String>, query: &HashMap<String, String>) -> Result<Params, Failure> {
        let refuse = |name: &str, value: &str, allowed: &str| {
            let text = format!("Deserialize error in query parameters: `{name}` is `{value}`, allowed is {allowed}");
            Err(Failure::new(StatusCode::BAD_REQUEST, text))
        };
        let wait = match query.get("wait").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return refuse("wait", other, "true or false"),
        };
        let seconds = match query.get("timeout") {
            None => REQUEST_TIMEOUT_SECONDS,
            Some(text) => match text.parse::<u64>() {
                Ok(seconds) => seconds,
                Err(_) => return refuse("timeout", text, "a whole number of seconds"),
            },
        };
        if !(1..=REQUEST_TIMEOUT_SECONDS_MAX).contains(&seconds) {
            let bound = match seconds {
                0 => "must be 1 or larger".to_owned(),
                _ => format!("must be {REQUEST_TIMEOUT_SECONDS_MAX} or smaller"),
            };
            let text = format!("Validation error in query parameters: [timeout: value {seconds} invalid, {bound}]");
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        // Every write goes through its shard's leader, which is more than any of these asks for.
        match query.get("ordering").map(String::as_str) {
            None | Some("weak" | "medium" | "strong") => {}
            Some(other) => return refuse("ordering", other, "weak, medium or strong"),
        }
        let consistency = match query.get("consistency").map(String::as_str) {
            None | Some("1") => Consistency::ReadYourWrites,
            Some("majority" | "quorum" | "all") => Consistency::Linearizable,
            Some(text) => match text.parse::<u32>() {
                Ok(replicas) if replicas > 1 => Consistency::Linearizable,
                Ok(_) | Err(_) => {
                    return refuse("consistency", text, "majority, quorum, all or a number of replicas from 1");
                }
            },
        };
        let deadline = Instant::now() + Duration::from_secs(seconds);
        Ok(Params { path, wait, deadline, consistency, session: Arc::default() })
    }

    /// The collection's name (or alias) as it stands in the path.
    pub(super) fn collection(&self) -> &str {
        self.segment("collection")
    }

    /// A named part of the path; empty when the route has none.
    pub(super) fn segment(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// Bounds of a read.
    pub(super) fn read_spec(&self) -> ReadSpec<'_> {
        ReadSpec { consistency: self.consistency, deadline: self.deadline, session: &self.session }
    }

    /// Identity and bound of a write.
    pub(super) fn write_spec(&self, coordinator: &Coordinator) -> WriteSpec<'_> {
        WriteSpec { request: coordinator.rng.request_id(), deadline: self.deadline, session: &self.session }
    }

    /// The token for the client, of what it has seen with this request and before.
    pub(super) fn session_token(&self) -> Option<String> {
        self.session.token()
    }

    /// Finds the collection in the newest metadata, each time it is called.
    pub(super) fn lookup<'a>(
        &'a self,
        coordinator: &'a Coordinator,
    ) -> impl Fn() -> Result<CollectionRef> + Send + Sync + 'a {
        move || coordinator.collection(self.collection())
    }
}

/// The session that the client goes on with, or a new one.
fn session(headers: &HeaderMap) -> Result<Session, Failure> {
    let Some(value) = headers.get(SESSION_HEADER) else { return Ok(Session::default()) };
    let parsed = value.to_str().map_err(|_| "it is not plain text".to_owned()).and_then(Session::parse);
    let refuse =
        |reason| Failure::new(StatusCode::BAD_REQUEST, format!("Wrong input: header {SESSION_HEADER}: {reason}"));
    parsed.map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &[(&str, &str)]) -> Result<Params, Failure> {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Params::check(HashMap::new(), &query)
    }

    #[tokio::test]
    async fn good_parameters_are_understood() {
        let params = check(&[("wait", "true"), ("timeout", "5"), ("ordering", "strong"), ("other", "x")]).unwrap();
        assert!(params.wait);
        assert!(params.deadline <= Instant::now() + Duration::from_secs(5));
        for (text, consistency) in [("1", Consistency::ReadYourWrites), ("2", Consistency::Linearizable)] {
            assert_eq!(check(&[("consistency", text)]).unwrap().consistency, consistency);
        }
        assert_eq!(check(&[("consistency", "majority")]).unwrap().consistency, Consistency::Linearizable);
    }

    #[tokio::test]
    async fn bad_parameters_are_refused_by_name() {
        for (name, value, status) in [
            ("wait", "yes", 400),
            ("timeout", "0", 422),
            ("timeout", "999999", 422),
            ("timeout", "-1", 400),
            ("ordering", "chaos", 400),
            ("consistency", "0", 400),
            ("consistency", "some", 400),
        ] {
            let failure = check(&[(name, value)]).unwrap_err();
            assert_eq!(failure.status.as_u16(), status, "{name}={value}");
            assert!(failure.text.contains(name), "{}", failure.text);
        }
    }
}
