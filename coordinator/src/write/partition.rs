//! Cuts a client's batch into one command per shard, or several where one would be too large. Pure.

use std::collections::{BTreeMap, HashMap};

use vicinal_common::api::PointVectors;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::ShardId;
use vicinal_common::limits::COMMAND_BYTES_MAX;
use vicinal_common::point::{Point, PointId, Vectors};
use vicinal_common::ring::TokenTable;

/// Bytes of an item beside its names, numbers and payload: id, lengths.
const ITEM_BYTES: usize = 40;
/// Bytes of a vector beside its name and numbers: kind and lengths. (Dimensions of a sparse one take up to 5 bytes each.)
const VECTOR_BYTES: usize = 20;
/// Bytes of an id in a command, at most.
const ID_BYTES: usize = 20;

/// The items of one command of one shard.
pub type Part<T> = Vec<T>;

/// What commands are made of.
trait Item {
    /// The point it is about.
    fn id(&self) -> PointId;
    /// Upper bound of its size in a command.
    fn bytes(&self) -> usize;
}

impl Item for Point {
    fn id(&self) -> PointId {
        self.id
    }

    fn bytes(&self) -> usize {
        ITEM_BYTES + vector_bytes(&self.vectors) + self.payload.as_bytes().len()
    }
}

impl Item for PointVectors {
    fn id(&self) -> PointId {
        self.id
    }

    fn bytes(&self) -> usize {
        ITEM_BYTES + vector_bytes(&self.vectors)
    }
}

impl Item for PointId {
    fn id(&self) -> PointId {
        *self
    }

    fn bytes(&self) -> usize {
        ID_BYTES
    }
}

/// Cuts points by shard. Of two points with one id the last counts. Each part's encoding stays below
/// [`COMMAND_BYTES_MAX`]; a single point above that is `BadInput`.
pub fn cut_points(tokens: &TokenTable, points: Vec<Point>) -> Result<BTreeMap<ShardId, Vec<Part<Point>>>> {
    let last: HashMap<PointId, usize> = points.iter().enumerate().map(|(place, point)| (point.id, place)).collect();
    let points = points.into_iter().enumerate().filter(|(place, point)| last.get(&point.id) == Some(place));
    cut(tokens, points.map(|(_, point)| point))
}

/// Cuts points by shard, all of them, in the order they come in. Bounded as [`cut_points`].
pub fn cut_in_order(tokens: &TokenTable, points: Vec<Point>) -> Result<BTreeMap<ShardId, Vec<Part<Point>>>> {
    cut(tokens, points.into_iter())
}

/// Cuts vectors by shard, in the order of their ids. What comes for one point is one item, in which of two vectors of a
/// name the last counts. Bounded as [`cut_points`].
pub fn cut_vectors(
    tokens: &TokenTable,
    vectors: Vec<PointVectors>,
) -> Result<BTreeMap<ShardId, Vec<Part<PointVectors>>>> {
    let mut of_points: BTreeMap<PointId, Vectors> = BTreeMap::new();
    for PointVectors { id, vectors } in vectors {
        of_points.entry(id).or_default().extend(vectors);
    }
    cut(tokens, of_points.into_iter().map(|(id, vectors)| PointVectors { id, vectors }))
}

/// Cuts ids by shard, ascending, each once.
pub fn cut_ids(tokens: &TokenTable, mut ids: Vec<PointId>) -> Result<BTreeMap<ShardId, Vec<Part<PointId>>>> {
    ids.sort_unstable();
    ids.dedup();
    cut(tokens, ids.into_iter())
}

fn cut<T: Item>(tokens: &TokenTable, items: impl Iterator<Item = T>) -> Result<BTreeMap<ShardId, Vec<Part<T>>>> {
    let mut shards: BTreeMap<ShardId, Cutter<T>> = BTreeMap::new();
    for item in items {
        let (id, bytes) = (item.id(), item.bytes());
        if bytes > COMMAND_BYTES_MAX {
            return Err(Error::BadInput(format!("point {id} has {bytes} bytes, the limit is {COMMAND_BYTES_MAX}")));
        }
        shards.entry(tokens.shard_of(id)).or_default().push(item, bytes);
    }
    Ok(shards.into_iter().map(|(shard, cutter)| (shard, cutter.parts)).collect())
}

fn vector_bytes(vectors: &Vectors) -> usize {
    vectors.iter().map(|(name, vector)| VECTOR_BYTES + name.len() + vector.bytes()).sum()
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
