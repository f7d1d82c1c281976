//! Reading a view for a round, or for filling: which rows there are, and where the maps place them. Blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{LogIndex, MapVersion, ShardId};
use vicinal_common::point::PointId;
use vicinal_common::publish::{Copy, Filled, Target};
use vicinal_common::vector::Vector;

use super::gone::Gone;
use super::queue::bytes_of;
use super::round::{Seen, SeenGone, SeenRow, Window};
use crate::node::OpenMap;
use crate::shard::View;

/// Bytes of a page of rows for filling.
pub(super) const FILL_PAGE_BYTES: usize = 1 << 20;

/// What a view has to tell.
pub(super) trait Rows {
    /// Live rows with greater versions, ascending.
    fn newer_than(&self, after: LogIndex) -> Vec<(LogIndex, PointId)>;
    /// A live row, with this vector.
    fn copy_of(&self, id: PointId, vector: &str) -> Result<Option<Copy>>;
    /// Live rows in the order of their ids, and where the next page begins.
    fn page(&self, from: Option<PointId>, bytes: usize, vector: &str) -> Result<(Vec<Copy>, Option<PointId>)>;
}

impl Rows for View {
    fn newer_than(&self, after: LogIndex) -> Vec<(LogIndex, PointId)> {
        View::newer_than(self, after)
    }

    fn copy_of(&self, id: PointId, vector: &str) -> Result<Option<Copy>> {
        View::copy_of(self, id, vector)
    }

    fn page(&self, from: Option<PointId>, bytes: usize, vector: &str) -> Result<(Vec<Copy>, Option<PointId>)> {
        self.page_of_copies(from, bytes, vector)
    }
}

/// Says where a vector is by one map: positions in the map.
pub(super) trait Places: Send + Sync {
    /// At least one, distinct.
    fn places(&self, vector: &[f32]) -> Result<Vec<u32>>;
}

impl Places for OpenMap {
    fn places(&self, vector: &[f32]) -> Result<Vec<u32>> {
        let dim = self.map.parts().dim;
        if vector.len() != dim {
            return Err(Error::Corrupt(format!("the map is of {dim} dimensions, a vector has {}", vector.len())));
        }
        let places = self.placer.place(vector);
        Ok(std::iter::once(places.home).chain(places.copy).collect())
    }
}

/// A map in force, ready for use.
#[derive(Clone)]
pub(super) struct Chart {
    /// As the feed has it.
    pub(super) target: Target,
    /// The map.
    pub(super) map: Arc<dyn Places>,
}

/// All maps in force.
#[derive(Clone, Default)]
pub(super) struct Charts {
    charts: Vec<Chart>,
}

impl Charts {
    /// Versions ascending. All place the same vector.
    pub(super) fn new(charts: Vec<Chart>) -> Result<Charts> {
        let vectors: BTreeSet<&str> = charts.iter().map(|chart| chart.target.map.vector.as_str()).collect();
        if vectors.len() > 1 {
            return Err(Error::Internal(format!("the maps in force are of several vectors: {vectors:?}")));
        }
        Ok(Charts { charts })
    }

    /// Name of the vector that is placed.
    pub(super) fn vector(&self) -> &str {
        self.charts.first().map_or("", |chart| chart.target.map.vector.as_str())
    }

    /// The search shards of all of them.
    pub(super) fn shards(&self) -> BTreeSet<ShardId> {
        self.charts.iter().flat_map(|chart| chart.target.map.shards.iter().copied()).collect()
    }

    /// Where a vector is by those maps that count.
    fn places(&self, vector: &[f32], counts: impl Fn(&Target) -> bool) -> Result<Vec<ShardId>> {
        let mut shards = Vec::new();
        for Chart { target, map } in self.charts.iter().filter(|chart| counts(&chart.target)) {
            for position in map.places(vector)? {
                let shard = target.map.shards.get(position as usize).copied().ok_or_else(|| {
                    let (version, len) = (target.map.version, target.map.shards.len());
                    Error::Corrupt(format!("map {version} places in shard {position} of {len}"))
                })?;
                if !shards.contains(&shard) {
                    shards.push(shard);
                }
            }
        }
        Ok(shards)
    }

    /// The same for a row; a row without the vector is nowhere.
    fn places_of(&self, copy: &Copy, counts: impl Fn(&Target) -> bool) -> Result<Vec<ShardId>> {
        match copy.point.vectors.get(self.vector()) {
            Some(Vector::Dense(vector)) => self.places(vector, counts),
            Some(_) => Err(Error::Corrupt(format!("vector {:?} is placed but is not dense", self.vector()))),
            None => Ok(Vec::new()),
        }
    }
}

/// A row that died.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    /// The point.
    pub(super) id: PointId,
    /// Its version then.
    pub(super) version: LogIndex,
    /// The vector that was placed.
    pub(super) vector: Option<Vec<f32>>,
}

/// Looks at the rows of a window, and at what died since the last round.
pub(super) fn look(
    rows: &impl Rows,
    applied: LogIndex,
    window: &Window,
    charts: &Charts,
    dead: &[Dead],
    is_blind: bool,
) -> Result<Seen> {
    let mut seen = Seen { applied, to: window.to.unwrap_or(applied), is_blind, ..Seen::default() };
    let newer = rows.newer_than(window.after);
    let dead_ids: BTreeSet<PointId> = dead.iter().map(|dead| dead.id).collect();
    // What replaced a row has the version of the entry that did it, so it is newer than the last round.
    let live = newer.iter().filter(|(_, id)| dead_ids.contains(id));
    let live: BTreeMap<PointId, LogIndex> = live.map(|(version, id)| (*id, *version)).collect();
    let (mut last, mut bytes, mut looked) = (window.after, 0, 0);
    let mut places_of_live: BTreeMap<PointId, Vec<ShardId>> = BTreeMap::new();
    for (version, id) in newer.into_iter().take_while(|(version, _)| *version <= seen.to) {
        if version != last && (looked >= window.rows_max || bytes >= window.bytes_max) {
            seen.to = last;
            break;
        }
        (last, looked) = (version, looked + 1);
        let Some(copy) = rows.copy_of(id, charts.vector())? else { continue };
        let places = charts.places_of(&copy, |target| target.since < version)?;
        let wants = |shard: &ShardId| window.lanes.get(shard).is_some_and(|sent| *sent < version);
        let copy = places.iter().any(wants).then_some(copy);
        bytes += copy.as_ref().map_or(0, bytes_of);
        if live.contains_key(&id) {
            places_of_live.insert(id, places.clone());
        }
        seen.rows.push(SeenRow { version, places, copy });
    }
    for Dead { id, version, vector } in dead {
        let successor = live.get(id).copied();
        // Written twice by one entry: this row was never seen, and its version is that of the live one.
        if successor == Some(*version) {
            continue;
        }
        seen.replaced.extend(successor.map(|successor| (*version, successor)));
        let Some(vector) = vector else { continue };
        let now = match (successor, places_of_live.get(id)) {
            (None, _) => Vec::new(),
            (Some(_), Some(places)) => places.clone(),
            (Some(_), None) => match rows.copy_of(*id, charts.vector())? {
                Some(copy) => charts.places_of(&copy, |_| true)?,
                None => Vec::new(),
            },
        };
        let gone = Gone { id: *id, version: *version, successor };
        for shard in charts.places(vector, |_| true)? {
            seen.gone.push(SeenGone { shard, gone, is_replaced: now.contains(&shard) });
        }
    }
    Ok(seen)
}

/// Rows for filling one map.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// The map.
    pub(super) map: MapVersion,
    /// How far it is filled once they are there.
    pub(super) filled: Filled,
    /// Rows looked at.
    pub(super) rows: u64,
    /// Those to be sent.
    pub(super) copies: Vec<(Copy, Vec<ShardId>)>,
}

/// Reads the next page for filling a map. Rows that are newer than its beginning are published by rounds; places that
/// an older, filled map gave them have them already, if they are published.
pub(super) fn read_page(
    rows: &impl Rows,
    charts: &Charts,
    map: MapVersion,
    from: Option<PointId>,
    published: LogIndex,
    bytes: usize,
) -> Result<Page> {
    let (page, next) = rows.page(from, bytes, charts.vector())?;
    let filled = next.map_or(Filled::Done, |next| Filled::Below(Some(next)));
    let since = charts.charts.iter().find(|chart| chart.target.map.version == map).map(|chart| chart.target.since);
    let mut read = Page { map, filled, rows: page.len() as u64, copies: Vec::new() };
    for copy in page.into_iter().filter(|copy| since.is_some_and(|since| copy.version <= since)) {
        let mut places = charts.places_of(&copy, |target| target.map.version == map)?;
        if copy.version <= published {
            let is_filled = |target: &Target| target.map.version < map && target.filled == Filled::Done;
            let there = charts.places_of(&copy, is_filled)?;
            places.retain(|shard| !there.contains(shard));
        }
        if !places.is_empty() {
            read.copies.push((copy, places));
        }
    }
    Ok(read)
}
