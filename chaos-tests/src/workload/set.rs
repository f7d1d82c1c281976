//! Unique inserts: every point is written once, and is there for ever after.

use std::sync::Arc;

use rand::rngs::StdRng;

use super::known::{Known, KnownPoint};
use super::load::Turn;
use crate::client::{Client, Route, Site};
use crate::op::Version;

/// One writer.
pub(super) struct SetWriter {
    pub(super) client: Client,
    pub(super) known: Arc<Known>,
    pub(super) rng: StdRng,
    /// Points of one insert; more than a few reach every shard.
    pub(super) batch: u64,
    pub(super) turns: u64,
}

impl Turn for SetWriter {
    /// Writes a batch; now and then reads it back.
    async fn turn(&mut self, site: &Site) {
        let first = site.serials(self.batch);
        let versions: Vec<Version> = (first..first + self.batch).map(|serial| Version { id: serial, serial }).collect();
        self.turns += 1;
        if !self.client.write(versions.clone()).await {
            return;
        }
        if let Some(token) = self.client.token() {
            let point = KnownPoint { version: versions[0], token: Some(token.to_owned()) };
            self.known.add(point, &mut self.rng);
        }
        let ids = versions.iter().map(|version| version.id).collect();
        match self.turns % 6 {
            0 => drop(self.client.read(ids, Route::Home).await),
            3 => drop(self.client.read(ids, Route::Other).await),
            _ => {}
        }
    }
}
