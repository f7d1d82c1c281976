//! Serving a process's routes until it is told to stop.

use std::future::{Future, IntoFuture};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How long requests in flight may take once the server has been told to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Serves `router` on `listener` until `shutdown` completes, then lets requests in flight finish, for ten seconds at
/// most.
pub async fn serve_router(
    router: Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        // Without it small answers wait for the acknowledgement of the one before.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection cannot be set to send at once");
        }
    });
    let stopping = Arc::new(Notify::new());
    let told = stopping.clone();
    let shutdown = async move {
        shutdown.await;
        told.notify_one();
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown).into_future();
    let drained = async {
        stopping.notified().await;
        tokio::time::sleep(DRAIN_TIME_MAX).await;
    };
    tokio::select! {
        result = serving => result,
        () = drained => {
            tracing::warn!("requests that did not finish within {} seconds were dropped", DRAIN_TIME_MAX.as_secs());
            Ok(())
        }
    }
}
