//! Changes of points that are there: in pages, each done whole or not at all.

use std::sync::Arc;

use serde_json::json;
use vicinal_common::api::{Effect, LoggedFilter, PointEdit, PointVectors, Selection, WriteOp};
use vicinal_common::disk::FaultyDisk;
use vicinal_common::error::Error;
use vicinal_common::filter::EVALUATOR_VERSION;
use vicinal_common::limits::{EDIT_PAGE_BYTES, PAYLOAD_BYTES_MAX};
use vicinal_common::payload::Payload;
use vicinal_common::point::{Point, PointId, UNNAMED, Vectors};

use super::super::{ApplyEntry, Shard, ShardEnv, ShardOptions};
use super::harness::{create, env, filter, mark, write_of};

/// Three of these are more than a page.
const HEAVY: usize = EDIT_PAGE_BYTES * 2 / 5;

struct Driven {
    shard: Arc<Shard>,
    _env: ShardEnv,
    index: u64,
}

impl Driven {
    /// A shard with the heavy points 0, 2, 4, 6, 8.
    fn new() -> Driven {
        let mut env = env(FaultyDisk::new(1));
        env.options = ShardOptions { seal_bytes: 1 << 30, fresh_bytes_max: 1 << 30, ..env.options };
        let mut driven = Driven { shard: create(&env).unwrap(), _env: env, index: 0 };
        for id in 0..5 {
            driven.apply(WriteOp::Upsert(Arc::new(vec![heavy(2 * id)]))).unwrap();
        }
        driven
    }

    fn apply(&mut self, op: WriteOp) -> Result<Effect, Error> {
        self.index += 1;
        let entry = ApplyEntry { mark: mark(self.index), payload: write_of(op, self.index) };
        self.shard.apply(vec![entry]).unwrap().remove(0).outcome
    }

    /// Applies a write and all that is left of it. The effects.
    fn apply_all(&mut self, mut op: WriteOp) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            let effect = self.apply(op.clone()).unwrap();
            effects.push(effect);
            assert!(effects.len() < 10, "pages without end");
            match effect.next {
                Some(next) => op = op.continued(next),
                None => return effects,
            }
        }
    }

    fn count(&self, json: serde_json::Value) -> u64 {
        self.shard.view().count(Some(&filter(json))).unwrap()
    }
}

fn payload(value: serde_json::Value) -> Payload {
    Payload::from_fields(value.as_object().unwrap()).unwrap()
}

fn heavy(id: u64) -> Point {
    let vectors = Vectors::from([(UNNAMED.to_owned(), vec![id as f32; 6].into())]);
    Point { id: PointId::Num(id), vectors, payload: payload(json!({"old": true, "x": "y".repeat(HEAVY)})) }
}

fn set(value: serde_json::Value) -> PointEdit {
    PointEdit::SetPayload { payload: payload(value), key: None }
}

fn matching(json: serde_json::Value) -> Selection {
    Selection::Matching { filter: LoggedFilter::new(&filter(json)).unwrap(), from: None }
}

fn pages(effects: &[Effect]) -> Vec<(u64, Option<PointId>)> {
    effects.iter().map(|effect| (effect.affected, effect.next)).collect()
}

#[test]
fn an_edit_of_much_is_done_in_pages() {
    let mut driven = Driven::new();
    let old = || json!({"must": {"key": "old", "match": {"value": true}}});
    let expected = [(3, Some(PointId::Num(6))), (2, None)];

    let effects = driven.apply_all(WriteOp::Edit { points: matching(json!({})), edit: set(json!({"new": 1})) });
    assert_eq!(pages(&effects), expected);
    assert_eq!(driven.count(json!({"must": {"key": "new", "match": {"value": 1}}})), 5);

    // The edit takes the points out of the filter's reach: each page goes on behind the last.
    let effects = driven.apply_all(WriteOp::Edit { points: matching(old()), edit: set(json!({"old": null})) });
    assert_eq!(pages(&effects), expected);
    assert_eq!(driven.count(old()), 0);

    let vectors =
        |id| PointVectors { id: PointId::Num(id), vectors: Vectors::from([("b".to_owned(), vec![1.0; 3].into())]) };
    let updates: Vec<PointVectors> = (0..9).map(vectors).collect();
    let expected = [(3, Some(PointId::Num(5))), (2, None)];
    let effects = driven.apply_all(WriteOp::UpdateVectors { points: Arc::new(updates), filter: None });
    assert_eq!(pages(&effects), expected);
    assert_eq!(
        effects.iter().map(|effect| effect.missing).collect::<Vec<_>>(),
        [1, 5].map(|id| Some(PointId::Num(id)))
    );
    assert_eq!(driven.count(json!({"must": {"has_vector": "b"}})), 5);

    let ids: Vec<PointId> = (0..10).map(PointId::Num).collect();
    let effects = driven.apply_all(WriteOp::Edit { points: Selection::Ids(ids), edit: PointEdit::ClearPayload });
    assert_eq!(pages(&effects), expected);
    assert_eq!(driven.count(json!({"must": {"is_empty": {"key": "x"}}})), 5);
    assert_eq!(driven.shard.view().count(None).unwrap(), 5);
}

#[test]
fn a_refused_page_changes_nothing() {
    let mut driven = Driven::new();
    driven.apply(WriteOp::Upsert(Arc::new(vec![Point { payload: Payload::EMPTY, ..heavy(1) }]))).unwrap();
    let before = driven.shard.view().digest().unwrap();
    let too_much = set(json!({"y": "z".repeat(PAYLOAD_BYTES_MAX - HEAVY)}));
    let all = Selection::Ids([1, 2].map(PointId::Num).into());
    let error = driven.apply(WriteOp::Edit { points: all, edit: too_much.clone() }).unwrap_err();
    assert!(error.to_string().contains("point 2"), "{error}");
    let text = LoggedFilter { evaluator: EVALUATOR_VERSION, json: "{\"must\": 1}".into() };
    let unreadable = Selection::Matching { filter: text, from: None };
    assert!(driven.apply(WriteOp::Edit { points: unreadable, edit: PointEdit::ClearPayload }).is_err());
    let bad = PointVectors { id: PointId::Num(2), vectors: Vectors::from([("b".to_owned(), vec![1.0].into())]) };
    assert!(driven.apply(WriteOp::UpdateVectors { points: Arc::new(vec![bad]), filter: None }).is_err());
    assert_eq!(driven.shard.view().digest().unwrap(), before);
    let one = Selection::Ids(vec![PointId::Num(1)]);
    assert_eq!(driven.apply(WriteOp::Edit { points: one, edit: too_much }), Ok(Effect::of(1)));
}

#[test]
fn what_is_not_changed_is_not_written_again() {
    let mut driven = Driven::new();
    let before = driven.shard.view().digest().unwrap();
    let edit = PointEdit::DeletePayload(vec!["nothing".into()]);
    let effects = driven.apply_all(WriteOp::Edit { points: matching(json!({})), edit });
    assert_eq!(effects.iter().map(|effect| effect.affected).sum::<u64>(), 5);
    assert_eq!(driven.shard.view().digest().unwrap(), before, "the same versions");
}
