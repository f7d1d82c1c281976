//! `vicinal bench query`: latency, throughput and, where the exact answers are known, recall.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ingest::push_vector;
use super::npy::Matrix;
use super::timing::{Latencies, merged, per_second};
use super::{data, rebuild};
use crate::rest::Rest;

/// Its flags.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:6333")]
    url: String,
    /// Collection to ask
    #[arg(long, default_value = "bench")]
    collection: String,
    /// Directory with query.npy or query_u8.npy and gt.npy; without it, stored vectors are the queries
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Random queries of the collection's dimension instead
    #[arg(long, conflicts_with = "data")]
    random: bool,
    /// Queries to ask; the set is repeated when it is shorter
    #[arg(long, default_value_t = 2_000)]
    queries: usize,
    /// Queries in flight
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Neighbours per query
    #[arg(long, default_value_t = 10)]
    limit: usize,
    /// Query beam (hnsw_ef); the server's choice when absent
    #[arg(long)]
    ef: Option<usize>,
    /// Scan exactly instead of using the index
    #[arg(long)]
    exact: bool,
    /// Then have the server build every index again, by writing a quarter of the points again as they are, and ask until
    /// it has; for a collection that nobody else writes to
    #[arg(long, conflicts_with = "exact")]
    rebuild: bool,
}

/// Queries asked before the clock starts, so that connections and mapped files are warm.
const WARM_UP: usize = 100;
/// Stored vectors used as queries when there are no others.
const STORED_QUERIES: usize = 1_000;

/// Runs it.
pub(super) async fn run(query: &Query) -> anyhow::Result<Value> {
    if query.queries == 0 || query.clients == 0 {
        bail!("--queries and --clients must be 1 or larger");
    }
    let rest = Rest::new(&query.url)?;
    let collection = format!("/collections/{}", query.collection);
    let indexed = match query.rebuild {
        true => Some(rebuild::indexed_at_rest(&rest, &collection).await?),
        false => None,
    };
    let (vectors, truth) = vectors(query, &rest).await?;
    let bodies: Arc<Vec<Bytes>> = Arc::new((0..vectors.rows()).map(|row| encode(query, vectors.row(row))).collect());
    let path = format!("{collection}/points/query");

    let warm_up: Vec<Bytes> = bodies.iter().take(WARM_UP).cloned().collect();
    ask(&rest, &path, &Arc::new(warm_up), WARM_UP.min(bodies.len()), query.clients).await?;
    let started = Instant::now();
    let (latencies, answers) = ask(&rest, &path, &bodies, query.queries, query.clients).await?;
    let time = started.elapsed();
    let rebuild = match (indexed, latencies.clone().spread()) {
        (Some(indexed), Some(idle)) => {
            let asking =
                rebuild::Asking { rest: &rest, collection: &collection, bodies, clients: query.clients, indexed };
            asking.measure(idle).await?
        }
        _ => Value::Null,
    };
    let recall = truth.map(|truth| recall(&answers, &truth, query.limit)).transpose()?;
    Ok(merged([
        json!({
            "bench": "query",
            "collection": query.collection,
            "queries": query.queries,
            "dim": vectors.columns,
            "clients": query.clients,
            "limit": query.limit,
            "ef": query.ef,
            "exact": query.exact,
            "seconds": (time.as_secs_f64() * 1e3).round() / 1e3,
            "qps": per_second(query.queries, time),
            "recall": recall,
        }),
        latencies.summary(),
        rebuild,
    ]))
}

async fn vectors(query: &Query, rest: &Rest) -> anyhow::Result<(Matrix<f32>, Option<Matrix<i32>>)> {
    if let Some(dir) = &query.data {
        return data::queries(dir, query.queries);
    }
    let collection = format!("/collections/{}", query.collection);
    if query.random {
        let info = rest.get(&collection).await?;
        let dim = info["config"]["params"]["vectors"]["size"].as_u64().context("the collection has named vectors")?;
        return Ok((data::random_queries(query.queries, usize::try_from(dim)?)?, None));
    }
    let page = json!({"limit": STORED_QUERIES.min(query.queries), "with_vector": true, "with_payload": false});
    let page = rest.post(&format!("{collection}/points/scroll"), &page).await?;
    let mut matrix = Matrix { columns: 0, values: Vec::new() };
    for point in page["points"].as_array().context("the answer has no points")? {
        let vector: Vec<f32> =
            serde_json::from_value(point["vector"].clone()).context("the collection has named vectors")?;
        matrix.columns = vector.len();
        matrix.values.extend(vector);
    }
    if matrix.values.is_empty() {
        bail!("the collection `{}` is empty", query.collection);
    }
    Ok((matrix, None))
}

fn encode(query: &Query, vector: &[f32]) -> Bytes {
    let mut body = String::from("{\"query\":");
    push_vector(&mut body, vector);
    body += &format!(",\"limit\":{}", query.limit);
    let params = match (query.ef, query.exact) {
        (Some(ef), exact) => format!(",\"params\":{{\"hnsw_ef\":{ef},\"exact\":{exact}}}"),
        (None, true) => ",\"params\":{\"exact\":true}".to_owned(),
        (None, false) => String::new(),
    };
    body += &params;
    body.push('}');
    Bytes::from(body)
}

/// Asks `n` queries and returns the answer bodies by number of the query.
async fn ask(
    rest: &Rest,
    path: &str,
    bodies: &Arc<Vec<Bytes>>,
    n: usize,
    clients: usize,
) -> anyhow::Result<(Latencies, Vec<(usize, Bytes)>)> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (rest, path, bodies, next) = (rest.clone(), path.to_owned(), bodies.clone(), next.clone());
            tokio::spawn(async move {
                let (mut latencies, mut answers) = (Latencies::default(), Vec::new());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= n {
                        return anyhow::Ok((latencies, answers));
                    }
                    let body = bodies[number % bodies.len()].clone();
                    let started = Instant::now();
                    let answer = rest.send_encoded(Method::POST, &path, body).await?;
                    latencies.add(started.elapsed());
                    // A repeated query brings nothing new for the recall.
                    if number < bodies.len() {
                        answers.push((number, answer));
                    }
                }
            })
        })
        .collect();
    let (mut latencies, mut answers) = (Latencies::default(), Vec::new());
    for task in tasks {
        let (more_latencies, more_answers) = task.await??;
        latencies = latencies.join(more_latencies);
        answers.extend(more_answers);
    }
    Ok((latencies, answers))
}

#[derive(Deserialize)]
struct Answer {
    result: Hits,
}

#[derive(Deserialize)]
struct Hits {
    points: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    id: i64,
}

/// Mean share of the `k` exact neighbours that were found, of the queries whose neighbours are known: files often list those of the
/// first ones only.
fn recall(answers: &[(usize, Bytes)], truth: &Matrix<i32>, k: usize) -> anyhow::Result<f64> {
    let k = k.min(truth.columns);
    let (mut found, mut known) = (0, 0);
    for (number, answer) in answers.iter().filter(|(number, _)| *number < truth.rows()) {
        known += 1;
        let answer: Answer = serde_json::from_slice(answer).context("an answer has not the expected form")?;
        let exact = &truth.row(*number)[..k];
        let hits = answer.result.points.iter().take(k);
        found += hits.filter(|hit| exact.iter().any(|row| i64::from(*row) == hit.id)).count();
    }
    Ok((found as f64 / (known * k).max(1) as f64 * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_is_the_share_of_the_exact_neighbours() {
        let truth = Matrix { columns: 3, values: vec![1, 2, 3, 4, 5, 6] };
        let answer = |ids: &[i64]| {
            let points: Vec<Value> = ids.iter().map(|id| json!({"id": id, "score": 1.0})).collect();
            Bytes::from(json!({"result": {"points": points}, "status": "ok", "time": 0.1}).to_string())
        };
        let answers = [(0, answer(&[2, 1])), (1, answer(&[4, 9]))];
        assert_eq!(recall(&answers, &truth, 2).unwrap(), 0.75);
        let more = [(0, answer(&[2, 1])), (1, answer(&[4, 9])), (2, answer(&[7, 8]))];
        assert_eq!(recall(&more, &truth, 2).unwrap(), 0.75, "of the third nothing is known");
        assert!(recall(&[(0, Bytes::from("{}"))], &truth, 2).is_err());
    }
}
