//! A bound on the requests that are worked on: beyond it they are refused at once, as a queue would only make all of them
//! late.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use vicinal_common::error::Error;
use vicinal_common::limits::REQUESTS_IN_FLIGHT_MAX;

use super::answer::Failure;
use crate::Coordinator;

/// What is always answered: whoever looks after this process must be able to see that it is alive and busy.
const ALWAYS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/metrics", "/telemetry"];
/// The same of the cluster and of a collection's replicas.
const ALWAYS_AT_END: &str = "/cluster";

/// Longest time a request waits because its collection is not known here.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A coordinator that follows may not have heard yet of a collection that another one has just told a client of: before
/// it says that there is none, it asks the leader how far the metadata is.
pub(super) async fn catch_up(coordinator: &Coordinator, collection: &str) {
    let catalog = &coordinator.catalog;
    if !catalog.is_leader()
        && catalog.state().resolve(collection).is_err()
        && let Err(error) = catalog.catch_up(Instant::now() + CATCH_UP).await
    {
        // The answer is then as good as this coordinator knows.
        tracing::debug!(%error, "the metadata may be behind");
    }
}

/// Lets a request through while there is room for it.
pub(super) async fn admit(coordinator: &Coordinator, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if ALWAYS.contains(&path) || path.ends_with(ALWAYS_AT_END) {
        return next.run(request).await;
    }
    let Ok(_place) = coordinator.admission.clone().try_acquire_owned() else {
        coordinator.shards.health.counters().add_refused();
        let text = format!("{REQUESTS_IN_FLIGHT_MAX} requests are being worked on, try again");
        return Failure::from(Error::Overloaded(text)).into_response();
    };
    next.run(request).await
}
