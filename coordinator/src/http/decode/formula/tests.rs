//! Formulas as they are sent: what they mean, what is refused and where, and that nothing makes them panic.

use proptest::prelude::*;
use serde_json::json;
use vicinal_common::point::PointId;

use super::*;
use crate::query::formula::Subject;

fn read(formula: Value, defaults: Value) -> std::result::Result<FormulaQuery, String> {
    let FormulaInput(formula) = serde_json::from_value(formula).map_err(|error| error.to_string())?;
    let DefaultsInput(defaults) = serde_json::from_value(defaults).map_err(|error| error.to_string())?;
    Ok(FormulaQuery { formula, defaults })
}

/// The score of point 7, which the first of two prefetches found, with 0.5.
fn scored(formula: Value, defaults: Value, payload: &Value) -> std::result::Result<f32, String> {
    let query = read(formula, defaults)?;
    let fields = payload.as_object().cloned().unwrap_or_default();
    let subject = Subject {
        id: PointId::Num(7),
        scores: &[Some(0.5), None],
        fields: &fields,
        vectors_present: &|name| name == "a",
    };
    query.check().and_then(|()| query.evaluate(subject)).map_err(|error| error.to_string())
}

#[test]
fn each_form_has_its_meaning() {
    let payload = json!({"n": 4, "list": [3, 9], "a": {"b": [{"c": 5}]}, "tag": "x", "at": "1970-01-02",
        "home": {"lon": 0, "lat": 0}});
    let defaults = json!({"$score[1]": 0.25, "missing": 8});
    for (formula, expected) in [
        (json!(2.5), 2.5),
        (json!("$score"), 0.5),
        (json!("$score[0]"), 0.5),
        (json!("$score[1]"), 0.25),
        (json!("$score[9]"), 0.0),
        (json!("n"), 4.0),
        (json!("list"), 3.0),
        (json!("list[1]"), 9.0),
        (json!("a.b[].c"), 5.0),
        (json!("missing"), 8.0),
        (json!({"key": "tag", "match": {"value": "x"}}), 1.0),
        (json!({"must_not": [{"key": "tag", "match": {"any": ["x", "y"]}}]}), 0.0),
        (json!({"has_id": [7]}), 1.0),
        (json!({"has_vector": "a"}), 1.0),
        (json!({"has_vector": "b"}), 0.0),
        (json!({"is_empty": {"key": "missing"}}), 1.0),
        (json!({"mult": ["n", 0.5, "$score"]}), 1.0),
        (json!({"mult": []}), 1.0),
        (json!({"sum": ["n", 0.5, {"neg": "$score"}]}), 4.0),
        (json!({"sum": []}), 0.0),
        (json!({"abs": {"neg": "n"}}), 4.0),
        (json!({"div": {"left": "n", "right": 16}}), 0.25),
        (json!({"div": {"left": "n", "right": 0, "by_zero_default": -1}}), -1.0),
        (json!({"sqrt": "n"}), 2.0),
        (json!({"pow": {"base": "n", "exponent": 1.5}}), 8.0),
        (json!({"exp": 0}), 1.0),
        (json!({"log10": 1000}), 3.0),
        (json!({"ln": {"exp": 3}}), 3.0),
        (json!({"datetime": "1970-01-01T00:01:00Z"}), 60.0),
        (json!({"datetime_key": "at"}), 86_400.0),
        (json!({"lin_decay": {"x": "n", "target": 3, "scale": 2}}), 0.75),
        (json!({"lin_decay": {"x": "n"}}), 0.0),
        (json!({"exp_decay": {"x": "n", "target": null, "scale": 2, "midpoint": 0.1}}), 0.01),
        (json!({"gauss_decay": {"x": "n", "target": {"sum": [1, 1]}, "scale": 1, "midpoint": null}}), 0.0625),
        (json!({"geo_distance": {"origin": {"lon": 0, "lat": 1}, "to": "home"}}), 111_195.08),
    ] {
        let got =
            scored(formula.clone(), defaults.clone(), &payload).unwrap_or_else(|error| panic!("{formula}: {error}"));
        assert!((got - expected).abs() <= expected.abs() * 1e-6, "{formula}: {got}");
    }
}

#[test]
fn what_is_no_formula_is_refused_at_its_place() {
    for (formula, text) in [
        (json!(null), "query.formula: expected a number, a variable, a condition or an operator, got null"),
        (json!(true), "got true"),
        (json!([1]), "got an array"),
        (json!("$scores"), "$scores"),
        (json!("$score[x]"), "is no variable"),
        (json!("$score[]"), "is no variable"),
        (json!("$score[+1]"), "is no variable"),
        (json!("$score[0]b"), "is no variable"),
        (json!("$score[99999999999999999999999]"), "is no variable"),
        (json!(""), "not a valid key path"),
        (json!({"mult": 1}), "query.formula.mult: expected an array of expressions, got 1"),
        (json!({"mult": [1, {"sum": ["a..b"]}]}), "query.formula.mult[1].sum[0]: \"a..b\" is not"),
        (json!({"sum": [], "mult": []}), "stands beside"),
        (json!({"sum": [], "key": "a"}), "`sum` stands beside `key`"),
        (json!({"max": [1]}), "query.formula: unknown condition `max`"),
        (json!({"max": [1]}), "nor is it an operator, one of mult, sum,"),
        (json!({"key": "a", "range": {"gt": "x"}}), "query.formula.range.gt: \"x\" is not in a supported"),
        (json!({"abs": {"must": [{"has_id": [-1]}]}}), "query.formula.abs.must[0].has_id[0]: value -1"),
        (json!({"div": {"left": 1}}), "query.formula.div: missing field `right`"),
        (json!({"div": {"left": 1, "right": null}}), "query.formula.div.right: expected"),
        (
            json!({"div": {"left": 1, "right": 1, "by_zero_default": "x"}}),
            "query.formula.div.by_zero_default: expected",
        ),
        (json!({"pow": {"base": 1, "exponent": 1, "x": 1}}), "query.formula.pow: unknown field `x`"),
        (json!({"exp_decay": {"x": 1, "midpoint": 1}}), "query.formula.exp_decay: midpoint: value 1 invalid"),
        (json!({"gauss_decay": {"x": 1, "midpoint": 0}}), "midpoint: value 0 invalid, must be between 0 and 1"),
        (json!({"lin_decay": {"x": 1, "midpoint": 1.5}}), "midpoint: value 1.5 invalid, must be from 0 to 1"),
        (json!({"lin_decay": {"x": 1, "scale": 0}}), "scale: value 0 invalid, must be a finite number above 0"),
        (json!({"gauss_decay": {"x": 1, "scale": 1e-200}}), "too near to 0"),
        (json!({"datetime": "soon"}), "query.formula.datetime: \"soon\" is not in a supported date/time format"),
        (json!({"datetime_key": 5}), "query.formula.datetime_key: expected a string, a key path, got 5"),
        (json!({"geo_distance": {"to": "a"}}), "missing field `origin`"),
        (
            json!({"geo_distance": {"origin": {"lon": 181, "lat": 0}, "to": "a"}}),
            "query.formula.geo_distance.origin.lon: must be from -180 to 180 degrees, got 181",
        ),
    ] {
        let error = read(formula.clone(), json!({})).unwrap_err();
        assert!(error.contains(text), "{formula}: {error}");
    }
    for (defaults, text) in [
        (json!({"$score": "x"}), "query.defaults.$score: expected a number, got a string"),
        (json!({"$score": 1, "$score[0]": 2}), "the same variable has another default"),
        (json!({"a.": 1}), "query.defaults.a.: \"a.\" is not a valid key path"),
        (json!([1]), "invalid type"),
    ] {
        let error = read(json!(1), defaults.clone()).unwrap_err();
        assert!(error.contains(text), "{defaults}: {error}");
    }
}

#[test]
fn depth_and_size_have_bounds() {
    let deep = |levels| (1..levels).fold(json!(1), |inner, _| json!({"neg": inner}));
    assert_eq!(scored(deep(32), json!({}), &json!({})), Ok(-1.0));
    assert!(
        scored(deep(33), json!({}), &json!({})).unwrap_err().contains("query.formula: nested deeper than 32 levels")
    );
    let wide = |terms: usize| json!({"sum": vec![1; terms]});
    assert_eq!(scored(wide(1_023), json!({}), &json!({})), Ok(1_023.0));
    assert!(scored(wide(1_024), json!({}), &json!({})).unwrap_err().contains("more than 1024 expressions"));
    let defaults: Value = (0..1_025).map(|n| (format!("f{n}"), json!(n))).collect::<Map<_, _>>().into();
    assert!(scored(json!(1), defaults, &json!({})).unwrap_err().contains("query.defaults: 1025 defaults"));
}

/// JSON that is often a formula, or almost one.
fn any_formula() -> impl Strategy<Value = Value> {
    let number = || prop_oneof![any::<f64>().prop_map(Value::from), (-3i64..4).prop_map(Value::from)];
    let leaf = prop_oneof![
        6 => number(),
        6 => proptest::sample::select(&["$score", "$score[1]", "n", "list[]", "place"][..]).prop_map(Value::from),
        1 => proptest::sample::select(vec![json!("$score[x]"), json!(""), Value::Null]),
        2 => Just(json!({"key": "n", "range": {"gt": 0}})),
        1 => Just(json!({"datetime": "2020-01-01"})),
        2 => Just(json!({"datetime_key": "time"})),
        2 => Just(json!({"geo_distance": {"origin": {"lon": 180, "lat": -90}, "to": "place"}})),
    ];
    leaf.prop_recursive(5, 60, 4, move |inner| {
        let pair = |[a, b]: [&'static str; 2]| {
            (inner.clone(), inner.clone())
                .prop_map(move |(x, y)| Value::from(Map::from_iter([(a.into(), x), (b.into(), y)])))
        };
        let decay = (inner.clone(), inner.clone(), number(), number()).prop_map(
            |(x, target, scale, midpoint)| json!({"x": x, "target": target, "scale": scale, "midpoint": midpoint}),
        );
        let list = proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
        let of = |names: &'static [&'static str], operand: BoxedStrategy<Value>| {
            (proptest::sample::select(names), operand).prop_map(|(name, operand)| json!({name: operand}))
        };
        prop_oneof![
            3 => of(&["mult", "sum"], list.clone().boxed()),
            3 => of(&["neg", "abs", "sqrt", "exp", "log10", "ln"], inner.clone().boxed()),
            2 => of(&["div"], pair(["left", "right"]).boxed()),
            2 => of(&["pow"], pair(["base", "exponent"]).boxed()),
            2 => of(&["lin_decay", "exp_decay", "gauss_decay"], decay.boxed()),
            1 => of(&OPERATORS, prop_oneof![inner.clone(), list, pair(["left", "x"])].boxed()),
        ]
    })
}

fn any_payload() -> impl Strategy<Value = Value> {
    let place = (any::<f64>(), -90.0f64..90.0).prop_map(|(lon, lat)| json!({"lon": lon, "lat": lat}));
    let value =
        prop_oneof![any::<f64>().prop_map(Value::from), place, Just(json!("2021-02-03 04:05:06")), Just(json!([]))];
    proptest::collection::btree_map(
        proptest::sample::select(&["n", "list", "place", "time", "$score"][..]),
        value,
        0..5,
    )
    .prop_map(|fields| json!(fields))
}

proptest! {
    #[test]
    fn a_formula_is_a_finite_score_or_an_error(
        formula in any_formula(), defaults in any_payload(), payload in any_payload(),
    ) {
        if let Ok(score) = scored(formula, defaults, &payload) {
            prop_assert!(score.is_finite());
        }
    }
}
