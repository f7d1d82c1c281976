//! A logical client: one session after another, every operation recorded, nothing ever sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::content;
use crate::history::History;
use crate::op::{Coverage, Found, Operation, Outcome, Record, Version};
use crate::rest::{Answer, Rest};

/// Longest wait for an answer. Shorter than any request may take in the server: the client gives up first, and then knows
/// nothing.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Statuses that say that nothing was carried out: the request itself was refused.
const REFUSED: [u16; 6] = [400, 404, 405, 409, 413, 422];
/// Words of an error that names shards: others may have carried out their part.
const NOT_BY_ALL: &str = "did not acknowledge";
/// A limit was met. Of a request with one part nothing was carried out.
const LIMIT: u16 = 429;

/// What all clients of a run share.
pub struct Site {
    /// The collection under test.
    pub collection: String,
    /// Name and address of every coordinator.
    pub coordinators: Vec<(String, String)>,
    /// Where operations are recorded.
    pub history: Arc<History>,
    next_serial: AtomicU64,
    next_client: AtomicU64,
}

impl Site {
    /// Nothing written yet.
    pub fn new(collection: &str, coordinators: Vec<(String, String)>) -> Arc<Site> {
        let (next_serial, next_client) = (AtomicU64::new(1), AtomicU64::new(1));
        let history = Arc::default();
        Arc::new(Site { collection: collection.to_owned(), coordinators, history, next_serial, next_client })
    }

    /// `n` serials that nobody had before; the first of them.
    pub fn serials(&self, n: u64) -> u64 {
        self.next_serial.fetch_add(n, Ordering::Relaxed)
    }
}

/// Which coordinator a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The client's own. As long as all its acknowledgements came from there, no token is sent: the coordinator has to
    /// know by itself.
    Home,
    /// Another one, which only the token can tell what the client has seen.
    Other,
}

/// One client.
pub struct Client {
    site: Arc<Site>,
    rests: Vec<Rest>,
    home: usize,
    identity: u64,
    token: Option<String>,
    /// Whether all writes of the session went through the home coordinator.
    is_at_home: bool,
    requests: usize,
}

struct Call<'a> {
    at: usize,
    method: Method,
    path: String,
    body: Value,
    token: Option<&'a str>,
}

impl Client {
    /// A client whose home is the coordinator of that number, counted around.
    pub fn new(site: &Arc<Site>, home: usize) -> Client {
        let rests: Vec<Rest> = site.coordinators.iter().map(|(_, url)| Rest::with_timeout(url, ANSWER_WAIT)).collect();
        let identity = site.next_client.fetch_add(1, Ordering::Relaxed);
        let home = home % rests.len();
        Client { site: site.clone(), rests, home, identity, token: None, is_at_home: true, requests: 0 }
    }

    /// The token of the last answer that had one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Upserts points. Whether they were acknowledged.
    pub async fn write(&mut self, versions: Vec<Version>) -> bool {
        let points: Vec<Value> = versions.iter().copied().map(content::point).collect();
        let path = format!("/collections/{}/points?wait=true", self.site.collection);
        let body = json!({"points": points});
        let operation = Operation::Write(versions);
        self.operate(operation, Route::Home, Method::PUT, path, body).await
    }

    /// Reads one point by its own address. Whether an answer came.
    pub async fn read_one(&mut self, id: u64, route: Route) -> bool {
        let path = format!("/collections/{}/points/{id}", self.site.collection);
        self.operate(Operation::Read(vec![id]), route, Method::GET, path, Value::Null).await
    }

    /// Reads points by ids. Whether an answer came.
    pub async fn read(&mut self, ids: Vec<u64>, route: Route) -> bool {
        let path = format!("/collections/{}/points", self.site.collection);
        let body = json!({"ids": ids, "with_payload": true, "with_vector": true});
        self.operate(Operation::Read(ids), route, Method::POST, path, body).await
    }

    /// Searches exactly, with the vector of a point, in the session of a token: that of whoever was told that the point
    /// is there. Without a token any point may be missing, unless it was everywhere before the run.
    pub async fn search(&mut self, search: Operation, token: Option<&str>) -> bool {
        let Operation::Search { near, limit, .. } = &search else { panic!("this is no search: {search:?}") };
        let body = json!({
            "query": content::vector(*near), "limit": limit, "with_payload": true, "params": {"exact": true},
        });
        let path = format!("/collections/{}/points/query", self.site.collection);
        self.requests += 1;
        let at = (self.home + self.requests) % self.rests.len();
        let call = Call { at, method: Method::POST, path, body, token };
        let (answer, record) = self.call(search.clone(), call).await;
        self.conclude(answer, record)
    }

    async fn operate(&mut self, operation: Operation, route: Route, method: Method, path: String, body: Value) -> bool {
        self.requests += 1;
        let others = self.rests.len().saturating_sub(1).max(1);
        let at = match route {
            Route::Home => self.home,
            Route::Other => (self.home + 1 + self.requests % others) % self.rests.len(),
        };
        let needs_token = at != self.home || !self.is_at_home;
        let token = self.token.clone().filter(|_| needs_token);
        let call = Call { at, method, path, body, token: token.as_deref() };
        let (answer, record) = self.call(operation, call).await;
        if let Some(answer) = &answer
            && answer.session.is_some()
        {
            self.token = answer.session.clone();
        }
        self.conclude(answer, record)
    }

    async fn call(&self, operation: Operation, call: Call<'_>) -> (Option<Answer>, Record) {
        let (via, _) = &self.site.coordinators[call.at];
        let start = self.site.history.now();
        let answer = self.rests[call.at].call_in_session(call.method, &call.path, &call.body, call.token).await;
        let end = self.site.history.now();
        let outcome = judge(&operation, &answer);
        let (client, has_token) = (self.identity, call.token.is_some());
        (answer.ok(), Record { client, via: via.clone(), has_token, operation, outcome, start, end })
    }

    /// Records the operation, and decides who the client is afterwards.
    fn conclude(&mut self, answer: Option<Answer>, record: Record) -> bool {
        let is_ok = record.is_ok();
        let was_unknown = matches!(record.outcome, Outcome::Unknown(_));
        let home_is_gone = answer.is_none() && record.via == self.site.coordinators[self.home].0;
        self.site.history.push(record);
        if was_unknown {
            self.identity = self.site.next_client.fetch_add(1, Ordering::Relaxed);
            (self.token, self.is_at_home) = (None, true);
        }
        if home_is_gone {
            // As a client with several addresses does: it goes on elsewhere, in its session when that goes on.
            self.home = (self.home + 1) % self.rests.len();
            self.is_at_home = self.token.is_none();
        }
        is_ok
    }
}

/// What an answer, or none, says of an operation.
fn judge(operation: &Operation, answer: &Result<Answer, reqwest::Error>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        // No connection came about, so no byte of the request was sent.
        Err(error) if error.is_connect() => return Outcome::Fail("no connection".to_owned()),
        Err(error) if error.is_timeout() => return Outcome::Unknown("time-out".to_owned()),
        Err(_) => return Outcome::Unknown("broken connection".to_owned()),
    };
    let told = || format!("{}: {}", answer.status, answer.error());
    match (operation, answer.status) {
        (Operation::Write(_), 200) => Outcome::Ok(Found::default()),
        (_, 200) => Outcome::Ok(content::found(answer)),
        (Operation::Read(ids), 404) if ids.len() == 1 && !answer.error().contains("ollection") => {
            // A statement about the one shard that would hold the point.
            let coverage = Coverage { answered: 1, asked: 1, is_explained: true };
            Outcome::Ok(Found { points: Vec::new(), coverage: Some(coverage) })
        }
        (Operation::Write(versions), LIMIT) if versions.len() == 1 => Outcome::Fail(told()),
        (Operation::Write(_), status) if REFUSED.contains(&status) && !answer.error().contains(NOT_BY_ALL) => {
            Outcome::Fail(told())
        }
        // A part may have been carried out, or all of it while the answer got lost inside.
        (Operation::Write(_), _) => Outcome::Unknown(told()),
        (Operation::Read(_) | Operation::Search { .. }, _) => Outcome::Fail(told()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: Value) -> Result<Answer, reqwest::Error> {
        Ok(Answer { status, body, coverage: Some("4/4".to_owned()), session: None })
    }

    #[test]
    fn only_what_certainly_did_not_happen_is_a_failure() {
        let version = Version { id: 1, serial: 1 };
        let (one, two) = (Operation::Write(vec![version]), Operation::Write(vec![version, version]));
        let error = || json!({"status": {"error": "busy"}});
        for (operation, status, is_known) in
            [(&one, 422, true), (&one, 429, true), (&two, 429, false), (&one, 503, false), (&one, 408, false)]
        {
            let outcome = judge(operation, &answer(status, error()));
            assert_eq!(matches!(outcome, Outcome::Fail(_)), is_known, "{status}: {outcome:?}");
            assert_eq!(matches!(outcome, Outcome::Unknown(_)), !is_known, "{status}: {outcome:?}");
        }
        assert_eq!(judge(&one, &answer(200, json!({}))), Outcome::Ok(Found::default()));
    }

    #[test]
    fn a_point_that_is_not_there_is_an_answer() {
        let missing = json!({"status": {"error": "Not found: Point with id 1 does not exists!"}});
        let Outcome::Ok(found) = judge(&Operation::Read(vec![1]), &answer(404, missing)) else { panic!() };
        assert!(found.points.is_empty() && found.coverage.unwrap().is_full());
        let gone = json!({"status": {"error": "Not found: Collection `x` doesn't exist!"}});
        assert!(matches!(judge(&Operation::Read(vec![1]), &answer(404, gone)), Outcome::Fail(_)));
    }
}
