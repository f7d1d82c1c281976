//! `vicinal coordinator`: REST in, requests to shard nodes out, a part of the metadata group.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use vicinal_common::clock::SystemClock;
use vicinal_common::disk::RealDisk;
use vicinal_common::rng::SeededRng;
use vicinal_common::transport::http::HttpTransport;
use vicinal_common::transport::http::serve_router;
use vicinal_coordinator::CoordinatorOptions;
use vicinal_coordinator::http::{RestPlace, process_router};
use vicinal_coordinator::meta::SledStore;
use vicinal_coordinator::process::{CoordinatorProcess, Edge, ProcessEnv, ProcessOptions};

use crate::config::{CoordinatorArgs, CoordinatorConfig};
use crate::data_dir::DataDir;
use crate::traces::Export;
use crate::{logging, process};

/// Runs until it is told to stop.
pub(crate) fn run(args: &CoordinatorArgs) -> anyhow::Result<()> {
    let config = CoordinatorConfig::load(args)?;
    let export = Export::to(config.otlp_endpoint.as_deref(), "vicinal-coordinator", &config.id);
    let _traces = logging::start(&config.log, config.log_format, export)?;
    process::run(serve(config))
}

async fn serve(config: CoordinatorConfig) -> anyhow::Result<()> {
    let started = Instant::now();
    let stop = process::stop_signal()?;
    let data = DataDir::open(&config.data_dir)?;
    let listener = process::listen(&config.listen).await?;
    let url = process::url(listener.local_addr()?);
    let advertise = process::advertised(config.advertise.as_deref(), &url)?;
    let join = config.join.addresses("join")?.into_iter().filter(|address| *address != advertise).collect();
    let transport = Arc::new(HttpTransport::new().map_err(anyhow::Error::msg)?);
    let edge = Edge::new(&config.id, transport.clone());

    // Other coordinators are asked, and ask, before there is a cluster: so this listens first.
    let (rest, drain) = (RestPlace::default(), CancellationToken::new());
    let router = process_router(edge.clone(), rest.clone());
    let mut serving = tokio::spawn(serve_router(router, listener, drain.clone().cancelled_owned()));
    let dir = data.coordinator();
    let store = tokio::task::spawn_blocking({
        let dir = dir.clone();
        move || SledStore::open(&dir)
    });
    let env = ProcessEnv {
        store: Box::new(store.await??),
        space: Some((Arc::new(RealDisk), dir)),
        transport,
        rng: Arc::new(SeededRng::from_os()),
        clock: Arc::new(SystemClock),
    };
    let options = ProcessOptions {
        name: config.id.clone(),
        advertise: advertise.clone(),
        bootstrap: config.bootstrap,
        join,
        coordinator: CoordinatorOptions { default_shards: config.shards },
    };
    tokio::pin!(stop);
    tracing::info!("coordinator `{}` listens at {url}, reached by others at {advertise}", config.id);
    let coordinator = tokio::select! {
        coordinator = CoordinatorProcess::start(options, env, &edge) => coordinator?,
        () = &mut stop => return Ok(()),
    };
    rest.open(coordinator.coordinator().clone());
    let took = started.elapsed().as_secs_f64();
    tracing::info!("ready: coordinator `{}`, REST at {url}, started in {took:.2} s; Ctrl-C stops it", config.id);
    let served = tokio::select! {
        () = stop => {
            drain.cancel();
            serving.await
        }
        served = &mut serving => served,
    };
    if !coordinator.shutdown().await {
        tracing::warn!("not everything stopped in time; confirmed metadata is on the disk");
    }
    served.context("the server ended unexpectedly")?.context("the server failed")?;
    tracing::info!("stopped, all metadata is on disk");
    Ok(())
}
