//! From the JSON of the REST API to a [`Filter`]. What is not known is refused by name, never skipped: a skipped
//! condition would return, or delete, the wrong points.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use super::clusters::{parse_in_clusters, parse_in_clusters_of};
use super::{
    BadParameter, Condition, DateTime, FieldCondition, FieldTest, Filter, GeoBox, GeoPoint, GeoPolygon, GeoRadius,
    KeyPath, Match, MinShould, Range, Slice, SortedSet, TextMatch, TextTest, Tokenization, Tokenizer, Values,
};
use crate::error::Error;
use crate::limits::{FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, TEXT_QUERY_BYTES_MAX};
use crate::point::PointId;
use crate::refusal::{Parsed as Result, Refusal, at, kind, number, refuse};

/// The place is counted from the body's `filter`.
fn said(refusal: &Refusal) -> String {
    if refusal.path.is_empty() {
        format!("filter: {}", refusal.message)
    } else {
        format!("filter.{}: {}", refusal.path, refusal.message)
    }
}

impl Filter {
    /// Reads a filter. `BadInput` says where and what is wrong; also beyond [`FILTER_DEPTH_MAX`] levels (a
    /// `nested` condition counts as two) or [`FILTER_CONDITIONS_MAX`] conditions.
    pub fn parse(value: &Value) -> std::result::Result<Filter, Error> {
        Parser { conditions: 0 }.filter(value, 1).map_err(|refusal| Error::BadInput(said(&refusal)))
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Filter, D::Error> {
        let value = if deserializer.is_human_readable() {
            Value::deserialize(deserializer)?
        } else {
            serde_json::from_str(&String::deserialize(deserializer)?).map_err(D::Error::custom)?
        };
        Parser { conditions: 0 }.filter(&value, 1).map_err(|refusal| D::Error::custom(said(&refusal)))
    }
}

/// Counts the conditions of one filter.
struct Parser {
    conditions: usize,
}

impl Parser {
    fn filter(&mut self, value: &Value, depth: usize) -> Result<Filter> {
        if depth > FILTER_DEPTH_MAX {
            return refuse(format!("nested deeper than {FILTER_DEPTH_MAX} levels"));
        }
        let fields = object(value, &["should", "min_should", "must", "must_not"])?;
        Ok(Filter {
            should: at("should", self.conditions(given(fields, "should"), depth))?,
            min_should: optional(fields, "min_should", |value| self.min_should(value, depth))?,
            must: at("must", self.conditions(given(fields, "must"), depth))?,
            must_not: at("must_not", self.conditions(given(fields, "must_not"), depth))?,
        })
    }

    /// A list, a single condition, or nothing.
    fn conditions(&mut self, value: Option<&Value>, depth: usize) -> Result<Vec<Condition>> {
        match value {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                values.iter().enumerate().map(|(n, value)| at(format!("[{n}]"), self.condition(value, depth))).collect()
            }
            Some(value) => Ok(vec![self.condition(value, depth)?]),
        }
    }

    fn min_should(&mut self, value: &Value, depth: usize) -> Result<MinShould> {
        let fields = object(value, &["conditions", "min_count"])?;
        let conditions = match required(fields, "conditions")? {
            value @ Value::Array(_) => at("conditions", self.conditions(Some(value), depth))?,
            other => return at("conditions", refuse(format!("expected an array, got {}", kind(other)))),
        };
        Ok(MinShould { conditions, min_count: at("min_count", count(required(fields, "min_count")?))? })
    }

    fn condition(&mut self, value: &Value, depth: usize) -> Result<Condition> {
        self.conditions += 1;
        if self.conditions > FILTER_CONDITIONS_MAX {
            return refuse(format!("more than {FILTER_CONDITIONS_MAX} conditions"));
        }
        let Value::Object(fields) = value else {
            return refuse(format!("expected a condition, an object, got {}", kind(value)));
        };
        if fields.contains_key("key") {
            return field(value).map(Condition::Field);
        }
        // All other conditions have one field that names them; a filter as a condition may have several.
        let name = match fields.keys().next().map(String::as_str) {
            None => return Ok(Condition::Filter(Filter::default())),
            Some(name) => name,
        };
        let inner = &fields[name];
        match name {
            "should" | "min_should" | "must" | "must_not" => {
                return self.filter(value, depth + 1).map(Condition::Filter);
            }
            "is_empty" | "is_null" | "has_id" | "has_vector" | "slice" | "in_clusters" | "in_clusters_of"
            | "nested" => {}
            "match" | "range" | "values_count" | "geo_bounding_box" | "geo_radius" | "geo_polygon" => {
                return refuse(format!("a `{name}` condition needs the `key` of a payload field"));
            }
            other => {
                return refuse(format!(
                    "unknown condition `{other}`, expected a field condition with `key`, or one of is_empty, is_null, \
                     has_id, has_vector, slice, in_clusters, in_clusters_of, nested, must, should, must_not, min_should"
                ));
            }
        }
        object(value, &[name])?;
        at(
            name,
            match name {
                "is_empty" => key_of(object(inner, &["key"])?).map(Condition::IsEmpty),
                "is_null" => key_of(object(inner, &["key"])?).map(Condition::IsNull),
                "has_id" => list(inner, id).map(|ids| Condition::HasId(SortedSet::new(ids))),
                "has_vector" => string(inner).map(Condition::HasVector),
                "slice" => slice(inner).map(Condition::Slice),
                "in_clusters" => parse_in_clusters(inner).map(Condition::InClusters),
                "in_clusters_of" => parse_in_clusters_of(inner).map(Condition::InClustersOf),
                _ => self.nested(inner, depth),
            },
        )
    }

    fn nested(&mut self, value: &Value, depth: usize) -> Result<Condition> {
        let fields = object(value, &["key", "filter"])?;
        // Two levels, as it costs twice the brackets: so the JSON text of every filter stays within the 128 levels that
        // serde_json reads, and what was logged can be read again.
        let filter = at("filter", self.filter(required(fields, "filter")?, depth + 2))?;
        Ok(Condition::Nested { key: key_of(fields)?, filter })
    }
}

const TESTS: [&str; 8] =
    ["match", "range", "geo_bounding_box", "geo_radius", "geo_polygon", "values_count", "is_empty", "is_null"];

fn field(value: &Value) -> Result<FieldCondition> {
    let mut known = vec!["key"];
    known.extend(TESTS);
    let fields = object(value, &known)?;
    let key = key_of(fields)?;
    let mut given_tests = TESTS.iter().filter_map(|&name| Some((name, given(fields, name)?)));
    let Some((name, value)) = given_tests.next() else {
        return refuse(format!("a condition on `{key}` needs one of {}", TESTS.join(", ")));
    };
    if let Some((other, _)) = given_tests.next() {
        return refuse(format!("a condition on `{key}` has both `{name}` and `{other}`: write two conditions"));
    }
    let test = match name {
        "match" => matching(value).map(FieldTest::Match),
        "range" => range_test(value),
        "geo_bounding_box" => geo_box(value).map(FieldTest::GeoBoundingBox),
        "geo_radius" => geo_radius(value).map(FieldTest::GeoRadius),
        "geo_polygon" => geo_polygon(value).map(FieldTest::GeoPolygon),
        "values_count" => range(value, count).map(FieldTest::ValuesCount),
        "is_empty" => truth(value).map(FieldTest::IsEmpty),
        _ => truth(value).map(FieldTest::IsNull),
    };
    Ok(FieldCondition { key, test: at(name, test)? })
}

fn matching(value: &Value) -> Result<Match> {
    const TESTS: [&str; 7] = ["value", "any", "except", "prefix", "text", "text_any", "phrase"];
    let fields = object(value, &[&TESTS[..], &["tokenization"]].concat())?;
    let mut entries = fields.iter().filter(|(name, value)| *name != "tokenization" && !value.is_null());
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return refuse(format!("expected exactly one of {}", TESTS.join(", ")));
    };
    let text_test = TextTest::ALL.into_iter().find(|test| test.name() == name);
    let tokenization = given(fields, "tokenization");
    if let Some(test) = text_test {
        return text(test, value, tokenization).map(Match::Text);
    }
    if tokenization.is_some() {
        return refuse("`tokenization` is only for text, text_any and phrase");
    }
    at(
        name,
        match name.as_str() {
            "value" => match value {
                Value::String(keyword) => Ok(Match::Keyword(keyword.clone())),
                Value::Bool(truth) => Ok(Match::Bool(*truth)),
                other => match other.as_i64() {
                    Some(integer) => Ok(Match::Integer(integer)),
                    None => refuse(format!(
                        "expected a string, a 64-bit integer or a boolean, got {} (use `range` for other numbers)",
                        kind(other)
                    )),
                },
            },
            "any" => values(value).map(Match::Any),
            "except" => values(value).map(Match::Except),
            _ => string(value).map(Match::Prefix),
        },
    )
}

/// `tokenization` is the coordinator's: see [`Filter::resolve_text`].
fn text(test: TextTest, value: &Value, tokenization: Option<&Value>) -> Result<TextMatch> {
    let query = at(test.name(), string(value))?;
    if query.len() > TEXT_QUERY_BYTES_MAX {
        return at(test.name(), refuse(format!("at most {TEXT_QUERY_BYTES_MAX} bytes, got {}", query.len())));
    }
    let read = |value: &Value| {
        let fields = object(value, &Tokenization::NAMES)?;
        Tokenization::from_json(fields).map_err(|BadParameter { path, message }| Refusal { path, message })
    };
    let params = tokenization.map(|value| at("tokenization", read(value))).transpose()?.unwrap_or_default();
    Ok(TextMatch::new(test, query, Arc::new(Tokenizer::new(params))))
}

fn values(value: &Value) -> Result<Values> {
    match value.as_array().and_then(|values| values.first()) {
        Some(Value::Number(_)) => list(value, |value| match value.as_i64() {
            Some(integer) => Ok(integer),
            None => refuse(format!("expected a 64-bit integer like the first, got {}", kind(value))),
        })
        .map(|integers| Values::Integers(SortedSet::new(integers))),
        _ => list(value, string).map(|keywords| Values::Keywords(SortedSet::new(keywords))),
    }
}

/// Numbers, or dates and times when a bound is a string.
fn range_test(value: &Value) -> Result<FieldTest> {
    let is_time = value.as_object().is_some_and(|fields| fields.values().any(Value::is_string));
    if !is_time {
        return range(value, number).map(FieldTest::Range);
    }
    let time = |value: &Value| {
        let text = string(value)?;
        match DateTime::parse(&text) {
            Some(time) => Ok(time),
            None => refuse(format!("{text:?} is not in a supported date/time format, please use RFC 3339")),
        }
    };
    range(value, time).map(FieldTest::DatetimeRange)
}

fn range<T>(value: &Value, read: impl Fn(&Value) -> Result<T>) -> Result<Range<T>> {
    let fields = object(value, &["lt", "gt", "gte", "lte"])?;
    Ok(Range {
        lt: optional(fields, "lt", &read)?,
        gt: optional(fields, "gt", &read)?,
        gte: optional(fields, "gte", &read)?,
        lte: optional(fields, "lte", &read)?,
    })
}

fn geo_box(value: &Value) -> Result<GeoBox> {
    let fields = object(value, &["top_left", "bottom_right"])?;
    Ok(GeoBox {
        top_left: at("top_left", geo_point(required(fields, "top_left")?))?,
        bottom_right: at("bottom_right", geo_point(required(fields, "bottom_right")?))?,
    })
}

fn geo_radius(value: &Value) -> Result<GeoRadius> {
    let fields = object(value, &["center", "radius"])?;
    let center = at("center", geo_point(required(fields, "center")?))?;
    Ok(GeoRadius { center, radius: at("radius", number(required(fields, "radius")?))? })
}

fn geo_polygon(value: &Value) -> Result<GeoPolygon> {
    let fields = object(value, &["exterior", "interiors"])?;
    Ok(GeoPolygon {
        exterior: at("exterior", ring(required(fields, "exterior")?))?,
        interiors: optional(fields, "interiors", |value| list(value, ring))?.unwrap_or_default(),
    })
}

fn ring(value: &Value) -> Result<Vec<GeoPoint>> {
    let points = at("points", list(required(object(value, &["points"])?, "points")?, geo_point))?;
    if points.len() < 4 {
        return refuse(format!("a ring needs at least 4 points, got {}", points.len()));
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    if (first.lon - last.lon).abs() > f64::EPSILON || (first.lat - last.lat).abs() > f64::EPSILON {
        return refuse("the first and the last point of a ring must be the same");
    }
    Ok(points)
}

fn geo_point(value: &Value) -> Result<GeoPoint> {
    let fields = object(value, &["lon", "lat"])?;
    let degrees = |name, limit: f64| {
        let value = number(required(fields, name)?)?;
        if value.abs() > limit {
            return refuse(format!("{name} must be from -{limit} to {limit} degrees, got {value}"));
        }
        Ok(value)
    };
    Ok(GeoPoint { lon: degrees("lon", 180.0)?, lat: degrees("lat", 90.0)? })
}

fn slice(value: &Value) -> Result<Slice> {
    let fields = object(value, &["index", "total"])?;
    let part = |name| {
        let value = at(name, count(required(fields, name)?))?;
        u32::try_from(value).or_else(|_| at(name, refuse(format!("at most {}, got {value}", u32::MAX))))
    };
    let (index, total) = (part("index")?, part("total")?);
    if index >= total {
        return refuse(format!("index must be below total, got {index} of {total}"));
    }
    Ok(Slice { index, total })
}

/// An object with no other fields than the known ones.
pub(super) fn object<'a>(value: &'a Value, known: &[&str]) -> Result<&'a Map<String, Value>> {
    let Value::Object(fields) = value else {
        return refuse(format!("expected an object with {}, got {}", known.join(", "), kind(value)));
    };
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => refuse(format!("unknown field `{name}`, expected {}", known.join(", "))),
        None => Ok(fields),
    }
}

/// A field that is there and not null.
fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

pub(super) fn required<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a Value> {
    given(fields, name).map_or_else(|| refuse(format!("missing field `{name}`")), Ok)
}

fn optional<T>(fields: &Map<String, Value>, name: &str, read: impl FnOnce(&Value) -> Result<T>) -> Result<Option<T>> {
    given(fields, name).map(|value| at(name, read(value))).transpose()
}

fn key_of(fields: &Map<String, Value>) -> Result<KeyPath> {
    let path = string(required(fields, "key")?).and_then(|text| KeyPath::parse(&text).or_else(refuse));
    at("key", path)
}

pub(super) fn list<T>(value: &Value, read: impl Fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    match value {
        Value::Array(values) => values.iter().enumerate().map(|(n, value)| at(format!("[{n}]"), read(value))).collect(),
        other => refuse(format!("expected an array, got {}", kind(other))),
    }
}

pub(super) fn id(value: &Value) -> Result<PointId> {
    PointId::deserialize(value).or_else(|error| refuse(error.to_string()))
}

pub(super) fn string(value: &Value) -> Result<String> {
    value.as_str().map_or_else(|| refuse(format!("expected a string, got {}", kind(value))), |text| Ok(text.to_owned()))
}

fn truth(value: &Value) -> Result<bool> {
    value.as_bool().map_or_else(|| refuse(format!("expected true or false, got {}", kind(value))), Ok)
}

pub(super) fn count(value: &Value) -> Result<u64> {
    value.as_u64().map_or_else(|| refuse(format!("expected an integer of at least 0, got {}", kind(value))), Ok)
}
