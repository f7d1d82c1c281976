//! What formulas are made of.

use vicinal_common::filter::{Filter, GeoPoint, KeyPath};

/// A part of a formula: for a point it is a number.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// The same for all points.
    Constant(f64),
    /// A score, or a number in the payload.
    Variable(Variable),
    /// 1 for points that match, 0 for others.
    Condition(Filter),
    /// Metres along the surface from a place to the one in the payload.
    GeoDistance {
        /// The fixed place.
        origin: GeoPoint,
        /// Where in the payload the other one is, as `{"lon", "lat"}`.
        to: KeyPath,
    },
    /// Seconds since 1970 in UTC of the date or time at a key path.
    DatetimeKey(KeyPath),
    /// The product; 1 of nothing. What follows a factor of 0 is not looked at.
    Mult(Vec<Expression>),
    /// The sum; 0 of nothing.
    Sum(Vec<Expression>),
    /// A function of one number.
    Function(Function, Box<Expression>),
    /// A quotient. Of a dividend of 0 it is 0 and the divisor is not looked at.
    Div {
        /// The dividend.
        left: Box<Expression>,
        /// The divisor.
        right: Box<Expression>,
        /// The result where the divisor is 0; an error without it.
        by_zero_default: Option<f64>,
    },
    /// A power.
    Pow {
        /// What is raised.
        base: Box<Expression>,
        /// To which power.
        exponent: Box<Expression>,
    },
    /// How near a number is to another: 1 where they are equal, falling to 0.
    Decay(Decay),
}

/// What differs from point to point.
#[derive(Clone, Debug, PartialEq)]
pub enum Variable {
    /// The score in the prefetch at this place, from 0.
    Score(usize),
    /// The number at a key path of the payload.
    Field(KeyPath),
}

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// The number with the other sign.
    Neg,
    /// The number without its sign.
    Abs,
    /// Square root, of 0 and more.
    Sqrt,
    /// Power of e.
    Exp,
    /// Logarithm to base 10, of more than 0.
    Log10,
    /// Natural logarithm, of more than 0.
    Ln,
}

/// Along which curve a decay falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecayShape {
    /// A straight line down to 0.
    Linear,
    /// A power of the distance.
    Exponential,
    /// A power of the square of the distance.
    Gaussian,
}

/// A decay. At the distance `scale` from its target it is `midpoint`.
#[derive(Clone, Debug, PartialEq)]
pub struct Decay {
    /// The curve.
    pub(super) shape: DecayShape,
    /// The number.
    pub(super) x: Box<Expression>,
    /// What it should be near to.
    pub(super) target: Box<Expression>,
    /// How steep the curve is: what the distance (its square for a Gaussian) is multiplied by. Finite, at most 0.
    pub(super) rate: f64,
}

impl Decay {
    /// Distance at which a decay is its midpoint, when none is given.
    pub const SCALE_DEFAULT: f64 = 1.0;
    /// What a decay is at its scale, when nothing is given.
    pub const MIDPOINT_DEFAULT: f64 = 0.5;

    /// A decay of the number `x` with its distance from `target`. `scale` must be above 0; `midpoint` from 0 to 1, and for
    /// curves other than a line neither of these. The error names what is wrong.
    pub fn new(
        shape: DecayShape,
        [x, target]: [Expression; 2],
        scale: f64,
        midpoint: f64,
    ) -> std::result::Result<Decay, String> {
        if !(scale.is_finite() && scale > 0.0) {
            return Err(format!("scale: value {scale} invalid, must be a finite number above 0"));
        }
        let (is_possible, bounds) = match shape {
            DecayShape::Linear => ((0.0..=1.0).contains(&midpoint), "from 0 to 1"),
            DecayShape::Exponential | DecayShape::Gaussian => (midpoint > 0.0 && midpoint < 1.0, "between 0 and 1"),
        };
        if !is_possible {
            return Err(format!("midpoint: value {midpoint} invalid, must be {bounds}"));
        }
        let rate = match shape {
            DecayShape::Linear => (midpoint - 1.0) / scale,
            DecayShape::Exponential => midpoint.ln() / scale,
            DecayShape::Gaussian => midpoint.ln() / (scale * scale),
        };
        if !rate.is_finite() {
            return Err(format!("scale: value {scale} invalid, it is too near to 0"));
        }
        Ok(Decay { shape, x: Box::new(x), target: Box::new(target), rate })
    }
}

impl Expression {
    /// The conditions in it, at any depth.
    pub(super) fn conditions_mut(&mut self) -> Vec<&mut Filter> {
        let (mut found, mut open) = (Vec::new(), vec![self]);
        while let Some(expression) = open.pop() {
            match expression {
                Expression::Condition(filter) => found.push(filter),
                Expression::Constant(_)
                | Expression::Variable(_)
                | Expression::GeoDistance { .. }
                | Expression::DatetimeKey(_) => {}
                Expression::Mult(operands) | Expression::Sum(operands) => open.extend(operands),
                Expression::Function(_, operand) => open.push(operand),
                Expression::Div { left, right, .. } => open.extend([&mut **left, right]),
                Expression::Pow { base, exponent } => open.extend([&mut **base, exponent]),
                Expression::Decay(decay) => open.extend([&mut *decay.x, &mut decay.target]),
            }
        }
        found
    }

    /// The expressions that this one is made of.
    pub(crate) fn operands(&self) -> Vec<&Expression> {
        match self {
            Expression::Constant(_)
            | Expression::Variable(_)
            | Expression::Condition(_)
            | Expression::GeoDistance { .. }
            | Expression::DatetimeKey(_) => Vec::new(),
            Expression::Mult(operands) | Expression::Sum(operands) => operands.iter().collect(),
            Expression::Function(_, operand) => vec![operand],
            Expression::Div { left, right, .. } => vec![left, right],
            Expression::Pow { base, exponent } => vec![base, exponent],
            Expression::Decay(decay) => vec![&decay.x, &decay.target],
        }
    }
}
