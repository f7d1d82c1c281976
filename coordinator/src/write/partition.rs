//! Cuts a client's batch into one command per shard, or several where one would be too large. Pure.

use std::collections::{BTreeMap, HashMap};

use vicinal_common::error::{Error, Result};
use vicinal_common::ids::ShardId;
use vicinal_common::limits::COMMAND_BYTES_MAX;
use vicinal_common::point::{Point, PointId};
use vicinal_common::ring::TokenTable;

/// Bytes of a point beside its names, numbers and payload: id, lengths.
const POINT_BYTES: usize = 40;
/// Bytes of a vector beside its name and numbers.
const VECTOR_BYTES: usize = 10;
/// Bytes of an id in a command, at most.
const ID_BYTES: usize = 20;

/// The items of one command of one shard.
pub type Part<T> = Vec<T>;

/// Cuts points by shard. Of two points with one id the last counts. Each part's encoding stays below
/// [`COMMAND_BYTES_MAX`]; a single point above that is `BadInput`.
pub fn cut_points(tokens: &TokenTable, points: Vec<Point>) -> Result<BTreeMap<ShardId, Vec<Part<Point>>>> {
    let last: HashMap<PointId, usize> = points.iter().enumerate().map(|(place, point)| (point.id, place)).collect();
    let mut shards: BTreeMap<ShardId, Cutter<Point>> = BTreeMap::new();
    for (place, point) in points.into_iter().enumerate() {
        if last.get(&point.id) != Some(&place) {
            continue;
        }
        let bytes = point_bytes(&point);
        if bytes > COMMAND_BYTES_MAX {
            let id = point.id;
            return Err(Error::BadInput(format!("point {id} has {bytes} bytes, the limit is {COMMAND_BYTES_MAX}")));
        }
        shards.entry(tokens.shard_of(point.id)).or_default().push(point, bytes);
    }
    Ok(shards.into_iter().map(|(shard, cutter)| (shard, cutter.parts)).collect())
}

/// Cuts ids by shard, each once.
pub fn cut_ids(tokens: &TokenTable, mut ids: Vec<PointId>) -> BTreeMap<ShardId, Vec<Part<PointId>>> {
    ids.sort_unstable();
    ids.dedup();
    let mut shards: BTreeMap<ShardId, Cutter<PointId>> = BTreeMap::new();
    for id in ids {
        shards.entry(tokens.shard_of(id)).or_default().push(id, ID_BYTES);
    }
    shards.into_iter().map(|(shard, cutter)| (shard, cutter.parts)).collect()
}

/// Upper bound of a point's size in a command.
fn point_bytes(point: &Point) -> usize {
    let vectors =
        point.vectors.iter().map(|(name, vector)| VECTOR_BYTES + name.len() + vector.len() * size_of::<f32>());
    POINT_BYTES + vectors.sum::<usize>() + point.payload.as_bytes().len()
}

struct Cutter<T> {
    parts: Vec<Part<T>>,
    bytes: usize,
}

impl<T> Default for Cutter<T> {
    fn default() -> Cutter<T> {
        Cutter { parts: Vec::new(), bytes: 0 }
    }
}

impl<T> Cutter<T> {
    fn push(&mut self, item: T, bytes: usize) {
        match self.parts.last_mut() {
            Some(part) if self.bytes + bytes <= COMMAND_BYTES_MAX => {
                part.push(item);
                self.bytes += bytes;
            }
            _ => {
                self.parts.push(vec![item]);
                self.bytes = bytes;
            }
        }
    }
}
