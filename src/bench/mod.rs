//! `vicinal bench`: measures a running server over REST and prints one line of JSON. The figures hold for server and
//! client together, on the machines they run on. `vicinal bench index` measures one vector index,
//! `vicinal bench routing` how many shards a search has to ask, and `vicinal bench json` the reading and writing of JSON,
//! without any server.

mod data;
mod index;
mod ingest;
mod json;
mod npy;
mod query;
mod rebuild;
mod routing;
mod serve;
mod timing;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

/// The measurements.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Create a collection and upload vectors; every body is encoded before the clock starts
    Ingest(ingest::Ingest),
    /// Ask for nearest neighbours; with the exact answers in gt.npy also the recall
    Query(query::Query),
    /// Build a vector index over a data set and measure recall and speed of searching it; needs no server
    Index(index::Index),
    /// Train routing by cluster over a data set and measure how many shards a recall costs; needs no server
    Routing(routing::Routing),
    /// Measure what reading queries and upserts and writing answers costs; needs no server
    Json(json::Json),
    /// Load a collection of any server of Qdrant's REST API and ask it at chosen concurrencies or rates
    Serve(Box<serve::Serve>),
}

/// Where the vectors come from.
#[derive(Debug, Args)]
struct Source {
    /// Directory with base.npy or base_u8.npy, query.npy or query_u8.npy, gt.npy
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Instead of a directory: so many random vectors (uniform in 0..1, the same each time)
    #[arg(long, value_name = "N", conflicts_with = "data")]
    random: Option<usize>,
    /// Dimension of the random vectors
    #[arg(long, default_value_t = 128)]
    dim: usize,
}

/// Runs a measurement to its end.
pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Ingest(ingest) => on_runtime(ingest::run(ingest)),
        Bench::Query(query) => on_runtime(query::run(query)),
        // No runtime: nothing may run beside what is measured.
        Bench::Index(index) => index::run(index),
        Bench::Routing(routing) => routing::run(routing),
        Bench::Json(json) => json::run(json),
        Bench::Serve(serve) => serve::run(serve),
    }
}

fn on_runtime(measurement: impl Future<Output = anyhow::Result<Value>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    print_line(&runtime.block_on(measurement)?.to_string());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the lines are what the subcommands are for")]
fn print_line(line: &str) {
    println!("{line}");
}
