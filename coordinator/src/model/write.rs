//! What a write does to a model shard.

use std::collections::BTreeSet;

use vicinal_common::api::{Effect, LoggedFilter, Selection, UpdateMode, WriteOp};
use vicinal_common::error::Result;
use vicinal_common::filter::Filter;
use vicinal_common::ids::LogIndex;
use vicinal_common::point::{Point, PointId};

use super::{ModelShard, matches};

/// Points that an edit of this model changes at a time.
const EDIT_PAGE: u64 = 10;

fn parsed(logged: &LoggedFilter) -> Filter {
    serde_json::from_str(&logged.json).unwrap()
}

impl ModelShard {
    pub(super) fn change(&mut self, index: LogIndex, op: WriteOp) -> Result<Effect> {
        let before = self.points.len() as u64;
        let mut effect = Effect::default();
        match op {
            WriteOp::Copies(copies) => {
                // It counts itself as an entry of the log.
                self.log -= 1;
                self.take_copies(&copies);
            }
            WriteOp::Maps(maps) => self.maps = self.maps.raised(maps),
            // What is published is up to the model.
            WriteOp::Feed(_) => {}
            WriteOp::Upsert(points) => {
                points.iter().for_each(|point| self.put(index, point.clone()));
                effect.affected = points.len() as u64;
            }
            WriteOp::Delete(ids) => {
                self.points.retain(|id, _| !ids.contains(id));
                effect.affected = before - self.points.len() as u64;
            }
            WriteOp::DeleteByFilter(logged) => {
                let filter = parsed(&logged);
                self.points.retain(|_, (_, point)| !matches(Some(&filter), point));
                effect.affected = before - self.points.len() as u64;
            }
            WriteOp::ConditionalUpsert { points, mode, filter } => {
                let filter = filter.as_ref().map(parsed);
                let mut written = BTreeSet::new();
                for point in points.iter() {
                    let is_wanted = match self.points.get(&point.id) {
                        Some((_, held)) => mode != UpdateMode::InsertOnly && matches(filter.as_ref(), held),
                        None => mode != UpdateMode::UpdateOnly,
                    };
                    if is_wanted {
                        written.insert(point.id);
                        self.put(index, point.clone());
                    }
                }
                effect.affected = written.len() as u64;
            }
            WriteOp::UpdateVectors { points, filter } => {
                let filter = filter.as_ref().map(parsed);
                let ids: Vec<PointId> = points.iter().map(|update| update.id).collect();
                self.edit_page(index, &ids, &mut effect, |point| {
                    if matches(filter.as_ref(), point) {
                        let update = points.iter().find(|update| update.id == point.id).unwrap();
                        point.vectors.extend(update.vectors.clone());
                    }
                    Ok(true)
                })?;
            }
            WriteOp::Edit { points, edit } => {
                let ids = match points {
                    Selection::Ids(ids) => ids,
                    Selection::Matching { filter, from } => {
                        let filter = parsed(&filter);
                        let held = self.points.range(from.unwrap_or(PointId::Num(0))..);
                        held.filter(|(_, (_, point))| matches(Some(&filter), point)).map(|(id, _)| *id).collect()
                    }
                };
                self.edit_page(index, &ids, &mut effect, |point| edit.apply(point))?;
            }
        }
        Ok(effect)
    }

    fn edit_page(
        &mut self,
        index: LogIndex,
        ids: &[PointId],
        effect: &mut Effect,
        mut edit: impl FnMut(&mut Point) -> Result<bool>,
    ) -> Result<()> {
        let mut edited = Vec::new();
        for id in ids {
            if effect.affected == EDIT_PAGE {
                effect.next = Some(*id);
                break;
            }
            match self.points.get(id) {
                Some((_, held)) => {
                    let mut point = held.clone();
                    if edit(&mut point)? {
                        edited.push(point);
                    }
                    effect.affected += 1;
                }
                None => effect.missing = effect.missing.or(Some(*id)),
            }
        }
        edited.into_iter().for_each(|point| self.put(index, point));
        Ok(())
    }

    fn put(&mut self, index: LogIndex, point: Point) {
        self.points.insert(point.id, (index, point));
    }
}
