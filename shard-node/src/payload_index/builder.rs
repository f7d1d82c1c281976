//! Builds the indexes of several fields of a run in one pass over its payloads.

use roaring::RoaringBitmap;
use serde_json::Value;
use vicinal_common::error::Result;
use vicinal_common::filter::{has_null, is_empty};
use vicinal_common::payload::{Fields, parse_fields};

use super::Field;
use super::format::{State, encode};
use super::keys::Collector;
use super::rows::RowBits;
use crate::segment::Run;

/// The files' bytes of the given fields of a run, in the same order. `stop` is asked now and then; `None` when it says
/// so. `Corrupt` when a payload cannot be read.
pub fn build_fields(run: &dyn Run, fields: &[Field], stop: &dyn Fn() -> bool) -> Result<Option<Vec<Vec<u8>>>> {
    /// Rows between two questions whether to stop.
    const STRIDE: u32 = 4_096;
    let mut builders: Vec<FieldBuilder<'_>> = fields.iter().map(FieldBuilder::new).collect();
    for row in 0..run.rows() {
        if row % STRIDE == 0 && stop() {
            return Ok(None);
        }
        let payload = parse_fields(run.payload(row))?;
        builders.iter_mut().for_each(|builder| builder.push(row, &payload));
    }
    Ok(Some(builders.into_iter().map(|builder| builder.finish(run.rows())).collect()))
}

struct FieldBuilder<'a> {
    field: &'a Field,
    values: Collector,
    states: [RoaringBitmap; State::COUNT],
}

impl<'a> FieldBuilder<'a> {
    fn new(field: &'a Field) -> FieldBuilder<'a> {
        FieldBuilder { field, values: Collector::new(field), states: Default::default() }
    }

    /// Rows come in ascending order.
    fn push(&mut self, row: u32, payload: &Fields) {
        let FieldBuilder { field, values, states } = self;
        let mut note = |state: State, holds: bool| {
            if holds {
                states[state as usize].insert(row);
            }
        };
        field.path.visit(payload, &mut |value| {
            note(State::Found, true);
            note(State::Empty, is_empty(value));
            note(State::Filled, !is_empty(value));
            note(State::WithNull, has_null(value));
            note(State::WithoutNull, !has_null(value));
            // As in a filter: an array stands for its elements, one level deep, and null passes no test of a value.
            let elements = match value {
                Value::Array(elements) => elements.as_slice(),
                single => std::slice::from_ref(single),
            };
            for element in elements.iter().filter(|element| !element.is_null()) {
                note(State::Others, !values.push(field.of, element, row));
            }
        });
    }

    fn finish(mut self, rows: u32) -> Vec<u8> {
        let sorted = self.values.sort();
        let (mut keyed, mut many) = (RowBits::new(rows), RowBits::new(rows));
        for row in sorted.texts_of.as_ref().unwrap_or(&sorted.rows) {
            if !keyed.insert(*row) {
                many.insert(*row);
            }
        }
        self.states[State::Keyed as usize] = keyed.bitmap();
        self.states[State::Many as usize] = many.bitmap();
        for state in &mut self.states {
            state.optimize();
        }
        encode(self.field, rows, &self.states, &sorted)
    }
}
