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

impl OrderValue {
    /// By value alone: 5 and 5.0 are equal, as are 0 and -0.0.
    pub fn cmp_number(&self, other: &OrderValue) -> Ordering {
        let is_zero = |value: &OrderValue| match value {
            OrderValue::Integer(integer) => *integer == 0,
            OrderValue::Float(float) => *float == 0.0,
        };
        match (*self, *other) {
            (a, b) if is_zero(&a) && is_zero(&b) => Ordering::Equal,
            (OrderValue::Integer(a), OrderValue::Float(b)) => exact(a, b),
            (OrderValue::Float(a), OrderValue::Integer(b)) => exact(b, a).reverse(),
            (a, b) => a.cmp(&b),
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
            (OrderValue::Integer(a), OrderValue::Float(b)) => exact(a, b).then(Ordering::Less),
            (OrderValue::Float(a), OrderValue::Integer(b)) => exact(b, a).then(Ordering::Less).reverse(),
        }
    }
}

/// Compares by value.
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
    integer.cmp(&(whole as i64)).then(0.0f64.partial_cmp(&fraction).unwrap_or(Ordering::Equal))
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

    #[test]
    fn equal_numbers_are_equal_whatever_their_kind() {
        let (integer, float) = (OrderValue::Integer, OrderValue::Float);
        assert_eq!(integer(5).cmp_number(&float(5.0)), Ordering::Equal);
        assert_eq!(float(-0.0).cmp_number(&integer(0)), Ordering::Equal);
        assert_eq!(integer(5).cmp(&float(5.0)), Ordering::Less);
        assert_eq!(integer(5).cmp_number(&float(4.5)), Ordering::Greater);
        assert_eq!(float(-5.5).cmp_number(&integer(-5)), Ordering::Less);
        assert_eq!(integer(i64::MAX).cmp_number(&float(9.3e18)), Ordering::Less);
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
