//! What the clients do to points that have copies: every operation there is, on ids, by filter and in batches.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::client::{COLLECTION, Client};
use super::model::Value;
use super::points::{Change, Targets};

/// Most points of one operation.
const POINTS_MAX: u64 = 12;

/// What a request makes of points: of each the values one after the other.
type Changed = BTreeMap<u64, Vec<Value>>;

/// One operation.
struct Step {
    change: Change,
    targets: Targets,
    serial: u64,
    filling: String,
}

impl Step {
    fn body(&self) -> Json {
        self.change.body(&self.targets, self.serial, &self.filling)
    }
}

impl Client {
    /// Changes points of its own.
    pub(super) async fn change_points(&mut self) {
        let mut changed = Changed::new();
        let count = if self.draw(10) == 0 { 2 + self.draw(3) } else { 1 };
        let steps: Vec<Step> = (0..count).filter_map(|_| self.plan(&mut changed)).collect();
        let (method, path, body) = match steps.as_slice() {
            [] => return,
            [step] => {
                let (method, path) = step.change.route();
                (method, path, step.body())
            }
            steps => {
                let operation = |step: &Step| json!({ step.change.name(): step.body() });
                let operations: Vec<Json> = steps.iter().map(operation).collect();
                ("POST", "points/batch", json!({ "operations": operations }))
            }
        };
        let path = format!("/collections/{COLLECTION}/{path}?wait=true&timeout=5");
        let answer = self.call(method, &path, &body).await;
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        if (400..405).contains(&status) {
            self.violated(format_args!("was refused {path} {body} with {status}: {}", answer.unwrap_or_default().json));
        }
        // Whatever is not an acknowledgement leaves open what happened.
        let is_acked = status == 200;
        for step in &steps {
            let (change, serial, targets) = (step.change, step.serial, &step.targets);
            self.note(format_args!("{change:?} {serial} {targets:?}: {status}"));
            if let (Targets::Group(group, _), false) = (targets, is_acked) {
                self.leave(*group);
            }
        }
        self.written(&changed, is_acked);
    }

    /// No point comes into this group any more.
    fn leave(&mut self, group: u64) {
        for own in self.groups.iter_mut().filter(|own| **own == group) {
            *own = self.next_group;
            self.next_group += 1;
        }
    }

    fn draw_group(&mut self) -> u64 {
        let place = self.draw(self.groups.len() as u64) as usize;
        self.groups[place]
    }

    fn draw_change(&mut self) -> Change {
        match self.draw(24) {
            0..9 => Change::Upsert(self.draw_group()),
            9..11 => Change::UpsertIf(self.draw_group(), self.draw_group()),
            11..14 => Change::UpdateVectors,
            14..17 => Change::SetPayload,
            17 => Change::OverwritePayload(self.draw_group()),
            18 => Change::DeletePayload,
            19 => Change::ClearPayload,
            20..22 => Change::DeleteVectors,
            _ => Change::Delete,
        }
    }

    /// Draws an operation, and notes what it makes of points that those before it in its request have `changed`. None if
    /// there is nothing to be done.
    fn plan(&mut self, changed: &mut Changed) -> Option<Step> {
        let change = self.draw_change();
        let value = |client: &Client, changed: &Changed, id: &u64| {
            let value = changed.get(id).and_then(|values| values.last().copied());
            value.unwrap_or_else(|| client.work.model.known(*id).acked)
        };
        let targets = match change.is_by_filter() && self.draw(6) == 0 {
            true => Targets::Group(self.draw_group(), self.retired.iter().copied().collect()),
            false => {
                let ids: BTreeSet<u64> = (0..=self.draw(POINTS_MAX)).map(|_| self.pick()).collect();
                // Changing a point that is not there is an error.
                let may_be = |id: &u64| change.makes_points() || value(self, changed, id).is_some();
                Targets::Ids(ids.into_iter().filter(may_be).collect())
            }
        };
        let ids: Vec<u64> = match &targets {
            Targets::Ids(ids) => ids.clone(),
            Targets::Group(group, _) => {
                let is_in = |id: &&u64| value(self, changed, id).is_some_and(|held| held.group == Some(*group));
                self.active.iter().filter(is_in).copied().collect()
            }
        };
        if ids.is_empty() {
            return None;
        }
        let serial = self.work.model.next_serial();
        for id in ids {
            let after = change.of(value(self, changed, &id), serial);
            changed.entry(id).or_default().push(after);
        }
        // Enough of it for segments of a few writes.
        let filling = "x".repeat(self.draw(600) as usize);
        Some(Step { change, targets, serial, filling })
    }
}
