//! The clients: each writes points of its own and reads them back at once, through any coordinator: the session token that
//! it carries from answer to answer makes it see its own writes.
//!
//! In collections that are routed by cluster they do all there is to do: see `changes`, `reads` and `maps`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::entropy;
use super::model::{Model, Value};
use super::network::{RestRequest, SimTransport};
use super::points::{Held, vector};
use super::site::Site;

/// The collection everything is written to.
pub(super) const COLLECTION: &str = "points";
/// Points that a client works on at a time; where they have copies by their vectors, there are more to be grouped.
const POINTS: usize = 8;
const CLUSTERED_POINTS: usize = 40;
/// Ids of one client.
pub(super) const IDS: u64 = 1_000_000;
/// Groups of one client, of which it uses a few at a time.
const GROUPS: u64 = 1_000;
const GROUPS_AT_ONCE: u64 = 4;
/// Header with the session token.
const SESSION: &str = "x-vicinal-session";
/// Longest time of a request.
const PATIENCE: Duration = Duration::from_secs(8);

/// What all clients share.
#[derive(Default)]
pub(super) struct Work {
    pub(super) model: Model,
    /// There is a collection.
    pub(super) is_ready: AtomicBool,
    /// Enough.
    pub(super) is_over: AtomicBool,
    /// Points have copies in search shards.
    pub(super) is_clustered: AtomicBool,
}

/// What came back of a request, if anything did.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) json: Json,
    pub(super) is_whole: bool,
}

/// One client.
pub(super) struct Client {
    transport: SimTransport,
    coordinators: Vec<&'static str>,
    pub(super) work: Arc<Work>,
    /// Its number, by which its points and groups are told from those of others.
    pub(super) number: u64,
    /// Where requests go, drawn apart from what they are.
    ways: Mutex<u64>,
    session: Mutex<Option<String>>,
    random: u64,
    next_id: u64,
    /// Points it works on.
    pub(super) active: BTreeSet<u64>,
    /// Points that a write without an answer may still change.
    pub(super) retired: BTreeSet<u64>,
    /// Groups that its points are in. One that a write without an answer may still look for is left out.
    pub(super) groups: Vec<u64>,
    pub(super) next_group: u64,
}

impl Client {
    /// Client number `number` (from 1), which asks these coordinators.
    pub(super) fn new(
        site: Arc<Site>,
        number: u64,
        coordinators: Vec<&'static str>,
        work: Arc<Work>,
        mut random: u64,
    ) -> Client {
        let ways = Mutex::new(entropy::next(&mut random));
        let (transport, session) = (SimTransport { site }, Mutex::default());
        let next_group = number * GROUPS + GROUPS_AT_ONCE;
        Client {
            transport,
            coordinators,
            work,
            number,
            ways,
            session,
            random,
            next_id: number * IDS,
            active: BTreeSet::new(),
            retired: BTreeSet::new(),
            groups: (number * GROUPS..next_group).collect(),
            next_group,
        }
    }

    /// Makes the collection, again and again until it is there.
    pub(super) async fn create_collection(&self, layout: &Json) {
        let mut body = layout.clone();
        body["vectors"] = json!({"size": 4, "distance": "Euclid"});
        // Low enough that segments get indexes.
        body["optimizers_config"] = json!({"indexing_threshold": 1});
        loop {
            let answer = self.call("PUT", &format!("/collections/{COLLECTION}"), &body).await;
            // Another try may have made it.
            if answer.is_some_and(|answer| answer.status == 200 || answer.status == 409) {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Works until it is told that it is enough.
    pub(super) async fn run(mut self) {
        while !self.work.is_ready.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
        }
        while !self.work.is_over.load(Ordering::Relaxed) {
            let is_clustered = self.work.is_clustered.load(Ordering::Relaxed);
            while self.active.len() < if is_clustered { CLUSTERED_POINTS } else { POINTS } {
                self.active.insert(self.next_id);
                self.next_id += 1;
            }
            match (is_clustered, self.draw(100)) {
                (false, 0..45) => self.upsert().await,
                (false, 45..55) => self.delete().await,
                (false, 55..85) => self.retrieve().await,
                (false, _) => self.search().await,
                (true, 0..4) => self.change_maps().await,
                (true, 4..52) => self.change_points().await,
                (true, _) => self.look().await,
            }
            let pause = 2 + self.draw(40);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    pub(super) fn draw(&mut self, below: u64) -> u64 {
        entropy::next(&mut self.random) % below
    }

    pub(super) fn pick(&mut self) -> u64 {
        let place = self.draw(self.active.len() as u64) as usize;
        self.active.iter().nth(place).copied().unwrap_or(self.next_id)
    }

    async fn upsert(&mut self) {
        let ids: BTreeSet<u64> = (0..=self.draw(3)).map(|_| self.pick()).collect();
        let ids: Vec<u64> = ids.into_iter().collect();
        let serial = self.work.model.next_serial();
        // Enough of it for segments of a few writes.
        let filling = "x".repeat(self.draw(600) as usize);
        let point = |id: &u64| json!({"id": id, "vector": vector(*id, serial), "payload": {"serial": serial, "filling": filling}});
        let body = json!({"points": ids.iter().map(point).collect::<Vec<_>>()});
        let path = format!("/collections/{COLLECTION}/points?wait=true&timeout=5");
        self.write("PUT", &path, &body, &ids, Some(Held::whole(serial, None))).await;
    }

    async fn delete(&mut self) {
        let ids = [self.pick()];
        let path = format!("/collections/{COLLECTION}/points/delete?wait=true&timeout=5");
        self.write("POST", &path, &json!({"points": ids}), &ids, None).await;
    }

    async fn write(&mut self, method: &str, path: &str, body: &Json, ids: &[u64], value: Value) {
        let answer = self.call(method, path, body).await;
        // Whatever is not an acknowledgement leaves open what happened.
        let is_acked = answer.is_some_and(|answer| answer.status == 200);
        self.written(&ids.iter().map(|id| (*id, vec![value])).collect(), is_acked);
        self.note(format_args!("wrote {ids:?} {value:?} acked {is_acked}"));
    }

    /// Notes what a request made of points. Those of which that is not known are not written again.
    pub(super) fn written(&mut self, changes: &BTreeMap<u64, Vec<Value>>, is_acked: bool) {
        self.work.model.written(changes, is_acked);
        if !is_acked {
            self.active.retain(|id| !changes.contains_key(id));
            self.retired.extend(changes.keys());
        }
    }

    pub(super) async fn retrieve(&mut self) {
        let id = self.pick();
        let known = self.work.model.known(id);
        match self.read(id, "").await {
            Some(found) if !known.allows(found) => {
                self.violated(format_args!("read {found:?} of point {id}, which holds {known:?}"));
            }
            Some(_) => self.work.model.read(),
            None => self.work.model.read_failed(),
        }
    }

    /// What a point holds, if that could be read.
    pub(super) async fn read(&self, id: u64, params: &str) -> Option<Value> {
        let answer = self.call("GET", &format!("/collections/{COLLECTION}/points/{id}{params}"), &Json::Null).await?;
        let found = match answer.status {
            200 => Some(Some(Held::shown(id, &answer.json["result"]))),
            404 => Some(None),
            _ => None,
        };
        self.note(format_args!("read {id} {found:?}"));
        found
    }

    /// Looks for a point by its vector: it must be the nearest to itself.
    async fn search(&mut self) {
        let id = self.pick();
        let known = self.work.model.known(id);
        let Some(serial) = known.acked.and_then(|held| held.vector) else { return };
        let body = json!({"query": vector(id, serial), "limit": 1, "with_payload": true, "params": {"exact": true}});
        let path = format!("/collections/{COLLECTION}/points/query?timeout=5");
        let Some(answer) = self.call("POST", &path, &body).await.filter(|a| a.status == 200 && a.is_whole) else {
            self.work.model.read_failed();
            return;
        };
        self.work.model.read();
        let hit = &answer.json["result"]["points"][0];
        let found = (hit["id"].as_u64(), hit["payload"]["serial"].as_u64());
        self.note(format_args!("searched {id} {serial} {found:?}"));
        if found != (Some(id), Some(serial)) {
            self.violated(format_args!("searched for point {id} with {serial} and found {found:?}"));
        }
    }

    /// Notes that a promise was broken.
    pub(super) fn violated(&self, what: std::fmt::Arguments<'_>) {
        let name = self.transport.site.name;
        self.note(format_args!("VIOLATED: {what}"));
        self.work.model.violated(format!("{name} {what}"));
    }

    /// Sends a request to any of the coordinators.
    pub(super) async fn call(&self, method: &str, path: &str, body: &Json) -> Option<Answer> {
        let session = self.session.lock().clone();
        let (answer, session) = self.call_with(session, method, path, body).await?;
        *self.session.lock() = session;
        Some(answer)
    }

    /// The same with another session token than its own, or none. The answer has the token for what comes after it.
    pub(super) async fn call_with(
        &self,
        session: Option<String>,
        method: &str,
        path: &str,
        body: &Json,
    ) -> Option<(Answer, Option<String>)> {
        let (mut headers, bytes) = match body {
            Json::Null => (Vec::new(), Vec::new()),
            body => (vec![("content-type".to_owned(), "application/json".to_owned())], body.to_string().into_bytes()),
        };
        headers.extend(session.clone().map(|token| (SESSION.to_owned(), token)));
        let way = entropy::next(&mut self.ways.lock()) as usize % self.coordinators.len();
        let to = self.coordinators[way];
        let request = RestRequest { method: method.to_owned(), path: path.to_owned(), headers, body: bytes };
        let answer = self.transport.rest(to, request, PATIENCE).await.ok()?;
        let header = |wanted| answer.headers.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str());
        let coverage = header("x-vicinal-coverage");
        let is_whole = coverage.and_then(|text| text.split_once('/')).is_none_or(|(got, asked)| got == asked);
        let session = header(SESSION).map(str::to_owned).or(session);
        let json = serde_json::from_slice(&answer.body).unwrap_or(Json::Null);
        Some((Answer { status: answer.status, json, is_whole }, session))
    }

    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        let site = &self.transport.site;
        site.trace.note_here(format_args!("{} {what}", site.name));
    }
}
