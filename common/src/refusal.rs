//! Why a piece of JSON is not what it should be, and where in it: what parsers of nested requests are written with.

use std::fmt::Display;

use serde_json::Value;

/// Why, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The place, counted from where parsing began: `must[2].range`; empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// The outcome of parsing a part.
pub type Parsed<T> = Result<T, Refusal>;

/// Refuses what is being parsed as a whole.
pub fn refuse<T>(message: impl Into<String>) -> Parsed<T> {
    Err(Refusal { path: String::new(), message: message.into() })
}

/// Names the place of a failed step: a field, or `[i]`.
pub fn at<T>(step: impl Display, result: Parsed<T>) -> Parsed<T> {
    result.map_err(|Refusal { path, message }| {
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        Refusal { path: format!("{step}{dot}{path}"), message }
    })
}

/// A number, as the nearest 64-bit float.
pub fn number(value: &Value) -> Parsed<f64> {
    value.as_f64().map_or_else(|| refuse(format!("expected a number, got {}", kind(value))), Ok)
}

/// What a value is, in words; short values are shown.
pub fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_joined_with_dots_but_not_before_brackets() {
        let inner = at("[2]", at("range", number(&json!("x"))));
        let refusal = at("must", inner).unwrap_err();
        assert_eq!(
            (refusal.path.as_str(), refusal.message.as_str()),
            ("must[2].range", "expected a number, got a string")
        );
        assert_eq!(number(&json!(1.5)), Ok(1.5));
    }
}
