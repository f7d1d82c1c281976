//! What routing by cluster asks of a shard: its role, who may read and write it, and what is there to be published.

use std::sync::Arc;

use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{Epoch, LogIndex, MapVersion};
use vicinal_common::point::{Point, PointId, Vectors};
use vicinal_common::publish::{Copy, Feed, MapRange, ShardRole};

use super::Shard;
use super::view::View;
use crate::segment::{Run, Source, live_rows};

/// What a copy counts for in a page beside its vector and payload, in bytes.
const COPY_BYTES: usize = 64;

impl Shard {
    /// Which part of its collection it is.
    pub fn role(&self) -> ShardRole {
        self.spec.role
    }

    /// Whether a request of this epoch is meant for the shard. To a home shard it is that of the token table; to a
    /// search shard the version of the map by which the search was routed, and `read` is the view it is answered from:
    /// not a later one, which may know more maps. Without a view any epoch will do there: copies are facts, whatever
    /// the map.
    pub fn check_epoch(&self, epoch: Epoch, read: Option<&View>) -> Result<()> {
        let shard = self.spec.shard;
        let wrong = |current: Epoch| Err(Error::WrongEpoch { shard, asked: epoch, current });
        match (self.spec.role, read) {
            (ShardRole::Home, _) if epoch != self.spec.epoch => wrong(self.spec.epoch),
            (ShardRole::Search, Some(view)) if !view.maps.contains(MapVersion(epoch.0)) => {
                let MapRange { oldest, newest } = view.maps;
                wrong(Epoch(if epoch.0 > newest.0 { newest.0 } else { oldest.0 }))
            }
            (ShardRole::Home | ShardRole::Search, _) => Ok(()),
        }
    }
}

impl View {
    /// Of a home shard: what it publishes.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Of a search shard: the maps by which it may be searched.
    pub fn maps(&self) -> MapRange {
        self.maps
    }

    /// The live rows with greater versions, ascending by version and id. Costs what the runs cost that have one: those
    /// that were written or merged since.
    pub fn newer_than(&self, after: LogIndex) -> Vec<(LogIndex, PointId)> {
        let mut newer = Vec::new();
        for Source { run, dead } in self.sources().filter(|source| source.run.max_version() > after) {
            let versions = run.versions().iter().enumerate();
            let rows = versions.filter(|(_, version)| **version > after.0).map(|(row, version)| (row as u32, *version));
            let live = rows.filter(|(row, _)| !dead.contains(*row));
            newer.extend(live.map(|(row, version)| (LogIndex(version), run.ids().get(row))));
        }
        newer.sort_unstable();
        newer
    }

    /// The live row of an id, with one of its vectors, to be sent to search shards. Without vectors if it lacks that
    /// one.
    pub fn copy_of(&self, id: PointId, vector: &str) -> Result<Option<Copy>> {
        let ordinal = self.ordinal(vector)?;
        Ok(self.locate(id).map(|(source, row)| copy(source.run, row, (ordinal, vector))))
    }

    /// Live rows as of [`View::copy_of`] in the order of their ids, from an id on, until they have so many bytes: at
    /// least one. And where the next page begins, if there is one.
    pub fn page_of_copies(
        &self,
        from: Option<PointId>,
        bytes_max: usize,
        vector: &str,
    ) -> Result<(Vec<Copy>, Option<PointId>)> {
        let ordinal = self.ordinal(vector)?;
        let sources: Vec<Source<'_>> = self.sources().collect();
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (id, row) in live_rows(&sources, from) {
            if bytes >= bytes_max && !page.is_empty() {
                return Ok((page, Some(id)));
            }
            let copy = copy(sources[row.source as usize].run, row.row, (ordinal, vector));
            let vectors: usize = copy.point.vectors.values().map(vicinal_common::vector::Vector::bytes).sum();
            bytes += COPY_BYTES + copy.point.payload.as_bytes().len() + vectors;
            page.push(copy);
        }
        Ok((page, None))
    }

    fn ordinal(&self, vector: &str) -> Result<usize> {
        let ordinal = self.layout.ordinal(vector);
        ordinal.ok_or_else(|| Error::BadInput(format!("Not existing vector name error: {vector}")))
    }
}

fn copy(run: &dyn Run, row: u32, (ordinal, name): (usize, &str)) -> Copy {
    let vector = run.vectors(ordinal).get(row).map(|vector| (name.to_owned(), vector.to_vector()));
    let vectors: Vectors = vector.into_iter().collect();
    let point = Point { id: run.ids().get(row), vectors, payload: run.payload_owned(row) };
    Copy { version: LogIndex(run.versions()[row as usize]), point }
}
