//! Formulas on points: each operator against values computed by hand, and what has no value.

use serde_json::json;
use vicinal_common::filter::GeoPoint;
use vicinal_common::payload::Fields;
use vicinal_common::point::PointId;

use super::*;

fn key(text: &str) -> KeyPath {
    KeyPath::parse(text).unwrap()
}

fn field(text: &str) -> Expression {
    Expression::Variable(Variable::Field(key(text)))
}

fn constant(value: f64) -> Box<Expression> {
    Box::new(Expression::Constant(value))
}

fn condition(filter: Value) -> Expression {
    Expression::Condition(Filter::parse(&filter).unwrap())
}

fn of(formula: Expression) -> FormulaQuery {
    FormulaQuery { formula, defaults: Defaults::default() }
}

fn evaluate(query: &FormulaQuery, payload: &Value) -> Result<f32> {
    let fields: Fields = payload.as_object().unwrap().clone();
    let scores = [None, Some(2.0)];
    query.evaluate(Subject { id: PointId::Num(3), scores: &scores, fields: &fields, vectors_present: &|_| false })
}

fn value(formula: Expression) -> f32 {
    evaluate(&of(formula), &json!({})).unwrap()
}

fn refused(formula: Expression, payload: &Value) -> String {
    let error = evaluate(&of(formula), payload).unwrap_err();
    assert!(matches!(error, Error::BadInput(_)), "{error:?}");
    error.to_string()
}

fn function(function: Function, x: f64) -> Expression {
    Expression::Function(function, constant(x))
}

#[test]
fn functions_of_one_number() {
    for (name, x, expected) in [
        (Function::Neg, 2.5, -2.5),
        (Function::Abs, -2.5, 2.5),
        (Function::Sqrt, 6.25, 2.5),
        (Function::Sqrt, 0.0, 0.0),
        (Function::Exp, 1.0, std::f32::consts::E),
        (Function::Exp, -1e9, 0.0),
        (Function::Log10, 0.001, -3.0),
        (Function::Ln, 2.0, std::f32::consts::LN_2),
    ] {
        assert_eq!(value(function(name, x)), expected, "{name:?} of {x}");
    }
    for (name, x, text) in [
        (Function::Sqrt, -1.0, "no finite value for point 3: sqrt of -1"),
        (Function::Exp, 1_000.0, "exp of 1000"),
        (Function::Log10, 0.0, "log10 of 0"),
        (Function::Ln, -2.0, "ln of -2"),
    ] {
        let error = refused(function(name, x), &json!({}));
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn zero_ends_products_and_quotients() {
    let undefined = || function(Function::Ln, 0.0);
    assert_eq!(value(Expression::Mult(vec![*constant(3.0), *constant(0.0), undefined()])), 0.0);
    assert_eq!(value(Expression::Mult(vec![*constant(3.0), *constant(-0.5)])), -1.5);
    let div = |left, right: Expression, by_zero_default| Expression::Div {
        left: constant(left),
        right: Box::new(right),
        by_zero_default,
    };
    assert_eq!(value(div(0.0, undefined(), None)), 0.0);
    assert_eq!(value(div(3.0, *constant(4.0), Some(9.0))), 0.75);
    assert_eq!(value(div(3.0, *constant(0.0), Some(9.0))), 9.0);
    assert!(refused(div(3.0, *constant(0.0), None), &json!({})).contains("3 / 0"));
    assert_eq!(value(function(Function::Neg, 0.0)).to_bits(), 0, "no score is -0");
}

#[test]
fn powers_are_those_of_real_numbers() {
    let pow = |base, exponent| Expression::Pow { base: constant(base), exponent: constant(exponent) };
    assert_eq!(value(pow(2.0, -2.0)), 0.25);
    assert_eq!(value(pow(-2.0, 3.0)), -8.0);
    assert_eq!(value(pow(0.0, 0.0)), 1.0);
    for (base, exponent) in [(-8.0, 0.5), (0.0, -1.0), (10.0, 400.0)] {
        assert!(refused(pow(base, exponent), &json!({})).contains("to the power of"), "{base} {exponent}");
    }
}

#[test]
fn a_decay_is_its_midpoint_at_its_scale() {
    let decay = |shape, x, target, midpoint| {
        let operands = [*constant(x), *constant(target)];
        value(Expression::Decay(Decay::new(shape, operands, 4.0, midpoint).unwrap()))
    };
    for shape in [DecayShape::Linear, DecayShape::Exponential, DecayShape::Gaussian] {
        assert_eq!(decay(shape, 10.0, 10.0, 0.25), 1.0, "{shape:?}");
        assert!((decay(shape, 14.0, 10.0, 0.25) - 0.25).abs() < 1e-6, "{shape:?}");
        assert!((decay(shape, 6.0, 10.0, 0.25) - 0.25).abs() < 1e-6, "{shape:?}");
        assert_eq!(decay(shape, -1e9, 0.0, 0.25), 0.0, "{shape:?}");
    }
    // Half way: 1 - 0.75 / 2, the root of 0.25, the fourth root of 0.25.
    assert_eq!(decay(DecayShape::Linear, 12.0, 10.0, 0.25), 0.625);
    assert_eq!(decay(DecayShape::Exponential, 12.0, 10.0, 0.25), 0.5);
    assert!((decay(DecayShape::Gaussian, 12.0, 10.0, 0.25) - 0.5f32.sqrt()).abs() < 1e-6);
    assert_eq!(decay(DecayShape::Linear, 99.0, 0.0, 1.0), 1.0);
    assert_eq!(decay(DecayShape::Linear, 4.0, 0.0, 0.0), 0.0);
}

#[test]
fn the_first_value_of_a_field_counts_and_defaults_fill_gaps_only() {
    let mut query = of(field("a[].n"));
    query.defaults.fields.insert(key("a[].n"), json!([7, 8]));
    assert_eq!(evaluate(&query, &json!({"a": [{"n": [2, 3]}, {"n": 4}]})), Ok(2.0));
    assert_eq!(evaluate(&query, &json!({"a": [{"n": []}, {"n": 4}]})), Ok(4.0));
    assert_eq!(evaluate(&query, &json!({"a": [{"n": []}]})), Ok(7.0));
    assert_eq!(evaluate(&query, &json!({})), Ok(7.0));
    let error = evaluate(&query, &json!({"a": [{"n": "x"}]})).unwrap_err().to_string();
    assert!(error.contains("`a[].n` of point 3 is no number as the formula needs"), "{error}");
    query.defaults.fields.insert(key("a[].n"), json!("x"));
    let error = evaluate(&query, &json!({})).unwrap_err().to_string();
    assert!(error.contains("the default of `a[].n` is no number"), "{error}");
    let error = refused(field("a.b"), &json!({"a": 1}));
    assert!(error.contains("point 3 has no `a.b`, which the formula needs, and there is no default for it"), "{error}");
    assert!(refused(field("a"), &json!({"a": null})).contains("is no number"));
    assert!(refused(field("a"), &json!({"a": true})).contains("is no number"));
}

#[test]
fn scores_have_defaults_and_else_are_0() {
    let score = |place| Expression::Variable(Variable::Score(place));
    let mut query = of(Expression::Sum(vec![score(0), score(1), score(2)]));
    assert_eq!(evaluate(&query, &json!({})), Ok(2.0));
    query.defaults.scores = HashMap::from([(0, 10.0), (1, 100.0), (2, 1_000.0)]);
    assert_eq!(evaluate(&query, &json!({})), Ok(1_012.0), "a default never replaces a score");
}

#[test]
fn places_and_times_are_read_from_payloads() {
    let distance = || Expression::GeoDistance { origin: GeoPoint { lon: 2.3522, lat: 48.8566 }, to: key("home") };
    let metres = evaluate(&of(distance()), &json!({"home": {"lon": -0.1276, "lat": 51.5072}})).unwrap();
    assert!((metres - 343_500.0).abs() < 1_000.0, "{metres}");
    for home in [json!("x"), json!({"lon": 1}), json!({"lon": 1, "lat": 91}), json!({"lon": 200, "lat": 0})] {
        let error = refused(distance(), &json!({"home": home}));
        assert!(error.contains("`home` of point 3 is no place"), "{error}");
    }
    let mut query = of(Expression::DatetimeKey(key("at")));
    query.defaults.fields.insert(key("at"), json!("1970-01-01 00:00:10"));
    assert_eq!(evaluate(&query, &json!({"at": "1970-01-01T01:00:00.5Z"})), Ok(3_600.5));
    assert_eq!(evaluate(&query, &json!({})), Ok(10.0));
    assert!(evaluate(&query, &json!({"at": 5})).unwrap_err().to_string().contains("is no date or time"));
}

#[test]
fn results_must_fit_into_32_bits() {
    let large = || Expression::Mult(vec![*constant(1e300), *constant(1e300)]);
    assert!(refused(large(), &json!({})).contains("inf in 32 bits"));
    assert!(refused(*constant(1e39), &json!({})).contains("no finite value for point 3"));
    let neither = Expression::Sum(vec![large(), Expression::Function(Function::Neg, Box::new(large()))]);
    assert!(refused(neither, &json!({})).contains("NaN"));
    assert_eq!(value(Expression::Div { left: constant(1e39), right: constant(1e39), by_zero_default: None }), 1.0);
}

#[test]
fn only_what_is_needed_is_read() {
    let named = |names: &[&str]| VectorSelector::Named(names.iter().map(|name| (*name).to_owned()).collect());
    let needs = |formula| of(formula).needs();
    let payload = PointParts { payload: true, vectors: VectorSelector::None };
    assert_eq!(
        needs(Expression::Sum(vec![*constant(1.0), Expression::Variable(Variable::Score(0))])),
        PointParts::default()
    );
    assert_eq!(needs(condition(json!({"must": {"has_id": [1]}}))), PointParts::default());
    assert_eq!(needs(Expression::Mult(vec![field("n"), *constant(1.0)])), payload);
    assert_eq!(needs(Expression::DatetimeKey(key("at"))), payload);
    assert_eq!(needs(condition(json!({"must": {"is_null": {"key": "n"}}}))), payload);
    let nested = json!({"should": [{"has_vector": "b"}, {"must_not": {"has_vector": "a"}}]});
    let both = Expression::Sum(vec![field("n"), condition(nested), condition(json!({"must": {"has_vector": "b"}}))]);
    assert_eq!(needs(both), PointParts { payload: true, vectors: named(&["a", "b"]) });
}

#[test]
fn conditions_of_a_filter_count_as_expressions() {
    let conditions = |count: usize| {
        let inner: Vec<Value> = (0..count - 1).map(|n| json!({"is_null": {"key": format!("k{n}")}})).collect();
        of(condition(json!({"must": [{"should": inner}]})))
    };
    assert_eq!(conditions(FORMULA_NODES_MAX).check(), Ok(()));
    let error = conditions(FORMULA_NODES_MAX + 1).check().unwrap_err();
    assert_eq!(error.http_status(), 422);
    assert!(error.to_string().contains("more than 1024 expressions and conditions"), "{error}");
    let nested: Vec<Value> =
        (0..FORMULA_NODES_MAX).map(|_| json!({"nested": {"key": "a", "filter": {"must": {"has_id": [1]}}}})).collect();
    assert!(of(condition(json!({"must": nested}))).check().is_err());
    let single = || condition(json!({"must": {"has_id": [1]}}));
    assert!(of(Expression::Sum((1..FORMULA_NODES_MAX).map(|_| single()).collect())).check().is_ok());
}
