//! From a filter to the rows of a run: what the run's indexes, ids and vectors tell of each condition, put together.

use std::sync::Arc;

use roaring::RoaringBitmap;
use vicinal_common::filter::{
    ClusteringName, Condition, FieldCondition, FieldTest, Filter, InClusters, KeyPath, MinShould, Slice,
};

use super::Field;
use super::bounds::Bounds;
use super::field::FieldIndex;
use super::rows;
use crate::segment::{Layout, Source};

/// So many ids are hashed for a slice at most: a hash takes tens of nanoseconds, and a search that tests the rows it comes
/// across needs few of them.
const SLICE_ROWS_MAX: u64 = 200_000;
/// Most intersections made for a `min_should`: above it nothing is said of that part.
const STEPS_MAX: u64 = 4_096;

/// The live rows of a run that match a filter, as far as they are known without reading payloads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    sure: RoaringBitmap,
    open: RoaringBitmap,
}

impl Selection {
    /// Rows that match.
    pub fn sure(&self) -> &RoaringBitmap {
        &self.sure
    }

    /// Rows of which only their payload tells.
    pub fn open(&self) -> &RoaringBitmap {
        &self.open
    }

    /// How many rows match; `None` when only payloads tell.
    pub fn cardinality(&self) -> Option<u64> {
        self.open.is_empty().then(|| self.sure.len())
    }

    /// How many rows match at most.
    pub fn rows_max(&self) -> u64 {
        self.sure.len() + self.open.len()
    }

    /// Whether the row matches; `None` when only its payload tells.
    pub fn decides(&self, row: u32) -> Option<bool> {
        match () {
            () if self.sure.contains(row) => Some(true),
            () if self.open.contains(row) => None,
            () => Some(false),
        }
    }

    /// All rows that may match, ascending.
    pub fn rows(&self) -> RoaringBitmap {
        &self.sure | &self.open
    }
}

/// Which live rows of a run match. `indexes` are those of the run. `None` when nothing is known: then every row has to be
/// tested.
pub fn select(filter: &Filter, source: Source<'_>, layout: &Layout, indexes: &[Arc<FieldIndex>]) -> Option<Selection> {
    if indexes.is_empty() && filter.needs_payload() && !filter.names_clusters() {
        return None;
    }
    let rows = source.run.rows();
    let compiler = Compiler { source, layout, indexes, rows };
    let Bounds { mut sure, mut open } = compiler.filter(filter);
    if open.len() == u64::from(rows) {
        return None;
    }
    let dead = source.dead;
    if dead.count() > 0 {
        if sure.len() + open.len() < u64::from(dead.count()) {
            let mut bounds = Bounds { sure, open };
            bounds.retain(|row| !dead.contains(row));
            Bounds { sure, open } = bounds;
        } else {
            let dead = rows::of_sorted(dead.iter().collect::<Vec<u32>>().into_iter());
            sure -= &dead;
            open -= &dead;
        }
    }
    Some(Selection { sure, open })
}

/// Whether an index of one of the fields could tell anything of a filter.
pub fn is_of_use(filter: &Filter, fields: &[Field]) -> bool {
    names_any(filter, None, fields)
}

fn names_any(filter: &Filter, outer: Option<&KeyPath>, fields: &[Field]) -> bool {
    let path = |key: &KeyPath| outer.map_or_else(|| key.clone(), |outer| outer.within(key));
    filter.conditions().any(|condition| match condition {
        Condition::Field(FieldCondition { key, .. }) | Condition::IsEmpty(key) | Condition::IsNull(key) => {
            let path = path(key);
            fields.iter().any(|field| field.path == path)
        }
        Condition::HasId(_)
        | Condition::HasVector(_)
        | Condition::Slice(_)
        | Condition::InClusters(_)
        | Condition::InClustersOf(_) => false,
        Condition::Nested { key, filter } => names_any(filter, Some(&path(key)), fields),
        Condition::Filter(filter) => names_any(filter, outer, fields),
    })
}

struct Compiler<'a> {
    source: Source<'a>,
    layout: &'a Layout,
    indexes: &'a [Arc<FieldIndex>],
    rows: u32,
}

impl Compiler<'_> {
    fn index(&self, path: &KeyPath) -> Option<&FieldIndex> {
        self.indexes.iter().find(|index| index.field().path == *path).map(|index| &**index)
    }

    fn unknown(&self) -> Bounds {
        Bounds::unknown(self.rows)
    }

    fn filter(&self, filter: &Filter) -> Bounds {
        let mut bounds = Bounds::all(self.rows);
        let is_slice = |condition: &&Condition| matches!(condition, Condition::Slice(_));
        for condition in filter.must.iter().filter(|condition| !is_slice(condition)) {
            if bounds.is_none() {
                return bounds;
            }
            bounds = bounds.and(&self.condition(condition));
        }
        if !filter.should.is_empty() && !bounds.is_none() {
            bounds = bounds.and(&any(filter.should.iter().map(|condition| self.condition(condition))));
        }
        if let Some(part) = &filter.min_should
            && !bounds.is_none()
        {
            bounds = bounds.and(&self.at_least(part, |condition| self.condition(condition)));
        }
        for condition in &filter.must_not {
            if bounds.is_none() {
                return bounds;
            }
            bounds = bounds.and(&self.condition(condition).not(self.rows));
        }
        // Hashing ids is the dearest: only those of rows that are still possible.
        for condition in &filter.must {
            if let Condition::Slice(slice) = condition {
                if bounds.sure.len() + bounds.open.len() > SLICE_ROWS_MAX {
                    return bounds.unsure();
                }
                bounds.retain(|row| slice.contains(self.source.run.ids().get(row)));
            }
        }
        bounds
    }

    fn condition(&self, condition: &Condition) -> Bounds {
        match condition {
            Condition::Field(FieldCondition { key, test }) => {
                self.index(key).map_or_else(|| self.unknown(), |index| index.decide(test))
            }
            Condition::IsEmpty(key) => self.index(key).map_or_else(|| self.unknown(), FieldIndex::nothing_filled),
            Condition::IsNull(key) => self.index(key).map_or_else(|| self.unknown(), FieldIndex::some_null),
            Condition::HasId(ids) => {
                let ids = ids.as_slice().iter().filter_map(|id| self.source.run.ids().find(*id));
                Bounds::exact(ids.collect())
            }
            Condition::HasVector(name) => match self.layout.ordinal(name) {
                Some(ordinal) => Bounds::exact(rows::of_words(self.source.run.vectors(ordinal).present.words())),
                None => Bounds::none(),
            },
            Condition::Slice(slice) => self.slice(slice),
            Condition::InClusters(asked) => self.in_clusters(asked),
            // The coordinator puts clusters in its place.
            Condition::InClustersOf(_) => Bounds::none(),
            Condition::Nested { key, filter } => self.nested(key, filter),
            Condition::Filter(filter) => self.filter(filter),
        }
    }

    fn slice(&self, slice: &Slice) -> Bounds {
        if u64::from(self.rows) > SLICE_ROWS_MAX {
            return self.unknown();
        }
        let ids = self.source.run.ids();
        let rows: Vec<u32> = (0..self.rows).filter(|row| slice.contains(ids.get(*row))).collect();
        Bounds::exact(rows::of_sorted(rows.iter().copied()))
    }

    fn in_clusters(&self, asked: &InClusters) -> Bounds {
        let ClusteringName::Map(map) = asked.of else { return self.unknown() };
        // Which the read has seen to; without it each row is asked, and says that it does not know.
        let Some(known) = self.source.run.assigned().complete(map) else { return self.unknown() };
        let rows: Vec<u32> =
            asked.clusters.as_slice().iter().flat_map(|cluster| known.rows_of(*cluster)).copied().collect();
        Bounds::exact(rows::of_any(&rows, self.rows))
    }

    /// Rows in which at least so many conditions hold, counted up one condition after the other.
    fn at_least(&self, part: &MinShould, decide: impl Fn(&Condition) -> Bounds) -> Bounds {
        let (wanted, given) = (part.min_count, part.conditions.len() as u64);
        if wanted == 0 {
            return Bounds::all(self.rows);
        }
        if wanted > given {
            return Bounds::none();
        }
        if wanted.saturating_mul(given) > STEPS_MAX {
            return self.unknown();
        }
        // Rows in which at least one, two, ... of the conditions so far hold.
        let mut reached = vec![Bounds::none(); wanted as usize];
        for condition in &part.conditions {
            let holds = decide(condition);
            for count in (0..reached.len()).rev() {
                let one_more = match count {
                    0 => holds.clone(),
                    _ => reached[count - 1].clone().and(&holds),
                };
                reached[count] = std::mem::take(&mut reached[count]).or(&one_more);
            }
        }
        reached.pop().unwrap_or_default()
    }

    /// Rows in which some one object of the arrays at `outer` matches. An index says which rows have an object that
    /// passes one condition; that several conditions are passed by one and the same object it cannot say.
    fn nested(&self, outer: &KeyPath, filter: &Filter) -> Bounds {
        let mut parts: Vec<Bounds> = filter.must.iter().map(|condition| self.element(outer, condition)).collect();
        if !filter.should.is_empty() {
            parts.push(any(filter.should.iter().map(|condition| self.element(outer, condition))));
        }
        match &filter.min_should {
            Some(part) if part.min_count == 1 => {
                parts.push(any(part.conditions.iter().map(|condition| self.element(outer, condition))));
            }
            Some(part) if part.min_count > 1 => {
                parts.push(self.at_least(part, |condition| self.element(outer, condition)).unsure());
            }
            Some(_) | None => {}
        }
        if !filter.must_not.is_empty() {
            parts.push(self.unknown());
        }
        let is_one = parts.len() == 1;
        match parts.into_iter().reduce(|all, part| all.and(&part)) {
            Some(bounds) if is_one => bounds,
            Some(bounds) => bounds.unsure(),
            // Any object will do, and where there are objects no index says.
            None => self.unknown(),
        }
    }

    /// Rows in which some object of the arrays at `outer` passes one condition.
    fn element(&self, outer: &KeyPath, condition: &Condition) -> Bounds {
        match condition {
            Condition::Field(FieldCondition { key, test }) => match test {
                // These hold of an object without the field, which no index knows of.
                FieldTest::IsEmpty(true) | FieldTest::IsNull(false) => self.unknown(),
                FieldTest::ValuesCount(range) if range.contains(&0) => self.unknown(),
                FieldTest::Match(_)
                | FieldTest::Range(_)
                | FieldTest::DatetimeRange(_)
                | FieldTest::GeoBoundingBox(_)
                | FieldTest::GeoRadius(_)
                | FieldTest::GeoPolygon(_)
                | FieldTest::ValuesCount(_)
                | FieldTest::IsEmpty(false)
                | FieldTest::IsNull(true) => {
                    self.index(&outer.within(key)).map_or_else(|| self.unknown(), |index| index.decide(test))
                }
            },
            Condition::IsEmpty(_) => self.unknown(),
            Condition::IsNull(key) => {
                self.index(&outer.within(key)).map_or_else(|| self.unknown(), FieldIndex::some_null)
            }
            // An object has neither id nor vectors.
            Condition::HasId(_)
            | Condition::HasVector(_)
            | Condition::Slice(_)
            | Condition::InClusters(_)
            | Condition::InClustersOf(_) => Bounds::none(),
            Condition::Nested { key, filter } => self.nested(&outer.within(key), filter),
            Condition::Filter(filter) => self.nested(outer, filter),
        }
    }
}

fn any(parts: impl Iterator<Item = Bounds>) -> Bounds {
    parts.fold(Bounds::none(), |all, part| all.or(&part))
}
