//! Formulas read payloads as filters do: what they read must be indexed where filters must.

use vicinal_common::filter::KeyPath;
use vicinal_common::payload_index::FieldType;

use super::super::answer::Failure;
use super::super::indexes::{Purpose, check_filter};
use super::refused_with_help;
use crate::meta::Collection;
use crate::query::formula::{Expression, Variable};

/// Refuses conditions that strict mode does not allow as filters, and keys without an index. As deep as the parser lets
/// a formula be nested.
pub(in super::super) fn check_formula(collection: &Collection, expression: &Expression) -> Result<(), Failure> {
    use FieldType::{Datetime, Float, Geo, Integer};
    match expression {
        Expression::Condition(filter) => check_filter(collection, filter, Purpose::Read)?,
        Expression::Variable(Variable::Field(key)) => check_key(collection, key, &[Integer, Float])?,
        Expression::GeoDistance { to, .. } => check_key(collection, to, &[Geo])?,
        Expression::DatetimeKey(key) => check_key(collection, key, &[Datetime])?,
        Expression::Constant(_)
        | Expression::Variable(Variable::Score(_))
        | Expression::Mult(_)
        | Expression::Sum(_)
        | Expression::Function(..)
        | Expression::Div { .. }
        | Expression::Pow { .. }
        | Expression::Decay(_) => {}
    }
    expression.operands().into_iter().try_for_each(|operand| check_formula(collection, operand))
}

/// Refuses to order by, or to count the values of, a key without an index, where filters must have one.
pub(in super::super) fn check_read_key(collection: &Collection, key: &str, types: &[FieldType]) -> Result<(), Failure> {
    // One that cannot be read was refused before.
    KeyPath::parse(key).map_or(Ok(()), |key| check_key(collection, &key, types))
}

fn check_key(collection: &Collection, key: &KeyPath, types: &[FieldType]) -> Result<(), Failure> {
    let strict = collection.strict.enforced();
    if strict.and_then(|strict| strict.unindexed_filtering_retrieve) != Some(false) {
        return Ok(());
    }
    let key = key.to_string();
    if collection.tuning.payload_indexes.get(&key).is_some_and(|index| types.contains(&index.of())) {
        return Ok(());
    }
    let types: Vec<&str> = types.iter().map(|of| of.name()).collect();
    let text =
        format!("Index required but not found for \"{key}\" of one of the following types: [{}]", types.join(", "));
    Err(refused_with_help(text, "Create an index for this key."))
}
