//! Waiting until a collection that is routed by cluster is searched at its search shards.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::load::Collection;

/// Longest wait, and pause between two looks.
const ROUTED_WAIT: Duration = Duration::from_secs(3_600);
const ROUTED_POLL: Duration = Duration::from_millis(200);

impl Collection<'_> {
    /// Has a map trained, unless that is going on, and waits until it is served and the graphs of the search shards are
    /// built. Returns how long that took.
    pub(super) async fn wait_until_routed(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            let info = self.rest.get(self.path).await?;
            let method = &info["config"]["routing"]["method"];
            ensure!(*method == json!("cluster"), "`{}` is routed by {method}, not by cluster", self.serve.collection);
            let routing = &info["routing"];
            if routing["searched_at"] == json!("search shards") && routing["operation"].is_null() {
                break;
            }
            if routing["operation"].is_null()
                && let Err(error) = self.rest.post(&format!("{}/routing/train", self.path), &json!({})).await
            {
                // It may have begun by itself since, which the next look tells.
                eprintln!("no map can be trained yet: {error:#}");
            }
            ensure!(started.elapsed() < ROUTED_WAIT, "no map is served after {ROUTED_WAIT:?}: {routing}");
            tokio::time::sleep(ROUTED_POLL).await;
        }
        self.wait_until_green().await?;
        Ok(started.elapsed())
    }
}
