//! Values that points are ordered by.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::filter::DateTime;

/// A number that points are ordered by; a time is the microseconds since 1970 (UTC). Never NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum OrderValue {
    /// A whole number, or a time.
    Integer(i64),
    /// Any other number.
    Float(f64),
}

impl OrderValue {
    /// The value of a payload field: a number, or a text that is a time.
    pub fn of(value: &Value) -> Option<OrderValue> {
        match value {
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Some(OrderValue::Integer(integer)),
                None => number.as_f64().map(OrderValue::Float),
            },
            Value::String(text) => DateTime::parse(text).map(|time| OrderValue::Integer(time.micros())),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Eq for OrderValue {}

impl PartialOrd for OrderValue {
    fn partial_cmp(&self, other: &OrderValue) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By value, exactly, whatever the kinds; of equal ones whole numbers come first.
impl Ord for OrderValue {
    fn cmp(&self, other: &OrderValue) -> Ordering {
        match (*self, *other) {
            (OrderValue::Integer(a), OrderValue::Integer(b)) => a.cmp(&b),
            (OrderValue::Float(a), OrderValue::Float(b)) => a.total_cmp(&b),
            (OrderValue::Integer(a), OrderValue::Float(b)) => exact(a, b),
            (OrderValue::Float(a), OrderValue::Integer(b)) => exact(b, a).reverse(),
        }
    }
}

fn exact(integer: i64, float: f64) -> Ordering {
    // Floats of this size and beyond are outside the range of integers, which ends just below it.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if float >= END {
        return Ordering::Less;
    }
    if float < -END {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    let fraction = float - whole;
    integer.cmp(&(whole as i64)).then(match fraction {
        fraction if fraction < 0.0 => Ordering::Greater,
        _ => Ordering::Less,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_times_are_values() {
        assert_eq!(OrderValue::of(&json!(3)), Some(OrderValue::Integer(3)));
        assert_eq!(OrderValue::of(&json!(0.5)), Some(OrderValue::Float(0.5)));
        assert_eq!(OrderValue::of(&json!("1970-01-01T00:00:01Z")), Some(OrderValue::Integer(1_000_000)));
        for other in [json!("x"), json!(true), json!(null), json!([1]), json!({})] {
            assert_eq!(OrderValue::of(&other), None, "{other}");
        }
    }

    fn any_value() -> impl Strategy<Value = OrderValue> {
        let float = prop_oneof![-3.0f64..3.0, proptest::num::f64::NORMAL, (-2i64..3).prop_map(|i| i as f64)];
        prop_oneof![
            (-2i64..3).prop_map(OrderValue::Integer),
            any::<i64>().prop_map(OrderValue::Integer),
            float.prop_map(OrderValue::Float)
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_total(mut values in prop::collection::vec(any_value(), 3)) {
            values.sort();
            prop_assert!(values[0] <= values[1] && values[1] <= values[2] && values[0] <= values[2]);
            prop_assert_eq!(values[0].cmp(&values[2]), values[2].cmp(&values[0]).reverse());
        }
    }
}
