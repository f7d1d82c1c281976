//! A client's change of points, checked, whichever request it came in.

use vicinal_common::api::{PointEdit, PointVectors, UpdateMode};
use vicinal_common::error::{Error, Result};
use vicinal_common::filter::Filter;
use vicinal_common::point::{Point, PointId};

use super::submit::{self, WriteSpec, Written};
use crate::shards::{Lookup, ShardAccess};

/// A change of points.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// Inserts points or replaces them whole.
    Upsert {
        /// The points; of two with one id the last counts.
        points: Vec<Point>,
        /// Which points.
        mode: UpdateMode,
        /// What points that are there must match to be replaced.
        filter: Option<Filter>,
    },
    /// Deletes points.
    Delete(Targets),
    /// Replaces some vectors of points that are there.
    UpdateVectors {
        /// The vectors.
        points: Vec<PointVectors>,
        /// What the points must match.
        filter: Option<Filter>,
    },
    /// Changes points that are there.
    Edit {
        /// Which.
        targets: Targets,
        /// What is done to each.
        edit: PointEdit,
    },
}

/// The points that a change is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// These.
    Ids(Vec<PointId>),
    /// All that match.
    Matching(Filter),
}

impl Update {
    /// The filters in it.
    pub fn filters_mut(&mut self) -> impl Iterator<Item = &mut Filter> {
        match self {
            Update::Upsert { filter, .. } | Update::UpdateVectors { filter, .. } => filter.as_mut(),
            Update::Delete(Targets::Matching(filter)) | Update::Edit { targets: Targets::Matching(filter), .. } => {
                Some(filter)
            }
            Update::Delete(Targets::Ids(_)) | Update::Edit { targets: Targets::Ids(_), .. } => None,
        }
        .into_iter()
    }

    fn is_empty(&self) -> bool {
        match self {
            Update::Upsert { points, .. } => points.is_empty(),
            Update::UpdateVectors { points, .. } => points.is_empty(),
            Update::Delete(Targets::Ids(ids)) | Update::Edit { targets: Targets::Ids(ids), .. } => ids.is_empty(),
            Update::Delete(Targets::Matching(_)) | Update::Edit { targets: Targets::Matching(_), .. } => false,
        }
    }
}

/// Carries out a change. `BadInput` when it names no points; `NotFound` when one that it changes is not there, and all
/// others are changed by then.
pub async fn apply(access: &ShardAccess, lookup: Lookup<'_>, spec: WriteSpec<'_>, update: Update) -> Result<Written> {
    if update.is_empty() {
        return Err(Error::BadInput("Empty update request".into()));
    }
    let written = match update {
        Update::Upsert { points, mode: UpdateMode::Upsert, filter: None } => {
            submit::upsert(access, lookup, spec, points).await?
        }
        Update::Upsert { points, mode, filter } => {
            submit::upsert_if(access, lookup, spec, points, mode, filter.as_ref()).await?
        }
        Update::Delete(Targets::Ids(ids)) => submit::delete(access, lookup, spec, ids).await?,
        Update::Delete(Targets::Matching(filter)) => submit::delete_by_filter(access, lookup, spec, &filter).await?,
        Update::UpdateVectors { points, filter } => {
            submit::update_vectors(access, lookup, spec, points, filter.as_ref()).await?
        }
        Update::Edit { targets: Targets::Ids(ids), edit } => submit::edit(access, lookup, spec, ids, edit).await?,
        Update::Edit { targets: Targets::Matching(filter), edit } => {
            submit::edit_by_filter(access, lookup, spec, &filter, edit).await?
        }
    };
    match written.missing {
        Some(id) => Err(Error::NotFound(format!("No point with id {id} found"))),
        None => Ok(written),
    }
}
