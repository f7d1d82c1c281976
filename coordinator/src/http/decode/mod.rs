//! The JSON forms of request bodies.

mod change;
mod clusters;
mod collection;
mod formula;
mod groups;
mod hnsw;
mod index;
mod matrix;
mod older;
mod points;
mod quantization;
mod query;
mod routing;
mod search;
mod search_params;
mod settings;
#[cfg(test)]
mod shape_tests;
mod strict;
mod update;
mod vector;

pub(super) use change::ChangeBody;
pub(super) use clusters::{LIMIT_DEFAULT, NearestClustersBody, SampleClustersBody, SampleWanted, TrainClustersBody};
pub(super) use collection::{AliasesBody, CreateBody, NamePlace, check_name};
pub(super) use groups::{GroupsBody, GroupsWanted, QueryGroupsBody, RecommendGroupsBody, RecordsOf, SearchGroupsBody};
pub(super) use index::{IndexBody, NewIndex, index_path};
pub(super) use matrix::MatrixBody;
pub(super) use older::{DiscoverBody, OlderBatchBody, OlderBody, RecommendBody, SearchBody};
pub(super) use points::UpsertBody;
pub(super) use search::{CountBody, FacetBody, QueryBatchBody, QueryBody, RetrieveBody, ScrollBody, Wanted};
pub(super) use update::{
    BatchUpdateBody, ClearPayloadBody, DeleteBody, DeletePayloadBody, DeleteVectorsBody, OverwritePayloadBody,
    SetPayloadBody, UpdateBody, UpdateVectorsBody,
};

use std::fmt;

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::answer::Failure;

/// A field of the API that we know but do not support: absent, null and empty are fine, anything else is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unsupported {
    is_set: bool,
}

impl Unsupported {
    /// Refuses a value that is set, by the field's name.
    pub(super) fn refuse(self, name: &str) -> Result<(), Failure> {
        if !self.is_set {
            return Ok(());
        }
        Err(Failure::new(StatusCode::BAD_REQUEST, format!("Wrong input: `{name}` is not supported yet")))
    }
}

/// Refuses each of the fields that is set.
pub(super) fn refuse_all(fields: &[(&str, Unsupported)]) -> Result<(), Failure> {
    fields.iter().try_for_each(|(name, field)| field.refuse(name))
}

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unsupported, D::Error> {
        deserializer.deserialize_any(UnsupportedVisitor)
    }
}

struct UnsupportedVisitor;

impl<'de> Visitor<'de> for UnsupportedVisitor {
    type Value = Unsupported;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Unsupported, E> {
        Ok(Unsupported { is_set: false })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unsupported, E> {
        Ok(Unsupported { is_set: true })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unsupported, E> {
        Ok(Unsupported { is_set: true })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unsupported, E> {
        Ok(Unsupported { is_set: true })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unsupported, E> {
        Ok(Unsupported { is_set: true })
    }

    fn visit_str<E>(self, _: &str) -> Result<Unsupported, E> {
        Ok(Unsupported { is_set: true })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unsupported, A::Error> {
        let mut is_set = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            is_set = true;
        }
        Ok(Unsupported { is_set })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unsupported, A::Error> {
        let mut is_set = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_set = true;
        }
        Ok(Unsupported { is_set })
    }
}
