//! `vicinal bench ingest`: how fast vectors go in, acknowledged and durable.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::npy::Matrix;
use super::timing::{Latencies, merged, per_second};
use super::{Source, data};
use crate::rest::Rest;

/// Longest wait for the index when it is asked for.
const INDEX_WAIT: Duration = Duration::from_secs(3_600);

/// Its flags.
#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:6333")]
    url: String,
    /// Collection to fill; one of this name is deleted first
    #[arg(long, default_value = "bench")]
    collection: String,
    #[command(flatten)]
    source: Source,
    /// Use at most so many vectors
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Points per request
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Requests in flight
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// Shards of the collection
    #[arg(long, default_value_t = 4)]
    shards: u32,
    /// Replicas of each shard
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// Cosine, Dot, Euclid or Manhattan
    #[arg(long, default_value = "Euclid")]
    distance: String,
    /// Also build the index, and say how long it took after the last acknowledgement
    #[arg(long)]
    index: bool,
}

/// Runs it.
pub(super) async fn run(ingest: &Ingest) -> anyhow::Result<Value> {
    if ingest.batch == 0 || ingest.clients == 0 {
        bail!("--batch and --clients must be 1 or larger");
    }
    let base = data::base(&ingest.source, ingest.limit)?;
    let bodies: Arc<Vec<Bytes>> = Arc::new(encode(&base, ingest.batch));
    let body_bytes: usize = bodies.iter().map(Bytes::len).sum();

    let rest = Rest::new(&ingest.url)?;
    let collection = format!("/collections/{}", ingest.collection);
    rest.delete(&collection).await?;
    let mut create = json!({
        "vectors": {"size": base.columns, "distance": ingest.distance},
        "shard_number": ingest.shards,
        "replication_factor": ingest.replicas,
    });
    if !ingest.index {
        create["optimizers_config"] = json!({"indexing_threshold": 0});
    }
    rest.put(&collection, &create).await?;

    let started = Instant::now();
    let latencies = upload(&rest, &format!("{collection}/points?wait=true"), &bodies, ingest.clients).await?;
    let time = started.elapsed();
    let count = rest.post(&format!("{collection}/points/count"), &json!({"exact": true})).await?;
    if count["count"] != json!(base.rows()) {
        bail!("{} points were acknowledged, the server counts {}", base.rows(), count["count"]);
    }
    let index_seconds = if ingest.index { Some(wait_for_index(&rest, &collection).await?) } else { None };
    Ok(merged([
        json!({
            "bench": "ingest",
            "points": base.rows(),
            "dim": base.columns,
            "shards": ingest.shards,
            "batch": ingest.batch,
            "clients": ingest.clients,
            "body_mb": (body_bytes as f64 / 1e4).round() / 1e2,
            "seconds": (time.as_secs_f64() * 1e3).round() / 1e3,
            "points_per_s": per_second(base.rows(), time),
            "index_s": index_seconds,
        }),
        latencies.summary(),
    ]))
}

/// Bodies of `batch` points each; a row's number is its id.
fn encode(base: &Matrix<f32>, batch: usize) -> Vec<Bytes> {
    let rows: Vec<usize> = (0..base.rows()).collect();
    rows.chunks(batch)
        .map(|rows| {
            let mut body = String::from("{\"points\":[");
            for (i, row) in rows.iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                let _ = write!(body, "{comma}{{\"id\":{row},\"vector\":");
                push_vector(&mut body, base.row(*row));
                body.push('}');
            }
            body.push_str("]}");
            Bytes::from(body)
        })
        .collect()
}

/// A vector as a JSON array, each value in its shortest form.
pub(super) fn push_vector(body: &mut String, vector: &[f32]) {
    for (i, value) in vector.iter().enumerate() {
        let before = if i == 0 { '[' } else { ',' };
        let _ = write!(body, "{before}{value}");
    }
    body.push(']');
}

/// Sends all bodies, `clients` at a time.
pub(super) async fn upload(
    rest: &Rest,
    path: &str,
    bodies: &Arc<Vec<Bytes>>,
    clients: usize,
) -> anyhow::Result<Latencies> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (rest, path, bodies, next) = (rest.clone(), path.to_owned(), bodies.clone(), next.clone());
            tokio::spawn(async move {
                let mut latencies = Latencies::default();
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    rest.send_encoded(Method::PUT, &path, body.clone()).await?;
                    latencies.add(started.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut all = Latencies::default();
    for task in tasks {
        all = all.join(task.await??);
    }
    Ok(all)
}

async fn wait_for_index(rest: &Rest, collection: &str) -> anyhow::Result<f64> {
    let started = Instant::now();
    while rest.get(collection).await?["status"] != json!("green") {
        if started.elapsed() > INDEX_WAIT {
            bail!("the index is not ready after {INDEX_WAIT:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((started.elapsed().as_secs_f64() * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_and_hold_every_row_once() {
        let base = Matrix { columns: 2, values: vec![0.0, 1.5, 255.0, -0.1, 1e-7, 3.0] };
        let bodies: Vec<Value> = encode(&base, 2).iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
        assert_eq!(bodies.len(), 2);
        let points: Vec<&Value> = bodies.iter().flat_map(|body| body["points"].as_array().unwrap()).collect();
        assert_eq!(points.len(), 3);
        for (row, point) in points.iter().enumerate() {
            assert_eq!(point["id"], json!(row));
            let vector: Vec<f32> = serde_json::from_value(point["vector"].clone()).unwrap();
            assert_eq!(vector, base.row(row));
        }
    }
}
