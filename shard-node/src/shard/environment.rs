//! What a shard needs of its process: a disk, the background pool, settings.

use std::sync::Arc;

use vicinal_common::disk::Disk;
use vicinal_common::error::Result;
use vicinal_common::ids::MapDigest;

use super::builder::Builder;
use crate::node::OpenMap;

/// What all shards of a process share. Cheap to clone.
#[derive(Clone)]
pub struct ShardEnv {
    /// Where files are kept.
    pub disk: Arc<dyn Disk>,
    /// The bounded pool for background work.
    pub builder: Arc<Builder>,
    /// The maps that are here.
    pub maps: Arc<dyn MapSource>,
    /// Settings.
    pub options: ShardOptions,
}

/// Where a shard gets the map from by which its rows are assigned to clusters.
pub trait MapSource: Send + Sync {
    /// Whether it is here. Does not wait for the disk.
    fn holds(&self, map: MapDigest) -> bool;

    /// The map, ready for use. `NotFound` when it is not here, `Corrupt` when it is damaged.
    fn open(&self, map: MapDigest) -> Result<Arc<OpenMap>>;
}

/// Who runs the background work of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// The pool, by itself.
    #[default]
    Pool,
    /// Whoever calls [`super::Shard::maintain_once`]: tests and simulations.
    Manual,
}

/// Settings of a shard.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// The fresh part is sealed into a segment once it holds this many bytes. Less: less memory, more and smaller
    /// segments to merge.
    pub seal_bytes: u64,
    /// Writes are refused as overloaded while the fresh part, with what is being sealed, holds more than this.
    pub fresh_bytes_max: u64,
    /// Segments are merged while there are more than this. Fewer: faster searches, more rewriting.
    pub segments_target: usize,
    /// Merging does not make segments larger than this many bytes.
    pub segment_bytes_max: u64,
    /// Who runs the background work.
    pub background: Background,
}

impl Default for ShardOptions {
    fn default() -> ShardOptions {
        ShardOptions {
            seal_bytes: 16 << 20,
            fresh_bytes_max: 64 << 20,
            segments_target: 4,
            segment_bytes_max: 16 << 30,
            background: Background::Pool,
        }
    }
}

/// Where there are no maps.
#[cfg(test)]
impl MapSource for () {
    fn holds(&self, _: MapDigest) -> bool {
        false
    }

    fn open(&self, map: MapDigest) -> Result<Arc<OpenMap>> {
        Err(vicinal_common::error::Error::NotFound(format!("map {map} is not here")))
    }
}
