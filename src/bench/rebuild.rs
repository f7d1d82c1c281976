//! `vicinal bench query --rebuild`: how long searches take over REST while the server builds every index again.
//!
//! What makes it do so is that a part of the points is written again, just as they are: a segment in which so many rows
//! are dead is rewritten, and its indexes are built anew. So nothing has to be set back afterwards, and nothing is lost
//! when the tool is stopped half-way. Whoever else writes the same points meanwhile may lose that to the older state: this
//! is for collections that nobody writes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::ingest;
use super::timing::{Latencies, Spread, merged};
use crate::rest::Rest;

/// One point in so many is written again: more than the share of dead rows from which a segment is rewritten.
const WRITE_ONE_IN: u32 = 4;
/// Ids per page of the search for them, and points per request that reads or writes them.
const PAGE: usize = 10_000;
const BATCH: usize = 500;
/// Requests in flight while writing.
const WRITERS: usize = 2;
/// How often it is asked how far the server is. Each time costs it a little.
const POLL: Duration = Duration::from_millis(50);
/// Longest wait for the first build, and for the end of the last one.
const BEGIN_WAIT: Duration = Duration::from_secs(30);
const END_WAIT: Duration = Duration::from_secs(3_600);
/// Instead of the number of a look at the server: there will be no more.
const OVER: usize = usize::MAX;

/// Where to ask, and what.
pub(super) struct Asking<'a> {
    pub(super) rest: &'a Rest,
    /// Path of the collection.
    pub(super) collection: &'a str,
    pub(super) bodies: Arc<Vec<Bytes>>,
    pub(super) clients: usize,
    /// As [`indexed_at_rest`] told.
    pub(super) indexed: u64,
}

/// What was seen of the server.
#[derive(Default)]
struct Seen {
    seconds: f64,
    /// Vectors of each build, by shard, segment and name.
    builds: BTreeMap<(u64, u64, String), u64>,
    /// Each time, whether all points were in graphs, so that searches scanned none of them.
    all_in_graphs: Vec<bool>,
}

/// Vectors that are in graphs, or few enough to be scanned by design, when nothing is being built. An error when something
/// is: searches are measured at rest first.
pub(super) async fn indexed_at_rest(rest: &Rest, collection: &str) -> anyhow::Result<u64> {
    let info = rest.get(collection).await?;
    ensure!(
        info["status"] == json!("green"),
        "{collection} is {}: wait until all its indexes are built",
        info["status"]
    );
    info["indexed_vectors_count"].as_u64().context("the answer has no count of indexed vectors")
}

impl Asking<'_> {
    /// Has every index built again and asks until that is done.
    pub(super) async fn measure(&self, idle: Spread) -> anyhow::Result<Value> {
        let bodies = Arc::new(points_to_write(self.rest, self.collection).await?);
        let writing = Instant::now();
        let path = format!("{}/points?wait=true", self.collection);
        ingest::upload(self.rest, &path, &bodies, WRITERS).await?;
        let write_seconds = writing.elapsed().as_secs_f64();

        let looks = Arc::new(AtomicUsize::new(0));
        let watcher = {
            let (rest, collection, looks) = (self.rest.clone(), self.collection.to_owned(), looks.clone());
            let indexed = self.indexed;
            tokio::spawn(async move {
                let seen = watch(&rest, &collection, indexed, &looks).await;
                looks.store(OVER, Ordering::Release);
                seen
            })
        };
        let asked = self.ask_until_over(&looks).await?;
        let seen = watcher.await??;
        let points = self.rest.get(self.collection).await?["points_count"].take();
        let rounded = |seconds: f64| (seconds * 1e3).round() / 1e3;
        let of = |chosen: &dyn Fn(usize) -> bool| {
            let mut latencies = Latencies::default();
            asked.iter().filter(|(look, _)| chosen(*look)).for_each(|(_, latency)| latencies.add(*latency));
            beside(latencies, idle)
        };
        Ok(json!({"rebuild": merged([
            json!({
                "write_seconds": rounded(write_seconds),
                "seconds": rounded(seen.seconds),
                "builds": seen.builds.len(),
                "vectors_built": seen.builds.values().sum::<u64>(),
                "points": points,
            }),
            of(&|_| true),
            json!({
                "all_in_graphs": of(&|look| seen.is_all_in_graphs(look) == Some(true)),
                "some_scanned": of(&|look| seen.is_all_in_graphs(look) == Some(false)),
            }),
        ])}))
    }

    /// Asks until nobody looks at the server any more. Each latency comes with the number of looks before its query.
    async fn ask_until_over(&self, looks: &Arc<AtomicUsize>) -> anyhow::Result<Vec<(usize, Duration)>> {
        let next = Arc::new(AtomicUsize::new(0));
        let path = format!("{}/points/query", self.collection);
        let clients: Vec<_> = (0..self.clients)
            .map(|_| {
                let (rest, path, bodies) = (self.rest.clone(), path.clone(), self.bodies.clone());
                let (next, looks) = (next.clone(), looks.clone());
                tokio::spawn(async move {
                    let mut asked = Vec::new();
                    loop {
                        let look = looks.load(Ordering::Acquire);
                        if look == OVER {
                            return anyhow::Ok(asked);
                        }
                        let body = bodies[next.fetch_add(1, Ordering::Relaxed) % bodies.len()].clone();
                        let started = Instant::now();
                        rest.send_encoded(Method::POST, &path, body).await?;
                        asked.push((look, started.elapsed()));
                    }
                })
            })
            .collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.await??);
        }
        Ok(all)
    }
}

impl Seen {
    /// Whether all points were in graphs when a query was asked after so many looks; `None` when the looks before and
    /// after it do not agree.
    fn is_all_in_graphs(&self, looks: usize) -> Option<bool> {
        let before = self.all_in_graphs.get(looks.checked_sub(1)?)?;
        let after = self.all_in_graphs.get(looks)?;
        (before == after).then_some(*before)
    }
}

/// Latencies beside those at rest.
fn beside(latencies: Latencies, idle: Spread) -> Value {
    let queries = latencies.len();
    let spread = latencies.clone().spread();
    let ratio = |of: fn(&Spread) -> Duration| {
        let ratio = of(spread.as_ref()?).as_secs_f64() / of(&idle).as_secs_f64().max(1e-9);
        Some((ratio * 100.0).round() / 100.0)
    };
    let (p50_ratio, p99_ratio) = (ratio(|spread| spread.p50), ratio(|spread| spread.p99));
    let compared = json!({"queries": queries, "p50_ratio": p50_ratio, "p99_ratio": p99_ratio});
    merged([compared, latencies.summary()])
}

/// Bodies that write a part of the points again.
async fn points_to_write(rest: &Rest, collection: &str) -> anyhow::Result<Vec<Bytes>> {
    let mut ids = Vec::new();
    let mut offset = Value::Null;
    loop {
        let page = json!({"limit": PAGE, "with_payload": false, "with_vector": false, "offset": offset});
        let mut page = rest.post(&format!("{collection}/points/scroll"), &page).await?;
        let points = page["points"].as_array_mut().context("the answer has no points")?;
        ids.extend(points.iter_mut().map(|point| point["id"].take()));
        offset = page["next_page_offset"].take();
        if offset.is_null() {
            break;
        }
    }
    // Other ones each time: those that were written together once are in segments of their own.
    let mut random = rand::rng();
    let chosen: Vec<Value> = ids.into_iter().filter(|_| random.random_ratio(1, WRITE_ONE_IN)).collect();
    let mut bodies = Vec::with_capacity(chosen.len().div_ceil(BATCH));
    for ids in chosen.chunks(BATCH) {
        let wanted = json!({"ids": ids, "with_payload": true, "with_vector": true});
        let points = rest.post(&format!("{collection}/points"), &wanted).await?;
        bodies.push(Bytes::from(body_of(&points)?));
    }
    Ok(bodies)
}

/// The body that writes points as they were read.
fn body_of(points: &Value) -> anyhow::Result<String> {
    let points = points.as_array().context("the answer has no points")?;
    let points: Vec<Value> = points
        .iter()
        .map(|point| json!({"id": point["id"], "vector": point["vector"], "payload": point["payload"]}))
        .collect();
    Ok(json!({"points": points}).to_string())
}

/// Looks at the server until the last build has ended; counts the looks.
async fn watch(rest: &Rest, collection: &str, indexed: u64, looks: &AtomicUsize) -> anyhow::Result<Seen> {
    let started = Instant::now();
    let mut seen = Seen::default();
    loop {
        let info = rest.get(collection).await?;
        note_builds(&info, &mut seen.builds);
        seen.all_in_graphs.push(info["indexed_vectors_count"].as_u64() >= Some(indexed));
        looks.store(seen.all_in_graphs.len(), Ordering::Release);
        if info["status"] == json!("green") && !seen.builds.is_empty() {
            seen.seconds = started.elapsed().as_secs_f64();
            return Ok(seen);
        }
        if seen.builds.is_empty() && started.elapsed() > BEGIN_WAIT {
            bail!(
                "no index was built again within {BEGIN_WAIT:?}: the collection has none, or is too small for it to be seen"
            );
        }
        ensure!(started.elapsed() < END_WAIT, "the indexes are not built after {END_WAIT:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Notes the builds under way, with the vectors that each has to insert.
fn note_builds(info: &Value, builds: &mut BTreeMap<(u64, u64, String), u64>) {
    for build in info["builds"].as_array().into_iter().flatten() {
        let number = |field: &str| build[field].as_u64().unwrap_or_default();
        let name = build["vector"].as_str().unwrap_or_default().to_owned();
        builds.insert((number("shard_id"), number("segment"), name), number("vectors_count"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_written_as_they_were_read() {
        let read = json!([
            {"id": 7, "vector": [0.1, 0.25], "payload": {"a": 1}, "version": 3},
            {"id": "00000000-0000-0000-0000-000000000005", "vector": {"b": [1.5]}, "payload": null},
        ]);
        let body: Value = serde_json::from_str(&body_of(&read).unwrap()).unwrap();
        assert_eq!(body["points"][0], json!({"id": 7, "vector": [0.1, 0.25], "payload": {"a": 1}}));
        assert_eq!(body["points"][1]["vector"], json!({"b": [1.5]}));
        assert!(body_of(&json!({})).is_err());
    }

    #[test]
    fn a_build_that_is_seen_twice_counts_once() {
        let build = |segment: u64, done: u64| json!({"shard_id": 1, "segment": segment, "vector": "", "vectors_count": 100, "vectors_done": done});
        let mut builds = BTreeMap::new();
        for seen in [json!({"builds": [build(3, 5)]}), json!({"builds": [build(3, 80), build(4, 0)]}), json!({})] {
            note_builds(&seen, &mut builds);
        }
        assert_eq!((builds.len(), builds.values().sum::<u64>()), (2, 200));
    }

    #[test]
    fn a_query_between_two_looks_that_disagree_is_of_neither_kind() {
        let seen = Seen { all_in_graphs: vec![false, false, true, true], ..Seen::default() };
        let kinds: Vec<Option<bool>> = (0..5).map(|looks| seen.is_all_in_graphs(looks)).collect();
        assert_eq!(kinds, [None, Some(false), None, Some(true), None]);
    }
}
