//! Random filters on random payloads.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use crate::payload::Fields;

/// Words that lead deep into the parser.
const WORDS: &[&str] = &[
    "must",
    "should",
    "must_not",
    "min_should",
    "key",
    "match",
    "value",
    "any",
    "range",
    "gt",
    "has_id",
    "a",
    "nested",
    "filter",
    "conditions",
    "min_count",
    "is_empty",
    "slice",
    "geo_radius",
    "center",
    "values_count",
    "text",
    "phrase",
    "tokenization",
    "tokenizer",
    "word",
    "stopwords",
    "custom",
    "min_token_len",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
        Just(json!("2024-02-03T04:05:06Z")),
        "[ab\"\\[\\].]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(WORDS).prop_map(str::to_owned), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn payload() -> impl Strategy<Value = Fields> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        Just(json!(1.5)),
        "[xy]".prop_map(Value::from),
        "[xy ]{3,6}".prop_map(Value::from),
        Just(json!("2024-02-03")),
        Just(json!({"lon": 1.5, "lat": 0.5})),
    ];
    let value = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|f| Value::Object(f.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[ab]", value, 0..3).prop_map(|fields| fields.into_iter().collect())
}

fn bounds<T: Clone + std::fmt::Debug + Into<Value>>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(vec!["lt", "gt", "gte", "lte"]), value, 0..3)
        .prop_map(|bounds| Value::Object(bounds.into_iter().map(|(name, v)| (name.to_owned(), v.into())).collect()))
}

fn key() -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(vec!["a", "b", "a.b", "a[]", "a[].b", "a[0]", "b[].a[]", "\"a.b\""])
}

/// Parameters that are not as by default, in normal form.
fn tokenization() -> impl Strategy<Value = Option<Value>> {
    prop::option::of(prop::sample::select(vec![
        json!({"tokenizer": "prefix", "max_token_len": 2}),
        json!({"tokenizer": "whitespace", "lowercase": false}),
        json!({"tokenizer": "multilingual", "stopwords": {"languages": ["english"], "custom": ["x", "y"]}}),
        json!({"ascii_folding": true, "stemmer": {"type": "snowball", "language": "english"}}),
    ]))
}

/// Conditions in normal form: what encoding yields.
fn condition() -> impl Strategy<Value = Value> {
    let times = prop::sample::select(vec!["2024-02-03", "2024-02-03T00:00:00+01:00", "2025-01-01 00:00"]);
    let place = |lon: f64, lat: f64| json!({"lon": lon, "lat": lat});
    let center = place(1.0, 1.0);
    let ring = json!({"points": [place(0.0, 0.0), place(2.0, 0.0), place(2.0, 2.0), place(0.0, 0.0)]});
    let corners = json!({"top_left": place(1.0, 1.0), "bottom_right": place(2.0, 0.0)});
    let test = prop_oneof![
        prop_oneof![Just(json!("x")), Just(json!(1)), Just(json!(true))].prop_map(|v| json!({"match": {"value": v}})),
        prop::collection::btree_set("[xyz]", 0..3).prop_map(|v| json!({"match": {"any": v}})),
        prop::collection::btree_set(-2i64..3, 1..3).prop_map(|v| json!({"match": {"except": v}})),
        "[xy]?".prop_map(|v| json!({"match": {"prefix": v}})),
        (prop::sample::select(vec!["text", "text_any", "phrase"]), "[xyX ]{0,4}", tokenization()).prop_map(
            |(test, query, tokenization)| {
                let mut fields = serde_json::Map::from_iter([(test.to_owned(), json!(query))]);
                fields.extend(tokenization.map(|params| ("tokenization".to_owned(), params)));
                json!({"match": fields})
            }
        ),
        bounds((-2i32..3).prop_map(f64::from)).prop_map(|v| json!({"range": v})),
        bounds(times).prop_map(|v| json!({"range": v})),
        bounds(0u64..4).prop_map(|v| json!({"values_count": v})),
        any::<bool>().prop_map(|v| json!({"is_empty": v})),
        any::<bool>().prop_map(|v| json!({"is_null": v})),
        (0u32..200_000).prop_map(move |r| json!({"geo_radius": {"center": center, "radius": f64::from(r)}})),
        Just(json!({"geo_polygon": {"exterior": ring.clone(), "interiors": [ring]}})),
        Just(json!({"geo_bounding_box": corners})),
    ];
    let leaf = prop_oneof![
        8 => (key(), test).prop_map(|(key, mut test)| {
            test["key"] = json!(key);
            test
        }),
        1 => prop::collection::btree_set(5u64..9, 0..3).prop_map(|ids| json!({"has_id": ids})),
        1 => "[tu]?".prop_map(|name| json!({"has_vector": name})),
        1 => (0u32..3).prop_map(|index| json!({"slice": {"index": index, "total": 3}})),
        1 => key().prop_map(|key| json!({"is_empty": {"key": key}})),
        1 => key().prop_map(|key| json!({"is_null": {"key": key}})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let filter = filter_of(inner).boxed();
        prop_oneof![
            filter.clone(),
            (key(), filter).prop_map(|(key, filter)| { json!({"nested": {"key": key, "filter": filter}}) }),
        ]
    })
}

fn filter_of(condition: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(condition.clone(), 1..3);
    let some = (prop::collection::vec(condition, 0..3), 0u64..3)
        .prop_map(|(conditions, min_count)| json!({"conditions": conditions, "min_count": min_count}));
    let parts = (
        prop::option::of(list.clone()),
        prop::option::of(list.clone()),
        prop::option::of(list),
        prop::option::of(some),
    );
    parts.prop_map(|(must, should, must_not, min_should)| {
        let parts = [
            ("must", json!(must)),
            ("should", json!(should)),
            ("must_not", json!(must_not)),
            ("min_should", json!(min_should)),
        ];
        Value::Object(parts.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.to_owned(), v)).collect())
    })
}

fn matches(filter: &Value, payload: &Fields) -> bool {
    Filter::parse(filter).unwrap().matches(PointId::Num(7), payload, &|name| name == "t")
}

proptest! {
    #[test]
    fn any_json_is_parsed_or_refused(json in any_json(), payload in payload()) {
        for value in [json.clone(), json!({"must": json}), json!({"should": {"key": "a", "match": json}}),
            json!({"must": {"key": "a", "range": json}}), json!({"must": {"nested": {"key": "a", "filter": json}}})] {
            if let Ok(filter) = Filter::parse(&value) {
                filter.matches(PointId::Num(1), &payload, &|_| true);
                let text = serde_json::to_string(&filter).unwrap();
                prop_assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
            }
        }
    }

    #[test]
    fn filters_survive_both_encodings(json in filter_of(condition().boxed())) {
        let filter = Filter::parse(&json).unwrap();
        prop_assert_eq!(serde_json::to_value(&filter).unwrap(), json);
        let bytes = postcard::to_stdvec(&filter).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Filter>(&bytes).unwrap(), filter);
    }

    #[test]
    fn logic_holds(a in condition(), b in condition(), payload in payload()) {
        let m = |filter: Value| matches(&filter, &payload);
        let (is_a, is_b) = (m(json!({"must": a})), m(json!({"must": b})));
        prop_assert_eq!(m(json!({"must_not": a})), !is_a);
        prop_assert_eq!(m(json!({"must": {"must_not": {"must_not": a}}})), is_a);
        prop_assert_eq!(m(json!({"must": [a, b]})), is_a && is_b);
        prop_assert_eq!(m(json!({"should": [a, b]})), is_a || is_b);
        prop_assert_eq!(m(json!({"must_not": [a, b]})), !m(json!({"should": [a, b]})));
        let some_not = json!({"should": [{"must_not": a}, {"must_not": b}]});
        prop_assert_eq!(m(json!({"must_not": {"must": [a, b]}})), m(some_not));
        for count in 0..4u64 {
            let enough = u64::from(is_a) + u64::from(is_b) >= count;
            prop_assert_eq!(m(json!({"min_should": {"conditions": [a, b], "min_count": count}})), enough);
        }
    }

    #[test]
    fn what_is_needed_is_enough(json in filter_of(condition().boxed()), payload in payload(), id in 4u64..10) {
        let filter = Filter::parse(&json).unwrap();
        let decide = |payload: &Fields| filter.matches(PointId::Num(id), payload, &|_| true);
        if !filter.needs_payload() {
            prop_assert_eq!(decide(&payload), decide(&Fields::new()));
        }
        if filter.ids().is_some_and(|ids| !ids.contains(&PointId::Num(id))) {
            prop_assert!(!decide(&payload));
        }
    }
}
