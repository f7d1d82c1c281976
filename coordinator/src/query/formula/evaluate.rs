//! What a formula is for one point. Computed in 64 bits; an expression that is no finite number is an error that names it.

use serde_json::Value;
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{DateTime, GeoPoint, KeyPath};
use vicinal_common::payload::Fields;
use vicinal_common::point::PointId;

use super::expression::{Decay, DecayShape, Expression, Function, Variable};
use super::{Defaults, FormulaQuery};

/// A point that gets a score.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its id.
    pub id: PointId,
    /// Its score in each prefetch, by place; `None` where it was not found.
    pub scores: &'a [Option<f32>],
    /// Its payload; may be empty if the formula does not [need](FormulaQuery::needs) it.
    pub fields: &'a Fields,
    /// Whether it has a vector of a name.
    pub vectors_present: &'a dyn Fn(&str) -> bool,
}

impl FormulaQuery {
    /// The score of a point. `BadInput` when a field it needs has no value of the right type, or when the result is not
    /// finite.
    pub fn evaluate(&self, subject: Subject<'_>) -> Result<f32> {
        let score = Evaluation { defaults: &self.defaults, subject }.value(&self.formula)?;
        let narrow = score as f32;
        if !narrow.is_finite() {
            return Err(not_finite(&format!("{score} in 32 bits"), subject.id));
        }
        // Adding 0 turns -0 into 0: otherwise they would be ordered by their signs.
        Ok(narrow + 0.0)
    }
}

fn not_finite(expression: &str, id: PointId) -> Error {
    Error::BadInput(format!("the formula has no finite value for point {id}: {expression}"))
}

struct Evaluation<'a> {
    defaults: &'a Defaults,
    subject: Subject<'a>,
}

impl Evaluation<'_> {
    fn value(&self, expression: &Expression) -> Result<f64> {
        match expression {
            Expression::Constant(value) => Ok(*value),
            Expression::Variable(Variable::Score(place)) => Ok(self.score(*place)),
            Expression::Variable(Variable::Field(key)) => self.stored(key, "number", Value::as_f64),
            Expression::Condition(filter) => {
                let Subject { id, fields, vectors_present, .. } = self.subject;
                Ok(if filter.matches(id, fields, vectors_present) { 1.0 } else { 0.0 })
            }
            Expression::GeoDistance { origin, to } => {
                let place = self.stored(to, "place, an object with lon and lat,", place)?;
                self.finite(origin.metres_to(place), || format!("distance to `{to}`"))
            }
            Expression::DatetimeKey(key) => {
                let time = |value: &Value| value.as_str().and_then(DateTime::parse);
                Ok(self.stored(key, "date or time", time)?.seconds())
            }
            Expression::Mult(factors) => {
                let mut product = 1.0;
                for factor in factors {
                    let factor = self.value(factor)?;
                    if factor == 0.0 {
                        return Ok(0.0);
                    }
                    product *= factor;
                }
                Ok(product)
            }
            Expression::Sum(terms) => terms.iter().try_fold(0.0, |sum, term| Ok(sum + self.value(term)?)),
            Expression::Function(function, operand) => self.function(*function, self.value(operand)?),
            Expression::Div { left, right, by_zero_default } => {
                let left = self.value(left)?;
                if left == 0.0 {
                    return Ok(0.0);
                }
                let right = self.value(right)?;
                match by_zero_default {
                    Some(default) if right == 0.0 => Ok(*default),
                    _ => self.finite(left / right, || format!("{left} / {right}")),
                }
            }
            Expression::Pow { base, exponent } => {
                let (base, exponent) = (self.value(base)?, self.value(exponent)?);
                self.finite(base.powf(exponent), || format!("{base} to the power of {exponent}"))
            }
            Expression::Decay(decay) => self.decay(decay),
        }
    }

    fn function(&self, function: Function, x: f64) -> Result<f64> {
        let (value, name) = match function {
            Function::Neg => return Ok(-x),
            Function::Abs => return Ok(x.abs()),
            Function::Sqrt => (x.sqrt(), "sqrt"),
            Function::Exp => (x.exp(), "exp"),
            Function::Log10 => (x.log10(), "log10"),
            Function::Ln => (x.ln(), "ln"),
        };
        self.finite(value, || format!("{name} of {x}"))
    }

    fn decay(&self, decay: &Decay) -> Result<f64> {
        let (x, target) = (self.value(&decay.x)?, self.value(&decay.target)?);
        let distance = self.finite((x - target).abs(), || format!("distance of {x} from {target}"))?;
        Ok(match decay.shape {
            DecayShape::Linear => (decay.rate * distance + 1.0).max(0.0),
            DecayShape::Exponential => (decay.rate * distance).exp(),
            DecayShape::Gaussian => (decay.rate * distance * distance).exp(),
        })
    }

    fn score(&self, place: usize) -> f64 {
        let found = self.subject.scores.get(place).copied().flatten().map(f64::from);
        found.or_else(|| self.defaults.scores.get(&place).copied()).unwrap_or(0.0)
    }

    /// The first value at a key path, or the default of the field, as what is needed of it.
    fn stored<T>(&self, key: &KeyPath, what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let id = self.subject.id;
        let bad = |text: String| Err(Error::BadInput(text));
        if let Some(value) = first_value(key, self.subject.fields) {
            return read(value)
                .map_or_else(|| bad(format!("`{key}` of point {id} is no {what} as the formula needs")), Ok);
        }
        let Some(value) = self.defaults.fields.get(key).and_then(first_of) else {
            return bad(format!("point {id} has no `{key}`, which the formula needs, and there is no default for it"));
        };
        read(value).map_or_else(|| bad(format!("the default of `{key}` is no {what} as the formula needs")), Ok)
    }

    fn finite(&self, value: f64, expression: impl Fn() -> String) -> Result<f64> {
        if value.is_finite() { Ok(value) } else { Err(not_finite(&expression(), self.subject.id)) }
    }
}

/// The first of the values at a path in document order, an array standing for its elements.
fn first_value<'a>(key: &KeyPath, fields: &'a Fields) -> Option<&'a Value> {
    let mut first = None;
    key.visit(fields, &mut |value| first = first.or_else(|| first_of(value)));
    first
}

/// The first element of an array, or the value that is none.
fn first_of(value: &Value) -> Option<&Value> {
    match value {
        Value::Array(values) => values.first(),
        value => Some(value),
    }
}

/// A stored place whose degrees are those of a place on the globe.
fn place(value: &Value) -> Option<GeoPoint> {
    GeoPoint::from_stored(value).filter(|place| place.lon.abs() <= 180.0 && place.lat.abs() <= 90.0)
}
