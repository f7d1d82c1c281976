//! Bodies that write: upsert as a list of points or as columns, delete by ids or by filter.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::limits::BATCH_POINTS_MAX;
use vicinal_common::payload::{Fields, Payload};
use vicinal_common::point::PointId;

use super::super::answer::Failure;
use super::vector::{BatchVectors, PointVector};
use super::{Unsupported, refuse_all};
use crate::write::{PointInput, VectorInput};

/// Body of an upsert.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct UpsertBody {
    points: Option<Bounded<PointBody>>,
    batch: Option<BatchBody>,
    #[serde(default)]
    shard_key: Unsupported,
    #[serde(default)]
    update_filter: Unsupported,
    update_mode: Option<UpdateMode>,
}

/// Which points an upsert may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UpdateMode {
    Upsert,
    InsertOnly,
    UpdateOnly,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PointBody {
    id: PointId,
    vector: PointVector,
    #[serde(default)]
    payload: PayloadBody,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    ids: Bounded<PointId>,
    vectors: BatchVectors,
    payloads: Option<Bounded<PayloadBody>>,
}

impl UpsertBody {
    /// The points, in the order sent.
    pub(in super::super) fn into_points(self) -> Result<Vec<PointInput>, Failure> {
        refuse_all(&[("shard_key", self.shard_key), ("update_filter", self.update_filter)])?;
        match self.update_mode {
            None | Some(UpdateMode::Upsert) => {}
            Some(UpdateMode::InsertOnly | UpdateMode::UpdateOnly) => {
                return Err(Error::BadInput("`update_mode` other than `upsert` is not supported yet".into()).into());
            }
        }
        match (self.points, self.batch) {
            (Some(Bounded(points)), None) => {
                let point =
                    |body: PointBody| PointInput { id: body.id, vector: body.vector.0, payload: body.payload.0 };
                Ok(points.into_iter().map(point).collect())
            }
            (None, Some(batch)) => batch.into_points(),
            (None, None) | (Some(_), Some(_)) => {
                let text = "Format error in JSON body: expected exactly one of `points` and `batch`";
                Err(Failure::new(axum::http::StatusCode::BAD_REQUEST, text))
            }
        }
    }
}

impl BatchBody {
    fn into_points(self) -> Result<Vec<PointInput>, Failure> {
        let Bounded(ids) = self.ids;
        let points = ids.len();
        let check = |what: &str, count: usize| match count == points {
            true => Ok(()),
            false => Err(Error::Validation {
                field: "batch".into(),
                message: format!("number of ids ({points}) and {what} ({count}) must be equal"),
            }),
        };
        let mut inputs: Vec<VectorInput> = Vec::with_capacity(points);
        match self.vectors {
            BatchVectors::Single(vectors) => {
                check("vectors", vectors.len())?;
                inputs.extend(vectors.into_iter().map(VectorInput::Single));
            }
            BatchVectors::Named(columns) => {
                let mut named: Vec<Vec<(String, Vec<f32>)>> = vec![Vec::with_capacity(columns.len()); points];
                for (name, column) in columns {
                    check(&format!("vectors `{name}`"), column.len())?;
                    for (of_point, vector) in named.iter_mut().zip(column) {
                        of_point.push((name.clone(), vector));
                    }
                }
                inputs.extend(named.into_iter().map(VectorInput::Named));
            }
        }
        let payloads = match self.payloads {
            Some(Bounded(payloads)) => {
                check("payloads", payloads.len())?;
                payloads
            }
            None => vec![PayloadBody::default(); points],
        };
        let columns = ids.into_iter().zip(inputs).zip(payloads);
        Ok(columns.map(|((id, vector), PayloadBody(payload))| PointInput { id, vector, payload }).collect())
    }
}

/// A payload: parsed once, kept as compact text. `null` is the empty one.
#[derive(Clone, Default)]
struct PayloadBody(Payload);

impl<'de> Deserialize<'de> for PayloadBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PayloadBody, D::Error> {
        let Some(fields) = Option::<Fields>::deserialize(deserializer)? else { return Ok(PayloadBody::default()) };
        Payload::from_fields(&fields).map(PayloadBody).map_err(|error| match error {
            Error::BadInput(text) => de::Error::custom(text),
            other => de::Error::custom(other),
        })
    }
}

/// A list of at most [`BATCH_POINTS_MAX`] items; a longer one is refused while it is read.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bounded<T>, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(std::marker::PhantomData))
    }
}

struct BoundedVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = Bounded<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {BATCH_POINTS_MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == BATCH_POINTS_MAX {
                return Err(de::Error::custom(format!("more than {BATCH_POINTS_MAX} points in one request")));
            }
            items.push(item);
        }
        Ok(Bounded(items))
    }
}

/// Body of a delete.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DeleteBody {
    points: Option<Bounded<PointId>>,
    filter: Option<Filter>,
    #[serde(default)]
    shard_key: Unsupported,
}

/// Which points to delete.
#[derive(Debug)]
pub(in super::super) enum Deletion {
    /// These.
    Ids(Vec<PointId>),
    /// Those that match.
    Filter(Filter),
}

impl DeleteBody {
    /// What is to be deleted.
    pub(in super::super) fn into_deletion(self) -> Result<Deletion, Failure> {
        self.shard_key.refuse("shard_key")?;
        match (self.points, self.filter) {
            (Some(Bounded(ids)), None) => Ok(Deletion::Ids(ids)),
            (None, Some(filter)) => Ok(Deletion::Filter(filter)),
            (None, None) | (Some(_), Some(_)) => {
                let text = "Format error in JSON body: expected exactly one of `points` and `filter`";
                Err(Failure::new(axum::http::StatusCode::BAD_REQUEST, text))
            }
        }
    }
}
