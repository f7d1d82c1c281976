//! Changing a payload at a key path.

use serde_json::Value;

use super::{KeyPath, Step};
use crate::payload::Fields;

/// Takes over all fields of `from`; those that are null there are removed instead.
pub fn merge_fields(into: &mut Fields, from: &Fields) {
    for (key, value) in from {
        match value {
            Value::Null => drop(into.remove(key)),
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

impl KeyPath {
    /// Merges `from` into every object at this path, as [`merge_fields`] does. Objects that are missing on the way are
    /// made, and what is something else is replaced by one. An index leads to elements that an array has; a missing
    /// array is made, empty, and then nothing is set.
    pub fn merge(&self, fields: &mut Fields, from: &Fields) {
        merge_below(&self.rest, entry(fields, &self.first), from);
    }

    /// Removes every value at this path. A path that ends in `[]` empties the array; one that ends in an index removes
    /// nothing, since removing an element twice would remove two.
    pub fn remove(&self, fields: &mut Fields) {
        if self.rest.is_empty() {
            fields.remove(&self.first);
        } else if let Some(value) = fields.get_mut(&self.first) {
            remove_below(&self.rest, value);
        }
    }
}

/// The value of a field, which becomes an empty object when it is missing.
fn entry<'a>(fields: &'a mut Fields, key: &str) -> &'a mut Value {
    fields.entry(key).or_insert_with(|| Value::Object(Fields::new()))
}

/// The object that a value is, or that it is replaced by.
fn object(value: &mut Value) -> &mut Fields {
    if !value.is_object() {
        *value = Value::Object(Fields::new());
    }
    value.as_object_mut().expect("it is an object now")
}

fn merge_below(steps: &[Step], value: &mut Value, from: &Fields) {
    let Some((step, rest)) = steps.split_first() else {
        return merge_fields(object(value), from);
    };
    match (step, value) {
        (Step::Key(key), value) => merge_below(rest, entry(object(value), key), from),
        (Step::Index(index), Value::Array(values)) => {
            if let Some(value) = values.get_mut(*index) {
                merge_below(rest, value, from);
            }
        }
        (Step::Each, Value::Array(values)) => values.iter_mut().for_each(|value| merge_below(rest, value, from)),
        (Step::Index(_) | Step::Each, value) => *value = Value::Array(Vec::new()),
    }
}

fn remove_below(steps: &[Step], value: &mut Value) {
    match (steps, value) {
        ([Step::Key(key)], Value::Object(fields)) => drop(fields.remove(key)),
        ([Step::Each], Value::Array(values)) => values.clear(),
        ([Step::Key(key), rest @ ..], Value::Object(fields)) => {
            if let Some(value) = fields.get_mut(key) {
                remove_below(rest, value);
            }
        }
        ([Step::Index(index), rest @ ..], Value::Array(values)) if !rest.is_empty() => {
            if let Some(value) = values.get_mut(*index) {
                remove_below(rest, value);
            }
        }
        ([Step::Each, rest @ ..], Value::Array(values)) => {
            values.iter_mut().for_each(|value| remove_below(rest, value));
        }
        (_, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    fn merged(path: &str, payload: Value, from: Value) -> Value {
        let mut payload = fields(payload);
        KeyPath::parse(path).unwrap().merge(&mut payload, &fields(from));
        Value::Object(payload)
    }

    fn removed(path: &str, payload: Value) -> Value {
        let mut payload = fields(payload);
        KeyPath::parse(path).unwrap().remove(&mut payload);
        Value::Object(payload)
    }

    #[test]
    fn null_removes_a_field() {
        let mut payload = fields(json!({"a": 1, "b": 2}));
        merge_fields(&mut payload, &fields(json!({"a": null, "c": {"d": null}})));
        assert_eq!(Value::Object(payload), json!({"b": 2, "c": {"d": null}}));
    }

    #[test]
    fn fields_are_set_at_a_path() {
        let payload = || json!({"a": {"b": 1}, "l": [{"x": 1}, 2], "s": "text"});
        for (path, expected) in [
            ("a", json!({"a": {"b": 1, "n": 0}, "l": [{"x": 1}, 2], "s": "text"})),
            ("a.b", json!({"a": {"b": {"n": 0}}, "l": [{"x": 1}, 2], "s": "text"})),
            ("a.c.d", json!({"a": {"b": 1, "c": {"d": {"n": 0}}}, "l": [{"x": 1}, 2], "s": "text"})),
            ("l[0]", json!({"a": {"b": 1}, "l": [{"x": 1, "n": 0}, 2], "s": "text"})),
            ("l[9]", payload()),
            ("l[]", json!({"a": {"b": 1}, "l": [{"x": 1, "n": 0}, {"n": 0}], "s": "text"})),
            ("l[].y", json!({"a": {"b": 1}, "l": [{"x": 1, "y": {"n": 0}}, {"y": {"n": 0}}], "s": "text"})),
            ("s.t", json!({"a": {"b": 1}, "l": [{"x": 1}, 2], "s": {"t": {"n": 0}}})),
            ("s[0].t", json!({"a": {"b": 1}, "l": [{"x": 1}, 2], "s": []})),
            ("new[]", json!({"a": {"b": 1}, "l": [{"x": 1}, 2], "s": "text", "new": []})),
        ] {
            assert_eq!(merged(path, payload(), json!({"n": 0})), expected, "{path}");
        }
    }

    #[test]
    fn values_are_removed_at_a_path() {
        let payload = || json!({"a": {"b": 1, "c": 2}, "l": [{"x": 1, "y": 2}, {"x": 3}, 4]});
        for (path, expected) in [
            ("a", json!({"l": [{"x": 1, "y": 2}, {"x": 3}, 4]})),
            ("a.b", json!({"a": {"c": 2}, "l": [{"x": 1, "y": 2}, {"x": 3}, 4]})),
            ("a.b.c", payload()),
            ("missing.b", payload()),
            ("l[]", json!({"a": {"b": 1, "c": 2}, "l": []})),
            ("l[].x", json!({"a": {"b": 1, "c": 2}, "l": [{"y": 2}, {}, 4]})),
            ("l[0].x", json!({"a": {"b": 1, "c": 2}, "l": [{"y": 2}, {"x": 3}, 4]})),
            ("l[0]", payload()),
            ("a[]", payload()),
        ] {
            assert_eq!(removed(path, payload()), expected, "{path}");
        }
    }

    /// Any JSON value, a few levels deep, of few names so that paths meet them.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..9).prop_map(Value::from)];
        leaf.prop_recursive(3, 20, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn doing_it_again_changes_nothing(value in value(), from in value(), path in "[ab]((\\.[ab])|\\[\\]|\\[[01]\\]){0,3}") {
            let path = KeyPath::parse(&path).unwrap();
            let mut payload = fields(json!({"a": value}));
            let from = fields(json!({"b": from}));
            path.merge(&mut payload, &from);
            let once = payload.clone();
            path.merge(&mut payload, &from);
            prop_assert_eq!(&payload, &once);
            path.remove(&mut payload);
            let once = payload.clone();
            path.remove(&mut payload);
            prop_assert_eq!(payload, once);
        }
    }
}
