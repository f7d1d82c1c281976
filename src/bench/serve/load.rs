//! The load phase: the collection, the points, the wait for its indexes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};
use vicinal_index::Rows;

use super::args::Serve;
use super::histogram::Histogram;
use super::points::{self, Payload};
use super::tally::ErrorKind;
use super::target::{Failure, Target};
use super::vectors::Vectors;
use crate::bench::index::truth::in_parallel;
use crate::bench::timing::{merged, per_second};
use crate::rest::Rest;

/// About how many bytes of bodies are encoded ahead, while the clock stands.
const ENCODED_BYTES: usize = 1 << 30;
/// About how many bytes a value takes in JSON, and a point beside its values.
const VALUE_BYTES: usize = 12;
const POINT_BYTES: usize = 64;
/// How often a batch is sent again that a busy or changing server did not take, and the pause before the first time; each
/// further one is longer by as much.
const RETRIES_MAX: u32 = 8;
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for the indexes, and pause between two looks.
const GREEN_WAIT: Duration = Duration::from_secs(3_600);
const GREEN_POLL: Duration = Duration::from_millis(50);
/// The collection counts as ready when it was green for so long: a server may begin to build a moment after the last
/// write.
const GREEN_FOR: Duration = Duration::from_secs(1);

/// The collection that is measured.
pub(super) struct Collection<'a> {
    pub(super) rest: &'a Rest,
    /// `/collections/<name>`
    pub(super) path: &'a str,
    pub(super) serve: &'a Serve,
    pub(super) vectors: &'a Vectors,
}

/// Whether this run made the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Now,
    Before,
}

impl Collection<'_> {
    /// Checks that the collection is there and is of these vectors, for a run that does not load it.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let info = self.rest.get(self.path).await?;
        let found = &info["config"]["params"]["vectors"];
        let (dim, distance) = (self.vectors.queries.columns, json!(self.vectors.metric.metric()));
        ensure!(
            found["size"] == json!(dim) && found["distance"] == distance,
            "the collection `{}` is of vectors {found}, the data set of dimension {dim} with distance {distance}",
            self.serve.collection
        );
        Ok(())
    }

    /// That the collection holds the points of the data set and no others, without which recall means nothing.
    pub(super) async fn check_count(&self) -> anyhow::Result<()> {
        let rows = self.vectors.rows()?.len();
        let count = self.rest.post(&format!("{}/points/count", self.path), &json!({"exact": true})).await?;
        ensure!(
            count["count"] == json!(rows),
            "the collection `{}` holds {} points, the data set {rows}; see --no-recall",
            self.serve.collection,
            count["count"]
        );
        Ok(())
    }

    /// Loads it and returns the fields of a line about that.
    pub(super) async fn load(&self, target: &Arc<Target>) -> anyhow::Result<Value> {
        let made = self.create_if_absent().await?;
        let rows = self.vectors.rows()?;
        let loaded = self.upload_all(target, rows).await?;
        let green = self.wait_until_green().await?;
        let routed = match self.serve.load.search_shards {
            Some(_) => Some(self.wait_until_routed().await?),
            None => None,
        };
        if made == Made::Now {
            self.check_count().await.context("not every point that was acknowledged is there")?;
        }
        let load = &self.serve.load;
        Ok(merged([
            json!({
                "phase": "load",
                "created": made == Made::Now,
                "points": rows.len(),
                "shards": load.shards,
                "replicas": load.replicas,
                "search_shards": load.search_shards,
                "routed_s": routed.map(seconds),
                "m": load.m,
                "ef_construct": load.ef_construct,
                "create": load.create,
                "batch": load.batch,
                "loaders": load.loaders,
                "payload_bytes": load.payload_bytes,
                "payload_index": load.payload_index,
                "body_mb": (loaded.body_bytes as f64 / 1e4).round() / 1e2,
                "seconds": seconds(loaded.time),
                "points_per_s": per_second(rows.len(), loaded.time),
                "mb_per_s": (loaded.body_bytes as f64 / 1e5 / loaded.time.as_secs_f64().max(1e-9)).round() / 10.0,
                "retries": loaded.retries,
                "green_s": seconds(green),
            }),
            loaded.latencies.summary(),
        ]))
    }

    async fn create_if_absent(&self) -> anyhow::Result<Made> {
        if self.rest.get(&format!("{}/exists", self.path)).await?["exists"] == json!(true) {
            self.check().await?;
            return Ok(Made::Before);
        }
        self.rest.put(self.path, &create_body(self.serve, self.vectors)).await?;
        if self.serve.load.payload_index {
            for (name, kind) in Payload::FIELDS {
                let index = json!({"field_name": name, "field_schema": kind});
                self.rest.put(&format!("{}/index?wait=true", self.path), &index).await?;
            }
        }
        Ok(Made::Now)
    }

    async fn upload_all(&self, target: &Arc<Target>, rows: Rows<'_>) -> anyhow::Result<Loaded> {
        let (batch, payload) = (self.serve.load.batch, self.serve.payload());
        let style = ProgressStyle::with_template("loading   {bar:40} {pos:>8}/{len} points, {per_sec}")?;
        let bar = ProgressBar::new(rows.len() as u64).with_style(style);
        let numbers: Vec<u32> = (0..u32::try_from(rows.len()).context("that are too many vectors")?).collect();
        let ahead = points_ahead(rows.dim, self.serve.load.payload_bytes.unwrap_or(0), batch);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut loaded = Loaded::default();
        for part in numbers.chunks(ahead) {
            let batches: Vec<&[u32]> = part.chunks(batch).collect();
            let encode = |i: usize| points::body(rows, batches[i].iter().copied(), payload);
            let bodies = Arc::new(in_parallel(batches.len(), threads, encode));
            let upload = Upload {
                target: target.clone(),
                path: format!("{}/points?wait=true", self.path),
                bodies,
                next: AtomicUsize::new(0),
                points_per_body: batch,
                bar: bar.clone(),
            };
            loaded.add(upload.run(self.serve.load.loaders).await?);
            bar.set_position(u64::from(part.last().copied().unwrap_or(0)) + 1);
        }
        bar.finish_and_clear();
        Ok(loaded)
    }

    /// Returns the time until it was green for good.
    pub(super) async fn wait_until_green(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let style = ProgressStyle::with_template("indexing  {bar:40} {pos:>8}/{len} vectors, {msg}")?;
        let bar = ProgressBar::new(self.vectors.rows()?.len() as u64).with_style(style);
        let mut green_since = None;
        loop {
            let looked = started.elapsed();
            let info = self.rest.get(self.path).await?;
            bar.set_position(info["indexed_vectors_count"].as_u64().unwrap_or(0));
            bar.set_message(info["status"].as_str().unwrap_or_default().to_owned());
            match info["status"].as_str() {
                Some("green") => {
                    let since = *green_since.get_or_insert(looked);
                    if looked - since >= GREEN_FOR {
                        bar.finish_and_clear();
                        return Ok(since);
                    }
                }
                Some("red") => bail!("the collection is broken: {}", info["optimizer_status"]),
                _ => green_since = None,
            }
            ensure!(looked < GREEN_WAIT, "the collection is {} after {GREEN_WAIT:?}, not green", info["status"]);
            tokio::time::sleep(GREEN_POLL).await;
        }
    }
}

fn create_body(serve: &Serve, vectors: &Vectors) -> Value {
    let mut create = json!({
        "vectors": {"size": vectors.queries.columns, "distance": vectors.metric.metric()},
        "shard_number": serve.load.shards,
        "replication_factor": serve.load.replicas,
    });
    for (name, value) in [("m", serve.load.m), ("ef_construct", serve.load.ef_construct)] {
        if let Some(value) = value {
            create["hnsw_config"][name] = json!(value);
        }
    }
    if let Some(shards) = serve.load.search_shards {
        create["routing"] = json!({"method": "cluster", "search_shards": shards});
    }
    merged([create, serve.load.create.clone().unwrap_or_default()])
}

/// Points of whole batches that take about [`ENCODED_BYTES`].
fn points_ahead(dim: usize, payload_bytes: usize, batch: usize) -> usize {
    let point_bytes = dim * VALUE_BYTES + payload_bytes + POINT_BYTES;
    (ENCODED_BYTES / (point_bytes * batch)).max(1) * batch
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// What was loaded. The time is that of uploading alone.
#[derive(Default)]
struct Loaded {
    latencies: Histogram,
    body_bytes: usize,
    retries: u64,
    time: Duration,
}

impl Loaded {
    fn add(&mut self, more: Loaded) {
        self.latencies.merge(&more.latencies);
        self.body_bytes += more.body_bytes;
        self.retries += more.retries;
        self.time += more.time;
    }
}

/// Bodies that are sent by several tasks.
struct Upload {
    target: Arc<Target>,
    path: String,
    bodies: Arc<Vec<Bytes>>,
    next: AtomicUsize,
    points_per_body: usize,
    bar: ProgressBar,
}

impl Upload {
    async fn run(self, loaders: usize) -> anyhow::Result<Loaded> {
        let upload = Arc::new(self);
        let started = Instant::now();
        let tasks: Vec<_> = (0..loaders).map(|_| tokio::spawn(upload.clone().send_until_done())).collect();
        let mut loaded = Loaded::default();
        for task in tasks {
            loaded.add(task.await??);
        }
        loaded.time = started.elapsed();
        Ok(loaded)
    }

    async fn send_until_done(self: Arc<Upload>) -> anyhow::Result<Loaded> {
        let mut loaded = Loaded::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(body) = self.bodies.get(number) else { return Ok(loaded) };
            let started = Instant::now();
            loaded.retries += self.send(number as u64, body).await?;
            loaded.latencies.add(started.elapsed());
            loaded.body_bytes += body.len();
            self.bar.inc(self.points_per_body as u64);
        }
    }

    /// Returns how often it was sent again.
    async fn send(&self, number: u64, body: &Bytes) -> anyhow::Result<u64> {
        let mut retries = 0;
        loop {
            // A retry goes to another server, where there is one.
            let server = number + u64::from(retries);
            match self.target.send(server, Method::PUT, &self.path, body.clone()).await {
                Ok(_) => return Ok(u64::from(retries)),
                Err(failure) if retries < RETRIES_MAX && is_worth_a_retry(&failure) => {
                    retries += 1;
                    tokio::time::sleep(RETRY_PAUSE * retries).await;
                }
                Err(failure) => {
                    bail!("loading failed after {retries} retries: {}: {}", failure.kind.name(), failure.text)
                }
            }
        }
    }
}

/// Upserts may be repeated: what was applied already is applied again without effect.
fn is_worth_a_retry(failure: &Failure) -> bool {
    match failure.kind {
        ErrorKind::Status(status) => matches!(status, 429 | 502 | 503 | 504),
        ErrorKind::Timeout | ErrorKind::Connect | ErrorKind::Broken => true,
        ErrorKind::Unreadable => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    #[test]
    fn a_new_collection_is_as_the_flags_say() {
        let create = |flags: &str| {
            let flags = format!("bench --random 3 --dim 5 --queries 2 {flags}");
            let serve = Line::try_parse_from(flags.split_whitespace()).unwrap().serve;
            create_body(&serve, &Vectors::read(&serve).unwrap())
        };
        let vectors = json!({"size": 5, "distance": "Euclid"});
        assert_eq!(create(""), json!({"vectors": vectors, "shard_number": 4, "replication_factor": 1}));
        let body = create("--m 16 --shards 2 --metric cosine --create {\"on_disk_payload\":true}");
        assert_eq!((&body["vectors"]["distance"], &body["shard_number"]), (&json!("Cosine"), &json!(2)));
        assert_eq!(body.get("routing"), None);
        let routed = create("--search-shards 3");
        assert_eq!(routed["routing"], json!({"method": "cluster", "search_shards": 3}));
        assert_eq!((&body["hnsw_config"], &body["on_disk_payload"]), (&json!({"m": 16}), &json!(true)));
    }

    #[test]
    fn as_many_points_are_encoded_ahead_as_fit() {
        assert_eq!(points_ahead(128, 0, 500) % 500, 0);
        assert!((400_000..800_000).contains(&points_ahead(128, 0, 500)));
        assert_eq!(points_ahead(65_536, 0, 100_000), 100_000);
    }

    #[test]
    fn only_what_can_pass_is_sent_again() {
        let worth = |kind| is_worth_a_retry(&Failure { kind, text: String::new() });
        assert!(worth(ErrorKind::Status(503)) && worth(ErrorKind::Status(429)) && worth(ErrorKind::Timeout));
        assert!(!worth(ErrorKind::Status(400)) && !worth(ErrorKind::Unreadable));
    }
}
