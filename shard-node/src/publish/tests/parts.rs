//! A home shard, search shards and maps that are as simple as can be.

use std::collections::BTreeMap;

use bytes::Bytes;
use vicinal_common::error::Result;
use vicinal_common::ids::{LogIndex, ShardId};
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId};
use vicinal_common::publish::{Copies, Copy};
use vicinal_common::vector::Vector;

use super::super::plan::{Places, Rows};

pub(super) const SHARDS: u64 = 4;

/// Smaller values are placed elsewhere by each map, others by each second one.
const MOVES_BELOW: u8 = 6;

/// A live row of the home shard; no value: it lacks the routed vector.
pub(super) type Row = (u64, Option<u8>);

/// The home shard as of one entry.
#[derive(Clone, Default)]
pub(super) struct View(pub(super) BTreeMap<u64, Row>);

pub(super) fn copy((id, (version, value)): (&u64, &Row)) -> Copy {
    let vectors = value.iter().map(|value| ("v".to_owned(), Vector::Dense(vec![f32::from(*value)])));
    let payload = Payload::from_stored(Bytes::from(vec![b' '; 60]));
    let point = Point { id: PointId::Num(*id), vectors: vectors.collect(), payload };
    Copy { version: LogIndex(*version), point }
}

pub(super) fn number(id: PointId) -> u64 {
    match id {
        PointId::Num(number) => number,
        PointId::Uuid(_) => unreachable!("no such id is written"),
    }
}

impl Rows for View {
    fn newer_than(&self, after: LogIndex) -> Vec<(LogIndex, PointId)> {
        let newer = self.0.iter().filter(|(_, (version, _))| *version > after.0);
        let mut newer: Vec<_> = newer.map(|(id, (version, _))| (LogIndex(*version), PointId::Num(*id))).collect();
        newer.sort_unstable();
        newer
    }

    fn copy_of(&self, id: PointId, _: &str) -> Result<Option<Copy>> {
        Ok(self.0.get_key_value(&number(id)).map(copy))
    }

    fn page(&self, from: Option<PointId>, _: usize, _: &str) -> Result<(Vec<Copy>, Option<PointId>)> {
        let mut rows = self.0.range(from.map_or(0, number)..);
        let page = rows.by_ref().take(2).map(copy).collect();
        Ok((page, rows.next().map(|(id, _)| PointId::Num(*id))))
    }
}

/// A map: places by the value, every third value in two shards.
pub(super) struct Map(pub(super) u64);

impl Places for Map {
    fn places(&self, vector: &[f32]) -> Result<Vec<u32>> {
        Ok(places(self.0, vector[0] as u8).into_iter().map(|shard| shard.0 as u32).collect())
    }
}

pub(super) fn places(map: u64, value: u8) -> Vec<ShardId> {
    let turns = if value < MOVES_BELOW { map } else { map.div_ceil(2) };
    let first = (u64::from(value) + turns) % SHARDS;
    let second = (value.is_multiple_of(3)).then_some((first + 1 + u64::from(value) % (SHARDS - 1)) % SHARDS);
    [Some(first), second].into_iter().flatten().map(ShardId).collect()
}

/// A search shard.
#[derive(Default)]
pub(super) struct Search {
    pub(super) log: u64,
    pub(super) rows: BTreeMap<u64, u64>,
    pub(super) is_away: bool,
}

impl Search {
    pub(super) fn apply(&mut self, copies: &Copies) -> LogIndex {
        for copy in &copies.points {
            let row = self.rows.entry(number(copy.point.id)).or_default();
            *row = (*row).max(copy.version.0);
        }
        for (id, version) in &copies.gone {
            if self.rows.get(&number(*id)) == Some(&version.0) {
                self.rows.remove(&number(*id));
            }
        }
        self.log += 1;
        LogIndex(self.log)
    }
}
