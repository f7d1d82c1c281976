//! Filters: which points may be hits. The condition tree of the REST API, parsed once at the edge, evaluated on parsed
//! payloads.
//!
//! Meaning, in short: a key path may lead to several values; a value that is an array stands for its elements (one
//! level); a condition on a field holds when any of these satisfies it, and never when there is none, except `is_empty`
//! and `is_null`, and `values_count` of 0.

mod clusters;
mod datetime;
mod encode;
mod eval;
mod geo;
mod parse;
mod path;
mod required;
mod slice;
#[cfg(test)]
mod tests;
mod text;

pub use clusters::{ClusteringFacts, ClusteringName, InClusters};
pub use datetime::DateTime;
pub use eval::{has_null, is_empty};
pub use geo::{GeoBox, GeoPoint, GeoPolygon, GeoRadius};
pub use path::{KeyPath, merge_fields};
pub use required::RequiredIndex;
pub use slice::Slice;
pub use text::{BadParameter, Language, Split, TextMatch, TextResolver, TextTest, Tokenization, Tokenizer};

use crate::point::PointId;

/// Version of the evaluator that logged filters name. Whatever changes which points a filter matches, however small,
/// gets a new version, and the old evaluator is kept for as long as a log or a snapshot may name it: replicas and
/// replays must decide alike.
pub const EVALUATOR_VERSION: u32 = 3;
/// The oldest evaluator that this one stands for: it has conditions that version 2 does not know, and decides all others
/// alike.
pub const EVALUATOR_OLDEST: u32 = 2;

/// A condition tree. All four parts must hold; an empty part always does.
///
/// JSON: the `Filter` of the REST API, where each list may also be a single condition. In a binary format it is the
/// JSON text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// At least one must match.
    pub should: Vec<Condition>,
    /// At least so many must match.
    pub min_should: Option<MinShould>,
    /// All must match.
    pub must: Vec<Condition>,
    /// None may match.
    pub must_not: Vec<Condition>,
}

/// Some of several conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct MinShould {
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// How many of them must match at least; 0 always holds, more than there are never.
    pub min_count: u64,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Some value at a key path passes a test.
    Field(FieldCondition),
    /// All values at the path are null or an empty array, or there are none.
    IsEmpty(KeyPath),
    /// Some value at the path is null or an array that holds null.
    IsNull(KeyPath),
    /// The point's id is one of these.
    HasId(SortedSet<PointId>),
    /// The point has a vector of this name; `""` is the unnamed vector.
    HasVector(String),
    /// The point's id falls into a slice of the id space.
    Slice(Slice),
    /// The point is in one of these clusters.
    InClusters(InClusters),
    /// The point is in the same cluster as one of these points: what a client writes and no shard sees.
    InClustersOf(SortedSet<PointId>),
    /// Some object in the array at the path matches the filter as a whole. Key paths in the filter start there.
    Nested {
        /// Where the array is; `a` and `a[]` mean the same here.
        key: KeyPath,
        /// What one object must match. Conditions on the point itself (id, vector, slice) never match inside.
        filter: Filter,
    },
    /// A filter as a condition.
    Filter(Filter),
}

/// A test of the values at a key path.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldCondition {
    /// Where the values are.
    pub key: KeyPath,
    /// What one of them must pass.
    pub test: FieldTest,
}

/// What a value must pass.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldTest {
    /// Comparison with given values.
    Match(Match),
    /// A number in a range.
    Range(Range<f64>),
    /// A string that is a date or time in a range.
    DatetimeRange(Range<DateTime>),
    /// A `{"lon", "lat"}` object inside a rectangle.
    GeoBoundingBox(GeoBox),
    /// A `{"lon", "lat"}` object inside a circle.
    GeoRadius(GeoRadius),
    /// A `{"lon", "lat"}` object inside a polygon.
    GeoPolygon(GeoPolygon),
    /// How many elements an array has; null and a missing field count 0, any other value 1.
    ValuesCount(Range<u64>),
    /// Whether a value is null or `[]` (a missing field is); `false` asks for the opposite.
    IsEmpty(bool),
    /// Whether a value is null or an array that holds null (a missing field is not); `false` asks for the opposite.
    IsNull(bool),
}

/// Comparison of a value with given ones. Types do not mix: the integer 1 is not 1.0, `true` or "1".
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// Equal to the string.
    Keyword(String),
    /// Equal to the integer.
    Integer(i64),
    /// Equal to the truth value.
    Bool(bool),
    /// Equal to one of the values.
    Any(Values),
    /// Neither null nor equal to any of the values; a value of another type passes.
    Except(Values),
    /// A string that starts with this text, case-sensitive.
    Prefix(String),
    /// A string with tokens of a query.
    Text(TextMatch),
}

/// The values of a `match` with `any` or `except`: of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Strings.
    Keywords(SortedSet<String>),
    /// Integers.
    Integers(SortedSet<i64>),
}

/// Bounds, each optional; all given ones must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Range<T> {
    /// Less than.
    pub lt: Option<T>,
    /// Greater than.
    pub gt: Option<T>,
    /// Greater than or equal.
    pub gte: Option<T>,
    /// Less than or equal.
    pub lte: Option<T>,
}

impl<T: PartialOrd> Range<T> {
    /// Whether all bounds hold for the value.
    pub fn contains(&self, value: &T) -> bool {
        self.lt.as_ref().is_none_or(|bound| value < bound)
            && self.gt.as_ref().is_none_or(|bound| value > bound)
            && self.gte.as_ref().is_none_or(|bound| value >= bound)
            && self.lte.as_ref().is_none_or(|bound| value <= bound)
    }
}

/// A set as a sorted list: small, and found in by bisection.
#[derive(Clone, Debug, PartialEq)]
pub struct SortedSet<T>(Vec<T>);

impl<T: Ord> SortedSet<T> {
    /// The distinct values of a list.
    pub fn new(mut values: Vec<T>) -> SortedSet<T> {
        values.sort_unstable();
        values.dedup();
        SortedSet(values)
    }

    /// The values, ascending.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    fn has<Q: Ord + ?Sized>(&self, value: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
    {
        self.0.binary_search_by(|probe| probe.borrow().cmp(value)).is_ok()
    }
}

impl Filter {
    /// Whether the filter can only be decided with the payload. False for filters on ids and vectors alone.
    pub fn needs_payload(&self) -> bool {
        self.conditions().any(|condition| match condition {
            Condition::Field(_) | Condition::IsEmpty(_) | Condition::IsNull(_) | Condition::Nested { .. } => true,
            Condition::HasId(_)
            | Condition::HasVector(_)
            | Condition::Slice(_)
            | Condition::InClusters(_)
            | Condition::InClustersOf(_) => false,
            Condition::Filter(filter) => filter.needs_payload(),
        })
    }

    /// Ids, ascending, outside of which nothing can match: a shard may look them up instead of scanning, and must then
    /// still test each. `None` when the filter does not limit the ids.
    pub fn ids(&self) -> Option<&[PointId]> {
        let lists = self.must.iter().filter_map(|condition| match condition {
            Condition::HasId(ids) => Some(ids.as_slice()),
            Condition::Filter(filter) => filter.ids(),
            Condition::Field(_)
            | Condition::IsEmpty(_)
            | Condition::IsNull(_)
            | Condition::HasVector(_)
            | Condition::Slice(_)
            | Condition::InClusters(_)
            | Condition::InClustersOf(_)
            | Condition::Nested { .. } => None,
        });
        lists.min_by_key(|ids| ids.len())
    }

    /// The conditions of this level.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let min_should = self.min_should.iter().flat_map(|part| &part.conditions);
        self.should.iter().chain(min_should).chain(&self.must).chain(&self.must_not)
    }

    fn conditions_mut(&mut self) -> impl Iterator<Item = &mut Condition> {
        let min_should = self.min_should.iter_mut().flat_map(|part| &mut part.conditions);
        self.should.iter_mut().chain(min_should).chain(&mut self.must).chain(&mut self.must_not)
    }
}
