//! Which parts of a point a client wants to see: `with_payload` and `with_vector`.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use vicinal_common::api::VectorSelector;
use vicinal_common::payload::Fields;

/// Which of a payload's fields to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WithPayload {
    /// No payload at all.
    None,
    /// All fields.
    All,
    /// Only these.
    Include(Vec<KeyPath>),
    /// All but these.
    Exclude(Vec<KeyPath>),
}

/// A path into a payload: `a.b`, `a[0].b`, `a[].b`, with `"quoted keys"` where a key has a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Every,
}

impl KeyPath {
    /// Reads a path. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<KeyPath, String> {
        let bad = |what: &str| format!("`{text}` is not a payload key: {what}");
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').ok_or_else(|| bad("a quote is not closed"))?;
                steps.push(Step::Key(quoted[..end].to_owned()));
                rest = &quoted[end + 1..];
            } else {
                let end = rest.find(['.', '[', ']', '"']).unwrap_or(rest.len());
                if end == 0 {
                    return Err(bad("a key is empty"));
                }
                steps.push(Step::Key(rest[..end].to_owned()));
                rest = &rest[end..];
            }
            while let Some(inner) = rest.strip_prefix('[') {
                let end = inner.find(']').ok_or_else(|| bad("a bracket is not closed"))?;
                steps.push(match &inner[..end] {
                    "" => Step::Every,
                    digits => Step::Index(digits.parse().map_err(|_| bad("an index is not a number"))?),
                });
                rest = &inner[end + 1..];
            }
            match rest.strip_prefix('.') {
                Some(next) => rest = next,
                None if rest.is_empty() => return Ok(KeyPath(steps)),
                None => return Err(bad("a dot is missing")),
            }
        }
    }
}

impl WithPayload {
    /// Whether the stored text can be shown as it is.
    pub(super) fn is_whole(&self) -> bool {
        *self == WithPayload::All
    }

    /// The fields to show.
    pub(super) fn select(&self, mut fields: Fields) -> Fields {
        match self {
            WithPayload::None => Fields::new(),
            WithPayload::All => fields,
            WithPayload::Include(paths) => {
                let paths: Vec<&[Step]> = paths.iter().map(|path| path.0.as_slice()).collect();
                keep_fields(&fields, &paths)
            }
            WithPayload::Exclude(paths) => {
                for path in paths {
                    remove_field(&mut fields, &path.0);
                }
                fields
            }
        }
    }
}

/// The part of `fields` that at least one path leads to.
fn keep_fields(fields: &Fields, paths: &[&[Step]]) -> Fields {
    let mut kept = Map::new();
    for (key, value) in fields {
        let below = paths.iter().filter_map(|path| match path.split_first() {
            Some((Step::Key(wanted), rest)) if wanted == key => Some(rest),
            Some(_) | None => None,
        });
        let below: Vec<&[Step]> = below.collect();
        if let Some(value) = keep_value(value, &below) {
            kept.insert(key.clone(), value);
        }
    }
    kept
}

fn keep_value(value: &Value, paths: &[&[Step]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    match value {
        _ if paths.is_empty() => None,
        Value::Object(fields) => {
            let kept = keep_fields(fields, paths);
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(values) => {
            let mut kept = Vec::new();
            for (position, value) in values.iter().enumerate() {
                let below = paths.iter().filter_map(|path| match path.split_first() {
                    Some((Step::Every, rest)) => Some(rest),
                    Some((Step::Index(wanted), rest)) if *wanted == position => Some(rest),
                    Some(_) | None => None,
                });
                let below: Vec<&[Step]> = below.collect();
                kept.extend(keep_value(value, &below));
            }
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn remove_field(fields: &mut Fields, path: &[Step]) {
    match path {
        [Step::Key(key)] => {
            fields.remove(key);
        }
        [Step::Key(key), rest @ ..] => {
            if let Some(value) = fields.get_mut(key) {
                remove_value(value, rest);
            }
        }
        [] | [Step::Index(_) | Step::Every, ..] => {}
    }
}

fn remove_value(value: &mut Value, path: &[Step]) {
    match (value, path) {
        (Value::Object(fields), [Step::Key(_), ..]) => remove_field(fields, path),
        (Value::Array(values), [Step::Every]) => values.clear(),
        (Value::Array(values), [Step::Index(position)]) if *position < values.len() => {
            values.remove(*position);
        }
        (Value::Array(values), [Step::Every, rest @ ..]) => {
            values.iter_mut().for_each(|value| remove_value(value, rest));
        }
        (Value::Array(values), [Step::Index(position), rest @ ..]) => {
            if let Some(value) = values.get_mut(*position) {
                remove_value(value, rest);
            }
        }
        _ => {}
    }
}

impl<'de> Deserialize<'de> for KeyPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyPath, D::Error> {
        let text = String::deserialize(deserializer)?;
        KeyPath::parse(&text).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for WithPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WithPayload, D::Error> {
        deserializer.deserialize_any(WithPayloadVisitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorBody {
    include: Option<Vec<KeyPath>>,
    exclude: Option<Vec<KeyPath>>,
}

struct WithPayloadVisitor;

impl<'de> Visitor<'de> for WithPayloadVisitor {
    type Value = WithPayload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, a list of keys, {\"include\": keys} or {\"exclude\": keys}")
    }

    fn visit_bool<E>(self, value: bool) -> Result<WithPayload, E> {
        Ok(if value { WithPayload::All } else { WithPayload::None })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<WithPayload, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(WithPayload::Include)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<WithPayload, A::Error> {
        let body = SelectorBody::deserialize(de::value::MapAccessDeserializer::new(map))?;
        match (body.include, body.exclude) {
            (Some(paths), None) => Ok(WithPayload::Include(paths)),
            (None, Some(paths)) => Ok(WithPayload::Exclude(paths)),
            (None, None) | (Some(_), Some(_)) => Err(de::Error::custom("expected one of `include` and `exclude`")),
        }
    }
}

/// Which vectors to show.
pub(super) struct WithVector(pub(super) VectorSelector);

impl<'de> Deserialize<'de> for WithVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WithVector, D::Error> {
        deserializer.deserialize_any(WithVectorVisitor)
    }
}

struct WithVectorVisitor;

impl<'de> Visitor<'de> for WithVectorVisitor {
    type Value = WithVector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or a list of vector names")
    }

    fn visit_bool<E>(self, value: bool) -> Result<WithVector, E> {
        Ok(WithVector(if value { VectorSelector::All } else { VectorSelector::None }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<WithVector, A::Error> {
        let names = Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
        Ok(WithVector(VectorSelector::Named(names)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn select(with: Value, payload: Value) -> Value {
        let with: WithPayload = serde_json::from_value(with).unwrap();
        Value::Object(with.select(payload.as_object().unwrap().clone()))
    }

    #[test]
    fn selectors_show_what_they_name() {
        let payload = json!({"a": {"b": 1, "c": 2}, "l": [{"x": 1, "y": 2}, {"y": 3}], "s": "t"});
        for (with, expected) in [
            (json!(true), payload.clone()),
            (json!(false), json!({})),
            (json!(["s"]), json!({"s": "t"})),
            (json!(["a.b", "none"]), json!({"a": {"b": 1}})),
            (json!({"include": ["l[].y"]}), json!({"l": [{"y": 2}, {"y": 3}]})),
            (json!({"include": ["l[0]"]}), json!({"l": [{"x": 1, "y": 2}]})),
            (json!({"exclude": ["a", "l"]}), json!({"s": "t"})),
            (json!({"exclude": ["a.b", "l[].y"]}), json!({"a": {"c": 2}, "l": [{"x": 1}, {}], "s": "t"})),
        ] {
            assert_eq!(select(with.clone(), payload.clone()), expected, "{with}");
        }
        assert_eq!(select(json!(["\"a.b\""]), json!({"a.b": 1, "a": {"b": 2}})), json!({"a.b": 1}));
    }

    #[test]
    fn bad_selectors_are_refused() {
        for bad in
            [json!(1), json!([""]), json!(["a..b"]), json!(["a["]), json!(["a[x]"]), json!({"other": []}), json!({})]
        {
            assert!(serde_json::from_value::<WithPayload>(bad.clone()).is_err(), "{bad}");
        }
    }
}
