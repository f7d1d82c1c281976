//! From a [`Filter`] back to the JSON it can be parsed from: what a shard's log holds and what goes over the wire.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::clusters::encode_in_clusters;
use super::{
    Condition, FieldCondition, FieldTest, Filter, GeoPoint, GeoPolygon, Match, MinShould, Range, SortedSet, TextMatch,
    Tokenization, Values,
};

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = filter(self);
        if serializer.is_human_readable() { value.serialize(serializer) } else { serializer.collect_str(&value) }
    }
}

fn filter(filter: &Filter) -> Value {
    let mut fields = Map::new();
    for (name, part) in [("should", &filter.should), ("must", &filter.must), ("must_not", &filter.must_not)] {
        if !part.is_empty() {
            fields.insert(name.into(), conditions(part));
        }
    }
    if let Some(MinShould { conditions: part, min_count }) = &filter.min_should {
        fields.insert("min_should".into(), json!({"conditions": conditions(part), "min_count": min_count}));
    }
    Value::Object(fields)
}

fn conditions(conditions: &[Condition]) -> Value {
    conditions.iter().map(condition).collect()
}

fn condition(condition: &Condition) -> Value {
    match condition {
        Condition::Field(condition) => field(condition),
        Condition::IsEmpty(key) => json!({"is_empty": {"key": key.to_string()}}),
        Condition::IsNull(key) => json!({"is_null": {"key": key.to_string()}}),
        Condition::HasId(ids) => json!({"has_id": ids.as_slice()}),
        Condition::HasVector(name) => json!({"has_vector": name}),
        Condition::Slice(slice) => json!({"slice": {"index": slice.index, "total": slice.total}}),
        Condition::InClusters(asked) => json!({"in_clusters": encode_in_clusters(asked)}),
        Condition::InClustersOf(points) => json!({"in_clusters_of": points.as_slice()}),
        Condition::Nested { key, filter: inner } => {
            json!({"nested": {"key": key.to_string(), "filter": filter(inner)}})
        }
        Condition::Filter(inner) => filter(inner),
    }
}

fn field(condition: &FieldCondition) -> Value {
    let key = condition.key.to_string();
    match &condition.test {
        FieldTest::Match(test) => json!({"key": key, "match": matching(test)}),
        FieldTest::Range(bounds) => json!({"key": key, "range": range(bounds, |bound| json!(bound))}),
        FieldTest::DatetimeRange(bounds) => json!({"key": key, "range": range(bounds, |time| json!(time.as_str()))}),
        FieldTest::GeoBoundingBox(area) => json!({"key": key, "geo_bounding_box": {
            "top_left": place(&area.top_left), "bottom_right": place(&area.bottom_right),
        }}),
        FieldTest::GeoRadius(area) => {
            json!({"key": key, "geo_radius": {"center": place(&area.center), "radius": area.radius}})
        }
        FieldTest::GeoPolygon(area) => json!({"key": key, "geo_polygon": polygon(area)}),
        FieldTest::ValuesCount(bounds) => json!({"key": key, "values_count": range(bounds, |bound| json!(bound))}),
        FieldTest::IsEmpty(wanted) => json!({"key": key, "is_empty": wanted}),
        FieldTest::IsNull(wanted) => json!({"key": key, "is_null": wanted}),
    }
}

fn matching(test: &Match) -> Value {
    match test {
        Match::Keyword(keyword) => json!({"value": keyword}),
        Match::Integer(integer) => json!({"value": integer}),
        Match::Bool(truth) => json!({"value": truth}),
        Match::Any(list) => json!({"any": values(list)}),
        Match::Except(list) => json!({"except": values(list)}),
        Match::Prefix(prefix) => json!({"prefix": prefix}),
        Match::Text(test) => text(test),
    }
}

fn text(test: &TextMatch) -> Value {
    let mut fields = Map::new();
    fields.insert(test.test().name().into(), json!(test.query()));
    if *test.tokenization() != Tokenization::default() {
        fields.insert("tokenization".into(), test.tokenization().to_json());
    }
    Value::Object(fields)
}

fn values(values: &Values) -> Value {
    match values {
        Values::Keywords(SortedSet(keywords)) => json!(keywords),
        Values::Integers(SortedSet(integers)) => json!(integers),
    }
}

fn range<T>(bounds: &Range<T>, encode: impl Fn(&T) -> Value) -> Value {
    let bounds = [("lt", &bounds.lt), ("gt", &bounds.gt), ("gte", &bounds.gte), ("lte", &bounds.lte)];
    let given = bounds.into_iter().filter_map(|(name, bound)| Some((name.to_owned(), encode(bound.as_ref()?))));
    Value::Object(given.collect())
}

fn polygon(area: &GeoPolygon) -> Value {
    let ring = |points: &Vec<GeoPoint>| json!({"points": points.iter().map(place).collect::<Value>()});
    let mut fields = Map::new();
    fields.insert("exterior".into(), ring(&area.exterior));
    if !area.interiors.is_empty() {
        fields.insert("interiors".into(), area.interiors.iter().map(ring).collect());
    }
    Value::Object(fields)
}

fn place(place: &GeoPoint) -> Value {
    json!({"lon": place.lon, "lat": place.lat})
}
