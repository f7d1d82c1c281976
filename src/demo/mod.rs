//! `vicinal dev --demo`: a real collection to look at. It is loaded over REST, like anybody's data, and only once.

mod data;
mod picture;
mod report;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::json;

use crate::rest::Rest;

/// Name of the collection.
const COLLECTION: &str = "fashion";
/// Shards it is created with.
const SHARDS: u32 = 4;
/// Points per upload request.
const BATCH: usize = 500;
/// Longest wait for the index.
const INDEX_WAIT: Duration = Duration::from_secs(300);
/// Pause between two looks at the state of the index.
const INDEX_POLL: Duration = Duration::from_millis(50);

/// Makes sure that the demo collection is complete on the server at `url`, searches in it and prints what was found.
pub(crate) async fn run(url: &str) -> anyhow::Result<()> {
    let rest = Rest::new(url)?;
    let loaded = load(&rest).await?;
    let indexed = wait_for_index(&rest).await?;
    report::print(&rest, url, &loaded, indexed).await
}

/// What happened to the data.
enum Loaded {
    /// It was there.
    Found,
    /// It was uploaded in this time.
    Uploaded(Duration),
}

async fn load(rest: &Rest) -> anyhow::Result<Loaded> {
    let collection = format!("/collections/{COLLECTION}");
    let exists = rest.get(&format!("{collection}/exists")).await?["exists"] == json!(true);
    if exists {
        let info = rest.get(&collection).await?;
        let vectors = &info["config"]["params"]["vectors"];
        let is_ours = vectors["size"] == json!(data::DIM) && vectors["distance"] == json!("Euclid");
        ensure!(is_ours, "a collection `{COLLECTION}` of another kind exists; delete it to see the demo");
        let count = rest.post(&format!("{collection}/points/count"), &json!({"exact": true})).await?;
        if count["count"] == json!(data::ROWS) {
            tracing::info!("demo: found the collection `{COLLECTION}` with {} points, nothing to load", data::ROWS);
            return Ok(Loaded::Found);
        }
        tracing::info!("demo: the collection `{COLLECTION}` is incomplete, loading it again");
    } else {
        tracing::info!("demo: loading {} pictures into the new collection `{COLLECTION}`", data::ROWS);
        let create = json!({"vectors": {"size": data::DIM, "distance": "Euclid"}, "shard_number": SHARDS});
        rest.put(&collection, &create).await?;
    }
    upload(rest).await.map(Loaded::Uploaded)
}

async fn upload(rest: &Rest) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let style = ProgressStyle::with_template("loading   {bar:40} {pos:>6}/{len} points, {per_sec}")?;
    // Draws on stderr, and only when that is a terminal.
    let bar = ProgressBar::new(data::ROWS as u64).with_style(style);
    let mut images = data::Images::open()?;
    loop {
        let batch = images.next_batch(BATCH)?;
        if batch.is_empty() {
            break;
        }
        let mut body = String::from("{\"points\":[");
        for (i, image) in batch.iter().enumerate() {
            if i > 0 {
                body.push(',');
            }
            image.push_point(&mut body);
        }
        body.push_str("]}");
        rest.send_encoded(Method::PUT, &format!("/collections/{COLLECTION}/points?wait=true"), body.into()).await?;
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(started.elapsed())
}

/// Returns how long it took until every vector could be found through the index.
async fn wait_for_index(rest: &Rest) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let style = ProgressStyle::with_template("indexing  {bar:40} {pos:>6}/{len} vectors")?;
    let bar = ProgressBar::new(data::ROWS as u64).with_style(style);
    loop {
        let info = rest.get(&format!("/collections/{COLLECTION}")).await?;
        bar.set_position(info["indexed_vectors_count"].as_u64().unwrap_or(0));
        match info["status"].as_str() {
            Some("green") => break,
            Some("red") => bail!("the collection `{COLLECTION}` is broken: {}", info["optimizer_status"]),
            _ if started.elapsed() > INDEX_WAIT => {
                bail!("the index of `{COLLECTION}` is not ready after {INDEX_WAIT:?}; searches work, only slower")
            }
            _ => tokio::time::sleep(INDEX_POLL).await,
        }
    }
    bar.finish_and_clear();
    Ok(started.elapsed())
}
