//! Which payload indexes a filter asks for: the rule of a collection that refuses filters on fields without one.

use super::{Condition, FieldTest, Filter, KeyPath, Match, Values};
use crate::payload_index::{FieldType, PayloadIndexes};

/// A condition that no payload index serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredIndex {
    /// The field, with the path that leads to it from the top of the payload.
    pub field: String,
    /// Types of index each of which would do.
    pub types: Vec<FieldType>,
}

impl Filter {
    /// The first condition on a field that has no index which serves it; `None` when there is none. Conditions on ids,
    /// vectors and slices need no index.
    pub fn required_index(&self, indexes: &PayloadIndexes) -> Option<RequiredIndex> {
        required(self, None, indexes)
    }
}

fn required(filter: &Filter, outer: Option<&KeyPath>, indexes: &PayloadIndexes) -> Option<RequiredIndex> {
    let path = |key: &KeyPath| outer.map_or_else(|| key.clone(), |outer| outer.within(key));
    filter.conditions().find_map(|condition| match condition {
        Condition::Field(field) => check(&path(&field.key), &serving(&field.test), indexes),
        Condition::IsEmpty(key) | Condition::IsNull(key) => check(&path(key), &FieldType::ALL, indexes),
        Condition::HasId(_)
        | Condition::HasVector(_)
        | Condition::Slice(_)
        | Condition::InClusters(_)
        | Condition::InClustersOf(_) => None,
        Condition::Nested { key, filter } => required(filter, Some(&path(key)), indexes),
        Condition::Filter(filter) => required(filter, outer, indexes),
    })
}

fn check(path: &KeyPath, types: &[FieldType], indexes: &PayloadIndexes) -> Option<RequiredIndex> {
    let field = path.to_string();
    let is_served = indexes.get(&field).is_some_and(|found| types.contains(&found.of()));
    (!is_served).then(|| RequiredIndex { field, types: types.to_vec() })
}

/// The types of index that decide a test without looking at payloads.
fn serving(test: &FieldTest) -> Vec<FieldType> {
    use FieldType::{Bool, Datetime, Float, Geo, Integer, Keyword, Text, Uuid};
    let is_uuid = |text: &String| uuid::Uuid::parse_str(text).is_ok();
    match test {
        FieldTest::Match(Match::Keyword(text)) if is_uuid(text) => vec![Keyword, Uuid],
        FieldTest::Match(Match::Any(Values::Keywords(texts)) | Match::Except(Values::Keywords(texts)))
            if texts.as_slice().iter().all(is_uuid) =>
        {
            vec![Keyword, Uuid]
        }
        FieldTest::Match(Match::Keyword(_) | Match::Prefix(_))
        | FieldTest::Match(Match::Any(Values::Keywords(_)) | Match::Except(Values::Keywords(_))) => vec![Keyword],
        FieldTest::Match(Match::Integer(_))
        | FieldTest::Match(Match::Any(Values::Integers(_)) | Match::Except(Values::Integers(_))) => vec![Integer],
        FieldTest::Match(Match::Bool(_)) => vec![Bool],
        FieldTest::Match(Match::Text(_)) => vec![Text],
        FieldTest::Range(_) => vec![Integer, Float],
        FieldTest::DatetimeRange(_) => vec![Datetime],
        FieldTest::GeoBoundingBox(_) | FieldTest::GeoRadius(_) | FieldTest::GeoPolygon(_) => vec![Geo],
        FieldTest::ValuesCount(_) | FieldTest::IsEmpty(_) | FieldTest::IsNull(_) => FieldType::ALL.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn missing(filter: Value) -> Option<String> {
        let fields = [("city", FieldType::Keyword), ("a[].b", FieldType::Integer), ("when", FieldType::Datetime)];
        let fields = fields.map(|(name, of)| (name.to_owned(), of.into())).into();
        let required = Filter::parse(&filter).unwrap().required_index(&fields);
        required.map(|required| required.field)
    }

    #[test]
    fn a_field_needs_an_index_that_serves_the_condition() {
        let city = json!({"key": "city", "match": {"value": "Oslo"}});
        assert_eq!(missing(json!({"must": [city, {"has_id": [1]}, {"is_null": {"key": "when"}}]})), None);
        assert_eq!(
            missing(json!({"must": {"nested": {"key": "a", "filter": {"must": {"key": "b", "range": {}}}}}})),
            None
        );
        for (filter, field) in [
            (json!({"must": [city, {"key": "town", "match": {"value": "x"}}]}), "town"),
            (json!({"must": {"key": "city", "match": {"value": 1}}}), "city"),
            (json!({"should": [city, {"must_not": {"key": "when", "range": {"gt": 1}}}]}), "when"),
            (
                json!({"must": {"nested": {"key": "a[]", "filter": {"must": {"key": "c", "match": {"value": 1}}}}}}),
                "a[].c",
            ),
            (json!({"must": {"is_empty": {"key": "other"}}}), "other"),
        ] {
            assert_eq!(missing(filter).as_deref(), Some(field));
        }
    }
}
