//! What filters mean, case by case.

mod random;

use serde_json::{Value, json};

use super::*;
use crate::error::Error;

fn parse(filter: &Value) -> Filter {
    Filter::parse(filter).unwrap_or_else(|e| panic!("{filter}: {e}"))
}

/// Whether the filter matches point 7, which has the vectors "" and "image".
fn matches(filter: &Value, payload: &Value) -> bool {
    parse(filter).matches(PointId::Num(7), payload.as_object().unwrap(), &|name| name.is_empty() || name == "image")
}

/// Tests a condition on field `a` on payloads `{"a": value}`: those in the first list match, the others do not.
fn check(test: Value, matching: &[Value], other: &[Value]) {
    let mut condition = test.as_object().unwrap().clone();
    condition.insert("key".into(), "a".into());
    let filter = json!({"must": condition});
    for (values, expected) in [(matching, true), (other, false)] {
        for value in values {
            assert_eq!(matches(&filter, &json!({"a": value})), expected, "{filter} on {value}");
        }
    }
}

/// Whether a condition matches a payload without field `a`.
fn when_missing(test: Value) -> bool {
    let mut condition = test.as_object().unwrap().clone();
    condition.insert("key".into(), "a".into());
    matches(&json!({"must": condition}), &json!({"b": 1}))
}

#[test]
fn match_value_does_not_mix_types() {
    let text = [json!("x"), json!(["y", "x"]), json!([null, "x"])];
    check(
        json!({"match": {"value": "x"}}),
        &text,
        &[json!("X"), json!("xy"), json!(1), json!(null), json!([]), json!([["x"]]), json!({"x": "x"})],
    );
    let no_integers = [json!(1.0), json!("1"), json!(true), json!([2]), json!(null), json!(u64::MAX)];
    check(json!({"match": {"value": 1}}), &[json!(1), json!([0, 1])], &no_integers);
    check(json!({"match": {"value": -1}}), &[json!(-1)], &[json!(u64::MAX)]);
    check(
        json!({"match": {"value": true}}),
        &[json!(true), json!([false, true])],
        &[json!(false), json!(1), json!("true")],
    );
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    check(json!({"match": {"value": uuid}}), &[json!(uuid)], &[json!(uuid.to_uppercase())]);
    assert!(!when_missing(json!({"match": {"value": "x"}})));
}

#[test]
fn match_any_and_except() {
    check(
        json!({"match": {"any": ["x", "y"]}}),
        &[json!("y"), json!(["z", "x"])],
        &[json!("z"), json!(1), json!(null)],
    );
    check(json!({"match": {"any": [3, 1]}}), &[json!(3), json!([2, 1])], &[json!(2), json!("1"), json!(1.0)]);
    check(json!({"match": {"any": []}}), &[], &[json!("x"), json!(1), json!([])]);
    check(
        json!({"match": {"except": ["x"]}}),
        &[json!("y"), json!(["x", "y"]), json!(1), json!(true), json!({"b": 1}), json!([["x"]])],
        &[json!("x"), json!(["x", "x"]), json!(null), json!([null]), json!(["x", null]), json!([])],
    );
    check(
        json!({"match": {"except": [1]}}),
        &[json!(2), json!(1.0), json!("1"), json!([1, 2])],
        &[json!(1), json!([1])],
    );
    check(json!({"match": {"except": []}}), &[json!("x"), json!(1)], &[json!(null), json!([])]);
    assert!(!when_missing(json!({"match": {"except": ["x"]}})));
    check(
        json!({"match": {"prefix": "ab"}}),
        &[json!("ab"), json!(["x", "abc"])],
        &[json!("Abc"), json!("xab"), json!(1)],
    );
}

#[test]
fn ranges() {
    check(
        json!({"range": {"gte": 1, "lt": 2.5}}),
        &[json!(1), json!(1.0), json!(2), json!([9, 2.4])],
        &[json!(2.5), json!(0), json!("2"), json!(null), json!([0, 3]), json!(true)],
    );
    check(json!({"range": {"gt": 1, "lte": 2}}), &[json!(2), json!(1.5)], &[json!(1), json!(2.1)]);
    check(json!({"range": {}}), &[json!(1), json!(-2.5)], &[json!("x"), json!(null)]);
    check(json!({"range": {"gt": null, "lt": 0}}), &[json!(-1)], &[json!(0)]);
    assert!(!when_missing(json!({"range": {"gte": 0}})));
    check(
        json!({"range": {"gte": "2023-01-01T00:00:00Z", "lt": "2024-01-01"}}),
        &[json!("2023-01-01"), json!("2023-06-01 12:00:00+02:00"), json!(["x", "2023-12-31T23:59:59.999Z"])],
        &[
            json!("2024-01-01"),
            json!("2022-12-31T23:59:59Z"),
            json!("soon"),
            json!(2023),
            json!("2023-01-01T00:30:00+01:00"),
        ],
    );
}

#[test]
fn values_count_is_empty_is_null_on_a_field() {
    check(
        json!({"values_count": {"gte": 1, "lt": 3}}),
        &[json!([1]), json!([1, null]), json!("x"), json!({"x": 1})],
        &[json!([]), json!([1, 2, 3]), json!(null)],
    );
    check(json!({"values_count": {"lt": 1}}), &[json!([]), json!(null)], &[json!(0)]);
    assert!(when_missing(json!({"values_count": {"lt": 5}})) && when_missing(json!({"values_count": {}})));
    assert!(!when_missing(json!({"values_count": {"gte": 1}})));
    let full = [json!([null]), json!("x"), json!({}), json!(0), json!(false), json!("")];
    check(json!({"is_empty": true}), &[json!([]), json!(null)], &full);
    check(json!({"is_empty": false}), &full, &[json!([]), json!(null)]);
    assert!(when_missing(json!({"is_empty": true})) && !when_missing(json!({"is_empty": false})));
    let some = [json!([]), json!([1]), json!("x"), json!({"b": null}), json!(0)];
    check(json!({"is_null": true}), &[json!(null), json!([null]), json!([1, null])], &some);
    check(json!({"is_null": false}), &some, &[json!(null), json!([1, null])]);
    assert!(!when_missing(json!({"is_null": true})) && when_missing(json!({"is_null": false})));
}

#[test]
fn is_empty_and_is_null_as_conditions() {
    let empty = |key: &str, payload: Value| matches(&json!({"must": [{"is_empty": {"key": key}}]}), &payload);
    assert!(empty("a", json!({})) && empty("a", json!({"a": null})) && empty("a", json!({"a": []})));
    assert!(!empty("a", json!({"a": [null]})) && !empty("a", json!({"a": ""})) && !empty("a", json!({"a": {}})));
    assert!(
        empty("a[].b", json!({"a": [{"b": []}, {"c": 1}]})) && !empty("a[].b", json!({"a": [{"b": []}, {"b": 1}]}))
    );
    let null = |key: &str, payload: Value| matches(&json!({"must": [{"is_null": {"key": key}}]}), &payload);
    assert!(null("a", json!({"a": null})) && null("a[]", json!({"a": [1, null]})));
    assert!(null("a", json!({"a": [1, null]})) && !null("a", json!({})) && !null("a", json!({"a": []})));
    assert!(null("a[].b", json!({"a": [{"b": 1}, {"b": null}]})) && !null("a[].b", json!({"a": [{"b": 1}]})));
}

#[test]
fn places() {
    let berlin = json!({"lon": 13.404954, "lat": 52.520008});
    let other = [json!({"lon": 2.35, "lat": 48.85}), json!({"lon": 13.4}), json!([13.4, 52.5]), json!("x")];
    let found = [berlin.clone(), json!([other[0], berlin])];
    let corners = json!({"top_left": {"lon": 13, "lat": 53}, "bottom_right": {"lon": 14, "lat": 52}});
    check(json!({"geo_bounding_box": corners}), &found, &other);
    check(json!({"geo_radius": {"center": {"lon": 13.42, "lat": 52.51}, "radius": 2000.0}}), &found, &other);
    let points = json!([[13, 52], [14, 52], [14, 53], [13, 53], [13, 52]]);
    let ring: Vec<_> = points.as_array().unwrap().iter().map(|p| json!({"lon": p[0], "lat": p[1]})).collect();
    check(json!({"geo_polygon": {"exterior": {"points": ring}}}), &found, &other);
}

#[test]
fn conditions_on_the_point_itself() {
    let one = |condition: Value| matches(&json!({"must": [condition]}), &json!({}));
    assert!(one(json!({"has_id": [9, 7, "550e8400-e29b-41d4-a716-446655440000"]})));
    assert!(!one(json!({"has_id": [8]})) && !one(json!({"has_id": []})));
    assert!(
        one(json!({"has_vector": "image"})) && one(json!({"has_vector": ""})) && !one(json!({"has_vector": "text"}))
    );
    assert!(one(json!({"slice": {"index": 0, "total": 1}})));
    assert_ne!(one(json!({"slice": {"index": 0, "total": 2}})), one(json!({"slice": {"index": 1, "total": 2}})));
}

#[test]
fn nested_asks_one_object_for_everything() {
    let payload =
        json!({"diet": [{"food": "leaves", "likes": false}, {"food": "meat", "likes": true}], "one": {"x": 1}});
    let both = |key: &str, food: &str, likes: bool| {
        let must = json!([{"key": "food", "match": {"value": food}}, {"key": "likes", "match": {"value": likes}}]);
        matches(&json!({"must": [{"nested": {"key": key, "filter": {"must": must}}}]}), &payload)
    };
    assert!(both("diet", "meat", true) && both("diet[]", "leaves", false) && !both("diet[1]", "meat", true));
    assert!(!both("diet", "leaves", true) && !both("missing", "meat", true));
    let inside =
        |key: &str, filter: Value| matches(&json!({"must": {"nested": {"key": key, "filter": filter}}}), &payload);
    // An object that is not in an array has no elements; a point's id is unknown inside.
    assert!(!inside("one", json!({})) && inside("diet", json!({})));
    assert!(!inside("diet", json!({"must": {"has_id": [7]}})) && inside("diet", json!({"must_not": {"has_id": [7]}})));
}

#[test]
fn parts_of_a_filter_combine() {
    let (yes, no) = (json!({"has_id": [7]}), json!({"has_id": [8]}));
    let one = |filter: Value| matches(&filter, &json!({}));
    assert!(one(json!({})) && one(json!({"should": [], "must": [], "must_not": []})) && one(json!({"must": null})));
    assert!(one(json!({"should": [no, yes]})) && !one(json!({"should": [no, no]})));
    assert!(one(json!({"must": [yes, yes]})) && !one(json!({"must": [yes, no]})));
    assert!(one(json!({"must_not": [no]})) && !one(json!({"must_not": [no, yes]})) && !one(json!({"must_not": yes})));
    assert!(!one(json!({"must": yes, "should": no})) && one(json!({"must": {"should": [no, {"must_not": no}]}})));
    assert!(one(json!({"must": {}})) && !one(json!({"must_not": {}})));
    let some = |count: u64| one(json!({"min_should": {"conditions": [yes, no, yes], "min_count": count}}));
    assert_eq!([0, 1, 2, 3, 4].map(some), [true, true, true, false, false]);
    let none = |count: u64| one(json!({"min_should": {"conditions": [], "min_count": count}}));
    assert!(none(0) && !none(1));
}

#[test]
fn what_a_filter_needs_is_known_before() {
    let needs = |filter: Value| parse(&filter).needs_payload();
    assert!(!needs(json!({})) && !needs(json!({"must": {"has_id": [1]}, "must_not": {"should": {"has_vector": "x"}}})));
    assert!(
        needs(json!({"must_not": {"must": {"is_null": {"key": "a"}}}}))
            && needs(json!({"should": {"key": "a", "range": {}}}))
    );
    assert!(needs(json!({"min_should": {"conditions": [{"nested": {"key": "a", "filter": {}}}], "min_count": 0}})));
    let ids = |filter: Value| parse(&filter).ids().map(<[PointId]>::to_vec);
    let numbers = |numbers: &[u64]| Some(numbers.iter().copied().map(PointId::Num).collect::<Vec<_>>());
    assert_eq!(ids(json!({"must": [{"has_id": [3, 1, 3, 2]}, {"must": {"has_id": [9, 2]}}]})), numbers(&[2, 9]));
    assert_eq!(ids(json!({"must": {"has_id": []}})), numbers(&[]));
    assert_eq!(ids(json!({"should": {"has_id": [1]}, "must_not": {"has_id": [2]}})), None);
}

#[test]
fn the_deepest_filter_can_be_read_again() {
    let point = json!({"lon": 0.0, "lat": 0.0});
    let ring = json!({"points": vec![point; 4]});
    let leaf = json!({"must": [{"key": "a", "geo_polygon": {"exterior": ring, "interiors": [ring]}}]});
    let wrappers: [fn(Value) -> Value; 4] = [
        |inner| json!({"must": [inner]}),
        |inner| json!({"min_should": {"conditions": [inner], "min_count": 1}}),
        |inner| json!({"must": [{"nested": {"key": "a", "filter": inner}}]}),
        |inner| json!({"min_should": {"conditions": [{"nested": {"key": "a", "filter": inner}}], "min_count": 1}}),
    ];
    for wrap in wrappers {
        let levels = std::iter::successors(Some(leaf.clone()), |inner| Some(wrap(inner.clone())));
        let deepest = levels.map_while(|filter| Filter::parse(&filter).ok()).last().unwrap();
        let text = serde_json::to_string(&deepest).unwrap();
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), deepest);
    }
}

#[test]
fn refusals_say_where_and_what() {
    let deep = (0..40).fold(json!({}), |inner, _| json!({"must": inner}));
    let many = json!({"must": vec![json!({"has_id": []}); 65_537]});
    for (filter, part) in [
        (json!([]), "filter: expected an object with should, min_should, must, must_not, got an array"),
        (json!({"mast": []}), "filter: unknown field `mast`"),
        (json!({"must": [1]}), "filter.must[0]: expected a condition, an object, got 1"),
        (json!({"must": [{"foo": 1}]}), "filter.must[0]: unknown condition `foo`"),
        (json!({"must": {"match": {"value": 1}}}), "filter.must: a `match` condition needs the `key`"),
        (json!({"must": {"key": "a"}}), "filter.must: a condition on `a` needs one of match, range"),
        (json!({"must": {"key": "a", "match": {"value": 1}, "range": {}}}), "both `match` and `range`"),
        (json!({"must": {"key": "a", "geo_shape": {}}}), "unknown field `geo_shape`"),
        (json!({"must": {"key": "a..b", "is_null": true}}), "filter.must.key: \"a..b\" is not a valid key path"),
        (
            json!({"must": {"key": "a", "match": {"value": 1.5}}}),
            "filter.must.match.value: expected a string, a 64-bit",
        ),
        (
            json!({"must": {"key": "a", "match": {"any": [1, "x"]}}}),
            "filter.must.match.any[1]: expected a 64-bit integer",
        ),
        (json!({"must": {"key": "a", "match": {"value": 1, "any": []}}}), "expected exactly one of value, any, except"),
        (
            json!({"must": {"key": "a", "range": {"gt": "soon"}}}),
            "filter.must.range.gt: \"soon\" is not in a supported",
        ),
        (
            json!({"must": {"key": "a", "range": {"gt": 1, "lt": "2024-01-01"}}}),
            "filter.must.range.gt: expected a string",
        ),
        (json!({"must": {"key": "a", "range": {"from": 1}}}), "filter.must.range: unknown field `from`"),
        (
            json!({"must": {"key": "a", "values_count": {"gt": -1}}}),
            "filter.must.values_count.gt: expected an integer of",
        ),
        (json!({"must": {"has_id": [-1]}}), "filter.must.has_id[0]: value -1 is not a valid point ID"),
        (json!({"must": {"has_id": 1, "has_vector": "x"}}), "filter.must: unknown field `has_vector`, expected has_id"),
        (json!({"must": {"slice": {"index": 2, "total": 2}}}), "filter.must.slice: index must be below total"),
        (json!({"must": {"nested": {"key": "a"}}}), "filter.must.nested: missing field `filter`"),
        (json!({"min_should": {"conditions": [{}]}}), "filter.min_should: missing field `min_count`"),
        (
            json!({"must": {"key": "a", "geo_radius": {"center": {"lon": 200, "lat": 0}, "radius": 1}}}),
            "filter.must.geo_radius.center: lon must be from -180 to 180 degrees, got 200",
        ),
        (
            json!({"must": {"key": "a", "geo_polygon": {"exterior": {"points": []}}}}),
            "exterior: a ring needs at least 4",
        ),
        (deep, "nested deeper than 32 levels"),
        (many, "more than 65536 conditions"),
    ] {
        let error = Filter::parse(&filter).unwrap_err();
        assert!(matches!(&error, Error::BadInput(text) if text.contains(part)), "{error} should contain {part}");
    }
    let error = serde_json::from_str::<Filter>("{\"must\": 3}").unwrap_err().to_string();
    assert!(error.contains("filter.must: expected a condition"), "{error}");
}
