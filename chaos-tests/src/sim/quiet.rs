//! What reads must show of a collection that is routed by cluster once nothing changes any more: all ways to read it agree
//! with the model, and with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::check::Checker;
use super::client::{Answer, COLLECTION};
use super::maps::{CLUSTERS, by_cluster};
use super::points::{Change, Held, Targets, vector};

/// Longest time until a map is wanted and served, or until clusters are ready.
const WANTED: Duration = Duration::from_secs(90);
/// Pause before something is asked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// More than there are points.
const ALL: usize = 10_000;
/// Points written in the end: a map needs as many to be trained on.
const POINTS: u64 = 70;
/// Searches at a time.
const SEARCHES_AT_ONCE: usize = 16;

/// What points hold, by id.
type Points = BTreeMap<u64, Held>;

impl Checker {
    /// Has a map served, whatever the clients wanted last.
    pub(super) async fn want_map(&self) -> Result<(), String> {
        let deadline = Instant::now() + WANTED;
        let (change, ids) = (Change::Upsert(0), Targets::Ids((0..POINTS).collect()));
        let (serial, mut is_written) = (self.work.model.next_serial(), false);
        loop {
            if !is_written {
                let answer = self.ask("PUT", "points?wait=true", &change.body(&ids, serial, "")).await;
                is_written = answer.is_ok();
                let values = (0..POINTS).map(|id| (id, vec![change.of(None, serial)])).collect();
                self.work.model.written(&values, is_written);
            }
            // One after the other has its turn: what is not possible yet is refused.
            let _ = self.ask("PATCH", "", &by_cluster(2)).await;
            let is_served = {
                let (_, collection) = self.collection()?;
                let cluster = collection.routing.cluster();
                cluster.is_some_and(|cluster| cluster.serving.is_some() && !cluster.is_leaving)
            };
            if is_written && is_served {
                return Ok(());
            }
            let trained = self.ask("POST", "routing/train", &json!({})).await;
            if Instant::now() >= deadline {
                return Err(format!("no map is served {WANTED:?} after all is healed: {trained:?}"));
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks for something that must be answered whole.
    async fn ask(&self, method: &str, path: &str, body: &Json) -> Result<Json, String> {
        let path = format!("/collections/{COLLECTION}/{path}");
        match self.client.call(method, path.trim_end_matches('/'), body).await {
            Some(Answer { status: 200, json, is_whole: true }) => Ok(json["result"].clone()),
            Some(Answer { status, json, is_whole }) => {
                Err(format!("{method} {path} is answered with {status}, whole: {is_whole}: {json}"))
            }
            None => Err(format!("{method} {path} is not answered")),
        }
    }

    /// Reads with a majority: the checker has no session that knows what the clients wrote.
    async fn look(&self, path: &str, body: Json) -> Result<Json, String> {
        self.ask("POST", &format!("{path}?consistency=majority&timeout=10"), &body).await
    }

    /// All points that match.
    async fn scroll(&self, filter: &Json) -> Result<Points, String> {
        let body = json!({"limit": ALL, "filter": filter, "with_payload": true, "with_vector": true});
        let found = self.look("points/scroll", body).await?;
        shown("a page of all points", &found["points"])
    }

    /// Whether everything that is acknowledged is there once, however it is looked for.
    pub(super) async fn check_reads(&self) -> Result<(), String> {
        let points = self.scroll(&Json::Null).await?;
        let known = self.work.model.points();
        for (id, known) in &known {
            let found = points.get(id).copied();
            if !known.allows(found) {
                return Err(format!("in the end a page shows {found:?} of point {id}, which holds {known:?}"));
            }
        }
        if let Some(id) = points.keys().find(|id| !known.contains_key(id)) {
            return Err(format!("in the end there is point {id}, which nobody wrote"));
        }
        let count = self.look("points/count", json!({})).await?["count"].clone();
        if count != json!(points.len()) {
            return Err(format!("in the end {count} points are counted, a page has {}", points.len()));
        }
        let with_vectors: Points = points.into_iter().filter(|(_, held)| held.vector.is_some()).collect();
        let everything = json!({"query": [0.0, 0.0, 0.0, 0.0], "limit": ALL, "params": {"exact": true},
            "with_payload": true, "with_vector": true});
        let found = self.look("points/query", everything).await?;
        same("a search for everything", &shown("a search for everything", &found["points"])?, &with_vectors)?;
        let searches: Vec<(u64, Held)> = with_vectors.into_iter().collect();
        for some in searches.chunks(SEARCHES_AT_ONCE) {
            let searches = some.iter().map(|(id, held)| self.find(*id, held));
            join_all(searches).await.into_iter().collect::<Result<(), String>>()?;
        }
        Ok(())
    }

    /// One search shard is enough to find a point by its vector.
    async fn find(&self, id: u64, held: &Held) -> Result<(), String> {
        let query = vector(id, held.vector.unwrap_or_default());
        let body = json!({"query": query, "limit": 1, "params": {"nprobe_shards": 1}});
        let found = self.look("points/query", body).await?;
        match found["points"][0]["id"] == json!(id) {
            true => Ok(()),
            false => Err(format!("in the end one search shard is asked for point {id}, {held:?}, and finds {found}")),
        }
    }

    /// Whether each point that has a vector is in one cluster, and clusters have as many points as they say.
    pub(super) async fn check_clusters(&self) -> Result<(), String> {
        let deadline = Instant::now() + WANTED;
        let clusters = loop {
            let wanted = self.ask("PUT", "clusters", &json!({"vector": "", "count": CLUSTERS})).await;
            sleep(PAUSE).await;
            let clusters = self.ask("GET", "clusters?consistency=majority", &Json::Null).await;
            match clusters {
                Ok(told) if told["of"] == "clustering" && told["training"].is_null() && told["ready"] == true => {
                    break told["clusters"].clone();
                }
                other if Instant::now() >= deadline => {
                    return Err(format!("clusters are not ready after {WANTED:?}: {wanted:?}, {other:?}"));
                }
                _ => {}
            }
        };
        let with_vectors = self.scroll(&json!({"must": [{"has_vector": ""}]})).await?;
        let mut all = Points::new();
        for cluster in clusters.as_array().into_iter().flatten() {
            let filter = json!({"must": [{"in_clusters": [cluster["id"]]}]});
            let points = self.scroll(&filter).await?;
            if cluster["size"] != json!(points.len()) {
                return Err(format!("{} points are in the cluster {cluster}", points.len()));
            }
            for (id, held) in points {
                if all.insert(id, held).is_some() {
                    return Err(format!("point {id} is in cluster {cluster} and in another one"));
                }
            }
        }
        same("all clusters together", &all, &with_vectors)
    }
}

/// The points of an answer.
fn shown(what: &str, points: &Json) -> Result<Points, String> {
    let mut shown = Points::new();
    for point in points.as_array().into_iter().flatten() {
        let id = point["id"].as_u64().ok_or_else(|| format!("{what} shows {point}"))?;
        if shown.insert(id, Held::shown(id, point)).is_some() {
            return Err(format!("{what} shows point {id} twice"));
        }
    }
    Ok(shown)
}

/// Whether an answer has what it must have.
fn same(what: &str, found: &Points, expected: &Points) -> Result<(), String> {
    let ids: BTreeSet<&u64> = found.keys().chain(expected.keys()).collect();
    let different = ids.into_iter().find(|id| found.get(*id) != expected.get(*id));
    let Some(id) = different else { return Ok(()) };
    Err(format!("in the end {what} shows {:?} of point {id}, not {:?}", found.get(id), expected.get(id)))
}
