//! Applying changes of points that are there: an entry sees what it has done itself, and rewrites a page of points at most.

use std::collections::BTreeMap;

use vicinal_common::api::{
    Effect, LoggedFilter, PointEdit, PointParts, PointVectors, Selection, StoredPoint, UpdateMode, VectorSelector,
};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::limits::EDIT_PAGE_BYTES;
use vicinal_common::payload::Fields;
use vicinal_common::point::{Point, PointId};
use vicinal_common::vector::Vector;

use super::view::View;
use super::write::parse_filter;

/// What an entry comes to: the points to write and its effect, or why it is refused. The outer error: this replica must
/// stop.
type Planned = Result<Result<(Vec<Point>, Effect)>>;

fn all_parts() -> PointParts {
    PointParts { payload: true, vectors: VectorSelector::All }
}

fn point_of(stored: StoredPoint) -> Point {
    Point { id: stored.id, vectors: stored.vectors, payload: stored.payload }
}

fn bytes_of(point: &Point) -> usize {
    const POINT: usize = 64;
    let vectors = point.vectors.values().map(Vector::bytes);
    POINT + point.payload.as_bytes().len() + vectors.sum::<usize>()
}

fn matches(filter: &Filter, point: &Point) -> Result<bool> {
    let fields = if filter.needs_payload() { point.payload.fields()? } else { Fields::new() };
    Ok(filter.matches(point.id, &fields, &|name| point.vectors.contains_key(name)))
}

/// Runs the rest with the filter of an entry, or ends with why it cannot be read.
macro_rules! parsed {
    ($logged:expr) => {
        match $logged.map(parse_filter).transpose()?.transpose() {
            Ok(filter) => filter,
            Err(refused) => return Ok(Err(refused)),
        }
    };
}

/// A page of points being rewritten.
#[derive(Default)]
struct Page {
    points: Vec<Point>,
    effect: Effect,
    bytes: usize,
}

impl Page {
    /// Whether the point that comes next is left to another entry: never the first of a page.
    fn ends_before(&mut self, id: PointId) -> bool {
        let is_full = self.bytes >= EDIT_PAGE_BYTES;
        if is_full {
            self.effect.next = Some(id);
        }
        is_full
    }

    /// Takes a point that had so many bytes before.
    fn take(&mut self, point: Point, bytes: usize, is_changed: bool) {
        self.bytes += bytes.max(bytes_of(&point));
        self.effect.affected += 1;
        if is_changed {
            self.points.push(point);
        }
    }

    fn planned(self) -> Planned {
        Ok(Ok((self.points, self.effect)))
    }
}

impl View {
    fn point(&self, id: PointId) -> Result<Option<Point>> {
        Ok(self.retrieve(&[id], &all_parts())?.pop().map(point_of))
    }

    /// The points of a conditional upsert that are to be written.
    pub(super) fn plan_upsert(&self, points: &[Point], mode: UpdateMode, filter: Option<&LoggedFilter>) -> Planned {
        let filter = parsed!(filter);
        let mut written: BTreeMap<PointId, &Point> = BTreeMap::new();
        for point in points {
            let stored;
            let current = match written.get(&point.id) {
                Some(own) => Some(*own),
                None => {
                    stored = self.point(point.id)?;
                    stored.as_ref()
                }
            };
            let is_wanted = match (mode, current) {
                (UpdateMode::InsertOnly, Some(_)) | (UpdateMode::UpdateOnly, None) => false,
                (UpdateMode::Upsert | UpdateMode::InsertOnly, None) => true,
                (UpdateMode::Upsert | UpdateMode::UpdateOnly, Some(current)) => {
                    filter.as_ref().map_or(Ok(true), |filter| matches(filter, current))?
                }
            };
            if is_wanted {
                written.insert(point.id, point);
            }
        }
        let points: Vec<Point> = written.into_values().cloned().collect();
        let effect = Effect::of(points.len() as u64);
        Ok(Ok((points, effect)))
    }

    /// The points that an update of vectors rewrites.
    pub(super) fn plan_vectors(&self, updates: &[PointVectors], filter: Option<&LoggedFilter>) -> Planned {
        let filter = parsed!(filter);
        let mut page = Page::default();
        for update in updates {
            if page.ends_before(update.id) {
                break;
            }
            let Some(mut point) = self.point(update.id)? else {
                page.effect.missing = page.effect.missing.or(Some(update.id));
                continue;
            };
            if filter.as_ref().map_or(Ok(true), |filter| matches(filter, &point))? {
                point.vectors.extend(update.vectors.clone());
                page.take(point, 0, true);
            }
        }
        page.planned()
    }

    /// The points that an edit rewrites.
    pub(super) fn plan_edit(&self, points: &Selection, edit: &PointEdit) -> Planned {
        let mut page = Page::default();
        let mut refused = None;
        let mut take = |page: &mut Page, mut point: Point| {
            let bytes = bytes_of(&point);
            match edit.apply(&mut point) {
                Ok(is_changed) => {
                    page.take(point, bytes, is_changed);
                    Ok(true)
                }
                Err(error @ Error::Corrupt(_)) => Err(error),
                Err(error) => {
                    refused = Some(error);
                    Ok(false)
                }
            }
        };
        match points {
            Selection::Ids(ids) => {
                for id in ids {
                    if page.ends_before(*id) {
                        break;
                    }
                    let Some(point) = self.point(*id)? else {
                        page.effect.missing = page.effect.missing.or(Some(*id));
                        continue;
                    };
                    if !take(&mut page, point)? {
                        break;
                    }
                }
            }
            Selection::Matching { filter, from } => {
                let filter = parsed!(Some(filter));
                let mut see =
                    |stored: StoredPoint| Ok(!page.ends_before(stored.id) && take(&mut page, point_of(stored))?);
                self.visit(*from, filter.as_ref(), &all_parts(), &mut see)?;
            }
        }
        match refused {
            Some(refused) => Ok(Err(refused)),
            None => page.planned(),
        }
    }
}
