//! Filling a map sends what the map that is filled already has put elsewhere, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use vicinal_common::ids::{LogIndex, MapDigest, MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Filled, MapRef, Target};

use super::super::plan::{Chart, Charts, Places, read_page};
use super::parts::{Map, Row, SHARDS, View, number, places};

const OLD: u64 = 4;

/// The map before, with the values below a bound one shard further.
struct Moved(u8);

fn moved_places(moved: u8, value: u8) -> Vec<ShardId> {
    places(if value < moved { OLD + 1 } else { OLD }, value)
}

impl Places for Moved {
    fn places(&self, vector: &[f32]) -> vicinal_common::error::Result<Vec<u32>> {
        Ok(moved_places(self.0, vector[0] as u8).into_iter().map(|shard| shard.0 as u32).collect())
    }
}

fn chart(version: u64, since: u64, filled: Filled, map: Arc<dyn Places>) -> Chart {
    let shards = (0..SHARDS).map(ShardId).collect();
    let map_ref = MapRef { version: MapVersion(version), vector: "v".into(), digest: MapDigest(1), bytes: 1, shards };
    Chart { target: Target { map: map_ref, since: LogIndex(since), filled }, map }
}

fn below(id: u64) -> Filled {
    Filled::Below(Some(PointId::Num(id)))
}

/// What all pages send: the shards of each row.
fn sent(view: &View, charts: &Charts, published: u64) -> BTreeMap<u64, BTreeSet<ShardId>> {
    let (mut sent, mut from) = (BTreeMap::new(), None);
    for _ in 0..=view.0.len() {
        let page = read_page(view, charts, MapVersion(2), from, LogIndex(published), 1).unwrap();
        for (copy, shards) in page.copies {
            let shards: BTreeSet<ShardId> = shards.into_iter().collect();
            assert!(!shards.is_empty() && sent.insert(number(copy.point.id), shards).is_none());
        }
        match page.filled {
            Filled::Below(next) => from = next,
            Filled::Done => return sent,
        }
    }
    panic!("the pages do not end");
}

proptest! {
    #[test]
    fn a_row_is_sent_where_it_is_not_known_to_be(
        rows in prop::collection::btree_map(0u64..40, (1u64..30, prop::option::of(0u8..12)), 0..30),
        moved in 0u8..12,
        since in 10u64..30,
        published in 0u64..30,
        old_since in 0u64..10,
        filled in prop_oneof![3 => Just(Filled::Done), 1 => (0u64..40).prop_map(below)],
    ) {
        let view = View(rows.clone());
        let old = chart(1, old_since, filled, Arc::new(Map(OLD)));
        let charts = Charts::new(vec![old, chart(2, since, Filled::Below(None), Arc::new(Moved(moved)))]).unwrap();
        let sent = sent(&view, &charts, published);
        for (id, (version, value)) in rows {
            let sent = sent.get(&id).cloned().unwrap_or_default();
            let of = |found: Vec<ShardId>| found.into_iter().collect::<BTreeSet<_>>();
            let new = value.map(|value| of(moved_places(moved, value))).unwrap_or_default();
            let there = value.map(|value| of(places(OLD, value))).unwrap_or_default();
            // Newer ones are published by rounds. What the old map has there for certain, see `Feed`.
            let is_there = filled == Filled::Done && version <= published;
            let wanted = match (version <= since, is_there) {
                (false, _) => BTreeSet::new(),
                (true, false) => new,
                (true, true) => new.difference(&there).copied().collect(),
            };
            prop_assert_eq!(sent, wanted, "{} at {}", id, version);
        }
    }
}

#[test]
fn of_a_cell_that_moves_only_its_rows_are_sent() {
    let rows: BTreeMap<u64, Row> = (0..1_200).map(|id| (id, (1 + id % 20, Some((id % 12) as u8)))).collect();
    let old = chart(1, 9, Filled::Done, Arc::new(Map(OLD)));
    let charts = Charts::new(vec![old, chart(2, 25, Filled::Below(None), Arc::new(Moved(1)))]).unwrap();
    let sent = sent(&View(rows), &charts, 25);
    assert_eq!(sent.len(), 100, "one cell of twelve");
    assert!(sent.keys().all(|id| id % 12 == 0));
}
