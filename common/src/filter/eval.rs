//! Which points a filter matches: evaluator version 3. (Version 2 had no full-text conditions. Version 1 never matched a
//! missing field by `values_count`, nor an array that holds null by the condition `is_null`; no log outside development
//! names it.) Pure: the same answer on every replica, in every replay.

use serde_json::Value;

use super::InClusters;
use super::{Condition, DateTime, FieldCondition, FieldTest, Filter, GeoPoint, KeyPath, Match, Values};
use crate::payload::Fields;
use crate::point::PointId;

/// Whether the point has a vector of a name.
type VectorsPresent<'a> = &'a dyn Fn(&str) -> bool;
/// Whether the point is in one of some clusters.
type ClusterTest<'a> = &'a dyn Fn(&InClusters) -> bool;

/// What a filter is tested on: a point, or an object inside its payload, which has no id and no vectors.
#[derive(Clone, Copy)]
struct Subject<'a> {
    fields: &'a Fields,
    point: Option<(PointId, VectorsPresent<'a>, ClusterTest<'a>)>,
}

impl Filter {
    /// Whether the point matches. `fields` is its payload (may be empty if the filter does not
    /// [need it](Filter::needs_payload)), `vectors_present` says whether it has a vector of a name. It is in no cluster.
    pub fn matches(&self, id: PointId, fields: &Fields, vectors_present: &dyn Fn(&str) -> bool) -> bool {
        self.matches_with(id, fields, vectors_present, &|_| false)
    }

    /// The same where the cluster of the point is known, which `in_clusters` tests.
    pub fn matches_with(
        &self,
        id: PointId,
        fields: &Fields,
        vectors_present: &dyn Fn(&str) -> bool,
        in_clusters: &dyn Fn(&InClusters) -> bool,
    ) -> bool {
        self.holds(Subject { fields, point: Some((id, vectors_present, in_clusters)) })
    }

    fn holds(&self, subject: Subject<'_>) -> bool {
        self.must.iter().all(|condition| condition.holds(subject))
            && !self.must_not.iter().any(|condition| condition.holds(subject))
            && (self.should.is_empty() || self.should.iter().any(|condition| condition.holds(subject)))
            && self.min_should.as_ref().is_none_or(|part| {
                let mut missing = part.min_count;
                for condition in &part.conditions {
                    if missing == 0 {
                        break;
                    }
                    missing -= u64::from(condition.holds(subject));
                }
                missing == 0
            })
    }
}

impl Condition {
    fn holds(&self, subject: Subject<'_>) -> bool {
        match self {
            Condition::Field(condition) => condition.holds(subject.fields),
            Condition::IsEmpty(key) => !key.any(subject.fields, &mut |value| !is_empty(value)),
            Condition::IsNull(key) => key.any(subject.fields, &mut has_null),
            Condition::HasId(ids) => subject.point.is_some_and(|(id, ..)| ids.has(&id)),
            Condition::HasVector(name) => subject.point.is_some_and(|(_, has_vector, _)| has_vector(name)),
            Condition::Slice(slice) => subject.point.is_some_and(|(id, ..)| slice.contains(id)),
            Condition::InClusters(asked) => subject.point.is_some_and(|(.., in_clusters)| in_clusters(asked)),
            // The coordinator puts clusters in its place.
            Condition::InClustersOf(_) => false,
            Condition::Nested { key, filter } => {
                key.any_element(subject.fields, &mut |value| match value.as_object() {
                    Some(fields) => filter.holds(Subject { fields, point: None }),
                    None => false,
                })
            }
            Condition::Filter(filter) => filter.holds(subject),
        }
    }
}

/// Whether a value counts as empty: null or `[]`.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => false,
    }
}

/// Whether a value is null or an array that holds null.
pub fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().any(Value::is_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => false,
    }
}

impl FieldCondition {
    fn holds(&self, fields: &Fields) -> bool {
        match &self.test {
            FieldTest::Match(test) => any_flat(&self.key, fields, |value| test.holds(value)),
            FieldTest::Range(range) => {
                any_flat(&self.key, fields, |value| value.as_f64().is_some_and(|number| range.contains(&number)))
            }
            FieldTest::DatetimeRange(range) => any_flat(&self.key, fields, |value| {
                value.as_str().and_then(DateTime::parse).is_some_and(|time| range.contains(&time))
            }),
            FieldTest::GeoBoundingBox(area) => any_place(&self.key, fields, |place| area.contains(place)),
            FieldTest::GeoRadius(area) => any_place(&self.key, fields, |place| area.contains(place)),
            FieldTest::GeoPolygon(area) => any_place(&self.key, fields, |place| area.contains(place)),
            FieldTest::ValuesCount(range) => self.any_or_missing(fields, range.contains(&0), &|value| {
                let count = match value {
                    Value::Null => 0,
                    Value::Array(values) => values.len() as u64,
                    Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => 1,
                };
                range.contains(&count)
            }),
            FieldTest::IsEmpty(wanted) => self.any_or_missing(fields, *wanted, &|value| is_empty(value) == *wanted),
            FieldTest::IsNull(wanted) => self.any_or_missing(fields, !*wanted, &|value| has_null(value) == *wanted),
        }
    }

    /// Whether any value passes; `missing` is the answer when the path leads nowhere.
    fn any_or_missing(&self, fields: &Fields, missing: bool, test: &dyn Fn(&Value) -> bool) -> bool {
        let mut is_missing = true;
        let passes = self.key.any(fields, &mut |value| {
            is_missing = false;
            test(value)
        });
        if is_missing { missing } else { passes }
    }
}

/// Whether any value at the path passes, an array standing for its elements; arrays in arrays stay as they are.
fn any_flat(key: &KeyPath, fields: &Fields, test: impl Fn(&Value) -> bool) -> bool {
    key.any(fields, &mut |value| match value {
        Value::Array(values) => values.iter().any(&test),
        value => test(value),
    })
}

fn any_place(key: &KeyPath, fields: &Fields, test: impl Fn(GeoPoint) -> bool) -> bool {
    any_flat(key, fields, |value| GeoPoint::from_stored(value).is_some_and(&test))
}

impl Match {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Match::Keyword(keyword) => value.as_str() == Some(keyword),
            Match::Integer(integer) => value.as_i64() == Some(*integer),
            Match::Bool(truth) => value.as_bool() == Some(*truth),
            Match::Any(values) => values.has(value),
            Match::Except(values) => !value.is_null() && !values.has(value),
            Match::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Match::Text(test) => value.as_str().is_some_and(|text| test.holds(text)),
        }
    }
}

impl Values {
    fn has(&self, value: &Value) -> bool {
        match self {
            Values::Keywords(keywords) => value.as_str().is_some_and(|text| keywords.has(text)),
            Values::Integers(integers) => value.as_i64().is_some_and(|integer| integers.has(&integer)),
        }
    }
}
