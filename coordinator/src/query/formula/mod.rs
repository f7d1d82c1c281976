//! Formulas: scores made of the scores of prefetches and of what points hold. All but `rescore` is pure.

mod evaluate;
mod expression;
mod rescore;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;
use vicinal_common::api::{PointParts, VectorSelector};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::{Condition, Filter, KeyPath};
use vicinal_common::limits::{FORMULA_DEPTH_MAX, FORMULA_NODES_MAX};

pub use evaluate::Subject;
pub use expression::{Decay, DecayShape, Expression, Function, Variable};
pub(super) use rescore::{Rescoring, rescore};

/// A formula with what its variables are where a point has no value for them.
#[derive(Clone, Debug, PartialEq)]
pub struct FormulaQuery {
    /// What the score of a point is.
    pub formula: Expression,
    /// Values in place of missing ones.
    pub defaults: Defaults,
}

/// Values of variables for points that have none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// By the place of a prefetch: the score of a point that it did not find. 0 where there is none.
    pub scores: HashMap<usize, f64>,
    /// By key path: the value of a field that a payload has not.
    pub fields: HashMap<KeyPath, Value>,
}

impl FormulaQuery {
    /// Checks it against [`FORMULA_DEPTH_MAX`] and [`FORMULA_NODES_MAX`].
    pub fn check(&self) -> Result<()> {
        let mut nodes = 0;
        measure(&self.formula, 1, &mut nodes)?;
        let defaults = self.defaults.scores.len() + self.defaults.fields.len();
        if defaults > FORMULA_NODES_MAX {
            let message = format!("{defaults} defaults, allowed are {FORMULA_NODES_MAX} or fewer");
            return Err(Error::Validation { field: "query.defaults".into(), message });
        }
        Ok(())
    }

    /// The conditions in it.
    pub fn conditions_mut(&mut self) -> Vec<&mut Filter> {
        self.formula.conditions_mut()
    }

    /// What of a point must be known beside its id and its scores.
    pub fn needs(&self) -> PointParts {
        let mut names = Vec::new();
        let payload = reads_payload(&self.formula, &mut names);
        names.sort_unstable();
        names.dedup();
        let vectors = if names.is_empty() { VectorSelector::None } else { VectorSelector::Named(names) };
        PointParts { payload, vectors }
    }
}

/// Counts the nodes. Stops at the first bound that is broken, so it looks at no more than the bounds allow.
fn measure(expression: &Expression, depth: usize, nodes: &mut usize) -> Result<()> {
    let refuse = |message| Err(Error::Validation { field: "query.formula".into(), message });
    *nodes += match expression {
        Expression::Condition(filter) => conditions(filter).max(1),
        _ => 1,
    };
    if depth > FORMULA_DEPTH_MAX {
        return refuse(format!("nested deeper than {FORMULA_DEPTH_MAX} levels"));
    }
    if *nodes > FORMULA_NODES_MAX {
        return refuse(format!("more than {FORMULA_NODES_MAX} expressions and conditions"));
    }
    expression.operands().into_iter().try_for_each(|operand| measure(operand, depth + 1, nodes))
}

/// Conditions in a filter, which is bounded by its own limits, those of filters inside it among them.
fn conditions(filter: &Filter) -> usize {
    let count = |condition: &Condition| match condition {
        Condition::Filter(filter) | Condition::Nested { filter, .. } => 1 + conditions(filter),
        Condition::Field(_)
        | Condition::IsEmpty(_)
        | Condition::IsNull(_)
        | Condition::HasId(_)
        | Condition::HasVector(_)
        | Condition::Slice(_)
        | Condition::InClusters(_)
        | Condition::InClustersOf(_) => 1,
    };
    filter.conditions().map(count).sum()
}

/// Whether the payload is read; adds the names of the vectors that are asked for.
fn reads_payload(expression: &Expression, names: &mut Vec<String>) -> bool {
    let reads = match expression {
        Expression::Variable(Variable::Field(_)) | Expression::GeoDistance { .. } | Expression::DatetimeKey(_) => true,
        Expression::Condition(filter) => {
            add_vector_names(filter, names);
            filter.needs_payload()
        }
        Expression::Constant(_)
        | Expression::Variable(Variable::Score(_))
        | Expression::Mult(_)
        | Expression::Sum(_)
        | Expression::Function(..)
        | Expression::Div { .. }
        | Expression::Pow { .. }
        | Expression::Decay(_) => false,
    };
    // No short cut: names are wanted from all operands.
    expression.operands().into_iter().fold(reads, |reads, operand| reads_payload(operand, names) | reads)
}

fn add_vector_names(filter: &Filter, names: &mut Vec<String>) {
    for condition in filter.conditions() {
        match condition {
            Condition::HasVector(name) => names.push(name.clone()),
            Condition::Filter(filter) => add_vector_names(filter, names),
            // Inside `nested` no condition on vectors ever holds.
            Condition::Field(_)
            | Condition::IsEmpty(_)
            | Condition::IsNull(_)
            | Condition::HasId(_)
            | Condition::Slice(_)
            | Condition::InClusters(_)
            | Condition::InClustersOf(_)
            | Condition::Nested { .. } => {}
        }
    }
}
