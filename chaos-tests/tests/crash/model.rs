//! What one writer knows about its points.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Ids a writer owns.
pub(crate) const KEYS: u64 = 600;
/// Groups a writer's ids fall into; a group can be deleted by filter.
pub(crate) const GROUPS: u64 = 40;

/// The serial of the write that made the point; `None`: there is no such point.
type State = Option<u64>;

/// The possible states of each id of one writer.
pub(crate) struct Model {
    pub(crate) writer: u64,
    pub(crate) next_serial: u64,
    states: BTreeMap<u64, BTreeSet<State>>,
}

impl Model {
    pub(crate) fn new(writer: u64) -> Model {
        Model { writer, next_serial: 1, states: (0..KEYS).map(|key| (key, BTreeSet::from([None]))).collect() }
    }

    /// The REST id of a key: numbers and UUIDs take turns.
    pub(crate) fn id(&self, key: u64) -> Value {
        let number = self.writer * KEYS + key;
        if key.is_multiple_of(2) { json!(number) } else { json!(format!("00000000-0000-4000-8000-{number:012x}")) }
    }

    /// Keys of a group.
    pub(crate) fn group(group: u64) -> impl Iterator<Item = u64> {
        (0..KEYS).filter(move |key| key % GROUPS == group)
    }

    /// A write is about to be sent: from now on its outcome is possible.
    pub(crate) fn begin(&mut self, keys: &[u64], state: State) {
        for key in keys {
            self.states.entry(*key).or_default().insert(state);
        }
    }

    /// The write was acknowledged: its outcome is certain.
    pub(crate) fn acknowledge(&mut self, keys: &[u64], state: State) {
        for key in keys {
            self.states.insert(*key, BTreeSet::from([state]));
        }
    }

    /// Ids that certainly have this state.
    pub(crate) fn certain(&self, key: u64) -> Option<State> {
        let states = &self.states[&key];
        (states.len() == 1).then(|| states.first().copied().flatten())
    }

    /// Points that are there; call it on a settled model.
    pub(crate) fn live(&self) -> usize {
        self.states.values().filter(|states| states.iter().any(Option::is_some)).count()
    }

    /// Checks what the server holds against what is possible, and takes it over.
    pub(crate) fn settle(&mut self, points: &[Value]) {
        let mut found: BTreeMap<String, &Value> = BTreeMap::new();
        for point in points.iter().filter(|point| point["payload"]["writer"] == json!(self.writer)) {
            assert!(found.insert(point["id"].to_string(), point).is_none(), "twice: {point}");
        }
        for key in 0..KEYS {
            let id = self.id(key);
            let point = found.remove(&id.to_string());
            let state = point.map(|point| point["payload"]["serial"].as_u64().expect("every point has a serial"));
            let possible = &self.states[&key];
            assert!(
                possible.contains(&state),
                "writer {} id {id}: the server holds {state:?}, possible is {possible:?}",
                self.writer
            );
            if let (Some(point), Some(serial)) = (point, state) {
                let vector: Vec<f32> = serde_json::from_value(point["vector"].clone()).expect("a list of numbers");
                assert_eq!(vector, super::writer::vector(self.writer, serial, key), "vector of {point}");
                assert_eq!(point["payload"], super::writer::payload(self.writer, serial, key), "payload of {id}");
            }
            self.states.insert(key, BTreeSet::from([state]));
        }
        assert!(found.is_empty(), "points that writer {} never wrote: {found:?}", self.writer);
    }
}
