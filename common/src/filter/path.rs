//! Key paths into a payload: `a.b`, `a[].b`, `a[0]`, `a."key with dots.or [brackets]"`.

mod edit;

use std::fmt;

use crate::payload::Fields;
use serde_json::Value;

pub use edit::merge_fields;

/// A parsed key path. Names may hold letters, digits, `_` and `-`; others stand in double quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyPath {
    first: String,
    rest: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Field of an object.
    Key(String),
    /// Element of an array, from 0.
    Index(usize),
    /// Every element of an array.
    Each,
}

impl KeyPath {
    /// Reads a path; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<KeyPath, String> {
        let fault = |what: &str| format!("{text:?} is not a valid key path: {what}");
        let (first, mut left) = name(text).map_err(&fault)?;
        let mut rest = Vec::new();
        while !left.is_empty() {
            let step;
            if let Some(after) = left.strip_prefix('.') {
                let (key, after) = name(after).map_err(&fault)?;
                (step, left) = (Step::Key(key), after);
            } else if let Some(after) = left.strip_prefix("[]") {
                (step, left) = (Step::Each, after);
            } else if let Some((digits, after)) = left.strip_prefix('[').and_then(|l| l.split_once(']')) {
                let is_index = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                let index = is_index.then(|| digits.parse().ok()).flatten();
                (step, left) = (Step::Index(index.ok_or_else(|| fault("an index must be a number"))?), after);
            } else {
                return Err(fault("after a name comes a dot, [] or an index like [0]; quote names with other signs"));
            }
            rest.push(step);
        }
        Ok(KeyPath { first, rest })
    }

    /// Whether any value at this path passes, tried in document order until one does.
    pub(super) fn any<'a>(&self, fields: &'a Fields, test: &mut dyn FnMut(&'a Value) -> bool) -> bool {
        fields.get(&self.first).is_some_and(|value| any_below(&self.rest, value, test))
    }

    /// Visits every value at this path, in document order.
    pub fn visit<'a>(&self, fields: &'a Fields, see: &mut dyn FnMut(&'a Value)) {
        self.any(fields, &mut |value| {
            see(value);
            false
        });
    }

    /// The path that leads, through every element of the arrays at this one, on to `below`: what a key inside `nested`
    /// stands for. `a` and `a[]` mean the same here.
    pub fn within(&self, below: &KeyPath) -> KeyPath {
        let mut rest = self.elements().rest;
        rest.push(Step::Key(below.first.clone()));
        rest.extend(below.rest.iter().cloned());
        KeyPath { first: self.first.clone(), rest }
    }

    /// The path of the elements of the arrays at this one.
    fn elements(&self) -> KeyPath {
        let mut path = self.clone();
        if path.rest.last() != Some(&Step::Each) {
            path.rest.push(Step::Each);
        }
        path
    }

    /// Whether any element of the arrays at this path passes; `a` and `a[]` mean the same.
    pub(super) fn any_element<'a>(&self, fields: &'a Fields, test: &mut dyn FnMut(&'a Value) -> bool) -> bool {
        if self.rest.last() == Some(&Step::Each) {
            return self.any(fields, test);
        }
        self.any(fields, &mut |value| value.as_array().is_some_and(|values| values.iter().any(&mut *test)))
    }
}

fn any_below<'a>(steps: &[Step], value: &'a Value, test: &mut dyn FnMut(&'a Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        return test(value);
    };
    match (step, value) {
        (Step::Key(key), Value::Object(fields)) => fields.get(key).is_some_and(|value| any_below(rest, value, test)),
        (Step::Index(index), Value::Array(values)) => {
            values.get(*index).is_some_and(|value| any_below(rest, value, test))
        }
        (Step::Each, Value::Array(values)) => values.iter().any(|value| any_below(rest, value, test)),
        (Step::Key(_) | Step::Index(_) | Step::Each, _) => false,
    }
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Splits off a plain or quoted name.
fn name(text: &str) -> Result<(String, &str), &'static str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (name, after) = quoted.split_once('"').ok_or("a quote is not closed")?;
        if name.contains('\\') {
            return Err("a quoted name cannot hold a backslash");
        }
        return Ok((name.to_owned(), after));
    }
    let end = text.find(|c| !is_plain(c)).unwrap_or(text.len());
    if end == 0 {
        return Err("a name is missing or has a sign that must be quoted");
    }
    Ok((text[..end].to_owned(), &text[end..]))
}

struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", self.0)
        }
    }
}

/// The text form that parses to the same path.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Name(&self.first).fmt(f)?;
        for step in &self.rest {
            match step {
                Step::Key(key) => write!(f, ".{}", Name(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Each => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values(path: &str, payload: &Value) -> Vec<Value> {
        let mut found = Vec::new();
        KeyPath::parse(path).unwrap().any(payload.as_object().unwrap(), &mut |value| {
            found.push(value.clone());
            false
        });
        found
    }

    #[test]
    fn paths_lead_into_objects_and_arrays() {
        let payload = json!({"a": {"b": [{"c": 1}, {"c": [2, 3]}, 4]}, "a.b": 5, "": 6, "größe-1": 7});
        for (path, expected) in [
            ("a.b[].c", json!([1, [2, 3]])),
            ("a.b[1].c", json!([[2, 3]])),
            ("a.b[].c[]", json!([2, 3])),
            ("a.b[].c[0]", json!([2])),
            ("a.b[]", json!([{"c": 1}, {"c": [2, 3]}, 4])),
            ("a.b[7]", json!([])),
            ("a.b.c", json!([])),
            ("a[]", json!([])),
            ("\"a.b\"", json!([5])),
            ("\"\"", json!([6])),
            ("größe-1", json!([7])),
            ("missing", json!([])),
        ] {
            assert_eq!(Value::from(values(path, &payload)), expected, "{path}");
        }
    }

    #[test]
    fn a_nested_path_goes_through_the_elements() {
        let within = |outer: &str, inner: &str| {
            KeyPath::parse(outer).unwrap().within(&KeyPath::parse(inner).unwrap()).to_string()
        };
        assert_eq!(within("a", "b"), "a[].b");
        assert_eq!(within("a.b[]", "\"c.d\"[0]"), "a.b[].\"c.d\"[0]");
    }

    #[test]
    fn bad_paths_are_refused() {
        for bad in [
            "",
            ".",
            "a.",
            "a..b",
            "a b",
            "a[",
            "a[x]",
            "a[-1]",
            "a[]b",
            "\"a",
            "a\"b\"",
            "[0]",
            "a[99999999999999999999]",
        ] {
            assert!(KeyPath::parse(bad).unwrap_err().contains("key path"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_text_form_parses_to_the_same_path(first in "[^\"\\\\]{0,5}", steps in prop::collection::vec(
            prop_oneof![
                "[^\"\\\\]{0,5}".prop_map(Step::Key), any::<usize>().prop_map(Step::Index), Just(Step::Each)
            ], 0..5)) {
            let path = KeyPath { first, rest: steps };
            prop_assert_eq!(KeyPath::parse(&path.to_string()).unwrap(), path);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = KeyPath::parse(&text);
        }
    }
}
