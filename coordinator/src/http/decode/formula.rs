//! The `formula` and the `defaults` of a query.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::{Map, Value};
use vicinal_common::error::Error;
use vicinal_common::filter::{DateTime, Filter, GeoPoint, KeyPath};
use vicinal_common::refusal::{Parsed as Result, Refusal, at, kind, number, refuse};

use crate::query::Source;
use crate::query::formula::{Decay, DecayShape, Defaults, Expression, FormulaQuery, Function, Variable};

/// The result as serde has it, the place counted from the body's `query`.
fn named<T, E: de::Error>(field: &str, result: Result<T>) -> std::result::Result<T, E> {
    at(format!("query.{field}"), result).map_err(|Refusal { path, message }| E::custom(format!("{path}: {message}")))
}

/// An expression as it is sent. Its depth and size are checked where the query is.
pub(super) struct FormulaInput(Expression);

impl FormulaInput {
    pub(super) fn into_source(self) -> Source {
        Source::Formula(Arc::new(FormulaQuery { formula: self.0, defaults: Defaults::default() }))
    }
}

impl<'de> Deserialize<'de> for FormulaInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<FormulaInput, D::Error> {
        named("formula", expression(Value::deserialize(deserializer)?)).map(FormulaInput)
    }
}

/// Values by the names of variables.
pub(super) struct DefaultsInput(Defaults);

impl DefaultsInput {
    /// The formula with these defaults; an error for any other query.
    pub(super) fn join<E: de::Error>(self, source: Source) -> std::result::Result<Source, E> {
        let Source::Formula(query) = source else {
            return Err(E::custom("`query.defaults` stands without `query.formula`"));
        };
        let formula = Arc::unwrap_or_clone(query).formula;
        Ok(Source::Formula(Arc::new(FormulaQuery { formula, defaults: self.0 })))
    }
}

impl<'de> Deserialize<'de> for DefaultsInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<DefaultsInput, D::Error> {
        named("defaults", defaults(Map::deserialize(deserializer)?)).map(DefaultsInput)
    }
}

fn defaults(values: Map<String, Value>) -> Result<Defaults> {
    let mut defaults = Defaults::default();
    for (name, value) in values {
        let is_new = match at(&name, variable(&name))? {
            Variable::Score(place) => defaults.scores.insert(place, at(&name, number(&value))?).is_none(),
            Variable::Field(key) => defaults.fields.insert(key, value).is_none(),
        };
        if !is_new {
            return at(&name, refuse("the same variable has another default"));
        }
    }
    Ok(defaults)
}

/// `$score`, `$score[2]`, or a key path.
fn variable(text: &str) -> Result<Variable> {
    let Some(place) = text.strip_prefix("$score") else {
        return key_path(text).map(Variable::Field);
    };
    if place.is_empty() {
        return Ok(Variable::Score(0));
    }
    let digits = place.strip_prefix('[').and_then(|place| place.strip_suffix(']'));
    let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(place) => Ok(Variable::Score(place)),
        None => refuse(format!("{text:?} is no variable: scores are written $score or $score[2], fields as key paths")),
    }
}

/// The keys that name an operator; objects without one are conditions.
#[rustfmt::skip]
const OPERATORS: [&str; 16] = [
    "mult", "sum", "neg", "abs", "div", "sqrt", "pow", "exp", "log10", "ln", "lin_decay", "exp_decay", "gauss_decay",
    "geo_distance", "datetime", "datetime_key",
];

fn expression(value: Value) -> Result<Expression> {
    match value {
        Value::Number(_) => number(&value).map(Expression::Constant),
        Value::String(text) => variable(&text).map(Expression::Variable),
        Value::Object(mut fields) => {
            let Some(name) = OPERATORS.into_iter().find(|name| fields.contains_key(*name)) else {
                return condition(fields);
            };
            let operand = required(&mut fields, name)?;
            match fields.keys().next() {
                Some(other) => refuse(format!("`{name}` stands beside `{other}`")),
                None => at(name, operation(name, operand)),
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => {
            refuse(format!("expected a number, a variable, a condition or an operator, got {}", kind(&value)))
        }
    }
}

/// A condition as filters have it.
fn condition(fields: Map<String, Value>) -> Result<Expression> {
    let filter: Map<String, Value> = [("must".to_owned(), Value::Object(fields))].into_iter().collect();
    let text = match Filter::parse(&Value::Object(filter)) {
        Ok(filter) => return Ok(Expression::Condition(filter)),
        Err(Error::BadInput(text)) => text,
        Err(other) => other.to_string(),
    };
    // Nobody sent that filter: what stands behind its name is where the fault is.
    let place = text.strip_prefix("filter.must").unwrap_or(&text);
    match place.strip_prefix(": ") {
        Some(message) if message.starts_with("unknown condition") => {
            refuse(format!("{message}; nor is it an operator, one of {}", OPERATORS.join(", ")))
        }
        Some(message) => refuse(message),
        None => match place.split_once(": ") {
            Some((path, message)) => at(path.trim_start_matches('.'), refuse(message)),
            None => refuse(place),
        },
    }
}

fn operation(name: &str, operand: Value) -> Result<Expression> {
    let function = |function, operand| Ok(Expression::Function(function, Box::new(expression(operand)?)));
    match name {
        "mult" => list(operand).map(Expression::Mult),
        "sum" => list(operand).map(Expression::Sum),
        "neg" => function(Function::Neg, operand),
        "abs" => function(Function::Abs, operand),
        "sqrt" => function(Function::Sqrt, operand),
        "exp" => function(Function::Exp, operand),
        "log10" => function(Function::Log10, operand),
        "ln" => function(Function::Ln, operand),
        "div" => {
            let mut fields = object(operand, &["left", "right", "by_zero_default"])?;
            let (left, right) = (part(&mut fields, "left")?, part(&mut fields, "right")?);
            let by_zero_default = optional(&mut fields, "by_zero_default", |value| number(&value))?;
            Ok(Expression::Div { left: Box::new(left), right: Box::new(right), by_zero_default })
        }
        "pow" => {
            let mut fields = object(operand, &["base", "exponent"])?;
            let (base, exponent) = (part(&mut fields, "base")?, part(&mut fields, "exponent")?);
            Ok(Expression::Pow { base: Box::new(base), exponent: Box::new(exponent) })
        }
        "lin_decay" => decay(DecayShape::Linear, operand),
        "exp_decay" => decay(DecayShape::Exponential, operand),
        "gauss_decay" => decay(DecayShape::Gaussian, operand),
        "geo_distance" => {
            let mut fields = object(operand, &["origin", "to"])?;
            let origin = at("origin", place(required(&mut fields, "origin")?))?;
            Ok(Expression::GeoDistance { origin, to: at("to", key_of(required(&mut fields, "to")?))? })
        }
        "datetime" => match operand.as_str().map(|text| (text, DateTime::parse(text))) {
            Some((_, Some(time))) => Ok(Expression::Constant(time.seconds())),
            Some((text, None)) => {
                refuse(format!("{text:?} is not in a supported date/time format, please use RFC 3339"))
            }
            None => refuse(format!("expected a string, got {}", kind(&operand))),
        },
        "datetime_key" => key_of(operand).map(Expression::DatetimeKey),
        other => refuse(format!("`{other}` is no operator")),
    }
}

fn decay(shape: DecayShape, operand: Value) -> Result<Expression> {
    let mut fields = object(operand, &["x", "target", "scale", "midpoint"])?;
    let x = part(&mut fields, "x")?;
    let target = optional(&mut fields, "target", expression)?.unwrap_or(Expression::Constant(0.0));
    let scale = optional(&mut fields, "scale", |value| number(&value))?.unwrap_or(Decay::SCALE_DEFAULT);
    let midpoint = optional(&mut fields, "midpoint", |value| number(&value))?.unwrap_or(Decay::MIDPOINT_DEFAULT);
    Decay::new(shape, [x, target], scale, midpoint).map(Expression::Decay).or_else(refuse)
}

fn list(value: Value) -> Result<Vec<Expression>> {
    match value {
        Value::Array(values) => {
            values.into_iter().enumerate().map(|(n, value)| at(format!("[{n}]"), expression(value))).collect()
        }
        other => refuse(format!("expected an array of expressions, got {}", kind(&other))),
    }
}

/// An object with no other fields than the known ones.
fn object(value: Value, known: &[&str]) -> Result<Map<String, Value>> {
    let Value::Object(fields) = value else {
        return refuse(format!("expected an object with {}, got {}", known.join(", "), kind(&value)));
    };
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => refuse(format!("unknown field `{name}`, expected {}", known.join(", "))),
        None => Ok(fields),
    }
}

fn required(fields: &mut Map<String, Value>, name: &str) -> Result<Value> {
    fields.remove(name).map_or_else(|| refuse(format!("missing field `{name}`")), Ok)
}

/// What a field holds that is there and not null.
fn optional<T>(
    fields: &mut Map<String, Value>,
    name: &str,
    read: impl FnOnce(Value) -> Result<T>,
) -> Result<Option<T>> {
    fields.remove(name).filter(|value| !value.is_null()).map(|value| at(name, read(value))).transpose()
}

/// An expression in a field.
fn part(fields: &mut Map<String, Value>, name: &str) -> Result<Expression> {
    let value = required(fields, name)?;
    at(name, expression(value))
}

fn place(value: Value) -> Result<GeoPoint> {
    let mut fields = object(value, &["lon", "lat"])?;
    let mut degrees = |name, limit: f64| {
        let value = required(&mut fields, name)?;
        at(
            name,
            number(&value).and_then(|value| match value.abs() <= limit {
                true => Ok(value),
                false => refuse(format!("must be from -{limit} to {limit} degrees, got {value}")),
            }),
        )
    };
    Ok(GeoPoint { lon: degrees("lon", 180.0)?, lat: degrees("lat", 90.0)? })
}

fn key_of(value: Value) -> Result<KeyPath> {
    match value {
        Value::String(text) => key_path(&text),
        other => refuse(format!("expected a string, a key path, got {}", kind(&other))),
    }
}

fn key_path(text: &str) -> Result<KeyPath> {
    KeyPath::parse(text).or_else(refuse)
}

#[cfg(test)]
mod tests;
