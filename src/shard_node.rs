//! `vicinal shard-node`: holds replicas of shards, answers coordinators.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vicinal_common::api::NodeDirectory;
use vicinal_common::clock::SystemClock;
use vicinal_common::disk::RealDisk;
use vicinal_common::rng::SeededRng;
use vicinal_common::telemetry::{Registry, metrics_router};
use vicinal_common::transport::http::serve_router;
use vicinal_common::transport::http::{HttpTransport, internal_router};
use vicinal_shard_node::node::{NodeEnv, NodeOptions};
use vicinal_shard_node::process::{Membership, NodeProcess, ProcessOptions};
use vicinal_shard_node::server::NodeHandler;
use vicinal_shard_node::shard::{Builder, BuilderOptions};

use crate::config::{ShardNodeArgs, ShardNodeConfig};
use crate::data_dir::DataDir;
use crate::traces::Export;
use crate::{logging, process};

/// Runs until it is told to stop, or its cluster refuses it.
pub(crate) fn run(args: &ShardNodeArgs) -> anyhow::Result<()> {
    let config = ShardNodeConfig::load(args)?;
    let export = Export::to(config.otlp_endpoint.as_deref(), "vicinal-shard-node", &config.id);
    let _traces = logging::start(&config.log, config.log_format, export)?;
    process::run(serve(config))
}

async fn serve(config: ShardNodeConfig) -> anyhow::Result<()> {
    let started = Instant::now();
    let stop = process::stop_signal()?;
    let data = DataDir::open(&config.data_dir)?;
    let listener = process::listen(&config.listen).await?;
    let url = process::url(listener.local_addr()?);
    let advertise = process::advertised(config.advertise.as_deref(), &url)?;
    let transport = Arc::new(HttpTransport::new().map_err(anyhow::Error::msg)?);
    let env = NodeEnv {
        disk: Arc::new(RealDisk),
        clock: Arc::new(SystemClock),
        rng: Arc::new(SeededRng::from_os()),
        transport,
        address: advertise.clone(),
        peers: NodeDirectory::default(),
        search: process::search_pool()?,
        builder: Builder::start(BuilderOptions::default())?,
    };
    let node = NodeOptions::new(data.sole_node(), &config.id);
    let options = ProcessOptions {
        node: process::with_choices(node, config.seal_bytes, config.disk_reserve_bytes),
        coordinators: config.coordinators.addresses("coordinators")?,
        zone: config.zone.clone(),
    };
    let node = NodeProcess::start(options, env).await?;
    let mut membership = node.membership();
    let drain = CancellationToken::new();
    let registry = Arc::new(Registry::default());
    registry.add(node.node().clone());
    let router = router(NodeHandler::new(node.node().clone()), membership.clone()).merge(metrics_router(registry));
    let mut serving = tokio::spawn(serve_router(router, listener, drain.clone().cancelled_owned()));
    tracing::info!("shard node `{}` listens at {url}, reached by others at {advertise}", config.id);
    let refused = async {
        let settled = membership.wait_for(|membership| *membership != Membership::Waiting).await;
        if settled.is_ok_and(|membership| *membership == Membership::Joined) {
            let took = started.elapsed().as_secs_f64();
            tracing::info!("ready: shard node `{}` at {url}, started in {took:.2} s; Ctrl-C stops it", config.id);
        }
        let refused = membership.wait_for(|membership| matches!(membership, Membership::Refused(_))).await;
        match refused.map(|membership| membership.clone()) {
            Ok(Membership::Refused(error)) => anyhow::Error::from(error),
            Ok(Membership::Waiting | Membership::Joined) | Err(_) => anyhow::anyhow!("reporting has ended"),
        }
    };
    let ended = tokio::select! {
        () = stop => Ok(()),
        error = refused => Err(error.context("the cluster refuses this node")),
        served = &mut serving => served.context("the server ended unexpectedly")?.context("the server failed"),
    };
    // Other replicas may need an answer of this one until they have taken over.
    node.shutdown().await;
    drain.cancel();
    if !serving.is_finished() {
        serving.await.context("the server ended unexpectedly")?.context("the server failed")?;
    }
    if ended.is_ok() {
        tracing::info!("stopped, all data is on disk");
    }
    ended
}

fn router(handler: NodeHandler, membership: watch::Receiver<Membership>) -> Router {
    let probes = Router::new()
        .route("/healthz", get(async || "healthz check passed"))
        .route("/livez", get(async || "healthz check passed"))
        .route("/readyz", get(readyz))
        .with_state(membership);
    internal_router(Arc::new(handler)).merge(probes)
}

async fn readyz(State(membership): State<watch::Receiver<Membership>>) -> (StatusCode, String) {
    match &*membership.borrow() {
        Membership::Joined => (StatusCode::OK, "the node is part of its cluster".into()),
        Membership::Waiting => (StatusCode::SERVICE_UNAVAILABLE, "no coordinator has taken this node in yet".into()),
        Membership::Refused(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
