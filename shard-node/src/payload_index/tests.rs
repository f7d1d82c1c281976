//! Random payloads and filters: what the indexes say is what the evaluator says, row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;
use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
use vicinal_common::disk::Mapping;
use vicinal_common::error::Error;
use vicinal_common::filter::{Filter, KeyPath, TextTest, Tokenization};
use vicinal_common::ids::LogIndex;
use vicinal_common::metric::Metric;
use vicinal_common::payload::{Payload, parse_fields};
use vicinal_common::payload_index::FieldType;
use vicinal_common::point::{Point, PointId};

use super::{Field, FieldIndex, Selection, build_fields, cut_in_another_way, select};
use crate::segment::{Layout, MemoryRun, Run, Source, Tombstones};

const PATHS: [&str; 8] = ["a", "b", "a.b", "a[]", "a[].b", "a[0]", "b[].a[]", "a[].a[].b"];
const UUIDS: [&str; 3] = [
    "550e8400-e29b-41d4-a716-446655440000",
    "550E8400-e29b-41d4-a716-446655440000",
    "00000000-0000-0000-0000-000000000001",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        prop::sample::select(vec![-1.0, -0.0, 0.0, 1.0, 1.5, 1e19]).prop_map(Value::from),
        Just(json!(u64::MAX)),
        Just(json!(i64::MAX)),
        prop::sample::select(vec!["x", "xy", "y", "", "X xy", "y x y", "xyx, -"]).prop_map(Value::from),
        prop::sample::select(vec!["2024-02-03", "2024-02-03T01:00:00+01:00", "2025-01-01 00:00"]).prop_map(Value::from),
        prop::sample::select(UUIDS.to_vec()).prop_map(Value::from),
        (0..4, 0..3).prop_map(|(lon, lat)| json!({"lon": f64::from(lon) / 2.0, "lat": lat})),
        Just(json!({"lon": 500, "lat": 0.5})),
    ]
}

fn payload() -> impl Strategy<Value = Value> {
    let value = leaf().prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(object(inner.clone()), 0..4).prop_map(Value::from),
            object(inner),
        ]
    });
    object(value)
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[ab]", value, 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

fn bounds<T: Clone + std::fmt::Debug + Into<Value>>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(vec!["lt", "gt", "gte", "lte"]), value, 0..3)
        .prop_map(|bounds| Value::Object(bounds.into_iter().map(|(name, v)| (name.to_owned(), v.into())).collect()))
}

fn test() -> impl Strategy<Value = Value> {
    let times = prop::sample::select(vec!["2024-02-03", "2024-02-03T00:00:00+01:00", "2025-01-01 00:00"]);
    let texts = || prop::sample::select([&["x", "xy", "z", "2024-02-03"], &UUIDS[..]].concat());
    let place = |lon: f64, lat: f64| json!({"lon": lon, "lat": lat});
    let ring = json!({"points": [place(0.0, 0.0), place(2.0, 0.0), place(2.0, 2.0), place(0.0, 0.0)]});
    let corners = json!({"top_left": place(0.2, 1.5), "bottom_right": place(1.2, 0.5)});
    let (center, hole) = (place(1.0, 1.0), ring.clone());
    prop_oneof![
        texts().prop_map(|v| json!({"match": {"value": v}})),
        (-2i64..3).prop_map(|v| json!({"match": {"value": v}})),
        any::<bool>().prop_map(|v| json!({"match": {"value": v}})),
        prop::collection::btree_set(texts(), 0..3).prop_map(|v| json!({"match": {"any": v}})),
        prop::collection::btree_set(-2i64..3, 1..3).prop_map(|v| json!({"match": {"any": v}})),
        prop::collection::btree_set(texts(), 0..3).prop_map(|v| json!({"match": {"except": v}})),
        prop::collection::btree_set(-2i64..3, 1..3).prop_map(|v| json!({"match": {"except": v}})),
        "[xy5]?".prop_map(|v| json!({"match": {"prefix": v}})),
        text_test(),
        bounds(prop::sample::select(vec![-2.0, -0.0, 0.0, 0.5, 1.0, 9.3e18, 2e19])).prop_map(|v| json!({"range": v})),
        bounds(times).prop_map(|v| json!({"range": v})),
        bounds(0u64..4).prop_map(|v| json!({"values_count": v})),
        any::<bool>().prop_map(|v| json!({"is_empty": v})),
        any::<bool>().prop_map(|v| json!({"is_null": v})),
        (0u32..200_000).prop_map(move |r| json!({"geo_radius": {"center": center, "radius": f64::from(r)}})),
        Just(json!({"geo_polygon": {"exterior": ring}})),
        Just(json!({"geo_polygon": {"exterior": hole.clone(), "interiors": [hole]}})),
        Just(json!({"geo_bounding_box": corners})),
    ]
}

/// Ways to cut texts, of which a condition and an index have the same or different ones.
fn tokenization() -> impl Strategy<Value = Tokenization> {
    let params = prop::sample::select(vec![
        json!({}),
        json!({"tokenizer": "prefix", "min_token_len": 1, "max_token_len": 2}),
        json!({"tokenizer": "whitespace", "lowercase": false}),
        json!({"stopwords": {"custom": ["y"]}, "min_token_len": 2}),
    ]);
    params.prop_map(|params| Tokenization::from_json(params.as_object().unwrap()).unwrap())
}

fn text_test() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(TextTest::ALL.map(TextTest::name).to_vec());
    (names, "[xyX ]{0,6}", tokenization())
        .prop_map(|(name, query, tokenization)| json!({"match": {name: query, "tokenization": tokenization.to_json()}}))
}

fn condition() -> impl Strategy<Value = Value> {
    let key = || prop::sample::select(PATHS.to_vec());
    let leaf = prop_oneof![
        8 => (key(), test()).prop_map(|(key, mut test)| {
            test["key"] = json!(key);
            test
        }),
        1 => prop::collection::btree_set(0u64..20, 0..6).prop_map(|ids| json!({"has_id": ids})),
        1 => "[tu]?".prop_map(|name| json!({"has_vector": name})),
        1 => (0u32..3).prop_map(|index| json!({"slice": {"index": index, "total": 3}})),
        1 => key().prop_map(|key| json!({"is_empty": {"key": key}})),
        1 => key().prop_map(|key| json!({"is_null": {"key": key}})),
    ];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let filter = filter_of(inner).boxed();
        let nested = prop::sample::select(vec!["a", "a[]", "b", "b[]"]);
        prop_oneof![
            filter.clone(),
            (nested, filter).prop_map(|(key, filter)| json!({"nested": {"key": key, "filter": filter}})),
        ]
    })
}

fn filter_of(condition: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Value> {
    let list = || prop::option::weighted(0.4, prop::collection::vec(condition.clone(), 1..3));
    let some = (prop::collection::vec(condition.clone(), 0..4), 0u64..4)
        .prop_map(|(conditions, min_count)| json!({"conditions": conditions, "min_count": min_count}));
    (list(), list(), list(), prop::option::weighted(0.2, some)).prop_map(|(must, should, must_not, min_should)| {
        json!({"must": must, "should": should, "must_not": must_not, "min_should": min_should})
    })
}

fn layout() -> Layout {
    let vector = VectorSchema::dense(1, Metric::Dot);
    Layout::new(&CollectionSchema {
        vectors: BTreeMap::from([("t".to_owned(), vector)]),
        hnsw: HnswConfig::default(),
        indexing_threshold_kib: 0,
    })
}

/// Every third point has the vector `t`; every fifth id is a UUID.
fn run_of(payloads: &[Value]) -> MemoryRun {
    let point = |(n, payload): (u64, &Value)| Point {
        id: if n % 5 == 4 { PointId::Uuid(Uuid::from_u128(u128::from(n))) } else { PointId::Num(n) },
        vectors: if n % 3 == 0 { BTreeMap::from([("t".to_owned(), vec![1.0].into())]) } else { BTreeMap::new() },
        payload: Payload::from_fields(payload.as_object().unwrap()).unwrap(),
    };
    let points: Vec<Point> = (0..).zip(payloads).map(point).collect();
    MemoryRun::from_points(&points, LogIndex(1), &layout()).unwrap()
}

fn index(run: &MemoryRun, fields: &[Field]) -> Vec<Arc<FieldIndex>> {
    let built = build_fields(run, fields, &|| false).unwrap().unwrap();
    let open = |(field, bytes): (&Field, Vec<u8>)| FieldIndex::in_memory(field, run.rows(), &bytes).unwrap();
    fields.iter().zip(built).map(open).map(Arc::new).collect()
}

fn field(path: &str, of: FieldType) -> Field {
    Field::new(KeyPath::parse(path).unwrap(), of, None)
}

/// Compares a selection with the evaluator; how many rows it left open.
fn compare(filter: &Filter, run: &MemoryRun, dead: &Tombstones, selection: &Selection) -> u64 {
    let layout = layout();
    for row in 0..run.rows() {
        let fields = parse_fields(run.payload(row)).unwrap();
        let has_vector = |name: &str| layout.ordinal(name).is_some_and(|o| run.vectors(o).present.contains(row));
        let matches = !dead.contains(row) && filter.matches(run.ids().get(row), &fields, &has_vector);
        match selection.decides(row) {
            Some(said) => assert_eq!(said, matches, "row {row} {fields:?}"),
            None => assert!(!dead.contains(row), "row {row} is dead"),
        }
    }
    assert!(selection.sure().is_disjoint(selection.open()));
    assert_eq!(selection.cardinality().is_some(), selection.open().is_empty());
    selection.open().len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn indexes_say_what_the_evaluator_says(
        payloads in prop::collection::vec(payload(), 1..20),
        types in prop::collection::vec(prop::option::weighted(0.8, prop::sample::select(FieldType::ALL.to_vec())), PATHS.len()),
        texts in prop::collection::vec(tokenization(), PATHS.len()),
        filters in prop::collection::vec(filter_of(condition().boxed()), 1..6),
        dead in prop::collection::btree_set(0u32..20, 0..8),
    ) {
        let run = run_of(&payloads);
        let fields = PATHS.iter().zip(types).zip(texts);
        let fields = fields.filter_map(|((path, of), text)| {
            Some(Field::new(KeyPath::parse(path).unwrap(), of?, Some(text)))
        });
        let indexes = index(&run, &fields.collect::<Vec<_>>());
        let dead: Tombstones = dead.into_iter().filter(|row| *row < run.rows()).collect();
        for filter in filters {
            let filter = Filter::parse(&filter).unwrap();
            let source = Source { run: &run, dead: &dead };
            if let Some(selection) = select(&filter, source, &layout(), &indexes) {
                compare(&filter, &run, &dead, &selection);
            }
        }
    }

    #[test]
    fn damage_is_noticed(payloads in prop::collection::vec(payload(), 1..10), at: prop::sample::Index, bit in 0u8..8) {
        let run = run_of(&payloads);
        for of in FieldType::ALL {
            let field = field("a", of);
            let mut bytes = build_fields(&run, std::slice::from_ref(&field), &|| false).unwrap().unwrap().remove(0);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let damaged = FieldIndex::in_memory(&field, run.rows(), &bytes).err();
            prop_assert!(matches!(&damaged, Some(Error::Corrupt(text)) if text.starts_with("payload index: ")));
            bytes[at] ^= 1 << bit;
            prop_assert!(FieldIndex::in_memory(&field, run.rows(), &bytes).is_ok());
            prop_assert!(FieldIndex::in_memory(&field, run.rows(), &bytes[..at]).is_err());
            prop_assert!(FieldIndex::in_memory(&field, run.rows() + 1, &bytes).is_err());
        }
    }
}

#[test]
fn plain_conditions_on_fields_of_their_type_leave_nothing_open() {
    let payload = |n: u64| {
        let city = ["Oslo", "Bergen", "Rome"][n as usize % 3];
        json!({
            "city": city, "year": n, "price": n as f64 / 3.0, "new": n.is_multiple_of(2),
            "when": format!("2024-01-{:02}T00:00:00Z", 1 + n % 28), "of": Uuid::from_u128(u128::from(n % 7)),
            "at": {"lon": n as f64 / 10.0, "lat": 50.0}, "parts": [{"size": n % 4}, {"size": n % 5}],
            "about": format!("The {city} of room {}", n % 10),
        })
    };
    let run = run_of(&(0..300).map(payload).collect::<Vec<_>>());
    let types = ["city", "year", "price", "new", "when", "of", "at", "about"].iter().zip(FieldType::ALL);
    let mut fields: Vec<Field> = types.map(|(name, of)| field(name, of)).collect();
    fields.push(field("parts[].size", FieldType::Integer));
    let indexes = index(&run, &fields);
    let dead = Tombstones::from_iter([7, 8, 9]);
    let pairs = json!([{"key": "city", "match": {"value": "Rome"}}, {"key": "new", "match": {"value": false}},
        {"key": "year", "range": {"gt": 100}}]);
    for filter in [
        json!({"must": {"key": "city", "match": {"value": "Oslo"}}}),
        json!({"must": {"key": "city", "match": {"except": ["Oslo"]}}}),
        json!({"must": {"key": "city", "match": {"prefix": "B"}}}),
        json!({"must": {"key": "year", "range": {"gte": 0, "lt": 10}}}),
        json!({"must_not": {"key": "price", "range": {"gt": 1.0}}}),
        json!({"must": [{"key": "new", "match": {"value": true}}, {"key": "year", "match": {"any": [6, 7, 8]}}]}),
        json!({"should": [{"key": "when", "range": {"lt": "2024-01-02"}}, {"is_null": {"key": "of"}}]}),
        json!({"must": {"key": "of", "match": {"value": Uuid::from_u128(3)}}}),
        json!({"must": {"key": "at", "geo_radius": {"center": {"lon": 1, "lat": 50}, "radius": 10_000}}}),
        json!({"must": {"nested": {"key": "parts", "filter": {"must": {"key": "size", "match": {"value": 4}}}}}}),
        json!({"min_should": {"min_count": 2, "conditions": pairs}}),
        json!({"must": {"key": "about", "match": {"text": "rome ROOM 3"}}}),
        json!({"must": {"key": "about", "match": {"text_any": "oslo 7 paris"}}}),
        json!({"must_not": {"key": "about", "match": {"phrase": "Bergen"}}}),
    ] {
        let filter = Filter::parse(&filter).unwrap();
        let selection = select(&filter, Source { run: &run, dead: &dead }, &layout(), &indexes).unwrap();
        assert_eq!(compare(&filter, &run, &dead, &selection), 0, "{filter:?}");
        assert!(selection.cardinality().is_some_and(|count| count > 0), "{filter:?}");
    }
}

#[test]
fn what_a_text_index_cannot_tell_stays_open() {
    let payloads = [
        json!({"a": "red car"}),
        json!({"a": ["red bus", "blue car"]}),
        json!({"a": ["red", "a red car"]}),
        json!({"a": "car of a red bus"}),
        // The fifth has a UUID, which comes last among the rows.
        json!({}),
        json!({"a": ["--", 7, null]}),
        json!({"a": 7}),
    ];
    let run = run_of(&payloads);
    let indexes = index(&run, &[field("a", FieldType::Text)]);
    assert_eq!(indexes[0].keyed().iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "a text without tokens is a text");
    for (test, sure, open) in [
        (json!({"text": "red"}), vec![0, 1, 2, 3], vec![]),
        (json!({"text": "car RED"}), vec![0, 3], vec![1, 2]),
        (json!({"text": "red train"}), vec![], vec![]),
        (json!({"text": "--"}), vec![], vec![]),
        (json!({"text_any": "blue train of"}), vec![1, 3], vec![]),
        (json!({"phrase": "red car"}), vec![], vec![0, 1, 2, 3]),
        (json!({"text": "re", "tokenization": {"tokenizer": "prefix"}}), vec![], vec![0, 1, 2, 3, 4]),
        (json!({"prefix": "red"}), vec![], vec![0, 1, 2, 3, 4]),
        (json!({"except": ["red car"]}), vec![4, 5], vec![0, 1, 2, 3]),
        (json!({"value": 7}), vec![], vec![4, 5]),
    ] {
        let filter = Filter::parse(&json!({"must": {"key": "a", "match": test}})).unwrap();
        let dead = Tombstones::default();
        let selection = select(&filter, Source { run: &run, dead: &dead }, &layout(), &indexes).unwrap();
        compare(&filter, &run, &dead, &selection);
        assert_eq!(selection.sure().iter().collect::<Vec<_>>(), sure, "{filter:?}");
        assert_eq!(selection.open().iter().collect::<Vec<_>>(), open, "{filter:?}");
    }
}

#[test]
fn an_index_whose_texts_are_cut_in_another_way_is_no_damage_and_not_used() {
    let run = run_of(&[json!({"a": "red car"}), json!({"a": "bus"})]);
    let open = |field: &Field, rows: u32, bytes: &[u8]| {
        // Read in place as numbers: at an address for them.
        let words: Vec<u64> = bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        let bytes: &'static [u8] = bytemuck::cast_slice(Vec::leak(words));
        FieldIndex::open(field, rows, Mapping::new(bytes))
    };
    for of in [FieldType::Text, FieldType::Keyword] {
        let field = field("a", of);
        let mut bytes = build_fields(&run, std::slice::from_ref(&field), &|| false).unwrap().unwrap().remove(0);
        assert!(open(&field, 2, &bytes).unwrap().is_some());
        cut_in_another_way(&mut bytes);
        match of {
            FieldType::Text => assert!(open(&field, 2, &bytes).unwrap().is_none()),
            _ => assert!(open(&field, 2, &bytes).is_err(), "nothing is cut there"),
        }
        assert!(open(&field, 3, &bytes).is_err(), "that alone is no damage");
        assert!(matches!(FieldIndex::in_memory(&field, 2, &bytes), Err(Error::Corrupt(_))));
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(open(&field, 2, &bytes).is_err(), "damaged as well");
    }
}
