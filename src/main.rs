//! The `vicinal` binary: one file per subcommand.

mod bench;
mod cluster;
mod config;
mod coordinator;
mod data_dir;
mod demo;
mod dev;
mod health;
mod logging;
mod memory;
mod process;
mod rest;
mod shard_node;
mod traces;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A distributed, sharded retrieval cluster for approximate nearest neighbours.
#[derive(Parser)]
#[command(name = "vicinal", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process: REST server, coordinator and shard nodes
    Dev(config::DevArgs),
    /// Run a coordinator of a cluster: REST server, router, a part of the metadata group
    Coordinator(config::CoordinatorArgs),
    /// Run a shard node of a cluster: holds replicas of shards
    ShardNode(config::ShardNodeArgs),
    /// Show how a running cluster is
    Cluster(cluster::Cluster),
    /// Ask a process whether it is ready, for health checks of containers
    Health(health::Health),
    /// Measure a running server
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Dev(args) => dev::run(&args),
        Command::Coordinator(args) => coordinator::run(&args),
        Command::ShardNode(args) => shard_node::run(&args),
        Command::Cluster(cluster) => return cluster::run(&cluster),
        Command::Health(health) => return health::run(&health),
        Command::Bench(bench) => bench::run(&bench),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vicinal: {error:#}");
            ExitCode::FAILURE
        }
    }
}
