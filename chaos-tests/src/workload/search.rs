//! Searches with a neighbour that is known to be there.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;

use super::known::Known;
use super::load::Turn;
use crate::client::{Client, Site};
use crate::op::Operation;

/// Most hits of a search.
const LIMIT_MAX: usize = 10;

/// One searching client.
pub(super) struct Searcher {
    pub(super) client: Client,
    pub(super) known: Arc<Known>,
    pub(super) rng: StdRng,
    /// Points that every replica held before the run.
    pub(super) base: usize,
}

impl Turn for Searcher {
    /// Searches once.
    async fn turn(&mut self, _: &Site) {
        let Some(point) = self.known.pick(&mut self.rng) else { return };
        let limit = self.rng.random_range(1..=LIMIT_MAX);
        let at_least = limit.min(self.base);
        let search = Operation::Search { near: point.version, must_find: true, limit, at_least };
        self.client.search(search, point.token.as_deref()).await;
    }
}
