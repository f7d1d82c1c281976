//! Groups against their definition: one list of all points, cut into groups.

use proptest::prelude::*;
use serde_json::json;
use vicinal_common::api::StoredPoint;
use vicinal_common::ids::LogIndex;
use vicinal_common::payload::Payload;
use vicinal_common::point::Vectors;

use super::*;

const RANK: Rank = Rank::Score(ScoreOrder::SmallerIsBetter);

fn spec(limit: usize, size: usize) -> GroupSpec {
    GroupSpec { by: KeyPath::parse("g").unwrap(), size, limit }
}

/// A point whose score is its number.
fn hit(id: u64, group: &Value) -> Hit {
    let payload = json!({"g": group});
    let payload = Payload::from_fields(payload.as_object().unwrap()).unwrap();
    let point =
        StoredPoint { id: PointId::Num(id), version: LogIndex(1), payload, vectors: Vectors::new(), order: None };
    Hit { id: PointId::Num(id), version: LogIndex(1), score: id as f32, order: None, point: Some(point) }
}

fn hits(groups: &[Value]) -> Vec<Hit> {
    groups.iter().enumerate().map(|(id, group)| hit(id as u64, group)).collect()
}

/// The first of all that match.
fn ask(all: &[Hit], filter: &Filter, limit: usize) -> Vec<Hit> {
    let fields = |hit: &Hit| hit.point.as_ref().unwrap().payload.fields().unwrap();
    let matching = all.iter().filter(|hit| filter.matches(hit.id, &fields(hit), &|_| true));
    matching.take(limit).cloned().collect()
}

/// Groups of all hits, by rounds and fills without an end.
fn by_rounds(all: &[Hit], spec: &GroupSpec, rank: Rank) -> Vec<Group> {
    let mut grouping = Grouping::new(spec, rank);
    let asked = spec.hits();
    while grouping.wants_groups() {
        let filter = grouping.filter_of_round(None);
        if !grouping.take_round(ask(all, &filter, asked), asked).unwrap() {
            break;
        }
    }
    loop {
        let unfilled = grouping.unfilled();
        if unfilled.is_empty() {
            return grouping.finish();
        }
        for place in unfilled {
            let filter = grouping.filter_of_group(place, None);
            grouping.fill(place, ask(all, &filter, spec.size)).unwrap();
        }
    }
}

/// Groups of all hits, by one pass.
fn by_definition(all: &[Hit], spec: &GroupSpec) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for hit in all {
        for id in group_ids(&spec.by, hit).unwrap() {
            let place = groups.iter().position(|group| group.id == id).unwrap_or(groups.len());
            if place == groups.len() {
                groups.push(Group { id, hits: Vec::new() });
            }
            if groups[place].hits.len() < spec.size {
                groups[place].hits.push(hit.clone());
            }
        }
    }
    groups.truncate(spec.limit);
    groups
}

#[test]
fn strings_and_integers_name_groups() {
    let ids = |value: Value| {
        serde_json::to_value(GroupId::of_point(&spec(1, 1).by, &json!({"g": value}).as_object().unwrap().clone()))
            .unwrap()
    };
    assert_eq!(ids(json!("a")), json!(["a"]));
    assert_eq!(ids(json!([3, "3", -1, 3])), json!([3, "3", -1]));
    assert_eq!(ids(json!(u64::MAX)), json!([u64::MAX]));
    for none in [json!(1.0), json!(true), json!({"a": 1}), json!(null), json!([]), json!(["a", true]), json!([["a"]])] {
        assert_eq!(ids(none.clone()), json!([]), "{none}");
    }
}

#[test]
fn a_group_stands_for_a_point_of_another_collection() {
    let uuid = "936da01f-9abd-4d9d-80c7-02af85c822a8";
    assert_eq!(GroupId::Text(uuid.into()).point().unwrap().to_string(), uuid);
    assert_eq!(GroupId::Text("7".into()).point(), None);
    assert_eq!(GroupId::Integer(7).point(), Some(PointId::Num(7)));
    assert_eq!(GroupId::Integer(-7).point(), None);
    assert_eq!(GroupId::Large(u64::MAX).point(), Some(PointId::Num(u64::MAX)));
}

#[test]
fn a_large_group_does_not_hide_the_others() {
    let mut groups = vec![json!("big"); 20];
    groups.extend([json!("b"), json!(5), json!(["b", "big"]), json!(5.5), json!("c")]);
    let (all, spec) = (hits(&groups), spec(4, 2));
    let found = by_rounds(&all, &spec, RANK);
    let shown: Vec<(Value, Vec<f32>)> = found
        .iter()
        .map(|group| (serde_json::to_value(&group.id).unwrap(), group.hits.iter().map(|hit| hit.score).collect()))
        .collect();
    let expected = [
        (json!("big"), vec![0.0, 1.0]),
        (json!("b"), vec![20.0, 22.0]),
        (json!(5), vec![21.0]),
        (json!("c"), vec![24.0]),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn limits_are_checked_by_name() {
    for (limit, size, text) in [
        (0, 1, "[limit: value 0"),
        (1, 0, "[group_size: value 0"),
        (50_001, 2, "limit 50001 times group_size 2 is above"),
    ] {
        let error = spec(limit, size).check().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(spec(50_000, 2).check().is_ok());
}

fn any_value() -> impl Strategy<Value = Value> {
    let one = prop_oneof![
        6 => (0i64..6).prop_map(Value::from),
        6 => proptest::sample::select(vec!["a", "b", "c"]).prop_map(Value::from),
        1 => Just(json!(u64::MAX)),
        1 => Just(json!(u64::MAX - 1)),
        1 => Just(json!(0.5)),
        1 => Just(json!(true)),
        1 => Just(Value::Null),
    ];
    prop_oneof![3 => one.clone(), 1 => proptest::collection::vec(one, 0..4).prop_map(Value::from)]
}

proptest! {
    #[test]
    fn rounds_find_the_groups_of_one_long_list(
        groups in proptest::collection::vec(any_value(), 0..60),
        limit in 1usize..8,
        size in 1usize..5,
    ) {
        let (all, spec) = (hits(&groups), spec(limit, size));
        let is_large = |group: &Group| matches!(group.id, GroupId::Large(_));
        for rank in [RANK, Rank::AsFound] {
            let (found, expected) = (by_rounds(&all, &spec, rank), by_definition(&all, &spec));
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!(&found.id, &expected.id);
                // Those have no exact filter: neighbours may have taken places.
                if is_large(found) {
                    prop_assert_eq!(&found.hits[0], &expected.hits[0]);
                } else {
                    prop_assert_eq!(&found.hits, &expected.hits);
                }
            }
        }
    }
}
